"""Steps of a training recorded as CUDA graphs: one launch a step in place of some hundred."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

from evonas.training.data.structure import map_tensors, tensors_in
from evonas.training.step import LossFunction, TrainingStep, use_fused

__all__ = ["WARM_UP", "GraphedStep", "as_graphs", "step_of"]

WARM_UP = 3
"""Steps of a shape that are taken one operation at a time before one is recorded: they make what is
made once (the optimizer's averages, the handles of libraries)."""

MOST_SHAPES = 4
"""Shapes of batches that are recorded; others, as the last batch of an epoch, are not."""

_RECORDED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_KNOWN = ("torch.nn.", "evonas.nas.")

Replay = Callable[[], Tensor]


def step_of(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_function: LossFunction,
    *,
    grad_clip: float | None,
    precision: str,
    cuda_graphs: bool | None,
) -> TrainingStep:
    """Returns the step of a training that begins, in the fastest way that changes nothing.

    Args:
        model: On its device.
        optimizer: Switched to its fused form; see `use_fused`.
        loss_function: See `evonas.training.fit`, as for the others.
        grad_clip: Greatest norm of the gradient.
        precision: `float32` or `bfloat16`.
        cuda_graphs: See `as_graphs`.
    """
    use_fused(optimizer)
    step = TrainingStep(model, optimizer, loss_function, grad_clip=grad_clip, precision=precision)
    return as_graphs(step, cuda_graphs)


def as_graphs(step: TrainingStep, wanted: bool | None = None) -> TrainingStep:
    """Returns a step that records itself where that is wanted and can be; else `step` itself.

    It can be on a CUDA device, with torch's SGD, Adam or AdamW in the fused form (see `use_fused`).

    Args:
        step: Of a training that begins.
        wanted: None: where model and loss are made of modules of torch and of `evonas.nas`, without
            hooks, which do the same in each step. True: the caller knows it of others.
    """
    can_be = (
        step.device.type == "cuda"
        and type(step.optimizer) in _RECORDED
        and all(group.get("fused") for group in step.optimizer.param_groups)
    )
    if wanted is None:
        wanted = can_be and _does_the_same_each_time(step)
    return GraphedStep(step) if wanted and can_be else step


class GraphedStep(TrainingStep):
    """Takes the first steps as `step` does, then records one and replays it.

    What it computes is what `step` does, by the same kernels. The learning rate may change from
    step to step; where another setting of the optimizer does, that step is taken as before. The
    model must do the same in each step: no Python value that changes, none read from the device.
    One that reads such a value cannot be recorded; its training goes on without, which is said.

    Args:
        step: What is recorded: forward pass, loss, backward pass, optimizer.
        record: Runs a function once for the record, returns what replays it.
    """

    def __init__(
        self, step: TrainingStep, record: Callable[[Replay], Replay] | None = None
    ) -> None:
        super().__init__(
            step.model, step.optimizer, step.loss_function, grad_clip=step.grad_clip,
            precision=step.precision,
        )  # fmt: skip
        self._record = record or _recorded
        self._seen: Counter[Hashable] = Counter()
        self._replays: dict[Hashable, Callable[[Any, Any], Tensor]] = {}
        self._rates = [
            torch.zeros((), dtype=torch.float32, device=self.device)
            for _ in self.optimizer.param_groups
        ]
        self._settings: list[dict[str, Any]] = []
        self._gave_up = False

    def __call__(self, inputs: Any, targets: Any, *, is_first: bool = False) -> Tensor:
        """Returns the loss of the batch before the step."""
        shape = _shape_of(inputs), _shape_of(targets)
        replay = self._replays.get(shape)
        if None in shape:
            return super().__call__(inputs, targets, is_first=is_first)
        if replay is None:
            self._seen[shape] += 1
            if is_first or not self._is_due(shape):
                return super().__call__(inputs, targets, is_first=is_first)
            replay = self._recorded_for(inputs, targets)
            if replay is None:
                return super().__call__(inputs, targets)
            self._replays[shape] = replay
        if self._settings != _settings_of(self.optimizer):
            return super().__call__(inputs, targets)
        for rate, group in zip(self._rates, self.optimizer.param_groups, strict=True):
            rate.fill_(float(group["lr"]))
        return replay(inputs, targets)

    def _is_due(self, shape: Hashable) -> bool:
        return (
            not self._gave_up
            and self._seen[shape] > WARM_UP
            and len(self._replays) < MOST_SHAPES
            and (not self._settings or self._settings == _settings_of(self.optimizer))
        )

    def _recorded_for(self, inputs: Any, targets: Any) -> Callable[[Any, Any], Tensor] | None:
        held = map_tensors(torch.clone, inputs), map_tensors(torch.clone, targets)
        groups = self.optimizer.param_groups
        before = [(group["lr"], group.get("capturable")) for group in groups]
        self._settings = _settings_of(self.optimizer)
        step = super().__call__
        for rate, group in zip(self._rates, groups, strict=True):
            group["lr"] = rate
            if "capturable" in group:
                group["capturable"] = True
        try:
            run = self._record(lambda: step(*held))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._gave_up = True
            first = str(error).partition("\n")[0]
            warnings.warn(
                f"a step of {type(self.model).__name__} cannot be recorded as a CUDA graph "
                f"({first}): its training goes on without, as exactly and more slowly",
                stacklevel=2,
            )
            return None
        finally:
            for (lr, capturable), group in zip(before, groups, strict=True):
                group["lr"] = lr
                if "capturable" in group:
                    group["capturable"] = capturable

        def replay(inputs: Any, targets: Any) -> Tensor:
            for ours, theirs in zip(held, (inputs, targets), strict=True):
                for to, source in zip(tensors_in(ours), tensors_in(theirs), strict=True):
                    to.copy_(source)
            return run().clone()

        return replay


def _recorded(step: Replay) -> Replay:
    graph = torch.cuda.CUDAGraph()
    # Other threads of this process may use the device meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        loss = step()

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


def _does_the_same_each_time(step: TrainingStep) -> bool:
    loss = step.loss_function
    parts = [*step.model.modules(), *(loss.modules() if isinstance(loss, nn.Module) else ())]
    written_in = {type(part).__module__ for part in parts}
    if not isinstance(loss, nn.Module):
        written_in.add(getattr(loss, "__module__", ""))
    changed = [
        *(getattr(part, name) for part in parts for name in _HOOKS),
        *("forward" in vars(part) for part in parts),
        *(p._backward_hooks or p._post_accumulate_grad_hooks for p in step.model.parameters()),
    ]
    return all(name.startswith(_KNOWN) for name in written_in) and not any(changed)


def _shape_of(tree: Any) -> Hashable:
    """Returns what a record is of; None of a structure that holds other things than tensors."""
    entries = list(tree.values()) if isinstance(tree, dict) else tree
    if not isinstance(entries, (list, tuple)):
        entries = [entries]
    if not all(isinstance(entry, Tensor) for entry in entries):
        return None
    names = tuple(tree) if isinstance(tree, dict) else ()
    return names, tuple((t.shape, t.stride(), t.dtype) for t in entries)


def _settings_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    left_out = ("params", "lr", "capturable", "initial_lr")
    return [
        {name: value for name, value in group.items() if name not in left_out}
        for group in optimizer.param_groups
    ]
