"""What a freezing problem finds out about its arguments before anything is trained."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import Any

from torch import nn

from evonas.arguments import check_callable, check_function, check_number
from evonas.freezing.blocks import Block
from evonas.training import fingerprint_of
from evonas.training.data.examples import Examples
from evonas.training.step import check_optimizer

__all__ = [
    "check_functions",
    "check_groups",
    "check_unseen",
    "check_val_size",
    "code_of",
    "identity_of",
    "names_outside",
    "rates_of",
    "warn_of_fresh",
    "without_frozen",
]

_log = logging.getLogger(__name__)

_MOST_POINTS, _MANY_POINTS = 16.0, 9.5  # 10 and 28 examples


def check_functions(loss_function: object, metric: object, optimizer: object) -> None:
    """Refuses what is no function, and classes where an instance is meant.

    Raises:
        TypeError: One is.
    """
    for name, function in (("loss_function", loss_function), ("metric", metric)):
        if function is not None:
            check_function(name, function)
    if optimizer is not None:  # a class of torch is such a function: it takes parameter groups
        check_callable("optimizer", optimizer)


def rates_of(lr: float | Sequence[float], *, has_own: bool) -> tuple[float, ...]:
    """Returns the learning rates to choose from, ascending; one where there is no choice.

    Args:
        lr: One, or several.
        has_own: Whether the user's optimizer has its own.

    Raises:
        TypeError, ValueError: They are no rates, or would do nothing.
    """
    if isinstance(lr, (int, float)):  # `Training` checks it
        return (lr,)
    if isinstance(lr, (str, bytes, Mapping)) or not isinstance(lr, Iterable):
        raise TypeError(
            f"lr must be a number or a list of numbers, got {lr!r} ({type(lr).__name__})"
        )
    rates = list(lr)
    for rate in rates:
        check_number("an entry of lr", rate, above=0)
    if not rates or len(set(rates)) < len(rates):
        raise ValueError(f"lr must be different learning rates, at least one, got {lr!r}")
    if has_own and len(rates) > 1:
        raise ValueError("lr of several rates would do nothing: optimizer= makes its own")
    return tuple(sorted(float(rate) for rate in rates))


def without_frozen(model: nn.Module, found: Sequence[Block]) -> tuple[Block, ...]:
    """Returns the blocks that a mask can freeze; logs which the factory has frozen already.

    Raises:
        ValueError: It has frozen all.
    """
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    kept = tuple(block for block in found if trainable & set(block.parameters))
    frozen = ", ".join(block.name for block in found if block not in kept)
    name = type(model).__name__
    if not kept:
        raise ValueError(
            f"model_factory returns {name} with every block frozen ({frozen}): set "
            "requires_grad=True where the search may decide"
        )
    if frozen:
        _log.warning(
            "%s: model_factory has frozen %s already: no gene, left as they are (statistics of "
            "batch norms still move: they stay in train mode)",
            name,
            frozen,
        )
    return kept


def names_outside(model: nn.Module, blocks: Sequence[Block]) -> tuple[str, ...]:
    """Returns the names of the parameters that are in no block."""
    owned = {name for block in blocks for name in block.parameters}
    return tuple(name for name, _ in model.named_parameters() if name not in owned)


def warn_of_fresh(name: str, blocks: Sequence[Block], fresh: Collection[str]) -> None:
    """Logs which blocks of a model are not pretrained: frozen, they would stay random."""
    found = [b.name for b in blocks if not b.is_head and set(b.parameters) & set(fresh)]
    if found and len(found) < len(blocks):
        _log.warning(
            "%s: %s freshly initialised, so to freeze them keeps random weights; "
            "blocks=[...] leaves them out of the mask",
            name, ", ".join(found) + (" is" if len(found) == 1 else " are"),
        )  # fmt: skip


def check_val_size(n: int) -> None:
    """Refuses too few validation examples to tell masks apart; logs how noisy few are.

    Raises:
        ValueError: An accuracy of theirs has a standard error of more than 16 points.
    """
    points = 50 / math.sqrt(n)  # of an accuracy of one half, the noisiest
    few = f"{n} validation examples: an accuracy of theirs has a standard error of up to"
    if points > _MOST_POINTS:
        raise ValueError(
            f"val must hold more than {n} validation examples, whose accuracy would have a "
            f"standard error of up to {points:.0f} points: masks could not be told apart; 100 have "
            "5 points, 2,500 have 1"
        )
    if points > _MANY_POINTS:
        _log.warning("%s %.0f points; differences below that are luck", few, points)


def check_unseen(test: Examples, seen: Mapping[str, Examples]) -> None:
    """Refuses test examples that the search trains on or is scored on.

    Raises:
        ValueError: They are.
    """
    for name, part in seen.items():
        if part.identity == test.identity:
            raise ValueError(
                f"test must be examples that the search has not seen, got the {name} examples: "
                f"split some off, or pass no test examples"
            )


def check_groups(optimizer: object, groups: Iterable[Mapping[str, Any]], arguments: str) -> None:
    """Refuses what `optimizer=` returned where it is no optimizer of all the groups.

    Args:
        optimizer: What it returned.
        groups: What it was given.
        arguments: All that it was given, by their usual names.

    Raises:
        TypeError, ValueError: See `check_optimizer`.
    """
    way_out = f"pass them on, as lambda {arguments}: torch.optim.SGD(groups, lr=0.1)"
    check_optimizer(optimizer, (p for group in groups for p in group["params"]), way_out)


def identity_of(blocks: Sequence[Block], frozen_before: Sequence[str]) -> str:
    """Returns a digest of what each block holds, and of what is frozen whatever the point.

    Patterns may call other parts the same.
    """
    held: list[Any] = [(block.name, block.modules, block.parameters) for block in blocks]
    held += [frozen_before] if frozen_before else []
    return hashlib.sha256(repr(held).encode()).hexdigest()


def code_of(factory: Callable[[], nn.Module]) -> str:
    """Returns what tells a factory's code from another's: without its settings, such as paths."""
    if isinstance(factory, partial):
        return code_of(factory.func)
    is_function = isinstance(factory, (FunctionType, BuiltinFunctionType))
    return fingerprint_of(factory if is_function else type(factory))
