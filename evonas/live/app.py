"""The pages of the live view, a Starlette application: read-only, behind a token and a policy."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from evonas.exceptions import EvonasError, MissingDependencyError
from evonas.live.watch import Watch
from evonas.report.formats import duration, plain
from evonas.report.html import render
from evonas.report.listing import Listed, changed_at, find_runs, listed
from evonas.report.page import POLICY
from evonas.report.style import graph_objects
from evonas.report.template import rendered
from evonas.run.result import open_run
from evonas.run.store.schema import DATABASE

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["LOOPBACK", "live_app"]

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""The hosts by which a browser on this machine may call it."""

# Scripts and data from here alone; plotly sets styles of elements. Nothing leaves for elsewhere.
_LIVE = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A report runs the scripts in it: in a box of its own, from which it can ask for nothing.
_REPORT = f"{POLICY}; frame-ancestors 'none'; sandbox allow-scripts allow-downloads allow-modals"
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_STATIC = {"live.js": "text/javascript", "list.js": "text/javascript", "live.css": "text/css"}
_Found = TypeVar("_Found")


class _Runs:
    """The runs of a folder (or one run), read by one thread: a database belongs to its thread."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._thread = ThreadPoolExecutor(1, "evonas-live", initializer=_step_back)
        self._watches: dict[Path, Watch] = {}
        self._listed: dict[Path, Listed] = {}
        self._reports: dict[Path, tuple[float, str]] = {}

    @property
    def is_one(self) -> bool:
        """Whether the root is a run itself."""
        return (self._root / DATABASE).is_file()

    async def ask(self, function: Callable[..., _Found], *arguments: Any) -> _Found:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, function, *arguments)

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Closes all databases at the end."""
        yield
        for watch in self._watches.values():
            await self.ask(watch.close)
        self._thread.shutdown()

    def names(self) -> dict[str, Path]:
        """Returns the runs by the names that addresses have for them."""
        if self.is_one:
            return {self._root.name: self._root}
        return {run.relative_to(self._root).as_posix(): run for run in find_runs(self._root)}

    def lines(self) -> list[dict[str, Any]]:
        found = []
        for name, run in self.names().items():
            known = self._listed.get(run)
            # What a search holds may end without a write.
            if known is None or known.is_running or known.changed_at != changed_at(run):
                known = self._listed[run] = listed(run)
            found.append(
                {
                    "name": name,
                    "state": known.state,
                    "running": known.is_running,
                    "strategy": known.strategy,
                    "trained": f"{known.trained:,}",
                    "time": duration(known.seconds),
                    "best": known.best_words,
                }
            )
        return found

    def look(self, name: str) -> dict[str, Any]:
        run = self.names()[name]
        watch = self._watches.setdefault(run, Watch(run))
        return watch.look()

    def report(self, name: str) -> str:
        run = self.names()[name]
        at = changed_at(run)
        known = self._reports.get(run)
        if known is None or known[0] != at:
            self._reports.clear()  # each is 5 MB
            known = self._reports[run] = (at, render(open_run(run)))
        return known[1]


def _step_back() -> None:
    """Lets trials compute first, where a thread has a priority of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def live_app(root: Path, token: str, hosts: tuple[str, ...] = LOOPBACK) -> Starlette:
    """Returns the application that shows the runs of a folder.

    Args:
        root: A folder with runs, or a run.
        token: Begins every address; without it there is nothing.
        hosts: By which it may be called: other names are another site's (DNS rebinding).

    Raises:
        MissingDependencyError: starlette, plotly or Jinja2 is not installed.
    """
    graph_objects()
    try:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.routing import Route
    except ImportError as error:
        raise MissingDependencyError.of(
            "evonas serve", "starlette and uvicorn", error, "pip install 'evonas[live]'"
        ) from error
    runs = _Runs(root)
    views = _Views(runs, token)
    return Starlette(
        routes=[
            Route("/{token}/", views.home),
            Route("/{token}/static/{file}", views.static),
            Route("/{token}/runs.json", views.lines),
            Route("/{token}/run/{name:path}.json", views.look),
            Route("/{token}/report/{name:path}", views.report),
            Route("/{token}/run/{name:path}", views.run),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
        ],
        lifespan=runs.lifespan,
    )


class _Views:
    """What each address answers."""

    def __init__(self, runs: _Runs, token: str) -> None:
        self._runs = runs
        self._token = token

    def _check(self, request: Request) -> None:
        from starlette.exceptions import HTTPException

        given = str(request.path_params["token"])
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            raise HTTPException(404)

    async def _asked(self, request: Request, function: Callable[[str], _Found]) -> _Found:
        from starlette.exceptions import HTTPException

        self._check(request)
        try:
            return await self._runs.ask(function, request.path_params["name"])
        except (KeyError, FileNotFoundError):
            raise HTTPException(404, "no such run") from None
        except EvonasError as error:
            raise HTTPException(503, str(error)) from None

    async def home(self, request: Request) -> Response:
        self._check(request)
        if self._runs.is_one:
            return self._live(next(iter(self._runs.names())))
        return _page(rendered_live("list.html", base=f"/{self._token}"))

    async def lines(self, request: Request) -> Response:
        self._check(request)
        return _json(await self._runs.ask(self._runs.lines))

    async def look(self, request: Request) -> Response:
        told = await self._asked(request, self._runs.look)
        if request.query_params.get("version") == told.get("version"):
            told = {**told, "points": None, "curves": None, "front": None}
        return _json(told)

    async def run(self, request: Request) -> Response:
        self._check(request)
        return self._live(request.path_params["name"])

    def _live(self, name: str) -> Response:
        one = self._runs.is_one
        return _page(rendered_live("run.html", base=f"/{self._token}", name=name, is_one=one))

    async def report(self, request: Request) -> Response:
        return _page(await self._asked(request, self._runs.report), _REPORT)

    async def static(self, request: Request) -> Response:
        from starlette.exceptions import HTTPException
        from starlette.responses import Response

        self._check(request)
        name = request.path_params["file"]
        if name == "plotly.js":
            from plotly.offline import get_plotlyjs

            text, kind = get_plotlyjs(), "text/javascript"
        elif name in _STATIC:
            text, kind = (files("evonas.live") / "templates" / name).read_text(), _STATIC[name]
        else:
            raise HTTPException(404)
        kept = {"Cache-Control": "private, max-age=3600"} if name == "plotly.js" else {}
        return Response(text, media_type=kind, headers=_HEADERS | kept)


def rendered_live(name: str, /, **values: Any) -> str:
    """Returns a page of the live view."""
    return rendered(name, package="evonas.live", **values)


def _page(text: str, policy: str = _LIVE) -> Response:
    from starlette.responses import HTMLResponse

    body = text.encode("utf-8", errors="backslashreplace")
    return HTMLResponse(body, headers={**_HEADERS, "Content-Security-Policy": policy})


def _json(value: Any) -> Response:
    from starlette.responses import Response

    text = json.dumps(plain(value), allow_nan=False, separators=(",", ":"))
    return Response(text, media_type="application/json", headers=_HEADERS)
