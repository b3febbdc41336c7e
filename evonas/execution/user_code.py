"""Functions of the user's by file and name, to be found again in another process."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

__all__ = [
    "ScriptError",
    "call_of_class",
    "class_not_function",
    "import_from_file",
    "import_from_module",
    "place_of",
    "reading_only",
    "refuse_while_reading",
]


class ScriptError(ImportError):
    """The user's file is there, and its code raised while it was imported."""


_read: ContextVar[str | None] = ContextVar("_read", default=None)


@contextmanager
def reading_only(place: str) -> Iterator[None]:
    """Lets the user's code run for a function in it, and no search: see `refuse_while_reading`.

    Args:
        place: The file or module whose code runs.
    """
    token = _read.set(place)
    try:
        yield
    finally:
        _read.reset(token)


def refuse_while_reading(function: str) -> None:
    """Raises where code of the user's runs for a function in it: reading a run changes none.

    Args:
        function: Of evonas, that would write a run.

    Raises:
        RuntimeError: It was called within `reading_only`.
    """
    place = _read.get()
    if place is not None:
        raise RuntimeError(
            f"{function} must not run while evonas imports {place} to find a function in it, "
            'which changes no run: put the call under if __name__ == "__main__":'
        )


def class_not_function(
    name: str, build: Any, genes: Mapping[str, Any], error: Exception
) -> TypeError | None:
    """Returns the error for a class that was passed as a function of the genes, and raised.

    None where it is no class, or one whose constructor has the argument `genes`: what it raised is
    then its own affair.

    Args:
        name: Of the argument.
        build: Its value.
        genes: With which it was called.
        error: What it raised.
    """
    call = call_of_class(build, genes)
    if call is None:
        return None
    return TypeError(
        f"{name} must be a function of the genes to a new module, got the class {build.__name__}, "
        f"which does not take the genes as one dict ({type(error).__name__}: {error}): pass "
        f"lambda genes: {call}"
    )


def call_of_class(build: Any, genes: Mapping[str, Any]) -> str | None:
    """Returns how a class is called with the genes that it takes: `Net(width=genes['width'])`.

    None where it is no class, or one whose constructor has the argument `genes`.
    """
    if not isinstance(build, type):
        return None
    try:
        taken = list(inspect.signature(build).parameters)
    except (TypeError, ValueError):  # of a built-in class
        taken = []
    if "genes" in taken:
        return None
    given = [gene for gene in genes if gene in taken] or list(genes)
    arguments = ", ".join(f"{gene}=genes[{gene!r}]" for gene in given)
    return f"{build.__name__}({arguments})"


def place_of(function: Any) -> tuple[str, str] | None:
    """Returns the file of a function or class and its name there; None where it has none.

    A lambda, and what is defined within a function, cannot be found by its name.
    """
    name = getattr(function, "__qualname__", "")
    if not name or "<" in name:
        return None
    try:
        file = inspect.getsourcefile(function)
    except TypeError:  # of a built-in class or an object
        return None
    if file is None or not Path(file).is_file():  # a prompt, a notebook
        return None
    return str(Path(file).resolve()), name


def import_from_file(file: str, name: str) -> Any:
    """Runs a Python file as a module and returns what it calls `name` (`Class.method` too).

    Its folder goes on `sys.path`, as where it is run as a script; `__name__` is another, so that a
    `__main__` guard holds.

    Raises:
        ImportError: It is no Python file, or there is no such name.
        OSError: It is not there, or cannot be read.
        ScriptError: Its own code raised, from what that raised (`sys.exit` too).
    """
    path = Path(file).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    module_name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    module = sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is no Python file")
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            with _importing(str(path)):
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
    return _named(module, name, str(path))


def import_from_module(module: str, name: str) -> Any:
    """Imports a module and returns what it calls `name`.

    Raises:
        ImportError: There is no such name.
        ScriptError: There is no such module, or its own code raised.
    """
    with _importing(module):
        found = importlib.import_module(module)
    return _named(found, name, module)


@contextmanager
def _importing(place: str) -> Iterator[None]:
    with reading_only(place):
        try:
            yield
        except (Exception, SystemExit) as error:
            raise ScriptError(
                f"importing {place} raised {type(error).__name__}: {error}"
            ) from error


def _named(module: Any, name: str, place: str) -> Any:
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise ImportError(f"{place} has no {name!r}")
        found = getattr(found, part)
    return found
