"""Search spaces: named genes, the conditions between them, and constraints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evonas.arguments import unknown_names
from evonas.space.canonical import canonical_json
from evonas.space.search_space import SearchSpace

__all__ = ["SearchSpace", "canonical_json"]

if not TYPE_CHECKING:  # a type checker would find every name
    __getattr__ = unknown_names(__name__, __all__)
