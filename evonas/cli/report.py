"""`evonas report`: one HTML file that shows the search."""

from __future__ import annotations

from pathlib import Path

import click

from evonas.cli.screen import CommandWithExamples, check_output, run_argument
from evonas.run.result import open_run

__all__ = ["report"]


@click.command(
    cls=CommandWithExamples,
    examples=(
        "evonas report runs/demo",
        "evonas report runs/demo -o demo.html",
    ),
)
@run_argument()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The file. [default: report.html in RUN]",
)
def report(run: Path, output: Path | None) -> None:
    """Write one HTML file that shows what the search did.

    It needs no network: open it, mail it, put it beside a paper. The run may still go on.
    """
    from evonas.report import write_report

    open_run(run)  # what is wrong with the run comes before what is wrong with the file
    check_output(output or run / "report.html")
    click.echo(click.format_filename(write_report(run, output)))
