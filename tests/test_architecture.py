"""The house rules of docs/design.md, read off the source with `ast`.

Who may import whom, where torch and DEAP may appear, that no global random generator is drawn
from, and how long files and functions may be. A new module fails here until it has its place in
`MAY_IMPORT` (and on the design page).
"""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "evonas"
SCRIPTS = ("benchmarks", "examples", "tests")

MAX_MODULE_LINES = 420
# A test file mirrors one module, and cannot import its helpers from another (importmode=importlib).
MAX_TEST_LINES = 520
MAX_FUNCTION_LINES = 60

DATA = "arguments canonical exceptions objectives records randomness genes space"
CONTRACT = f"{DATA} execution.trial problem"
EVOLUTION = "chromosome operators toolbox strategies"
STARTING = "identity pruning run_settings warm_start"
RECORDING = "budget interrupts execution storage history artifacts callbacks result"

# Room: the rooms it may import, itself aside. A room is a module or a package; of two rooms that
# hold a module the longer name counts (`execution.trial` before `execution`).
MAY_IMPORT = {
    "exceptions": "",
    "arguments": "",
    "canonical": "",
    "objectives": "exceptions",
    "records": "exceptions",
    "limits": "exceptions objectives records",
    "randomness": "exceptions canonical",
    "genes": "exceptions canonical",
    "space": "exceptions records canonical genes",
    "execution.trial": "exceptions records",
    "problem": f"{DATA} execution.trial",
    "chromosome": DATA,
    "operators": f"{DATA} chromosome",
    "toolbox": f"{CONTRACT} chromosome operators",
    "strategies": f"{CONTRACT} limits chromosome operators toolbox",
    "execution.torch_env": "exceptions records execution.trial",
    "execution": f"{CONTRACT} execution.torch_env",
    "storage": DATA,
    "budget": "exceptions",
    "interrupts": "exceptions",
    "history": f"{CONTRACT} storage",
    "artifacts": CONTRACT,
    # The names of a run's files for people, for whoever writes or reads them.
    "run_files": "exceptions",
    # A tracker looks in the database for what it has missed.
    "callbacks": f"{CONTRACT} storage",
    # The main figure of a run, below `result`, whose `plot` draws it.
    "report.canvas": "exceptions objectives records",
    "report.progress": "exceptions limits objectives records report.canvas",
    "result": f"{CONTRACT} limits storage callbacks report.progress",
    "confirm": f"{CONTRACT} {RECORDING} identity",
    "pruning": "arguments objectives records",
    "run_settings": "budget pruning",
    "identity": f"{CONTRACT} pruning strategies execution storage",
    "warm_start": f"{CONTRACT} storage identity",
    "driver": f"{CONTRACT} limits {EVOLUTION} {RECORDING} pruning run_settings",
    "search": f"{CONTRACT} {EVOLUTION} {RECORDING} {STARTING} execution.torch_env driver",
    # __init__.py: what `en.` offers
    "": f"{CONTRACT} {EVOLUTION} {RECORDING} confirm pruning search",
    "training": f"{CONTRACT} execution.torch_env",
    "nas": f"{CONTRACT} execution.torch_env training storage result run_files",
    "freezing": f"{CONTRACT} {RECORDING} execution.torch_env training confirm identity",
    "report": f"{DATA} storage result report.canvas report.progress",
    "testing": f"{CONTRACT} {EVOLUTION} {RECORDING} confirm search",
    "__main__": "cli",
    "cli": f"{CONTRACT} {EVOLUTION} {RECORDING} confirm search nas freezing report run_files",
}

TORCH_ROOMS = {"training", "nas", "freezing", "execution.torch_env"}
# search takes a Toolbox of the user's, and result.logbook is a tools.Logbook.
DEAP_ROOMS = {"chromosome", "operators", "toolbox", "strategies", "search", "result", "testing"}
LIBRARY_ROOMS = {"torch": TORCH_ROOMS, "torchvision": TORCH_ROOMS, "deap": DEAP_ROOMS}

# The guard around DEAP's global generators must reach them, and an executor seeds and restores
# those that a user's fitness function draws from. The conformance suites look whether they hold.
GLOBAL_RNG_ROOMS = {"randomness", "execution", "execution.torch_env", "testing"}
RNG_FACTORIES = {"Random", "SystemRandom"} | {
    "BitGenerator", "Generator", "PCG64", "Philox", "SeedSequence", "default_rng",
}  # fmt: skip


@dataclass(frozen=True)
class Module:
    """One file of the package, parsed; `name` is dotted, without `evonas`, "" for the root."""

    name: str
    is_package: bool
    tree: ast.Module

    @property
    def room(self) -> str | None:
        """The longest name in `MAY_IMPORT` that holds this module, or None."""
        parts = self.name.split(".") if self.name else []
        for length in range(len(parts), 0, -1):
            if (room := ".".join(parts[:length])) in MAY_IMPORT:
                return room
        return None if parts else ""

    @cached_property
    def imports(self) -> list[tuple[int, str]]:
        """The line and the absolute dotted name of everything imported, at any depth."""
        return list(self._imports())

    def _imports(self) -> Iterator[tuple[int, str]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    here = ["evonas", *self.name.split(".")] if self.name else ["evonas"]
                    up = node.level - 1 if self.is_package else node.level
                    base = ".".join([*here[: len(here) - up], *([base] if base else [])])
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def read_package() -> dict[str, Module]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found[name] = Module(name, is_package, ast.parse(path.read_text(), str(path)))
    return found


MODULES = read_package()


def target(imported: str, modules: dict[str, Module]) -> str | None:
    """The module of ours that `evonas.x.y` names (y may be an attribute), None if not ours."""
    parts = imported.split(".")
    if parts[0] != "evonas":
        return None
    for length in range(len(parts), 1, -1):
        if (name := ".".join(parts[1:length])) in modules:
            return name
    return ""


def wrong_edges(module: Module, modules: dict[str, Module]) -> list[str]:
    """What `module` imports of ours and may not."""
    if module.room is None:
        return [f"evonas.{module.name} has no place in MAY_IMPORT (nor on the design page)"]
    allowed = {module.room, *MAY_IMPORT[module.room].split()}
    wrong = []
    for line, imported in module.imports:
        name = target(imported, modules)
        if name is not None and modules[name].room not in allowed:
            wrong.append(f"evonas.{module.name}:{line} imports {imported}")
    return wrong


def wrong_libraries(module: Module) -> list[str]:
    """Imports of torch, torchvision and deap outside their rooms."""
    return [
        f"evonas.{module.name}:{line} imports {imported}"
        for line, imported in module.imports
        if (rooms := LIBRARY_ROOMS.get(imported.split(".")[0])) and module.room not in rooms
    ]


def global_draws(module: Module) -> list[str]:
    """Uses of the global generators of `random` and `numpy.random`, outside the guard's users."""
    names = {imported.split(".")[-1] for _, imported in module.imports}
    if module.room in GLOBAL_RNG_ROOMS or "borrowed_global_rng" in names:
        return []
    found = [
        f"evonas.{module.name}:{line} imports {imported}"
        for line, imported in module.imports
        if imported.startswith(("random.", "numpy.random."))
        and imported.split(".")[-1] not in RNG_FACTORIES
    ]
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Attribute) or node.attr in RNG_FACTORIES:
            continue
        if is_global_rng(node.value):
            found.append(f"evonas.{module.name}:{node.lineno} uses {ast.unparse(node)}")
    return found


def is_global_rng(node: ast.expr) -> bool:
    """Whether this is `random`, `np.random` or `numpy.random`."""
    if isinstance(node, ast.Attribute) and node.attr == "random":
        return isinstance(node.value, ast.Name) and node.value.id in ("np", "numpy")
    return isinstance(node, ast.Name) and node.id == "random"


def n_code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body without the docstring: documenting arguments well is no fault."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return function.end_lineno - body[0].lineno + 1 if body else 0


def long_functions(path: Path) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines"
        for node in ast.walk(ast.parse(path.read_text(), str(path)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := n_code_lines(node)) > MAX_FUNCTION_LINES
    ]


def python_files() -> list[Path]:
    return [path for name in ("evonas", *SCRIPTS) for path in sorted((ROOT / name).rglob("*.py"))]


def test_nothing_imports_upwards() -> None:
    assert [fault for module in MODULES.values() for fault in wrong_edges(module, MODULES)] == []


def test_torch_and_deap_stay_in_their_rooms() -> None:
    assert [fault for module in MODULES.values() for fault in wrong_libraries(module)] == []


def test_nothing_draws_from_a_global_generator() -> None:
    assert [fault for module in MODULES.values() for fault in global_draws(module)] == []


def test_the_rooms_form_no_circle() -> None:
    assert cycle({room: set(allowed.split()) for room, allowed in MAY_IMPORT.items()}) is None


def test_modules_form_no_circle() -> None:
    assert cycle({name: modules_imported(module) for name, module in MODULES.items()}) is None


def modules_imported(module: Module) -> set[str]:
    """The other modules of ours that running this one imports."""
    never_run = typing_only(module)
    found = {target(name, MODULES) for line, name in module.imports if line not in never_run}
    return {name for name in found if name is not None} - {module.name}


def typing_only(module: Module) -> set[int]:
    """The lines under `if TYPE_CHECKING:`, which never run."""
    return {
        line
        for node in ast.walk(module.tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name)
        if node.test.id == "TYPE_CHECKING"
        for line in range(node.body[0].lineno, node.body[-1].end_lineno + 1)
    }


def cycle(graph: dict[str, set[str]]) -> list[str] | None:
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return error.args[1]
    return None


def test_the_design_page_names_every_room() -> None:
    page = (ROOT / "docs" / "design.md").read_text()
    names = {room.split(".")[-1] for room in MAY_IMPORT}
    assert sorted(name for name in names if name not in page and not name.startswith("_")) == []


def test_modules_and_functions_stay_short() -> None:
    long_modules = [
        f"{path.relative_to(ROOT)}: {length} lines"
        for path in python_files()
        if (length := len(path.read_text().splitlines()))
        > (MAX_TEST_LINES if "tests" in path.relative_to(ROOT).parts else MAX_MODULE_LINES)
    ]
    assert long_modules == []
    assert [found for path in python_files() for found in long_functions(path)] == []


def test_nothing_is_called_utils() -> None:
    assert [str(path) for path in python_files() if path.stem.strip("_") == "utils"] == []


def test_the_length_of_a_function_is_its_code() -> None:
    lines = "\n".join("    x = 1" for _ in range(7))
    (function,) = ast.parse(f'def f(\n    a,\n):\n    """One.\n\n    Two."""\n{lines}').body
    assert n_code_lines(function) == 7


PLANTED = [
    ("genes", "from evonas.search import evolve", wrong_edges),
    ("genes", "def f():\n    import evonas.toolbox", wrong_edges),
    ("strategies.base", "from evonas import storage", wrong_edges),
    ("strategies.base", "from ..execution import trial, serial", wrong_edges),
    ("execution.trial", "from . import serial", wrong_edges),
    ("storage", "import evonas", wrong_edges),
    ("helpers", "", wrong_edges),
    ("execution.serial", "import torch.nn as nn", wrong_libraries),
    ("report.plots", "from torchvision import datasets", wrong_libraries),
    ("driver", "def f():\n    from deap import tools", wrong_libraries),
    ("operators", "import random\nrandom.random()", global_draws),
    ("operators", "import numpy as np\nnp.random.seed(0)", global_draws),
    ("operators", "from random import shuffle", global_draws),
]


@pytest.mark.parametrize(("name", "source", "check"), PLANTED)
def test_a_planted_fault_is_found(name: str, source: str, check: object) -> None:
    planted = Module(name, False, ast.parse(source))
    house = "genes search driver toolbox storage execution.trial execution.serial strategies.base"
    modules = {key: Module(key, False, ast.parse("")) for key in ["", "execution", *house.split()]}
    found = check(planted, modules) if check is wrong_edges else check(planted)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("search", "from evonas.strategies.base import Strategy"),
        ("search", "from .execution import serial"),
        ("training.loop", "import torch\nfrom evonas.execution.trial import Trial"),
        ("execution.torch_env", "import torch"),
        (
            "operators",
            "import random\nimport numpy as np\nrandom.Random(1), np.random.default_rng(1)",
        ),
    ],
)
def test_what_is_allowed_is_not_flagged(name: str, source: str) -> None:
    module = Module(name, False, ast.parse(source))
    house = {"": module, "strategies.base": module, "execution": module}
    house |= {
        key: Module(key, False, ast.parse(""))
        for key in ["strategies.base", "execution", "execution.serial", "execution.trial"]
    }
    assert wrong_edges(module, house) + wrong_libraries(module) + global_draws(module) == []


def test_importing_evonas_leaves_torch_out_and_the_creator_empty() -> None:
    script = """
        import sys
        import evonas as en
        heavy = {"torch", "torchvision", "sklearn", "pandas", "transformers", "matplotlib"}
        print(sorted(heavy & sys.modules.keys()))

        toolbox = en.make_toolbox(en.SearchSpace({"x": en.Float(0.0, 1.0), "n": [1, 2, 3]}))
        toolbox.population(n=4)
        from deap import creator
        print([name for name, made in vars(creator).items() if type(made) is creator.MetaCreator])
        print(sorted(heavy & sys.modules.keys()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "[]", "[]"]
