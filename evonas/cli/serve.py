"""`evonas serve`: runs in a browser, while they are being written."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

import click

from evonas.cli.screen import CommandWithExamples, echo, run_argument
from evonas.exceptions import EvonasError, MissingDependencyError
from evonas.files import as_directory

__all__ = ["serve"]

_PORT = 8321


@click.command(
    cls=CommandWithExamples,
    examples=(
        "evonas serve runs            # the runs of a folder",
        "evonas serve runs/demo       # one run",
        "evonas serve runs --port 0   # any free port",
    ),
)
@run_argument(metavar="RUN_OR_FOLDER")
@click.option("--port", type=click.IntRange(0, 65535), default=_PORT, show_default=True)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on. Another than that of this machine shows the runs to whoever "
    "has the address with its token.",
)
def serve(run: Path, port: int, host: str) -> None:
    """Show runs in a browser while they are being written.

    Lists the runs of a folder and follows one: how far it is, what is being trained, learning
    curves as they grow, failures, the front, the time left. A run that has ended is its report.

    Nothing is written, and nothing is run that a run holds. The page answers to browsers of this
    machine alone, at an address with a token that is printed here. Ctrl-C ends it, and no search.
    """
    from evonas.live.app import LOOPBACK, live_app

    folder = as_directory(run, "RUN_OR_FOLDER")
    if not folder.is_dir():
        raise FileNotFoundError(f"{run} is no folder: pass a run, or a folder that holds runs")
    try:
        import uvicorn
    except ImportError as error:
        raise MissingDependencyError.of(
            "evonas serve", "starlette and uvicorn", error, "pip install 'evonas[live]'"
        ) from error
    if not host:
        raise EvonasError("--host must name an address, got ''")
    token = secrets.token_urlsafe(16)
    # All addresses of this machine: by which name it is called, only its owner knows.
    hosts = ("*",) if host in ("0.0.0.0", "::") else (*LOOPBACK, host)
    app = live_app(folder.resolve(), token, hosts)
    listening = _listen(host, port)
    echo(f"http://{host}:{listening.getsockname()[1]}/{token}/")
    echo("Ctrl-C ends it", err=True)
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens.

    Raises:
        EvonasError: The port is taken, or the address is none of this machine's.
    """
    try:
        host.encode("idna")
        return socket.create_server((host, port))
    except (OSError, UnicodeError) as error:  # UnicodeError: it can be no machine's name
        reason = getattr(error, "strerror", None) or error
        raise EvonasError(
            f"cannot listen on {host[:60]}:{port} ({reason}): give another --port (0 "
            "takes any free one) or --host"
        ) from None
