"""Limits come before objectives: in a search, and in what is read from its run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.callbacks import ProgressBar
from evonas.cli import main
from evonas.exceptions import FitnessError
from evonas.live.watch import Watch
from evonas.objectives import Limits
from evonas.records import Evaluation, Status
from evonas.report.answer import answer
from evonas.report.html import render
from evonas.report.listing import listed
from evonas.report.progress import progress
from evonas.run.result import best_evaluations
from evonas.run.store import RunReader
from evonas.strategies import NSGA2

OBJECTIVES = [en.Objective("accuracy"), en.Objective("params", "min")]


def evaluation(number: int, values: tuple[float, ...], **metrics: Any) -> Evaluation:
    return Evaluation(number, str(number), {}, Status.OK, values, metrics)


def test_excess_is_relative_and_adds_up() -> None:
    limits = Limits(at_most={"params": 100, "latency": 0.0}, at_least={"accuracy": -0.5})
    assert limits.excess(evaluation(0, (-0.5, 100), latency=0), OBJECTIVES) == 0.0
    far = evaluation(0, (-1.0, 150), latency=0.25)
    assert limits.excess(far, OBJECTIVES) == pytest.approx(0.5 + 0.25 + 1.0)
    assert limits
    assert not Limits.of({"population": 5})
    assert Limits.of(NSGA2(at_most={"params": 3}).settings()) == Limits({"params": 3}, {})


@pytest.mark.parametrize("latency", [{}, {"latency": math.nan}, {"latency": "fast"}])
def test_what_is_not_on_record_is_out(latency: dict[str, Any]) -> None:
    limits, entry = Limits({"latency": 5.0}), evaluation(0, (0.5, 3), **latency)
    assert limits.excess(entry, OBJECTIVES) == math.inf
    with pytest.raises(FitnessError, match="limit on 'latency' names no number.*accuracy, params"):
        limits.check(entry, OBJECTIVES)


def test_ranks() -> None:
    entries = [
        evaluation(0, (0.7, 200)), evaluation(1, (0.5, 90)), evaluation(2, (0.6, 100)),
        evaluation(3, (0.6, 80)), evaluation(4, (0.9, 120)),
    ]  # fmt: skip
    limits = Limits({"params": 100})
    assert [entry.number for entry in limits.ranked(entries, OBJECTIVES)] == [3, 2, 1]
    assert [entry.number for entry in limits.nearest(entries, OBJECTIVES)] == [1, 2, 3]
    twins = [evaluation(0, (0.6, 90)), evaluation(1, (0.6, 80)), evaluation(2, (0.6, 80))]
    assert [entry.number for entry in limits.ranked(twins, OBJECTIVES)] == [1, 2, 0]
    outside = [entries[0], entries[4]]
    assert [entry.number for entry in limits.ranked(outside, OBJECTIVES)] == [4, 0]
    assert limits.nearest(outside, OBJECTIVES) == [entries[4]]
    assert limits.nearest([], OBJECTIVES) == limits.ranked([], OBJECTIVES) == []


def grows(genes: dict[str, Any], trial: en.Trial) -> dict[str, float]:
    """Better and larger with x; y only costs."""
    x, y = genes["x"], genes["y"]
    return {"accuracy": x / 10, "params": x * x + y, "memory": 10.0 * x}


def search(run_dir: Path | None, **limits: Any) -> en.Result:
    return en.evolve(
        {"x": list(range(10)), "y": [0, 1]}, grows, objectives=OBJECTIVES,
        strategy=NSGA2(8, hall_of_fame=4, **limits), generations=6, seed=0, run_dir=run_dir,
    )  # fmt: skip


def test_champion_hall_and_front_are_within_the_limits(tmp_path: Path) -> None:
    free = search(None)
    assert free.champion.genes["x"] == 9
    result = search(tmp_path, at_most={"params": 40, "memory": 55.0})
    tried = {entry.genes["x"] for entry in result.evaluations}
    assert max(tried) > 5  # what the limits forbid was tried, too
    for found in (result, en.open_run(tmp_path)):
        assert found.champion.genes == {"x": 5, "y": 0}
        assert [entry.values[0] for entry in found.hall_of_fame] == [0.5, 0.5, 0.4, 0.4]
        front = [entry.genes["x"] for entry in found.pareto_front]
        assert front == sorted(front, reverse=True)
        assert front[0] == 5
    assert result.logbook[-1]["best"] == 0.5


def test_of_equals_in_the_first_objective_the_next_decides() -> None:
    result = search(None)
    assert result.champion.genes == {"x": 9, "y": 0}
    assert result.champion == result.pareto_front[0]


def test_where_nothing_is_within_those_least_far_out_count(tmp_path: Path) -> None:
    result = search(tmp_path, at_least={"memory": 1000.0})
    assert result.champion.genes["x"] == 9
    assert {entry.genes["x"] for entry in result.pareto_front} == {9}
    assert [entry.genes["y"] for entry in result.pareto_front] == [0]
    assert [entry.genes["x"] for entry in result.hall_of_fame][:2] == [9, 9]
    assert result.logbook[-1]["best"] is None
    with RunReader.open(tmp_path) as reader:
        assert best_evaluations(reader, 3) == result.hall_of_fame[:3]


def test_a_limit_on_what_nothing_records_leaves_a_run_that_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(FitnessError, match="limit on 'latency'"):
        search(tmp_path, at_most={"latency": 1.0})
    result = en.open_run(tmp_path)
    assert len(result.evaluations) >= 1
    assert result.champion == max(result.evaluations, key=lambda entry: entry.values[0])


def test_a_resumed_search_keeps_its_hall_of_fame(tmp_path: Path) -> None:
    whole = search(None, at_most={"params": 40})
    arguments: dict[str, Any] = {"objectives": OBJECTIVES, "seed": 0, "run_dir": tmp_path}
    space = {"x": list(range(10)), "y": [0, 1]}
    for generations in (2, 6):
        strategy = NSGA2(8, hall_of_fame=4, at_most={"params": 40})
        result = en.evolve(space, grows, strategy=strategy, generations=generations, **arguments)
        within = [entry.number for entry in result.hall_of_fame]
        assert [individual.number for individual in strategy.hall_of_fame] == within
    assert [entry.number for entry in whole.hall_of_fame] == within


def test_repeats_on_fresh_seeds_keep_to_the_limits(tmp_path: Path) -> None:
    problem = en.FunctionProblem(
        en.SearchSpace({"x": list(range(10)), "y": [0, 1]}), grows, objectives=OBJECTIVES
    )
    strategy = NSGA2(8, at_most={"params": 40})
    en.evolve(problem, strategy=strategy, generations=4, seed=0, run_dir=tmp_path)
    forbidden = {"x": 9, "y": 1}
    confirmed = en.confirm(problem, tmp_path, top=2, repeats=1, also=[forbidden])
    assert confirmed[-1].evaluation.genes == forbidden
    assert [entry.mean for entry in confirmed] == [0.6, 0.5, 0.9]
    assert en.open_run(tmp_path).champion.genes["x"] == 6


class Kept(en.Problem):
    """Attaches a file where the trial may be the best, and keeps the champion's."""

    def __init__(self) -> None:
        super().__init__(en.SearchSpace({"x": list(range(10)), "y": [0, 1]}), objectives=OBJECTIVES)

    def evaluate(self, genes: Any, trial: en.Trial) -> Any:
        found = grows(genes, trial)
        if trial.would_be_best(found["accuracy"]):
            trial.attach("point.txt", lambda path: path.write_text(str(genes)))
        return found

    def run_files(self, run_dir: Path) -> Any:
        class Files:
            def on_evaluation(self, evaluation: Evaluation) -> None:
                """Writes nothing."""

            def on_champion(self, evaluation: Evaluation, attachments: Path | None) -> None:
                assert attachments is not None
                text = (attachments / "point.txt").read_text()
                assert text == str(evaluation.genes)
                (run_dir / "champion.txt").write_text(text)

        return Files()


@pytest.mark.parametrize("limits", [{}, {"params": 40}, {"params": 40, "memory": 55}])
def test_the_champions_files_are_those_of_the_champion(
    limits: dict[str, float], tmp_path: Path
) -> None:
    strategy = NSGA2(8, at_most=limits)
    result = en.evolve(Kept(), strategy=strategy, generations=6, seed=0, run_dir=tmp_path)
    assert (tmp_path / "champion.txt").read_text() == str(result.champion.genes)


UNMET = "no evaluation is within the limits (accuracy ≥ 95, memory ≤ 1,000)"


def test_limits_that_no_evaluation_meets_are_said_wherever_a_run_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A share where per cent were meant: nothing is within, and no champion is claimed."""
    en.evolve(
        {"x": list(range(10)), "y": [0, 1]}, grows, objectives=OBJECTIVES, max_evaluations=14,
        strategy=NSGA2(8, at_least={"accuracy": 95}, at_most={"memory": 1000}), seed=0,
        run_dir=tmp_path, callbacks=[ProgressBar(bar=False, lines=True)],
    )  # fmt: skip
    lines = capsys.readouterr().err.splitlines()
    assert f" evaluated, {UNMET}, " in lines[-1]
    assert not [line for line in lines if "best" in line]
    result = en.open_run(tmp_path)
    assert f": {UNMET}, 14 evaluated" in repr(result)
    assert UNMET in result._repr_html_()
    assert "champion" not in result._repr_html_()
    assert main(["show", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert f"\n{UNMET}\nthe nearest number {result.champion.number}, accuracy 0.9" in shown
    assert "champion" not in shown
    assert "Pareto front" not in shown
    found = dict(answer(result))["Found"]
    assert found == (
        f"N{UNMET[1:]}. The nearest is evaluation {result.champion.number} with accuracy 0.9, "
        "params 82, memory 90."
    )
    assert "Loosen the limits" in dict(answer(result))["Next"]
    page = render(result)
    assert ">Nearest to the limits</h2>" in page
    assert ">Champion</h2>" not in page
    watch = Watch(tmp_path)
    told = watch.look()
    watch.close()
    assert told["unmet"] == UNMET
    assert told["points"]["best_x"] == told["points"]["best_y"] == [], "nothing counts as the best"
    assert "polyline" not in result._repr_html_()
    assert [trace.name for trace in progress(result).data if trace.mode == "lines"] == []
    assert listed(tmp_path).best_words == UNMET


def test_limits_that_are_met_are_named_beside_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = search(tmp_path, at_most={"params": 40})
    assert result.counts.unmet == en.open_run(tmp_path).counts.unmet == ""
    assert repr(result).startswith(f"<Result of {result.location}: champion 0.6, 36")
    main(["show", str(tmp_path)])
    assert "\nlimits       params ≤ 40\n" in capsys.readouterr().out
    answers = dict(answer(result))
    assert "grows, within the limits (params ≤ 40)." in answers["Searched"]
    assert "points within the limits that no other beats" in answers["Found"]
    watch = Watch(tmp_path)
    told = watch.look()
    watch.close()
    assert told["unmet"] == ""
    numbers = {entry.number: entry for entry in result.evaluations}
    # The line of the best so far leaves out what the limits forbid.
    assert all(numbers[n].values[1] <= 40 for n in told["points"]["best_x"][:-1])
    assert told["points"]["best_y"][-1] == 0.6


def test_a_search_hears_when_its_limits_are_met_for_the_first_time() -> None:
    heard: list[tuple[float, str]] = []

    class Listener(en.Observer):
        def on_start(self, info: Any) -> None:
            self.counts = info.counts

        def on_evaluation(self, evaluation: Evaluation, best: Evaluation | None) -> None:
            heard.append((evaluation.values[0], self.counts.unmet))

    en.evolve(
        {"x": list(range(10))}, lambda genes, trial: {"accuracy": genes["x"], "params": 0},
        objectives=OBJECTIVES, strategy=NSGA2(4, at_least={"accuracy": 5}),
        initial=[{"x": 1}, {"x": 4}, {"x": 7}, {"x": 2}], max_evaluations=4, seed=0,
        callbacks=[Listener()],
    )  # fmt: skip
    sentence = "no evaluation is within the limits (accuracy ≥ 5)"
    assert heard == [(1, sentence), (4, sentence), (7, ""), (2, "")]


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="no value of 'cost' is at least 5 and at most 3: at_le"):
        NSGA2(at_most={"cost": 3}, at_least={"cost": 5})
    assert NSGA2(at_most={"cost": 3}, at_least={"cost": 3}).settings()["at_least"] == {"cost": 3}


@pytest.mark.parametrize("name", ["at_most", "at_least"])
def test_evolve_says_where_limits_go(name: str) -> None:
    wrong: dict[str, Any] = {name: {"cost": 3}}
    with pytest.raises(TypeError, match=rf"write strategy=NSGA2\({name}=\.\.\.\)"):
        en.evolve({"x": [1, 2]}, lambda genes, trial: 1.0, **wrong)
