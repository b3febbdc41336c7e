"""`SurrogateEvolution`: a GA whose offspring are ranked by a model before any is trained.

`encoding` turns points into numbers, `warping` fitness values into targets, `model` learns from
both, `proposals` makes offspring, and `strategy` puts them together.
"""

from __future__ import annotations

from evonas.strategies.surrogate.encoding import Encoding
from evonas.strategies.surrogate.model import fitted_model
from evonas.strategies.surrogate.strategy import SurrogateEvolution

__all__ = ["Encoding", "SurrogateEvolution", "fitted_model"]
