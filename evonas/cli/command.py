"""The command `evonas` itself: its commands, and how each may end."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from evonas.cli.compare import compare
from evonas.cli.export import export
from evonas.cli.list import list_runs
from evonas.cli.report import report
from evonas.cli.resume import resume
from evonas.cli.screen import CommandWithExamples, echo
from evonas.cli.serve import serve
from evonas.cli.show import show
from evonas.cli.source import source
from evonas.exceptions import EvonasError

__all__ = ["main"]

INTERRUPTED = 130


class _Commands(CommandWithExamples, click.Group):
    """Turns the errors that evonas raises on purpose into one line and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:  # `evonas show RUN | head` has read all it wants
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (EvonasError, FileNotFoundError) as error:
            echo(f"evonas: {error}", err=True)
            return 1
        return result


def _version() -> str:
    try:
        return version("evonas")
    except PackageNotFoundError:
        return "of a source tree that is not installed"


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    examples=(
        "evonas show runs/demo             # how is it, what is the best so far",
        "evonas show runs/demo --watch     # the same, until the search ends",
        "evonas report runs/demo           # one HTML file, to open or to send",
        "evonas serve runs                 # the runs of a folder in a browser, live",
        "evonas source runs/demo champion  # the best network, as code",
        "evonas compare runs/a runs/b      # which search found more, sooner",
        "evonas export runs/demo --format csv -o demo.csv",
        "evonas resume runs/demo           # go on after Ctrl-C, a kill, a crash",
    ),
    notes={
        "Exit status": (
            ("0", "Done."),
            ("1", "The run is missing, damaged or refused."),
            ("2", "Wrong usage."),
            ("130", "Interrupted."),
        )
    },
)
@click.version_option(_version(), prog_name="evonas")
def _evonas() -> None:
    """Look at the runs of evonas, export them, go on with them.

    A RUN is a directory that a search writes (`run_dir=`). Reading one never changes it, and works
    while the search goes on.
    """


for _command in (list_runs, show, serve, report, export, source, compare, resume):
    _evonas.add_command(_command)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status.

    Args:
        argv: The arguments. None: those of this process.

    Returns:
        0 done, 1 the run is missing, damaged or refused, 2 wrong usage, 130 interrupted; `resume`
        returns the status of the command that it ran.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        status = _evonas.main(arguments, prog_name="evonas", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    return status if isinstance(status, int) else 0
