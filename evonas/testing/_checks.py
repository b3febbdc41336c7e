"""Assertions that need no test runner and say what they found."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["check", "check_equal", "check_raises", "global_states", "through_json"]


def check(condition: object, message: str) -> None:
    """Raises AssertionError with `message` where the condition is false.

    Not `assert`: that would vanish under `python -O`, and show nothing outside pytest's own tests.
    """
    if not condition:
        raise AssertionError(message)


def check_equal(found: Any, expected: Any, what: str) -> None:
    """Raises AssertionError that says where two values differ."""
    if found == expected:
        return
    path, one, other = _difference(found, expected, "")
    raise AssertionError(f"{what}: at {path or 'the top'} found {one!r}, expected {other!r}")


def check_raises(
    error: type[BaseException] | tuple[type[BaseException], ...],
    match: str,
    call: Callable[[], object],
) -> None:
    """Raises AssertionError unless `call()` raises `error` with a message that `match` finds."""
    try:
        call()
    except error as found:
        check(re.search(match, str(found)), f"expected a message like {match!r}, got {found!s}")
        return
    raise AssertionError(f"expected {error}, got no error")


def through_json(value: Any) -> Any:
    """Returns the value as JSON gives it back; raises TypeError where it is not JSON."""
    return json.loads(json.dumps(value))


def global_states() -> tuple[Any, ...]:
    """Returns where the caller's `random` and `numpy.random` stand, to be compared."""
    legacy: Any = np.random.get_state(legacy=True)  # noqa: NPY002 (the user's own is meant)
    return (random.getstate(), legacy[1].tobytes(), *legacy[2:])


def _difference(found: Any, expected: Any, path: str) -> tuple[str, Any, Any]:
    if isinstance(found, dict) and isinstance(expected, dict) and found.keys() == expected.keys():
        for name, value in found.items():
            if value != expected[name]:
                return _difference(value, expected[name], f"{path}[{name!r}]")
    if isinstance(found, list) and isinstance(expected, list):
        for index, (one, other) in enumerate(zip(found, expected, strict=False)):
            if one != other:
                return _difference(one, other, f"{path}[{index}]")
        return f"{path} (length)", len(found), len(expected)
    return path, found, expected
