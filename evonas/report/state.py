"""What there is to say of a run: state, counts, champion, and what would run next."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evonas.records import Evaluation
from evonas.report.network import preprocessing_known
from evonas.run.repeats import weights_json
from evonas.run.result import Result, open_run
from evonas.run.signature import is_ours
from evonas.run.store import RunReader
from evonas.run.store.lock import LOCK, is_held

__all__ = ["Asked", "Start", "State", "is_preparing", "last_start", "read_state", "summary"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the strategy asked for and has not got yet.

    Attributes:
        numbers: Of the evaluations, ascending.
        generation: The last one asked for; None before the first.
    """

    numbers: tuple[int, ...]
    generation: int | None


@dataclass(frozen=True, slots=True)
class State:
    """A run as `evonas show` found it.

    Attributes:
        result: What it found so far.
        is_running: Whether a driver holds the run; None where the system does not tell.
        asked: What would run next.
    """

    result: Result
    is_running: bool | None
    asked: Asked

    @property
    def has_ended(self) -> bool:
        """Whether no driver will change it: finished, stopped or killed."""
        return not self.is_running and (self.result.outcome is not None or self.is_running is False)

    @property
    def words(self) -> str:
        """The state in words."""
        result = self.result
        if self.is_running and result.outcome is not None:
            return f"{result.outcome} ({result.stop_reason}), and in use again"
        if result.outcome is not None:
            return f"{result.outcome}: {result.stop_reason}"
        return {
            True: "running",
            False: "killed",
            None: "running, or killed",
        }[self.is_running]

    @property
    def most_evaluations(self) -> int | None:
        """How many evaluations the last start may come to, or None where that is not known."""
        most = self._environment.get("most_evaluations")
        return most if isinstance(most, int) else None

    def seconds_left(self) -> float | None:
        """Returns how long the search still takes at most, at its pace so far; None: unknown."""
        done, most = self.result.counts.evaluated, self.most_evaluations
        bounds = []
        if done and most is not None:
            bounds.append(max(0, most - done) * self.result.seconds / done)
        left = self.budget_left()
        if "max_seconds" in left:
            bounds.append(left["max_seconds"])
        return min(bounds, default=None)

    @property
    def _environment(self) -> Mapping[str, Any]:
        sessions = self.result.sessions
        environment: Mapping[str, Any] = sessions[-1]["environment"] if sessions else {}
        return environment

    def budget_left(self) -> dict[str, float]:
        """Returns how much is left of each budget of the last start, where it is on record."""
        budget = self._environment.get("budget")
        if not isinstance(budget, Mapping):
            return {}
        used = {
            "generations": len(self.result.logbook),
            "max_evaluations": self.result.counts.evaluated,
            "max_seconds": self.result.seconds,
        }
        return {
            name: max(0, budget[name] - spent)
            for name, spent in used.items()
            if budget.get(name) is not None
        }


def is_preparing(run: Path) -> bool:
    """Whether a search has taken a run and has put nothing on record: it measures, checks, opens.

    Raises:
        FileNotFoundError: There is no run.
        RunStorageError: It cannot be read, or is damaged.
    """
    if not is_held(run / LOCK):
        return False
    with RunReader.open(run) as reader:
        return reader.record() is None


def read_state(run: Path) -> State:
    """Returns the state of a run, which may be running.

    Raises:
        FileNotFoundError: There is no run.
        RunStorageError: It cannot be read, or is damaged.
    """
    # The lock first: a run that ends in between is then shown as ended, not as killed.
    is_running = is_held(run / LOCK)
    result = open_run(run)
    if result.outcome is None and is_running:
        is_running = is_held(run / LOCK)
        result = open_run(run)
    with RunReader.open(run) as reader:
        return State(result, is_running, _asked(reader))


def _asked(reader: RunReader) -> Asked:
    known = {point.number for point in reader.known().values()}
    open_numbers, generation = set(), None
    for proposal in reader.proposals():
        generation = (
            proposal.generation if generation is None else max(generation, proposal.generation)
        )
        if proposal.evaluation not in known:
            open_numbers.add(proposal.evaluation)
    # `known` has the last evaluation of each key only: one that was tried again has two.
    numbers = [number for number in sorted(open_numbers) if reader.evaluation(number) is None]
    return Asked(tuple(numbers), generation)


@dataclass(frozen=True, slots=True)
class Start:
    """How a run was started.

    Attributes:
        command: Of the start, word by word.
        directory: Where it began.
        run_dir: The run that it made or went on with.
        is_ours: Whether this user made it, on this machine.
    """

    command: list[str]
    directory: str
    run_dir: str
    is_ours: bool

    @property
    def line(self) -> str:
        """The command for a shell, wherever that is."""
        return f"cd {shlex.quote(self.directory)} && {shlex.join(self.command)}"

    def goes_on_with(self, run: Path) -> bool:
        """Whether the command, run again, goes on with this run and not with another directory."""
        return Path(self.run_dir).resolve() == run.resolve() or (
            os.path.exists(self.run_dir) and os.path.samefile(self.run_dir, run)
        )


def last_start(result: Result) -> Start | None:
    """Returns the last start whose command is on record."""
    for session in reversed(result.sessions):
        environment = session["environment"]
        command = environment.get("command")
        run_dir = environment.get("run_dir")
        if isinstance(command, list) and command and isinstance(run_dir, str):
            words, directory = [str(word) for word in command], environment.get("directory", "")
            return Start(words, str(directory), run_dir, is_ours(environment))
    return None


def summary(state: State) -> dict[str, Any]:
    """Returns all of it as JSON."""
    result = state.result
    hall = result.hall_of_fame
    start = last_start(result)
    return {
        "run_dir": str(result.run_dir),
        "outcome": result.outcome,
        "running": state.is_running,
        "stop_reason": result.stop_reason,
        "strategy": result.record.strategy,
        "objectives": [
            {"name": entry.name, "direction": entry.direction} for entry in result.objectives
        ],
        "limits": {
            "at_most": dict(result.record.limits.at_most),
            "at_least": dict(result.record.limits.at_least),
            "unmet": result.counts.unmet or None,
        },
        "precision": result.record.precision,
        "seed": result.record.seed,
        "seconds": result.seconds,
        "starts": len(result.sessions),
        "rows": len(result.logbook),
        "counts": {
            **result.counts.by_status,
            "reused": result.counts.reused,
            "copied": result.counts.copied,
        },
        "next": {
            "asked": list(state.asked.numbers),
            "generation": state.asked.generation,
            "most_evaluations": state.most_evaluations,
            "budget_left": state.budget_left(),
            "seconds_left": None if state.has_ended else state.seconds_left(),
            "command": None if start is None else start.command,
            "directory": None if start is None else start.directory,
            "command_run_dir": None if start is None else start.run_dir,
        },
        "champion": {
            **_entry(result.champion),
            "preprocessing": preprocessing_known(result.champion),
            "weights": weights_json(result.champion, result.objectives),
        }
        if hall
        else None,
        "hall_of_fame": [_entry(evaluation) for evaluation in hall],
        "pareto_front": [_entry(evaluation) for evaluation in result.pareto_front]
        if len(result.objectives) > 1
        else None,
        "confirmed": [
            {
                **_entry(entry.evaluation),
                "mean": entry.mean if entry.values else None,
                "values": entry.values,
            }
            for entry in result.confirmed
        ],
    }


def _entry(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "number": evaluation.number,
        "key": evaluation.key,
        "fitness": evaluation.fitness,
        "genes": evaluation.genes,
        "metrics": dict(evaluation.metrics),
        "seconds": evaluation.seconds,
    }
