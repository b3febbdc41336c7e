"""Functions of the user's by file and name, to be found again in another process."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

__all__ = ["import_from_file", "place_of"]


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
        OSError: It cannot be read.
    """
    path = Path(file).resolve()
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
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise ImportError(f"{path} has no {name!r}")
        found = getattr(found, part)
    return found
