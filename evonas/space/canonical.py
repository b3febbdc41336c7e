"""Plain JSON values: one canonical text per value, and what it takes to become one."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np

__all__ = ["canonical_json", "copy_json", "plain_json"]


def canonical_json(value: Any) -> str:
    """Returns the one JSON text that a value has: keys sorted, no spaces, ASCII.

    Tuples count as lists, numpy scalars as Python's numbers.

    Raises:
        TypeError: The value, or something in it, is not JSON.
        ValueError: It holds NaN or an infinity, or contains itself.
    """
    try:
        return _ENCODER.encode(value)
    except ValueError as error:
        raise ValueError(f"not a JSON value ({error}): {value!r}") from None


def plain_json(value: Any) -> Any:
    """Returns a copy of a value as plain JSON: tuples as lists, numpy scalars as Python's numbers.

    Raises:
        TypeError: The value, or something in it, is not JSON.
        ValueError: It holds NaN or an infinity.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.generic):
        return plain_json(value.item())
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value!r} is not a JSON value")
        return float(value)
    if isinstance(value, (list, tuple)):
        return [plain_json(entry) for entry in value]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} of a dict is not a JSON key (a string)")
        return {key: plain_json(entry) for key, entry in value.items()}
    raise TypeError(f"{value!r} ({type(value).__name__}) is not a JSON value")


def copy_json(value: Any) -> Any:
    """Returns the value, copied where it is a list or a dict."""
    return copy.deepcopy(value) if isinstance(value, (list, dict)) else value


def _numpy_scalar(value: Any) -> Any:
    if isinstance(value, np.generic):
        return plain_json(value)
    raise TypeError(f"{value!r} ({type(value).__name__}) is not a JSON value")


_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), allow_nan=False, default=_numpy_scalar
)
