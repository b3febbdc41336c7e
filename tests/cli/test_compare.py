from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.cli import main
from evonas.cli.trajectory import round_numbers, trajectory
from evonas.testing import onemax, onemax_space

Search = Callable[..., en.Result]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[en.Result]:
    """Searches of one problem: two seeds, and a longer one."""
    root = tmp_path_factory.mktemp("three")
    return [
        en.evolve(
            onemax_space(), onemax, population=6, generations=n, elite=1, seed=seed,
            run_dir=root / f"seed{seed}",
        )
        for seed, n in enumerate([2, 2, 8])
    ]  # fmt: skip


def told(results: list[en.Result], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["compare", *(str(result.run_dir) for result in results), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_best_against_evaluations(
    three: list[en.Result], capsys: pytest.CaptureFixture[str]
) -> None:
    data = told(three, capsys)
    lengths = [result.counts.evaluated for result in three]
    assert [run["evaluations"] for run in data["runs"]] == lengths
    assert {10, *lengths} <= {row["evaluations"] for row in data["by_evaluations"]}
    for row in data["by_evaluations"]:
        n = row["evaluations"]
        for result, best in zip(three, row["best"], strict=True):
            ok = [entry.fitness for entry in result.evaluations[:n]]
            assert best == (max(ok) if n <= len(result.evaluations) else None)


def test_the_best_against_seconds(
    three: list[en.Result], capsys: pytest.CaptureFixture[str]
) -> None:
    data = told(three, capsys)
    shortest = min(result.seconds for result in three)
    seconds = [row["seconds"] for row in data["by_seconds"]]
    assert seconds == sorted(seconds)
    assert [shortest * share for share in (0.1, 0.25, 0.5, 0.75, 1.0)] == seconds[:5]
    assert seconds[-1] == max(result.seconds for result in three)
    for place, result in enumerate(three):
        course = [row["best"][place] for row in data["by_seconds"]]
        known = [value for value in course if value is not None]
        assert known == sorted(known)
        for row in data["by_seconds"]:
            if row["seconds"] > result.seconds:
                assert row["best"][place] is None
        end = next(r["best"][place] for r in data["by_seconds"] if r["seconds"] == result.seconds)
        assert end == result.champion.fitness


def test_a_table_for_people(
    three: list[en.Result], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["compare", *(str(result.run_dir) for result in three)]) == 0
    shown = capsys.readouterr().out
    for place, result in enumerate(three, 1):
        assert any(
            line.startswith(f"[{place}]") and line.endswith(str(result.run_dir))
            for line in shown.splitlines()
        )
    assert "highest fitness after n evaluations" in shown
    assert "highest fitness after a time of searching" in shown
    assert "note:" not in shown


def test_seconds_go_on_over_starts(tmp_path: Path, search: Search) -> None:
    search(tmp_path, generations=1)
    result = search(tmp_path, generations=3)
    course = trajectory(result)
    first, second = (session["seconds"] for session in result.sessions)
    trained = {e.number for e in result.evaluations if e.status is not en.Status.INVALID}
    of_first = {p.evaluation for p in result.proposals if p.generation == 0}
    assert all(0 <= at <= result.seconds for at in course.times)
    assert sum(at <= first for at in course.times) == len(trained & of_first)
    assert course.seconds == pytest.approx(first + second)


def test_other_problems_are_noted_and_other_objectives_refused(
    three: list[en.Result], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = en.evolve(
        en.FunctionProblem(onemax_space(), onemax, problem_id="other data"),
        population=4, generations=1, seed=0, run_dir=tmp_path / "other",
    )  # fmt: skip
    notes = told([three[0], other], capsys)["notes"]
    assert notes == [
        "[1] and [2] are different problems (problem_id differ): their values do not compare"
    ]
    low = en.evolve(
        onemax_space(), onemax, objectives=en.Objective("fitness", "min"),
        population=4, generations=1, seed=0, run_dir=tmp_path / "low",
    )  # fmt: skip
    assert main(["compare", str(three[0].run_dir), str(low.run_dir)]) == 1
    assert "have other objectives (fitness max and fitness min)" in capsys.readouterr().err


def test_evaluations_of_earlier_runs_are_said(
    three: list[en.Result], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warm = en.evolve(
        onemax_space(), onemax, population=6, generations=1, seed=5, run_dir=tmp_path / "warm",
        warm_start=[three[2].run_dir],
    )  # fmt: skip
    data = told([three[2], warm], capsys)
    n_copied = data["runs"][1]["copied"]
    assert n_copied > 0
    assert data["runs"][1]["evaluations"] == warm.counts.evaluated
    assert data["notes"] == [
        f"[2] began with {n_copied} evaluations of earlier runs: its best includes them"
    ]
    assert trajectory(warm).by_count[0] >= three[2].champion.fitness


def test_round_numbers() -> None:
    assert round_numbers(0) == []
    assert round_numbers(7) == [7]
    assert round_numbers(10) == [10]
    assert round_numbers(1100) == [10, 20, 50, 100, 200, 500, 1000, 1100]


def two_objectives(folder: Path, points: list[tuple[float, float]]) -> en.Result:
    """A run that evaluates these points, in this order; the second value is minimised."""
    problem = en.FunctionProblem(
        en.SearchSpace({"at": list(range(len(points)))}),
        lambda genes, trial: points[genes["at"]],
        objectives=[en.Objective("good"), en.Objective("cost", "min")],
        problem_id="points",
    )
    return en.evolve(
        problem, strategy=en.NSGA2(len(points)), initial=[{"at": at} for at in range(len(points))],
        generations=1, seed=0, run_dir=folder, progress=False,
    )  # fmt: skip


def test_several_objectives_are_compared_by_what_their_fronts_cover(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The box is good 0 to 4 and cost 0 to 10, over both runs.
    first = two_objectives(tmp_path / "a", [(0.0, 10.0), (2.0, 5.0), (4.0, 10.0), (1.0, 6.0)])
    second = two_objectives(tmp_path / "b", [(1.0, 0.0), (4.0, 5.0)])
    data = told([first, second], capsys)
    assert data["measure"] == "hypervolume"
    by_count = {row["evaluations"]: row["best"] for row in data["by_evaluations"]}
    assert by_count[2] == [0.25, 0.25 * 1.0 + 0.75 * 0.5]
    assert by_count[4] == [0.25, None], "(4, 10) and (1, 6) add nothing to the half of a half"
    assert [run["best"] for run in data["runs"]] == [0.25, 0.625]
    assert "hypervolume" in data["notes"][-1]
    assert main(["compare", str(first.run_dir), str(second.run_dir)]) == 0
    shown = capsys.readouterr().out
    assert "share that the front covers after n evaluations" in shown
    assert re.search(r"\[1\] +4 +\S+ s +0\.25 +2 +0 ", shown), "its front has two points"


def test_an_objective_of_one_value_does_not_hide_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = two_objectives(tmp_path / "a", [(0.0, 3.0), (1.0, 3.0)])
    second = two_objectives(tmp_path / "b", [(2.0, 3.0), (0.5, 3.0)])
    assert [run["best"] for run in told([first, second], capsys)["runs"]] == [0.5, 1.0]


def test_the_best_is_within_the_limits_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fitness(genes: en.Genes, trial: en.Trial) -> float:
        trial.record(cost=genes["x"])
        return float(genes["x"])

    runs = [
        en.evolve(
            {"x": en.Integer(0, 9)}, fitness, strategy=en.NSGA2(population=4, at_most=at_most),
            initial=[{"x": 9}, {"x": 4}, {"x": 2}, {"x": 5}], seed=0, generations=1,
            run_dir=tmp_path / name, progress=False,
        )
        for name, at_most in (("free", {}), ("limited", {"cost": 5}))
    ]  # fmt: skip
    data = told(runs, capsys)
    assert [run["best"] for run in data["runs"]] == [9.0, 5.0]
    limited = [trajectory(run).by_count for run in runs][1]
    assert limited == (None, 4.0, 4.0, 5.0)
    assert "[2] has limits (cost ≤ 5): only what is within them counts" in data["notes"]


def test_a_confirmed_run_says_where_its_means_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        en.evolve(
            onemax_space(), onemax, max_evaluations=6, seed=seed, run_dir=tmp_path / str(seed),
            progress=False,
        )
        for seed in range(2)
    ]  # fmt: skip
    en.confirm(en.FunctionProblem(onemax_space(), onemax), tmp_path / "1", top=2, repeats=2)
    (note,) = (note for note in told(runs, capsys)["notes"] if "confirmed" in note)
    assert note.startswith("[2] is confirmed on fresh seeds")


def test_fronts_of_a_thousand_points_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each point of x against x² is on the front: it covers what is between 0 and the curve."""
    runs = [
        en.evolve(
            {"x": en.Float(0.0, 1.0)}, lambda genes, trial: (genes["x"], genes["x"] ** 2),
            objectives=[en.Objective("gain"), en.Objective("cost", "min")],
            strategy="random", max_evaluations=1000, seed=seed, run_dir=tmp_path / str(seed),
            progress=False,
        )
        for seed in range(2)
    ]  # fmt: skip
    data = told(runs, capsys)
    assert [run["best"] for run in data["runs"]] == pytest.approx([2 / 3] * 2, abs=0.01)
