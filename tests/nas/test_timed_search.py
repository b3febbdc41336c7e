"""Search and final training in a given time: stopped and gone on with, as in one go."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import evonas as en
from evonas.exceptions import RunStorageError
from evonas.execution import SerialExecutor
from evonas.execution.trial import TrialSettings
from evonas.nas import FAMILIES, final_training, search_and_train, timed_search
from evonas.nas.final_training import FinalTraining, train_final
from evonas.nas.limits import limits, widest_within, widths_within
from evonas.nas.recipes import recipe
from evonas.nas.time_plan import TimePlan, plan_time
from evonas.nas.timed_search import SearchedAndTrained, variants
from evonas.nas.training_genes import GOOD_TRAINING
from evonas.space.genes import Integer
from evonas.training import Examples, FlipCrop
from evonas.training.cuda_graphs import GraphedStep


def images(n: int = 60, seed: int = 0) -> Examples:
    """Two classes, dark and bright."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    pixels = torch.randint(0, 120, (n, 3, 16, 16), generator=generator)
    pixels += 110 * labels.view(-1, 1, 1, 1)
    return Examples(pixels.to(torch.uint8), labels, ("dark", "bright"))


SPACE = FAMILIES["resnet"].space(max_params=3_000, max_macs=200_000, in_shape=(3, 16, 16))
START = FAMILIES["resnet"].start(max_params=3_000, max_macs=200_000, in_shape=(3, 16, 16))  # type: ignore[misc]


def go(run_dir: Path, **options: Any) -> SearchedAndTrained:
    options = {"seconds": 4.0, "test": images(40, 1), **options}
    return search_and_train(
        SPACE, FAMILIES["resnet"].network, images, options.pop("test"), start=START,
        run_dir=run_dir, batch_size=16, threads=1, name="tiny", progress=False, **options,
    )  # fmt: skip


@pytest.fixture
def few_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of a known speed, and three trainings in this process."""

    def search(*args: Any, **options: Any) -> en.Result:
        for name in ("workers", "devices", "max_seconds"):
            options.pop(name, None)
        most = options.pop("max_evaluations", 3)
        return en.evolve(*args, **options, max_evaluations=most, executor=SerialExecutor())

    monkeypatch.setattr(timed_search, "evolve", search)
    monkeypatch.setattr(timed_search, "images_per_second", lambda *_: 50_000.0)


def stopped(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("few_trainings")
def test_it_ends_with_trained_weights_for_the_best_finalist(tmp_path: Path) -> None:
    plans: list[TimePlan] = []
    found = go(tmp_path / "run", on_plan=plans.append)
    assert found.plan == plans[0]
    assert found.n_trained == 3
    first = en.open_run(tmp_path / "run")
    assert first.evaluations[0].genes == START
    assert {entry.key for entry in found.result.evaluations} <= {e.key for e in first.evaluations}
    assert found.result.record.fingerprint["n_epochs"] == 4 * first.record.fingerprint["n_epochs"]
    assert all(entry.genes["lr"] == START["lr"] for entry in first.evaluations)
    assert found.final.score > 0.9
    champion: dict[str, Any] = {"__name__": "champion", "__file__": str(found.code)}
    exec(found.code.read_text(), champion)
    test = images(40, 1)
    probabilities = champion["predict"](champion["load"](str(found.weights)), test.inputs)
    accuracy = float((probabilities.argmax(1) == test.targets).float().mean())
    assert accuracy == pytest.approx(found.final.plain_score, abs=0.03)  # bfloat16 where faster

    # Again: nothing is searched or trained.
    again = go(tmp_path / "run")
    assert again.final.progress.steps == found.final.progress.steps
    assert again.final.plain_score == found.final.plain_score
    assert (again.n_trained, again.result.counts.evaluated) == (3, found.result.counts.evaluated)


@pytest.mark.usefixtures("few_trainings")
def test_given_validation_images_choose_and_are_trained_on_in_the_end(tmp_path: Path) -> None:
    wrong = images(16, 2)
    flipped = Examples(wrong.inputs, 1 - wrong.targets, wrong.classes)  # all answers are wrong
    found = go(tmp_path / "run", val=flipped)
    for folder in (tmp_path / "run", tmp_path / "run" / "finalists"):
        run = en.open_run(folder)
        assert run.record.fingerprint["n_val"] <= 16
        assert run.record.fingerprint["n_train"] <= 60
        assert max(entry.fitness for entry in run.evaluations) < 0.5, "not scored on these"
    assert found.plan.n_val <= 16
    assert found.final.score > 0.8, "60 right answers, 16 wrong ones"


@pytest.mark.usefixtures("few_trainings")
def test_what_was_stopped_in_the_final_training_goes_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(final_training, "fit_resumable", stopped)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "run")
    plan = json.loads((tmp_path / "run" / "time_plan.json").read_text())
    monkeypatch.setattr(timed_search, "images_per_second", stopped)
    seen: list[str | None] = []

    def final(problem: Any, *args: Any, **options: Any) -> FinalTraining:
        seen.append(problem.precision)
        return train_final(problem, *args, **options)

    monkeypatch.setattr(timed_search, "train_final", final)
    found = go(tmp_path / "run")
    # Measured anew, the precision might be another, and the checkpoint one of other settings.
    assert seen == [found.result.record.fingerprint["precision"]]
    assert found.n_trained == 3
    assert found.plan.n_train == plan["n_train"]
    assert found.plan.epoch_seconds == plan["epoch_seconds"]

    # With more seconds the search stays as it was: the final training goes on.
    more = go(tmp_path / "run", seconds=6.0)
    assert more.plan.seconds == 6.0
    assert more.plan.search_seconds == plan["search_seconds"]
    assert more.result.counts.evaluated == found.result.counts.evaluated

    (tmp_path / "run" / "time_plan.json").write_text("{")
    with pytest.raises(RunStorageError, match=r"time_plan\.json is damaged"):
        go(tmp_path / "run")


@pytest.mark.usefixtures("few_trainings")
def test_where_the_time_allows_no_search_the_first_network_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timed_search, "images_per_second", lambda *_: 40.0)
    found = go(tmp_path / "run", seconds=5.0)
    assert found.plan.search_seconds == 0
    assert found.n_trained == 0
    assert [entry.genes for entry in found.result.evaluations] == [START]
    assert not (tmp_path / "run" / "run.db").exists()
    assert found.final.progress.steps > 0


def test_too_little_time_says_how_much_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timed_search, "images_per_second", lambda *_: 1.0)
    with pytest.raises(ValueError, match=r"0\.1 minutes are too short: .* at least 2\.3"):
        go(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seconds": -1.0}, "seconds must be above 0"),
        ({"flips": 1}, "flips must be True or False"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"test": torch.zeros(3)}, "test must be Examples"),
        ({"run_dir": ""}, "run_dir must be the path"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        go(**{"run_dir": tmp_path / "run", **wrong})
    assert not (tmp_path / "run").exists()


def test_variants_lie_in_the_space_around_the_start() -> None:
    found = variants(SPACE, START, 8)
    assert found == variants(SPACE, START, 8)
    assert len(found) == 8
    assert START not in found
    assert len({SPACE.key(genes) for genes in found}) == 8
    for genes in found:
        assert SPACE.violated(SPACE.validate(genes)) == []


def test_variants_of_a_network_at_its_limits_are_at_them_too() -> None:
    family: Any = FAMILIES["resnet"]
    space, start = family.space(max_params=50_000), family.start(max_params=50_000)
    for genes in variants(space, start, 12):
        n_params = family.network(genes, 10).params((3, 32, 32))
        assert 0.7 * 50_000 < n_params <= 50_000


def test_widths_keep_their_proportions_within_the_limits() -> None:
    family: Any = FAMILIES["resnet"]
    space = family.space(max_params=50_000)
    genes = {**family.start(), "stem": 32, "stage1_width": 32, "stage2_width": 64}
    genes["stage3_width"] = 96
    found = widths_within(space, genes)
    assert found is not None
    widths = [found[f"stage{place}_width"] for place in (1, 2, 3)]
    assert [width / widths[0] for width in widths] == pytest.approx([1, 2, 3], rel=0.2)
    assert family.network(found, 10).params((3, 32, 32)) > 40_000
    assert {k: v for k, v in found.items() if "width" not in k and k != "stem"} == {
        k: v for k, v in genes.items() if "width" not in k and k != "stem"
    }
    assert widths_within(space, found) == found
    narrow = {**found, **{f"stage{place}_width": 4 * place for place in (1, 2, 3)}}
    assert widths_within(space, narrow) == narrow
    wider = widths_within(space, narrow, most=8.0)
    assert wider is not None
    assert wider["stage3_width"] >= 28
    assert widths_within(space, found, most=8.0) == found
    assert widths_within(family.space(max_params=100), genes) is None


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ({}, [32, 64, 128, 256]),
        ({"max_params": 50_000}, [16, 16, 24, 32]),
        ({"max_params": 50_000, "max_macs": 5_000_000}, [16, 16, 24, 32]),
        ({"max_params": 1_000_000}, [24, 44, 92, 180]),
        ({"max_macs": 5_000_000}, [8, 16, 32, 68]),
    ],
)
def test_a_hand_made_network_is_flat_where_weights_are_few(
    limit: dict[str, int], expected: list[int]
) -> None:
    family: Any = FAMILIES["resnet"]
    genes = family.start(**limit)
    assert [
        genes[f"{name}"] for name in ("stem", *(f"stage{i}_width" for i in (1, 2, 3)))
    ] == expected
    assert family.space(**limit).violated(genes) == []


def test_a_final_training_scores_what_it_says_with_and_without_the_mirror(tmp_path: Path) -> None:
    problem = en.nas.ImageClassificationProblem(
        SPACE, FAMILIES["resnet"].network, images(), batch_size=16, precision="float32",
        **recipe("long", side=16),
    )  # fmt: skip
    final = train_final(
        problem, START, images(), images(40, 1), weights=tmp_path / "w.pt", n_epochs=2,
        settings=TrialSettings(),
    )  # fmt: skip
    data, model = images(40, 1), final.module.eval()
    with torch.inference_mode():
        inputs = next(data.batches(40))[0]
        single, mirrored = model(inputs), model(inputs.flip(-1))
    right = [float((out.argmax(1) == data.targets).float().mean())
             for out in (single, single + mirrored)]  # fmt: skip
    assert [final.plain_score, final.score] == right
    assert final.progress.steps == 6
    state = torch.load(tmp_path / "w.pt", weights_only=True)
    assert list(state) == list(final.module.state_dict())


@pytest.mark.parametrize(
    ("name", "flips", "augment"),
    [
        ("one-cycle", True, FlipCrop(pad=2)),
        ("long", True, FlipCrop(pad=2, cutout=8)),
        ("long", False, FlipCrop(flip=False, pad=2)),
    ],
)
def test_the_recipes(name: Any, flips: bool, augment: FlipCrop) -> None:
    found = recipe(name, flips=flips)
    assert found["augment"] == augment
    assert found.get("test_time_flip", False) == (flips and name == "long")
    assert recipe("plain") == {}
    brief = recipe("long", n_epochs=29)
    assert brief == {**recipe("long"), "augment": FlipCrop(pad=2)}
    assert recipe("long", n_epochs=30) == recipe("long")
    with pytest.raises(ValueError, match="name must be 'plain', 'one-cycle' or 'long', got 'best'"):
        recipe("best")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.start])
def test_the_hand_made_point_keeps_to_the_limits(name: str) -> None:
    family = FAMILIES[name]
    assert family.start is not None
    for within in ({}, {"max_params": 50_000}, {"max_macs": 5_000_000, "max_params": 100_000}):
        space, genes = family.space(**within), family.start(**within)
        assert space.validate(genes) == genes
        assert space.violated(genes) == []
        network = family.network(genes, 10)
        if "max_params" in within:
            assert network.params((3, 32, 32)) > 0.4 * within["max_params"] or "max_macs" in within
    with pytest.raises(ValueError, match="at most 10 weights.* too small for the narrowest"):
        family.start(max_params=10)
    with pytest.raises(ValueError, match="max_macs must be at least 1, got 0"):
        family.space(max_macs=0)


def test_the_widest_within() -> None:
    def scaled(share: float) -> dict[str, Any]:
        return {"width": int(100 * share)}

    allowed = {"even": lambda genes: genes["width"] % 2 == 0, "low": lambda g: g["width"] < 80}
    assert widest_within(scaled, allowed) == {"width": 78}
    assert limits(FAMILIES["resnet"].network, None, None) == {}
    assert isinstance(FAMILIES["resnet"].space()["stem"], Integer)


def test_a_limit_is_exact() -> None:
    network = FAMILIES["resnet"].network
    for argument, cost in (
        ("max_macs", network(START, 10).macs((3, 16, 16))),
        ("max_params", network(START, 10).params((3, 16, 16))),
    ):
        for most, allowed in ((cost, True), (cost - 1, False)):
            given = {"max_macs": None, "max_params": None, argument: most}
            (within,) = limits(network, **given, in_shape=(3, 16, 16)).values()
            assert within(START) is allowed


def test_what_is_searched_is_structure_that_can_be_trained_to_its_end() -> None:
    plan = plan_time(100.0, images_per_second=1000.0, n_images=1000)
    plan = dataclasses.replace(plan, max_growth=1.5)
    family, shape = FAMILIES["resnet"], (3, 32, 32)
    start = family.start(max_macs=5_000_000)  # type: ignore[misc]
    searched = timed_search._searched_space(family.space(), family.network, start, plan, shape)
    most = 1.5 * family.network(start, 10).macs(shape)
    rng = random.Random(0)
    for _ in range(30):
        genes = searched.sample(rng)
        assert {name: genes[name] for name in GOOD_TRAINING} == dict(GOOD_TRAINING)
        assert family.network(genes, 10).macs(shape) <= most


def test_the_speed_is_measured_of_recorded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the trainings take them on a GPU; on a CPU none is recorded."""
    taken: list[str] = []
    make = timed_search.step_of

    def recorded(run: Callable[[], Any]) -> Callable[[], Any]:
        taken.append("recorded")
        return run

    monkeypatch.setattr(
        timed_search, "step_of", lambda *a, **k: GraphedStep(make(*a, **k), recorded)
    )
    monkeypatch.setattr(
        timed_search.time, "perf_counter", lambda: taken.append("clock") or float(len(taken))
    )
    problem = en.nas.ImageClassificationProblem(
        SPACE,
        FAMILIES["resnet"].network,
        images(64),
        batch_size=16,
        precision="float32",
        n_epochs=1,
    )
    speed = timed_search.images_per_second(problem, START, TrialSettings(threads=1))
    assert taken[-3:] == ["recorded", "clock", "clock"], "nothing is recorded while time runs"
    assert speed > 0
