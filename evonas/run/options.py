"""What `evolve` is given, checked before anything is written."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from evonas.arguments import check_bool, check_int, check_list, check_mapping, check_one_of
from evonas.execution.base import Executor
from evonas.execution.choice import available_cores, choose_executor, default_threads
from evonas.execution.parallel import Parallel, has_guarded_main, measured_parallel
from evonas.execution.process_state import changed_state
from evonas.execution.processes import ProcessExecutor
from evonas.execution.serial import SerialExecutor
from evonas.execution.trial import TrialSettings
from evonas.files import as_directory
from evonas.problem import Problem
from evonas.pruning import Pruner
from evonas.records import Genes
from evonas.run.identity import refuse_invalid, trial_threads
from evonas.run.settings import Settings
from evonas.run.store import RunReader, RunRecord
from evonas.run.store.encoding import from_json, to_json
from evonas.run.store.schema import DATABASE
from evonas.strategies.ask_tell import AskTell
from evonas.strategies.base import Strategy

__all__ = ["checked", "parallel_trials", "refuse_before_writing"]


def checked(
    problem: Problem,
    initial: Iterable[Genes],
    seed: int | None,
    settings: Settings,
) -> tuple[tuple[Genes, ...], list[Path], dict[str, Any]]:
    """Returns the initial points, the directories of earlier runs and the metadata.

    Raises:
        TypeError, ValueError: An argument of `evolve` has another type or is out of range.
        FileNotFoundError: A directory of `warm_start` holds no run.
    """
    if settings["pruner"] is not None:
        check_one_of("pruner", settings["pruner"], Pruner, "a Pruner object")
        if len(problem.objectives) > 1:
            names = ", ".join(objective.name for objective in problem.objectives)
            raise ValueError(f"a pruner judges by one objective, but the problem has {names}")
    if settings["threads_per_trial"] is not None:
        check_int("threads_per_trial", settings["threads_per_trial"], minimum=1)
    check_bool("deterministic", settings["deterministic"])
    if seed is not None:
        check_int("seed", seed, minimum=0, maximum=None)
    if settings["fused"] is not None:
        obstacle = problem.fusion_obstacle()
        if obstacle is not None:
            raise ValueError(
                f"fused={settings['fused']} needs a problem whose candidates can be trained at "
                f"once: {obstacle}"
            )
    return _points(problem, initial), _runs(settings["warm_start"]), _metadata(settings["metadata"])


def refuse_before_writing(
    problem: Problem, strategy: Strategy | None, points: Sequence[Genes], run_dir: Path | None
) -> None:
    """Refuses at a first start what the run would be refused for, before it has a directory.

    Args:
        problem: What is searched.
        strategy: Is not bound: a copy is.
        points: The initial points.
        run_dir: Nothing is refused where it holds a run, which says itself what differs.

    Raises:
        ValueError: An initial point violates a constraint, or the strategy cannot search this.
    """
    if run_dir is None or (run_dir / DATABASE).exists():
        return
    for genes in points:
        refuse_invalid(genes, problem.space.violated(genes))
    if strategy is None:
        return
    try:
        copied = copy.deepcopy(strategy)
    except TypeError:  # of a user's, which holds what cannot be copied
        return
    AskTell(problem.space, copied, objectives=problem.objectives, initial=points)


def parallel_trials(
    problem: Problem,
    stored: RunRecord | None,
    executor: Executor,
    threads: int | None,
    may_spawn: bool,
    name: str,
) -> tuple[Executor, Parallel]:
    """Returns where trials run, how many at once and with how many threads.

    As a run was begun, as the user wants it, or as a measurement at its first start tells, which
    may put worker processes in place of this process.

    Args:
        problem: What a training step is measured of.
        stored: The record of earlier starts, if there were any.
        executor: As the arguments of `evolve` say.
        threads: Per trial, as the user wants it; None: as before, or to be chosen.
        may_spawn: Whether the number of workers is left to evonas.
        name: What an error calls the run.

    Raises:
        RunMismatchError: The run was started with another number of threads.
    """
    threads = trial_threads(stored, threads, name)
    here = may_spawn and isinstance(executor, SerialExecutor) and executor.device == "cpu"
    if stored is not None or threads is not None:
        found = Parallel(executor.slots, threads or default_threads(executor))
        if here and stored is not None and (stored.workers or 1) > 1:
            found = replace(found, workers=min(stored.workers or 1, available_cores()))
    else:
        found = _measured(problem, executor, here)
    if here and found.workers > 1:
        executor = choose_executor(workers=found.workers, uses_torch=problem.uses_torch)
    return executor, found


def _measured(problem: Problem, executor: Executor, may_spawn: bool) -> Parallel:
    known = Parallel(executor.slots, default_threads(executor))
    if getattr(executor, "threads_per_trial", None) or executor.device != "cpu":
        return known
    if not isinstance(executor, (SerialExecutor, ProcessExecutor)):
        return known  # elsewhere, on machines of which nothing is known
    if type(problem).sample_step is Problem.sample_step:
        return known
    problem.configure(None)
    sample = problem.sample_step()
    if sample is None:
        return known
    from evonas.execution.torch_env import torch_environment, torch_threads  # only here is torch

    with torch_environment(TrialSettings(process=changed_state())), ExitStack() as stack:

        def set_threads(n: int) -> None:
            stack.enter_context(torch_threads(n))

        return measured_parallel(
            *sample,
            available_cores(),
            workers=None if may_spawn and has_guarded_main() else executor.slots,
            set_threads=set_threads,
        )


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
