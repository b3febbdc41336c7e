from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evonas as en
from evonas.exceptions import MissingDependencyError
from evonas.records import EpochMetrics, Evaluation, Status
from evonas.report import plots
from evonas.report.values import smooth
from evonas.strategies import RandomSearch

FRAME = 'Traceback (most recent call last):\n  File "m.py", line 1, in f\n    x\n'
Write = Callable[..., en.Result]


def traces(figure: Any) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data}


def test_progress_draws_every_evaluation_and_the_best_so_far(small: en.Result) -> None:
    drawn = traces(plots.progress(small))
    ok = [entry for entry in small.evaluations if entry.status is Status.OK]
    assert list(drawn["one evaluation"].x) == [entry.number for entry in ok]
    assert list(drawn["one evaluation"].y) == [entry.fitness for entry in ok]
    best = drawn["best so far"].y
    assert list(best) == sorted(best)
    assert best[-1] == small.champion.fitness


def test_a_result_plots_itself(small: en.Result) -> None:
    assert small.plot() == plots.progress(small)


def test_the_best_so_far_follows_the_direction(two_objectives: en.Result) -> None:
    best = traces(plots.progress(two_objectives, objective=1))["best so far"].y
    assert list(best) == sorted(best, reverse=True)
    assert best[-1] == min(entry.values[1] for entry in two_objectives.evaluations)


def test_the_best_so_far_keeps_to_the_limits() -> None:
    limited = en.evolve(
        {"size": en.Integer(1, 30)},
        lambda genes, trial: float(genes["size"]),
        strategy=en.NSGA2(6, at_most={"fitness": 12}), generations=4, seed=0,
    )  # fmt: skip
    best = traces(plots.progress(limited))["best so far"]
    assert max(entry.values[0] for entry in limited.evaluations) > 12, "nothing breaks the limit"
    assert list(best.y) == sorted(best.y)
    assert best.y[-1] == limited.champion.fitness
    assert best.y[-1] <= 12


def test_progress_is_thinned_but_not_its_best(large: en.Result) -> None:
    points, best = plots.progress(large).data
    assert points.name == "one evaluation (2,000 of 9,500 shown)".replace(
        "9,500", f"{large.counts.by_status['ok']:,}"
    )
    assert len(points.x) == 2_000
    assert best.y[-1] == large.champion.fitness


def test_evaluations_of_an_earlier_run_are_told_apart(write_run: Write) -> None:
    drawn = traces(plots.progress(write_run(60, n_copied=20, failed=0.0)))
    assert list(drawn["of an earlier run"].x) == list(range(20))
    assert list(drawn["one evaluation"].x) == list(range(20, 60))


def test_generations_are_the_logbook(small: en.Result) -> None:
    drawn = traces(plots.generations(small))
    assert list(drawn["best"].y) == small.logbook.select("max")
    assert list(drawn["best so far"].y) == small.logbook.select("best")
    assert list(drawn["mean"].y) == small.logbook.select("mean")
    assert list(drawn["worst"].y) == small.logbook.select("min")


def test_the_best_of_a_generation_may_be_worse_than_the_best_so_far() -> None:
    values = iter([3.0, 1.0, 5.0, 4.0])
    result = en.evolve(
        {"x": en.Float(0.0, 1.0)}, lambda genes, trial: next(values), generations=2, seed=0,
        objectives=en.Objective("loss", "min"), population=2, elite=0, workers=1, progress=False,
    )  # fmt: skip
    drawn = traces(plots.generations(result))
    assert list(drawn["best"].y) == [1.0, 4.0]
    assert list(drawn["best so far"].y) == [1.0, 1.0]
    assert list(drawn["worst"].y) == [3.0, 5.0]


def test_learning_curves_mark_the_champion(small: en.Result) -> None:
    drawn = traces(plots.learning_curves(small))
    champion = drawn[f"champion ({small.champion.number})"]
    curve = [epoch.metrics["fitness"] for epoch in small.champion.epochs]
    assert list(champion.y) == curve
    assert list(champion.x) == [1, 2, 3, 4]
    shown = {int(n) for trace in drawn.values() if trace.customdata is not None
             for n in trace.customdata}  # fmt: skip
    assert shown == {entry.number for entry in small.evaluations if entry.epochs}


def test_learning_curves_take_a_metric(small: en.Result) -> None:
    assert plots.curve_metrics(small) == ["fitness", "train_loss"]
    figure = plots.learning_curves(small, "train_loss")
    assert figure.layout.title.text == "train_loss by epoch"
    with pytest.raises(ValueError, match="reported 'f1' per epoch; reported were: fitness, train_"):
        plots.learning_curves(small, "f1")


def test_learning_curves_without_reports(masks: en.Result) -> None:
    assert plots.curve_metrics(masks) == []
    with pytest.raises(ValueError, match="no evaluation reported None per epoch; .* were: -"):
        plots.learning_curves(masks)


def test_learning_curves_are_thinned(large: en.Result) -> None:
    figure = plots.learning_curves(large)
    assert figure.layout.title.text == "accuracy by epoch (300 of 10,000 shown)"
    gaps = sum(int(np.isnan(trace.x).sum()) for trace in figure.data)
    assert gaps == 300


def test_a_diverged_epoch_is_a_gap(write_run: Write) -> None:
    def diverges(entry: Evaluation) -> Evaluation:
        rows = [EpochMetrics(0, 1.0, {"accuracy": 0.1}), EpochMetrics(1, 2.0, {"accuracy": None})]
        return dataclasses.replace(entry, epochs=tuple(rows))  # type: ignore[arg-type]

    (curves, *_) = plots.learning_curves(write_run(10, edit=diverges)).data
    assert np.isnan(curves.y[1])


def test_fitness_by_a_discrete_gene_has_a_box_for_each_value(small: en.Result) -> None:
    boxes, points = plots.fitness_by_gene(small, "width").data
    ok = [entry for entry in small.evaluations if entry.status is Status.OK]
    medians = [np.median([e.values[0] for e in ok if e.genes["width"] == w]) for w in (16, 32, 64)]
    assert np.allclose(boxes.median, medians)
    assert len(points.x) == len(ok)


def test_fitness_by_a_number_has_a_trend(small: en.Result) -> None:
    figure = plots.fitness_by_gene(small, "lr")
    points, band, trend = figure.data
    assert figure.layout.xaxis.type == "log"
    ok = [entry for entry in small.evaluations if entry.status is Status.OK]
    assert list(points.x) == [entry.genes["lr"] for entry in ok]
    assert list(trend.x) == sorted(trend.x)
    upper, lower = band.y[: len(trend.y)], band.y[len(trend.y) :][::-1]
    assert np.allclose((np.array(upper) + np.array(lower)) / 2, trend.y)
    assert (np.array(upper) >= np.array(lower)).all()


def test_a_trend_is_near_what_made_the_points() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, 400)
    y = np.sin(3 * x) + rng.normal(0, 0.1, 400)
    found = smooth(x, y)
    assert found is not None
    at, mean, error = found
    inner = (at > 0.05) & (at < 0.95)
    misses = np.abs(mean - np.sin(3 * at))[inner]
    assert misses.max() < 0.06
    assert (misses < 2 * error[inner]).mean() > 0.8, "the band holds the truth"
    assert 0.003 < error[inner].mean() < 0.03
    straight = smooth(x, 2 * x)
    assert straight is not None
    assert np.allclose(straight[1], 2 * straight[0], atol=0.01)


def test_a_trend_needs_points_at_several_places() -> None:
    assert smooth(np.arange(9.0), np.arange(9.0)) is None
    assert smooth(np.ones(20), np.arange(20.0)) is None


def test_shares_of_a_generation_sum_to_one(small: en.Result) -> None:
    for gene in ("lr", "width", "dropout", "layers"):
        shares = np.sum([bar.y for bar in plots.value_shares(small, gene).data], axis=0)
        assert np.allclose(shares, 1.0)
    drawn = traces(plots.value_shares(small, "deep"))
    first = [entry.genes["deep"] for entry in small.evaluations[:12]]
    assert drawn["yes"].y[0] == sum(first) / 12


def test_importance_is_drawn_the_largest_on_top(small: en.Result) -> None:
    alone, rest = plots.gene_importance(small).data
    expected = small.importance()
    assert list(alone.y)[::-1] == list(rest.y)[::-1] == list(expected.total)
    assert list((alone.x + rest.x)[::-1]) == pytest.approx(list(expected.total.values()))
    first = next(iter(expected.total))
    assert alone.x[-1] == pytest.approx(min(expected.alone[first], expected.total[first]))


def test_parallel_coordinates_draw_every_evaluation(small: en.Result) -> None:
    figure = plots.parallel_coordinates(small)
    drawn = traces(figure)
    numbers = {int(n) for name, trace in drawn.items() if name != "champion"
               for n in trace.customdata}  # fmt: skip
    ok = {entry.number for entry in small.evaluations if entry.status is Status.OK}
    assert numbers == ok
    assert set(drawn["champion"].customdata) == {small.champion.number}
    assert drawn["champion"].y[5] == pytest.approx(1.0)  # the last axis is the fitness


def test_parallel_coordinates_are_thinned(large: en.Result) -> None:
    figure = plots.parallel_coordinates(large)
    assert len(figure.layout.xaxis.tickvals) == 13
    assert sum(int(np.isnan(trace.x).sum()) for trace in figure.data) <= 301


def test_the_family_tree_is_the_champions(small: en.Result) -> None:
    tree = plots.ancestry(small)
    assert next(iter(tree.members)) == small.champion.number
    born = {plan.evaluation: plan for plan in small.proposals if not plan.reused}
    for number in tree.members:
        parents = set(born[number].parents)
        assert set(tree.parents[number]) == parents
        assert parents <= tree.members.keys()
    assert tree.n_left_out == 0
    assert all(parent in born[child].parents for child, parent in pairwise(tree.line))
    known = {entry.number: entry for entry in small.evaluations}
    both = born[small.champion.number].parents
    assert known[tree.line[1]].values == max(known[parent].values for parent in both)
    assert len(set(both)) == 2
    figure = plots.family_tree(small)
    nodes = figure.data[-1]
    assert len(nodes.x) == len(tree.members) > 3
    assert f"evaluation {small.champion.number}:" in nodes.text[0]
    assert "changed against" in nodes.text[0]


def test_a_large_family_is_cut_at_the_nearest(large: en.Result) -> None:
    tree = plots.ancestry(large, most=20)
    assert len(tree.members) == 21
    assert tree.n_left_out > 100
    assert "more distant ones left out" in plots.family_tree(large).layout.title.text


def test_a_champion_without_parents_says_so(two_objectives: en.Result) -> None:
    with pytest.raises(ValueError, match=r"the champion \(evaluation \d+\) has no parents on rec"):
        plots.family_tree(two_objectives)


def origin(result: en.Result) -> str:
    with pytest.raises(ValueError, match="no parents on record") as caught:
        plots.family_tree(result)
    return str(caught.value).partition("on record: it was ")[2]


def test_where_a_champion_without_parents_comes_from(tmp_path: Path) -> None:
    def search(n: int, strategy: Any, fitness: Any = None, **more: Any) -> en.Result:
        fitness = fitness or (lambda genes, trial: -((genes["x"] - 0.7) ** 2))
        return en.evolve({"x": en.Float(0.0, 1.0)}, fitness, strategy=strategy, max_evaluations=n,
                         seed=0, progress=False, problem_id="it", **more)  # fmt: skip

    surrogate = search(20, en.SurrogateEvolution(n_initial=5), run_dir=tmp_path)
    assert surrogate.champion.number >= 5
    proposed = "proposed by the model of SurrogateEvolution, which learns from all evaluations"
    assert origin(surrogate) == proposed
    assert origin(search(6, "random")).startswith("drawn at random")
    assert origin(search(6, "random", initial=[{"x": 0.7}])) == "given as a start"
    copied = search(22, "random", warm_start=[tmp_path])
    assert copied.champion.genes == surrogate.champion.genes
    assert origin(copied) == "copied from another run"


def test_a_damaged_record_of_parents_is_no_endless_tree(write_run: Write) -> None:
    def second_is_best(entry: Evaluation) -> Evaluation:
        return dataclasses.replace(entry, values=(float(entry.number == 1),))

    result = write_run(4, failed=0.0, edit=second_is_best)
    own = result.champion.number
    result.__dict__["proposals"] = tuple(
        dataclasses.replace(plan, parents=(own, 3, 2, 99)) for plan in result.proposals
    )
    assert list(plots.ancestry(result).members) == [own] == [1]


def test_the_pareto_front_is_drawn_over_all(two_objectives: en.Result) -> None:
    every, front = plots.pareto(two_objectives).data
    assert len(every.x) == two_objectives.counts.by_status["ok"]
    expected = sorted(entry.values for entry in two_objectives.pareto_front)
    assert sorted(zip(front.x, front.y, strict=True)) == expected
    assert front.line.shape == "vh"  # accuracy is maximised


def test_one_objective_has_no_front(small: en.Result) -> None:
    with pytest.raises(ValueError, match=r"needs two objectives, got one \(fitness\)"):
        plots.pareto(small)


def test_a_slice_has_a_band_and_the_champion(small: en.Result) -> None:
    band, line, champion = plots.slice_of(small, "lr").data
    along = small.slice("lr")
    assert list(line.x) == list(along.values)
    assert list(line.y) == list(along.mean)
    upper = np.array(along.mean) + 2 * np.array(along.sd)
    assert list(band.y[: len(upper)]) == list(upper)
    assert list(champion.x) == [small.champion.genes["lr"]] * 2
    assert plots.slice_of(small, "lr").layout.xaxis.type == "log"


def test_a_slice_of_choices_has_error_bars(small: en.Result) -> None:
    points, champion = plots.slice_of(small, "width").data
    along = small.slice("width")
    assert list(points.x) == ["16", "32", "64"]
    assert list(points.error_y.array) == [2 * sd for sd in along.sd]
    assert list(champion.x) == [str(small.champion.genes["width"])] * 2


WIDTHS = {1: 0.2, 2: 0.5, 3: 0.4, 4: 0.5, 5: 0.9}


@pytest.mark.parametrize(
    ("direction", "expected"),
    [("max", [(1, 0.2), (4, 0.5), (25, 0.9)]), ("min", [(1, 0.2)])],
)
def test_a_cost_is_drawn_with_the_best_for_each(
    direction: Any, expected: list[tuple[int, float]]
) -> None:
    def train(genes: en.Genes, trial: en.Trial) -> float:
        trial.record(weights=genes["width"] ** 2, note="text")
        return WIDTHS[genes["width"]]

    problem = en.FunctionProblem(
        en.SearchSpace({"width": en.Integer(1, 5)}),
        train,
        objectives=[en.Objective("score", direction)],
    )
    points = [{"width": width} for width in WIDTHS]
    result = en.evolve(
        problem, initial=points, strategy=RandomSearch(), max_evaluations=5, progress=False
    )
    drawn = traces(plots.cost(result, "weights"))
    every, best = drawn["one evaluation"], drawn["best for its cost"]
    assert sorted(zip(every.x, every.y, strict=True)) == [(n * n, WIDTHS[n]) for n in WIDTHS]
    assert list(zip(best.x, best.y, strict=True)) == expected
    of_seconds = traces(plots.cost(result))["one evaluation"]
    assert sorted(of_seconds.x) == sorted(entry.seconds for entry in result.evaluations)
    with pytest.raises(ValueError, match="no evaluation has a number 'note': .*seconds, .*weights"):
        plots.cost(result, "note")


def test_failures_are_grouped_by_reason(small: en.Result) -> None:
    kinds = plots.failure_kinds(small)
    assert kinds[0].status is Status.FAILED
    assert kinds[0].reason.startswith("RuntimeError: ")
    assert kinds[0].reason.endswith("layers do not fit")
    n_failed = sum(len(kind.evaluations) for kind in kinds)
    assert n_failed == small.counts.failed > 0
    (points,) = plots.failures(small).data
    assert len(points.x) == n_failed
    assert set(points.y) == {f"failed ({n_failed})"}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, "no reason on record"),
        ("out of memory\nThe last that it printed:\nepoch 3", "out of memory"),
        (f"{FRAME}KeyError: 1\nmore\n", "KeyError: 1"),
        (FRAME, "x"),
    ],
)
def test_the_reason_is_the_line_that_says_why(
    write_run: Write, error: str | None, reason: str
) -> None:
    def fails(entry: Evaluation) -> Evaluation:
        return dataclasses.replace(entry, status=Status.LOST, values=(), error=error)

    assert [kind.reason for kind in plots.failure_kinds(write_run(3, edit=fails))] == [reason]


def test_without_failures_there_is_nothing_to_draw(masks: en.Result) -> None:
    assert plots.failure_kinds(masks) == []
    with pytest.raises(ValueError, match="no evaluation of this run failed"):
        plots.failures(masks)


def test_the_heat_map_shows_shares_of_frozen_blocks(masks: en.Result) -> None:
    (heat,) = plots.frozen_shares(masks).data
    assert heat.z.shape == (6, 5)
    first = [entry.genes["block0"] for entry in masks.evaluations[:8]]
    assert heat.z[0, 0] == sum(first) / 8
    assert heat.z[:, -1].tolist() == [float(bit) for bit in masks.champion.genes.values()]
    assert list(heat.x) == ["0", "1", "2", "3", "champion"]


def test_the_best_of_each_generation_is_a_column_of_states(masks: en.Result) -> None:
    (heat,) = plots.best_strips(masks).data
    assert heat.z.shape == (6, 5)
    best = max(masks.evaluations[:8], key=lambda entry: entry.values[0])
    assert heat.z[:, 0].tolist() == [int(not frozen) for frozen in best.genes.values()]
    assert heat.z[:, -1].tolist() == [int(not bit) for bit in masks.champion.genes.values()]
    assert heat.colorscale[0][1] != heat.colorscale[-1][1]


@pytest.mark.parametrize("draw", [plots.frozen_shares, plots.best_strips])
def test_a_map_of_blocks_needs_blocks(small: en.Result, draw: Any) -> None:
    with pytest.raises(ValueError, match="a map of blocks needs a search of what to do with each"):
        draw(small)


@pytest.fixture(scope="module")
def hopeless(write_run: Write) -> en.Result:
    return write_run(4, failed=1.1)


@pytest.mark.parametrize(
    "draw",
    [plots.progress, plots.gene_importance, plots.parallel_coordinates,
     lambda result: plots.fitness_by_gene(result, "lr")],
)  # fmt: skip
def test_a_run_without_a_fitness_says_so(draw: Any, hopeless: en.Result) -> None:
    with pytest.raises(en.EvonasError, match="no evaluation of this run has a fitness"):
        draw(hopeless)


def test_a_run_in_its_first_generation_says_so(hopeless: en.Result) -> None:
    with pytest.raises(ValueError, match="the logbook has no row yet"):
        plots.generations(hopeless)


def test_a_run_in_memory_has_its_figures_too() -> None:
    result = en.evolve(
        {"x": en.Float(0.0, 1.0)}, lambda genes, trial: genes["x"], population=6, generations=3,
        seed=0, progress=False,
    )  # fmt: skip
    assert len(plots.progress(result).data[0].x) == result.counts.by_status["ok"]
    assert len(plots.ancestry(result).members) > 1


def test_without_plotly_the_error_says_what_to_install(
    small: en.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'evonas\[report\]'"):
        plots.progress(small)
