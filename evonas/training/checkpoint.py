"""Files from which a training goes on: whole or not at all, and never those of another training."""

from __future__ import annotations

import hashlib
import io
import logging
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from evonas.exceptions import RunStorageError
from evonas.files import display_path, replace_file

if TYPE_CHECKING:
    from evonas.training.loop import AveragedWeights

from evonas.execution.accelerator import generator_state, is_accelerator, set_generator_state

__all__ = [
    "EpochCheckpoint",
    "random_state",
    "read",
    "restore_random_state",
    "write",
    "write_bounded",
]

_log = logging.getLogger(__name__)

_DIGEST = 32  # bytes of SHA-256, before the content: torch reads a flipped bit without a word
_WAY_OUT = "free the disk or restore the permissions and run the same command again"
_MAX_BYTES = 2**30  # of a folder of checkpoints: beyond it the oldest go


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a state that holds its `identity`.

    Raises:
        RunStorageError: It cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    replace_file(
        path,
        lambda part: part.write_bytes(hashlib.sha256(content).digest() + content),
        way_out=_WAY_OUT,
    )


def read(path: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the state of a file; None, with a warning, where it is damaged or of another one.

    No warning where there is no file.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _say(path, f"it cannot be read ({error})")
        return None
    digest, content = content[:_DIGEST], content[_DIGEST:]
    why = "it is damaged"
    if hashlib.sha256(content).digest() == digest:
        state = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        if state["identity"] == identity:
            return dict(state)
        why = "it is of a training with other settings"
    _say(path, why)
    return None


def _say(path: Path, why: str) -> None:
    warnings.warn(
        f"{display_path(path)} is not gone on from, because {why}: trained anew",
        RuntimeWarning,
        stacklevel=6,
    )


def random_state(device: torch.device) -> dict[str, Any]:
    """Returns the states of torch's generators, of the CPU and of the device."""
    on_gpu = is_accelerator(device)
    return {
        "random": torch.get_rng_state(),
        "random_gpu": generator_state(device) if on_gpu else None,
    }


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Sets them as they were."""
    torch.set_rng_state(state["random"])
    if is_accelerator(device):
        set_generator_state(state["random_gpu"], device)


class EpochCheckpoint:
    """Where a training of few epochs ended, so that one of more epochs goes on there.

    It goes on with the same bits (on a CPU), and reports the epochs before as they were: whether
    the file is there or not, the training ends with the same result.

    Args:
        path: The file. Its folder holds a gigabyte at most: the oldest are removed.
        identity: What the training is of (genes, data, settings, seed), as JSON.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path, self._identity = path, dict(identity)
        self.rows: list[dict[str, float]] = []
        """What each epoch reported, those before included: whoever reports adds to it."""
        self._is_longer = False  # the training of the file

    def restore(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler | None,
        averaged: AveragedWeights | None,
        n_epochs: int,
    ) -> list[dict[str, float]]:
        """Brings a training to where the file is; returns what the epochs before reported.

        Nothing where there is no file, it is damaged (said), or it is of more than `n_epochs`.
        """
        state = read(self._path, self._identity)
        if state is None:
            return []
        if len(state["rows"]) > n_epochs:
            self._is_longer = True
            return []
        with warnings.catch_warnings():  # torch holds a scheduler that steps first to be a mistake
            warnings.simplefilter("ignore", UserWarning)
            for _ in range(state["ticks"] if scheduler is not None else 0):
                scheduler.step()  # type: ignore[union-attr]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])  # after the scheduler: the rate is saved too
        if averaged is not None:
            averaged.load_state_dict(state["averaged"])
        restore_random_state(state, _device(model))
        return list(state["rows"])

    def save(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler | None,
        averaged: AveragedWeights | None,
    ) -> None:
        """Writes where the training is, and makes room for it; keeps the file of a longer one.

        A disk that does not take it costs only time: a warning says so.
        """
        if self._is_longer:
            return
        state = {
            "identity": self._identity,
            "rows": self.rows,
            "ticks": 0 if scheduler is None else scheduler.last_epoch,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "averaged": None if averaged is None else averaged.state_dict(),
            **random_state(_device(model)),
        }
        try:
            write_bounded(self._path, state)
        except (RunStorageError, OSError) as error:
            _log.warning("a training that goes on from here will be trained anew: %s", error)


def write_bounded(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a state into a folder of checkpoints, which holds a gigabyte at most.

    Raises:
        RunStorageError, OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, state)
    _make_room(path)


def _make_room(newest: Path) -> None:
    """Removes the oldest files of the folder beyond the limit."""
    files = []
    for path in newest.parent.iterdir():
        with suppress(FileNotFoundError):  # another worker's, which it removes
            files.append((path.stat().st_mtime, path.stat().st_size, path))
    left = _MAX_BYTES
    for _, size, path in sorted(files, reverse=True):
        left -= size
        if left < 0 and path != newest:
            path.unlink(missing_ok=True)


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
