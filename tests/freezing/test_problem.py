from __future__ import annotations

import copy
import functools
import logging
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import evonas as en
from evonas.exceptions import RunMismatchError
from evonas.execution import Outcome, Task, Trial, TrialSettings
from evonas.execution.base import run_trial
from evonas.freezing import Examples, FreezingProblem
from evonas.strategies import RandomSearch
from evonas.training import seeded

# A worker could not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

# Two threads on small models wait for each other.
evolve = functools.partial(en.evolve, threads_per_trial=1)

N_TRAIN, N_EPOCHS = 40, 2  # of `make_problem`
N_PARAMETERS = {"0": 40, "2": 72, "4": 72, "7": 54, "9": 14}


def mlp() -> nn.Module:
    with seeded(3):
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))


def vectors(n: int = 20, low: int = 0, high: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, 4, generator=generator), torch.arange(n) % (high - low + 1) + low


def outcome(problem: FreezingProblem, mask: Any, seed: int = 5) -> Outcome:
    settings = TrialSettings(seed=seed, problem=problem.configure(None))
    return run_trial(problem, Task(problem.genes_of(mask), settings))


def curve(found: Any) -> list[tuple[float, float]]:
    return [(row.metrics["accuracy"], row.metrics["train_loss"]) for row in found.epochs]


def test_what_is_on_record_of_a_mask(make_problem: Any) -> None:
    problem = make_problem()
    assert [block.name for block in problem.blocks] == ["0", "2", "4", "7"]
    before = time.perf_counter()
    found = outcome(problem, [1, 1, 0, 1])
    took = time.perf_counter() - before
    assert found.status is en.Status.OK, found.error
    metrics = found.metrics
    assert metrics["trainable_params"] == N_PARAMETERS["4"] + N_PARAMETERS["9"]
    assert metrics["trainable_share"] == pytest.approx(86 / sum(N_PARAMETERS.values()))
    assert 0 < metrics["train_seconds"] < took
    assert metrics["examples_per_second"] == pytest.approx(
        N_EPOCHS * N_TRAIN / metrics["train_seconds"]
    )
    assert metrics["peak_memory_bytes"] > 10_000_000  # torch alone holds more
    assert metrics["prefix_depth"] == 2
    assert [set(row.metrics) for row in found.epochs] == 2 * [{"accuracy", "train_loss", "lr"}]
    assert found.values == (found.epochs[-1].metrics["accuracy"],)
    assert outcome(problem, [0, 1, 1, 1]).metrics["prefix_depth"] == 0


def test_validation_does_not_count_as_training(make_problem: Any) -> None:
    def slow(inputs: Tensor) -> Tensor:
        time.sleep(0.2)
        return inputs

    def metric(outputs: Tensor, targets: Tensor) -> float:
        time.sleep(0.2)
        return 0.5

    problem = make_problem(val=Examples(*vectors(), transform=slow), metric=metric)
    found = outcome(problem, [0, 0, 0, 0])
    assert found.seconds - found.metrics["train_seconds"] > 0.8


def test_the_same_seed_and_mask_give_the_same_fitness(make_problem: Any) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    found = [outcome(make_problem(), [1, 0, 0, 0]) for _ in range(2)]
    assert curve(found[0]) == curve(found[1])
    assert torch.equal(torch.get_rng_state(), before)
    assert curve(outcome(make_problem(), [1, 0, 0, 0], seed=6)) != curve(found[0])
    assert curve(outcome(make_problem(), [0, 0, 0, 0])) != curve(found[0])


def test_each_training_starts_from_the_pretrained_weights(make_problem: Any) -> None:
    """Whatever was trained before."""
    problem = make_problem()
    outcome(problem, [0, 0, 0, 0])
    assert curve(outcome(problem, [1, 0, 0, 0])) == curve(outcome(make_problem(), [1, 0, 0, 0]))


def test_the_trials_seed_initialises_the_head(make_problem: Any) -> None:
    def headed() -> nn.Module:
        return nn.Sequential(*mlp()[:3], nn.Linear(8, 2))  # type: ignore[index]

    problem = make_problem(headed, lr=1e-12, n_epochs=1)  # what it loses is the head's doing

    def loss(seed: int) -> float:
        trial = Trial(TrialSettings(seed=seed, problem=problem.configure(None)))
        problem.evaluate(problem.genes_of([1, 0]), trial)
        return trial.history[0].metrics["train_loss"]

    assert abs(loss(1) - loss(2)) > 1e-4
    assert loss(1) == loss(1)


def sgd(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=0.5)


@pytest.mark.parametrize(
    "option",
    [
        {"batch_size": 20}, {"schedule": "constant"}, {"weight_decay": 5.0}, {"grad_clip": 1e-3},
        {"optimizer": lambda groups: torch.optim.SGD(groups, lr=0.1)},
        {"loss_function": functional.multi_margin_loss}, {"precision": "bfloat16"},
    ],
    ids=lambda option: next(iter(option)),
)  # fmt: skip
def test_each_setting_reaches_the_training(make_problem: Any, option: Any) -> None:
    found = [
        outcome(make_problem(mlp, **{"optimizer": sgd} | given), [1, 0]) for given in ({}, option)
    ]
    assert [entry.status for entry in found] == 2 * [en.Status.OK]
    losses = [entry.epochs[-1].metrics["train_loss"] for entry in found]
    assert abs(losses[0] - losses[1]) > 1e-5


def test_two_runs_agree(make_problem: Any) -> None:
    def search() -> en.Result:
        return evolve(make_problem(), population=6, generations=1, seed=3)

    first, second = (
        [(entry.key, entry.seed, curve(entry)) for entry in search().evaluations] for _ in range(2)
    )
    assert len(first) == 6
    assert first == second


@pytest.mark.slow
def test_a_worker_process_gets_the_same_fitness() -> None:
    def search(**options: Any) -> list[Any]:
        problem = FreezingProblem(
            mlp, vectors(), vectors(), n_epochs=2, lr=0.01, precision="float32"
        )
        result = evolve(problem, population=4, generations=1, seed=3, **options)
        return [(entry.key, entry.seed, curve(entry)) for entry in result.evaluations]

    here = search()
    assert len(here) == 4
    assert search(workers=1) == here


def test_reuse_changes_nothing_but_the_time(make_problem: Any) -> None:
    plain = make_problem(reuse_prefix=False)
    reusing = make_problem()
    for mask in ([1, 0, 0, 0], [1, 1, 0, 1], [1, 1, 1, 1]):
        ours, theirs = outcome(reusing, mask), outcome(plain, mask)
        assert ours.metrics["prefix_depth"] == next((i for i, b in enumerate(mask) if not b), 4)
        assert theirs.metrics["prefix_depth"] == 0
        for (value, loss), (plain_value, plain_loss) in zip(
            curve(ours), curve(theirs), strict=True
        ):
            assert value == plain_value
            assert loss == pytest.approx(plain_loss, rel=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_precision_and_reuse_are_kept_with_the_run(
    make_problem: Any, tmp_path: Path, precision: str
) -> None:
    """So that a run goes on as it began, whatever this start would decide."""

    def search(problem: Any, generations: int) -> en.Result:
        return evolve(
            problem, population=4, generations=generations, seed=3, run_dir=tmp_path, patience=9
        )

    search(make_problem(reuse_prefix=False, precision=precision), 1)
    result = search(make_problem(precision=None), 3)
    assert result.record.problem_settings["precision"] == precision
    assert result.record.problem_settings["reuse"]["cuts"] == {}
    assert len(result.evaluations) > 4
    assert {entry.metrics["prefix_depth"] for entry in result.evaluations} == {0}


@pytest.mark.parametrize(
    ("population", "advice"),
    [
        (8, [(0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 0, 0), (1, 1, 0, 0), (1, 1, 1, 0)]),
        (4, [(0, 0, 0, 0), (1, 1, 1, 1), (1, 1, 0, 0)]),  # thinned: a quarter is for chance
        (2, [(0, 0, 0, 0)]),
    ],
)
def test_the_first_population_holds_the_usual_advice(
    make_problem: Any, population: int, advice: list[Any]
) -> None:
    problem = make_problem()

    def masks(seed: int) -> list[tuple[int, ...]]:
        result = evolve(problem, population=population, generations=1, seed=seed)
        return [problem.mask_of(entry.genes) for entry in result.evaluations]

    first, second = masks(1), masks(2)
    assert first[: len(advice)] == second[: len(advice)] == advice
    assert first[len(advice) :] != second[len(advice) :]
    assert len(first) <= population


def test_own_initial_points_take_the_place_of_the_advice(make_problem: Any) -> None:
    problem = make_problem()
    own = problem.genes_of([0, 1, 0, 1])
    evolve(problem, strategy=RandomSearch(), max_evaluations=3, seed=3, initial=[own])
    assert problem.trained[0] == (0, 1, 0, 1)
    assert (0, 0, 0, 0) not in problem.trained
    problem = make_problem()
    evolve(problem, strategy=RandomSearch(), max_evaluations=6, seed=3)
    assert {problem.label(mask) for mask in problem.trained[:5]} == {
        "full fine-tuning", "head only", "first 1 frozen", "first 2 frozen", "first 3 frozen",
    }  # fmt: skip


def test_where_the_head_is_a_gene_it_is_not_frozen_with_the_rest(make_problem: Any) -> None:
    problem = make_problem(include_head=True)
    assert [block.name for block in problem.blocks] == ["0", "2", "4", "7", "9"]
    advice = [problem.mask_of(genes) for genes in problem.initial_points(100)]
    assert advice == [
        (0, 0, 0, 0, 0), (1, 1, 1, 1, 0), (1, 0, 0, 0, 0), (1, 1, 0, 0, 0), (1, 1, 1, 0, 0),
    ]  # fmt: skip
    assert problem.label(advice[1]) == "head only"
    everything = problem.genes_of([1] * 5)
    reason = "every block is frozen and no head is trainable: nothing is left to train"
    assert problem.invalid_reason(everything) == reason
    assert problem.invalid_reason(problem.genes_of([0, 1, 1, 1, 1])) is None
    with pytest.raises(ValueError, match=f"is invalid .{reason}"):
        evolve(problem, generations=1, initial=[everything])
    assert problem.trained == []


class Tied(nn.Module):
    """As a language model: no head of its own, so the blocks hold everything."""

    def __init__(self) -> None:
        super().__init__()
        with seeded(0):
            self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4)
        self.last = nn.Linear(4, 4, bias=False)
        self.last.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x)).tanh())


def test_without_a_head_not_all_can_be_frozen(make_problem: Any) -> None:
    problem = make_problem(Tied)
    assert not problem.head_is_a_gene
    masks = [problem.mask_of(genes) for genes in problem.initial_points(100)]
    assert masks == [(0, 0), (1, 0)]
    result = evolve(problem, strategy=RandomSearch(), max_evaluations=5, generations=9, seed=0)
    assert sorted(problem.trained) == [(0, 0), (0, 1), (1, 0)]
    assert result.counts.failed == 0


def test_an_interrupted_search_trains_no_mask_twice(make_problem: Any, tmp_path: Path) -> None:
    def search(problem: Any, run_dir: Path) -> en.Result:
        return evolve(problem, population=6, generations=3, seed=1, run_dir=run_dir)

    first, second, whole = make_problem(), make_problem(), make_problem()
    first.stop_after = 4
    with pytest.raises(en.SearchInterrupted, match="4 evaluations are saved in"):
        search(first, tmp_path / "a")
    result = search(second, tmp_path / "a")
    expected = search(whole, tmp_path / "b")
    assert first.trained + second.trained == whole.trained
    assert len(set(whole.trained)) == len(whole.trained)
    assert [curve(entry) for entry in result.evaluations] == [
        curve(entry) for entry in expected.evaluations
    ]
    third = make_problem()
    search(third, tmp_path / "a")
    assert third.trained == []


def test_two_objectives(make_problem: Any) -> None:
    objectives = [en.Objective("accuracy"), en.Objective("trainable_share", "min")]
    problem = make_problem(objectives=objectives)
    result = evolve(problem, strategy=RandomSearch(), max_evaluations=5, seed=0)
    assert len(result.evaluations) == 5
    for entry in result.evaluations:
        assert entry.values == (
            entry.epochs[-1].metrics["accuracy"], entry.metrics["trainable_share"],
        )  # fmt: skip
    front = [problem.mask_of(entry.genes) for entry in result.pareto_front]
    assert (1, 1, 1, 1) in front  # nothing trains less


def test_freshly_initialised_blocks_are_named(
    make_problem: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fresh(*, n: int) -> nn.Module:
        model = mlp()
        for position in (2, 0)[:n]:
            model[position] = nn.Linear(4 if position == 0 else 8, 8)  # type: ignore[operator]
        return model

    make_problem()
    make_problem(lambda: fresh(n=2))  # all of it: trained from scratch, and no surprise
    assert caplog.messages == []
    make_problem(lambda: fresh(n=1))
    assert caplog.messages == [
        "Sequential: 2 is freshly initialised, so to freeze them keeps random weights; "
        "blocks=[...] leaves them out of the mask"
    ]


def moved() -> nn.Module:
    model = mlp()
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-6
    return model


def test_what_makes_another_problem(make_problem: Any) -> None:
    def fingerprint(factory: Any = mlp, **options: Any) -> Any:
        problem = make_problem(factory, **options)
        problem.configure(None)
        return problem.fingerprint()

    known = fingerprint()
    assert fingerprint() == known
    with seeded(123):
        assert fingerprint() == known
    inputs, targets = vectors()
    others = [
        fingerprint(moved),
        fingerprint(lambda: nn.Sequential(*mlp(), nn.Tanh(), nn.Linear(2, 2))),
        fingerprint(train=(inputs, targets)),
        fingerprint(train=(inputs, 1 - targets)),
        fingerprint(val=(inputs, targets)),
        fingerprint(n_epochs=3),
        fingerprint(batch_size=9),
        fingerprint(lr=0.03),
        fingerprint(weight_decay=0.0),
        fingerprint(schedule="constant"),
        fingerprint(grad_clip=None),
        fingerprint(optimizer=torch.optim.SGD),
        fingerprint(precision="bfloat16"),
        fingerprint(augment=jitter),
        fingerprint(loss_function=functional.multi_margin_loss),
        fingerprint(metric=negative_error),
        fingerprint(blocks={"0": ["0", "2"], "2": "3"}),
    ]
    texts = {repr(sorted(other.items(), key=str)) for other in [known, *others]}
    assert len(texts) == 1 + len(others)


def test_a_run_of_other_weights_is_refused(make_problem: Any, tmp_path: Path) -> None:
    evolve(make_problem(mlp), population=2, generations=1, seed=0, run_dir=tmp_path)
    with pytest.raises(RunMismatchError, match="another problem .weights: "):
        evolve(make_problem(moved), population=2, generations=1, seed=0, run_dir=tmp_path)


def test_the_fresh_head_is_not_part_of_the_weights(make_problem: Any) -> None:
    first, second = make_problem(), make_problem()
    assert first.pretrained.fresh == {"9.weight", "9.bias"}
    assert first.pretrained.identity == second.pretrained.identity


def jitter(inputs: Tensor, generator: torch.Generator) -> Tensor:
    return inputs + torch.randn(inputs.shape, generator=generator)


def test_random_augmentation_forbids_reuse(
    make_problem: Any, caplog: pytest.LogCaptureFixture
) -> None:
    problem = make_problem(augment=jitter)
    found = outcome(problem, [1, 1, 0, 0])
    assert found.metrics["prefix_depth"] == 0
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        "Sequential: frozen prefixes are computed in every epoch: the training data are augmented "
        "at random"
    ]
    assert curve(found) != curve(outcome(make_problem(), [1, 1, 0, 0]))
    assert curve(found) == curve(outcome(make_problem(augment=jitter), [1, 1, 0, 0]))


def negative_error(outputs: Tensor, targets: Tensor) -> float:
    return -float(functional.mse_loss(outputs[:, 0], targets.float()))


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(outputs[:, 0], targets.float())


def test_a_regression(make_problem: Any) -> None:
    inputs, counts = vectors(50, high=5)  # as labels these would be out of range
    data = inputs, counts
    problem = make_problem(
        mlp, train=data, val=data, loss_function=squared, metric=negative_error, lr=0.05, n_epochs=6
    )
    assert problem.objectives[0].name == "negative_error"
    champion = evolve(problem, population=2, generations=1, seed=0).champion
    errors = [row.metrics["negative_error"] for row in champion.epochs]
    assert champion.values == (errors[-1],)
    assert errors[0] < errors[-1] < 0
    problem.with_test((inputs.flip(0), counts.flip(0)))


def test_images(make_problem: Any) -> None:
    def convolutions() -> nn.Module:
        with seeded(1):
            return nn.Sequential(
                nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3),
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
            )  # fmt: skip

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 8, 8), generator=generator, dtype=torch.uint8)
    data = Examples(images, torch.arange(20) % 2, ("a", "b"), mean=(0.5,) * 3, std=(0.2,) * 3)
    found = outcome(make_problem(convolutions, train=data, val=data), [1, 0])
    assert found.status is en.Status.OK, found.error
    assert found.metrics["prefix_depth"] == 1


def test_a_training_that_diverges(make_problem: Any) -> None:
    found = outcome(make_problem(lr=1e30, schedule="constant", n_epochs=3), [0, 0, 0, 0])
    assert found.status is en.Status.DIVERGED
    assert len(found.epochs) < 3
    assert found.metrics["train_seconds"] > 0


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x)).detach())


def test_a_trainable_block_without_a_gradient(make_problem: Any) -> None:
    problem = make_problem(Detached)
    assert outcome(problem, [1, 1]).status is en.Status.OK
    found = outcome(problem, [1, 0])
    assert found.status is en.Status.FAILED
    assert "no gradient reached second of Detached, which the mask [1, 0] leaves" in found.error


def test_a_training_leaves_nothing_to_carry_to_workers(make_problem: Any) -> None:
    problem = make_problem()
    problem.configure(None)
    before = len(cloudpickle.dumps(problem))
    outcome(problem, [1, 1, 1, 1])
    assert len(cloudpickle.dumps(problem)) < before + 1000


def test_by_hand(make_problem: Any) -> None:
    """A trial that no search made decides for itself."""
    problem = make_problem()
    trial = Trial()
    value = problem.evaluate(problem.genes_of([1, 1, 1, 0]), trial)
    assert 0 <= value <= 1
    assert trial.metrics["prefix_depth"] == 3


def test_blocks_that_the_factory_has_frozen_are_no_genes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = nn.Sequential(
        nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)
    )
    for position in (0, 2):
        model[position].requires_grad_(False)
    data = torch.randn(20, 8), torch.arange(20) % 2
    factory = functools.partial(copy.deepcopy, model)
    problem = FreezingProblem(factory, data, data, n_epochs=1, precision="float32", lr=0.1)
    assert [block.name for block in problem.blocks] == ["1", "3"]
    assert "model_factory has frozen 0, 2 already: no gene, left as they are" in caplog.text
    result = en.evolve(problem, generations=1, population=4, seed=0)
    trained = [entry.metrics["trainable_params"] for entry in result.evaluations]
    assert sorted(trained) == [18, 90, 90, 162], "four masks are four networks"
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="Sequential with every block frozen"):
        FreezingProblem(factory, data, data)


def test_the_optimizer_gets_what_is_trainable() -> None:
    def made(**settings: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
        problem = FreezingProblem(
            lambda: nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)),
            (torch.ones(8, 4), torch.arange(8) % 2), (torch.zeros(12, 4), torch.arange(12) % 2),
            lr=1.0, weight_decay=0.1, precision="float32", include_head=True, **settings,
        )  # fmt: skip
        (model := problem.build({}))[0].requires_grad_(False)
        return model, problem.optimizer(model, {})

    for settings, kind, lr in (
        ({}, torch.optim.AdamW, 1.0),
        ({"optimizer": lambda groups: torch.optim.SGD(groups, lr=0.3)}, torch.optim.SGD, 0.3),
    ):
        model, optimizer = made(**settings)
        assert type(optimizer) is kind
        decays = [(group["weight_decay"], group["lr"]) for group in optimizer.param_groups]
        assert decays == [(0.1, lr), (0.0, lr)]
        held = [p for group in optimizer.param_groups for p in group["params"]]
        assert [id(p) for p in held] == [id(p) for p in model[1].parameters()]
