"""The last training of a network that a search has found: on all images, tested once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from evonas.execution.torch_env import torch_environment
from evonas.execution.trial import Trial, TrialSettings
from evonas.files import replace_file
from evonas.nas.network_problem import NetworkProblem
from evonas.records import Genes
from evonas.training import Examples
from evonas.training.loop import EVAL_BATCH_SIZE, evaluate, place
from evonas.training.resumable import Progress, fit_resumable

__all__ = ["FinalTraining", "train_final"]


@dataclass(frozen=True, slots=True)
class FinalTraining:
    """What a final training ended with.

    Attributes:
        score: The problem's metric on the test images, as the champion's `predict` computes it.
        plain_score: The same of single outputs, where `test_time_flip` averages two; else `score`.
        progress: Steps, epochs and seconds of it.
        module: The trained network.
    """

    score: float
    plain_score: float
    progress: Progress
    module: nn.Module


def train_final(
    problem: NetworkProblem,
    genes: Genes,
    train: Examples,
    test: Examples,
    *,
    weights: Path,
    n_epochs: int | None = None,
    seconds: float | None = None,
    settings: TrialSettings,
    report: Callable[[Progress], None] | None = None,
) -> FinalTraining:
    """Trains the network of `genes` as the problem says, tests it and writes its weights.

    It can be stopped at any moment: the next call with the same arguments goes on from a checkpoint
    beside the weights. Called again after the end, it only tests.

    Args:
        problem: Its recipe, precision and hooks are used; its split is not.
        genes: Of the network and its training.
        train: All images to train on.
        test: Images that decide nothing; normalised as the training images.
        weights: Where the state_dict is written, on the CPU.
        n_epochs: Passes over the training images; or
        seconds: Seconds of training and testing, over all calls.
        settings: Seed, device and threads.
        report: Called after each epoch.

    Raises:
        ValueError: Not exactly one of `n_epochs` and `seconds` is given.
        FitnessError: The training diverged.
        RunStorageError: The checkpoint or the weights cannot be written.
    """
    device = settings.device
    trial = Trial(settings=settings)
    training = problem.training_of(genes)
    precision = problem.precision_in(trial)
    train, test = train.to(device), test.to(device)

    def tested(model: nn.Module, *, flipped: bool) -> float:
        return evaluate(
            model,
            test.batches(EVAL_BATCH_SIZE),
            metric=problem.metric,
            precision=precision,
            test_time_flip=flipped,
        )

    with torch_environment(settings):
        model = place(problem.build(genes), device)
        began = time.monotonic()
        if seconds is not None:
            # The time to test is kept back: a network's outputs cost the same before it has learnt.
            tested(model, flipped=False)
            passes = 1 + problem.test_time_flip * 2
            seconds = max(1.0, seconds - (1 + passes) * (time.monotonic() - began))
        optimizer = problem.optimizer(model, genes)
        progress = fit_resumable(
            model,
            train,
            batch_size=training.batch_size,
            optimizer=optimizer,
            scheduler=lambda of, n_steps: problem.scheduler(of, genes, n_steps),
            seed=settings.seed,
            loss_function=problem.loss_function(genes),
            checkpoint=weights.with_suffix(".checkpoint"),
            identity={
                "genes": dict(genes), "data": train.identity, "seed": settings.seed,
                "n_epochs": n_epochs, "precision": precision, "training": training.fingerprint(),
                "augment": repr(problem.augment),
            },
            n_epochs=n_epochs,
            seconds=seconds,
            precision=precision,
            augment=problem.augment,
            grad_clip=training.grad_clip,
            ema=training.ema,
            cuda_graphs=problem.cuda_graphs,
            report=report,
        )  # fmt: skip
        plain = tested(model, flipped=False)
        score = tested(model, flipped=True) if problem.test_time_flip else plain
        save_weights(model, weights)
    return FinalTraining(score, plain, progress, model)


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes the weights as a state_dict on the CPU, whole or not at all.

    Raises:
        RunStorageError: They cannot be written.
    """
    state = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    replace_file(path, lambda part: torch.save(state, part))
