"""The image classification problem: what a trial trains, reports, and keeps."""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import evonas as en
from evonas.exceptions import DataError, InvalidPoint
from evonas.execution.trial import Trial, TrialSettings
from evonas.nas import FAMILIES, Network
from evonas.nas.layers import Activation, AdaptiveAvgPool2d, Conv2d, Flatten, Linear, MaxPool2d
from evonas.nas.problem import ImageClassificationProblem
from evonas.space import SearchSpace
from evonas.space.genes import Float
from evonas.training import Examples, FlipCrop

Make = Callable[..., ImageClassificationProblem]

SPACE = SearchSpace({"filters": [4, 8], "pools": [1, 6], "lr": Float(0.01, 1.0, log=True)})
GENES = {"filters": 4, "pools": 1, "lr": 0.1}


def tiny_network(genes: dict[str, Any], n_classes: int) -> Network:
    pools = (MaxPool2d(2),) * genes["pools"]
    features = (Conv2d(genes["filters"], 3, 2, 1), Activation("relu"), *pools, AdaptiveAvgPool2d(2))
    return Network(features, (Flatten(), Linear(n_classes)))


def share_of_first(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    return float((outputs.argmax(1) == 0).float().mean())


@pytest.fixture
def make_tiny(make_data: Callable[..., Examples]) -> Make:
    def make(data: Any = None, **settings: Any) -> ImageClassificationProblem:
        settings = {"n_epochs": 2, "batch_size": 8, "precision": "float32", **settings}
        return ImageClassificationProblem(SPACE, tiny_network, data or make_data(80), **settings)

    return make


def test_a_trial_reports_each_epoch_and_returns_the_last(make_tiny: Make) -> None:
    trial = Trial(TrialSettings(seed=5))
    accuracy = make_tiny(n_epochs=4).evaluate(GENES, trial)
    assert isinstance(accuracy, float)
    assert len(trial.history) == 4
    assert set(trial.history[0].metrics) == {"accuracy", "loss", "lr", "train_loss"}
    assert trial.history[-1].metrics["accuracy"] == accuracy
    # 3 weights of 3x3 and a bias a filter; 4 x 2 x 2 features and a bias a class.
    assert trial.metrics == {"params": 4 * 28 + 4 * 17, "macs": 4 * 27 * 256 + 16 * 4}
    assert accuracy > 0.5  # four classes that differ in brightness


def test_the_seed_decides_and_nothing_else(make_tiny: Make) -> None:
    def train(seed: int, genes: dict[str, Any] = GENES) -> list[Any]:
        trial = Trial(TrialSettings(seed=seed))
        make_tiny().evaluate(genes, trial)
        return [row.metrics for row in trial.history]

    torch.manual_seed(1)
    first = train(3)
    torch.manual_seed(2)
    torch.rand(5)
    assert train(3) == first
    assert train(4) != first
    assert train(3, {**GENES, "lr": 0.2}) != first


def test_the_loop_trains_as_the_problem_says(
    make_tiny: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: dict[str, Any] = {}

    def fit(model: Any, train: Any, val: Any, **settings: Any) -> float:
        called.update(settings, n_train=len(train), n_val=len(val))
        return 0.5

    monkeypatch.setattr("evonas.training.problem.fit", fit)
    assert make_tiny(n_train=48, n_val=24).evaluate(GENES, Trial(TrialSettings(seed=5))) == 0.5
    optimizer = called["optimizer"].defaults
    assert (optimizer["lr"], optimizer["momentum"], optimizer["weight_decay"]) == (0.1, 0.9, 0.0)
    expected = {
        "n_epochs": 2,
        "batch_size": 8,
        "seed": 5,
        "grad_clip": 3.0,
        "augment": None,
        "precision": "float32",
        "n_train": 48,
        "n_val": 24,
    }
    assert {name: called[name] for name in expected} == expected


def test_a_recipe_changes_the_rate_and_what_is_scored(make_tiny: Make, tmp_path: Path) -> None:
    plain, recipe = Trial(), Trial(TrialSettings(attachments=str(tmp_path)))
    make_tiny(n_epochs=3).evaluate(GENES, plain)
    problem = make_tiny(n_epochs=3, optimizer="nesterov", schedule="one_cycle", ema=0.9)
    score = problem.evaluate(GENES, recipe)
    rates = [row.metrics["lr"] for row in recipe.history]
    assert rates[0] == pytest.approx(GENES["lr"] / 25)
    assert max(rates) > GENES["lr"] / 2 > rates[-1]
    assert {row.metrics["lr"] for row in plain.history} == {GENES["lr"]}
    model = problem.build(GENES)
    model.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    images, labels = next(iter(problem.data.subset(problem.splits[1]).batches(1000)))
    with torch.inference_mode():
        found = float((model.eval()(images).argmax(1) == labels).float().mean())
    assert found == pytest.approx(score), "the averaged weights are what is kept"


def test_the_global_generator_is_left_alone(make_tiny: Make) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    make_tiny().evaluate(GENES, Trial())
    assert torch.equal(torch.get_rng_state(), before)


def test_points_without_a_valid_shape(make_tiny: Make) -> None:
    problem, genes = make_tiny(), {**GENES, "pools": 6}
    assert problem.invalid_reason(GENES) is None
    reason = problem.invalid_reason(genes)
    assert reason is not None
    assert "MaxPool2d(kernel_size=2), cannot take its input (4, 1, 1)" in reason
    with pytest.raises(InvalidPoint, match="MaxPool2d"):
        problem.evaluate(genes, Trial())


def test_weights_are_written_only_where_they_may_be_kept(make_tiny: Make, tmp_path: Path) -> None:
    problem = make_tiny()
    for best, kept in [(None, True), (0.0, True), (1.0, False)]:
        folder = tmp_path / str(best)
        trial = Trial(TrialSettings(seed=5, keep_above=best, attachments=str(folder)))
        problem.evaluate(GENES, trial)
        assert (folder / "weights.pt").is_file() is kept
    weights = torch.load(tmp_path / "None" / "weights.pt", weights_only=True)
    model = problem.build(GENES)
    model.load_state_dict(weights)
    assert all(value.is_contiguous() for value in weights.values())


def test_a_diverged_training_is_nan_and_keeps_no_weights(make_tiny: Make, tmp_path: Path) -> None:
    trial = Trial(TrialSettings(attachments=str(tmp_path / "kept")))
    space = SearchSpace({**dict(SPACE.items()), "lr": [1e30]})
    problem = make_tiny()
    problem.space = space
    assert math.isnan(problem.evaluate({**GENES, "lr": 1e30}, trial))  # type: ignore[arg-type]
    assert not (tmp_path / "kept").exists()


def test_another_metric_beside_accuracy(make_tiny: Make) -> None:
    problem, trial = make_tiny(metric=share_of_first), Trial()
    value = problem.evaluate(GENES, trial)
    assert [entry.name for entry in problem.objectives] == ["share_of_first"]
    last = trial.history[-1].metrics
    assert set(last) == {"share_of_first", "accuracy", "loss", "lr", "train_loss"}
    assert last["share_of_first"] == value
    assert problem.fingerprint()["metric"].startswith("share_of_first py")


def test_several_objectives(make_tiny: Make) -> None:
    objectives = [en.Objective("accuracy"), en.Objective("macs", "min")]
    trial = Trial()
    found = make_tiny(objectives=objectives).evaluate(GENES, trial)
    assert found == {
        "accuracy": trial.history[-1].metrics["accuracy"],
        "macs": trial.metrics["macs"],
    }
    names = "accuracy, latency, macs, params, train_seconds"
    with pytest.raises(ValueError, match=f"objectives must be among {names}, got 'speed'"):
        make_tiny(objectives=en.Objective("speed"))


def test_what_is_measured_is_on_record_where_it_is_asked_for(
    make_tiny: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def latency(model: Any, in_shape: Any, **settings: Any) -> float:
        asked.append({"shape": in_shape, **settings})
        return 2.5

    monkeypatch.setattr("evonas.nas.problem.measure_latency", latency)
    trial = Trial()
    make_tiny().evaluate(GENES, trial)
    assert asked == []
    assert "train_seconds" not in trial.metrics

    both = [en.Objective("accuracy"), en.Objective("train_seconds", "min")]
    problem = make_tiny(objectives=both, record=["latency"], latency_batch=4)
    began = time.perf_counter()
    found = problem.evaluate(GENES, trial)
    assert isinstance(found, dict)
    assert list(found) == ["accuracy", "train_seconds"]
    assert 0 < found["train_seconds"] < time.perf_counter() - began
    assert trial.metrics["train_seconds"] == found["train_seconds"]
    assert trial.metrics["latency"] == 2.5
    assert asked == [{"shape": (3, 32, 32), "batch_size": 4, "precision": "float32"}]
    assert problem.fingerprint()["latency_batch"] == 4
    assert "latency_batch" not in make_tiny(objectives=both).fingerprint()
    with pytest.raises(ValueError, match="record must be among latency, train_seconds, got 'macs'"):
        make_tiny(record=["macs"])
    with pytest.raises(ValueError, match="latency_batch must be at least 1, got 0"):
        make_tiny(latency_batch=0)


def test_training_seconds_leave_validation_out(
    make_tiny: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(outputs: torch.Tensor, labels: torch.Tensor) -> float:
        time.sleep(0.3)
        return 0.5

    trial = Trial()
    make_tiny(metric=slow, record=["train_seconds"]).evaluate(GENES, trial)
    assert trial.seconds > 0.6  # two epochs, each validated
    assert trial.metrics["train_seconds"] < trial.seconds - 0.6


def test_the_precision_is_chosen_once(make_tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def choose(device: str, threads: int) -> str:
        asked.append((device, threads))
        return "bfloat16"

    monkeypatch.setattr("evonas.training.problem.choose_precision", choose)
    problem = make_tiny(precision=None, threads=2)
    assert problem.configure(None) == {"precision": "bfloat16"}
    assert problem.configure(None) == {"precision": "bfloat16"}
    assert asked == [("cpu", 2)]
    resumed = make_tiny(precision=None)
    assert resumed.configure({"precision": "float32"}) == {"precision": "float32"}
    assert resumed.fingerprint()["precision"] == "float32"
    assert len(asked) == 1
    # Asked for in so many words: then a run of another precision is another problem.
    assert make_tiny().configure({"precision": "bfloat16"}) == {"precision": "float32"}
    with pytest.raises(ValueError, match="'float32' or 'bfloat16', got 'int8'"):
        make_tiny(precision="int8")


def test_the_trials_precision_counts(make_tiny: Make) -> None:
    problem = make_tiny()
    rows = []
    for precision in ("float32", "bfloat16"):
        trial = Trial(TrialSettings(problem={"precision": precision}))
        problem.evaluate(GENES, trial)
        rows.append(trial.history[-1].metrics)
    assert rows[0] != rows[1]


CHANGES: list[dict[str, Any]] = [
    {"n_epochs": 3},
    {"batch_size": 16},
    {"val_fraction": 0.5},
    {"n_train": 32},
    {"n_val": 8},
    {"split_seed": 1},
    {"metric": share_of_first},
    {"augment": True},
    {"augment": FlipCrop(pad=2)},
    {"precision": "bfloat16"},
    {"optimizer": "nesterov"},
    {"schedule": "one_cycle"},
    {"ema": 0.5},
]


@pytest.mark.parametrize("change", CHANGES, ids="-".join)
def test_whatever_changes_a_fitness_changes_the_fingerprint(
    make_tiny: Make, change: dict[str, Any]
) -> None:
    found = make_tiny(**change).fingerprint()
    assert found != make_tiny().fingerprint()
    assert json.loads(json.dumps(found)) == found
    assert all(value is None or isinstance(value, (str, int, float)) for value in found.values())
    assert make_tiny(**change).fingerprint() == found


def test_other_images_change_the_fingerprint(
    make_tiny: Make, make_data: Callable[..., Examples]
) -> None:
    found = {make_tiny(make_data(80, seed=seed)).fingerprint()["data"] for seed in (3, 3, 4)}
    assert len(found) == 2


class Darken:
    """An augmentation whose repr holds its address."""

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return images // 2


def test_augmentation_of_the_users(make_tiny: Make) -> None:
    problem = make_tiny(augment=Darken())
    assert problem.fingerprint()["augment"].startswith("Darken py")
    assert problem.transform.startswith("32x32 + Darken + normalize(mean=(0.")
    plain, darker = Trial(), Trial()
    make_tiny().evaluate(GENES, plain)
    problem.evaluate(GENES, darker)
    assert [row.metrics for row in plain.history] != [row.metrics for row in darker.history]


def test_validation_images_do_not_enter_the_normalisation(
    make_tiny: Make, make_data: Callable[..., Examples]
) -> None:
    data = make_data(80)
    problem = make_tiny(data)
    train, val = problem.splits
    assert not set(train.tolist()) & set(val.tolist())
    assert problem.data.mean == data.subset(train).normalised_from(range(len(train))).mean
    assert problem.data.mean != data.mean


def test_images_that_can_be_opened_again_do_not_travel(
    make_tiny: Make, make_data: Callable[..., Examples]
) -> None:
    heavy = len(pickle.dumps(make_tiny(make_data(80))))
    problem = make_tiny(_open_80)
    problem.evaluate(GENES, Trial())
    text = pickle.dumps(problem)
    assert len(text) < 20_000 < heavy
    again = pickle.loads(text)
    assert again.fingerprint() == problem.fingerprint()
    first, second = Trial(), Trial()
    assert problem.evaluate(GENES, first) == again.evaluate(GENES, second)


def test_images_that_changed_meanwhile_are_refused(
    make_tiny: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = pickle.dumps(make_tiny(_open_80))
    monkeypatch.setitem(_OPENED, "offset", 1)
    with pytest.raises(DataError, match="not those that the search began with"):
        pickle.loads(text).evaluate(GENES, Trial())


_OPENED = {"offset": 0}


def _open_80() -> Examples:
    images = torch.full((80, 3, 32, 32), _OPENED["offset"], dtype=torch.uint8)
    images += (50 * (torch.arange(80) % 4)).to(torch.uint8).view(-1, 1, 1, 1)
    return Examples(images, torch.arange(80) % 4, ("a", "b", "c", "d"))


def test_wrong_arguments(make_tiny: Make, make_data: Callable[..., Examples]) -> None:
    family = FAMILIES["alexnet-small"]
    with pytest.raises(TypeError, match=r"network must be callable .* got str"):
        ImageClassificationProblem(family.space(), "alexnet", make_data())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"data must be Examples or a function .* got str"):
        make_tiny("cifar10")
    with pytest.raises(ValueError, match="n_epochs must be at least 1, got 0"):
        make_tiny(n_epochs=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        make_tiny(batch_size=0)
    flat = Examples(torch.zeros(8, 5), torch.arange(8) % 2, ("a", "b"))
    with pytest.raises(ValueError, match=r"images \(N, C, H, W\), got examples of shape \(5,\)"):
        make_tiny(flat)


def test_defaults_for_what_the_space_lacks(make_tiny: Make) -> None:
    problem = make_tiny()
    assert problem.prm(GENES) == {"lr": 0.1, "momentum": 0.9}
    assert problem.training_genes(GENES) == {"lr": 0.1}


def test_a_search_from_end_to_end(make_tiny: Make, tmp_path: Path) -> None:
    problem = make_tiny()
    result = en.evolve(
        problem,
        population=4,
        generations=3,
        elite=1,
        run_dir=tmp_path / "run",
        threads_per_trial=1,
        seed=0,
    )
    champion = result.champion
    assert champion.fitness == max(
        entry.fitness
        for entry in result.evaluations
        if entry.fitness is not None  # type: ignore[type-var]
    )
    assert all(
        entry.status is en.Status.OK or entry.genes["pools"] == 6 for entry in result.evaluations
    )
    source = (tmp_path / "run" / "ga-champ-alexnet.py").read_text()
    assert f'"filters": {champion.genes["filters"]}' in source
    assert (tmp_path / "run" / "ga-champ-alexnet.pt").is_file()
    trained = [entry.number for entry in result.evaluations if entry.status is en.Status.OK]
    written = (tmp_path / "run" / "ga_architecture").iterdir()
    assert {path.name for path in written} == {f"ga-alexnet-{number}.py" for number in trained}


def test_images_to_validate_on_can_be_given(
    make_tiny: Make, make_data: Callable[..., Examples]
) -> None:
    data = make_data(80)
    train, val = data.subset(range(60)), data.subset(range(60, len(data)))
    problem = make_tiny(train, val=val)
    kept, held = problem.splits
    assert torch.equal(problem.data.inputs[held], val.inputs)
    assert torch.equal(problem.data.inputs[kept], train.inputs)
    assert problem.data.mean == train.normalised_from(range(60)).mean  # not of all images
    assert 0 <= problem.evaluate(GENES, Trial()) <= 1
    few = make_tiny(train, val=lambda: val, n_train=20, n_val=8)
    assert [len(part) for part in few.splits] == [20, 8]
    with pytest.raises(ValueError, match="n_val must be from 1 to the 20 examples"):
        make_tiny(train, val=val, n_val=21)
    other = Examples(val.inputs, val.targets, tuple(f"x{name}" for name in val.classes))
    with pytest.raises(DataError, match="val has classes that train has not"):
        make_tiny(train, val=other)


def test_one_class_is_refused(make_tiny: Make) -> None:
    data = Examples(torch.zeros(40, 3, 32, 32, dtype=torch.uint8), torch.zeros(40).long(), ("a",))
    with pytest.raises(ValueError, match="data must have at least two classes, got a"):
        make_tiny(data)
