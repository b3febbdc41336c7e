"""evonas without what Windows lacks: the same searches, in processes that are told they are there.

No machine with Windows is at hand. In these processes evonas reads `sys.platform` as `win32`, has
no `fcntl` and no `resource`, none of the functions of `os`, `signal` and `select` that Windows has
not, a `msvcrt` whose locks are those of Linux, and a `taskkill`. The standard library and torch are
those of this system.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SITE = """
import fcntl, importlib.machinery
import multiprocessing.popen_spawn_posix, multiprocessing.resource_tracker
import os, resource, select, selectors, signal, sqlite3, subprocess, sys, tempfile, types
import concurrent.futures.process, concurrent.futures.thread, torch

class Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, name):
        source = self.get_data(self.path).replace(b"sys.platform", b"'win32'")
        return self.source_to_code(source, self.path)

class Finder:
    def find_spec(name, path, target=None):
        if name.partition(".")[0] != "evonas":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec

sys.meta_path.insert(0, Finder)

flock, exclusive = fcntl.flock, fcntl.LOCK_EX | fcntl.LOCK_NB
msvcrt = types.ModuleType("msvcrt")
msvcrt.LK_NBLCK = 2
msvcrt.locking = lambda descriptor, mode, n: flock(descriptor, exclusive)
sys.modules["msvcrt"] = msvcrt
psutil = types.ModuleType("psutil")
usage, itself = resource.getrusage, resource.RUSAGE_SELF
info = lambda: types.SimpleNamespace(peak_wset=usage(itself).ru_maxrss * 1024)
psutil.Process = lambda: types.SimpleNamespace(memory_info=info)
sys.modules["psutil"] = psutil
for name in ("fcntl", "resource", "grp", "pwd", "termios"):
    sys.modules[name] = None
multiprocessing.resource_tracker._HAVE_SIGMASK = False
for module, names in {
    os: ("EX_SOFTWARE", "fork", "getpgid", "killpg", "memfd_create", "posix_fallocate", "pread",
         "register_at_fork", "sched_getaffinity", "setpgid", "setsid"),
    signal: ("pthread_sigmask",),
    select: ("poll",),
}.items():
    for name in names:
        delattr(module, name)
os.O_BINARY = 0
"""

SEARCH = """
import os, sys, time
import evonas as en
from evonas.run.store import lock

assert "msvcrt" in vars(lock) and "fcntl" not in vars(lock)
workers, n = int(sys.argv[1]), int(sys.argv[2])

def fitness(genes, trial):
    time.sleep(float(os.environ.get("SECONDS", 0)))
    print("trained", genes["x"])
    return -((genes["x"] - 3) ** 2)

def exits(genes, trial):
    if genes["x"] == 3 and not os.environ.get("FIXED"):
        os._exit(9)
    return fitness(genes, trial)

if __name__ == "__main__":
    result = en.evolve(
        {"x": en.Integer(0, 30)}, exits if "exits" in sys.argv else fitness, strategy="random",
        max_evaluations=n, seed=0, run_dir="run", workers=workers, lost_retries=0,
        trial_timeout=20 if workers > 1 else None,
    )
    print(result.counts, result.champion.genes)
"""

FREEZING = """
import torch
from torch import nn
import evonas as en
from evonas.freezing import FreezingProblem

torch.manual_seed(0)
x = torch.randn(60, 4)
data = x, (x[:, 0] > 0).long()
net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))

def factory():
    import copy
    return copy.deepcopy(net)

problem = FreezingProblem(factory, data, data, n_epochs=1, prefix_memory_bytes=0)
result = en.evolve(problem, max_evaluations=4, seed=0, run_dir="freezing", workers=1)
assert result.counts.failed == 0, result.counts
assert all(e.metrics["peak_memory_bytes"] > 1 << 20 for e in result.evaluations)
print("frozen", result.champion.genes)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sitecustomize.py").write_text(SITE)
    (tmp_path / "search.py").write_text(SEARCH)
    (tmp_path / "freeze.py").write_text(FREEZING)
    tool = tmp_path / "taskkill"
    tool.write_text('#!/bin/sh\n[ "$1 $2 $3" = "/F /T /PID" ] && exec kill -9 "$4"\n')
    tool.chmod(0o755)
    return tmp_path


def start(folder: Path, *command: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={
            **os.environ, **environment, "PYTHONPATH": f"{folder}:{ROOT}",
            "PATH": f"{folder}:{os.environ['PATH']}",
        },
    )  # fmt: skip


def run(folder: Path, *command: str, **environment: str) -> str:
    process = start(folder, *command, **environment)
    text, _ = process.communicate(timeout=240)
    assert process.returncode == 0, text
    return text


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_search_runs_and_goes_on(n_workers: int, folder: Path) -> None:
    assert " 6 ok" in run(folder, "search.py", str(n_workers), "6")
    text = run(folder, "search.py", str(n_workers), "12")
    assert " 12 ok" in text
    assert "finished: max_evaluations 12" in run(folder, "-m", "evonas", "show", "run")


@pytest.mark.slow
def test_a_second_driver_is_refused(folder: Path) -> None:
    first = start(folder, "search.py", "1", "8", SECONDS="3")
    deadline = time.monotonic() + 120
    while not (folder / "run" / "run.db").is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    second = start(folder, "search.py", "1", "8")
    text, _ = second.communicate(timeout=240)
    assert second.returncode != 0
    assert "is in use by" in text
    first.kill()
    first.communicate()
    assert " 8 ok" in run(folder, "search.py", "1", "8")  # its lock went with it


@pytest.mark.slow
def test_a_worker_that_dies_is_named_and_replaced(folder: Path) -> None:
    text = run(folder, "search.py", "2", "31", "exits")
    assert " 1 lost" in text
    assert " 30 ok" in text


@pytest.mark.slow
def test_ctrl_c_ends_the_workers_too(folder: Path) -> None:
    process = start(folder, "search.py", "2", "30", SECONDS="1")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any((folder / "run").glob("run.db*")):
        time.sleep(0.1)
    time.sleep(6)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=120)  # and no worker holds the pipe open
    assert "stopped by Ctrl-C" in text
    assert " 30 ok" in run(folder, "search.py", "2", "30")


@pytest.mark.slow
def test_freezing_runs_and_measures_memory(folder: Path) -> None:
    assert "frozen" in run(folder, "freeze.py")
