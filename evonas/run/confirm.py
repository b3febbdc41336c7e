"""Repeats the best of a search on fresh seeds: a search's best single score is partly luck."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from dataclasses import replace

from evonas.arguments import check_callable, check_int, check_list, check_one_of
from evonas.evolution.random_state import derive_seed
from evonas.exceptions import SearchInterrupted
from evonas.execution.base import Executor, Outcome, Task, driver_threads
from evonas.execution.choice import choose_executor
from evonas.execution.serial import SerialExecutor
from evonas.execution.trial import TrialSettings
from evonas.execution.user_code import refuse_while_reading
from evonas.files import as_directory, display_path
from evonas.problem import Problem
from evonas.records import Evaluation, Genes, Status
from evonas.run.artifacts import Artifacts
from evonas.run.identity import configure_as, settled
from evonas.run.interrupts import Interrupts
from evonas.run.keeping import built_by
from evonas.run.result import (
    Confirmed,
    Result,
    baseline_number,
    beaten,
    best_evaluations,
    open_run,
)
from evonas.run.store import RunRecord, Store

__all__ = ["confirm"]

_log = logging.getLogger(__name__)


def confirm(
    problem: Problem,
    run_dir: str | os.PathLike[str],
    *,
    top: int = 5,
    also: Iterable[Genes] = (),
    repeats: int = 3,
    executor: Executor | None = None,
    on_repeat: Callable[[Evaluation, Evaluation], None] | None = None,
    counts: Callable[[Evaluation], bool] | None = None,
) -> list[Confirmed]:
    """Evaluates the `top` best of a run again on `repeats` fresh seeds; the best mean is champion.

    Each repeat is committed when it ends: interrupted, the same call goes on where it stopped.
    The run's champion and its files then follow the mean; of points with unequal numbers of
    repeats, each mean less its standard error.

    Args:
        problem: The run's problem.
        run_dir: The run's directory.
        top: How many evaluations to repeat.
        also: More points to evaluate on fresh seeds (baselines), whether the search tried them or
            not. They may become champion too.
        repeats: Fresh seeds for each.
        executor: Where to run, as many at once as it has slots. None: in this process, on the CPU.
        on_repeat: Called with the evaluation and the record of each repeat.
        counts: Which of the repeats on record count; others are made again. None: all.

    Returns:
        The repeated evaluations, best mean first.

    Raises:
        TypeError, ValueError: `top` or `repeats` is no int of at least 1, or a point of `also` is
            none of the space.
        FileNotFoundError: There is no run in `run_dir`.
        RunMismatchError: The run is of another problem.
        SearchInterrupted: Ctrl-C or SIGTERM.
    """
    refuse_while_reading("confirm")
    check_one_of("problem", problem, Problem, "a Problem")
    for name, function in (("on_repeat", on_repeat), ("counts", counts)):
        if function is not None:
            check_callable(name, function)
    points_also = check_list("also", also, "points (dicts of gene name to value)")
    executor = SerialExecutor() if executor is None else choose_executor(executor)
    check_int("top", top, minimum=1)
    check_int("repeats", repeats, minimum=1)
    path = as_directory(run_dir)
    open_run(path)  # where there is none, the next line would begin one
    with Store.create(path) as store, Interrupts() as interrupts, ExitStack() as stack:
        record = store.begun_record()
        stack.enter_context(driver_threads(problem, record.threads))
        configure_as(problem, record, display_path(path))
        store.files = built_by(problem, store.files, on_disk=True)
        artifacts = Artifacts(problem, path, store.files)
        points = {entry.key: entry for entry in best_evaluations(store, top)}
        points |= {entry.key: entry for entry in _others(problem, store, record, points_also)}
        done = {
            name for name, entry in store.confirmations().items() if not counts or counts(entry)
        }
        due = deque(
            (point, repeat)
            for point in points.values()
            for repeat in range(repeats)
            if (point.key, repeat) not in done
        )
        executor.start(problem)
        try:
            for point, repeat, task, outcome in _run(
                due, problem, store, executor, artifacts, interrupts
            ):
                seed = task.settings.seed
                repeated = outcome.evaluation(repeat, point.key, point.genes, seed)
                store.add_confirmation(repeat, repeated)
                artifacts.drop_confirmed(beaten(store, repeats))
                if on_repeat is not None:
                    on_repeat(point, repeated)
        except KeyboardInterrupt:
            raise SearchInterrupted(
                f"stopped by {interrupts.received or 'Ctrl-C'} while confirming: run the same "
                "command again to go on"
            ) from None
        finally:
            executor.shutdown()
        confirmed = Result(store).confirmed
        champion = next((entry for entry in confirmed if entry.values), None)
        if champion is not None:
            store.write_record(
                replace(store.begun_record(), confirmed_champion=champion.evaluation.key)
            )
            artifacts.set_confirmed_champion(champion.evaluation)
    return confirmed


def _others(
    problem: Problem, store: Store, record: RunRecord, also: Iterable[Genes]
) -> list[Evaluation]:
    """Returns the evaluations of the points `also`; puts those never tried on record as baselines.

    A baseline has no evaluation: it gets a negative number, and no values.
    """
    known = store.known()
    baselines = dict(record.baselines)
    found = []
    for genes in also:
        try:
            genes = problem.space.validate(genes)
        except (TypeError, ValueError) as error:
            raise type(error)(f"also: {error}") from None
        key = problem.key(genes)
        if key not in known and key not in baselines:
            baselines[key] = genes
        evaluation = store.evaluation(known[key].number) if key in known else None
        found.append(
            evaluation or Evaluation(baseline_number(baselines, key), key, genes, Status.OK)
        )
    if baselines != record.baselines:
        store.write_record(replace(record, baselines=baselines))
    return found


def _run(
    due: deque[tuple[Evaluation, int]],
    problem: Problem,
    store: Store,
    executor: Executor,
    artifacts: Artifacts,
    interrupts: Interrupts,
) -> Iterator[tuple[Evaluation, int, Task, Outcome]]:
    """Yields each repeat as it ends."""
    flying: dict[Future[Outcome], tuple[Evaluation, int, Task]] = {}
    record = store.begun_record()
    while due or flying:
        while due and len(flying) < executor.slots:
            point, repeat = due.popleft()
            record = settled(problem, point.genes, record, store, interrupts, _log.info)
            task = _task(record, point, repeat, executor, artifacts)
            with interrupts.raising():
                future = executor.submit(task)
            flying[future] = (point, repeat, task)
            if future.done():
                break  # serial: record it before the next begins
        with interrupts.raising():
            done = wait(flying, return_when=FIRST_COMPLETED).done
        for future in done:
            yield *flying.pop(future), future.result()


def _task(
    record: RunRecord,
    evaluation: Evaluation,
    repeat: int,
    executor: Executor,
    artifacts: Artifacts,
) -> Task:
    return Task(
        evaluation.genes,
        TrialSettings(
            number=evaluation.number,
            key=evaluation.key,
            seed=derive_seed(record.seed, evaluation.key, "confirm", repeat),
            device=executor.device,
            threads=record.threads,
            problem=record.problem_settings,
            # The first repeat's weights stand for the point, should it become the champion.
            attachments=artifacts.folder(evaluation.number, "confirmed") if repeat == 0 else None,
            deterministic=record.deterministic,
            process=record.process,
        ),
    )
