"""`evonas export`: a run's evaluations, or the trained model of one, for other programs."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from evonas.cli.screen import CommandWithExamples, check_output, echo, run_argument, write_or_print
from evonas.cli.source import chosen
from evonas.records import Evaluation
from evonas.report.formats import number
from evonas.report.network import classes_text, precision_text, preprocessing_text
from evonas.run.repeats import mean_of_repeats, weights_text
from evonas.run.result import Result, open_run

__all__ = ["export"]

MODELS = ("onnx", "torch-export", "safetensors", "state-dict")


@click.command(
    cls=CommandWithExamples,
    examples=(
        "evonas export runs/demo --format csv -o demo.csv",
        "evonas export runs/demo --format json | jq '.evaluations[].values'",
        "evonas export runs/demo --format optuna -o demo.db",
        "optuna-dashboard sqlite:///demo.db",
        "evonas export runs/demo --format onnx -o champion.onnx",
        "evonas export runs/mine --format torch-export --build train.py:make_model",
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
            ("onnx", "The trained model for onnxruntime (default champion.onnx)."),
            ("torch-export", "The same as a program of torch.export (default champion.pt2)."),
            ("safetensors", "Its weights alone (default champion.safetensors)."),
            ("state-dict", "Its weights for torch.load(weights_only=True) (default champion.pt)."),
        )
    },
)
@run_argument()
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "json", "nn-dataset", "optuna", *MODELS], case_sensitive=False),
    required=True,
    help="What to write.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write it.")
@click.option(
    "-e",
    "--evaluation",
    default="champion",
    show_default=True,
    metavar="KEY",
    help="Whose model: a number, the beginning of a key, or champion.",
)
@click.option(
    "--build",
    metavar="FILE.py:FUNCTION",
    help="What builds the untrained module from its genes, where only you have it.",
)
@click.option("--half", is_flag=True, help="Write a model's numbers as float16.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="Make the model for batches of N; without it, of any size.",
)
@click.pass_context
def export(
    ctx: click.Context,
    run: Path,
    form: str,
    output: Path | None,
    evaluation: str,
    build: str | None,
    half: bool,
    batch: int | None,
) -> None:
    """Write evaluations, or a trained model, for other programs.

    csv and json replace a file that exists, and so do models; the others refuse to.

    What onnx and torch-export have written is run on random inputs and compared with the module.
    """
    result = open_run(run)
    if form not in MODELS:
        for name in ("evaluation", "build", "half", "batch"):
            if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--{name} is for models: --format {', '.join(MODELS)}")
    if form in MODELS:
        from evonas.cli.export.model import ENDINGS, write_model

        chosen_one = chosen(result, evaluation)
        path = output or Path(
            ("champion" if evaluation == "champion" else str(chosen_one.number)) + ENDINGS[form]
        )
        check_output(path)
        done = write_model(
            chosen_one,
            form,
            path,
            build=build,
            half=half,
            batch_size=batch,
            precision=result.record.precision,
            objectives=result.objectives,
        )
        echo(done)
        _say_how_to_use(result, chosen_one)
        return
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


def _say_how_to_use(result: Result, evaluation: Evaluation) -> None:
    """Says what whoever uses the model must know: its score, arithmetic, inputs, outputs."""
    if weights := weights_text(evaluation, result.objectives):
        echo(f"its weights: {weights}{_mean(evaluation)}")
    if precision := result.record.precision:
        echo(f"its precision in the search: {precision_text(precision)}")
    if said := preprocessing_text(evaluation):
        echo(f"its inputs: {said}")
    if named := classes_text(evaluation):
        echo(f"its classes: {named}")


def _mean(evaluation: Evaluation) -> str:
    mean = mean_of_repeats(evaluation)
    return "" if mean is None else f"; the mean of the repeats is {number(mean)}"
