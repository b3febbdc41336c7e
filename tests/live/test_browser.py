"""The live view in a real browser: a search is followed, a hostile one cannot act, it ends well."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="pip install 'evonas[live]'")
CHROMIUM = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), ""
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install -y chromium"),
]

SEARCH = """
import sys, time
import evonas as en

EVIL = '</script><script>document.title="evil"</script><img src=x onerror=document.title="evil">'

def fitness(genes, trial):
    if trial.number == 1:
        raise RuntimeError(EVIL)
    for epoch in range(int(sys.argv[2])):
        time.sleep(0.25)
        trial.report(**{EVIL: epoch / 10})
    return genes["x"], 1 - genes["x"]

if __name__ == "__main__":
    space = en.SearchSpace({"x": en.Float(0.0, 1.0), EVIL: [EVIL, "b"]})
    objectives = [en.Objective(EVIL), en.Objective("<b>size</b>", "min")]
    problem = en.FunctionProblem(space, fitness, objectives=objectives, problem_id=EVIL)
    en.evolve(problem, strategy=en.NSGA2(6), max_evaluations=12, seed=0, run_dir=sys.argv[1],
              workers=2, progress=False)
"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Of a server of the runs in `tmp_path/runs`."""
    import uvicorn

    from evonas.live.app import live_app

    (tmp_path / "runs").mkdir()
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(live_app(tmp_path / "runs", "token"), log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/token/"
    server.should_exit = True
    thread.join()
    listening.close()


def search(run_dir: Path, n_epochs: int) -> subprocess.Popen[bytes]:
    script = run_dir.parent.parent / "search.py"
    script.write_text(SEARCH)
    command = [sys.executable, str(script), str(run_dir), str(n_epochs)]
    return subprocess.Popen(command, cwd=script.parent)


def show(page: str, tmp_path: Path, width: int = 1200) -> tuple[str, list[str]]:
    """Returns the document as it is after some looks, and what the console says."""
    command = [
        CHROMIUM, "--headless=new", "--disable-gpu", "--disable-background-networking",
        "--disable-component-update", "--no-first-run", "--enable-logging=stderr", "--v=0",
        f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900",
        "--virtual-time-budget=6000", "--dump-dom", page,
    ]  # fmt: skip
    if os.geteuid() == 0:
        command.insert(1, "--no-sandbox")  # Chromium's sandbox refuses to run as root
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def harmless(document: str, console: list[str]) -> bool:
    outside = re.sub(r"<script.*?</script>", "", document, flags=re.S)
    title = re.findall(r"<title>(.*?)</title>", document)
    return console == [] and "<img" not in outside and title[0].startswith("evonas: ")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("width", [1200, 500])
def test_a_search_is_followed_and_cannot_act(address: str, tmp_path: Path, width: int) -> None:
    run_dir = tmp_path / "runs" / "demo run"
    process = search(run_dir, 40)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            document, console = show(f"{address}run/demo%20run", tmp_path, width)
            if "RuntimeError" in document and "now: " in document:
                break
        assert harmless(document, console), console
        assert re.search(r"running · NSGA2, seed 0", document)
        assert re.search(r"of at most 12 trained, about .* left at most", document)
        assert "&lt;img src=x onerror" in document, "it is there, as text"
        assert document.count('class="main-svg"') >= 2, "learning curves are drawn as they grow"
        listed, console = show(address, tmp_path, width)
        assert harmless(listed, console)
        assert '<td class="running">running</td>' in listed
    finally:
        process.kill()
        process.wait()


@pytest.mark.timeout(300)
def test_the_page_of_a_run_that_has_ended_is_its_report(address: str, tmp_path: Path) -> None:
    assert search(tmp_path / "runs" / "demo", 3).wait() == 0
    document, console = show(f"{address}run/demo", tmp_path)
    assert "How to reproduce" in document
    assert re.search(r'<html[^>]*data-drawn="[1-9]\d*"', document), "its charts are drawn"
    assert harmless(document, console), console
