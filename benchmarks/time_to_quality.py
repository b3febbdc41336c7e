"""Minutes to test accuracy, search and final training together, beside what one would do instead.

    python -m benchmarks.time_to_quality --out DIR                            # digits, quickly
    python -m benchmarks.time_to_quality --out DIR --data-root CIFAR --minutes 30 60
    python -m benchmarks.time_to_quality --out DIR --data-root CIFAR --minutes 30 --max-params 50000

Every contender gets the same minutes, images, precision and cores, one after another, each in a
process of its own, and ends with a trained network, which is scored on the test images once:

- `evonas`: `examples/cifar10_alexnet.py --minutes`, as a user runs it.
- `no search`: the network that this search begins with, by the same recipe, all the time.
- `hand-made`: a residual network and loop written down by hand (`benchmarks.rivals`).
- `published GA`: its own space; half the time for the search, half for its best; a plain loop.
- `TPE`: Optuna on our space `resnet`, likewise.

Limits (`--max-macs`, `--max-params`) hold for all: the hand-made network becomes narrower. The
published space has no network that small, so it is left out. What is done is kept in `--out`: the
same command does what is missing, and more seeds or minutes may be added.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import evonas as en
from benchmarks.hardware import describe
from benchmarks.rivals import RIVALS, Job, Outcome
from evonas.execution.choice import available_cores
from evonas.execution.trial import TrialSettings
from evonas.files import write_text
from evonas.nas import ImageClassificationProblem, resnet_network, resnet_space
from evonas.nas.datasets import open_dataset
from evonas.nas.final_training import train_final
from evonas.nas.recipes import recipe
from evonas.nas.resnet import hand_made_resnet
from evonas.nas.timed_search import images_per_second
from evonas.training import choose_precision
from evonas.training.cost import count_macs, count_params

__all__ = ["CONTENDERS", "main", "table"]

CONTENDERS = ("evonas", "no search", *RIVALS)
EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "cifar10_alexnet.py"
COLOURS = ("#d55e00", "#e69f00", "#0072b2", "#777777", "#009e73")  # for the colour-blind, too
KEPT = ("data_root", "max_macs", "max_params")

Found = dict[tuple[str, float], list[dict[str, Any]]]
"""Contender and minutes to what each seed ended with."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing and prints the table."""
    options = _options(arguments)
    if options.run is not None:
        name, minutes, seed = options.run
        run(options, name, float(minutes), int(seed))
        return
    settings = _settings(options)
    print(_header(options, settings), flush=True)
    for seed in range(options.seeds):
        for minutes in options.minutes:
            # Another one begins each time, so that none always has the machine first.
            first = seed % len(options.contenders)
            for name in (*options.contenders[first:], *options.contenders[:first]):
                if not _file(options.out, name, minutes, seed).exists():
                    _in_another_process(options, name, minutes, seed)
                    print(_line(options, name, minutes, seed), flush=True)
    found: Found = {
        (name, minutes): [
            json.loads(_file(options.out, name, minutes, seed).read_text())
            for seed in range(options.seeds)
        ]
        for minutes in options.minutes
        for name in options.contenders
    }
    print(f"\n{table(found)}")
    if options.plot is not None:
        plot(found, options.plot)
        print(f"\n{options.plot} shows it")


# -- one contender -------------------------------------------------------------------------------


def run(options: argparse.Namespace, name: str, minutes: float, seed: int) -> None:
    """Runs one contender, or goes on with it, and keeps what it ended with."""
    began = time.monotonic()
    file = _file(options.out, name, minutes, seed)
    folder = file.with_suffix("")
    outcome = (
        _evonas(options, minutes, seed, folder)
        if name == "evonas"
        else {"no search": _no_search, **RIVALS}[name](_job(options, minutes, seed, folder))
    )
    found = {**dataclasses.asdict(outcome), "minutes": (time.monotonic() - began) / 60}
    write_text(file, json.dumps(found, indent=2) + "\n")


def _evonas(options: argparse.Namespace, minutes: float, seed: int, folder: Path) -> Outcome:
    command = [sys.executable, str(EXAMPLE), "--minutes", str(minutes), "--seed", str(seed)]
    command += ["--run-dir", str(folder), "--dataset"]
    if options.data_root is None:
        command += ["digits"]
    else:
        command += ["imagefolder", "--data-root", str(options.data_root)]
    for limit in ("max_macs", "max_params"):
        if getattr(options, limit) is not None:
            command += [f"--{limit.replace('_', '-')}", str(getattr(options, limit))]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "printed.txt").write_text(done.stdout)
    match = re.search(r"^test accuracy (\d\.\d+)$", done.stdout, re.MULTILINE)
    if done.returncode or match is None:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    metrics = en.open_run(folder / "finalists").champion.metrics
    trained = en.open_run(folder).counts.evaluated if (folder / "run.db").exists() else 0
    return Outcome(float(match.group(1)), trained, int(metrics["params"]), int(metrics["macs"]))


def _no_search(job: Job) -> Outcome:
    """The network that our search begins with, all the time."""
    limits = {
        name: value
        for name, value in (("max_macs", job.max_macs), ("max_params", job.max_params))
        if value is not None
    }
    genes = hand_made_resnet(**limits, in_shape=job.train.shape)
    settings = TrialSettings(seed=job.seed, threads=job.threads)
    make = partial(
        ImageClassificationProblem, resnet_space(), resnet_network, job.train, batch_size=128,
        precision=job.precision,
    )  # fmt: skip
    timed = make(**recipe("one-cycle", flips=job.flips, side=job.train.shape[-1]))
    rate = images_per_second(timed, genes, settings)
    problem = make(
        **recipe(
            "long", flips=job.flips, side=job.train.shape[-1], n_images=len(job.train),
            n_params=resnet_network(genes, job.train.n_classes).params(job.train.shape),
            n_epochs=job.seconds * rate / len(job.train),
        ),
    )  # fmt: skip
    final = train_final(
        problem, genes, job.train, job.test, weights=job.folder / "weights.pt",
        seconds=job.seconds, settings=settings,
    )  # fmt: skip
    macs = count_macs(final.module, job.train.shape)
    return Outcome(final.plain_score, 0, count_params(final.module), macs)


def _job(options: argparse.Namespace, minutes: float, seed: int, folder: Path) -> Job:
    name = "digits" if options.data_root is None else "imagefolder"
    train = open_dataset(name, options.data_root)
    test = open_dataset(name, options.data_root, part="test").normalised_like(train)
    folder.mkdir(parents=True, exist_ok=True)
    return Job(
        train, test, 60 * minutes, name != "digits", options.max_macs, options.max_params,
        _settings(options)["precision"], available_cores(), seed, folder,
    )  # fmt: skip


def _in_another_process(options: argparse.Namespace, name: str, minutes: float, seed: int) -> None:
    command = [sys.executable, "-m", "benchmarks.time_to_quality", "--out", str(options.out)]
    for option in KEPT:
        if (value := getattr(options, option)) is not None:
            command += [f"--{option.replace('_', '-')}", str(value)]
    command += ["--run", name, str(minutes), str(seed)]
    status = subprocess.run(command, check=False).returncode
    if status:
        raise SystemExit(f"{name} of seed {seed} ended with {status}: the same command goes on")


# -- what came of it -----------------------------------------------------------------------------


def table(found: Found) -> str:
    """Returns the table for people."""
    every_minutes = sorted({minutes for _, minutes in found})
    names = list(dict.fromkeys(name for name, _ in found))
    lines = [
        "test accuracy, mean ± standard deviation over seeds",
        f"{'':<14}"
        + "".join(f"{f'{minutes:g} minutes':>20}" for minutes in every_minutes)
        + f"{'n':>4}{'networks':>10}{'weights':>12}{'multiply-adds':>15}{'took at most':>14}",
    ]
    for name in names:
        runs = {minutes: found[name, minutes] for minutes in every_minutes}
        last = runs[every_minutes[-1]]
        over = max(
            entry["minutes"] / minutes for minutes, entries in runs.items() for entry in entries
        )
        lines.append(
            f"{name:<14}"
            + "".join(f"{_spread(entries, 'accuracy'):>20}" for entries in runs.values())
            + f"{len(last):>4}{_mean(last, 'trained'):>10,.0f}{_mean(last, 'params'):>12,.0f}"
            f"{_mean(last, 'macs'):>15,.0f}{over:>13.0%}"
        )
    return "\n".join(lines)


def _mean(entries: Sequence[dict[str, Any]], what: str) -> float:
    return statistics.fmean(entry[what] for entry in entries)


def _spread(entries: Sequence[dict[str, Any]], what: str) -> str:
    values = [entry[what] for entry in entries]
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{deviation}"


def plot(found: Found, file: Path) -> None:
    """Draws test accuracy over minutes: the mean, and each seed.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise SystemExit("--plot needs matplotlib: pip install 'evonas[bench]'") from None
    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.2), layout="constrained")
    every_minutes = sorted({minutes for _, minutes in found})
    for name, colour in zip(CONTENDERS, COLOURS, strict=True):
        runs = [(minutes, found.get((name, minutes), [])) for minutes in every_minutes]
        if not runs[0][1]:
            continue
        means = [_mean(entries, "accuracy") for _, entries in runs]
        axes.plot(every_minutes, means, marker="o", color=colour, linewidth=2.2, label=name)
        for minutes, entries in runs:
            values = [entry["accuracy"] for entry in entries]
            axes.plot([minutes] * len(values), values, ".", color=colour, alpha=0.5)
    axes.set(xlabel="minutes, search and final training together", ylabel="test accuracy")
    axes.set_xticks(every_minutes, [f"{minutes:g}" for minutes in every_minutes])
    axes.grid(color="#e3e7eb")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False, title="mean (dots: each seed)")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


# -- options and settings ------------------------------------------------------------------------


def _file(out: Path, name: str, minutes: float, seed: int) -> Path:
    return out / f"{name.replace(' ', '-')}-{minutes:g}-{seed}.json"


def _line(options: argparse.Namespace, name: str, minutes: float, seed: int) -> str:
    found = json.loads(_file(options.out, name, minutes, seed).read_text())
    return (
        f"seed {seed}  {minutes:>4g} minutes  {name:<13} {found['accuracy']:.4f}"
        f"  {found['trained']} networks searched, took {found['minutes']:.1f} minutes"
    )


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what all contenders share, kept in `--out` by the first start.

    Raises:
        SystemExit: This start has other arguments.
    """
    given = {name: getattr(options, name) for name in KEPT}
    given["data_root"] = options.data_root and str(options.data_root.absolute())
    file = options.out / "settings.json"
    if file.exists():
        kept: dict[str, Any] = json.loads(file.read_text())
        for name, value in given.items():
            if value != kept["arguments"][name]:
                raise SystemExit(
                    f"{options.out} was begun with --{name.replace('_', '-')}"
                    f" {kept['arguments'][name]}, here {value}: name another --out"
                )
        return kept
    settings = {
        "arguments": given,
        "precision": choose_precision("cpu", 1),
        "hardware": describe("torch"),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=2) + "\n")
    return settings


def _header(options: argparse.Namespace, settings: dict[str, Any]) -> str:
    load = f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"
    limits = [
        f"at most {getattr(options, name):,} {what}"
        for name, what in (("max_macs", "multiply-adds"), ("max_params", "weights"))
        if getattr(options, name) is not None
    ]
    return (
        f"hardware   {settings['hardware']}\n"
        f"           {settings['precision']}; load average now {load}\n"
        f"images     {options.data_root or 'digits'}; {', '.join(limits) or 'no limits'}\n"
        f"each       {' and '.join(f'{minutes:g}' for minutes in options.minutes)} minutes,"
        f" {options.seeds} seeds\n"
        f"kept in    {options.out}"
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.time_to_quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data-root", type=Path, help="images as train/CLASS/FILE, test/CLASS/FILE; else digits")
    add("--out", type=Path, required=True, help="where everything is kept")
    add("--minutes", type=float, nargs="+", help="of each contender (default: 2, for digits 0.5)")
    add("--seeds", type=int, default=3, help="default 3; more may be added later")
    add("--max-macs", type=int, help="most multiply-adds of an image")
    add("--max-params", type=int, help="most weights of a network")
    add("--contenders", nargs="+", choices=CONTENDERS, help="default: all")
    add("--plot", type=Path, metavar="FILE", help="a picture of the table (.svg, .png)")
    add("--run", nargs=3, metavar=("CONTENDER", "MINUTES", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.minutes is None:
        options.minutes = [0.5 if options.data_root is None else 2.0]
    if options.contenders is None:
        limited = options.max_macs or options.max_params
        options.contenders = [
            name for name in CONTENDERS if not (limited and name == "published GA")
        ]
    return options


if __name__ == "__main__":
    main()
