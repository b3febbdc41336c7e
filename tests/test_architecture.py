"""The house rules of docs/design.md, read off the source with `ast`.

Who may import whom, where torch and DEAP may appear, that no global random generator is drawn
from, and how long files and functions may be. A new module fails here until it has its place in
`LAYERS` (and on the design page).
"""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "evonas"
SCRIPTS = ("benchmarks", "examples", "tests")

MAX_CODE_LINES = 350  # without docstrings, comments and blank lines
MAX_ROOT_FILES = 9
# A test file mirrors one module, and cannot import its helpers from another (importmode=importlib).
MAX_TEST_LINES = 520
MAX_FUNCTION_LINES = 60

# Bottom to top: a room may import those on the lines above its own, and itself. A room is a module
# or a package; of two rooms that hold a module the longer name counts.
LAYERS = [
    "exceptions arguments execution.model_calls execution.user_code run.signature space.naming",
    "records files execution.anatomy",
    "execution.weights",  # what a trial saves, and every record of a run can load
    "objectives space execution.trial",  # the trial is what a fitness function sees
    "problem pruning evolution",
    "strategies execution run.store report.style report.formats",
    "callbacks report.progress",  # trackers catch up from the database; Result.plot draws progress
    "run",
    "training",
    "nas freezing report testing",
    "integrations live",
    "cli",
]
# The root offers what lies up to `run`; `python -m evonas` is the command.
SAME_LAYER = {"": "training", "__main__": "cli"}

TORCH_MODULES = ("training", "nas", "freezing", "integrations")
TORCH_MODULES += ("execution.torch_env", "execution.torch_state", "execution.accelerator")
TORCH_MODULES += ("execution.anatomy", "execution.model_calls", "execution.weights")
TORCH_MODULES += ("cli.export.builder", "cli.export.model")
# evolve takes a Toolbox of the user's, and Result.logbook is a tools.Logbook.
DEAP_MODULES = ("evolution", "strategies", "testing", "run.evolve", "run.result", "run.settings")
LIBRARY_MODULES = {"torch": TORCH_MODULES, "torchvision": TORCH_MODULES, "deap": DEAP_MODULES}

# The guard around DEAP's global generators must reach them, and an executor seeds and restores
# those that a user's fitness function draws from. The conformance suites look whether they hold.
GLOBAL_RNG_MODULES = ("evolution.random_state", "execution", "testing")
RNG_FACTORIES = {"Random", "SystemRandom"} | {
    "BitGenerator", "Generator", "PCG64", "Philox", "SeedSequence", "default_rng",
}  # fmt: skip


def rooms_below() -> dict[str, set[str]]:
    """Room: the rooms that it may import."""
    below: set[str] = set()
    allowed = {}
    for line in LAYERS:
        for room in line.split():
            allowed[room] = set(below)
        below.update(line.split())
    for room, like in SAME_LAYER.items():
        allowed[room] = allowed[like] | ({"cli"} if room == "__main__" else set())
    return allowed


ROOMS = rooms_below()


@dataclass(frozen=True)
class Module:
    """One file of the package, parsed; `name` is dotted, without `evonas`, "" for the root."""

    name: str
    is_package: bool
    tree: ast.Module

    @property
    def room(self) -> str | None:
        """The longest room that holds this module, or None."""
        held = [room for room in ROOMS if room and self.within((room,))]
        return max(held, key=len, default=None if self.name else "")

    def within(self, places: Iterable[str]) -> bool:
        """Whether this module is one of `places`, or lies in one."""
        return any(self.name == place or self.name.startswith(f"{place}.") for place in places)

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
        return [f"evonas.{module.name} has no place in LAYERS (nor on the design page)"]
    allowed = {module.room, *ROOMS[module.room]}
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
        if (places := LIBRARY_MODULES.get(imported.split(".")[0])) and not module.within(places)
    ]


def global_draws(module: Module) -> list[str]:
    """Uses of the global generators of `random` and `numpy.random`, outside the guard's users."""
    names = {imported.split(".")[-1] for _, imported in module.imports}
    if module.within(GLOBAL_RNG_MODULES) or "borrowed_global_rng" in names:
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


def room_list() -> str:
    """The tree of the package, with the first docstring line of each module."""
    lines = ["evonas/"]
    for name, module in sorted(MODULES.items(), key=lambda item: _place(*item)):
        path = [*name.split("."), ""] if module.is_package else name.split(".")
        if not name:
            path = ["__init__"]
        leaf = f"{path[-2]}/" if module.is_package and name else f"{path[-1]}.py"
        indent = "  " * (len(path) - (1 if module.is_package and name else 0))
        summary = (ast.get_docstring(module.tree) or "").partition("\n")[0]
        lines.append(f"{indent}{leaf:<{30 - len(indent)}}{summary}")
    return "\n".join(lines)


def _place(name: str, module: Module) -> list[tuple[int, str]]:
    """Sorts the files of a room before the rooms within it."""
    parts = name.split(".") if name else []
    n_rooms = len(parts) if module.is_package else len(parts) - 1
    return [(1 if number < n_rooms else 0, part) for number, part in enumerate(parts)]


def test_the_room_list_of_the_design_page_is_what_the_modules_say() -> None:
    page = (ROOT / "docs" / "design.md").read_text()
    wanted = room_list()
    assert wanted in page, f"put this into the text block of docs/design.md:\n\n{wanted}\n"


def code_lines(path: Path) -> int:
    """Lines that are neither blank, comment nor docstring."""
    text = path.read_text()
    documented: set[int] = set()
    for node in ast.walk(ast.parse(text, str(path))):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            documented |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in documented
        for number, line in enumerate(text.splitlines(), 1)
    )


def test_modules_and_functions_stay_short() -> None:
    lengths = {
        path.relative_to(ROOT): (
            (len(path.read_text().splitlines()), MAX_TEST_LINES)
            if path.is_relative_to(ROOT / "tests")
            else (code_lines(path), MAX_CODE_LINES)
        )
        for path in python_files()
    }
    assert [f"{path}: {n}" for path, (n, allowed) in lengths.items() if n > allowed] == []
    assert [found for path in python_files() for found in long_functions(path)] == []


def test_code_lines_are_neither_docstrings_comments_nor_blank(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        '"""One.\n\nTwo.\n"""\n\n# why\nx = 1\n\n\ndef f():\n    """One."""\n    y = 2\n'
    )
    assert code_lines(path) == 3


def test_the_root_holds_few_files() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MAX_ROOT_FILES


def test_dir_lists_the_public_names_only() -> None:
    import evonas

    assert dir(evonas) == sorted([*evonas.__all__, "__version__"])


def test_nothing_is_called_utils() -> None:
    assert [str(path) for path in python_files() if path.stem.strip("_") == "utils"] == []


def test_the_length_of_a_function_is_its_code() -> None:
    lines = "\n".join("    x = 1" for _ in range(7))
    (function,) = ast.parse(f'def f(\n    a,\n):\n    """One.\n\n    Two."""\n{lines}').body
    assert n_code_lines(function) == 7


PLANTED = [
    ("space.genes", "from evonas.run.evolve import evolve", wrong_edges),
    ("space.genes", "def f():\n    import evonas.evolution.toolbox", wrong_edges),
    ("strategies.base", "from evonas.run import store", wrong_edges),
    ("strategies.base", "from ..execution import trial, serial", wrong_edges),
    ("execution.trial", "from . import serial", wrong_edges),
    ("run.store", "import evonas", wrong_edges),
    ("helpers", "", wrong_edges),
    ("execution.serial", "import torch.nn as nn", wrong_libraries),
    ("report.plots", "from torchvision import datasets", wrong_libraries),
    ("run.driver", "def f():\n    from deap import tools", wrong_libraries),
    ("evolution.operators", "import random\nrandom.random()", global_draws),
    ("evolution.operators", "import numpy as np\nnp.random.seed(0)", global_draws),
    ("evolution.operators", "from random import shuffle", global_draws),
]


@pytest.mark.parametrize(("name", "source", "check"), PLANTED)
def test_a_planted_fault_is_found(name: str, source: str, check: object) -> None:
    planted = Module(name, False, ast.parse(source))
    house = "space.genes run.evolve evolution.toolbox run.store execution.trial execution.serial"
    names = ["", "execution", "strategies.base", *house.split()]
    modules = {key: Module(key, False, ast.parse("")) for key in names}
    found = check(planted, modules) if check is wrong_edges else check(planted)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("run.evolve", "from evonas.strategies.base import Strategy"),
        ("run.evolve", "from ..execution import serial"),
        ("training.loop", "import torch\nfrom evonas.execution.trial import Trial"),
        ("execution.torch_env", "import torch"),
        (
            "evolution.operators",
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
