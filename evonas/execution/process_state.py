"""What changes the numbers of a whole process: read where a search begins, set in each trial.

`torch.set_default_dtype(torch.float64)` in a script holds for the process that runs it. A worker
process would not know, so each trial gets what was set when its run began.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["changed_state", "process_state"]


@dataclass(frozen=True)
class _Setting:
    """One setting of the process, as JSON.

    Attributes:
        default: What it is in a new process.
        get: Returns it.
        set: Sets it.
    """

    default: Any
    get: Callable[[], Any]
    set: Callable[[Any], Any]


def changed_state() -> dict[str, Any]:
    """Returns, as JSON, the settings that are not as in a new process; none where all are.

    `torch`'s only where it is imported.

    Example:
        >>> with np.errstate(over="raise"):
        ...     changed_state()["numpy_errors"]["over"]
        'raise'
    """
    found = {name: setting.get() for name, setting in _settings().items()}
    defaults = {name: setting.default for name, setting in _settings().items()}
    return {name: value for name, value in found.items() if value != defaults[name]}


@contextmanager
def process_state(state: Mapping[str, Any]) -> Iterator[None]:
    """Runs a block with the settings `state`, all others as in a new process; puts them back.

    Args:
        state: What `changed_state` returned, here or in another process.

    Raises:
        ValueError: It holds a setting that this version does not know.
    """
    settings = _settings()
    unknown = sorted(set(state) - set(settings))
    if unknown:
        raise ValueError(f"unknown settings of the process: {', '.join(unknown)}")
    before = {name: setting.get() for name, setting in settings.items()}
    try:
        for name, setting in settings.items():
            wanted = state.get(name, setting.default)
            if wanted != before[name]:
                setting.set(wanted)
        yield
    finally:
        for name, setting in settings.items():
            if setting.get() != before[name]:
                setting.set(before[name])


def _settings() -> dict[str, _Setting]:
    return {**_NUMPY, **(_torch_settings() if "torch" in sys.modules else {})}


_NUMPY = {
    "numpy_errors": _Setting(
        {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"},
        np.geterr,
        lambda value: np.seterr(**value),
    )
}

_torch: dict[str, _Setting] = {}


def _torch_settings() -> dict[str, _Setting]:
    if not _torch:
        from evonas.execution.torch_state import process_settings  # only here is torch imported

        _torch.update(
            (name, _Setting(default, get, set_))
            for name, (default, get, set_) in process_settings().items()
        )
    return _torch
