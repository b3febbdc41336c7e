"""What a GPU makes of a search: `python -m benchmarks.gpu PART [--device cuda:0]`.

    python -m benchmarks.gpu candidates --data-root IMAGES   # seconds a candidate, way by way
    python -m benchmarks.gpu workers --data-root IMAGES      # K processes on one device
    python -m benchmarks.gpu busy --data-root IMAGES         # the share in which kernels run
    python -m benchmarks.gpu freezing                        # masks of a BERT-base, random weights

The candidates are random points of the published `alexnet` space, each trained for `--epochs`
epochs in batches of 128 and validated after each; IMAGES is an ImageFolder tree of CIFAR-10
(without it: digits). Every way trains the same points with the same seeds. A first point, which
loads kernels and libraries, is left out of each line's mean. `python -m benchmarks.fused` measures
several candidates at once; `python examples/cifar10_alexnet.py --device cuda:0` is the search.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

import evonas as en
from benchmarks.hardware import describe
from evonas.execution.accelerator import synchronize
from evonas.execution.torch_env import torch_environment
from evonas.execution.trial import Trial, TrialSettings
from evonas.freezing import FreezingProblem
from evonas.nas import FAMILIES, ImageClassificationProblem
from evonas.training import autocast, load_digits, load_image_folder, place

__all__ = ["main"]

FAMILY = FAMILIES["alexnet"]


@dataclass(frozen=True)
class Way:
    """One way to train a candidate."""

    name: str
    precision: str = "float32"
    channels_last: bool = True
    cuda_graphs: bool = False
    compiled: bool = False


WAYS = [
    Way("plain", channels_last=False),
    Way("channels last"),
    Way("bfloat16", "bfloat16"),
    Way("graphs", cuda_graphs=True),
    Way("bfloat16, graphs", "bfloat16", cuda_graphs=True),
    Way("bfloat16, graphs, not channels last", "bfloat16", False, True),
    Way("bfloat16, torch.compile", "bfloat16", compiled=True),
]


class Candidates(ImageClassificationProblem):
    """The published search's problem, trained in one of several ways."""

    way = Way("graphs", cuda_graphs=True)

    def _built(self, genes: en.Genes, device: str | torch.device) -> nn.Module:
        model = place(self.build(genes), device, channels_last=self.way.channels_last)
        return torch.compile(model) if self.way.compiled else model  # type: ignore[return-value]


def main(arguments: list[str] | None = None) -> None:
    """Runs one part and prints its table."""
    options = _options(arguments)
    print(f"hardware   {describe('torch')}")
    if torch.device(options.device).type == "cuda":
        print(f"           {torch.cuda.get_device_name(options.device)}, CUDA {torch.version.cuda}")
    parts: dict[str, Callable[[argparse.Namespace], None]] = {
        "candidates": candidates, "workers": workers, "busy": busy, "freezing": freezing,
    }  # fmt: skip
    parts[options.part](options)


def candidates(options: argparse.Namespace) -> None:
    """Seconds a candidate, way by way."""
    problem = _problem(options)
    points = _points(problem, options.candidates + 1)
    for way in WAYS:
        if options.ways and way.name not in options.ways:
            continue
        problem.way, problem.cuda_graphs = way, way.cuda_graphs
        problem.precision = way.precision
        seconds, scores = [], []
        for number, genes in enumerate(points):
            began = time.perf_counter()
            scores.append(_evaluated(problem, genes, number, options, {"precision": way.precision}))
            seconds.append(time.perf_counter() - began)
        _line(f"{way.name:<36} first {seconds[0]:6.2f} s", seconds[1:], "s a candidate")
        print(" " * 36 + " accuracies " + " ".join(f"{score:.3f}" for score in scores), flush=True)


def workers(options: argparse.Namespace) -> None:
    """Seconds a candidate with several processes on the device, from a search of random points."""
    for n_workers in options.workers:
        ends: list[float] = []

        class Clock(en.Observer):
            def on_evaluation(self, *_: Any, ends: list[float] = ends) -> None:
                ends.append(time.perf_counter())

        problem = _problem(options)
        problem.precision = options.precision
        began = time.perf_counter()
        en.evolve(
            problem, strategy="random", seed=0, devices=options.device, workers=n_workers,
            max_evaluations=(options.candidates + 2) * n_workers, progress=False,
            callbacks=[Clock()],
        )  # fmt: skip
        whole = time.perf_counter() - began
        # The first of each worker loads kernels and libraries.
        counted = len(ends) - n_workers
        mean = (ends[-1] - ends[n_workers - 1]) / counted
        print(
            f"{n_workers} workers: {mean:.3f} s a candidate over {counted}; {whole:.1f} s in all",
            flush=True,
        )


def busy(options: argparse.Namespace) -> None:
    """The share of an epoch's time in which the device runs kernels, and the longest of them."""
    problem = _problem(options)
    genes = _points(problem, 1)[0]
    for graphs in (False, True):
        problem.cuda_graphs, problem.precision = graphs, options.precision
        _evaluated(problem, genes, 0, options, {"precision": options.precision})
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            began = time.perf_counter()
            _evaluated(problem, genes, 0, options, {"precision": options.precision})
            seconds = time.perf_counter() - began
        spans = [
            (event.time_range.start, event.time_range.end, event.name)
            for event in profile.events() or []
            if event.device_type == torch.autograd.DeviceType.CUDA
        ]
        running = _union((start, end) for start, end, _ in spans) / 1e6
        print(
            f"{'graphs' if graphs else 'eager':<8} {seconds:.2f} s, kernels run in {running:.2f} s "
            f"({running / seconds:.0%}), {len(spans)} of them"
        )
        for name, whole in _longest(spans):
            print(f"         {whole / 1e6:6.3f} s  {name[:90]}")


def freezing(options: argparse.Namespace) -> None:
    """Seconds a mask of a BERT of random weights: a plain loop, the problem, and its store."""
    ids = torch.randint(1000, 20000, (options.sentences, options.tokens))
    labels = torch.randint(0, 2, (options.sentences,))
    n_val = options.sentences // 4
    precision = options.precision
    problem = FreezingProblem(
        _bert, (ids[n_val:], labels[n_val:]), (ids[:n_val], labels[:n_val]), lr=2e-5,
        n_epochs=options.epochs, batch_size=32, device=options.device, precision=precision,
    )  # fmt: skip
    n_blocks = len(problem.blocks)
    print(f"training   {n_blocks} blocks, {precision}, {options.epochs} epochs")
    settings: Mapping[str, Any] = problem.configure(None)
    for k in options.frozen:
        mask = [int(block < k) for block in range(n_blocks)]
        genes = problem.genes_of(mask)
        began = time.perf_counter()
        settings = problem.settings_for(genes, settings, lambda words: None)
        checked = time.perf_counter() - began
        plain = min(_plain_mask(problem, mask, ids[n_val:], labels[n_val:], options)
                    for _ in range(2))  # fmt: skip
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            _evaluated(problem, genes, 0, options, settings)
            seconds.append(time.perf_counter() - began)
        print(
            f"first {k:>2} frozen: plain loop {plain:.2f} s; ours {seconds[0]:.2f} s at first, "
            f"then {min(seconds[1:]):.2f} s (with validation, which the loop has not); the prefix "
            f"was checked in {checked:.1f} s",
            flush=True,
        )


def _plain_mask(
    problem: FreezingProblem, mask: list[int], ids: Any, labels: Any, options: argparse.Namespace
) -> float:
    device = options.device
    ids, labels = ids.to(device), labels.to(device)
    synchronize(torch.device(device))
    began = time.perf_counter()
    torch.manual_seed(0)
    model = _bert().to(device)
    frozen = [block for block, bit in zip(problem.blocks, mask, strict=True) if bit]
    names = {name for block in frozen for name in block.parameters}
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name not in names
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-5)
    model.train()
    for _ in range(options.epochs):
        for rows in torch.randperm(len(ids), device=device).split(32):
            optimizer.zero_grad()
            with autocast(options.precision, torch.device(device)):
                logits = model(ids[rows]).logits
            nn.functional.cross_entropy(logits.float(), labels[rows]).backward()
            optimizer.step()
    synchronize(torch.device(device))
    return time.perf_counter() - began


@cache
def _made() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BertForSequenceClassification(BertConfig())  # type: ignore[no-any-return]


def _bert() -> nn.Module:
    return copy.deepcopy(_made())


def _evaluated(
    problem: Any,
    genes: en.Genes,
    seed: int,
    options: argparse.Namespace,
    settings: Mapping[str, Any],
) -> float:
    trial = Trial(
        TrialSettings(seed=seed, threads=1, device=options.device, problem=dict(settings))
    )
    with torch_environment(trial.settings):
        found = problem.evaluate(genes, trial)
        synchronize(torch.device(options.device))
    return float(found)


def _problem(options: argparse.Namespace) -> Candidates:
    data = load_image_folder(options.data_root) if options.data_root else load_digits(size=32)
    n_val = min(10_000, len(data) // 5)
    return Candidates(
        FAMILY.space(), FAMILY.network, data, n_epochs=options.epochs, batch_size=128,
        n_val=n_val, device=options.device, precision=options.precision,
    )  # fmt: skip


def _points(problem: Candidates, n: int) -> list[en.Genes]:
    rng, found = random.Random(1), []
    while len(found) < n:
        genes = problem.space.sample(rng)
        if problem.invalid_reason(genes) is None:
            found.append(genes)
    return found


def _line(head: str, seconds: list[float], what: str) -> None:
    spread = statistics.stdev(seconds) if len(seconds) > 1 else float("nan")
    mean = statistics.mean(seconds)
    print(f"{head}  then {mean:6.3f} ± {spread:.3f} {what} (n = {len(seconds)})", flush=True)


def _union(spans: Iterable[tuple[float, float]]) -> float:
    whole, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        whole += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return whole


def _longest(spans: list[tuple[float, float, str]]) -> list[tuple[str, float]]:
    by_name: dict[str, float] = {}
    for start, end, name in spans:
        by_name[name] = by_name.get(name, 0.0) + end - start
    return sorted(by_name.items(), key=lambda each: -each[1])[:8]


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=str(__doc__).split("\n\n")[0]
    )
    add = parser.add_argument
    add("part", choices=["candidates", "workers", "busy", "freezing"])
    add("--data-root", type=Path, help="an ImageFolder tree (CIFAR-10); without it: digits")
    add("--device", default="cuda:0")
    add("--epochs", type=int, default=5)
    add("--candidates", type=int, default=3, help="that are counted, of each way or worker")
    add("--ways", nargs="+", choices=[way.name for way in WAYS], help="default: all")
    add("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    add("--precision", choices=["float32", "bfloat16"], default="bfloat16")
    add("--sentences", type=int, default=1024)
    add("--tokens", type=int, default=128)
    add("--frozen", type=int, nargs="+", default=[0, 4, 8, 12])
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
