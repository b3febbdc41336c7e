"""setup.cfg says what the code imports, and the package says what it offers."""

from __future__ import annotations

import ast
import configparser
import functools
import sys
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from itertools import pairwise
from pathlib import Path

import pytest

import evonas as en

ROOT = Path(__file__).resolve().parents[1]

# What outside code relies on (docs/design.md): add freely, rename none.
NAMES = "SearchSpace Categorical Integer Float Boolean Objective make_toolbox evolve".split()
EXTRAS = "examples bert ray report trackers test dev".split()


# Import name of what a declared dependency itself always brings: that dependency.
BROUGHT_BY = {"PIL": "torchvision"}


def read_config() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def distributions(requirements: str) -> set[str]:
    """The names, in lower case, of the distributions in lines such as `torch>=2.6`."""
    lines = [line.strip() for line in requirements.splitlines()]
    return {line.split(">=")[0].split("[")[0].lower() for line in lines if line}


CONFIG = read_config()
CORE = distributions(CONFIG["options"]["install_requires"])
EXTRA = set().union(*map(distributions, CONFIG["options.extras_require"].values())) - {"evonas"}


# The example scripts share a module, which lies beside them.
OURS = {"evonas", "benchmarks", "examples"} | {
    path.stem for path in (ROOT / "examples").glob("*.py")
}


@functools.cache
def installed() -> Mapping[str, list[str]]:
    """Import name to the distributions that bring it; seconds, where there are many."""
    return packages_distributions()


@functools.cache
def third_party_imports(folder: str) -> dict[str, str]:
    """Top-level name of everything imported that is neither ours nor Python's, and one place."""
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            for name in names:
                root = name.split(".")[0]
                if root not in sys.stdlib_module_names | OURS:
                    found[root] = f"{path.relative_to(ROOT)}:{node.lineno}"
    return found


def undeclared(folder: str, declared: set[str]) -> dict[str, str]:
    known = installed()
    return {
        name: where
        for name, where in third_party_imports(folder).items()
        if not declared
        & {
            entry.lower()
            # Of an extra that is not installed here, the name that PyPI makes of it.
            for entry in [*known.get(name, [name.replace("_", "-")]), BROUGHT_BY.get(name, "")]
        }
    }


@pytest.mark.parametrize("folder", ["evonas", "examples", "benchmarks", "tests"])
def test_everything_imported_is_a_declared_dependency(folder: str) -> None:
    assert undeclared(folder, CORE | EXTRA) == {}


def test_an_undeclared_import_is_found() -> None:
    assert undeclared("evonas", CORE - {"deap"} | EXTRA).keys() == {"deap"}


def test_every_core_dependency_is_imported() -> None:
    known = installed()
    used = {
        entry.lower() for name in third_party_imports("evonas") for entry in known.get(name, [])
    }
    assert CORE - used == set()


def test_every_dependency_says_which_module_needs_it() -> None:
    lines = [line.strip() for line in (ROOT / "setup.cfg").read_text().splitlines()]
    bare = [
        line
        for above, line in pairwise(lines)
        if ">=" in line and not line.startswith("python_requires") and not above.startswith("# ")
    ]
    assert bare == []


def test_the_extras_that_outside_code_relies_on_exist() -> None:
    assert set(EXTRAS) <= set(CONFIG["options.extras_require"])


@pytest.mark.parametrize("name", NAMES)
def test_the_names_that_outside_code_relies_on_exist(name: str) -> None:
    assert name in en.__all__


def test_all_lists_what_is_there_once() -> None:
    assert len(set(en.__all__)) == len(en.__all__)
    assert [name for name in en.__all__ if not hasattr(en, name)] == []
    assert en.__doc__


def test_the_package_is_marked_as_typed() -> None:
    assert (ROOT / "evonas" / "py.typed").is_file()
    assert CONFIG["options.package_data"]["evonas"] == "py.typed"
