"""Freezing blocks of a model by a mask, and undoing it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn

from evonas.arguments import check_list, check_one_of
from evonas.freezing._structure import small_parameters
from evonas.freezing.advice import frozen_in_words
from evonas.freezing.blocks import Block, find_blocks
from evonas.freezing.saved_mask import SavedMask
from evonas.freezing.torch_workarounds import apply_workarounds

__all__ = [
    "AppliedMask",
    "Mask",
    "applied_mask",
    "apply_mask",
    "as_mask",
    "frozen_parameters",
    "frozen_prefix",
    "trainable_parameter_groups",
    "trainable_share",
]

Mask = Sequence[int] | Mapping[str, int]
"""1 (frozen) or 0 (trainable) for each block in order, or by name (those left out: trainable)."""

_HANDLE = "_evonas_mask"


def apply_mask(
    model: nn.Module, mask: Mask, *, blocks: Sequence[Block] | None = None
) -> AppliedMask:
    """Freezes the blocks of `model` that `mask` marks with 1, until the returned handle undoes it.

    The parameters of a frozen block get `requires_grad=False` (and lose a gradient that they had),
    and all its modules are put in eval mode, where `model.train()` leaves them: BatchNorm keeps
    its statistics, dropout drops nothing. So do modules that hold frozen blocks and nothing else.
    Trainable blocks stay as they are; a parameter that did not require a gradient before still
    does not, nor one that the model factory of the search had frozen (`SavedMask.frozen_before`).

    Gradient checkpointing: of transformers models the reentrant kind, which loses the gradients
    behind a frozen input, is replaced by the other kind meanwhile, and the hook by which
    transformers makes frozen embeddings require gradients (and so makes every backward pass go
    through the frozen blocks) is taken off. A model that calls `torch.utils.checkpoint.checkpoint`
    itself must pass `use_reentrant=False`; `AppliedMask.check_gradients` finds out.

    Nested tensors: an `nn.TransformerEncoder` with a padding mask, whose first layer is frozen and
    a later one is not, makes torch raise; such encoders pass padded tensors on meanwhile.

    Args:
        model: Changed in place.
        mask: By block name: what `load_mask` returns, or a dict. Or a list such as `[0, 1, 0]`, in
            the order of `blocks`.
        blocks: What `find_blocks` returned. None: for what `load_mask` returns, the blocks that
            were searched; for a dict, the blocks of any granularity, or any modules, that have
            these names; for a list, `find_blocks(model)`, in the order in which the model
            *registers* them. A `FreezingProblem` and its tables count in the order in which they
            *run*, which may be another: give `blocks=problem.blocks` with such a list, or names.

    Returns:
        The handle: call its `undo()`, or use it as a context manager.

    Raises:
        TypeError: The mask is neither a sequence nor a mapping.
        ValueError: The mask has the wrong length, an unknown name, or a value other than 0 and 1;
            the blocks, or the loaded mask, are of another model; or nothing would be left to train.
        RuntimeError: A mask is applied to this model already.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
        >>> with apply_mask(net, [1]) as applied:
        ...     [name for name, p in net.train().named_parameters() if p.requires_grad]
        ['3.weight', '3.bias']
        >>> applied.active, net[1].training
        (False, True)
        >>> apply_mask(nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 2)), [1, 0])
        AppliedMask([1, 0] on Sequential, frozen: 0)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if (previous := applied_mask(model)) is not None:
        raise RuntimeError(
            f"a mask is applied to this {type(model).__name__} already ({list(previous.mask)}): "
            f"call applied_mask(model).undo() first"
        )
    if blocks is None:
        blocks = _blocks_for(model, mask)
    for block in check_list("blocks", blocks, "what find_blocks returns"):
        check_one_of("an entry of blocks", block, Block, "a Block of find_blocks")
    more = mask.frozen_before if isinstance(mask, SavedMask) else ()
    return AppliedMask(model, as_mask(mask, blocks), tuple(blocks), more)


def applied_mask(model: nn.Module) -> AppliedMask | None:
    """Returns the handle of the mask that is applied to `model`, or None."""
    handle = model.__dict__.get(_HANDLE)
    return handle if isinstance(handle, AppliedMask) else None


def frozen_parameters(model: nn.Module, more: Iterable[str] = ()) -> frozenset[str]:
    """Returns the names of the parameters that require no gradient, and those of `more`."""
    given = set(more)
    return frozenset(n for n, p in model.named_parameters() if n in given or not p.requires_grad)


def as_mask(mask: Mask, blocks: Sequence[Block]) -> tuple[int, ...]:
    """Returns `mask` as one 0 or 1 for each block, in order.

    Raises:
        TypeError: It is neither a sequence nor a mapping.
        ValueError: Wrong length, an unknown name, or a value other than 0 and 1.
    """
    names = [block.name for block in blocks]
    values: Any = mask
    if isinstance(mask, Mapping):
        unknown = [name for name in mask if name not in names]
        if unknown:
            raise ValueError(
                f"freeze mask names {unknown[0]!r}, which is not a block; "
                f"the blocks are: {', '.join(names)}"
            )
        values = [mask.get(name, 0) for name in names]
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(
            f"freeze mask must be a list such as [0, 1, 0] or a dict by block name, "
            f"got {type(mask).__name__}"
        )
    if len(values) != len(names):
        raise ValueError(
            f"freeze mask must have {len(names)} values, one for each block, got {len(values)}; "
            f"the blocks are: {', '.join(names)}"
        )
    for name, value in zip(names, values, strict=True):
        if isinstance(value, Tensor) or value not in (0, 1):
            raise ValueError(
                f"freeze mask must hold 1 (frozen) or 0 (trainable), got {value!r} for {name!r}"
            )
    return tuple(int(value) for value in values)


def frozen_prefix(mask: Sequence[int]) -> int:
    """Returns how many blocks from the first on are frozen.

    Example:
        >>> frozen_prefix([1, 1, 0, 1])
        2
    """
    return next((i for i, value in enumerate(mask) if not value), len(mask))


def trainable_parameter_groups(
    model: nn.Module, weight_decay: float = 0.01
) -> list[dict[str, Any]]:
    """Returns parameter groups for an optimizer: what is trainable, decayed as is usual.

    Biases, norms and other parameters with fewer than two dimensions are not decayed. Groups
    without a parameter are left out.

    Raises:
        ValueError: `weight_decay` is negative, or nothing is trainable.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 8), nn.LayerNorm(8), nn.Linear(8, 2))
        >>> groups = trainable_parameter_groups(net, weight_decay=0.1)
        >>> [(group["weight_decay"], len(group["params"])) for group in groups]
        [(0.1, 2), (0.0, 4)]
    """
    if weight_decay < 0:
        raise ValueError(f"weight_decay must be at least 0, got {weight_decay}")
    small = small_parameters(model)
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (plain if name in small else decayed).append(parameter)
    if not decayed and not plain:
        raise ValueError(
            f"nothing of {type(model).__name__} is trainable: leave one block unfrozen at least"
        )
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def trainable_share(model: nn.Module) -> float:
    """Returns which share in [0, 1] of the model's parameters is trainable; tied ones count once.

    Raises:
        ValueError: The model has no parameters.
    """
    total = sum(p.numel() for p in model.parameters())
    if not total:
        raise ValueError(f"{type(model).__name__} has no parameters")
    return sum(p.numel() for p in model.parameters() if p.requires_grad) / total


class AppliedMask:
    """A mask in force on a model; made by `apply_mask`.

    Deep copies and pickles of the model take theirs along.

    Attributes:
        model: The model.
        blocks: Its blocks, in order.
        mask: 1 (frozen) or 0 for each of them.
        frozen_before: Names of the parameters that are frozen whatever the mask: the model had
            them so, or the one that was searched.
    """

    def __init__(
        self,
        model: nn.Module,
        mask: tuple[int, ...],
        blocks: tuple[Block, ...],
        frozen_before: Iterable[str] = (),
    ) -> None:
        self.model = model
        self.mask = mask
        self.blocks = blocks
        self.frozen_before = frozen_parameters(model, frozen_before)
        self._undo: list[Callable[[], None]] = []
        self._reached: set[str] = set()
        parameters = _named(model, [n for b in blocks for n in b.parameters], blocks)
        frozen = {n for b, bit in zip(blocks, mask, strict=True) if bit for n in b.parameters}
        frozen |= self.frozen_before
        if frozen.issuperset(parameters):
            raise ValueError(
                f"freeze mask {list(mask)} leaves nothing of {type(model).__name__} to train: "
                f"leave one block unfrozen at least, or a head out of the blocks"
            )
        for name in frozen:
            self._undo.append(_freeze(parameters[name]))
        for path in frozen_subtrees(model, blocks, mask):
            parent = model.get_submodule(path.rpartition(".")[0])
            self._undo.append(_hold_in_eval(model.get_submodule(path), parent))
        self._undo += apply_workarounds(model, is_frozen=any(mask))
        model.__dict__[_HANDLE] = self

    def __repr__(self) -> str:
        state = "" if self.active else ", undone"
        frozen = frozen_in_words([block.name for block in self.blocks], self.mask)
        name = type(self.model).__name__
        return f"AppliedMask({list(self.mask)} on {name}, frozen: {frozen}{state})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.undo()

    @property
    def active(self) -> bool:
        """Whether the mask is in force."""
        return applied_mask(self.model) is self

    @property
    def frozen(self) -> tuple[Block, ...]:
        """The frozen blocks."""
        return tuple(b for b, bit in zip(self.blocks, self.mask, strict=True) if bit)

    def freeze(self, name: str) -> None:
        """Freezes one more parameter, until `undo`; a recipe does, of blocks trained in part."""
        self._undo.append(_freeze(self.model.get_parameter(name)))

    def on_undo(self, action: Callable[[], None]) -> None:
        """Has something done at `undo`, before what is undone already."""
        self._undo.append(action)

    def undo(self) -> None:
        """Puts everything back as it was before the mask; weights stay as trained.

        Where the model was put in another mode meanwhile, its frozen modules get that mode.
        Calling it again does nothing.
        """
        if self.active:
            del self.model.__dict__[_HANDLE]
        while self._undo:
            self._undo.pop()()

    @contextmanager
    def watching_gradients(self) -> Iterator[None]:
        """Notes meanwhile which blocks gradients reach, for `check_gradients`.

        A model may leave a layer out of a step at random (LayerDrop), which then has none.
        """
        self._reached.clear()
        handles = [
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                functools.partial(_note, self._reached, name)
            )
            for name, parameters in self._trained().items()
            for parameter in parameters
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def check_gradients(self) -> None:
        """Checks, after a backward pass, that gradients reached every trainable block.

        In that pass, or in one of those that `watching_gradients` saw.

        Raises:
            RuntimeError: A block that should be trained has had no gradient at all, as behind a
                reentrant checkpoint whose inputs are frozen.
        """
        without = [
            name
            for name, parameters in self._trained().items()
            if name not in self._reached and parameters and all(p.grad is None for p in parameters)
        ]
        if without:
            raise RuntimeError(
                f"no gradient reached {', '.join(without)} of {type(self.model).__name__}, which "
                f"the mask {list(self.mask)} leaves trainable: with gradient checkpointing pass "
                f"use_reentrant=False, else the loss does not depend on these blocks"
            )

    def _trained(self) -> dict[str, list[nn.Parameter]]:
        """Returns by block what of it is trained, adapters too."""
        found = {}
        for block in (b for b, bit in zip(self.blocks, self.mask, strict=True) if not bit):
            # Not by name: adapters have put some of them elsewhere, and are trained instead.
            parts = [self.model.get_submodule(path) for path in block.modules]
            parameters = [p for part in parts for p in part.parameters()]
            parameters += [self.model.get_parameter(name) for name in block.loose_parameters]
            found[block.name] = [p for p in parameters if p.requires_grad]
        return found


def _note(reached: set[str], name: str, parameter: Tensor) -> None:
    reached.add(name)


class _StaysInEval:
    """Takes the place of a frozen module's `train`.

    A module-level class and no closure, so that a model under a mask can be copied and pickled.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, mode: bool = True) -> nn.Module:
        return type(self.module).train(self.module, False)


def _freeze(parameter: nn.Parameter) -> Callable[[], None]:
    required, gradient = parameter.requires_grad, parameter.grad
    parameter.requires_grad_(False)
    # An optimizer that was given it all the same would still apply an old gradient.
    parameter.grad = None
    return functools.partial(_thaw, parameter, required, gradient)


def _thaw(parameter: nn.Parameter, required: bool, gradient: Tensor | None) -> None:
    parameter.requires_grad_(required)
    if parameter.grad is None:
        parameter.grad = gradient


def _hold_in_eval(module: nn.Module, parent: nn.Module) -> Callable[[], None]:
    modes = [(sub, sub.training) for sub in module.modules()]
    earlier = module.__dict__.get("train")
    around = parent.training
    module.eval()
    module.__dict__["train"] = _StaysInEval(module)
    return functools.partial(_release, module, modes, earlier, parent, around)


def _release(
    module: nn.Module,
    modes: list[tuple[nn.Module, bool]],
    earlier: Any,
    parent: nn.Module,
    around: bool,
) -> None:
    del module.__dict__["train"]
    if earlier is not None:
        module.__dict__["train"] = earlier
    # What was asked of the module itself does not count: `evaluate` calls model.eval() and then
    # sets each flag back, which the module around it shows.
    if parent.training != around:
        module.train(parent.training)
        return
    for sub, training in modes:
        sub.training = training


def frozen_subtrees(model: nn.Module, blocks: Iterable[Block], mask: Iterable[int]) -> list[str]:
    """Returns the paths of the topmost modules that hold frozen blocks and nothing else."""
    frozen_modules: set[str] = set()
    frozen_names: set[str] = set()
    other_modules: set[str] = set()
    for block, bit in zip(blocks, mask, strict=True):
        (frozen_modules if bit else other_modules).update(block.modules)
        if bit:
            frozen_names.update(block.parameters)
    names = {id(p): name for name, p in model.named_parameters()}
    found: list[str] = []

    def is_frozen(path: str, module: nn.Module) -> bool:
        if path in frozen_modules:
            return True
        if path in other_modules or not _owns(module):
            return False
        if not all(names[id(p)] in frozen_names for p in module.parameters(recurse=False)):
            return False
        children = [(f"{path}.{name}", child) for name, child in module.named_children()]
        # A module without parameters or a block (an activation) says nothing either way.
        telling = [(p, c) for p, c in children if p in other_modules or _owns(c)]
        return bool(telling) and all(is_frozen(p, c) for p, c in telling)

    def visit(path: str, module: nn.Module) -> None:
        if path and is_frozen(path, module):
            found.append(path)
            return
        for name, child in module.named_children():
            visit(f"{path}.{name}" if path else name, child)

    visit("", model)
    return found


def _owns(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _blocks_for(model: nn.Module, mask: Mask) -> tuple[Block, ...]:
    """Returns the blocks that a mask without blocks means."""
    if isinstance(mask, SavedMask) and mask.contents:
        return mask.blocks_of(model)
    if not isinstance(mask, Mapping):
        return find_blocks(model)
    for granularity in ("block", "stage", "layer"):
        found = find_blocks(model, granularity=granularity, include_head=True)
        if set(mask) <= {block.name for block in found}:
            return tuple(block for block in found if block.name in mask or not block.is_head)
    return find_blocks(model, blocks=list(mask))


def _named(
    model: nn.Module, names: Iterable[str], blocks: Sequence[Block]
) -> dict[str, nn.Parameter]:
    parameters = dict(model.named_parameters())
    missing = [name for name in names if name not in parameters]
    paths = {path for path, _ in model.named_modules()}
    missing += [path for block in blocks for path in block.modules if path not in paths]
    if missing:
        raise ValueError(
            f"the blocks name {missing[0]!r}, which {type(model).__name__} does not have: "
            f"pass find_blocks(model) of this model"
        )
    return parameters
