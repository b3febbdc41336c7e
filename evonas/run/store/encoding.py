"""JSON as the run database keeps it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["from_json", "to_json"]

# NaN and the infinities are not JSON; as words they survive, and other tools can read the rest.
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_json(value: Any) -> str:
    """Returns JSON text; NaN and the infinities become `{"$number": "NaN"}`."""
    try:
        text = _encode(value)
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
        return {"$number": word}
    if isinstance(value, Mapping):
        return {name: _with_words(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_words(entry) for entry in value]
    return value


def from_json(text: str) -> Any:
    """Returns what `to_json` was given (tuples as lists)."""
    return json.loads(text, object_hook=_restore_words) if "$number" in text else json.loads(text)


def _restore_words(entry: dict[str, Any]) -> Any:
    return _WORDS[entry["$number"]] if entry.keys() == {"$number"} else entry
