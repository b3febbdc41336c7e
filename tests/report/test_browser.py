"""The report in a real browser: every chart is drawn, nothing is complained of or asked for."""

from __future__ import annotations

import os
import re
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.report import write_report

CHROMIUM = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), ""
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install -y chromium"),
]


@dataclass
class Shown:
    """What the browser made of a page: its document, its console, the hosts it asked for."""

    document: str
    console: list[str]
    hosts: list[str]


class Recorder(socketserver.ThreadingTCPServer):
    """A proxy that notes what it is asked for and refuses it."""

    allow_reuse_address = True
    daemon_threads = True
    asked: list[str]


class Refuse(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        line = self.rfile.readline(4096).decode(errors="replace")
        if not line:  # a connection that was opened ahead, and asked for nothing
            return
        self.server.asked.append(line.split(" ")[1] if " " in line else line)  # type: ignore[attr-defined]
        self.wfile.write(
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )


@pytest.fixture
def proxy() -> Iterator[Recorder]:
    with Recorder(("127.0.0.1", 0), Refuse) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def show(page: Path, proxy: Recorder, tmp_path: Path, *options: str, hash_: str = "#all") -> Shown:
    address = f"127.0.0.1:{proxy.server_address[1]}"
    command = [
        CHROMIUM, "--headless=new", "--disable-gpu", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--no-first-run", "--no-pings",
        "--disable-features=OptimizationHints,MediaRouter,Translate,NetworkTimeServiceQuerying",
        f"--user-data-dir={tmp_path / 'profile'}", f"--proxy-server={address}",
        "--enable-logging=stderr", "--v=0", "--virtual-time-budget=60000", *options, "--dump-dom",
        f"{page.as_uri()}{hash_}",  # #all opens what is folded
    ]  # fmt: skip
    if os.geteuid() == 0:
        command.insert(1, "--no-sandbox")  # Chromium's sandbox refuses to run as root
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    # The browser itself may ask its maker for updates; a page cannot make it do so.
    hosts = [host for host in proxy.asked if not re.search(r"(google(apis)?|gvt1)\.com\b", host)]
    return Shown(done.stdout, console, hosts)


def n_charts(document: str) -> tuple[int, int, str]:
    """Returns how many charts the page has, how many are drawn, and how many it says it drew."""
    boxes = re.findall(r'<div class="chart[^"]*"', document)
    drawn = [box for box in boxes if "js-plotly-plot" in box]
    (said,) = re.findall(r'<html[^>]*data-drawn="(\d+)"', document) or ["none"]
    assert document.count('class="main-svg"') >= 2 * len(drawn)
    return len(boxes), len(drawn), said


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["small", "masks", "two_objectives", "large"])
@pytest.mark.parametrize("width", [1280, 500])
def test_every_chart_is_drawn_and_nothing_is_asked_for(
    name: str, width: int, request: pytest.FixtureRequest, proxy: Recorder, tmp_path: Path
) -> None:
    result: en.Result = request.getfixturevalue(name)
    assert result.run_dir is not None
    page = write_report(result.run_dir, tmp_path / "report.html")
    shown = show(page, proxy, tmp_path, f"--window-size={width},900")
    expected = page.read_text(encoding="utf-8").count('type="application/json"')
    assert n_charts(shown.document) == (expected, expected, str(expected))
    assert shown.console == []
    assert shown.hosts == []


@pytest.mark.timeout(600)
def test_what_a_run_holds_does_not_run(write_run: Any, proxy: Recorder, tmp_path: Path) -> None:
    evil = '</script><script>document.title="evil"</script><img src="http://evil.test/x">'
    link = '<a href="http://evil.test/y">y</a>'
    space = en.SearchSpace({evil: en.Categorical([link, evil]), link: en.Boolean()})
    result = write_run(40, space=space, objectives=(en.Objective(link),), metadata={evil: evil})
    page = write_report(result.run_dir, tmp_path / "report.html")
    shown = show(page, proxy, tmp_path)
    assert "<title>evonas: " in shown.document
    assert "<img" not in shown.document.split("<script")[0]
    assert re.findall(r'<[^<>]*(?:href|src)="http://evil[^<>]*>', shown.document) == []
    assert "&lt;a href=" in shown.document  # it is there, as text
    assert shown.console == []
    assert shown.hosts == []


@pytest.mark.timeout(600)
def test_the_checks_above_can_fail(proxy: Recorder, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        '<!doctype html><div class="chart"></div><script type="application/json">{}</script>'
        '<img src="http://example.test/x.png"><script>throw Error("no good")</script>'
    )
    shown = show(page, proxy, tmp_path)
    assert n_charts(shown.document) == (1, 0, "none")
    assert any("no good" in line for line in shown.console)
    assert any("example.test" in host for host in shown.hosts)


@pytest.mark.timeout(600)
def test_what_is_folded_is_drawn_when_it_is_opened(
    small: en.Result, proxy: Recorder, tmp_path: Path
) -> None:
    assert small.run_dir is not None
    page = write_report(small.run_dir, tmp_path / "report.html")
    folded = show(page, proxy, tmp_path, hash_="")
    n_all, n_drawn, said = n_charts(folded.document)
    assert (n_all, n_drawn, said) == (22, 5, "5"), "the first look draws what it shows"
    genes = show(page, proxy, tmp_path, hash_="#genes")
    assert n_charts(genes.document) == (22, 16, "16")
