"""JSON as the run database keeps it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["from_json", "to_json"]

# NaN and the infinities are not JSON; as words they survive, and other tools can read the rest.
_NUMBER = "$number"
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_json(value: Any) -> str:
    """Returns JSON text; NaN and the infinities become `{"$number": "NaN"}`.

    Raises:
        TypeError, ValueError, RecursionError: It is not JSON, contains itself or is too deep.
    """
    try:
        text = _encode(value)
        if _NUMBER in text:  # a dict that would be read as one of those
            text = _encode(_with_words(value))
    except ValueError:
        text = _encode(_with_words(value))
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # a lone surrogate, which SQLite refuses and an escape carries
            return json.dumps(json.loads(text))
    return text


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode


def _with_words(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        word = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return {_NUMBER: word}
    if isinstance(value, Mapping):
        found = {name: _with_words(entry) for name, entry in value.items()}
        return {_NUMBER: [found[_NUMBER]]} if found.keys() == {_NUMBER} else found
    if isinstance(value, (list, tuple)):
        return [_with_words(entry) for entry in value]
    return value


def from_json(text: str) -> Any:
    """Returns what `to_json` was given (tuples as lists).

    Raises:
        ValueError: It is no text of `to_json`'s.
    """
    return json.loads(text, object_hook=_restore_words) if _NUMBER in text else json.loads(text)


def _restore_words(entry: dict[str, Any]) -> Any:
    if entry.keys() != {_NUMBER}:
        return entry
    found = entry[_NUMBER]
    if isinstance(found, list) and len(found) == 1:  # a dict of the user's, one level down
        return {_NUMBER: found[0]}
    if found not in _WORDS:
        raise ValueError(f"{entry} is no number")
    return _WORDS[found]
