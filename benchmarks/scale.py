"""What many workers and many evaluations cost: slots kept busy, a long run, two real workers.

    python -m benchmarks.scale slots [--slots 2 16 64] [--seconds 20]
    python -m benchmarks.scale records [--evaluations 100000]
    python -m benchmarks.scale workers --data-root IMAGES [--workers 1 2] [--evaluations 12]
                                       [--train-samples 4000] [--epochs 2]

`slots`: trials that sleep (log-normal, 50 ms in the median, sigma 0.5) in worker processes, every
evaluation committed to a run database. The utilisation is the share of slot time that trials slept,
from the moment at which the last worker is up (the others wait for it) to the last start of a
trial. Beside it the engine's own cost: processor time of the driver for each evaluation.

`records`: no-op trials in the driver, into a run database: seconds per 1,000 at the start and at
the end, the driver's peak memory, and the time to open that run again and go on.

`workers`: the same search of small networks on CIFAR-10 (a tree with `train/`) with one worker and
with two, one thread each: seconds, and the memory of all processes (PSS, which counts a shared page
once), of it that of the images which all workers map.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import re
import resource
import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import evonas as en
from benchmarks.hardware import describe
from evonas.execution import ProcessExecutor
from evonas.strategies import RandomSearch

__all__ = ["main"]

MEDIAN_SECONDS, SIGMA = 0.05, 0.5


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one of the three measurements and prints it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    slots = commands.add_parser("slots")
    slots.add_argument("--slots", type=int, nargs="+", default=[2, 16, 64])
    slots.add_argument("--seconds", type=float, default=20.0, help="of each search, about")
    records = commands.add_parser("records")
    records.add_argument("--evaluations", type=int, default=100_000)
    workers = commands.add_parser("workers")
    workers.add_argument("--data-root", type=Path, required=True)
    workers.add_argument("--evaluations", type=int, default=12)
    workers.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    workers.add_argument("--train-samples", type=int, default=4000)
    workers.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args(argv)
    print(describe("torch"), flush=True)
    if options.command == "slots":
        for n_slots in options.slots:
            measure_slots(n_slots, options.seconds)
    elif options.command == "records":
        measure_records(options.evaluations)
    else:
        measure_workers(options)


class Asleep:
    """Sleeps for a time that follows from the trial's seed, and returns a gene.

    Args:
        folder: An empty one, where the workers await each other.
        n_slots: How many they are.
    """

    def __init__(self, folder: Path, n_slots: int) -> None:
        self._folder, self._n_slots = folder, n_slots

    def __call__(self, genes: dict[str, Any], trial: en.Trial) -> float:
        """Sleeps."""
        if self._n_slots:
            (self._folder / str(os.getpid())).touch()
            while len(list(self._folder.iterdir())) < self._n_slots:
                time.sleep(0.01)
            self._n_slots = 0  # of this process's copy: once
        seconds = MEDIAN_SECONDS * random.Random(trial.seed).lognormvariate(0.0, SIGMA)
        began = time.time()
        time.sleep(seconds)
        trial.record(began=began, slept=time.time() - began, pid=os.getpid())
        return float(genes["x0"])


def space() -> en.SearchSpace:
    """Returns ten continuous genes."""
    return en.SearchSpace({f"x{index}": en.Float(0.0, 1.0) for index in range(10)})


def measure_slots(n_slots: int, seconds: float) -> None:
    """Prints how busy an asynchronous and a generational search keep `n_slots` workers."""
    mean = MEDIAN_SECONDS * 2.718281828 ** (SIGMA**2 / 2)
    n_evaluations = int(seconds * n_slots / mean)
    for strategy in (RandomSearch(row_every=4 * n_slots), en.Generational(4 * n_slots)):
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as lobby:
            began = time.process_time()
            result = en.evolve(
                space(),
                Asleep(Path(lobby), n_slots),
                strategy=strategy,
                max_evaluations=n_evaluations,
                run_dir=Path(folder) / "run",
                executor=ProcessExecutor(n_slots),
                seed=0,
                progress=False,
            )
            own = (time.process_time() - began) / len(result.evaluations)
            busy = utilisation(result.evaluations, n_slots)
        print(
            f"{n_slots:3} slots, {strategy.name:12}: {busy:6.1%} of slot time slept, "
            f"{1000 * own:.2f} ms of the driver's processor for each of "
            f"{len(result.evaluations):,} evaluations",
            flush=True,
        )


def utilisation(evaluations: Sequence[en.Evaluation], n_slots: int) -> float:
    """Returns the share of slot time that trials slept while all slots were in use."""
    spans = sorted((entry.metrics["began"], entry.metrics["slept"]) for entry in evaluations)
    first: dict[int, float] = {}  # by worker
    for entry in evaluations:
        pid, began = entry.metrics["pid"], entry.metrics["began"]
        first[pid] = min(began, first.get(pid, began))
    if len(first) != n_slots:
        raise RuntimeError(f"{len(first)} workers for {n_slots} slots: one of them died")
    start, end = max(first.values()), spans[-1][0]
    slept = sum(max(0.0, min(end, began + seconds) - max(start, began)) for began, seconds in spans)
    return slept / (n_slots * (end - start))


class Clock(en.Observer):
    """Notes the time at every 1,000th evaluation."""

    def __init__(self) -> None:
        self.n_seen = 0
        self.times = [time.perf_counter()]
        self.peaks = [peak_mib()]

    def on_start(self, info: Any) -> None:
        """Begins to count."""
        self.times = [time.perf_counter()]

    def on_evaluation(self, evaluation: en.Evaluation, best: en.Evaluation | None) -> None:
        """Counts."""
        self.n_seen += 1
        if self.n_seen % 1000 == 0:
            self.times.append(time.perf_counter())
            self.peaks.append(peak_mib())


def peak_mib() -> float:
    """Returns the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_records(n_evaluations: int) -> None:
    """Prints what a long run of no-op trials takes, and to open it again."""
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()

        def search(n: int, *callbacks: en.Observer) -> en.Result:
            return en.evolve(
                space(),
                lambda genes, trial: genes["x0"],
                problem_id="no-op",
                strategy=RandomSearch(row_every=100),
                max_evaluations=n,
                run_dir=folder,
                seed=0,
                progress=False,
                callbacks=callbacks,
            )

        search(n_evaluations, clock)
        each = [later - earlier for earlier, later in pairwise(clock.times)]
        tenth = max(1, len(each) // 10)
        first, last = sum(each[:tenth]) / tenth, sum(each[-tenth:]) / tenth
        peak, grown = clock.peaks[-1], clock.peaks[-1] - clock.peaks[1]
        began = time.perf_counter()
        search(n_evaluations + 1)
        again = time.perf_counter() - began
        size = (Path(folder) / "run.db").stat().st_size / 2**20
    print(
        f"{n_evaluations:,} no-op evaluations: {first:.3f} s per 1,000 in the first tenth, "
        f"{last:.3f} s in the last; peak memory {peak:.0f} MiB, of which {grown:.0f} MiB came "
        f"after the first 1,000; run.db {size:.0f} MiB; opened again and one more in {again:.2f} s"
    )


class Memory(threading.Thread):
    """Watches the memory of this process and its children while a block runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.driver = self.workers = self.shared = 0.0
        self._ended = threading.Event()

    def run(self) -> None:
        """Looks once a second."""
        while not self._ended.wait(1.0):
            pids = [process.pid for process in multiprocessing.active_children()]
            workers = sum(pss_mib(pid) for pid in pids)
            if workers > self.workers:
                self.driver, self.workers = pss_mib(os.getpid()), workers
                self.shared = sum(pss_mib(pid, of="memfd:evonas") for pid in pids)

    def __enter__(self) -> Memory:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def pss_mib(pid: int | None, of: str | None = None) -> float:
    """Returns the proportional set size of a process, or of the mappings whose name holds `of`."""
    try:
        text = Path(f"/proc/{pid}/{'smaps_rollup' if of is None else 'smaps'}").read_text()
    except OSError:  # it has just ended
        return 0.0
    found, counts = 0, of is None
    for line in text.splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            counts = of is None or of in line
        elif line.startswith("Pss:") and counts:
            found += int(line.split()[1])
    return found / 1024


def measure_workers(options: argparse.Namespace) -> None:
    """Prints what one worker and several take for the same trainings."""
    from evonas.nas import ImageClassificationProblem, alexnet_small_space, plain_network
    from evonas.training import load_image_folder

    data = load_image_folder(options.data_root, split="train")
    size = data.inputs.nbytes / 2**20
    seconds: dict[int, float] = {}
    for n_workers in options.workers:
        problem = ImageClassificationProblem(
            alexnet_small_space(),
            plain_network,
            data,
            n_epochs=options.epochs,
            n_train=options.train_samples,
            n_val=1000,
            precision="float32",
        )
        with Memory() as memory:
            result = en.evolve(
                problem,
                strategy=RandomSearch(),
                max_evaluations=options.evaluations,
                executor=ProcessExecutor(n_workers),
                threads_per_trial=1,
                seed=0,
                progress=False,
            )
        starts = [entry.started_at for entry in result.evaluations]
        ends = [entry.started_at + entry.seconds for entry in result.evaluations]
        seconds[n_workers] = max(ends) - min(starts)
        print(
            f"{n_workers} worker{'s' * (n_workers > 1)}: {seconds[n_workers]:.1f} s for "
            f"{len(ends)} trainings on {options.train_samples:,} of {len(data):,} images "
            f"({size:.0f} MiB); memory (PSS) {memory.driver:.0f} MiB driver + "
            f"{memory.workers:.0f} MiB workers, of which {memory.shared:.0f} MiB are the images",
            flush=True,
        )
    first, *others = options.workers
    for n_workers in others:
        print(f"speed-up of {n_workers} over {first}: {seconds[first] / seconds[n_workers]:.2f}")


if __name__ == "__main__":
    main()
