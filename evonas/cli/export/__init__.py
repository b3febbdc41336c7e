"""`evonas export`: every evaluation of a run, for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from evonas.cli.screen import CommandWithExamples, check_output, run_argument, write_or_print
from evonas.run.result import open_run

__all__ = ["export"]


@click.command(
    cls=CommandWithExamples,
    examples=(
        "evonas export runs/demo --format csv -o demo.csv",
        "evonas export runs/demo --format json | jq '.evaluations[].values'",
        "evonas export runs/demo --format optuna -o demo.db",
        "optuna-dashboard sqlite:///demo.db",
    ),
    notes={
        "Formats": (
            ("csv", "A row for each evaluation; printed without -o."),
            ("json", "The same with every epoch and the parents; printed without -o."),
            (
                "optuna",
                "An Optuna study in an SQLite file (default optuna.db), which optuna-dashboard "
                "opens.",
            ),
            (
                "nn-dataset",
                "Statistics and models of image classifiers in the layout of the project "
                "nn-dataset, as a directory (default nn-dataset).",
            ),
        )
    },
)
@run_argument()
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "json", "nn-dataset", "optuna"], case_sensitive=False),
    required=True,
    help="What to write.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write it.")
def export(run: Path, form: str, output: Path | None) -> None:
    """Write every evaluation of a run for other programs.

    csv and json replace a file that exists; the others refuse to.
    """
    result = open_run(run)
    if output is not None:
        check_output(output, to_directory=form == "nn-dataset")
    if form == "csv":
        from evonas.cli.export.rows import as_csv

        write_or_print(as_csv(result), output)
    elif form == "json":
        from evonas.cli.export.rows import as_json

        write_or_print(as_json(result), output)
    elif form == "optuna":
        from evonas.cli.export.optuna_study import write_study

        path, name = write_study(result, output or Path("optuna.db"))
        click.echo(f"{path}: study {name}, for optuna-dashboard sqlite:///{path}")
    else:
        from evonas.cli.export.nn_dataset import write_dataset

        click.echo(write_dataset(result, output or Path("nn-dataset")))
