"""What there is to say of a run: state, counts, champion, and what would run next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evonas.records import Evaluation
from evonas.result import Result, open_run
from evonas.storage import RunReader
from evonas.storage.lock import LOCK, is_held

__all__ = ["Asked", "State", "last_command", "read_state", "summary"]


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
            False: "killed (the same command goes on)",
            None: "running, or killed (the same command goes on)",
        }[self.is_running]

    def budget_left(self) -> dict[str, float]:
        """Returns how much is left of each budget of the last start, where it is on record."""
        sessions = self.result.sessions
        budget = sessions[-1]["environment"].get("budget") if sessions else None
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


def last_command(result: Result) -> tuple[list[str], str] | None:
    """Returns the command of the last start that has one, and the directory it began in."""
    for session in reversed(result.sessions):
        command = session["environment"].get("command")
        if isinstance(command, list) and command:
            return [str(word) for word in command], str(session["environment"]["directory"])
    return None


def summary(state: State) -> dict[str, Any]:
    """Returns all of it as JSON."""
    result = state.result
    hall = result.hall_of_fame
    command = last_command(result)
    return {
        "run_dir": str(result.run_dir),
        "outcome": result.outcome,
        "running": state.is_running,
        "stop_reason": result.stop_reason,
        "strategy": result.settings["strategy"],
        "objectives": [
            {"name": entry.name, "direction": entry.direction} for entry in result.objectives
        ],
        "seed": result.settings["seed"],
        "seconds": result.seconds,
        "starts": len(result.sessions),
        "rows": len(result.logbook),
        "counts": {**result.counts.by_status, "reused": result.counts.reused},
        "next": {
            "asked": list(state.asked.numbers),
            "generation": state.asked.generation,
            "budget_left": state.budget_left(),
            "command": None if command is None else command[0],
            "directory": None if command is None else command[1],
        },
        "champion": _entry(result.champion) if hall else None,
        "hall_of_fame": [_entry(evaluation) for evaluation in hall],
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
