"""A driver of one's own finds what `evolve` finds."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

import evonas as en
from evonas.exceptions import FitnessError
from evonas.strategies.auto import BY_NAME

SPACE = {"x": en.Integer(0, 20), "y": en.Integer(0, 20), "z": [1, 2, 3]}
TWO = [en.Objective("gain"), en.Objective("cost", "min")]


def value(genes: dict[str, Any]) -> float:
    return genes["x"] * genes["z"] - (genes["y"] - 7) ** 2


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - {"nsga2"}))
def test_it_asks_for_what_evolve_evaluates(name: str) -> None:
    space = {**SPACE, "n_epochs": en.Integer(1, 9)}
    result = en.evolve(
        space, lambda genes, trial: value(genes), strategy=name, seed=5, max_evaluations=60,
        progress=False,
    )  # fmt: skip
    search = en.AskTell(space, name, seed=5)
    while len(search.evaluations) < 60:
        for proposal in search.ask():
            if len(search.evaluations) < 60:
                search.tell(proposal, value(proposal.genes))
    assert [(e.genes, e.values, e.seed) for e in search.evaluations] == [
        (e.genes, e.values, e.seed) for e in result.evaluations
    ]
    assert search.best.values == result.champion.values


def test_a_synchronous_strategy_hears_in_the_order_in_which_it_asked() -> None:
    def run(shuffle: bool) -> list[dict[str, Any]]:
        search, rng = en.AskTell(SPACE, en.NSGA2(10), objectives=TWO, seed=1), random.Random(0)
        asked = []
        for _ in range(4):
            batch = search.ask()
            asked += [proposal.genes for proposal in batch]
            assert search.ask() == [], "it waits"
            if shuffle:
                rng.shuffle(batch)
            for proposal in batch:
                genes = proposal.genes
                search.tell(proposal, {"gain": genes["x"], "cost": genes["x"] + genes["y"]})
        return asked

    assert run(shuffle=True) == run(shuffle=False)


def test_a_synchronous_strategy_is_told_in_the_order_of_asking() -> None:
    told: list[int] = []

    class Noting(en.Generational):
        def tell(self, proposal: Any, evaluation: en.Evaluation, *, reused: bool) -> None:
            told.append(proposal.id)
            super().tell(proposal, evaluation, reused=reused)

    search = en.AskTell(SPACE, Noting(8, elite=1), seed=2)
    for _ in range(3):
        for proposal in reversed(search.ask()):
            search.tell(proposal, value(proposal.genes))
    assert told == sorted(told)
    assert len(told) > 16


def test_failures_and_an_exhausted_space() -> None:
    search = en.AskTell({"x": [1, 2, 3, 4]}, "random", seed=0)
    with pytest.raises(ValueError, match="nothing was told yet"):
        search.best  # noqa: B018
    while batch := search.ask():
        for proposal in batch:
            if proposal.genes["x"] == 4:
                search.tell(proposal, None, status="failed", error="no power")
            else:
                search.tell(proposal, proposal.genes["x"])
    assert search.best.genes == {"x": 3}
    assert sorted(entry.status for entry in search.evaluations) == ["failed", "ok", "ok", "ok"]


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="strategy must be a Strategy object or 'genetic'"):
        en.AskTell(SPACE, "bayes")
    with pytest.raises(TypeError, match=r"a Strategy, got the class NSGA2: write NSGA2\(\)"):
        en.AskTell(SPACE, en.NSGA2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"strategy must be a Strategy object or .*, got 3"):
        en.AskTell(SPACE, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed must be at least 0"):
        en.AskTell(SPACE, seed=-1)
    search = en.AskTell(SPACE, "random")
    (proposal,) = search.ask()
    with pytest.raises(ValueError, match="n must be at least 1"):
        search.ask(0)
    with pytest.raises(FitnessError, match="must return a number"):
        search.tell(proposal, "good")
    with pytest.raises(ValueError, match="must be one of 'ok', 'pruned', .* got 'great'"):
        search.tell(proposal, 1, status="great")
    search.tell(proposal, 1)
    with pytest.raises(ValueError, match=r"proposal 0 was not asked for, or was told already"):
        search.tell(proposal, 1)


def test_what_is_told_wrongly_says_what_is_meant() -> None:
    search = en.AskTell(SPACE, "random", seed=0)
    search.ask()
    with pytest.raises(TypeError, match=r"proposal must be one that ask\(\) returned, got .*dict"):
        search.tell({"x": 3, "y": 2, "z": 1}, 0.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"got the class NSGA2: write NSGA2\(\)"):
        en.AskTell(SPACE, en.NSGA2, objectives=TWO)  # type: ignore[arg-type]


@pytest.mark.parametrize("limits", [{}, {"at_most": {"cost": 20}}])
def test_the_front_is_that_of_evolve(limits: dict[str, Any]) -> None:
    def both(genes: dict[str, Any], trial: Any = None) -> dict[str, float]:
        return {"gain": genes["x"] * genes["z"], "cost": genes["x"] + genes["y"]}

    search = en.AskTell(SPACE, en.NSGA2(8, **limits), objectives=TWO, seed=3)
    assert search.pareto_front == []
    while len(search.evaluations) < 40:
        for proposal in search.ask():
            search.tell(proposal, both(proposal.genes))
    result = en.evolve(
        SPACE, both, objectives=TWO, strategy=en.NSGA2(8, **limits), seed=3,
        max_evaluations=len(search.evaluations), progress=False,
    )  # fmt: skip
    front = [entry.genes for entry in search.pareto_front]
    assert len(front) > 1
    assert front == [entry.genes for entry in result.pareto_front]


@pytest.mark.parametrize("strategy", ["surrogate", "random", "genetic", "aging", "nsga2"])
def test_what_is_no_number_is_recorded_as_diverged(strategy: str) -> None:
    search = en.AskTell({"x": en.Float(0.0, 1.0)}, strategy, objectives=TWO if strategy == "nsga2"
                        else None, seed=0)  # fmt: skip
    told = [0.5, math.nan, 0.7, math.inf, -math.inf, 1e200, *[0.1] * 30]
    asked: list[Any] = []
    for value in told:
        asked = asked or search.ask(1)  # strategies of generations return their whole batch
        search.tell(asked.pop(0), (value, 1.0) if strategy == "nsga2" else value)
    assert [entry.status for entry in search.evaluations[:6]] == ["ok", "diverged", "ok",
                                                                  *["diverged"] * 3]  # fmt: skip
    assert search.best.values[0] == 0.7
    assert "1e+200" in (search.evaluations[5].error or "")
    assert all(entry.values[0] <= 0.7 for entry in search.pareto_front)


def test_the_best_is_within_the_limits() -> None:
    search = en.AskTell(
        {"x": en.Float(0.0, 1.0)}, en.NSGA2(10, at_most={"cost": 0.25}),
        objectives=[en.Objective("gain"), en.Objective("cost", "min")], seed=0,
    )  # fmt: skip
    asked: list[Any] = []
    for _ in range(40):
        asked = asked or search.ask(1)
        proposal = asked.pop(0)
        search.tell(proposal, (proposal.genes["x"], proposal.genes["x"] ** 2))
    assert search.best.values[1] <= 0.25
    assert search.best in search.pareto_front
    assert max(entry.values[0] for entry in search.evaluations) > 0.5
