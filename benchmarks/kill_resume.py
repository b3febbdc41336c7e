"""Kills the quick search with -9 at random moments and compares its end with an undisturbed run's.

    python -m benchmarks.kill_resume [--kills 10] [--seed 0]
    python -m benchmarks.kill_resume --strategies surrogate aging nsga2 local random --kills 3

Runs `examples/cifar10_alexnet.py --preset quick` (digits, real trainings, no download) twice from
the same seed: once undisturbed, once killed again and again, each time followed by the same
command; with other strategies 24 trainings each. Prints whether champion, hall of fame, logbook and
every evaluation are equal (timings aside), and how many trainings were begun, finished, and
finished twice. Only those in hand at a kill may be begun again.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import evonas as en
from benchmarks.hardware import describe

ROOT = Path(__file__).resolve().parents[1]

# In the child: the example as it is, with a line written before and after each training.
CHILD = """
import sys
from evonas.nas import ImageClassificationProblem as Problem
sys.path.insert(0, "examples")
import cifar10_alexnet as example

log, *arguments = sys.argv[1:]
evaluate = Problem.evaluate

def noted(self, genes, trial):
    with open(log, "a") as file:
        file.write(f"begun {trial.key}\\n")
    fitness = evaluate(self, genes, trial)
    with open(log, "a") as file:
        file.write(f"finished {trial.key}\\n")
    return fitness

Problem.evaluate = noted
sys.exit(example.main(["--preset", "quick", "--precision", "float32", *arguments]))
"""


N_TRAININGS = 24  # with a strategy that is not the preset's


def start(folder: Path, strategy: str) -> subprocess.Popen[bytes]:
    """Starts (or goes on with) the search of a folder."""
    arguments = [str(folder / "log.txt"), "--run-dir", str(folder / "run")]
    if strategy != "published":
        arguments += ["--strategy", strategy, "--max-evaluations", str(N_TRAININGS)]
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, *arguments],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def finish(folder: Path, strategy: str, *, n_kills: int, longest: float, rng: random.Random) -> int:
    """Runs a search to its end, killing it up to `n_kills` times; returns how often it did."""
    for kills in range(n_kills):
        process = start(folder, strategy)
        try:
            process.wait(rng.uniform(0.0, longest))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        else:
            return kills
    status = start(folder, strategy).wait()
    if status:
        said = (folder / "output.txt").read_text()
        raise RuntimeError(f"the search ended with {status}:\n{said}")
    return n_kills


def recorded(evaluation: en.Evaluation) -> tuple[Any, ...]:
    """What of a record must not depend on kills: all but the times."""
    metrics = tuple(dict(epoch.metrics) for epoch in evaluation.epochs)
    return (
        evaluation.number,
        evaluation.key,
        evaluation.genes,
        evaluation.status,
        evaluation.values,
        evaluation.seed,
        metrics,
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--strategies", nargs="+", default=["published"])
    arguments = parser.parse_args()
    print(describe("torch"), flush=True)
    for strategy in arguments.strategies:
        measure(strategy, arguments.kills, random.Random(arguments.seed))


def measure(strategy: str, n_kills: int, rng: random.Random) -> None:
    """Searches with a strategy, undisturbed and killed, and prints how the two differ."""
    with tempfile.TemporaryDirectory() as name:
        quiet, killed = Path(name, "undisturbed"), Path(name, "killed")
        quiet.mkdir()
        killed.mkdir()
        began = time.monotonic()
        finish(quiet, strategy, n_kills=0, longest=0.0, rng=rng)
        seconds = time.monotonic() - began
        # Long enough to get some trainings done, short enough to need all the kills.
        longest = 4.0 + 2.0 * seconds / (n_kills + 1)
        kills = finish(killed, strategy, n_kills=n_kills, longest=longest, rng=rng)
        first, second = en.open_run(quiet / "run"), en.open_run(killed / "run")
        equal = {
            "champion": recorded(first.champion) == recorded(second.champion),
            "hall of fame": [*map(recorded, first.hall_of_fame)]
            == [*map(recorded, second.hall_of_fame)],
            "logbook": list(first.logbook) == list(second.logbook),
            "evaluations": [*map(recorded, first.evaluations)]
            == [*map(recorded, second.evaluations)],
        }
        lines = Counter(tuple(line.split()) for line in (killed / "log.txt").open())
    trainings = first.counts.evaluated
    print(f"\n{strategy}, undisturbed: {seconds:.0f} s, {trainings} trainings; kills: {kills}")
    for name, is_equal in equal.items():
        print(f"{name:<13} {'equal' if is_equal else 'DIFFERENT'}")
    begun = sum(n for (word, _), n in lines.items() if word == "begun")
    finished = {key: n for (word, key), n in lines.items() if word == "finished"}
    print(
        f"trainings     {begun} begun, {sum(finished.values())} finished, "
        f"{sum(n > 1 for n in finished.values())} finished twice",
        flush=True,
    )


if __name__ == "__main__":
    main()
