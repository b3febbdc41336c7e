"""docs/pictures.py: what README.md shows is what it draws."""

from __future__ import annotations

import importlib.util
import re
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load(name: str) -> ModuleType:
    """A script of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # for its dataclasses
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    return load("pictures")


def test_the_readmes_images_exist_and_are_drawings() -> None:
    named = set(re.findall(r"docs/images/[\w.-]+", (ROOT / "README.md").read_text()))
    assert {"docs/images/search-light.svg", "docs/images/search-dark.svg"} <= named
    for name in named:
        root = ElementTree.fromstring((ROOT / name).read_text())
        assert root.tag.endswith("svg")
        assert root[0].tag.endswith("title")


def test_the_badges_say_what_setup_cfg_says(pictures: ModuleType) -> None:
    for name, svg in pictures.badges().items():
        assert (ROOT / "docs" / "images" / name).read_text() == svg, "run docs/pictures.py"
    assert "3.11+" in pictures.badges()["badge-python.svg"]


@pytest.mark.slow
def test_the_gallery_is_made_of_real_searches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")  # as mkdocs does for a hook
    made = load("gallery").build(tmp_path)
    shown = set(re.findall(r"\(gallery/([\w.]+)\)", (ROOT / "docs" / "gallery.md").read_text()))
    assert shown == {path.name for path in made}
    for path in made:
        if path.suffix == ".svg":
            assert ElementTree.fromstring(path.read_text())[0].tag.endswith("title")
        else:
            page = path.read_text()
            assert "runs/" in page
            assert tempfile.gettempdir() not in page.partition("<script")[0]


def test_both_themes_show_the_same_figures() -> None:
    light, dark = (
        re.findall(r">([^<>]+)</text>", (ROOT / f"docs/images/search-{name}.svg").read_text())
        for name in ("light", "dark")
    )
    assert light == dark
    assert "found by the search" in light
