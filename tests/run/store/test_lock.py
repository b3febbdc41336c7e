from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evonas.exceptions import RunInUseError
from evonas.run.store.lock import RunLock, is_held

SECOND = """
import sys
from pathlib import Path
from evonas.exceptions import RunInUseError
from evonas.run.store.lock import RunLock, is_held
path = Path(sys.argv[1])
print(is_held(path))
try:
    RunLock(path)
except RunInUseError:
    print("refused")
else:
    print("taken")
"""


def elsewhere(path: Path) -> list[str]:
    """What another process finds out, which then tries to take the lock."""
    done = subprocess.run(
        [sys.executable, "-c", SECOND, str(path)], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_asking_neither_takes_the_lock_nor_lets_go_of_it(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    assert is_held(path) is False
    assert not path.exists()
    lock = RunLock(path)
    # Not read_bytes: closing a file lets go of the process's own lock on it.
    before = path.stat()
    assert is_held(path) is True
    assert elsewhere(path) == ["True", "refused"]
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(RunInUseError, match="in use by this process"):
        RunLock(path)
    lock.release()
    assert is_held(path) is False
    assert elsewhere(path) == ["False", "taken"]


def test_a_lock_that_cannot_be_read_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.lock"
    path.touch()

    def refuse(*arguments: object) -> int:
        raise PermissionError(13, "denied")

    monkeypatch.setattr("evonas.run.store.lock.os.open", refuse)
    assert is_held(path) is None
