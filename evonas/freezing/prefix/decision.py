"""Whether trainings may start behind a frozen prefix: found out by trying it, depth by depth."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from evonas.freezing.blocks import Block
from evonas.freezing.mask import apply_mask
from evonas.freezing.prefix.check import FAILURES, CutCheck, in_a_line, probe_ids, probes_for
from evonas.freezing.prefix.cut import NoCut, Trace
from evonas.training.data.examples import Examples

__all__ = ["ReuseDecision", "decide_reuse", "first_blocks", "first_decision"]

_log = logging.getLogger(__name__)

# What a check costs: as much as the training of so many examples (BERT-base, 64 tokens: 10 to 19;
# ResNet-18, 64 pixels, for which five are a small batch: 30 to 57; one thread of an EPYC 9004), or
# as so many evaluations of the five.
_EXAMPLES_A_CHECK = 20
_PASSES_A_CHECK = 10
_LEAST_SECONDS = 1.0  # of processor time, which checks for one mask may always take
_TOO_LONG = "a check would take longer than a tenth of a training"
_EVERY_EPOCH = "frozen prefixes are computed in every epoch"


@dataclass(frozen=True)
class ReuseDecision:
    """At which depths the output of a frozen prefix may be computed once and used again.

    It belongs to a run and grows with it: before a mask is trained whose depth is not settled, the
    driver calls `decide_reuse` and keeps `to_json()` with the run's settings. What is settled for a
    depth never changes, so a training comes to the same whenever it is made again.

    Attributes:
        cuts: Depth (how many blocks from the first) to the module whose call ends the prefix, and
            which of the ways to cut there it is.
        refused: Depth to the reason why not; depth 0 stands for all.

    Example:
        >>> decision = ReuseDecision({1: ("stem", 0), 3: ("layer1", 0)}, {2: "…"})
        >>> decision.deepest(2), ReuseDecision.from_json(decision.to_json()) == decision
        (1, True)
        >>> decision.is_settled(3), decision.is_settled(4)
        (True, False)
    """

    cuts: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    refused: Mapping[int, str] = field(default_factory=dict)

    def deepest(self, depth: int) -> int:
        """Returns the greatest depth up to `depth` that may be used; 0 where none may.

        It is looked for downwards, as far as depths are settled.
        """
        depth = self.end(depth)
        return depth if depth in self.cuts else 0

    def is_settled(self, depth: int) -> bool:
        """Whether it is known how a training behind so many frozen blocks starts."""
        end = self.end(depth)
        return 0 in self.refused or end == 0 or end in self.cuts or end in self.refused

    def reason(self, depth: int) -> str:
        """Returns why a settled depth may not be used; empty where it may."""
        return "" if depth in self.cuts else self.refused.get(0, self.refused.get(depth, ""))

    def end(self, depth: int) -> int:
        """Returns where to look no further below `depth`."""
        while depth in self.refused and self.refused[depth] != _TOO_LONG and depth > 0:
            depth -= 1
        return depth

    def to_json(self) -> dict[str, Any]:
        """Returns plain data."""
        return {
            "cuts": {str(depth): list(cut) for depth, cut in self.cuts.items()},
            "refused": {str(depth): reason for depth, reason in self.refused.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ReuseDecision:
        """Returns the decision that `to_json` wrote."""
        return cls(
            {int(depth): (path, variant) for depth, (path, variant) in data["cuts"].items()},
            {int(depth): reason for depth, reason in data["refused"].items()},
        )


def first_blocks(n: int) -> str:
    """Returns so many blocks in words."""
    return "the first block" if n == 1 else f"the first {n} blocks"


def first_decision(model_name: str, examples: Examples, *, augmented: bool) -> ReuseDecision:
    """Returns what can be said of all depths before any is tried; logs where nothing may be reused.

    Args:
        model_name: For the log.
        examples: The training examples.
        augmented: Whether training draws random augmentations.
    """
    reason = "the training data are augmented at random" if augmented else _unfit(examples)
    if reason is None:
        return ReuseDecision()
    _log.warning("%s: %s: %s", model_name, _EVERY_EPOCH, reason)
    return ReuseDecision({}, {0: reason})


def decide_reuse(
    model: nn.Module,
    blocks: Sequence[Block],
    examples: Examples,
    depths: Iterable[int] | None = None,
    *,
    known: ReuseDecision | None = None,
    precision: str = "float32",
    n_examples: int | None = None,
    seed: int = 0,
) -> ReuseDecision:
    """Returns how trainings behind frozen prefixes start, equal to plain training up to rounding.

    A depth k is tried in float32 on five examples with the first k blocks frozen, in train mode:
    the prefix output does not require a gradient; no random numbers are drawn for it (torch's,
    Python's or numpy's); it repeats, also in another batch with other padding; and behind it the
    model's outputs and the gradients of all trainable parameters are those of the plain model under
    the same random numbers, after a step. Equal outputs alone prove nothing: a loose parameter that
    is trained shows only in its gradient. Where a depth is not equal, the next shallower one is
    tried.

    Equal means equal up to rounding: kernels are chosen by the size of a batch, and a prefix is
    computed in other batches than the training's, so its output differs by about 1e-7 relative in
    float32. Adam divides by the size of a gradient, so where that is near 0, weights may differ by
    up to the learning rate after a step.

    In `precision`, the prefix output has one dtype in training and evaluation.

    Args:
        model: As each training starts with it; its weights, modes and gradients are put back.
        blocks: What `find_blocks` returned for it.
        examples: The training examples.
        depths: To settle. None: all.
        known: What was decided before; it stays.
        precision: As the trainings'.
        n_examples: That one training goes through, over all of its epochs. What is tried for a
            depth takes at most a tenth of that, or a second of processor time; a depth that would
            take longer is refused, and no shallower one is tried in its place. None: no limit.
        seed: Of the random numbers drawn meanwhile; torch's own are put back.

    Raises:
        ValueError: The blocks are of another model.
    """
    known = known or ReuseDecision()
    if depths is None:
        depths = range(1, _deepest(model, blocks) + 1)
    unsettled = [depth for depth in depths if not known.is_settled(depth)]
    if not unsettled:
        return known
    name = type(model).__name__
    was_said = any(known.deepest(depth) == 0 for depth in known.refused)
    try:
        trace = Trace(model, blocks, probes_for(examples))
        check = CutCheck(model, trace, examples, precision, seed)
    except (NoCut, *FAILURES) as error:
        # Where the model itself fails, its training will say so.
        reason = str(error) if isinstance(error, NoCut) else in_a_line(error)
        _log.warning("%s: %s: %s", name, _EVERY_EPOCH, reason)
        return ReuseDecision(known.cuts, {**known.refused, 0: reason})
    cuts, refused = dict(known.cuts), dict(known.refused)
    found = ReuseDecision(cuts, refused)
    for depth in unsettled:
        n_left = _affordable(check, n_examples)
        while not found.is_settled(depth):
            n_left -= _try(found.end(depth), check, blocks, cuts, refused, n_left)
        _say(name, found, depth, was_said)
        was_said |= found.deepest(depth) == 0
    return found


def _unfit(examples: Examples) -> str | None:
    if len(examples) < 5:
        return f"{len(examples)} examples are too few to try it (5 are needed)"
    ids = probe_ids(examples)
    first, second = (examples.gather(ids) for _ in range(2))
    columns = [(first, second)]
    if isinstance(first, Mapping):
        columns = [(first[name], second[name]) for name in first]
    if any(bool(a.isnan().any()) for a, _ in columns):
        return "the inputs hold NaN"
    if not all(torch.equal(a, b) for a, b in columns):
        return "the transform of the training data is random"
    return None


def _deepest(model: nn.Module, blocks: Sequence[Block]) -> int:
    """Returns how many blocks may be frozen with something left to train."""
    owned = {name for block in blocks for name in block.parameters}
    beside = any(p.requires_grad for n, p in model.named_parameters() if n not in owned)
    return len(blocks) if beside else len(blocks) - 1


def _affordable(check: CutCheck, n_examples: int | None) -> float:
    """Returns how many cuts may be checked for one depth."""
    if n_examples is None:
        return math.inf
    seconds = _PASSES_A_CHECK * check.seconds_a_pass
    in_a_tenth = 0.1 * n_examples // _EXAMPLES_A_CHECK
    return max(in_a_tenth, _LEAST_SECONDS // max(seconds, 1e-6))


def _try(
    depth: int,
    check: CutCheck,
    blocks: Sequence[Block],
    cuts: dict[int, tuple[str, int]],
    refused: dict[int, str],
    n_left: float,
) -> int:
    """Settles one depth, in `cuts` or in `refused`; returns how many cuts were checked for it."""
    reasons: list[str] = []
    mask = [int(position < depth) for position in range(len(blocks))]
    with apply_mask(check.model, mask, blocks=blocks):
        try:
            candidates = check.trace.cuts(depth)
        except NoCut as error:
            refused[depth] = str(error)
            return 0
        for variant, cut in enumerate(candidates):
            if len(reasons) >= n_left:
                refused[depth] = _TOO_LONG
                return len(reasons)
            reason = check.run(cut)
            if reason is None:
                cuts[depth] = cut.path, variant
                return len(reasons) + 1
            reasons.append(reason)
    refused[depth] = reasons[0]
    return len(reasons)


def _say(name: str, decision: ReuseDecision, depth: int, was_said: bool) -> None:
    """Logs how trainings behind so many blocks start: a warning for the first that gain nothing."""
    start, which, reason = decision.deepest(depth), first_blocks(depth), decision.reason(depth)
    if start == depth:
        _log.info("%s: the output of %s is computed once: equal up to rounding", name, which)
    elif start:
        used = first_blocks(start)
        _log.info("%s: the output of %s is computed once, of %s not: %s", name, used, which, reason)
    else:
        level = logging.INFO if was_said else logging.WARNING
        _log.log(level, "%s: the output of %s is computed in every epoch: %s", name, which, reason)
