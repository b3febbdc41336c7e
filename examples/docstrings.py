"""Sentences that every machine has: the first of each docstring, and which package it is from."""

from __future__ import annotations

import ast
import importlib.util
import random
import re
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from evonas.exceptions import DataError
from evonas.training.data.corpora import Sentences


def installed_docstrings(
    packages: Sequence[str] = ("numpy", "torch", "python"), n_files: int = 150
) -> tuple[Sentences, Sentences]:
    """Returns `(for training and validation, for the test)`: first sentences of docstrings.

    The class of a sentence is the package it comes from. They come from the source files of this
    installation, so another one has slightly others. No file is in both parts, nor any sentence.

    Args:
        packages: Installed packages; `python` is the standard library.
        n_files: Files of each to read.

    Raises:
        DataError: A package has no source files here.
    """
    parts: tuple[list[dict[str, int]], ...] = ([], [])
    for label, package in enumerate(packages):
        files = _source_files(package)
        if not files:
            raise DataError(f"package {package!r} has no source files here to read docstrings from")
        random.Random(0).shuffle(files)
        for part in parts:
            part.append({})
        for number, path in enumerate(files[:n_files]):
            for sentence in _first_sentences(path):
                parts[number % 4 == 0][label][sentence] = label
    seen = {sentence for found in parts[0] for sentence in found}
    train, test = (
        parts[0],
        [{text: label for text, label in found.items() if text not in seen} for found in parts[1]],
    )
    return _balanced(train, packages), _balanced(test, packages)


def _balanced(by_class: Sequence[Mapping[str, int]], classes: Sequence[str]) -> Sentences:
    """Returns as many sentences of each class, so that guessing one class gains nothing."""
    n = min(map(len, by_class))
    pairs = [pair for found in by_class for pair in list(found.items())[:n]]
    texts, labels = zip(*pairs, strict=True)
    return Sentences(texts, labels, tuple(classes))


def _source_files(package: str) -> list[Path]:
    if package == "python":
        folder = Path(sysconfig.get_paths()["stdlib"])
        return sorted(path for path in folder.glob("*.py")) + sorted(
            path for name in ("asyncio", "email", "http", "json", "logging", "multiprocessing",
                              "unittest", "urllib", "xml", "concurrent", "importlib", "sqlite3")
            for path in (folder / name).rglob("*.py")
        )  # fmt: skip
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        return []
    folder = Path(found.submodule_search_locations[0])
    return sorted(path for path in folder.rglob("*.py") if "test" not in str(path))


def _first_sentences(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return  # a template, or another encoding
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node) or ""
            sentence = " ".join(re.split(r"(?<=[.!?])\s|\n\s*\n", text, maxsplit=1)[0].split())
            if 5 <= len(sentence.split()) <= 40 and ">>>" not in sentence:
                yield sentence
