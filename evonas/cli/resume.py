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

from evonas.cli.screen import Taught, json_option, json_text, run_argument
from evonas.cli.state import last_command
from evonas.exceptions import EvonasError
from evonas.result import open_run
from evonas.storage.lock import LOCK, is_held

__all__ = ["resume"]


@click.command(
    cls=Taught,
    examples=(
        "evonas resume runs/demo --print",
        "evonas resume runs/demo",
    ),
)
@run_argument()
@click.option("--print", "only_print", is_flag=True, help="Print the command and run nothing.")
@json_option()
def resume(run: Path, only_print: bool, as_json: bool) -> int:
    """Go on with a search by its own command.

    The command of the last start that has one runs again, in the directory where it ran then, with
    the environment of now (PYTHONPATH, CUDA_VISIBLE_DEVICES, …). Nothing that is finished is
    repeated. The exit status is the command's own. --json prints only, as --print does.

    A run of somebody else's holds somebody else's command: look at it with --print first.
    """
    result = open_run(run)
    found = last_command(result)
    if found is None:
        raise EvonasError(
            f"{run} does not know the command that made it (a notebook or a prompt did): run what "
            f"made it again, with run_dir={str(run)!r}"
        )
    command, directory = found
    if as_json:
        click.echo(json_text({"command": command, "directory": directory}))
        return 0
    if only_print:
        click.echo(f"cd {shlex.quote(directory)} && {shlex.join(command)}")
        return 0
    _check(run, command, directory)
    status = _run(command, directory)
    if len(open_run(run).sessions) == len(result.sessions):
        click.echo(
            f"evonas: {run} is as it was: its command goes on with another directory (was this one "
            "moved or copied?), or failed before it began",
            err=True,
        )
    return status


def _check(run: Path, command: list[str], directory: str) -> None:
    """Refuses what cannot run.

    Raises:
        EvonasError: The run is in use, or its directory or program is gone.
    """
    line = shlex.join(command)
    if is_held(run / LOCK):
        raise EvonasError(f"{run} is running already: `evonas show {run} --watch` follows it")
    if not Path(directory).is_dir():
        raise EvonasError(
            f"the directory {directory}, in which {run} was started, is gone: run its command from "
            f"where its files are now: {line}"
        )
    if shutil.which(command[0]) is None:
        raise EvonasError(
            f"{command[0]}, which started {run}, is gone: run the same with another Python: {line}"
        )


def _run(command: list[str], directory: str) -> int:
    click.echo(f"evonas: running {shlex.join(command)} in {directory}", err=True)
    sys.stderr.flush()
    process = subprocess.Popen(command, cwd=directory, env={**os.environ, "PWD": directory})

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
