"""The benchmark's problems and records, on which its figures rest."""

from __future__ import annotations

import os
import random
import re
from typing import Any

import numpy as np
import pytest

import evonas as en
from benchmarks.search_quality import fronts, quick
from benchmarks.search_quality.ablation import OneGuess
from benchmarks.search_quality.cells import cells_table, simplified
from benchmarks.search_quality.instance import Instance, renumbered
from benchmarks.search_quality.peers import OURS, strategy_peer
from benchmarks.search_quality.problems import cells, layers, lcbench, mixed
from benchmarks.search_quality.recorder import Recorder, Spent, run_peer, stuck_share
from benchmarks.search_quality.smac_peer import genes_of, smac_forest, smac_space
from evonas.strategies import LocalSearch
from evonas.strategies.surrogate import strategy as strategy_module


def _climbed(instance: Instance, seed: int) -> float:
    """The best score of a local search on the truth that tries every value of each gene."""
    truth, space = instance.scores["truth"], instance.space
    rng = random.Random(seed)
    here = space.sample_values(rng)
    best = truth(space.genes(here))
    for _ in range(4):
        for index, gene in enumerate(space.gene_types):
            values = (
                [gene.decode([i / 64]) for i in range(65)]
                if isinstance(gene, en.Float)
                else gene.all_values()
            )
            for value in values:
                there = [*here[:index], value, *here[index + 1 :]]
                score = truth(space.genes(there))
                if score > best:
                    here, best = there, score
    return best


@pytest.mark.parametrize(("make", "n_climbs"), [(mixed, 4), (layers, 40)])
def test_the_optimum_is_the_best_there_is(make: Any, n_climbs: int) -> None:
    instance = make(5)
    found = max(_climbed(instance, seed) for seed in range(n_climbs))
    assert found <= instance.optimum["truth"] + 0.02  # `layers` takes no grid for the rate
    assert found > instance.optimum["truth"] - 0.5


def test_renumbering_changes_the_order_and_nothing_else() -> None:
    space = en.SearchSpace({"kind": list("abcdefgh"), "n": en.Integer(1, 5)})
    other = renumbered(space, random.Random(1))
    assert other["kind"].choices != space["kind"].choices
    assert sorted(other["kind"].choices) == sorted(space["kind"].choices)
    assert other["n"] == space["n"]
    assert other.key({"kind": "c", "n": 2}) == space.key({"kind": "c", "n": 2})


def test_the_record_counts_points_once_and_calls_always() -> None:
    space = en.SearchSpace({"n": [0, 1, 2, 3]})
    instance = Instance(space, lambda g: g["n"], {"n": lambda g: g["n"]}, {"n": 3})
    record = Recorder(instance, 3)
    assert [record({"n": n}) for n in (1, 1, 0, 1, 3)] == [1, 1, 0, 1, 3]
    with pytest.raises(Spent):
        record({"n": 2})
    assert record.unique_regrets()[:, 0].tolist() == [2, 2, 0]
    assert record.call_regrets()[:, 0].tolist() == [2, 2, 2]


def test_a_peer_that_stops_early_keeps_its_last_regret() -> None:
    space = en.SearchSpace({"n": [0, 1, 2, 3]})
    instance = Instance(space, lambda g: g["n"], {"n": lambda g: g["n"]}, {"n": 3})
    record = run_peer(strategy_peer(LocalSearch), instance, 10, seed=0)
    assert len(record.values) == 4
    assert record.unique_regrets()[3:, 0].tolist() == [0] * 7


@pytest.mark.parametrize("name", [name for name in OURS if name != "SurrogateEvolution"])
def test_our_peers_run(name: str) -> None:
    record = run_peer(strategy_peer(OURS[name]), layers(1), 25, seed=1)
    assert len(record.values) == 25


def test_cells_that_compute_the_same_have_the_same_accuracy() -> None:
    # Node 1 is reached by nothing; node 2 leads nowhere.
    cell = ("none", "skip", "conv1", "conv3", "conv3", "none")
    assert simplified(cell) == ("none", "none", "none", "conv3", "none", "none")
    table = cells_table()
    assert len(table) == 4096
    assert all((table[cell] == table[simplified(cell)]).all() for cell in table)
    instance = cells(3)
    genes = instance.space.sample(random.Random(0))
    here = tuple(genes[edge] for edge in ("01", "02", "12", "03", "13", "23"))
    assert instance.value(genes) == table[here][9]
    assert instance.optimum["validation"] == pytest.approx(100 * 671 / 700)


@pytest.mark.skipif("EVONAS_DATA" not in os.environ, reason="EVONAS_DATA has lcbench")
def test_no_point_of_lcbench_is_better_than_the_best_known() -> None:
    pytest.importorskip("onnxruntime")
    for seed in (0, 1):
        instance = lcbench(seed)
        (score, best) = instance.scores["accuracy"], instance.optimum["accuracy"]
        rng = random.Random(seed)
        regrets = [best - score(instance.space.sample(rng)) for _ in range(300)]
        assert min(regrets) > -0.5
        assert sorted(regrets)[150] == pytest.approx(100.0, abs=25)  # by its definition


def test_a_front_is_measured_against_the_whole_table() -> None:
    space = en.SearchSpace({"a": [0, 1, 2], "b": [0, 1, 2]})
    table = fronts.Table.of(space, lambda genes: (genes["a"], float(2 - genes["a"] - genes["b"])))
    # In the unit square: (0, 1), (0.5, 0.75) and (1, 0.5), each with b = 0; the corner is (0, -2).
    assert (table.low, table.high) == ((0, -2), (2, 2))
    assert table.whole == pytest.approx(0.5 * 0.75 + 0.5 * 0.5)
    assert table.share([(1, 1.0), (0, -1.0)]) == pytest.approx(0.5 * 0.75 / 0.625)
    assert table.share([(0, 2.0)]) == 0.0
    seen = fronts.searched(fronts.OURS["SurrogateEvolution"], table, 9, 0)
    assert table.share(seen) == pytest.approx(1.0)


def test_a_search_is_stuck_where_fifty_points_brought_nothing_and_more_is_there() -> None:
    regrets = np.full((4, 70), 5.0)
    regrets[0, 20:] = 0.0  # found the best
    regrets[1, 20:] = 1.0  # stopped there: nothing better in points 21 to 70
    regrets[2, 19:] = 1.0  # one point earlier: stuck
    assert stuck_share(regrets, 70, 1e-9) == 0.5  # the third, and the fourth that never moved
    assert stuck_share(regrets, 70, 1.0) == 0.25
    assert stuck_share(regrets, 69, 1e-9) == 0.25


def test_one_guess_takes_no_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("a draw")

    monkeypatch.setattr(strategy_module, "drawn", refuse)
    assert len(run_peer(strategy_peer(OneGuess), cells(0), 45, seed=0).values) == 45
    with pytest.raises(RuntimeError, match="a draw"):
        run_peer(strategy_peer(OURS["SurrogateEvolution"]), cells(0), 45, seed=0)


def test_the_quick_table_says_n_its_spread_and_what_it_leaves_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = quick.Plan(
        problems=("cells", "macro"), peers=("LocalSearch", "random, no repeats", "SMAC"),
        slow=("random, no repeats",), sizes=(5, 10), n_seeds=3, n_slow_seeds=2,
    )  # fmt: skip
    monkeypatch.delenv("EVONAS_DATA", raising=False)
    monkeypatch.setattr(quick, "installed", lambda package: package != "smac")
    assert quick.missing(plan) == {
        "macro": "left out: set EVONAS_DATA to the folder that holds its data",
        "SMAC": "left out: not installed: pip install smac",
    }
    found = {("cells", name): quick.measured(plan, "cells", name) for name in plan.peers[:2]}
    regrets = found["cells", "LocalSearch"].regrets
    assert regrets.shape == (3, 2)
    expected = run_peer(strategy_peer(OURS["LocalSearch"]), cells(701), 10, 701).unique_regrets()
    assert regrets[1].tolist() == [expected[4, 0], expected[9, 0]]
    quick.print_tables(plan, found)
    quick.print_left_out(plan, ["macro", "SMAC"])
    printed = capsys.readouterr().out
    error = regrets[:, 1].std(ddof=1) / np.sqrt(3)
    assert f"{regrets[:, 1].mean():.3f} ± {error:.3f}" in printed
    assert re.search(r"LocalSearch .* 3 +\d\.\d+\n", printed)
    assert re.search(r"random, no repeats .* 2 +\d\.\d+\n", printed)
    assert "macro: regret" not in printed
    assert "problems mixed, layers, digits, lcbench;" in printed
    assert "Not measured here: macro, SMAC." in printed
    assert "more than 10 points" in printed


def test_points_of_smac_are_points_of_ours() -> None:
    pytest.importorskip("smac", reason="pip install smac")
    genes: dict[str, Any] = {
        "depth": en.Integer(1, 3),
        "width": en.Integer(16, 256, step=16, log=True),
        "units": en.Integer(8, 32, step=8),
        "batch": en.Integer(16, 512, log=True),
        "rate": en.Float(1e-4, 1.0, log=True),
        "on": en.Boolean(),
        "kind": ["b", "a", "c"],
    }
    conditions = {"width": {"kind": ["a", "c"], "depth": [2, 3]}, "rate": {"units": [16, 32]}}
    space = en.SearchSpace(genes, conditions=conditions)
    theirs = smac_space(space)
    theirs.seed(3)
    seen = [genes_of(space, dict(found)) for found in theirs.sample_configuration(200)]
    for point in seen:
        assert space.validate(point) == point  # active genes, no others, each a value of its gene
    assert {point["kind"] for point in seen} == {"a", "b", "c"}
    assert {point["units"] for point in seen} == {8, 16, 24, 32}
    assert any("width" in point for point in seen)
    assert any("rate" in point for point in seen)


def test_smac_runs() -> None:
    pytest.importorskip("smac", reason="pip install smac")
    record = run_peer(smac_forest, cells(0), 12, seed=0)
    assert len(record.values) == 12
