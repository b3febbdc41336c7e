from __future__ import annotations

import json
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
    assert "highest fitness after so many evaluations" in shown
    assert "highest fitness after so long a search" in shown
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
