"""The first lines of a report: true of the run, and no surer than it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import evonas as en
from evonas.exceptions import WeightsError
from evonas.records import Evaluation, Status
from evonas.report.answer import answer
from evonas.training import ModelProblem

Write = Callable[..., en.Result]


def told(result: en.Result) -> dict[str, str]:
    return dict(answer(result))


def valued(*values: float | None) -> Callable[[Evaluation], Evaluation]:
    """Makes evaluation i have the i-th value; None: it failed."""

    def edit(entry: Evaluation) -> Evaluation:
        value = values[entry.number]
        if value is None:
            return dataclasses.replace(entry, status=Status.FAILED, values=(), error="no")
        return dataclasses.replace(entry, status=Status.OK, values=(value,), error=None)

    return edit


def test_what_was_searched_names_data_and_space(write_run: Write) -> None:
    space = en.SearchSpace({"a": [1, 2, 3], "b": en.Boolean()})
    fingerprint = {"problem": "image-classification", "n_train": 1437, "n_val": 360, "n_epochs": 3}
    result = write_run(4, space=space, fingerprint=fingerprint, metadata={"dataset": "digits"})
    assert told(result)["Searched"] == (
        "Generational looked for the highest accuracy in image-classification on digits, trained "
        "on 1,437 and scored on 360 examples, 3 epochs each. The space has 2 genes and 6 points."
    )


def test_what_was_found_is_held_against_the_first_generation(write_run: Write) -> None:
    values = (0.2, 0.5, 0.3, 0.8, 0.7, 0.1)
    found = told(write_run(6, per_generation=3, edit=valued(*values)))["Found"]
    assert found == (
        "Evaluation 3 has accuracy 0.8. The first 3 points had 0.5 at best and 0.3 as their median."
    )


def test_no_gain_is_said(write_run: Write) -> None:
    found = told(write_run(4, per_generation=2, edit=valued(0.9, 0.1, 0.4, 0.9)))["Found"]
    assert found == (
        "Evaluation 0 has accuracy 0.9, no better than the best of the first 2 points, which had "
        "0.5 as their median."
    )


def test_lower_may_be_better(write_run: Write) -> None:
    lowest = (en.Objective("loss", "min"),)
    result = write_run(4, per_generation=2, edit=valued(0.9, 0.5, 0.4, 0.7), objectives=lowest)
    answers = told(result)
    assert "looked for the lowest loss" in answers["Searched"]
    assert answers["Found"].startswith("Evaluation 2 has loss 0.4. The first 2 points had 0.5 at")


def test_one_training_each_is_called_luck_and_repeats_are_not(
    small: en.Result, masks: en.Result
) -> None:
    assert "partly luck" in told(small)["How sure"]
    sure = told(masks)["How sure"]
    best, *others = masks.confirmed
    assert (
        f"Trained again on 3 fresh seeds it has fitness {best.mean:.4g} ± {best.std:.2g}." in sure
    )
    assert f"The best of the {len(others)} others has {others[0].mean:.4g}" in sure
    apart = best.mean - others[0].mean > max(best.std, others[0].std)
    assert ("cannot be told apart" in sure) == (not apart)


@pytest.mark.parametrize(("gap", "within"), [(0.001, True), (1.0, False)])
def test_what_is_within_the_spread_of_the_seeds_is_no_victory(gap: float, within: bool) -> None:
    space = en.SearchSpace({"x": [0, 1]})

    def noisy(genes: en.Genes, trial: en.Trial) -> float:
        return genes["x"] * gap + trial.seed % 97 / 1000

    problem = en.FunctionProblem(space, noisy, problem_id="noisy")
    result = en.evolve(problem, max_evaluations=2, seed=0, progress=False)
    evaluations = sorted(result.evaluations, key=lambda entry: -entry.genes["x"])
    repeats = [
        tuple(dataclasses.replace(entry, number=i, values=(entry.genes["x"] * gap + i / 100,))
              for i in range(3))
        for entry in evaluations
    ]  # fmt: skip
    from evonas.run.result import Confirmed

    result._confirmed = [Confirmed(e, r) for e, r in zip(evaluations, repeats, strict=True)]
    result.record = dataclasses.replace(result.record, confirmed_champion=evaluations[0].key)
    assert ("cannot be told apart" in told(result)["How sure"]) == within


def test_the_cost_counts_what_came_to_nothing(write_run: Write) -> None:
    cost = told(write_run(4, edit=valued(0.1, None, 0.3, None)))["Cost"]
    assert cost == "12 s of searching; 4 trainings took 4 s in all; 2 failed."


def test_the_next_step_follows_from_how_it_ended(write_run: Write) -> None:
    many_failed = told(write_run(4, edit=valued(0.1, None, 0.3, None)))["Next"]
    assert many_failed.startswith("Train the best again on fresh seeds: evonas.confirm(problem, ")
    assert "see why so many failed (below)" in many_failed
    assert many_failed.endswith(".champion.genes.")
    assert "Fix what failed" in told(write_run(2, edit=valued(None, None)))["Next"]


@pytest.mark.parametrize(("best_at", "rises"), [(5, False), (29, True)])
def test_a_best_that_still_rises_asks_for_more(write_run: Write, best_at: int, rises: bool) -> None:
    values: list[Any] = [0.1 + 0.001 * (number == best_at) for number in range(30)]
    next_step = told(write_run(30, edit=valued(*values)))["Next"]
    assert ("a larger budget may find more" in next_step) == rises


def test_two_objectives_are_told_by_their_front(two_objectives: en.Result) -> None:
    answers = told(two_objectives)
    front = two_objectives.pareto_front
    assert "highest accuracy and lowest size" in answers["Searched"]
    words = "are points that no other beats in one objective without losing in another: "
    assert answers["Found"].startswith(f"{len(front)} of 40 {words}")
    for end in (front[0], front[-1]):
        assert f"(evaluation {end.number})" in answers["Found"]
    assert "confirm" not in answers["Next"]


def test_a_strangers_record_is_text(write_run: Write) -> None:
    result = write_run(
        3, fingerprint={"problem": ["<b>"], "n_train": "many", "model": 3, "n_epochs": True},
        metadata={"dataset": {"x": 1}}, strategy={"name": "<i>", "hall_of_fame": 10},
    )  # fmt: skip
    assert told(result)["Searched"].startswith("<i> looked for the highest accuracy. The space")
    broken = dataclasses.replace(result.record, space={"genes": [{"name": "a", "type": "?"}]})
    result.record = broken
    assert "an unknown number of points" in told(result)["Searched"]


class Own(nn.Module):
    """Not known as data, as a Sequential of torch's layers is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(2, width), nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.body(x).relu())
        return found


def own(genes: dict[str, Any]) -> nn.Module:
    return Own(genes["x"])


def sequential(genes: dict[str, Any]) -> nn.Module:
    return nn.Sequential(nn.Linear(2, genes["x"]), nn.Linear(genes["x"], 2))


@pytest.mark.parametrize(
    ("model", "has_builder"),
    [(None, False), (lambda genes: own(genes), False), (own, True), (sequential, True)],
)
def test_the_weights_are_loaded_as_another_process_can(
    model: Any, has_builder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def fitness(genes: dict[str, Any], trial: en.Trial) -> float:
        trial.save(own(genes))
        return float(genes["x"])

    data, space = (torch.randn(20, 2), torch.arange(20) % 2), {"x": [2, 3]}
    arguments: tuple[Any, ...] = (space, fitness)
    if model is not None:
        arguments = (ModelProblem(space, model, data, data, n_epochs=1, precision="float32"),)
    here = en.evolve(*arguments, max_evaluations=2, run_dir=tmp_path / "run", progress=False)
    result = en.open_run(tmp_path / "run")
    for next_step in (told(result)["Next"], told(here)["Next"]):
        if has_builder:
            assert next_step.endswith(".champion.load_model().")
        else:
            assert ".champion.load_model(model), where model is your function of the" in next_step
    if has_builder:
        result.champion.load_model()
    else:
        with pytest.raises(WeightsError, match="only your code knows"):
            result.champion.load_model()
        result.champion.load_model(own)


def test_a_repeated_point_of_several_objectives_is_named(tmp_path: Path) -> None:
    problem = en.FunctionProblem(
        en.SearchSpace({"x": [1, 2, 3]}), lambda genes, trial: (genes["x"], genes["x"] ** 2),
        objectives=[en.Objective("acc"), en.Objective("cost", "min")], problem_id="two",
    )  # fmt: skip
    en.evolve(problem, strategy="random", max_evaluations=3, seed=0, run_dir=tmp_path)
    en.confirm(problem, tmp_path, top=1)
    result = en.open_run(tmp_path)
    best = result.champion.number
    sure = told(result)["How sure"]
    assert sure == f"Trained again on 3 fresh seeds evaluation {best} has acc 3 ± 0."
