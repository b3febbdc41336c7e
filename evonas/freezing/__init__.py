"""Which layers of a model to freeze."""

from __future__ import annotations

from evonas.freezing.blocks import Block, find_blocks
from evonas.freezing.examples import Examples
from evonas.freezing.mask import (
    AppliedMask,
    applied_mask,
    apply_mask,
    as_mask,
    frozen_prefix,
    trainable_parameter_groups,
    trainable_share,
)
from evonas.freezing.prefix import PrefixSession, PrefixSource
from evonas.freezing.prefix_decision import ReuseDecision, decide_reuse
from evonas.freezing.prefix_store import PrefixStore

__all__ = [
    "AppliedMask",
    "Block",
    "Examples",
    "PrefixSession",
    "PrefixSource",
    "PrefixStore",
    "ReuseDecision",
    "applied_mask",
    "apply_mask",
    "as_mask",
    "decide_reuse",
    "find_blocks",
    "frozen_prefix",
    "trainable_parameter_groups",
    "trainable_share",
]
