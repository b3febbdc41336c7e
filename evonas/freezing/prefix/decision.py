"""Whether trainings may start behind a frozen prefix: found out once a run, by trying it."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from evonas.freezing._calls import rng_kept
from evonas.freezing.blocks import Block
from evonas.freezing.mask import apply_mask
from evonas.freezing.prefix.cut import Cut, NoCut, Probe, Trace
from evonas.freezing.prefix.replay import (
    NotStorable,
    Replay,
    dtypes_at,
    fill,
    gather,
    level_specs,
    prefix_output,
)
from evonas.freezing.prefix.store import StoredLevel
from evonas.freezing.torch_workarounds import padded_tensors
from evonas.training import autocast, forward
from evonas.training.data.examples import Examples
from evonas.training.passes import modes_kept

__all__ = ["ReuseDecision", "decide_reuse", "probes_for"]

_log = logging.getLogger(__name__)

_OUTPUT_TOLERANCE = 1e-3  # relative to the largest value: another batch rounds by 1e-6
_GRADIENT_TOLERANCE = 2e-3
_GRADIENT_FLOOR = 1e-5  # of the whole gradient's norm: below it is rounding (key biases)
_FIRST_DEPTHS = 12
_LEAST_SECONDS = 5.0  # which trying may always take
_STEP = 0.05  # how far the trial step moves each parameter, relative to its norm
# What a model may raise when it is fed placeholders that it cannot use.
_FAILURES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class ReuseDecision:
    """At which depths the output of a frozen prefix may be computed once and used again.

    It belongs to a run: make it in the driver with `decide_reuse`, keep `to_json()` with the run's
    settings, and give it to every trial, so that all of them train alike.

    Attributes:
        cuts: Depth (how many blocks from the first) to the module whose call ends the prefix, and
            which of the ways to cut there it is.
        refused: Depth to the reason why not; depth 0 stands for all.

    Example:
        >>> decision = ReuseDecision({1: ("stem", 0), 3: ("layer1", 0)}, {2: "…"})
        >>> decision.deepest(2), ReuseDecision.from_json(decision.to_json()) == decision
        (1, True)
    """

    cuts: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    refused: Mapping[int, str] = field(default_factory=dict)

    def deepest(self, depth: int) -> int:
        """Returns the greatest depth up to `depth` that may be used; 0 where none may."""
        return max((d for d in self.cuts if d <= depth), default=0)

    @property
    def message(self) -> str:
        """One line for people."""
        if 0 in self.refused:
            return f"frozen prefixes are computed in every epoch: {self.refused[0]}"
        if not self.refused:
            return "frozen prefixes are computed once: equal up to rounding at every depth"
        depth = min(self.refused)
        at = ", ".join(map(str, self.refused))
        return (
            f"frozen prefixes are computed once where that is equal, which it is not at depths "
            f"{at} of {len(self.refused) + len(self.cuts)} (at {depth}: {self.refused[depth]})"
        )

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


def decide_reuse(
    model: nn.Module,
    blocks: Sequence[Block],
    examples: Examples,
    *,
    augmented: bool = False,
    precision: str = "float32",
    n_epochs: int | None = None,
    seed: int = 0,
) -> ReuseDecision:
    """Returns at which depths reuse is equal to plain training up to rounding; logs it once.

    Tried in float32 on five examples, for each depth k with the first k blocks frozen, in train
    mode: the prefix output does not require a gradient; it repeats, also in another batch with
    other padding; and behind it the model's outputs and the gradients of all trainable parameters
    are those of the plain model under the same random numbers, before and after a step. Equal
    outputs alone prove nothing: a loose parameter that is trained shows only in its gradient.

    Equal means equal up to rounding: kernels are chosen by the size of a batch, and a prefix is
    computed in other batches than the training's, so its output differs by about 1e-7 relative in
    float32. Adam divides by the size of a gradient, so where that is near 0, weights may differ by
    up to the learning rate after a step.

    In `precision`, the prefix output has one dtype in training and evaluation.

    Args:
        model: As each training starts with it; its weights, modes and gradients are put back.
        blocks: What `find_blocks` returned for it.
        examples: The training examples.
        augmented: Whether training draws random augmentations: then nothing may be reused.
        precision: As the trainings'.
        n_epochs: Of a training, a tenth of whose time the trying may take: depths that would come
            later are refused. None: no limit.
        seed: Of the random numbers drawn meanwhile; torch's own are put back.

    Raises:
        ValueError: The blocks are of another model.
    """
    if augmented:
        decision = ReuseDecision({}, {0: "the training data are augmented at random"})
    elif reason := _unfit(examples):
        decision = ReuseDecision({}, {0: reason})
    else:
        decision = _tried(model, blocks, examples, precision, n_epochs, seed)
    level = logging.WARNING if 0 in decision.refused else logging.INFO
    _log.log(level, "%s: %s", type(model).__name__, decision.message)
    return decision


def probes_for(examples: Examples) -> tuple[Probe, Probe]:
    """Returns two batches, of two short and of three longer examples; needs five examples."""
    return _probe(examples, _probe_ids(examples)[:2]), _probe(examples, _probe_ids(examples)[2:])


def _probe(examples: Examples, ids: Tensor) -> Probe:
    return Probe(examples.gather(ids), len(ids), examples.width(ids))


def _probe_ids(examples: Examples) -> Tensor:
    if examples.layout is None:
        return torch.arange(5)
    lengths = examples.layout.lengths
    order = lengths.sort(stable=True).indices
    start = max(2, min(len(order) // 2, len(order) - 3))  # of middling length: cheap to run
    if lengths[order[start + 2]] == lengths[order[1]]:
        start = len(order) - 3  # the two batches must differ in length if any can
    return torch.cat([order[:2], order[start : start + 3]])


def _unfit(examples: Examples) -> str | None:
    if len(examples) < 5:
        return f"{len(examples)} examples are too few to try it (5 are needed)"
    ids = _probe_ids(examples)
    first, second = (examples.gather(ids) for _ in range(2))
    columns = [(first, second)]
    if isinstance(first, Mapping):
        columns = [(first[name], second[name]) for name in first]
    if any(bool(a.isnan().any()) for a, _ in columns):
        return "the inputs hold NaN"
    if not all(torch.equal(a, b) for a, b in columns):
        return "the transform of the training data is random"
    return None


def _tried(
    model: nn.Module,
    blocks: Sequence[Block],
    examples: Examples,
    precision: str,
    n_epochs: int | None,
    seed: int,
) -> ReuseDecision:
    cuts: dict[int, tuple[str, int]] = {}
    refused: dict[int, str] = {}
    try:
        trace = Trace(model, blocks, probes_for(examples))
    except NoCut as error:
        return ReuseDecision({}, {0: str(error)})
    trial = _CutCheck(model, trace, examples, precision, seed)
    longest = math.inf
    if n_epochs is not None:
        longest = max(_LEAST_SECONDS, 0.1 * n_epochs * len(examples) * trial.seconds_an_example())
    began = time.monotonic()
    for depth in _depths(model, blocks):
        if time.monotonic() - began > longest:
            refused[depth] = "to try it would take longer than a tenth of a training"
            continue
        mask = [int(position < depth) for position in range(len(blocks))]
        with apply_mask(model, mask, blocks=blocks):
            try:
                candidates = trace.cuts(depth)
            except NoCut as error:
                refused[depth] = str(error)
                continue
            for variant, cut in enumerate(candidates):
                reason = trial.run(cut)
                if reason is None:
                    cuts[depth] = (cut.path, variant)
                    refused.pop(depth, None)
                    break
                refused.setdefault(depth, reason)
    if not cuts:
        return ReuseDecision({}, {0: refused.get(1, "there is no depth to try"), **refused})
    return ReuseDecision(cuts, refused)


def _depths(model: nn.Module, blocks: Sequence[Block]) -> list[int]:
    """Returns the depths to try: all of the first 12, then so many that it stays affordable.

    A mask that is deeper than one of them starts behind the next shallower one.
    """
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    deepest = 0
    for depth, block in enumerate(blocks, 1):
        trainable -= set(block.parameters)
        deepest = depth if trainable else deepest  # without a head, one block must be left
    spread = range(_FIRST_DEPTHS + 4, deepest, max(1, -(-deepest // _FIRST_DEPTHS)))
    return sorted({*range(1, min(deepest, _FIRST_DEPTHS) + 1), *spread, deepest} - {0})


class _CutCheck:
    """Tries cuts, each on a model that is masked for it."""

    def __init__(
        self, model: nn.Module, trace: Trace, examples: Examples, precision: str, seed: int
    ) -> None:
        self.model = model
        self.precision = precision
        self.trace = trace
        self.examples = examples
        self.seed = seed
        # Stored from two batches, compared on one: with other neighbours, and padded wherever
        # lengths differ at all, since what a model makes of padding is not stored.
        self.ids = _probe_ids(examples)
        self.parts = (self.ids[:2], self.ids[2:])
        # In eval mode a mask changes nothing, so one pass serves every depth.
        with modes_kept(model), rng_kept(model, seed), padded_tensors(model):
            self.expected = self._evaluated()

    def seconds_an_example(self) -> float:
        """Returns how long a training step takes for one example, measured on five."""
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        with modes_kept(self.model), _gradients_kept(trainable), padded_tensors(self.model):
            self.model.train()
            began = time.monotonic()
            self._pass(trainable)
        return (time.monotonic() - began) / len(self.ids)

    def run(self, cut: Cut) -> str | None:
        """Returns why the cut is not equal to plain training, or None."""
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        with (
            modes_kept(self.model),
            rng_kept(self.model, self.seed),
            _kept([*trainable, *self.model.buffers()]),
            _gradients_kept(trainable),
        ):
            self.model.train()
            replay = Replay(self.model)
            try:
                with autocast(self.precision, self.examples.device):
                    number = self.trace.number(cut.start, frozenset())
                    dtypes_at(self.model, cut, number, self.examples.gather(self.ids))
                level = self._level(cut, self.parts)
                again = self._level(cut, [self.ids])
                if isinstance(level, str) or isinstance(again, str):
                    return "the prefix's output requires a gradient"
                rows = gather(level, cut, self.examples, self.ids)
                if not all(map(_close, gather(again, cut, self.examples, self.ids), rows)):
                    return "the prefix's output for an example is not always the same"
                replay.add(cut)
                return self._compared(replay, cut, level, trainable)
            except NotStorable as error:
                return str(error)
            except _FAILURES as error:
                return f"{type(error).__name__}: {error}".splitlines()[0]
            finally:
                replay.remove()

    def _level(self, cut: Cut, batches: Sequence[Tensor]) -> StoredLevel | str:
        number = self.trace.number(cut.start, frozenset())
        probe = self.examples.gather(self.ids)
        dtypes = dtypes_at(self.model, cut, number, probe)
        level = StoredLevel(level_specs(cut, self.examples, dtypes))
        level.tensors = tuple(
            torch.zeros(shape, dtype=dtype, device=self.examples.device)
            for shape, dtype in level.specs
        )
        for ids in batches:
            outputs = prefix_output(self.model, cut.path, number, self.examples.gather(ids))
            if any(output.requires_grad for output in outputs):
                return "requires a gradient"
            fill(level, cut, self.examples, ids, outputs)
        return level

    def _compared(
        self, replay: Replay, cut: Cut, level: StoredLevel, trainable: Sequence[nn.Parameter]
    ) -> str | None:
        def behind() -> AbstractContextManager[None]:
            tensors = functools.partial(gather, level, cut, self.examples, self.ids)
            return replay.running(cut, len(self.ids), self.examples.width(self.ids), tensors)

        with behind():
            evaluated = self._evaluated()
        if not _close(self.expected, evaluated):
            return "outputs in eval mode differ"
        for when in ("at the start", "after a step"):
            plain = self._pass(trainable)
            with behind():
                reused = self._pass(trainable)
            if not _close(plain.outputs, reused.outputs):
                return f"outputs differ {when}"
            if not _same_gradients(plain.gradients, reused.gradients):
                return f"gradients differ {when}"
            _step(trainable, plain.gradients)
        return None

    def _evaluated(self) -> Tensor:
        self.model.eval()
        with torch.no_grad():
            outputs = forward(self.model, self.examples.gather(self.ids)).float()
        self.model.train()
        return outputs

    def _pass(self, trainable: Sequence[nn.Parameter]) -> _Pass:
        """Returns one forward and backward pass; BatchNorm's statistics are put back."""
        inputs = self.examples.gather(self.ids)
        for parameter in trainable:
            parameter.grad = None
        with _kept(self.model.buffers()), rng_kept(self.model, self.seed):
            outputs = forward(self.model, inputs).float()
            # Any loss does, if each output has another weight in it.
            weights = torch.linspace(-1.0, 1.3, outputs.numel(), device=outputs.device)
            (outputs.flatten() * weights).sum().backward()  # type: ignore[no-untyped-call]
        gradients = [None if p.grad is None else p.grad.detach().clone() for p in trainable]
        return _Pass(outputs.detach(), gradients)


@dataclass
class _Pass:
    outputs: Tensor
    gradients: list[Tensor | None]


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    return a.numel() == 0 or bool((a - b).abs().max() <= _OUTPUT_TOLERANCE * a.abs().max() + 1e-6)


def _same_gradients(a: Sequence[Tensor | None], b: Sequence[Tensor | None]) -> bool:
    whole = math.sqrt(sum(float(g.norm()) ** 2 for g in a if g is not None))
    for first, second in zip(a, b, strict=True):
        if (first is None) != (second is None):
            return False
        if first is not None and second is not None:
            allowed = _GRADIENT_TOLERANCE * float(first.norm()) + _GRADIENT_FLOOR * whole
            if not float((first - second).norm()) <= allowed:  # NaN is not the same
                return False
    return True


def _step(trainable: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    """Moves the weights far enough that what depends on them, and should not, shows."""
    with torch.no_grad():
        for parameter, gradient in zip(trainable, gradients, strict=True):
            if gradient is not None and (norm := float(gradient.norm())) > 0:
                size = float(parameter.norm()) + 0.01 * math.sqrt(parameter.numel())
                parameter.sub_(gradient, alpha=_STEP * size / norm)


@contextmanager
def _kept(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Puts the values of tensors back at the end."""
    saved = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in saved:
                tensor.copy_(value)


@contextmanager
def _gradients_kept(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    saved = [(parameter, parameter.grad) for parameter in parameters]
    try:
        yield
    finally:
        for parameter, gradient in saved:
            parameter.grad = gradient
