"""The user's function that `--build` names: found, called, and refused in a line or two."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from evonas.exceptions import EvonasError
from evonas.execution.user_code import (
    call_of_class,
    import_from_file,
    import_from_module,
    reading_only,
)
from evonas.records import Genes

__all__ = ["named_builder"]


def named_builder(build: str) -> Callable[[Genes], nn.Module]:
    """Returns the function that `--build` names; it raises `EvonasError` for whatever it raises.

    Args:
        build: `FILE.py:FUNCTION` or `MODULE:FUNCTION`; a problem is taken for its `build`.

    Raises:
        EvonasError: It is none, or there is none.
    """
    place, _, name = build.rpartition(":")
    if not place or not name:
        raise EvonasError(f"--build must be FILE.py:FUNCTION or MODULE:FUNCTION, got {build!r}")
    is_file = place.endswith(".py")
    try:
        found = import_from_file(place, name) if is_file else import_from_module(place, name)
    except (ImportError, OSError) as error:
        raise EvonasError(f"--build {build} cannot be used: {error}") from error
    wrong = f"--build must name a function of the genes to the untrained module; {name} in {place}"
    if isinstance(found, nn.Module):
        raise EvonasError(f"{wrong} is a module itself ({type(found).__name__})")
    function = found if isinstance(found, type) else getattr(found, "build", found)
    if not callable(function):
        raise EvonasError(f"{wrong} is {found!r} ({type(found).__name__})")

    def called(genes: Genes) -> nn.Module:
        try:
            with reading_only(place):
                module = function(genes)
        except (Exception, SystemExit) as error:
            call = call_of_class(function, genes)
            if call is not None:
                raise EvonasError(
                    f"{wrong} is a class, which does not take the genes as one dict: name\n"
                    f"  def build(genes): return {call}"
                ) from error
            raised = f"{type(error).__name__}: {error}"
            raise EvonasError(f"{wrong} raised {raised}{_where(error, found)}") from error
        if not isinstance(module, nn.Module):
            raise EvonasError(f"{wrong} returned {type(module).__name__}")
        return module

    return called


def _where(error: BaseException, function: Any) -> str:
    """Returns the line of the function's file in which an error was raised; empty: in none."""
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename == file]
    if file is None or not frames:
        return ""
    return f"\n  {Path(file).name}, line {frames[-1].lineno}: {frames[-1].line}"
