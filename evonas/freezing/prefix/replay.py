"""Forward passes that start behind a prefix, and those that stop there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from evonas.freezing.prefix.cut import Cut, LeafRule
from evonas.freezing.prefix.store import StoredLevel, TensorSpec
from evonas.training.data.examples import Examples
from evonas.training.passes import call_model, modes_kept

__all__ = [
    "NotStorable",
    "Replay",
    "dtypes_at",
    "fill",
    "fill_order",
    "gather",
    "level_specs",
    "prefix_output",
]

_FILL_BATCH = 64
_FILL_TOKENS = 4096


class NotStorable(RuntimeError):
    """What a prefix returns cannot be stored after all; the message says why."""


@dataclass
class _State:
    """State of the current batch."""

    cut: Cut
    batch: int
    length: int
    tensors: Callable[[], Sequence[Tensor]]
    counts: Counter[str] = field(default_factory=Counter)
    skipped: bool = False
    filled: bool = False


class Replay:
    """Lets a model start behind cuts: inside `running`, the prefix is not computed.

    `forward` is replaced on the instances of the modules that the prefixes call. The modules
    themselves stay: others read their attributes (ModernBERT those of its layers). Outside
    `running` calls are as ever.

    Args:
        model: Patched until `remove`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.state: _State | None = None
        self.replayed = False  # whether the last forward pass ran behind a cut
        self._modules = dict(model.named_modules())
        self._device = next(model.parameters()).device
        self._patches: dict[str, _Patch] = {}

    def add(self, cut: Cut) -> None:
        """Patches the modules of `cut`, which `running` may then be given."""
        for path in [cut.path, *(path for path, _ in cut.skipped)]:
            if path not in self._patches:
                self._patches[path] = _Patch(self, path, self._modules[path], self._device)

    @contextmanager
    def running(
        self, cut: Cut, batch: int, length: int, tensors: Callable[[], Sequence[Tensor]]
    ) -> Iterator[None]:
        """Lets the model run behind the prefix, forward and backward.

        Args:
            cut: One that was added.
            batch: Examples in the batch.
            length: Their padded length (1 where they have one size).
            tensors: Returns what the prefix would, in fresh tensors each time.

        Raises:
            RuntimeError: The prefix was skipped, but what is stored was never asked for (a fused
                kernel may go past the cut): the model computed on placeholders.
        """
        state = self.state = _State(cut, batch, length, tensors)
        try:
            yield
        finally:
            self.state = None
        if state.skipped and not state.filled:
            raise RuntimeError(f"the forward pass never called {cut.path!r}, where its prefix ends")

    def remove(self) -> None:
        """Puts every `forward` back."""
        while self._patches:
            self._patches.popitem()[1].remove()


class _Patch:
    """Takes the place of one module's `forward`."""

    def __init__(self, replay: Replay, path: str, module: nn.Module, device: torch.device) -> None:
        self.replay = replay
        self.path = path
        self.module = module
        self.device = device
        self.own = module.__dict__.get("forward")  # somebody else's patch (accelerate's)
        self.original = module.forward
        module.__dict__["forward"] = self

    def remove(self) -> None:
        del self.module.__dict__["forward"]
        if self.own is not None:
            self.module.__dict__["forward"] = self.own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        state = self.replay.state
        if state is None:
            in_backward = torch._C._current_graph_task_id() != -1
            if in_backward and self.replay.replayed:
                # Gradient checkpointing computes again here, perhaps on placeholders.
                raise RuntimeError(
                    "a backward pass needs a frozen prefix that is not computed: "
                    "call backward() inside the batch's context, before the next batch"
                )
            self.replay.replayed = False
            return self.original(*args, **kwargs)
        self.replay.replayed = True
        cut, path = state.cut, self.path
        # Modulo: gradient checkpointing calls a module once more in the backward pass.
        number = state.counts[path] % max(cut.n_calls.get(path, 1), 1)
        state.counts[path] += 1
        if (path, number) == (cut.path, cut.number):
            state.filled = True
            return cut.stored.filled(state.tensors())
        rule = cut.skipped.get((path, number))
        if rule is None:
            return self.original(*args, **kwargs)
        state.skipped = True
        return rule.placeholder(state.batch, state.length, self.device)


class _Reached(BaseException):
    """Ends a forward pass; a BaseException, so that no model's `except Exception` stops it."""


def prefix_output(model: nn.Module, path: str, number: int, inputs: Any) -> list[Tensor]:
    """Returns the tensors that one call of a module returns; what comes after it does not run.

    Args:
        model: In the modes, and with the gradients on or off, that the caller wants.
        path: Of the module.
        number: Which of its calls, from 0.
        inputs: As the model takes them.

    Raises:
        NotStorable: The call is not made.
    """
    module = model.get_submodule(path)
    own, original = module.__dict__.get("forward"), module.forward
    count = 0
    reached: Any = None

    def forward(*args: Any, **kwargs: Any) -> Any:
        nonlocal count, reached
        output = original(*args, **kwargs)
        count += 1
        if count <= number:
            return output
        reached = output
        raise _Reached

    module.__dict__["forward"] = forward
    try:
        call_model(model, inputs)
        raise NotStorable(f"call {number} of {path!r} was not made")
    except _Reached:
        pass
    finally:
        del module.__dict__["forward"]
        if own is not None:
            module.__dict__["forward"] = own
    return [leaf for leaf in _pytree.tree_leaves(reached) if isinstance(leaf, Tensor)]


def dtypes_at(model: nn.Module, cut: Cut, number: int, inputs: Any) -> list[torch.dtype]:
    """Returns the dtypes of what the prefix returns, in training and in evaluation alike.

    The trace does not know them: it hooks into the modules, and hooks keep
    `nn.TransformerEncoderLayer` off its fused kernel, whose output has another dtype under
    autocast (bfloat16, where the layer's own code ends in float32).

    Args:
        model: In train mode, under the mask, which is put back; in the precision of the training.
        cut: Where the prefix ends.
        number: Which call of its module that is while nothing is skipped.
        inputs: Any batch.

    Raises:
        NotStorable: Training and evaluation differ, the tensors are nested, or the call is not
            made.
    """
    found = []
    for training in (True, False):
        with modes_kept(model), torch.set_grad_enabled(training):
            model.train(training)
            outputs = prefix_output(model, cut.path, number, inputs)
            if any(output.is_nested for output in outputs):
                raise NotStorable("the prefix returns a nested tensor")
            found.append([output.dtype for output in outputs])
    if found[0] != found[1]:
        raise NotStorable(f"the prefix returns {found[0]} in training but {found[1]} in evaluation")
    return found[0]


def fill_order(examples: Examples) -> list[Tensor]:
    """Returns the batches in which a prefix is computed: always the same, by length."""
    batches: list[Tensor] = []
    for ids in examples.batches_of_ids(_FILL_BATCH):
        size = max(1, min(_FILL_BATCH, _FILL_TOKENS // examples.width(ids)))
        batches += torch.split(ids, size)
    return batches


def level_specs(cut: Cut, examples: Examples, dtypes: Sequence[torch.dtype]) -> list[TensorSpec]:
    """Returns shapes and dtypes of what `cut` stores for `examples`.

    Ragged: one row for each position of each example and one of zeros, `(n_rows + 1, ...)`; else
    one row for each example, `(N, ...)`.
    """
    return [
        ((_n_rows(rule, examples), *rule.row_shape), dtype)
        for rule, dtype in zip(cut.stored.rules, dtypes, strict=True)
    ]


def fill(
    level: StoredLevel, cut: Cut, examples: Examples, ids: Tensor, outputs: Sequence[Tensor]
) -> None:
    """Stores the prefix outputs of the examples `ids`, without their padding.

    Raises:
        NotStorable: They have other dtypes than `level`.
    """
    for rule, output, tensor in zip(cut.stored.rules, outputs, level.tensors, strict=True):
        if output.dtype != tensor.dtype:
            raise NotStorable(f"the prefix returned {output.dtype} after {tensor.dtype}")
        rows = output.detach().permute(rule.order)  # (B, L, ...) or (B, ...)
        if rule.is_ragged and examples.layout is not None:
            index = examples.layout.rows(ids)  # (B, L)
            padding = len(tensor) - 1
            inside = index != padding
            kept = rows[inside.to(rows.device)]
            tensor[index[inside].to(tensor.device)] = kept.to(tensor.device)
            tensor[padding] = 0
        else:
            tensor[ids.to(tensor.device)] = rows.to(tensor.device)


def gather(level: StoredLevel, cut: Cut, examples: Examples, ids: Tensor) -> list[Tensor]:
    """Returns the stored outputs of the examples `ids` in fresh tensors, padded with zeros."""
    gathered = []
    for rule, tensor in zip(cut.stored.rules, level.tensors, strict=True):
        if rule.is_ragged and examples.layout is not None:
            index = examples.layout.rows(ids)
            rows = tensor.index_select(0, index.flatten().to(tensor.device))
            rows = rows.view(*index.shape, *rule.row_shape)
        else:
            rows = tensor.index_select(0, ids.to(tensor.device))
        back = sorted(range(len(rule.order)), key=rule.order.__getitem__)
        gathered.append(rows.to(examples.device).permute(back))
    return gathered


def _n_rows(rule: LeafRule, examples: Examples) -> int:
    if rule.is_ragged and examples.layout is not None:
        return examples.layout.n_rows + 1
    return len(examples)
