"""How fast evonas trains, beside a plain DataLoader loop: `python -m benchmarks.training`.

Both train the same network (the published AlexNet for 32×32 images, with fewer neurons in its
dense layers unless `--fc-neurons 4096` asks for all) from the same seeds on the same images, in
turn, so that a load of the machine hits both. The plain loop is what a careful user would write:
torchvision's ToTensor and Normalize in 2 DataLoader workers that stay, images decoded beforehand
and held as torchvision's CIFAR10 holds them, gradient clipping, evaluation without gradients.
Ours is `evonas.training.fit` in the environment of a trial.

A rate is training images per second of a whole run: loading, training and validation after each
epoch. Each line of the result is a mean with the standard deviation over rounds (n is said).
Beside it stand processor seconds (of this process and its DataLoader workers, as `CPU`): where
others load the machine they say more than the clock, above all with `--threads 1`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.hardware import describe
from evonas.execution.torch_env import torch_environment
from evonas.execution.trial import TrialSettings
from evonas.training import (
    Examples,
    choose_precision,
    fit,
    load_digits,
    load_image_folder,
    place,
    split,
)

__all__ = ["main"]

# The published rates are up to 0.01, for 1,565 steps; four times that learns something in 320.
LR, MOMENTUM, GRAD_CLIP = 0.04, 0.9, 3.0
N_WORKERS = 2


@dataclass(frozen=True)
class Job:
    """What both loops train on: images, their parts, and the sizes."""

    data: Examples
    train: Tensor
    val: Tensor
    n_epochs: int
    batch_size: int
    fc_neurons: int
    threads: int


@dataclass(frozen=True)
class Outcome:
    """What one training gave."""

    images_per_second: float
    cpu_seconds: float
    val_accuracy: float


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark and prints its table."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    data = load_image_folder(options.data_root) if options.data_root else load_digits()
    n_val = min(options.val_samples, len(data) // 5)
    n_train = min(options.train_samples, len(data) - n_val)
    train, val = split(data, seed=0, n_train=n_train, n_val=n_val)
    job = Job(
        data.normalised_from(train),
        train,
        val,
        options.epochs or (5 if options.data_root else 20),
        options.batch_size,
        options.fc_neurons,
        options.threads,
    )
    precision = options.precision or choose_precision("cpu", options.threads)
    _print_header(job, options.data_root, precision)

    def ours(job: Job, seed: int) -> Outcome:
        return train_ours(job, seed, precision)

    _warm_up(job, ours)
    rows: list[tuple[Outcome, Outcome]] = []
    for seed in range(options.rounds):
        pair = (train_plain(job, seed), ours(job, seed))
        rows.append(pair)
        print(f"round {seed}: plain {_shown(pair[0])}   ours {_shown(pair[1])}", flush=True)
    _print_result(rows)


def train_plain(job: Job, seed: int) -> Outcome:
    """Trains as a careful user would, with two DataLoader workers, in float32."""
    from torch.utils.data import DataLoader, Subset
    from torchvision import transforms

    torch.manual_seed(seed)
    model = alexnet(job)
    watch = _Watch()
    steps = [transforms.ToTensor(), transforms.Normalize(job.data.mean, job.data.std)]
    dataset = _DecodedImages(job.data, transforms.Compose(steps))
    loader_options: dict[str, Any] = {"num_workers": N_WORKERS, "persistent_workers": True}
    loader = DataLoader(
        Subset(dataset, job.train.tolist()),
        batch_size=job.batch_size,
        shuffle=True,
        **loader_options,
    )
    val_loader = DataLoader(Subset(dataset, job.val.tolist()), batch_size=256, **loader_options)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    accuracy = 0.0
    for _ in range(job.n_epochs):
        model.train()
        running = 0.0
        for images, labels in loader:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP)
            optimizer.step()
            running += loss.item()
        model.eval()
        right = 0
        with torch.no_grad():
            for images, labels in val_loader:
                right += int((model(images).argmax(1) == labels).sum())
        accuracy = right / len(job.val)
    del loader, val_loader  # ends the workers: their time counts once they have ended
    return watch.outcome(job, accuracy)


def train_ours(job: Job, seed: int, precision: str) -> Outcome:
    """Trains with `evonas.training.fit` as a trial does."""
    with torch_environment(TrialSettings(seed=seed, threads=job.threads)):
        model = place(alexnet(job), "cpu")
        watch = _Watch()
        accuracy = fit(
            model,
            job.data.subset(job.train),
            job.data.subset(job.val),
            n_epochs=job.n_epochs,
            batch_size=job.batch_size,
            optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=LR, momentum=MOMENTUM),
            seed=seed,
            precision=precision,
            grad_clip=GRAD_CLIP,
        )
        return watch.outcome(job, accuracy)


def alexnet(job: Job) -> nn.Module:
    """Returns the published network at the middle of its space, `fc_neurons` wide at the end."""
    wide = job.fc_neurons
    return nn.Sequential(
        nn.Conv2d(job.data.shape[0], 64, 7, stride=3, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 192, 3, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(6),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(256 * 36, wide),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(wide, wide),
        nn.ReLU(inplace=True),
        nn.Linear(wide, job.data.n_classes),
    )


class _DecodedImages(torch.utils.data.Dataset[tuple[Any, int]]):
    """Decoded images, given out as torchvision's CIFAR10 does: an array made a PIL image."""

    def __init__(self, data: Examples, transform: Callable[[Any], Any]) -> None:
        self.pixels = data.inputs.movedim(1, -1).numpy()
        self.labels = data.targets.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        pixels = self.pixels[index]
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        return self.transform(image), self.labels[index]


def _warm_up(job: Job, ours: Callable[[Job, int], Outcome]) -> None:
    # Kernels are compiled and libraries loaded before anything is timed.
    some = Job(
        job.data,
        job.train[: 2 * job.batch_size],
        job.val[: job.batch_size],
        1,
        job.batch_size,
        job.fc_neurons,
        job.threads,
    )
    train_plain(some, 0)
    ours(some, 0)


class _Watch:
    """Measures a training from here on."""

    def __init__(self) -> None:
        self.began, self.cpu = time.perf_counter(), _cpu_seconds()

    def outcome(self, job: Job, val_accuracy: float) -> Outcome:
        seconds = time.perf_counter() - self.began
        rate = len(job.train) * job.n_epochs / seconds
        return Outcome(rate, _cpu_seconds() - self.cpu, val_accuracy)


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _shown(outcome: Outcome) -> str:
    return (
        f"{outcome.images_per_second:.1f} images/s, {outcome.cpu_seconds:.1f} s CPU, "
        f"accuracy {outcome.val_accuracy:.4f}"
    )


def _print_header(job: Job, root: Path | None, precision: str) -> None:
    load = f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"
    n_parameters = sum(parameter.numel() for parameter in alexnet(job).parameters())
    print(f"hardware   {describe('torch', 'torchvision')}")
    print(f"           {job.threads} threads; load average at the start {load}")
    print(
        f"data       {root or 'digits'}: {len(job.train)} to train on, {len(job.val)} to validate "
        f"on, {'×'.join(map(str, job.data.shape))}"
    )
    print(
        f"training   {job.n_epochs} epochs, batch {job.batch_size}, dense layers of "
        f"{job.fc_neurons}, {n_parameters:,} parameters"
    )
    print(f"plain      DataLoader, {N_WORKERS} workers, float32")
    print(f"ours       evonas.training.fit, {precision}", flush=True)


def _print_result(rows: list[tuple[Outcome, Outcome]]) -> None:
    n = len(rows)
    for name, outcomes in zip(("plain", "ours"), zip(*rows, strict=True), strict=True):
        print(
            f"{name:<10} {_mean([o.images_per_second for o in outcomes], '.1f')} images/s, "
            f"{_mean([o.cpu_seconds for o in outcomes], '.1f')} s CPU, validation accuracy "
            f"{_mean([o.val_accuracy for o in outcomes], '.4f')}  (n = {n})"
        )
    ratios = [ours.images_per_second / plain.images_per_second for plain, ours in rows]
    print(
        f"ratio      {_mean(ratios, '.2f')} images/s, from {min(ratios):.2f} to {max(ratios):.2f}; "
        f"{_mean([plain.cpu_seconds / ours.cpu_seconds for plain, ours in rows], '.2f')} CPU  "
        f"(n = {n})"
    )
    gaps = [ours.val_accuracy - plain.val_accuracy for plain, ours in rows]
    print(f"accuracy   ours minus plain {_mean(gaps, '+.4f')}  (n = {n}, paired by seed)")


def _mean(values: list[float], style: str) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{format(statistics.mean(values), style)} ± {format(spread, style.lstrip('+'))}"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description=str(__doc__).split("\n\n")[0]
    )
    add = parser.add_argument
    add("--data-root", type=Path, help="an ImageFolder tree (CIFAR-10); without it: digits")
    add("--train-samples", type=int, default=8192)
    add("--val-samples", type=int, default=2000)
    add("--epochs", type=int, help="default: 5, of the few digits 20")
    add("--batch-size", type=int, default=128)
    add("--fc-neurons", type=int, default=1024, help="of both dense layers (published: up to 4096)")
    add("--rounds", type=int, default=3, help="seeds; each is trained both ways")
    add("--threads", type=int, default=2)
    add("--precision", choices=["float32", "bfloat16"], help="of ours (default: the faster one)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
