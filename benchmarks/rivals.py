"""What one would do without evonas, for `benchmarks.time_to_quality`: each in a given time.

- A residual network written down by hand, with a training loop of one's own.
- The published genetic algorithm on the published space, and a plain loop.
- Optuna's TPE on our space `resnet`, and a plain loop.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import evonas as en
from benchmarks.search_quality.peers import suggested
from evonas.nas import FAMILIES, ImageClassificationProblem, Network
from evonas.records import Genes
from evonas.training import Examples, FlipCrop, autocast, evaluate, place
from evonas.training.cost import count_macs, count_params

__all__ = ["RIVALS", "Job", "Outcome", "hand_made", "hand_made_within"]

BATCH_SIZE = 128
SEARCH_EPOCHS, SEARCH_TRAIN, SEARCH_VAL = 5, 8_000, 2_000  # of the two searches
PUBLISHED: dict[str, Any] = {
    "selection": "tournament", "tournament_size": 3, "crossover": "one_point",
    "crossover_prob": 1.0, "gene_mutation_prob": 0.15,
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """What all contenders get.

    Attributes:
        train: The images to train on.
        test: The images to be scored on; normalised as `train`.
        seconds: Of everything.
        flips: Whether a mirror image is an image of the same class.
        max_macs: Most multiply-adds of an image; None: any.
        max_params: Most weights; None: any.
        precision: In which all train.
        threads: Threads of a training that is alone.
        seed: Of everything random.
        folder: For what a contender keeps.
    """

    train: Examples
    test: Examples
    seconds: float
    flips: bool
    max_macs: int | None
    max_params: int | None
    precision: str
    threads: int
    seed: int
    folder: Path

    @property
    def sizes(self) -> tuple[int, int]:
        """Training and validation images of a plain search."""
        n_val = min(SEARCH_VAL, len(self.train) // 5)
        return min(SEARCH_TRAIN, len(self.train) - n_val), n_val


@dataclass(frozen=True)
class Outcome:
    """What a contender ended with.

    Attributes:
        accuracy: Of the test images.
        trained: Networks trained in its search.
        params: Weights of the network at the end.
        macs: Its multiply-adds an image.
    """

    accuracy: float
    trained: int
    params: int
    macs: int


def hand_made(job: Job) -> Outcome:
    """The network written down by hand and its own loop: no search at all."""
    torch.manual_seed(job.seed)
    model = hand_made_within(job)
    augment = FlipCrop(flip=job.flips, pad=2)

    def one_cycle(share: float) -> float:
        if share < 0.2:
            return 0.04 + 0.96 * share / 0.2
        return (1 - share) / 0.8

    train_for(
        model, job, job.seconds, lr=0.2, rate=one_cycle, augment=augment, nesterov=True,
        weight_decay=5e-4, label_smoothing=0.1,
    )  # fmt: skip
    return _outcome(model, job, 0)


def published(job: Job) -> Outcome:
    """The published GA for half the time; its best network at a constant rate for the other."""
    family = FAMILIES["alexnet"]
    problem = _problem(job, family.space(), family.network)
    strategy = en.Generational(50, elite=5, **PUBLISHED)
    return _searched(job, problem, strategy)


def tpe(job: Job) -> Outcome:
    """Optuna's TPE on our space for half the time; its best at a constant rate for the other."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    problem = _resnet_problem(job)
    problem.configure(None)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=job.seed)
    )
    ended = time.monotonic() + job.seconds / 2

    def objective(trial: Any) -> float:
        genes = suggested(problem.space, trial)
        if problem.space.violated(genes) or problem.invalid_reason(genes) is not None:
            raise optuna.TrialPruned
        value = problem.evaluate(genes, en.Trial())
        trial.set_user_attr("genes", genes)
        return float(value) if math.isfinite(value) else 0.0

    torch.set_num_threads(job.threads)
    study.optimize(objective, timeout=ended - time.monotonic(), catch=())
    done = [each for each in study.trials if "genes" in each.user_attrs]
    return _finished(job, problem, study.best_trial.user_attrs["genes"], len(done))


RIVALS: Mapping[str, Callable[[Job], Outcome]] = {
    "hand-made": hand_made,
    "published GA": published,
    "TPE": tpe,
}


# -- the hand-made network -----------------------------------------------------------------------


def hand_made_within(job: Job) -> nn.Module:
    """Returns the hand-made network, all widths the greatest share of it that the limits allow."""
    channels = job.train.shape[0]
    for percent in range(100, 0, -1):
        widths = [max(4, round(width * percent / 400) * 4) for width in (32, 64, 128, 256)]
        model = _hand_made(widths, channels, job.train.n_classes)
        if count_params(model) <= (job.max_params or math.inf) and count_macs(
            model, job.train.shape
        ) <= (job.max_macs or math.inf):
            return model
    raise SystemExit("no hand-made network is within the limits")


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv(width, width), nn.GELU(), *_conv(width, width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.gelu(x + self.body(x))


def _conv(before: int, after: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)]


def _hand_made(widths: Sequence[int], channels: int, n_classes: int) -> nn.Module:
    layers = [*_conv(channels, widths[0]), nn.GELU()]
    for before, after in itertools.pairwise(widths):
        layers += [*_conv(before, after, 2), nn.GELU(), _Block(after)]
    head = [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(widths[-1], n_classes)]
    return nn.Sequential(*layers, *head)


# -- plain loops ---------------------------------------------------------------------------------


def train_for(
    model: nn.Module,
    job: Job,
    seconds: float,
    *,
    lr: float,
    rate: Callable[[float], float] = lambda share: 1.0,
    augment: FlipCrop | None = None,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    label_smoothing: float = 0.0,
) -> None:
    """Trains in place until the seconds are over.

    Args:
        model: Placed and trained.
        job: Its images, precision and threads.
        seconds: To train; a little less, so that there is time to test.
        lr: Learning rate of SGD.
        rate: Share of the time that is over to what the learning rate is multiplied by.
        augment: Changes the images.
        momentum: Of SGD.
        nesterov: Its kind.
        weight_decay: Of all weights.
        label_smoothing: Of the cross entropy.
    """
    began = time.monotonic()
    torch.set_num_threads(job.threads)
    place(model, "cpu")
    evaluate(model, job.test.batches(1024), precision=job.precision)
    testing = time.monotonic() - began
    optimizer = torch.optim.SGD(
        model.parameters(), lr=lr, momentum=momentum, nesterov=nesterov,
        weight_decay=weight_decay, fused=True,
    )  # fmt: skip
    loss_function = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
    seconds = max(1.0, seconds - 2 * testing)
    for epoch in itertools.count():
        batches = job.train.batches(
            BATCH_SIZE, seed=1000 * job.seed + epoch, shuffle=True, augment=augment, drop_last=True
        )
        for images, labels in batches:
            share = (time.monotonic() - began) / seconds
            if share >= 1:
                return
            for group in optimizer.param_groups:
                group["lr"] = lr * rate(share)
            model.train()
            optimizer.zero_grad(set_to_none=True)
            with autocast(job.precision, "cpu"):
                outputs = model(images)
            loss_function(outputs.float(), labels).backward()
            optimizer.step()


def _resnet_problem(job: Job) -> ImageClassificationProblem:
    family = FAMILIES["resnet"]
    within: dict[str, Any] = {}
    if job.max_macs or job.max_params:
        within = {
            "max_macs": job.max_macs, "max_params": job.max_params, "in_shape": job.train.shape,
        }  # fmt: skip
    return _problem(job, family.space(**within), family.network)


def _problem(
    job: Job, space: en.SearchSpace, network: Callable[[Genes, int], Network]
) -> ImageClassificationProblem:
    n_train, n_val = job.sizes
    return ImageClassificationProblem(
        space, network, job.train, n_epochs=SEARCH_EPOCHS, batch_size=BATCH_SIZE, n_train=n_train,
        n_val=n_val, precision=job.precision,
    )  # fmt: skip


def _searched(job: Job, problem: ImageClassificationProblem, strategy: en.Strategy) -> Outcome:
    result = en.evolve(
        problem, strategy=strategy, max_seconds=job.seconds / 2, run_dir=job.folder / "search",
        workers=job.threads, threads_per_trial=1, devices="cpu", seed=job.seed, progress=False,
    )  # fmt: skip
    return _finished(job, problem, result.champion.genes, result.counts.evaluated)


def _finished(job: Job, problem: ImageClassificationProblem, genes: Genes, trained: int) -> Outcome:
    """Trains the network for the other half of the time, as it was trained in the search."""
    torch.manual_seed(job.seed)
    model, prm = problem.build(genes), problem.prm(genes)
    train_for(
        model, job, job.seconds / 2, lr=prm["lr"], momentum=prm["momentum"],
        weight_decay=prm.get("weight_decay", 0.0), label_smoothing=prm.get("label_smoothing", 0.0),
    )  # fmt: skip
    return _outcome(model, job, trained)


def _outcome(model: nn.Module, job: Job, trained: int) -> Outcome:
    accuracy = evaluate(model, job.test.batches(1024), precision=job.precision)
    return Outcome(accuracy, trained, count_params(model), count_macs(model, job.train.shape))
