"""`SurrogateEvolution`: a GA whose offspring are ranked by a model before any is trained.

`encoding` turns points into numbers, `warping` fitness values into targets, `model` learns from
both, `proposals` makes offspring, and `strategy` puts them together.
"""

from __future__ import annotations

from evonas.strategies.surrogate.strategy import SurrogateEvolution

__all__ = ["SurrogateEvolution"]
