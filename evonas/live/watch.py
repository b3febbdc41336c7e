"""A run as the live view follows it: what is new is read, what is known is kept."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evonas.exceptions import EvonasError
from evonas.execution.running import read_running
from evonas.records import Evaluation, Status
from evonas.report.formats import duration, number
from evonas.report.outcomes import failure_kinds
from evonas.report.progress import best_so_far, curve_metrics, steps_of
from evonas.report.state import Asked, State
from evonas.report.strip import blocks_of
from evonas.report.style import as_number, bounded_range, safe, shown, thinned
from evonas.run.repeats import repeats_text
from evonas.run.result import Result
from evonas.run.store import PlannedProposal, RunReader
from evonas.run.store.lock import LOCK, is_held

__all__ = ["Watch"]

_MAX_POINTS = 2_000
_MAX_CURVES = 40
_MAX_EPOCHS = 100
_MAX_FRONT = 50
_MAX_RUNNING = 64
_SHARE = 10
"""A look that takes a second is followed by ten without one: watching must not slow a search."""


class Watch:
    """Follows one run. One thread at a time; the database is opened for reading alone.

    Args:
        run_dir: The run's directory.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._reader: RunReader | None = None
        self._was_held: bool | None = None
        self._evaluations: dict[int, Evaluation] = {}
        self._proposals: list[PlannedProposal] = []
        self._first_unknown = 0
        self._told: dict[str, Any] = {}
        self._looked_at = self._cost = 0.0

    def close(self) -> None:
        """Closes the database."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def look(self) -> dict[str, Any]:
        """Returns the run as JSON for the page; not read anew within a second of the last look.

        Raises:
            FileNotFoundError: There is no run any more.
            EvonasError: It cannot be read, or is damaged.
        """
        now = time.monotonic()
        if self._told and now - self._looked_at < max(1.0, _SHARE * self._cost):
            return self._told
        self._told = self._read()
        self._looked_at = time.monotonic()
        self._cost = self._looked_at - now
        return self._told

    def _read(self) -> dict[str, Any]:
        # The lock first: a run that ends in between is then shown as ended, not as killed.
        is_running = is_held(self.run_dir / LOCK)
        if is_running != self._was_held:
            self.close()  # at rest a database is read in another way than while it is written
            self._was_held = is_running
        if self._reader is None:
            self._reader = RunReader.open(self.run_dir)
            self._evaluations, self._proposals, self._first_unknown = {}, [], 0
        try:
            return self._page(self._reader, is_running)
        except (EvonasError, sqlite3.Error):
            self.close()
            raise

    def _page(self, reader: RunReader, is_running: bool | None) -> dict[str, Any]:
        if reader.record() is None:
            return {"state": "preparing; no trial has begun", "ended": False, "name": self.name}
        self._read_new(reader)
        result = Result(reader)
        vars(result)["evaluations"] = tuple(self._evaluations[n] for n in sorted(self._evaluations))
        vars(result)["proposals"] = tuple(self._proposals)
        vars(result)["sessions"] = reader.sessions()
        state = State(result, is_running, self._asked())
        return {
            "name": self.name,
            "version": f"{len(self._evaluations)}/{len(result.sessions)}",
            "ended": state.has_ended,
            "state": state.words,
            "about": f"{result.record.strategy_name}, seed {result.record.seed}",
            "progress": _progress(state),
            "tiles": _tiles(state),
            "objectives": [safe(objective.name) for objective in result.objectives],
            "running": self._running(state),
            "points": _points(result),
            "curves": _curves(result),
            "unmet": result.counts.unmet,
            "champion": _champion(result),
            "front": _front(result),
            "failures": [
                [kind.status.value.replace("_", " "), len(kind.evaluations), kind.reason[:300]]
                for kind in failure_kinds(result)[:10]
            ],
        }

    @property
    def name(self) -> str:
        """The last two parts of the run's path."""
        return "/".join(self.run_dir.parts[-2:])

    def _read_new(self, reader: RunReader) -> None:
        for place in reader.numbers(self._first_unknown):
            if place not in self._evaluations:
                evaluation = reader.evaluation(place)
                if evaluation is not None:
                    self._evaluations[place] = evaluation
        while self._first_unknown in self._evaluations:
            self._first_unknown += 1
        first = self._proposals[-1].id + 1 if self._proposals else 0
        self._proposals += reader.proposals(first)

    def _asked(self) -> Asked:
        known = self._evaluations
        # The oldest number that is open: what is asked for before it has been answered.
        numbers = {p.evaluation for p in self._proposals if p.evaluation >= self._first_unknown}
        generation = max((p.generation for p in self._proposals), default=None)
        return Asked(tuple(sorted(numbers - known.keys())), generation)

    def _running(self, state: State) -> dict[str, Any]:
        """Returns the trials under way: those that have reported, and how many others there are."""
        if state.has_ended:
            return {"trials": [], "others": 0}
        open_numbers = set(state.asked.numbers)
        trials = []
        for told in read_running(self.run_dir)[:_MAX_RUNNING]:
            if told["number"] in open_numbers:
                trials.append(_trial(told))
        return {"trials": trials, "others": len(open_numbers) - len(trials)}


def _trial(told: Mapping[str, Any]) -> dict[str, Any]:
    genes, epochs = told.get("genes"), told.get("epochs")
    rows = [row for row in epochs if _is_row(row)] if isinstance(epochs, list) else []
    names = sorted({str(name) for row in rows[-1:] for name in row[2]})
    began = as_number(told.get("started_at"))
    return {
        "number": told["number"],
        "device": str(told.get("device", ""))[:20],
        "seconds": None if np.isnan(began) else duration(max(0.0, time.time() - began)),
        "genes": _in_words(genes) if isinstance(genes, dict) else "",
        "epoch": len(rows),
        "last": ", ".join(f"{name} {number(as_number(rows[-1][2][name]))}" for name in names[:6]),
        "curves": {name: [_finite(row[2].get(name)) for row in rows] for name in names[:6]},
        "epochs": [row[0] + 1 for row in rows],
    }


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, list) and len(row) == 3 and type(row[0]) is int and isinstance(row[2], dict)
    )


def _finite(value: object) -> float | None:
    found = as_number(value)
    return None if np.isnan(found) else found


def _in_words(genes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in genes.items())[:600]


def _progress(state: State) -> dict[str, Any]:
    """Returns how far the search is, as a share of 1 and in words."""
    done, most = state.result.counts.evaluated, state.most_evaluations
    left = None if state.has_ended else state.seconds_left()
    share = min(1.0, done / most) if most else None
    budget = state.budget_left()
    if "max_seconds" in budget and not state.has_ended:
        used = state.result.seconds
        share = max(share or 0.0, used / (used + budget["max_seconds"] or 1.0))
    return {
        "share": 1.0 if state.has_ended and state.result.outcome == "finished" else share,
        "words": f"{done:,} trained" if most is None else f"{done:,} of at most {most:,} trained",
        "left": None if left is None else f"about {duration(left)} left at most",
    }


def _tiles(state: State) -> list[list[str]]:
    result, counts = state.result, state.result.counts
    tiles = [["time", duration(result.seconds)], ["trained", f"{counts.evaluated:,}"]]
    tiles.append(["reused", f"{counts.reused:,}"])
    tiles += [
        [name, f"{n:,}"]
        for name, n in (
            ("invalid", counts.by_status.get("invalid", 0)),
            ("pruned", counts.by_status.get("pruned", 0)),
            ("failed", counts.failed),
            ("copied", counts.copied),
        )
        if n
    ]
    if state.asked.generation is not None:
        tiles.append(["generation", str(state.asked.generation)])
    return tiles


def _points(result: Result) -> dict[str, Any]:
    """Returns number and values of the evaluations with a fitness, and the best so far."""
    ok = [entry for entry in result.evaluations if entry.status is Status.OK]
    if not ok:
        return {"x": [], "y": [], "best_x": [], "best_y": [], "range": None, "n": 0}
    values = np.array([entry.values[0] for entry in ok], dtype=np.float64)
    numbers = np.array([entry.number for entry in ok])
    weight = result.objectives[0].weight
    best = best_so_far(result, ok, values * weight) * weight
    steps = steps_of(best)
    keep = thinned(len(ok), _MAX_POINTS)
    return {
        "x": numbers[keep].tolist(),
        "y": values[keep].tolist(),
        "best_x": numbers[steps].tolist(),
        "best_y": best[steps].tolist(),
        "range": bounded_range(values),
        "n": len(ok),
    }


def _curves(result: Result) -> dict[str, Any]:
    """Returns what the last evaluations and the champion reported by epoch, of one metric."""
    names = curve_metrics(result)
    if not names:
        return {"metric": None, "ended": []}
    champion = result.champion.number if result.hall_of_fame else None
    last = [e for e in result.evaluations[-_MAX_CURVES:] if e.epochs and e.number != champion]
    curves = []
    for entry in last if champion is None else [*last, result.champion]:
        rows = [entry.epochs[place] for place in thinned(len(entry.epochs), _MAX_EPOCHS)]
        curves.append(
            {
                "number": entry.number,
                "champion": entry.number == champion,
                "x": [row.epoch + 1 for row in rows],
                "y": [_finite(row.metrics.get(names[0])) for row in rows],
            }
        )
    return {"metric": safe(names[0]), "raw_metric": names[0], "ended": curves}


def _champion(result: Result) -> dict[str, Any] | None:
    if not result.hall_of_fame:
        return None
    champion, blocks = result.champion, blocks_of(result)
    pairs = zip(result.objectives, champion.values, strict=True)
    return {
        "number": champion.number,
        "values": ", ".join(f"{each.name} {number(value)}" for each, value in pairs)
        + repeats_text(champion),
        "genes": [[name, shown(value)] for name, value in champion.genes.items()][:60],
        "strip": None
        if blocks is None
        else [[square.colour, square.words] for square in blocks.strip(champion.genes).squares],
        "label": "" if blocks is None else blocks.label(champion),
    }


def _front(result: Result) -> dict[str, Any] | None:
    if len(result.objectives) < 2 or not result.hall_of_fame:
        return None
    ok = [entry for entry in result.evaluations if entry.status is Status.OK]
    kept = [ok[place] for place in thinned(len(ok), _MAX_POINTS)]
    front = sorted(result.pareto_front, key=lambda entry: entry.values[0])
    return {
        "x": [entry.values[0] for entry in kept],
        "y": [entry.values[1] for entry in kept],
        "front_x": [entry.values[0] for entry in front],
        "front_y": [entry.values[1] for entry in front],
        "n": len(front),
        "rows": [[entry.number, *map(number, entry.values)] for entry in front[:_MAX_FRONT]],
    }
