"""Which layers of a model to freeze."""

from __future__ import annotations

from evonas.freezing.blocks import Block, find_blocks

__all__ = ["Block", "find_blocks"]
