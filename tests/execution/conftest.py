"""Scripts as users run them, and all the processes that come of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import evonas as en

ROOT = Path(en.__file__).resolve().parents[1]


class Script:
    """A script in a folder of its own; it and all that it starts are known by a mark."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = f"EVONAS_TEST_MARK={uuid.uuid4()}"
        self.process: subprocess.Popen[str] | None = None

    def start(self, source: str, *arguments: str) -> subprocess.Popen[str]:
        script = self.folder / "script.py"
        script.write_text(textwrap.dedent(source))
        name, value = self.mark.split("=")
        environment = {**os.environ, name: value, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, str(script), *arguments], cwd=self.folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        return self.process

    def await_files(self, *names: str) -> None:
        deadline = time.monotonic() + 60
        while not all((self.folder / name).exists() for name in names):
            assert time.monotonic() < deadline, f"{names} did not appear"
            assert self.process is not None
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def workers(self) -> list[int]:
        """The worker processes of the driver."""
        assert self.process is not None
        found = []
        for pid in self.alive():
            with suppress(OSError):
                stat = Path(f"/proc/{pid}/stat").read_text()
                parent = int(stat.rpartition(")")[2].split()[1])
                is_worker = b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
                if parent == self.process.pid and is_worker:
                    found.append(pid)
        return found

    def alive(self) -> list[int]:
        """The driver, its workers, and whatever else came of it."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if self.mark.encode() in path.read_bytes():  # empty for a zombie
                    found.append(int(path.parent.name))
        return found

    def await_end_of_all(self, seconds: float, *, but: bytes | None = None) -> None:
        """Fails where processes stay longer, those aside whose command line holds `but`."""
        deadline = time.monotonic() + seconds
        while alive := [pid for pid in self.alive() if not but or but not in command_of(pid)]:
            assert time.monotonic() < deadline, f"{len(alive)} processes are left over"
            time.sleep(0.05)


def command_of(pid: int) -> bytes:
    with suppress(OSError):  # it has just ended
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    script = Script(tmp_path)
    yield script
    for pid in script.alive():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if script.process is not None:
        script.process.communicate()
