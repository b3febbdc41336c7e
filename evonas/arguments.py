"""Checks of arguments: each refuses with the argument's name, what was expected and what came."""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NoReturn

__all__ = [
    "check_bool",
    "check_callable",
    "check_choice",
    "check_file_label",
    "check_function",
    "check_int",
    "check_list",
    "check_mapping",
    "check_number",
    "check_one_of",
    "check_string",
    "made_by",
    "nearest",
    "no_attribute",
    "unknown_names",
]

_LARGEST_INT = 2**31 - 1  # of counts and sizes: beyond it nothing ends

_LABEL = re.compile(r"\w[\w.+ -]*")
_LABEL_BYTES = 64  # a file's name has 255 at most, and several labels stand in one


def check_int(name: str, value: Any, *, minimum: int, maximum: int | None = _LARGEST_INT) -> None:
    """Refuses anything but an int from `minimum` to `maximum` (None: any); a bool is none.

    Raises:
        TypeError: It is not an int.
        ValueError: It is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an int, got {value!r} ({type(value).__name__})")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    if maximum is not None and int(value) > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {value}")


def check_number(
    name: str,
    value: Any,
    *,
    minimum: float = -math.inf,
    above: float = -math.inf,
    maximum: float = math.inf,
) -> None:
    """Refuses anything but a real number from `minimum` (or `above`, itself excluded) to `maximum`.

    NaN and the infinities are refused; a bool is not a number.

    Raises:
        TypeError: It is not a number.
        ValueError: It is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, got {value}")
    if number > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {value}")
    if not (number >= minimum and (number > above or above == -math.inf)):
        wanted = f"above {above}" if above != -math.inf else f"at least {minimum}"
        raise ValueError(f"{name} must be {wanted}, got {value}")


def check_bool(name: str, value: Any) -> None:
    """Refuses anything but True and False.

    Raises:
        TypeError: It is neither.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r} ({type(value).__name__})")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Refuses anything but one of the strings `choices`.

    Raises:
        ValueError: It is another.
    """
    if not (isinstance(value, str) and value in choices):
        quoted = [repr(choice) for choice in choices]
        expected = " or ".join([", ".join(quoted[:-1]), quoted[-1]] if quoted[1:] else quoted)
        raise ValueError(f"{name} must be {expected}, got {value!r}{nearest(value, choices)}")


def check_callable(name: str, value: Any) -> None:
    """Refuses what cannot be called.

    Raises:
        TypeError: It cannot.
    """
    if not callable(value):
        raise TypeError(f"{name} must be callable, got {value!r} ({type(value).__name__})")


def check_function(name: str, value: Any, instead: str = "") -> None:
    """Refuses what cannot be called, and a class, of which an instance is meant.

    Args:
        name: The argument.
        value: Its value.
        instead: What to pass in place of a class. "": an instance of it.

    Raises:
        TypeError: It is none.
    """
    check_callable(name, value)
    if isinstance(value, type):
        wanted = instead or f"{value.__name__}(), an instance"
        raise TypeError(
            f"{name} must be a function or an object that can be called, got the class "
            f"{value.__name__}: pass {wanted}"
        )


def check_one_of(name: str, value: Any, kinds: type | tuple[type, ...], expected: str) -> None:
    """Refuses anything but an object of one of `kinds`, which the error calls `expected`.

    Raises:
        TypeError: It is another.
    """
    if not isinstance(value, kinds):
        raise TypeError(f"{name} must be {expected}, got {value!r} ({type(value).__name__})")


def check_string(name: str, value: Any) -> None:
    """Refuses anything but a string that is not empty.

    Raises:
        TypeError: It is no string.
        ValueError: It is empty.
    """
    check_one_of(name, value, str, "a string")
    if not value:
        raise ValueError(f"{name} must not be empty")


def check_mapping(name: str, value: Any) -> None:
    """Refuses anything but a mapping whose keys are strings.

    Raises:
        TypeError: It is another.
    """
    check_one_of(name, value, Mapping, "a dict")
    for key in value:
        check_one_of(f"a key of {name}", key, str, "a string")


def check_list(name: str, value: Any, of: str) -> list[Any]:
    """Returns what an iterable yields; refuses strings, mappings and all that is no iterable.

    Args:
        name: The argument.
        value: Its value.
        of: What it should hold, for the error.

    Raises:
        TypeError: It is none.
    """
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of {of}, got {value!r} ({type(value).__name__})")
    return list(value)


def check_file_label(name: str, value: Any) -> None:
    """Refuses anything but a text that may be a part of a file's name.

    Letters, digits, `_ . + -` and spaces, the first a letter, a digit or `_`; at most 64 bytes.

    Raises:
        TypeError: It is not a string.
        ValueError: It has another character, or is empty or too long.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {value!r} ({type(value).__name__})")
    if not _LABEL.fullmatch(value):
        raise ValueError(
            f"{name} is a part of file names: it must be letters, digits, spaces and _ . + -, "
            f"beginning with a letter or digit, got {value!r}"
        )
    if len(value.encode()) > _LABEL_BYTES:
        raise ValueError(
            f"{name} is a part of file names: it must have at most {_LABEL_BYTES} bytes, got "
            f"{len(value.encode())} ({value[:20]!r}...)"
        )


def nearest(word: object, known: Iterable[str]) -> str:
    """Returns the end of an error about an unknown word: the known one that is meant, if any is.

    Example:
        >>> nearest("surogate", ["random", "surrogate"]), nearest("x", ["random"])
        (" (did you mean 'surrogate'?)", '')
    """
    by_lower = {each.lower(): each for each in known}
    close = difflib.get_close_matches(str(word).lower(), by_lower, n=1)
    return f" (did you mean {by_lower[close[0]]!r}?)" if close else ""


def no_attribute(
    owner: str, name: str, known: Iterable[str], other_words: Mapping[str, str] | None = None
) -> AttributeError:
    """Returns the error for a name that a module or an object lacks, with the one that is meant.

    Args:
        owner: In words: `module 'evonas'`.
        name: What was asked for.
        known: The names there are.
        other_words: What people call a name, to what it is called.

    Example:
        >>> no_attribute("a Result", "best", ["champion"], {"best": "champion"})
        AttributeError("a Result has no attribute 'best': it is called champion")
    """
    words = other_words or {}
    hint = f": it is called {words[name]}" if name in words else nearest(name, known)
    return AttributeError(f"{owner} has no attribute {name!r}{hint}")


def unknown_names(
    module: str, known: Sequence[str], other_words: Mapping[str, str] | None = None
) -> Callable[[str], NoReturn]:
    """Returns a `__getattr__` for a module: it refuses every name, with the one that is meant."""

    def refuse(name: str) -> NoReturn:
        raise no_attribute(f"module {module!r}", name, known, other_words)

    return refuse


def made_by(thing: object, settings: Mapping[str, Any]) -> str:
    """Returns the call that makes an object, with the arguments that are not their defaults.

    Args:
        thing: Of a class whose arguments are `settings`, with others that are left out.
        settings: By name.
    """
    parameters = inspect.signature(type(thing)).parameters
    shown = [
        f"{name}={value!r}"
        for name, value in settings.items()
        if name in parameters and value not in (parameters[name].default, {})
    ]
    return f"{type(thing).__name__}({', '.join(shown)})"
