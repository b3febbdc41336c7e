"""`evonas resume`: go on with a run, by the command that made it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

import click

from evonas.cli.screen import CommandWithExamples, echo, json_option, json_text, run_argument
from evonas.exceptions import EvonasError
from evonas.report.state import Start, last_start
from evonas.run.result import open_run
from evonas.run.store.lock import LOCK, is_held

__all__ = ["resume"]


@click.command(
    cls=CommandWithExamples,
    examples=(
        "evonas resume runs/demo --print",
        "evonas resume runs/demo",
    ),
)
@run_argument()
@click.option("--print", "only_print", is_flag=True, help="Print the command and run nothing.")
@click.option("--yes", is_flag=True, help="Run a command that was not put on record here.")
@json_option()
def resume(run: Path, only_print: bool, yes: bool, as_json: bool) -> int:
    """Go on with a search by its own command.

    The command of the last start that has one runs again, in the directory where it ran then, with
    the environment of now (PYTHONPATH, CUDA_VISIBLE_DEVICES, …). Nothing that is finished is
    repeated. The exit status is the command's own. --json prints only, as --print does.

    A command that this user did not put on record on this machine is shown, and runs only once that
    is confirmed, or with --yes: in somebody else's run it may be any command.

    Refused where RUN was moved or is a copy: its command would go on with the directory that it
    names, not with this one. The message has the command, to be given this directory.
    """
    result = open_run(run)
    start = last_start(result)
    if start is None:
        raise EvonasError(
            f"{run} does not know the command that made it (a notebook or a prompt did): run what "
            f"made it again, with run_dir={str(run)!r}"
        )
    if not start.goes_on_with(run):
        raise EvonasError(
            f"{run} was moved here or is a copy: its command goes on with {start.run_dir}; run it "
            f"with this directory in place of that one (--run-dir {run.resolve()}, or run_dir= in "
            f"its code): {start.line}"
        )
    if as_json:
        click.echo(json_text({"command": start.command, "directory": start.directory}))
        return 0
    if only_print:
        echo(start.line)
        return 0
    _check(run, start)
    if not (start.is_ours or yes):
        _confirm(run, start)
    status = _run(start)
    if len(open_run(run).sessions) == len(result.sessions):
        click.echo(
            f"evonas: {run} is as it was: its command goes on with another directory, or failed "
            "before it began",
            err=True,
        )
    return status


def _check(run: Path, start: Start) -> None:
    """Refuses what cannot run.

    Raises:
        EvonasError: The run is in use, or its directory or program is gone.
    """
    line = shlex.join(start.command)
    if is_held(run / LOCK):
        raise EvonasError(f"{run} is running already: `evonas show {run} --watch` follows it")
    if not Path(start.directory).is_dir():
        raise EvonasError(
            f"the directory {start.directory}, in which {run} was started, is gone: run its "
            f"command from where its files are now: {line}"
        )
    if shutil.which(start.command[0]) is None:
        raise EvonasError(
            f"{start.command[0]}, which started {run}, is gone: run the same with another Python: "
            f"{line}"
        )


def _confirm(run: Path, start: Start) -> None:
    """Has a person confirm a command that somebody else may have written.

    Raises:
        EvonasError: Nobody is there to be asked, or the answer is no.
    """
    text = f"{run} was not started by you on this machine. Its command is\n  {start.line}"
    if sys.stdin is None or not sys.stdin.isatty():
        raise EvonasError(f"{text}\nread it, and pass --yes to run it")
    echo(text, err=True)
    if not click.confirm("run it?", err=True):
        raise EvonasError(f"{run} is as it was: its command was not run")


def _run(start: Start) -> int:
    echo(f"evonas: running {shlex.join(start.command)} in {start.directory}", err=True)
    sys.stderr.flush()
    process = subprocess.Popen(
        start.command, cwd=start.directory, env={**os.environ, "PWD": start.directory}
    )

    def pass_on(received: int, frame: FrameType | None) -> None:
        process.send_signal(received)

    # Ctrl-C reaches the search by itself, which then saves what is finished: wait for that.
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    before[signal.SIGTERM] = signal.signal(signal.SIGTERM, pass_on)
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status
