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

from evonas.arguments import check_bool, check_int, check_number, check_one_of
from evonas.callbacks import Observer
from evonas.evolution.operators import mutate_typed
from evonas.exceptions import RunStorageError
from evonas.execution.choice import available_cores
from evonas.execution.torch_env import torch_environment
from evonas.execution.trial import Trial, TrialSettings
from evonas.execution.user_code import refuse_while_reading
from evonas.files import as_directory, display_path, write_text
from evonas.nas.export import NasRunFiles
from evonas.nas.final_training import FinalTraining, train_final
from evonas.nas.layers import Shape
from evonas.nas.limits import N_CLASSES, limits, widths_within
from evonas.nas.network_problem import NetworkFunction
from evonas.nas.problem import ImageClassificationProblem
from evonas.nas.recipes import recipe
from evonas.nas.source import HYPERPARAMETERS
from evonas.nas.split_data import Source
from evonas.nas.time_plan import N_FINALISTS, TimePlan, plan_time
from evonas.records import Genes, Status
from evonas.run.evolve import evolve
from evonas.run.result import Result
from evonas.space import SearchSpace
from evonas.space.genes import Categorical
from evonas.strategies import RandomSearch, SurrogateEvolution
from evonas.training import Examples, place
from evonas.training.cuda_graphs import WARM_UP, step_of
from evonas.training.data.parts import matched
from evonas.training.loop import run_epoch
from evonas.training.resumable import Progress

__all__ = ["SearchedAndTrained", "search_and_train"]

_WARM_UP, _MEASURED = WARM_UP + 2, 12  # batches: a step is recorded before any is timed
_N_VARIANTS = 7
_CHANGED = 0.25  # probability of each gene of a variant
_VARIANT_TRIES = 20
_ROOM = 1.5  # a point is at its limits where it cannot have so many times its widths
_WIDER = 8.0
_PLAN = "time_plan.json"
_SECOND = "finalists"


@dataclass(frozen=True, slots=True)
class SearchedAndTrained:
    """What came of the time.

    Attributes:
        result: Of the last round of the search, whose champion was trained.
        n_trained: Networks of the round before.
        plan: How the time was divided.
        final: The training of the champion, and its score on the test images.
        code: File of the champion's module.
        weights: File of the trained weights, for its `load`.
    """

    result: Result
    n_trained: int
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
    val: Source | None = None,
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
    variants of it. The best of them and `start` are trained again, for longer, in the folder
    `finalists`, and the best of these then by the recipe `long` on all images. Training settings
    stay those of `start`: a short training prefers others (higher rates) than a long one. Called
    again, it goes on where it stopped; with more seconds, the final training goes on for longer.

    Args:
        space: The search space.
        network: `(genes, n_classes)` to a `Network`.
        data: The training images, or a function that opens them.
        test: Images that decide nothing.
        start: A point that a person would write down: what is searched must beat it, and the time
            is divided by its speed.
        seconds: Of everything, over all calls.
        run_dir: Of the search, the plan, the checkpoint and the weights.
        val: Images by which networks are chosen, likewise. None: a share of the training images.
            The final training is on all of both.
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
        TypeError: `test` is something else than `Examples`.
        ValueError: `start` is not in the space; or the time is too short: says how many minutes
            are needed.
        RunStorageError: The run directory is damaged, in use or not writable.
        SearchInterrupted, KeyboardInterrupt: Stopped; the next call goes on.
    """
    began = time.monotonic()
    refuse_while_reading("search_and_train")
    check_number("seconds", seconds, above=0)
    check_bool("flips", flips)
    check_int("seed", seed, minimum=0)
    check_one_of("test", test, Examples, "Examples")
    start = space.validate(start)
    folder = as_directory(run_dir)
    settings = TrialSettings(seed=seed, device=device, threads=threads or available_cores())
    make = partial(
        ImageClassificationProblem, network=network, data=data, val=val, batch_size=batch_size,
        name=name, dataset=dataset, device=device,
    )  # fmt: skip
    side = test.shape[-1]
    trainer = make(space, **recipe("one-cycle", flips=flips, side=side))
    matched(test, trainer.data, "test")  # refused before anything is searched
    n_images = len(trainer.data)
    most = None if val is None else (len(trainer.splits[0]), len(trainer.splits[1]))
    plan = _plan(folder, trainer, start, settings, seconds, most)
    if on_plan is not None:
        on_plan(plan)
    before = time.monotonic() - began
    searched = _searched_space(space, network, start, plan, test.shape)
    made = partial(make, searched, **recipe("one-cycle", flips=flips, side=side))
    search = partial(
        evolve, workers=available_cores() if device == "cpu" else 1, threads_per_trial=1,
        devices=device, seed=seed, progress=progress, callbacks=callbacks, metadata=metadata,
    )  # fmt: skip
    first = _first_round(search, made, start, plan, folder) if plan.search_seconds else None
    folder = folder / _SECOND
    problem = made(**plan.longer(n_images if most is None else n_images - most[1] + plan.n_val))
    finalists = [start, *([] if first is None else _best(first, start))][:N_FINALISTS]
    result = search(
        problem,
        strategy=RandomSearch(),
        initial=finalists,
        max_evaluations=len(finalists),
        run_dir=folder,
    )
    spent = before + result.seconds + (0.0 if first is None else first.seconds)
    code = NasRunFiles(folder, problem).champion
    weights = code.with_name(f"{code.stem}-trained.pt")
    genes = result.champion.genes
    n_params = network(genes, problem.n_classes).params(test.shape)
    long = recipe(
        "long", flips=flips, side=side, n_params=n_params, n_images=n_images,
        n_epochs=plan.final_epochs,
    )  # fmt: skip
    final = train_final(
        make(space, precision=problem.precision, **long),  # the run's: anew it might be another
        genes,
        problem.data,  # normalised as in the search: the weights fit the champion's module
        matched(test, problem.data, "test"),
        weights=weights,
        seconds=plan.final_seconds(spent),
        settings=settings,
        report=report,
    )
    n_trained = 0 if first is None else first.counts.evaluated
    return SearchedAndTrained(result, n_trained, plan, final, code, weights)


def _first_round(
    search: Callable[..., Result],
    made: Callable[..., ImageClassificationProblem],
    start: Genes,
    plan: TimePlan,
    folder: Path,
) -> Result:
    """Returns what short trainings of many networks found, the first of them near the start."""
    problem = made(n_epochs=plan.n_epochs, n_train=plan.n_train, n_val=plan.n_val)
    return search(
        problem,
        strategy=SurrogateEvolution(n_initial=1 + _N_VARIANTS),
        initial=[start, *variants(problem.space, start, _N_VARIANTS)],
        max_seconds=plan.first_round_seconds,
        run_dir=folder,
    )


def _searched_space(
    space: SearchSpace, network: NetworkFunction, start: Genes, plan: TimePlan, shape: Shape
) -> SearchSpace:
    """Returns the space with the training settings of `start`, without networks too slow."""
    most = int(plan.max_growth * network(start, N_CLASSES).macs(shape))
    return SearchSpace(
        {
            name: Categorical([start[name]]) if name in HYPERPARAMETERS else gene
            for name, gene in space.items()
        },
        conditions=space.conditions,
        constraints={**space.constraints, **limits(network, most, None, shape)},
    )


def _best(result: Result, start: Genes) -> list[Genes]:
    """Returns the points that were scored, the best first, without the start."""
    scored = [entry for entry in result.evaluations if entry.status is Status.OK]
    scored.sort(key=lambda entry: -entry.values[0])
    return [entry.genes for entry in scored if entry.genes != start]


def variants(space: SearchSpace, genes: Genes, n: int) -> list[Genes]:
    """Returns at most `n` points near one, always the same: genes are mutated, widths then fitted.

    Each gene is mutated with probability 1/4, whatever the limits say. Then all widths are made
    narrower until the limits hold; where `genes` has no room left, they are made wider, too: else
    nearly every change of it would be too large, and the others would leave the limits unused.

    Args:
        space: Its constraints are the limits.
        genes: A point within them.
        n: How many.
    """
    rng, free = random.Random(0), space.unconstrained()
    has_room = widths_within(space, genes, most=_ROOM) != genes
    found: list[Genes] = []
    for _ in range(_VARIANT_TRIES * n):
        values = free.values(genes, rng)
        mutate_typed(values, free, _CHANGED, rng=rng)
        point = widths_within(space, free.genes(values), most=1.0 if has_room else _WIDER)
        if point is not None and point != genes and point not in found:
            found.append(point)
        if len(found) == n:
            break
    return found


def _plan(
    folder: Path,
    trainer: ImageClassificationProblem,
    start: Genes,
    settings: TrialSettings,
    seconds: float,
    most: tuple[int, int] | None,
) -> TimePlan:
    """Returns the plan of the run: that of the first call, with the seconds of this one.

    Args:
        folder: Of the run.
        trainer: Of all images.
        start: Whose speed counts.
        settings: Of the measuring.
        seconds: Of everything.
        most: Images to train and to validate on, where both parts are given.

    Raises:
        RunStorageError: The file of the plan is damaged.
    """
    file = folder / _PLAN
    if file.exists():
        try:
            return replace(TimePlan(**json.loads(file.read_text())), seconds=seconds)
        except (ValueError, TypeError) as error:
            raise RunStorageError(
                f"{display_path(file)} is damaged ({error}): pass another run directory"
            ) from None
    rate = images_per_second(trainer, start, settings)
    plan = plan_time(seconds, images_per_second=rate, n_images=len(trainer.data))
    if most is not None:
        n_train, n_val = min(plan.n_train, most[0]), min(plan.n_val, most[1])
        plan = replace(plan, n_train=n_train, n_val=n_val)
    write_text(file, json.dumps(asdict(plan), indent=2) + "\n")
    return plan


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
        step = step_of(
            model,
            problem.optimizer(model, genes),
            problem.loss_function(genes),
            grad_clip=training.grad_clip,
            precision=problem.precision_in(Trial(settings)),
            cuda_graphs=problem.cuda_graphs,
        )
        run_epoch(step, islice(batches, _WARM_UP))
        began, n_seen = time.perf_counter(), 0
        for batch in islice(batches, _MEASURED):
            run_epoch(step, [batch])  # which waits for the device
            n_seen += len(batch[1])
        return n_seen / (time.perf_counter() - began)
