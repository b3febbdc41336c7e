"""Repeats the best of a search on fresh seeds: a search's best single score is partly luck."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from evonas.artifacts import Artifacts
from evonas.exceptions import SearchInterrupted
from evonas.execution.base import Executor, Task
from evonas.execution.serial import SerialExecutor
from evonas.execution.trial import TrialSettings
from evonas.identity import check_int, check_problem
from evonas.interrupts import Interrupts
from evonas.problem import Problem
from evonas.randomness import derive_seed
from evonas.records import Evaluation
from evonas.result import Confirmed, Result, open_run
from evonas.storage import Store

__all__ = ["confirm"]


def confirm(
    problem: Problem,
    run_dir: str | os.PathLike[str],
    *,
    top: int = 5,
    repeats: int = 3,
    executor: Executor | None = None,
    on_repeat: Callable[[Evaluation, Evaluation], None] | None = None,
) -> list[Confirmed]:
    """Evaluates the `top` best of a run again on `repeats` fresh seeds; the best mean is champion.

    Each repeat is committed when it ends: interrupted, the same call goes on where it stopped.
    The run's champion and its files then follow the mean.

    Args:
        problem: The run's problem.
        run_dir: The run's directory.
        top: How many evaluations to repeat.
        repeats: Fresh seeds for each.
        executor: Where to run. None: in this process, on the CPU.
        on_repeat: Called with the evaluation and the record of each repeat.

    Returns:
        The repeated evaluations, best mean first.

    Raises:
        TypeError, ValueError: `top` or `repeats` is no int of at least 1.
        FileNotFoundError: There is no run in `run_dir`.
        RunMismatchError: The run is of another problem.
        SearchInterrupted: Ctrl-C or SIGTERM.
    """
    check_int("top", top, minimum=1)
    check_int("repeats", repeats, minimum=1)
    executor = executor or SerialExecutor()
    path = Path(run_dir)
    open_run(path)  # where there is none, the next line would begin one
    with Store.create(path) as store, Interrupts() as interrupts:
        settings = store.settings()
        problem.configure(settings["problem_settings"])
        check_problem(problem, settings, str(path))
        artifacts = Artifacts(problem, path)
        maximise = problem.objectives[0].direction == "max"
        done = store.confirmations()
        executor.start(problem)
        try:
            for evaluation in store.best(top, maximise=maximise):
                for repeat in range(repeats):
                    if (evaluation.key, repeat) in done:
                        continue
                    task = _task(settings, evaluation, repeat, executor, artifacts)
                    with interrupts.raising():
                        outcome = executor.submit(task).result()
                    record = Evaluation(
                        number=repeat,
                        key=evaluation.key,
                        genes=evaluation.genes,
                        status=outcome.status,
                        values=outcome.values,
                        metrics=outcome.metrics,
                        seconds=outcome.seconds,
                        seed=task.settings.seed,
                        error=outcome.error,
                    )
                    store.add_confirmation(repeat, record)
                    if on_repeat is not None:
                        on_repeat(evaluation, record)
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
            store.write_settings({"confirmed_champion": champion.evaluation.key})
            artifacts.crown(champion.evaluation)
    return confirmed


def _task(
    settings: dict[str, object],
    evaluation: Evaluation,
    repeat: int,
    executor: Executor,
    artifacts: Artifacts,
) -> Task:
    seed, threads = settings["seed"], settings["threads"]
    if not isinstance(seed, int) or not isinstance(threads, int):
        raise TypeError(f"the run's seed and threads must be ints, got {seed!r} and {threads!r}")
    problem_settings = settings["problem_settings"]
    return Task(
        evaluation.genes,
        TrialSettings(
            number=evaluation.number,
            key=evaluation.key,
            seed=derive_seed(seed, evaluation.key, "confirm", repeat),
            device=executor.device,
            threads=threads,
            problem=dict(problem_settings) if isinstance(problem_settings, dict) else {},
            # The first repeat's weights stand for the point, should it become the champion.
            attachments=artifacts.folder(evaluation.number, "confirmed") if repeat == 0 else None,
            deterministic=bool(settings["deterministic"]),
        ),
    )
