"""From images to a trained champion in a given time: a search, then the training of what it found.

What is done, and in which order, follows from the run's directory alone: a call that was stopped,
at any moment and in any way, goes on with what is left.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

from evonas.callbacks import Observer
from evonas.evolution.operators import mutate_typed
from evonas.execution.choice import available_cores
from evonas.execution.torch_env import torch_environment
from evonas.execution.trial import Trial, TrialSettings
from evonas.files import as_directory, write_text
from evonas.nas.export import NasRunFiles
from evonas.nas.final_training import FinalTraining, train_final
from evonas.nas.problem import ImageClassificationProblem, NetworkFunction
from evonas.nas.recipes import recipe
from evonas.nas.split_data import Source
from evonas.nas.time_plan import TimePlan, plan_time
from evonas.records import Genes
from evonas.run.evolve import evolve
from evonas.run.result import Result
from evonas.space import SearchSpace
from evonas.training import Examples, place, train_epoch
from evonas.training.resumable import Progress

__all__ = ["SearchedAndTrained", "search_and_train"]

_WARM_UP, _MEASURED = 2, 12  # batches
_N_VARIANTS = 4
_CHANGED = 0.25  # probability of each gene of a variant
_PLAN = "time_plan.json"


@dataclass(frozen=True, slots=True)
class SearchedAndTrained:
    """What came of the time.

    Attributes:
        result: Of the search.
        plan: How the time was divided.
        final: The training of the champion, and its score on the test images.
        code: File of the champion's module.
        weights: File of the trained weights, for its `load`.
    """

    result: Result
    plan: TimePlan
    final: FinalTraining
    code: Path
    weights: Path


def search_and_train(
    space: SearchSpace,
    network: NetworkFunction,
    data: Source,
    test: Examples,
    *,
    start: Genes,
    seconds: float,
    run_dir: str | Path,
    flips: bool = True,
    batch_size: int = 128,
    device: str = "cpu",
    threads: int | None = None,
    seed: int = 0,
    name: str = "network",
    dataset: str = "images",
    progress: bool | None = None,
    callbacks: Sequence[Observer] = (),
    metadata: dict[str, Any] | None = None,
    on_plan: Callable[[TimePlan], None] | None = None,
    report: Callable[[Progress], None] | None = None,
) -> SearchedAndTrained:
    """Searches for a network, trains the best one on all images, and tests it, all in `seconds`.

    The time is divided by `plan_time`. The search trains by the recipe `one-cycle` on a share of
    the images, as many networks at once as there are cores; its first points are `start` and
    variants of it. The champion is then trained by the recipe `long`. Called again, it goes on
    where it stopped; with more seconds, the final training goes on for longer.

    Args:
        space: The search space.
        network: `(genes, n_classes)` to a `Network`.
        data: The training images, or a function that opens them.
        test: Images that decide nothing.
        start: A point that a person would write down: what is searched must beat it, and the time
            is divided by its speed.
        seconds: Of everything, over all calls.
        run_dir: Of the search, the plan, the checkpoint and the weights.
        flips: Whether a mirror image is an image of the same class.
        batch_size: Images a step.
        device: Where to train.
        threads: Of the final training. None: all cores.
        seed: Root of all randomness; of a started run it is the run's.
        name: In the names of the run's files.
        dataset: In the names of the run's files.
        progress: See `evolve`.
        callbacks: Observers of the search.
        metadata: JSON kept in the run.
        on_plan: Called with the plan before the search.
        report: Called after each epoch of the final training.

    Raises:
        ValueError: The time is too short: says how many minutes are needed.
        SearchInterrupted, KeyboardInterrupt: Stopped; the next call goes on.
    """
    began = time.monotonic()
    folder = as_directory(run_dir)
    settings = TrialSettings(seed=seed, device=device, threads=threads or available_cores())
    make = partial(
        ImageClassificationProblem, space, network, data, batch_size=batch_size, name=name,
        dataset=dataset, device=device,
    )  # fmt: skip
    side = test.shape[-1]
    trainer = make(**recipe("long", flips=flips, side=side))
    plan = _plan(folder, trainer, start, settings, seconds)
    if on_plan is not None:
        on_plan(plan)
    problem = make(
        n_epochs=plan.n_epochs,
        n_train=plan.n_train,
        n_val=plan.n_val,
        **recipe("one-cycle", flips=flips, side=side),
    )
    before = time.monotonic() - began
    result = evolve(
        problem,
        strategy="auto",
        initial=[start, *variants(space, start, _N_VARIANTS)],
        max_seconds=plan.search_seconds or None,
        max_evaluations=None if plan.search_seconds else 1,
        run_dir=folder,
        workers=available_cores() if device == "cpu" else 1,
        threads_per_trial=1,
        devices=device,
        seed=seed,
        progress=progress,
        callbacks=callbacks,
        metadata=metadata,
    )
    code = NasRunFiles(folder, problem).champion
    weights = code.with_name(f"{code.stem}-trained.pt")
    final = train_final(
        trainer,
        result.champion.genes,
        problem.data,  # normalised as in the search: the weights fit the champion's module
        test.normalised_like(problem.data),
        weights=weights,
        seconds=plan.final_seconds(spent=result.seconds + before),
        settings=settings,
        report=report,
    )
    return SearchedAndTrained(result, plan, final, code, weights)


def variants(space: SearchSpace, genes: Genes, n: int) -> list[Genes]:
    """Returns `n` points near one, always the same: each gene is mutated with probability 1/4."""
    rng = random.Random(0)
    found = []
    for _ in range(n):
        values = space.values(genes, rng)
        mutate_typed(values, space, _CHANGED, rng=rng)
        found.append(space.genes(values))
    return found


def _plan(
    folder: Path,
    trainer: ImageClassificationProblem,
    start: Genes,
    settings: TrialSettings,
    seconds: float,
) -> TimePlan:
    """Returns the plan of the run: its sizes are those of the first call."""
    file = folder / _PLAN
    n_images = len(trainer.data)
    if not file.exists():
        rate = images_per_second(trainer, start, settings)
        plan = plan_time(seconds, images_per_second=rate, n_images=n_images)
        write_text(file, json.dumps(asdict(plan), indent=2) + "\n")
        return plan
    known = TimePlan(**json.loads(file.read_text()))
    rate = n_images / known.epoch_seconds
    anew = plan_time(seconds, images_per_second=rate, n_images=n_images)
    return replace(known, seconds=seconds, search_seconds=anew.search_seconds)


def images_per_second(
    problem: ImageClassificationProblem, genes: Genes, settings: TrialSettings
) -> float:
    """Returns how many images a second the network of `genes` trains, batches included."""
    training = problem.training_of(genes)
    train = problem.data.to(settings.device)
    passes = (
        train.batches(training.batch_size, seed=number, shuffle=True, augment=problem.augment)
        for number in count()
    )
    batches = chain.from_iterable(passes)
    with torch_environment(settings):
        model = place(problem.build(genes), settings.device)
        step = partial(
            train_epoch,
            model,
            optimizer=problem.optimizer(model, genes),
            loss_function=problem.loss_function(genes),
            grad_clip=training.grad_clip,
            precision=problem.precision_in(Trial(settings)),
        )
        step(islice(batches, _WARM_UP))
        began, n_seen = time.perf_counter(), 0
        for batch in islice(batches, _MEASURED):
            step([batch])  # which waits for the device
            n_seen += len(batch[1])
        return n_seen / (time.perf_counter() - began)
