"""Seeds torch in the first trial that imports it, which began before there was a torch to seed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from evonas.execution.process_state import process_state
from evonas.execution.trial import TrialSettings

__all__ = ["late_torch_environment"]


@contextmanager
def late_torch_environment(settings: TrialSettings) -> Iterator[None]:
    """Runs a block that may be the first to import torch; from there on it is a torch trial.

    A fitness function that imports torch inside would else compute its first trial in a process
    with torch's own seed and thread count, and each later one with the trial's: the result would
    depend on how often the search was stopped, and on the number of workers.
    """
    with ExitStack() as stack:

        def enter() -> None:
            from evonas.execution.torch_env import torch_environment  # only here is torch imported

            stack.enter_context(torch_environment(settings))

        if settings.process:
            stack.enter_context(process_state(settings.process))
        finder = _Finder(enter)
        sys.meta_path.insert(0, finder)
        try:
            yield
        finally:
            finder.retire()


class _Finder(MetaPathFinder):
    """Finds torch as Python does, and has a function called once it is imported."""

    def __init__(self, then: Callable[[], None]) -> None:
        self._then = then

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torch":
            return None
        self.retire()
        spec = importlib.util.find_spec(name)
        loader = None if spec is None else spec.loader
        if spec is None or loader is None:
            return spec
        execute = loader.exec_module

        def execute_and_then(module: ModuleType) -> None:
            del loader.__dict__["exec_module"]
            execute(module)
            self._then()

        # On the loader object, which is this module's alone: its class stays as it is.
        loader.exec_module = execute_and_then  # type: ignore[method-assign]
        return spec

    def retire(self) -> None:
        """Takes itself out of the search path."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
