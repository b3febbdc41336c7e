"""`evolve`: what a user calls; it opens (or resumes) a run and drives it to its end."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Unpack

from deap.base import Toolbox

from evonas.arguments import check_bool, check_list
from evonas.callbacks.base import Observer, Observers, RunInfo
from evonas.callbacks.progress import ProgressBar, is_watched, standard_error
from evonas.exceptions import (
    RunMismatchError,
    SearchInterrupted,
    TooManyFailures,
    WorkerError,
)
from evonas.execution.base import Executor, driver_threads
from evonas.execution.choice import choose_executor
from evonas.execution.user_code import refuse_while_reading
from evonas.execution.worker_process import refuse_unguarded_main
from evonas.files import as_directory, display_path
from evonas.objectives import Objective
from evonas.problem import FitnessFunction, FunctionProblem, Problem
from evonas.records import Evaluation, Genes, Status
from evonas.run.budget import Budget, bounded
from evonas.run.driver import Driver
from evonas.run.hints import with_hints
from evonas.run.history import History
from evonas.run.identity import device_kind, environment, identify
from evonas.run.interrupts import Interrupts
from evonas.run.keeping import Keeper, built_by
from evonas.run.options import checked, parallel_trials, refuse_before_writing
from evonas.run.result import Result
from evonas.run.settings import Settings, with_defaults
from evonas.run.store import RunRecord, Store
from evonas.run.warm_start import best_points, load_warm_start
from evonas.space import SearchSpace
from evonas.strategies.auto import as_strategy, choose_strategy, rebuild_strategy
from evonas.strategies.base import SearchContext, Strategy
from evonas.strategies.generational import Generational

__all__ = ["evolve"]

_SCORED = (Status.OK, Status.PRUNED)


_MIN = 'objectives=en.Objective("loss", "min")'
_OTHER_WORDS = {
    "population_size": "population=", "pop_size": "population=", "num_generations": "generations=",
    "n_generations": "generations=", "ngen": "generations=", "n_trials": "max_evaluations=",
    "num_samples": "max_evaluations=", "max_evals": "max_evaluations=",
    "timeout": "max_seconds= (of the search) or trial_timeout= (of one trial)",
    "minutes": "max_seconds=60 * minutes", "hours": "max_seconds=3600 * hours",
    "seconds": "max_seconds=", "time_limit": "max_seconds=", "max_time": "max_seconds=",
    "n_jobs": "workers=", "num_workers": "workers=", "n_workers": "workers=",
    "random_state": "seed=", "sampler": "strategy=", "algorithm": "strategy=",
    "direction": _MIN, "directions": _MIN, "minimize": _MIN, "mode": _MIN,
    "storage": "run_dir=", "study_name": "run_dir=", "path": "run_dir=", "objective": "objectives=",
    "gpus": "devices=", "device": "devices=", "threads": "threads_per_trial=",
    "at_most": "strategy=NSGA2(at_most=...)", "at_least": "strategy=NSGA2(at_least=...)",
}  # fmt: skip


@with_hints(_OTHER_WORDS, Settings.__annotations__)
def evolve(
    problem: Problem | SearchSpace | Mapping[str, Any],
    fitness: FitnessFunction | None = None,
    *,
    strategy: Strategy | str | None = None,
    population: int | None = None,
    generations: int | None = None,
    objectives: Objective | Sequence[Objective] | None = None,
    max_evaluations: int | None = None,
    max_seconds: float | None = None,
    initial: Iterable[Genes] = (),
    run_dir: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    devices: str | Sequence[str] | None = None,
    seed: int | None = None,
    progress: bool | None = None,
    callbacks: Sequence[Observer] = (),
    **settings: Unpack[Settings],
) -> Result:
    """Searches a space for the best fitness; called again with the same run_dir, it goes on.

    Args:
        problem: A `Problem`, or a `SearchSpace` (or the dict of genes for one) with `fitness`.
        fitness: `(genes, trial)` to a number; for several objectives a tuple or a dict.
        strategy: How to search. `"auto"`: what serves this space, budget and number of objectives
            best; it is kept in the run and said by progress and `evonas show`. `"random"`,
            `"surrogate"`, …: that one with its defaults. None: `Generational`
            where `population`, `generations`, `elite` or `toolbox` is given, else `"auto"`.
        population: Individuals in a generation (default 12).
        generations: Generations to run, the first included: rows of the logbook for a strategy
            without generations (default 25 where nothing else ends the search).
        objectives: What the function returns. None: one, maximised.
        max_evaluations: Trials to run at most, over all starts.
        max_seconds: Seconds to search at most, over all starts.
        initial: Known good points for the first population. Without any, the problem may name some
            (`Problem.initial_points`).
        run_dir: Where everything is recorded; None keeps the run in memory.
        workers: How many trials run at once, each in a process of its own. None: what
            `workers_per_device` makes; else one, in this process, or on the CPU as many as a
            measurement finds worth it (for problems with a `sample_step`).
        devices: A name (`"cpu"`, `"cuda:0"`), a list of names that the workers share out, or
            `"auto"`: every GPU, or the CPU without one. None: `"auto"` for a torch problem.
        seed: Root of all randomness. None draws one at the first start and keeps it.
        progress: True: a bar and a line per generation, on stderr. None: the same on a terminal and
            in a notebook; elsewhere (a log) lines at growing intervals. False: nothing.
        callbacks: Observers of the records.
        **settings: Of the genetic algorithm, of what ends a search, of how trials run and of what
            is kept: one by one below, in groups in `evonas.run.settings`.

    Keyword Args:
        elite: Individuals carried over unchanged (default two thirds of the population).
        toolbox: A DEAP toolbox whose individual, mate, mutate, select and clone are used.
        patience: Stop after so many generations without a better best.
        target_fitness: Stop when the fitness is at least this good.
        max_consecutive_failures: Failures in a row that stop the search (default 10).
        pruner: Ends trainings early whose reports are poor (see `Pruner`): `MedianPruner()`,
            `SuccessiveHalving()`, or your own. None: none.
        executor: Where trials run, instead of `workers`, `devices` and the next four arguments: one
            of `evonas.execution`, or any of `concurrent.futures`.
        workers_per_device: How many trials share a device, where they are small.
        trial_timeout: Seconds after which a trial is stopped, and recorded as `timeout`.
        lost_retries: How often a trial whose process died is run again before it is `lost`
            (default 2).
        fused: How many candidates of one shape are trained at once, for a GPU that small networks
            leave idle (see `FusedExecutor`). None: each alone.
        threads_per_trial: Chosen at the first start (measured with the workers; else the cores this
            process may use, divided by the workers) and kept, because it changes the arithmetic.
        deterministic: Have torch use deterministic algorithms only (default: not).
        problem_id: Names the data and settings behind the function (see `FunctionProblem`).
        warm_start: Directories of earlier runs of this very problem, whose `ok` evaluations are
            copied in at the first start: none of them is trained again, the first population has
            the best of them, and a strategy that learns, learns from all. They do not count
            towards budgets.
        durability: `"process"` (default) survives kill -9, `"power"` a power cut too.
        keep_files: Whose weights and other attached files are kept: `"best"` (default), those of
            the champion, the hall of fame and the Pareto front; `"all"`, every trial's.
        keep_bytes: Disk space for them (default 10 GiB): beyond it those of the poorest go, never
            the champion's. None: any.
        metadata: JSON kept in the run for whoever reads it (data set, command line).

    Returns:
        The champion, the hall of fame, the logbook and all evaluations.

    Raises:
        TypeError, ValueError: A wrong argument.
        RuntimeError: The script has no `__main__` guard, and a worker, or what reads a run,
            imports it.
        WorkerError: A worker cannot load the problem.
        RunStorageError: The run directory is another run's, in use, damaged or not writable.
        TooManyFailures: Too many evaluations failed in a row, or all of the search did.
        SearchInterrupted: Ctrl-C or SIGTERM; everything finished is saved.

    Example:
        >>> result = evolve(
        ...     {"x": [1, 2, 3], "y": [1, 2, 3]},
        ...     lambda genes, trial: genes["x"] * genes["y"],
        ...     population=4, generations=5, seed=0,
        ... )
        >>> result.champion.genes
        {'x': 3, 'y': 3}
    """
    refuse_unguarded_main()
    refuse_while_reading("evolve")
    more = with_defaults(settings)
    problem = _as_problem(problem, fitness, objectives, more["problem_id"])
    budget = bounded(Budget(
        generations, max_evaluations, max_seconds, more["patience"], more["target_fitness"],
        more["max_consecutive_failures"],
    ))  # fmt: skip
    keeper = Keeper(more["keep_files"], more["keep_bytes"])
    given = _as_strategy(strategy, population, generations, more["elite"], more["toolbox"])
    executor, may_spawn = _executor(problem, workers, devices, more)
    observers = Observers([*_progress(progress), *check_list("callbacks", callbacks, "Observers")])
    points, runs, noted = checked(problem, initial, seed, more)
    run_dir = None if run_dir is None else as_directory(run_dir)
    refuse_before_writing(problem, given, points, run_dir)
    store = Store.create(run_dir, durability=more["durability"])
    name = display_path(store.run_dir or "the run")
    with ExitStack() as stack:
        # A run in memory stays open, for its result to read.
        stack.push(lambda kind, *_: store.close() if kind or run_dir is not None else None)
        stored = store.record()
        _say_preparing(problem, stored, observers)
        executor, parallel = parallel_trials(
            problem, stored, executor, more["threads_per_trial"], may_spawn, name)  # fmt: skip
        stack.enter_context(driver_threads(problem, parallel.threads))
        strategy, why = (given, None) if given else _chosen(problem, budget, stored)
        copies, copied_from = _copies(problem, store, stored, runs)
        record = identify(
            problem,
            strategy,
            stored,
            points or _first_points(problem, copies, strategy.initial_size),
            seed,
            parallel.threads,
            more["deterministic"],
            pruner=more["pruner"],
            name=name,
            has_scores=any(point.status in _SCORED for point in store.known().values()),
        )
        history = _history(problem, store, stored)
        record = replace(
            record, chosen_for=why, n_copied=len(copies), copied_from=copied_from, metadata=noted,
            retryable=tuple(sorted(history.retryable)),
            workers=parallel.workers if may_spawn else None,
            device=device_kind(problem, stored, executor.device, more["deterministic"], name),
        )  # fmt: skip
        _bind(strategy, problem, record, history, store)
        store.write_record(record)
        driver = Driver(
            problem, strategy, store, executor, observers, record, budget, history, more["pruner"],
            keeper,
        )  # fmt: skip
        _drive(driver, store, observers, strategy, record, budget, parallel.why)
        return Result(store, keep_open=run_dir is None)


def _executor(
    problem: Problem, workers: int | None, devices: str | Sequence[str] | None, more: Settings
) -> tuple[Executor, bool]:
    """Returns where trials run, and whether a measurement may put worker processes there."""
    executor = choose_executor(
        more["executor"], workers=workers, devices=devices,
        workers_per_device=more["workers_per_device"], trial_timeout=more["trial_timeout"],
        lost_retries=more["lost_retries"], fused=more["fused"], uses_torch=problem.uses_torch,
    )  # fmt: skip
    how = (workers, more["executor"], more["workers_per_device"], more["fused"])
    return executor, all(each is None for each in how)


def _say_preparing(problem: Problem, stored: RunRecord | None, observers: Observers) -> None:
    what = problem.preparation
    if stored is None and what is not None:
        observers.notify(lambda observer: observer.on_prepare(what))


def _drive(
    driver: Driver,
    store: Store,
    observers: Observers,
    strategy: Strategy,
    record: RunRecord,
    budget: Budget,
    measured: str | None,
) -> None:
    info = RunInfo(
        run_dir=store.run_dir,
        strategy=strategy.name,
        objectives=record.objectives,
        max_evaluations=_most_evaluations(strategy, budget),
        generations=budget.generations,
        resumed=driver.counts.evaluated > 0,
        counts=driver.counts,
        best=driver.best,
        chosen_for=record.chosen_for,
        has_default_budget=budget.is_default,
        measured=measured,
        workers=driver.slots,
        threads=record.threads,
        limits=record.limits,
    )
    started = environment(
        asdict(budget), run_dir=store.run_dir, most_evaluations=info.max_evaluations
    )
    store.begin_session(started)
    outcome, reason = "error", "an error"
    with Interrupts() as interrupts:
        try:
            observers.notify(lambda observer: observer.on_start(info))
            reason = driver.run(interrupts)
            # Where all failed, the next start tries again: the user may have fixed what it was.
            outcome = "failures" if driver.best is None and driver.counts.failed else "finished"
            if outcome == "failures":
                n = driver.counts.failed
                what = f"all {n} evaluations" if n > 1 else "the one evaluation"
                raise driver.failures.error(f"{what} failed")
        except TooManyFailures:
            reason = reason if outcome == "failures" else "too many failures in a row"
            outcome = "failures"
            raise
        except KeyboardInterrupt:
            outcome, reason = "interrupted", f"stopped by {interrupts.received or 'Ctrl-C'}"
            saved = "lost, because no run_dir was given"
            if store.run_dir is not None:
                saved = f"saved in {display_path(store.run_dir)}; run the same command again"
                if started["command"]:
                    saved += f", or `evonas resume {display_path(store.run_dir)}`,"
                saved += " to go on"
            raise SearchInterrupted(
                f"{reason}: {driver.counts.evaluated} evaluations are {saved}"
            ) from None
        except WorkerError as error:
            reason = f"{type(error).__name__}: {error}"
            raise error.with_traceback(None) from None  # of evonas alone: the message says it
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            try:
                store.close_session(driver.seconds, outcome, reason)
            finally:
                observers.notify(lambda observer: observer.on_end(reason))


def _bind(
    strategy: Strategy, problem: Problem, record: RunRecord, history: History, store: Store
) -> None:
    strategy.bind(
        SearchContext(problem.space, problem.objectives, record.seed, history, record.initial)
    )
    state = store.state()
    if state is not None:
        strategy.load_state_dict(state, store.logbook())
    store.files = built_by(problem, store.files, on_disk=store.run_dir is not None)


def _copies(
    problem: Problem,
    store: Store,
    stored: RunRecord | None,
    runs: Sequence[Path],
) -> tuple[list[Evaluation], tuple[tuple[str, list[int]], ...]]:
    """Returns what other runs gave this one, and which runs; copied in at its first start."""
    if stored is not None:
        if runs and not stored.n_copied:
            raise RunMismatchError(
                "warm_start copies evaluations into a run when it begins, and this one has begun "
                "without: leave it out, or pass a new run_dir"
            )
        copies = [entry for entry in store.evaluations() if entry.number < stored.n_copied]
        return copies, stored.copied_from
    found = load_warm_start(problem, runs)
    copies = store.replace_evaluations([entry for entries in found.values() for entry in entries])
    return copies, tuple(
        (str(run.resolve()), [entry.number for entry in entries]) for run, entries in found.items()
    )


def _first_points(problem: Problem, copies: Sequence[Evaluation], size: int) -> list[Genes]:
    """Returns what the first population shall contain: a quarter of it the best copies."""
    points = best_points(copies, problem.objectives[0], max(1, size // 4))
    keys = set(map(problem.key, points))
    return points + [g for g in problem.initial_points(size) if problem.key(g) not in keys]


def _as_strategy(
    strategy: Strategy | str | None,
    population: int | None,
    generations: int | None,
    elite: int | None,
    toolbox: Toolbox | None,
) -> Strategy | None:
    """Returns the strategy asked for; None: it is to be chosen."""
    for_ga = population is not None or elite is not None or toolbox is not None
    if strategy is None and (for_ga or generations is not None):
        if population is None:
            return Generational(elite=elite, toolbox=toolbox)
        return Generational(population, elite=elite, toolbox=toolbox)
    if for_ga:
        raise ValueError("give either strategy or population, elite and toolbox, not both")
    if strategy is None or (isinstance(strategy, str) and strategy == "auto"):
        return None
    return as_strategy(strategy, ["auto"])


def _chosen(problem: Problem, budget: Budget, stored: RunRecord | None) -> tuple[Strategy, str]:
    """Returns what a run without a strategy of the user's searches with, and why."""
    if stored is not None and stored.chosen_for:
        return rebuild_strategy(stored.strategy), stored.chosen_for
    return choose_strategy(problem.space, problem.objectives, budget.max_evaluations)


def _history(problem: Problem, store: Store, stored: RunRecord | None) -> History:
    known = store.known()
    retryable = set() if stored is None else set(stored.retryable)
    sessions = store.sessions()
    if sessions and sessions[-1]["outcome"] == "failures":
        # By number, and kept: a start that is killed while it tries them again must not retry
        # what failed in it.
        retryable |= {entry.number for entry in known.values() if not entry.status.is_final}
    return History(problem, known, retryable, store.evaluations)


def _as_problem(
    problem: Any,
    fitness: FitnessFunction | None,
    objectives: Objective | Sequence[Objective] | None,
    problem_id: str | None,
) -> Problem:
    if isinstance(problem, Problem):
        if any(entry is not None for entry in (fitness, objectives, problem_id)):
            raise ValueError(
                "a Problem brings its own fitness, objectives and problem_id: give them to it"
            )
        return problem
    space = problem if isinstance(problem, SearchSpace) else None
    if space is None and isinstance(problem, Mapping):
        space = SearchSpace(problem)
    if space is None:
        raise TypeError(
            "the first argument, problem, must be a Problem, a SearchSpace or a dict of genes, got "
            f"{problem!r} ({type(problem).__name__})"
        )
    if fitness is None:
        raise TypeError("evolve(space, fitness): a fitness function (genes, trial) is missing")
    return FunctionProblem(space, fitness, objectives=objectives, problem_id=problem_id)


def _progress(progress: bool | None) -> list[Observer]:
    if progress is not None:
        check_bool("progress", progress)
    if progress is False:
        return []
    rows = standard_error() if progress or is_watched() else None
    return [ProgressBar(rows=rows, lines=True)]


def _most_evaluations(strategy: Strategy, budget: Budget) -> int | None:
    bounds = []
    if budget.max_evaluations is not None:
        bounds.append(budget.max_evaluations)
    if budget.generations is not None:
        per_run = strategy.most_evaluations(budget.generations)
        if per_run is not None:
            bounds.append(per_run)
    return min(bounds, default=None)
