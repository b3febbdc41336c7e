"""Sentences with classes, from tables and from the hub."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evonas.exceptions import DataError, MissingDependencyError

__all__ = ["Sentences", "hold_out", "hub_sentences", "read_tsv"]

_RUN = 4  # words in a row that two texts of one source share


@dataclass(frozen=True)
class Sentences:
    """Texts and their classes.

    Attributes:
        texts: N of them.
        labels: N numbers, positions in `classes`.
        classes: What the numbers stand for.
    """

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def subset(self, indices: Sequence[int]) -> Sentences:
        """Returns those at `indices`, in that order."""
        return Sentences(
            tuple(self.texts[i] for i in indices),
            tuple(self.labels[i] for i in indices),
            self.classes,
        )

    def sample(self, n: int | None, seed: int) -> Sentences:
        """Returns `n` of them in random order, all where `n` is None or more than there are."""
        order = random.Random(seed).sample(range(len(self)), len(self))
        return self.subset(order[:n])


def read_tsv(
    path: str | Path,
    *,
    text_column: str = "sentence",
    label_column: str = "label",
    classes: Sequence[str] | None = None,
) -> Sentences:
    """Returns the sentences of a tab-separated file with a header, without quoting.

    Args:
        path: The file.
        text_column: Name of the column of the texts.
        label_column: Name of the column of the classes: numbers or names.
        classes: Those of the training file. None: those that appear, sorted.

    Raises:
        DataError: The file is missing, lacks a column, has a row without one, no rows, or a label
            that is none of `classes`.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table ({error})") from error
    header = rows[0] if rows else []
    for column in (text_column, label_column):
        if column not in header:
            raise DataError(
                f"{path} must have a column {column!r}, found {', '.join(header) or 'no header'}: "
                f"name the columns, tab-separated in the first line"
            )
    text_at, label_at = header.index(text_column), header.index(label_column)
    texts, labels = [], []
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {number}: expected {len(header)} columns, got {len(row)}"
            )
        texts.append(row[text_at])
        labels.append(row[label_at].strip())
    return _numbered(texts, labels, classes, str(path))


def hub_sentences(
    name: str,
    part: str,
    *,
    text_column: str = "sentence",
    label_column: str = "label",
    classes: Sequence[str] | None = None,
) -> Sentences:
    """Returns one part of a data set of the Hugging Face hub.

    Args:
        name: Of the data set, with its configuration after a colon where it has several
            (`nyu-mll/glue:sst2`).
        part: `train`, `validation`, …
        text_column: As in `read_tsv`.
        label_column: As in `read_tsv`.
        classes: As in `read_tsv`.

    Raises:
        MissingDependencyError: The package datasets is missing.
        DataError: The data set cannot be downloaded or lacks a column.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError.of(
            "loading data sets of the hub",
            "the package datasets",
            error,
            "pip install 'evonas[bert]'",
        ) from error
    path, _, configuration = name.partition(":")
    try:
        table = datasets.load_dataset(path, configuration or None, split=part)
    except (OSError, ValueError, RuntimeError) as error:  # its own errors are of these
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"the data set {name!r} ({part}) could not be loaded ({reason}): check the name and "
            f"the network, or pass a folder that holds train.tsv"
        ) from error
    columns = list(table.column_names)
    for column in (text_column, label_column):
        if column not in columns:
            raise DataError(
                f"the data set {name!r} must have a column {column!r}, found {', '.join(columns)}"
            )
    return _numbered(table[text_column], map(str, table[label_column]), classes, name)


def hold_out(sentences: Sentences, n: int, seed: int) -> tuple[Sentences, Sentences]:
    """Returns `(rest, held out)`: `n` random sentences, and those that share no text with them.

    Tables of phrases (SST-2's training file) hold parts of one sentence in many rows: a random
    row to validate on would lie inside a training row. So what shares four words in a row with a
    held-out text, or lies in one as a whole, is in neither part. Phrases of one sentence without a
    common run of words are not recognised.

    Raises:
        ValueError: `n` is below 1, or nothing would be left.
    """
    if n < 1:
        raise ValueError(f"at least 1 sentence must be held out, got {n}")
    if n >= len(sentences):
        raise ValueError(
            f"{n} of {len(sentences)} sentences cannot be held out: none would be left"
        )
    order = random.Random(seed).sample(range(len(sentences)), len(sentences))
    words = [text.lower().split() for text in sentences.texts]
    held = {
        run for i in order[:n] for length in range(1, _RUN + 1) for run in _runs(words[i], length)
    }
    rest = [i for i in order[n:] if held.isdisjoint(_runs(words[i], min(_RUN, len(words[i]))))]
    if not rest:
        raise ValueError("every other sentence shares text with one that is held out")
    return sentences.subset(sorted(rest)), sentences.subset(order[:n])


def _numbered(
    texts: Sequence[str], labels: Any, classes: Sequence[str] | None, source: str
) -> Sentences:
    labels = list(labels)
    if not labels:
        raise DataError(f"{source} holds no sentences")
    if classes is None:
        found = set(labels)
        numeric = all(label.lstrip("-").isdigit() for label in found)
        classes = sorted(found, key=int) if numeric else sorted(found)
    numbers: Mapping[str, int] = {name: number for number, name in enumerate(classes)}
    for label in labels:
        if label not in numbers:
            raise DataError(
                f"{source} has the label {label!r}, which is none of the training classes "
                f"({', '.join(classes)})"
            )
    return Sentences(tuple(texts), tuple(numbers[label] for label in labels), tuple(classes))


def _runs(words: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    """Yields every run of `length` words."""
    return (tuple(words[i : i + length]) for i in range(len(words) - length + 1))
