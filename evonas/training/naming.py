"""What a fingerprint calls the functions that a user passes."""

from __future__ import annotations

import functools
import hashlib
import types
from typing import Any

__all__ = ["fingerprint_of", "name_of", "readable_name"]

_LAMBDA = "<lambda>"
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_DIGITS = 16


def fingerprint_of(thing: Any) -> str:
    """Returns what tells a function, or an object with settings, from another one.

    A function that a module defines is known by its name, as what it does belongs to the version
    of that module. A lambda, a function of a script or notebook (`__main__`) and one defined in
    another function are known by a digest of their code, too: of their instructions, constants and
    names, their defaults, what they close over, and the constants and functions of their own
    script that they name (of values that are no plain numbers, texts or functions, only the type).
    So another version of it is another fingerprint, and the same one is the same in every process
    of one Python.

    Example:
        >>> fingerprint_of(name_of)
        'name_of'
        >>> fingerprint_of(lambda x: x + 1) == fingerprint_of(lambda x: x + 1)
        True
        >>> fingerprint_of(lambda x: x + 1) == fingerprint_of(lambda x: x + 2)
        False
    """
    if isinstance(thing, functools.partial):
        return f"partial({fingerprint_of(thing.func)} {_digest(_value(thing))})"
    if isinstance(thing, types.MethodType):
        thing = thing.__func__
    if not isinstance(thing, types.FunctionType) or _is_importable(thing):
        return name_of(thing)
    return f"{thing.__name__} {_digest(_value(thing))}"


def name_of(thing: Any) -> str:
    """Returns what a fingerprint calls a function or an object with settings.

    Example:
        >>> name_of(len)
        'len'
    """
    # A dataclass (FlipCrop) says its settings in its repr; other reprs may hold an address, which
    # would make every start of a run another problem.
    name = getattr(thing, "__name__", None)
    if isinstance(name, str):
        return name
    shown = repr(thing)
    return type(thing).__qualname__ if " at 0x" in shown else shown


def readable_name(thing: Any, otherwise: str) -> str:
    """Returns what people call a function; `otherwise` for a lambda, which has no name.

    Example:
        >>> readable_name(lambda x: x, "metric"), readable_name(name_of, "metric")
        ('metric', 'name_of')
    """
    if isinstance(thing, functools.partial):
        return readable_name(thing.func, otherwise)
    name = name_of(thing)
    return otherwise if name == _LAMBDA else name


def _is_importable(function: types.FunctionType) -> bool:
    return (
        function.__module__ not in ("__main__", "__mp_main__")
        and "<" not in function.__qualname__  # neither <lambda> nor <locals>
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _value(value: Any, around: tuple[Any, ...] = ()) -> str:
    """Returns a text of a value that no address and no order of hashing gets into.

    `around` are the functions that it is a part of: functions may close over each other.
    """

    def text(part: Any) -> str:
        return _value(part, around)

    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__}({','.join(map(text, value))})"
    if isinstance(value, (set, frozenset)):
        return f"set({','.join(sorted(map(text, value)))})"
    if isinstance(value, dict):
        return f"dict({','.join(f'{text(k)}:{text(v)}' for k, v in value.items())})"
    if isinstance(value, types.CodeType):
        return "code" + text((value.co_code, value.co_consts, value.co_names, value.co_varnames))
    if isinstance(value, functools.partial):
        return "partial" + text((value.func, value.args, value.keywords))
    if not isinstance(value, types.FunctionType):
        return name_of(value) if callable(value) else type(value).__qualname__
    if _is_importable(value) or any(value is function for function in around):
        return value.__name__
    closed = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
    parts = (value.__code__, value.__defaults__, value.__kwdefaults__, closed, _globals(value))
    return "function" + _value(parts, (*around, value))


def _globals(function: types.FunctionType) -> dict[str, Any]:
    """Returns the globals that a function names, where they are constants or functions."""
    codes, names = [function.__code__], []
    for code in codes:  # grows: comprehensions and lambdas are code among the constants
        names += [name for name in code.co_names if not name.startswith("__")]
        codes += [part for part in code.co_consts if isinstance(part, types.CodeType)]
    named = {name: function.__globals__.get(name) for name in names}
    kinds = (*_PLAIN, types.FunctionType)
    return {name: value for name, value in named.items() if isinstance(value, kinds)}


def _is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # of a name that is bound only later
        return False
    return True
