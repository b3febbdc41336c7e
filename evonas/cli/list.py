"""`evonas list`: the runs of a folder, each in a line."""

from __future__ import annotations

from pathlib import Path

from click import command

from evonas.cli.screen import (
    CommandWithExamples,
    echo,
    json_option,
    json_text,
    put,
    run_argument,
    table,
)
from evonas.files import display_path
from evonas.report.formats import duration
from evonas.report.listing import find_runs, listed

__all__ = ["list_runs"]


@command(
    "list",
    cls=CommandWithExamples,
    examples=("evonas list runs", "evonas list runs --json | jq '.[] | select(.running)'"),
)
@run_argument(default="runs", metavar="[FOLDER]")
@json_option()
def list_runs(run: Path, as_json: bool) -> None:
    """List the runs of a folder, in a line each.

    The last written first; the folder is `runs` where none is named. State, the champion's values,
    how many evaluations were trained, and how long it took. A run that cannot be read says why,
    and hides no other.
    """
    found = [listed(path) for path in find_runs(run)]
    if as_json:
        echo(json_text([line.to_json() for line in found]))
        return
    if not found:
        echo(f"no runs in {run}")
        return
    rows = [
        (
            f"{line.trained:,}" + (f" + {line.copied:,} copied" if line.copied else ""),
            duration(line.seconds),
            line.best_words or "-",
            line.strategy or "-",
            line.state,
            display_path(line.path),
        )
        for line in found
    ]
    put(table(["trained", "time", "best", "strategy", "state", "run"], rows, left=4))
