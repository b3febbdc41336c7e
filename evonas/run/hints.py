"""The words of other libraries for what evonas calls otherwise, for those who come from there."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

__all__ = ["with_hints"]

P = ParamSpec("P")
R = TypeVar("R")


def with_hints(words: Mapping[str, str]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Returns a decorator: an unknown keyword is refused with the one that is meant.

    Args:
        words: Another library's keyword to ours, or to what to write.

    Example:
        >>> @with_hints({"n_trials": "max_evaluations="})
        ... def search(max_evaluations=None):
        ...     return max_evaluations
        >>> search(n_trials=3)
        Traceback (most recent call last):
        ...
        TypeError: search() has no argument 'n_trials': write max_evaluations=
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        known = set(inspect.signature(function).parameters)

        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs:
                if name not in known:
                    close = difflib.get_close_matches(name, known, n=1)
                    meant = words.get(name) or (f"{close[0]}=" if close else "")
                    hint = f": write {meant}" if meant else f"; it has {', '.join(sorted(known))}"
                    raise TypeError(f"{function.__name__}() has no argument {name!r}{hint}")
            return function(*args, **kwargs)

        return called

    return decorate
