"""The words of other libraries for what evonas calls otherwise, for those who come from there."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, ParamSpec, TypeVar

__all__ = ["named_arguments", "with_hints"]

P = ParamSpec("P")
R = TypeVar("R")


def with_hints(
    words: Mapping[str, str], settings: Collection[str] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Returns a decorator: an unknown keyword is refused with the one that is meant.

    Args:
        words: Another library's keyword to ours, or to what to write.
        settings: Arguments that the signature does not name (`**settings: Unpack[Settings]`).

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
        known = {*named_arguments(function), *settings}
        # Of a class its constructor is decorated.
        title = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]

        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs:
                if name not in known:
                    close = difflib.get_close_matches(name, known, n=1)
                    meant = words.get(name) or (f"{close[0]}=" if close else "")
                    hint = f": write {meant}" if meant else f"; it has {', '.join(sorted(known))}"
                    raise TypeError(f"{title}() has no argument {name!r}{hint}")
            return function(*args, **kwargs)

        return called

    return decorate


def named_arguments(function: Callable[..., Any]) -> list[str]:
    """Returns the names in the signature, without `**settings`.

    Example:
        >>> def search(space, /, *, seed=0, **settings): ...
        >>> named_arguments(search)
        ['space', 'seed']
    """
    parameters = inspect.signature(function).parameters.values()
    return [each.name for each in parameters if each.kind is not each.VAR_KEYWORD]
