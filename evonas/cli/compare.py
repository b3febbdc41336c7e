"""`evonas compare`: which of several searches found more, and sooner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from evonas.cli.screen import (
    CommandWithExamples,
    RunPath,
    json_option,
    json_text,
    put,
    table,
)
from evonas.cli.trajectory import Trajectory, box_of, round_numbers, trajectory
from evonas.exceptions import EvonasError
from evonas.report.formats import aligned, duration, number
from evonas.run.identity import comparable
from evonas.run.result import Result, open_run
from evonas.space.canonical import canonical_json

__all__ = ["compare"]

_SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)


@click.command(
    cls=CommandWithExamples,
    examples=(
        "evonas compare runs/random runs/aging",
        "evonas compare runs/seed-* --json",
    ),
)
@click.argument("runs", nargs=-1, required=True, type=RunPath(), metavar="RUN...")
@json_option()
def compare(runs: tuple[Path, ...], as_json: bool) -> None:
    """Compare the course of several searches.

    The best so far, against evaluations and against seconds; with several objectives, how much
    the front covers of the box between the worst and the best values (hypervolume).

    Evaluations are those that were trained, in the order in which the search asked for them;
    seconds are those of searching, over all starts. A dash: the search did not get so far, or had
    no fitness yet. One search each says little: compare several seeds before you conclude.
    """
    if len(runs) < 2:
        raise click.UsageError("compare wants two runs or more: evonas compare runs/a runs/b")
    results = [open_run(run) for run in runs]
    _refuse_other_objectives(results)
    box = box_of(results)
    courses = [trajectory(result, box) for result in results]
    notes = _notes(results, courses)
    counts = _counts(courses)
    times = _times(courses)
    if as_json:
        click.echo(json_text(_as_json(results, courses, counts, times, notes)))
        return
    measure = _measure(results[0])
    names = [f"[{place}]" for place in range(1, len(runs) + 1)]
    put(_runs(names, results, courses))
    put(f"\n{measure} after n evaluations")
    reached = [n for n in counts if any(course.after(n) is not None for course in courses)]
    columns = [aligned([course.after(n) for n in reached]) for course in courses]
    rows = list(zip(map(str, reached), *columns, strict=True))
    put(table(["evaluations", *names], rows))
    put(f"\n{measure} after a time of searching")
    told = [at for at in times if any(course.at(at) is not None for course in courses)]
    columns = [aligned([course.at(at) for at in told]) for course in courses]
    rows = list(zip(map(duration, told), *columns, strict=True))
    put(table(["time", *names], rows))
    for note in notes:
        put(f"\nnote: {note}")


def _refuse_other_objectives(results: Sequence[Result]) -> None:
    first = results[0]
    for result in results[1:]:
        if result.objectives != first.objectives:
            raise EvonasError(
                f"{first.location} and {result.location} have other objectives "
                f"({_named(first)} and {_named(result)}): there is nothing to compare"
            )


def _named(result: Result) -> str:
    return ", ".join(f"{entry.name} {entry.direction}" for entry in result.objectives)


def _notes(results: Sequence[Result], courses: Sequence[Trajectory]) -> list[str]:
    notes = []
    for place, result in enumerate(results[1:], 2):
        first, here = comparable(results[0].record.fingerprint, result.record.fingerprint)
        names = [
            name
            for name in dict.fromkeys([*first, *here])
            if canonical_json(first.get(name)) != canonical_json(here.get(name))
        ]
        if names:
            notes.append(
                f"[1] and [{place}] are different problems ({', '.join(names)} differ): their "
                "values do not compare"
            )
        elif result.record.space != results[0].record.space:
            notes.append(f"[1] and [{place}] search different spaces")
    for place, (result, course) in enumerate(zip(results, courses, strict=True), 1):
        if course.n_copied:
            notes.append(
                f"[{place}] began with {course.n_copied} evaluations of earlier runs: its best "
                "includes them"
            )
        if result.outcome is None:
            notes.append(f"[{place}] has not ended")
        if words := result.record.limits.words:
            notes.append(f"[{place}] has limits ({words}): only what is within them counts")
        if result.confirmed:
            notes.append(
                f"[{place}] is confirmed on fresh seeds: `evonas show {result.location}` has the "
                "means, here are the scores of single trainings"
            )
    if len(results[0].objectives) > 1:
        notes.append(
            "what a front covers is the share of the box between the worst and the best value of "
            "each objective, over all these runs, in which no point beats it (hypervolume)"
        )
    return notes


def _measure(result: Result) -> str:
    """Returns what is compared, in words."""
    if len(result.objectives) > 1:
        return "share that the front covers"
    objective = result.objectives[0]
    return f"{'highest' if objective.direction == 'max' else 'lowest'} {objective.name}"


def _counts(courses: Sequence[Trajectory]) -> list[int]:
    lengths = {len(course.by_count) for course in courses}
    most = max(lengths, default=0)
    return sorted({*round_numbers(most), *(length for length in lengths if length)})


def _times(courses: Sequence[Trajectory]) -> list[float]:
    """Returns shares of the shortest search's time, at which all can be compared, and the ends."""
    shortest = min(course.seconds for course in courses)
    shares = {share * shortest for share in _SHARES}
    return sorted(shares | {course.seconds for course in courses})


def _runs(names: Sequence[str], results: Sequence[Result], courses: Sequence[Trajectory]) -> Any:
    several = len(results[0].objectives) > 1
    rows = [
        (
            name,
            len(course.by_count),
            duration(course.seconds),
            number(course.by_count[-1] if course.by_count else None),
            *([len(result.pareto_front)] if several else []),
            result.record.seed,
            result.record.strategy_name,
            result.location,
        )
        for name, result, course in zip(names, results, courses, strict=True)
    ]
    best = ["covered", "front"] if several else ["best"]
    return table(["", "evaluations", "time", *best, "seed", "strategy", "run"], rows, left=2)


def _as_json(
    results: Sequence[Result],
    courses: Sequence[Trajectory],
    counts: Sequence[int],
    times: Sequence[float],
    notes: Sequence[str],
) -> dict[str, Any]:
    objective = results[0].objectives[0]
    return {
        "objective": {"name": objective.name, "direction": objective.direction},
        "measure": "objective" if len(results[0].objectives) == 1 else "hypervolume",
        "runs": [
            {
                "run_dir": str(result.run_dir),
                "strategy": result.record.strategy,
                "seed": result.record.seed,
                "evaluations": len(course.by_count),
                "seconds": course.seconds,
                "best": course.by_count[-1] if course.by_count else None,
                "copied": course.n_copied,
            }
            for result, course in zip(results, courses, strict=True)
        ],
        "by_evaluations": [
            {"evaluations": n, "best": [course.after(n) for course in courses]} for n in counts
        ],
        "by_seconds": [
            {"seconds": at, "best": [course.at(at) for course in courses]} for at in times
        ],
        "notes": list(notes),
    }
