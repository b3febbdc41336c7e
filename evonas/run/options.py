"""What `evolve` is given, checked before anything is written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evonas.arguments import check_bool, check_int, check_list, check_mapping, check_one_of
from evonas.files import as_directory
from evonas.problem import Problem
from evonas.pruning import Pruner
from evonas.records import Genes
from evonas.run.store import RunReader
from evonas.run.store.encoding import from_json, to_json

__all__ = ["checked"]


def checked(
    problem: Problem,
    initial: Iterable[Genes],
    warm_start: Iterable[str | os.PathLike[str]],
    pruner: Pruner | None,
    threads: int | None,
    deterministic: bool,
    seed: int | None,
    metadata: Mapping[str, Any] | None,
) -> tuple[tuple[Genes, ...], list[Path], dict[str, Any]]:
    """Returns the initial points, the directories of earlier runs and the metadata.

    Raises:
        TypeError, ValueError: An argument of `evolve` has another type or is out of range.
        FileNotFoundError: A directory of `warm_start` holds no run.
    """
    if pruner is not None:
        check_one_of("pruner", pruner, Pruner, "a Pruner object")
    if threads is not None:
        check_int("threads_per_trial", threads, minimum=1)
    check_bool("deterministic", deterministic)
    if seed is not None:
        check_int("seed", seed, minimum=0, maximum=None)
    return _points(problem, initial), _runs(warm_start), _metadata(metadata)


def _points(problem: Problem, initial: Iterable[Genes]) -> tuple[Genes, ...]:
    points = []
    for genes in check_list("initial", initial, "points (dicts of gene name to value)"):
        try:
            points.append(problem.space.validate(genes))
        except (TypeError, ValueError) as error:
            raise type(error)(f"initial: {error}") from None
    return tuple(points)


def _runs(warm_start: Iterable[str | os.PathLike[str]]) -> list[Path]:
    if isinstance(warm_start, (str, os.PathLike)):
        folders = [as_directory(warm_start, "warm_start")]
    else:
        runs = check_list("warm_start", warm_start, "directories of runs")
        folders = [as_directory(run, "warm_start") for run in runs]
    for folder in folders:
        try:
            RunReader.open(folder).close()
        except FileNotFoundError as error:
            raise FileNotFoundError(f"warm_start: {error}") from None
    return folders


def _metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    if metadata is None:
        return {}
    check_mapping("metadata", metadata)
    try:
        return dict(from_json(to_json(dict(metadata))))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"metadata must be JSON: {error}") from None
