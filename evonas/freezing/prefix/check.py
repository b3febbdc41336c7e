"""Whether one cut trains the same network as the plain model: found out by trying it."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evonas.execution.torch_env import random_state
from evonas.freezing._calls import rng_kept
from evonas.freezing.prefix.cut import Cut, Probe, Trace
from evonas.freezing.prefix.replay import (
    NotStorable,
    Replay,
    dtypes_at,
    fill,
    gather,
    level_specs,
    prefix_output,
)
from evonas.freezing.prefix.store import StoredLevel, TensorSpec
from evonas.freezing.torch_workarounds import padded_tensors
from evonas.training import autocast, forward
from evonas.training.data.examples import Examples
from evonas.training.passes import modes_kept

__all__ = ["FAILURES", "CutCheck", "in_a_line", "probe_ids", "probes_for"]

_OUTPUT_TOLERANCE = 1e-3  # relative to the largest value: another batch rounds by 1e-6
_GRADIENT_TOLERANCE = 2e-3
_GRADIENT_FLOOR = 1e-5  # of the whole gradient's norm: below it is rounding (key biases)
_STEP = 0.05  # how far the trial step moves each parameter, relative to its norm

FAILURES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a model may raise when it is fed placeholders that it cannot use."""


def in_a_line(error: Exception) -> str:
    """Returns what an error says in its first line, with its class."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def probes_for(examples: Examples) -> tuple[Probe, Probe]:
    """Returns two batches, of two short and of three longer examples; needs five examples."""
    return _probe(examples, probe_ids(examples)[:2]), _probe(examples, probe_ids(examples)[2:])


def _probe(examples: Examples, ids: Tensor) -> Probe:
    return Probe(examples.gather(ids), len(ids), examples.width(ids))


def probe_ids(examples: Examples) -> Tensor:
    """Returns the numbers of the five: first the two short ones."""
    if examples.layout is None:
        return torch.arange(5)
    lengths = examples.layout.lengths
    order = lengths.sort(stable=True).indices
    start = max(2, min(len(order) // 2, len(order) - 3))  # of middling length: cheap to run
    if lengths[order[start + 2]] == lengths[order[1]]:
        start = len(order) - 3  # the two batches must differ in length if any can
    return torch.cat([order[:2], order[start : start + 3]])


class CutCheck:
    """Checks cuts, each on a model that is masked for it.

    Args:
        model: As each training starts with it; its weights, modes and gradients are put back.
        trace: Of its calls.
        examples: The training examples, of which it takes five.
        precision: As the trainings'.
        seed: Of the random numbers drawn meanwhile.
    """

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
        self.ids = probe_ids(examples)
        self.parts = (self.ids[:2], self.ids[2:])
        # In eval mode a mask changes nothing, so one pass serves every depth.
        with modes_kept(model), rng_kept(model, seed), padded_tensors(model):
            began = time.thread_time()  # what other programs do beside it does not count
            self.expected = self._evaluated()
            self.seconds_a_pass = time.thread_time() - began

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
                specs = level_specs(cut, self.examples, self._dtypes(cut))
                device = self.examples.device
                drawn = random_state(device)
                level = self._level(cut, specs, self.parts)
                again = self._level(cut, specs, [self.ids])
                if level is None or again is None:
                    return "the prefix's output requires a gradient"
                if random_state(device) != drawn:  # a layer that is dropped once in 50 passes
                    return "the prefix draws random numbers in training"
                rows = gather(level, cut, self.examples, self.ids)
                if not all(map(_close, gather(again, cut, self.examples, self.ids), rows)):
                    return "the prefix's output for an example is not always the same"
                replay.add(cut)
                return self._compared(replay, cut, level, trainable)
            except NotStorable as error:
                return str(error)
            except FAILURES as error:
                return in_a_line(error)
            finally:
                replay.remove()

    def _dtypes(self, cut: Cut) -> list[torch.dtype]:
        """Returns those of the prefix's output in float32, in which is compared.

        Raises:
            NotStorable: In the precision of the trainings it has none that can be stored.
        """
        number = self.trace.number(cut.start, frozenset())
        inputs = self.examples.gather(self.ids)
        with autocast(self.precision, self.examples.device):
            found = dtypes_at(self.model, cut, number, inputs)
        if self.precision == "float32":
            return found
        return dtypes_at(self.model, cut, number, inputs)

    def _level(
        self, cut: Cut, specs: Sequence[TensorSpec], batches: Sequence[Tensor]
    ) -> StoredLevel | None:
        """Returns the prefix's output for `batches`; None where it requires a gradient."""
        number = self.trace.number(cut.start, frozenset())
        level = StoredLevel(specs)
        level.tensors = tuple(
            torch.zeros(shape, dtype=dtype, device=self.examples.device)
            for shape, dtype in level.specs
        )
        for ids in batches:
            outputs = prefix_output(self.model, cut.path, number, self.examples.gather(ids))
            if any(output.requires_grad for output in outputs):
                return None
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
        # After a step all shows that shows before it, and what begins at zero, too.
        with behind():
            _step(trainable, self._pass(trainable).gradients)
        plain = self._pass(trainable)
        with behind():
            reused = self._pass(trainable)
        if not _close(plain.outputs, reused.outputs):
            return "outputs differ after a step"
        if not _same_gradients(plain.gradients, reused.gradients):
            return "gradients differ after a step"
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
        gradients = [p.grad for p in trainable]  # the next pass makes new ones
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
