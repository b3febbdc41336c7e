"""A search whose driver and workers are killed at random moments ends as if nothing had been."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.run.store import RunReader
from evonas.testing import trace

N_KILLS = 40

# About 1,000 trials of 40 ms: more than two workers can do between the kills.
SEARCH = """
    import os, sys, time
    import evonas as en
    from evonas.testing import RoughProblem, quadratic_space

    class Logged(RoughProblem):
        def evaluate(self, genes, trial):
            with open(os.environ["TRIALS"], "a") as log:
                log.write(f"{os.environ['START']} {trial.key}\\n")
            time.sleep(float(os.environ["SECONDS"]))
            return super().evaluate(genes, trial)

    if __name__ == "__main__":
        en.evolve(
            Logged(quadratic_space()), population=40, elite=4, generations=27, seed=11,
            run_dir=sys.argv[1], workers=int(sys.argv[2]), lost_retries=1000,
            max_consecutive_failures=1000, progress=False,
        )
"""


def recorded(run_dir: Path) -> set[str]:
    """The keys of all finished evaluations."""
    with suppress(FileNotFoundError), RunReader.open(run_dir) as reader:
        return set(reader.known())
    return set()


@pytest.mark.slow
def test_a_kill_storm_changes_nothing(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(time.time_ns())
    log = tmp_path / "trials"
    run_dir = tmp_path / "run"
    finished: list[set[str]] = []  # before each start
    kills = {"driver": 0, "worker": 0}

    def start() -> None:
        finished.append(recorded(run_dir))
        monkeypatch.setenv("START", str(len(finished) - 1))
        script.start(SEARCH, "run", "2")

    monkeypatch.setenv("TRIALS", str(log))
    monkeypatch.setenv("SECONDS", "0.04")
    start()
    while sum(kills.values()) < N_KILLS:
        time.sleep(rng.uniform(0.0, 1.2))
        assert script.process.poll() is None, script.process.communicate()
        workers = script.workers()
        if workers and rng.random() < 0.6:
            with suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
                kills["worker"] += 1
        else:
            script.process.kill()
            script.process.communicate()
            kills["driver"] += 1
            start()
    _, err = script.process.communicate(timeout=120)
    assert script.process.returncode == 0, err
    script.await_end_of_all(3)

    for line in log.read_text().splitlines():
        number, key = line.split()
        assert key not in finished[int(number)], f"start {number} repeated a finished evaluation"
    monkeypatch.setenv("TRIALS", os.devnull)
    monkeypatch.setenv("SECONDS", "0")
    script.start(SEARCH, "undisturbed", "1")
    _, err = script.process.communicate(timeout=120)
    assert script.process.returncode == 0, err
    stormy, calm = en.open_run(run_dir), en.open_run(tmp_path / "undisturbed")
    assert trace(stormy) == trace(calm)
    assert len(stormy.evaluations) > 900
    began = len(log.read_text().splitlines())
    print(
        f"{kills}: {len(finished)} starts, {began} trials began for {stormy.counts.evaluated} "
        f"evaluations",
        file=sys.stderr,
    )
