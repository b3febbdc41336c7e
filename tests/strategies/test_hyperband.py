from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.exceptions import UnsatisfiableSpaceError
from evonas.strategies import Hyperband
from evonas.testing import RoughProblem, StrategyConformance

SPACE = {"x": en.Integer(0, 999), "n_epochs": en.Integer(1, 9)}


def gain(genes: Any, trial: en.Trial) -> float:
    return float(genes["x"] + genes["n_epochs"] / 10)


class TestHyperband(StrategyConformance):
    def make_strategy(self) -> en.Strategy:
        return Hyperband(reduction=2, n_brackets=None, row_every=8)

    def _problem(self, space: Any = None) -> en.Problem:
        # The suite's own spaces have no gene of how long a point is trained.
        small = {"bit0": en.Boolean(), "bit1": en.Boolean(), "n_epochs": [1, 3]}
        large = {"x": en.Integer(0, 49), "activation": ["relu", "gelu"], "n_epochs": [1, 2, 4]}
        genes = large if space is None else small
        return RoughProblem(en.SearchSpace(genes), objectives=self.objectives)

    def test_the_direction_of_the_objectives_counts(self) -> None:
        """A search for the least of the mirrored values chooses the same points."""
        chosen = [
            en.evolve(
                SPACE,
                lambda genes, trial, sign=sign: sign * gain(genes, trial),
                objectives=en.Objective("value", direction),
                strategy=self.make_strategy(),
                max_evaluations=30,
                seed=1,
            )
            for sign, direction in ((1, "max"), (-1, "min"))
        ]
        genes = [[entry.genes for entry in result.evaluations] for result in chosen]
        assert genes[0] == genes[1]

    def test_every_point_failing_stops_the_search(self) -> None:
        """After `max_consecutive_failures`, with the last error."""

        def fails(genes: Any, trial: en.Trial) -> float:
            raise RuntimeError("nothing works")

        with pytest.raises(en.TooManyFailures, match="6 evaluations in a row failed"):
            en.evolve(SPACE, fails, strategy=self.make_strategy(), max_consecutive_failures=6)

    def test_initial_points_come_first(self) -> None:
        """What the user knows to be good is in the first population."""
        initial = [{"x": 998, "n_epochs": 1}, {"x": 997, "n_epochs": 9}]
        result = en.evolve(
            SPACE, gain, strategy=self.make_strategy(), initial=initial, max_evaluations=9, seed=0
        )
        assert [entry.genes for entry in result.evaluations][:2] == initial


def searched(tmp_path: Path, **arguments: Any) -> en.Result:
    strategy = Hyperband(**arguments)
    return en.evolve(
        SPACE, gain, strategy=strategy, max_evaluations=40, seed=0, run_dir=tmp_path, workers=1
    )


def test_the_best_third_of_each_rung_goes_on(tmp_path: Path) -> None:
    result = searched(tmp_path)
    entries = {entry.number: entry for entry in result.evaluations}
    on = {n: [e for e in entries.values() if e.genes["n_epochs"] == n] for n in (1, 3, 9)}
    assert sum(map(len, on.values())) == len(entries) == 40
    assert len(on[1]) // 3 <= len(on[3]) < len(on[1]) / 2  # some early ones are no longer
    assert len(on[3]) // 3 <= len(on[9]) < len(on[3]) / 2
    assert {e.genes["x"] for e in on[9]} <= {e.genes["x"] for e in on[3]}
    # Each was among the best third of its rung when it was chosen, and comes from the shorter.
    for entry in on[3]:
        before = [e.fitness for e in on[1] if e.number < entry.number]
        n_better = sum(value > entry.genes["x"] + 0.1 for value in before)
        assert n_better < len(before) / 3
    longest = max(on[9], key=lambda entry: entry.values[0])
    assert result.champion == longest


def test_lineage_is_on_record(tmp_path: Path) -> None:
    from evonas.testing import trace

    result = searched(tmp_path)
    entries = {entry.number: entry for entry in result.evaluations}
    for planned in trace(result)["proposals"]:
        entry = entries[planned.evaluation]
        if entry.genes["n_epochs"] == 1:
            assert planned.parents == ()
        else:
            (parent,) = planned.parents
            shorter = {**entry.genes, "n_epochs": entry.genes["n_epochs"] // 3}
            assert entries[parent].genes == shorter


def test_brackets_begin_on_every_rung(tmp_path: Path) -> None:
    result = searched(tmp_path, n_brackets=None)
    starts = Counter(
        min(e.genes["n_epochs"] for e in result.evaluations if e.genes["x"] == x)
        for x in {e.genes["x"] for e in result.evaluations}
    )
    assert starts[1] > starts[3] > 0
    assert starts[9] > 0


def test_a_small_space_is_trained_to_the_end() -> None:
    space = {"x": [1, 2, 3], "n_epochs": [1, 4]}
    result = en.evolve(space, gain, strategy=Hyperband(reduction=4), max_seconds=60, seed=0)
    assert result.counts.evaluated == 6
    assert result.champion.genes == {"x": 3, "n_epochs": 4}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"x": [1, 2]}, "needs a gene 'n_epochs'.*got none"),
        ({"n_epochs": ["few", "many"]}, "needs a gene 'n_epochs'"),
        ({"n_epochs": en.Float(1, 9)}, "needs a gene 'n_epochs'"),
        ({"n_epochs": [5, 6]}, "goes from 5 to 6, which is one rung only"),
    ],
)
def test_a_space_without_rungs_is_refused(space: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        en.evolve(space, gain, strategy=Hyperband(), max_evaluations=3)


def test_a_gene_under_a_condition_is_refused() -> None:
    space = en.SearchSpace({"x": [1, 2], "n_epochs": [1, 9]}, conditions={"n_epochs": {"x": [1]}})
    with pytest.raises(ValueError, match="must be free of conditions"):
        en.evolve(space, gain, strategy=Hyperband(), max_evaluations=3)


def test_a_space_of_invalid_points_is_refused() -> None:
    class Nothing(en.Problem):
        def invalid_reason(self, genes: Any) -> str:
            return "nothing works"

    with pytest.raises(UnsatisfiableSpaceError, match="builds anything new"):
        en.evolve(Nothing(en.SearchSpace(SPACE)), strategy=Hyperband(), max_evaluations=3)
