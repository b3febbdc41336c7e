"""setup.cfg says what the code imports, and the package says what it offers."""

from __future__ import annotations

import ast
import configparser
import functools
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import evonas as en

ROOT = Path(__file__).resolve().parents[1]

# Python before 3.11.4 has no filters, later ones want one.
FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}

# What outside code relies on (docs/design.md): add freely, rename none.
NAMES = "SearchSpace Categorical Integer Float Boolean Objective make_toolbox evolve".split()
EXTRAS = "examples bert ray report trackers all test dev".split()
FOR_MAKERS = {"integrations", "bench", "test", "docs", "dev"}


# Import name of what a declared dependency itself always brings: that dependency.
BROUGHT_BY = {"PIL": "torchvision", "yaml": "ray"}


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


def test_the_extra_all_is_every_extra_that_users_need() -> None:
    extras = CONFIG["options.extras_require"]
    assert sorted(extras["all"].split()) == sorted(
        f"evonas[{name}]" for name in set(extras) - FOR_MAKERS - {"all"}
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_names_that_outside_code_relies_on_exist(name: str) -> None:
    assert name in en.__all__


def test_all_lists_what_is_there_once() -> None:
    assert len(set(en.__all__)) == len(en.__all__)
    assert [name for name in en.__all__ if not hasattr(en, name)] == []
    assert en.__doc__


def test_the_templates_are_part_of_the_package() -> None:
    declared = CONFIG["options.package_data"]["evonas.report"].split()
    assert declared == ["templates/*"], "of which a wheel is made"
    names = {path.name for path in (ROOT / "evonas" / "report" / "templates").iterdir()}
    assert {"report.html", "report.css", "report.js"} <= names


def test_the_package_is_marked_as_typed() -> None:
    assert (ROOT / "evonas" / "py.typed").is_file()
    assert CONFIG["options.package_data"]["evonas"] == "py.typed"


# What is built, and whether it runs elsewhere.

BUILD = """
import sys
from setuptools import build_meta
print(build_meta.build_sdist(sys.argv[1]))
"""


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**os.environ, **environment},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def setuptools(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the setuptools is that pyproject.toml asks for; fetched where this one is older."""
    needed = re.search(r'"setuptools>=(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert needed is not None
    try:
        if int(importlib.metadata.version("setuptools").split(".")[0]) >= int(needed[1]):
            return ""
    except importlib.metadata.PackageNotFoundError:
        pass
    place = tmp_path_factory.mktemp("setuptools")
    run(sys.executable, "-m", "pip", "install", "-q", "-t", place, needed[0].strip('"'), cwd=place)
    return str(place)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory, setuptools: str) -> Path:
    """The unpacked sdist of a copy of this tree."""
    work = tmp_path_factory.mktemp("sdist")
    leftovers = shutil.ignore_patterns(".*_cache", "__pycache__", ".git", "*.egg-info", "build")
    shutil.copytree(ROOT, work / "tree", ignore=leftovers)
    run(sys.executable, "-c", BUILD, work, cwd=work / "tree", PYTHONPATH=setuptools)
    (archive,) = work.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(work, **FILTER)
    return work / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist: Path, setuptools: str) -> Path:
    """The wheel that pip builds from the sdist, not from this tree."""
    run(
        sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation",
        "-w", sdist.parent, cwd=sdist, PYTHONPATH=setuptools,
    )  # fmt: skip
    (found,) = sdist.parent.glob("evonas-*-py3-none-any.whl")
    return found


@pytest.mark.slow
def test_the_sdist_has_what_tests_and_docs_need(sdist: Path) -> None:
    for name in (
        "CHANGELOG.md CITATION.cff CONTRIBUTING.md LICENSE README.md mkdocs.yml .ci/run"
        " tests/test_packaging.py docs/index.md docs/site_build.py docs/gallery.py"
        " examples/cifar10_alexnet.py examples/cluster/Dockerfile .ci/minimum_versions"
        " benchmarks/kill_resume.py evonas/py.typed"
    ).split():
        assert (sdist / name).is_file(), name


@pytest.mark.slow
def test_the_wheel_holds_the_package_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    there = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "evonas").rglob("*")
        if path.suffix == ".py" or path.name == "py.typed" or path.parent.name == "templates"
    }
    packaged = {name for name in names if ".dist-info/" not in name}
    assert packaged == there
    assert {"evonas/report/templates/report.html", "evonas/live/templates/run.html"} <= packaged
    assert any(name.endswith("/licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_an_editable_install_is_found_beside_the_clone(sdist: Path, setuptools: str) -> None:
    """A finder would be asked too late: Python takes the clone's folder for a package before."""
    work = sdist.parent
    build = BUILD.replace("build_sdist", "build_editable")
    run(sys.executable, "-c", build, work, cwd=sdist, PYTHONPATH=setuptools)
    (editable,) = work.glob("*editable*.whl")
    with zipfile.ZipFile(editable) as file:
        (path,) = (file.read(name).decode() for name in file.namelist() if name.endswith(".pth"))
    site = work / "site"
    site.mkdir()
    (site / "editable.pth").write_text(path)
    (work / "clones" / "evonas" / "evonas").mkdir(parents=True)
    code = (
        f"import site; site.addsitedir({str(site)!r}); from importlib.util import find_spec; "
        "print(find_spec('evonas').origin)"
    )
    found = run(sys.executable, "-S", "-c", code, cwd=work / "clones", PYTHONPATH="")
    assert Path(found.strip()) == sdist / "evonas" / "__init__.py"


SEARCH = """
import importlib, pkgutil, sys
import evonas as en

assert "torch" not in sys.modules

def fitness(genes, trial):
    trial.report(accuracy=genes["x"])
    return genes["x"]

if __name__ == "__main__":
    space = {"x": en.Float(0.0, 1.0)}
    result = en.evolve(space, fitness, population=4, generations=2, seed=0, workers=2,
                       run_dir="runs/there")
    print(en.__file__, result.counts.evaluated)
    for module in pkgutil.walk_packages(en.__path__, "evonas."):
        importlib.import_module(module.name)
    from evonas.report import write_report
    write_report("runs/there")  # of the templates that the wheel holds
"""


@pytest.mark.slow
def test_the_wheel_installs_and_runs_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / "bin" / "python"
    isolated = {"PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}
    run(python, "-m", "pip", "install", "-q", "--no-deps", wheel, cwd=tmp_path, **isolated)
    # Its dependencies are this environment's: torch need not be downloaded again. A directory
    # that a .pth file names comes last, and its own .pth files (an editable evonas) do not count.
    (site,) = (tmp_path / "empty").glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (tmp_path / "search.py").write_text(SEARCH)
    where, n_evaluated = run(python, "search.py", cwd=tmp_path, **isolated).split()
    assert Path(where).is_relative_to(site)
    assert int(n_evaluated) == 6
    shown = run(tmp_path / "empty/bin/evonas", "show", "runs/there", cwd=tmp_path, **isolated)
    assert "champion" in shown
    assert "evonas serve" in run(tmp_path / "empty/bin/evonas", "--help", cwd=tmp_path, **isolated)
    version = run(python, "-m", "pip", "show", "evonas", cwd=tmp_path, **isolated)
    assert f"Version: {en.__version__}" in version
