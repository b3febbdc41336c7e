"""Every public name is on an API page: in `docs/reference/`, by a line `::: path`."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
import zlib
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))
MODULES = [
    "evonas", "evonas.callbacks", "evonas.evolution.individual", "evonas.evolution.operators",
    "evonas.exceptions", "evonas.execution", "evonas.freezing", "evonas.training.data.corpora",
    "evonas.freezing.text", "evonas.nas", "evonas.nas.layers", "evonas.objectives",
    "evonas.problem", "evonas.pruning", "evonas.records", "evonas.report", "evonas.report.plots",
    "evonas.run.result", "evonas.space.genes", "evonas.strategies", "evonas.testing",
    "evonas.training",
]  # fmt: skip


def directives(text: str) -> list[str]:
    return re.findall(r"^::: (\S+)$", text, re.M)


NAMED = [path for page in PAGES for path in directives(page.read_text())]
# These import other libraries, which need not be installed.
ADAPTERS = [path for path in NAMED if path.startswith("evonas.integrations.")]
ON_PAGES = [path for path in NAMED if path not in ADAPTERS]


@functools.cache
def find(path: str) -> Any:
    """Returns the module or object of a path such as `evonas.run.evolve.evolve`."""
    if importlib.util.find_spec(path.rpartition(".")[0] or path) is None:
        raise ModuleNotFoundError(path)
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


@functools.cache
def described(module: str) -> set[str]:
    """Names of constants in a module, or package, with a docstring below: others are not shown."""
    found = set()
    place = ROOT / module.replace(".", "/")
    for path in place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]:
        body = ast.parse(path.read_text()).body
        for line, below in pairwise(body):
            targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", 0)]
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            found |= {t.id for t in targets if isinstance(t, ast.Name) and is_text}
    return found


def is_shown(module: str, name: str, thing: Any, pages: list[str]) -> bool:
    """Whether a directive names the thing, or a module that exports it with a docstring."""
    for path in pages:
        target = find(path)
        if not isinstance(target, ModuleType):
            if target is thing:
                return True
        elif thing is target:
            return True
        elif name in getattr(target, "__all__", ()) and getattr(target, name) is thing:
            is_code = inspect.isclass(thing) or inspect.isfunction(thing)
            if thing.__doc__ if is_code else name in described(module):
                return True
    return False


def missing(module: str, pages: list[str]) -> list[str]:
    exported = importlib.import_module(module)
    return [
        name
        for name in exported.__all__
        if not is_shown(module, name, getattr(exported, name), pages)
    ]


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_on_a_reference_page(module: str) -> None:
    assert missing(module, ON_PAGES) == [], f"add a line '::: {module}...' to docs/reference/"


def test_no_reference_page_names_what_is_not_there() -> None:
    for path in ON_PAGES:
        assert find(path) is not None


def test_every_adapter_to_another_library_is_on_a_page() -> None:
    folder = ROOT / "evonas" / "integrations"
    names = {path.stem for path in folder.glob("*.py")} - {"__init__", "recipes"}
    assert set(ADAPTERS) == {f"evonas.integrations.{name}" for name in names}


def test_nothing_is_on_two_reference_pages() -> None:
    assert len(NAMED) == len(set(NAMED))


def test_what_is_missing_is_found() -> None:
    without = [path for path in ON_PAGES if path not in ("evonas.strategies", "evonas.pruning")]
    found = missing("evonas", without)
    assert {"NSGA2", "MedianPruner"} <= set(found)
    assert "evolve" not in found
    # Constants without a docstring are left out of the list of their module.
    assert "FAMILIES" in missing("evonas.nas", ["evonas.nas"])
    assert "Augment" not in missing("evonas.training", ["evonas.training"])


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    there = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert named == there


@pytest.mark.slow
def test_the_site_builds_and_shows_every_public_name(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings", reason="pip install -e '.[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    inventory = (tmp_path / "site" / "objects.inv").read_bytes()
    lines = zlib.decompress(inventory.split(b"zlib.\n", 1)[1]).decode().splitlines()
    shown = {line.split()[0] for line in lines}
    for module in MODULES:
        for name in importlib.import_module(module).__all__:
            ends = re.compile(rf"evonas\.(.*\.)?{re.escape(name)}")
            assert any(map(ends.fullmatch, shown)), f"{module}.{name}"
    page = (tmp_path / "site" / "reference" / "search" / "index.html").read_text()
    assert "&gt;&gt;&gt; " in page, "the examples of docstrings are not shown as code"
    assert "Unreleased" in (tmp_path / "site" / "changelog" / "index.html").read_text()
