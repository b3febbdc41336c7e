"""Search spaces: named genes, the conditions between them, and constraints."""

from __future__ import annotations

from evonas.space.canonical import canonical_json
from evonas.space.search_space import SearchSpace

__all__ = ["SearchSpace", "canonical_json"]
