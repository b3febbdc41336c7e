"""Real processes that are killed, interrupted and started twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

import evonas as en
from evonas.testing import trace

ROOT = Path(__file__).resolve().parents[2]

# What a user would run. Each trial notes that it began, and how; then it takes its time.
SCRIPT = """
import sys
import time

import evonas as en

space = en.SearchSpace(
    {
        "depth": [1, 2, 3],
        "width1": [16, 32, 48, 64],
        "width2": [16, 32, 48, 64],
        "width3": en.Integer(16, 64, step=16),
        "lr": en.Float(1e-4, 1e-1, log=True),
    },
    conditions={"width2": {"depth": [2, 3]}, "width3": {"depth": [3]}},
)
seconds, calls, run_dir = sys.argv[1:]


def fitness(genes, trial):
    with open(calls, "a") as file:
        file.write(trial.key + "\\n")
    for epoch in range(2):
        end = time.monotonic() + float(seconds) / 2
        while time.monotonic() < end:  # in steps: one long sleep may miss a signal just before it
            time.sleep(min(0.05, float(seconds) / 2))
        trial.report(loss=1.0 / (epoch + 1) / genes["width1"])
    if trial.seed % 9 == 0:
        raise RuntimeError("one of nine")
    if trial.seed % 9 == 1:
        raise en.InvalidPoint("another of nine")
    return round(genes["lr"] * 30) + genes["depth"]


if __name__ == "__main__":
    print("started", flush=True)
    result = en.evolve(
        space, fitness, population=12, generations=12, elite=2, seed=1, run_dir=run_dir
    )
    print("champion", result.champion.fitness)
"""


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "search.py"
    path.write_text(SCRIPT)
    yield path
    for process in Job.started:  # a test that fails must not leave one behind
        process.kill()
        process.communicate()
    Job.started.clear()


class Job:
    """The script in a process, with a run directory and a list of its trials."""

    started: ClassVar[list[subprocess.Popen[str]]] = []

    def __init__(self, script: Path, name: str, *, seconds: float = 0.01) -> None:
        self.run_dir = script.parent / name
        self.calls_file = script.parent / f"{name}.calls"
        files = [str(self.calls_file), str(self.run_dir)]
        self.command = [sys.executable, str(script), str(seconds), *files]

    def start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            self.command,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.started.append(process)
        return process

    def finish(self) -> None:
        process = self.start()
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert "champion" in output

    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []

    def wait_for_calls(self, number: int) -> None:
        deadline = time.monotonic() + 60
        while len(self.calls()) < number:
            assert time.monotonic() < deadline, f"only {len(self.calls())} trials began"
            time.sleep(0.005)

    def trace(self) -> dict[str, Any]:
        return trace(en.open_run(self.run_dir))


@pytest.fixture
def whole(script: Path) -> Job:
    job = Job(script, "whole", seconds=0.001)
    job.finish()
    assert job.trace()["counts"]["failed"] > 0
    assert job.trace()["counts"]["invalid"] > 0
    assert job.trace()["counts"]["reused"] >= 0
    return job


@pytest.mark.slow
def test_killed_at_random_moments_and_started_again(script: Path, whole: Job) -> None:
    """kill -9, at least ten times: the run ends as if nothing had happened."""
    rng = random.Random(2)
    job = Job(script, "killed", seconds=0.015)
    n_kills = 12
    for number in range(n_kills):
        process = job.start()
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        n_before = len(job.calls())
        if number % 4:  # of four, one dies while it starts
            while len(job.calls()) == n_before and process.poll() is None:
                time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.08))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"
    job.finish()
    assert job.trace() == whole.trace()
    calls, once = job.calls(), whole.calls()
    assert len(calls) - len(once) <= n_kills  # the trial in hand, once a kill
    assert set(calls) == set(once)
    repeated = [key for key in set(calls) if calls.count(key) > 1]
    assert len(repeated) <= n_kills
    print(f"\n{n_kills} kills, {len(once)} trials, {len(calls) - len(once)} of them repeated")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_130_and_says_how_to_go_on(
    number: signal.Signals, script: Path, whole: Job
) -> None:
    """At once, though the trial in hand would take an hour; nothing finished is lost."""
    job = Job(script, "stopped", seconds=0.002)
    slow = Job(script, "stopped", seconds=3600)
    begun = slow.start()
    slow.wait_for_calls(1)
    begun.send_signal(number)
    _, errors = begun.communicate(timeout=20)
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    expected = f"stopped by {name}: 0 evaluations are saved in {job.run_dir}; run the same command"
    assert expected in errors
    result = en.open_run(job.run_dir)
    assert (result.outcome, result.stop_reason) == ("interrupted", f"stopped by {name}")

    process = job.start()
    job.wait_for_calls(6)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert f"stopped by {name}: " in errors
    result = en.open_run(job.run_dir)
    assert f": {result.counts.evaluated} evaluations are saved" in errors
    # Python ends by the signal itself, which every shell reports as 130.
    assert process.returncode == begun.returncode == -signal.SIGINT
    job.finish()
    assert job.trace() == whole.trace()


@pytest.mark.slow
def test_the_shell_sees_130(script: Path) -> None:
    job = Job(script, "shell", seconds=3600)
    line = " ".join(job.command)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    shell = subprocess.Popen(
        ["bash", "-c", f"{line} & child=$!; echo $child; wait $child; echo status $?"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
    )  # fmt: skip
    assert shell.stdout is not None
    child = int(shell.stdout.readline())
    job.wait_for_calls(1)
    os.kill(child, signal.SIGTERM)
    output, _ = shell.communicate(timeout=20)
    assert "status 130" in output


@pytest.mark.slow
def test_a_second_driver_is_refused_until_the_first_is_dead(script: Path) -> None:
    slow = Job(script, "busy", seconds=3600)
    first = slow.start()
    try:
        slow.wait_for_calls(1)
        second = slow.start()
        _, errors = second.communicate(timeout=30)
        assert second.returncode == 1
        assert f"RunInUseError: run {slow.run_dir} is in use by process {first.pid}" in errors
        assert en.open_run(slow.run_dir).outcome is None  # reading it is allowed
    finally:
        first.kill()
        first.communicate()
    Job(script, "busy", seconds=0.001).finish()
    assert len(slow.calls()) > 1


@pytest.mark.slow
def test_what_a_fitness_function_left_running_does_not_keep_the_run_locked(
    script: Path, tmp_path: Path
) -> None:
    """A forked child (a DataLoader's worker, say) that outlives the driver."""
    text = script.read_text().replace(
        "    for epoch in range(2):",
        "    import os\n    if trial.number == 0 and os.fork() == 0:\n"
        "        open(calls + '.child', 'w').write(str(os.getpid()))\n"
        "        time.sleep(600)\n        os._exit(0)\n"
        "    for epoch in range(2):",
    )
    script.write_text(text)
    slow = Job(script, "forked", seconds=3600)
    process = slow.start()
    child_file = Path(f"{slow.calls_file}.child")
    deadline = time.monotonic() + 30
    while not (child_file.exists() and child_file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child = int(child_file.read_text())
    try:
        process.kill()
        process.wait()
        script.write_text(SCRIPT)
        Job(script, "forked", seconds=0.001).finish()
        os.kill(child, 0)  # it is still there
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.slow
def test_the_hash_seed_of_python_has_no_part_in_it(script: Path, whole: Job) -> None:
    for hash_seed in ("0", "12345"):
        job = Job(script, f"hash{hash_seed}", seconds=0.001)
        done = subprocess.run(
            job.command, check=False, capture_output=True, text=True, timeout=120,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert job.trace() == whole.trace()


@pytest.mark.slow
def test_show_reads_a_run_that_was_killed(script: Path) -> None:
    job = Job(script, "shown", seconds=0.05)
    process = job.start()
    job.wait_for_calls(5)
    process.kill()
    process.communicate()
    done = subprocess.run(
        [sys.executable, "-c", "from evonas.cli import main; raise SystemExit(main())", "show",
         "--json", str(job.run_dir)],
        check=True, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    shown = json.loads(done.stdout)
    assert shown["outcome"] is None
    assert sum(shown["counts"].values()) >= 4
