"""Weights that a trial takes over from its parent's, where shapes overlap."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evonas.exceptions import RunStorageError
from evonas.training import checkpoint

__all__ = ["inherit", "leave"]

_log = logging.getLogger(__name__)


def inherit(model: nn.Module, folder: Path, parents: Sequence[int]) -> dict[str, Any]:
    """Copies into a new model what its weights have in common with a parent's.

    Tensors of one name and as many dimensions: the corner that both have. Others, and what lies
    beyond, stay as they were initialised. Of several parents the first counts whose weights are
    there; a file that is damaged is said, and the model stays as it is.

    Args:
        model: Changed in place.
        folder: In which `leave` put the parents' weights.
        parents: Their evaluations' numbers.

    Returns:
        For the record: `inherited_from`, the parent's number, where there was one, and
        `inherited_share` of the model's parameters, in [0, 1].
    """
    for parent in parents:
        state = checkpoint.read(_file(folder, parent), _identity(parent))
        if state is not None:
            share = _copy_overlap(model, state["model"])
            return {"inherited_from": parent, "inherited_share": share}
    return {"inherited_share": 0.0}


def leave(model: nn.Module, folder: Path, number: int) -> None:
    """Writes an evaluation's weights for its children, and makes room for them.

    A disk that does not take them costs only time: a warning says so.
    """
    try:
        checkpoint.write_bounded(
            _file(folder, number), {"identity": _identity(number), "model": model.state_dict()}
        )
    except (RunStorageError, OSError) as error:
        _log.warning("children of evaluation %d will begin anew: %s", number, error)


def _copy_overlap(model: nn.Module, weights: dict[str, Tensor]) -> float:
    n_copied = n_all = 0
    parameters = {name for name, _ in model.named_parameters()}
    with torch.no_grad():
        for name, own in model.state_dict().items():
            found = weights.get(name)
            n_all += own.numel() * (name in parameters)
            if found is None or found.ndim != own.ndim or found.dtype != own.dtype:
                continue
            corner = tuple(slice(min(pair)) for pair in zip(own.shape, found.shape, strict=True))
            own[corner] = found[corner].to(own.device)
            n_copied += own[corner].numel() * (name in parameters)
    return n_copied / max(1, n_all)


def _file(folder: Path, number: int) -> Path:
    return folder / f"weights-{number}.pt"


def _identity(number: int) -> dict[str, int]:
    return {"evaluation": number}
