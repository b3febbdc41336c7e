"""Whose files are kept, against a plain look at all that was evaluated."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

import evonas as en

SPACE = {"x": en.Float(0, 1), "y": en.Float(0, 1)}
TWO = [en.Objective("gain"), en.Objective("cost", "min")]


def gain(genes: dict[str, Any], trial: en.Trial) -> float:
    value = genes["x"] - genes["y"] ** 2
    if trial.would_be_kept(value):
        trial.attach("note", lambda path: path.write_text(f"{value}"))
    return float(value)


def both(genes: dict[str, Any], trial: en.Trial) -> tuple[float, float]:
    values = genes["x"] + 0.1 * genes["y"], genes["x"] ** 2 + 0.1 * (1 - genes["y"])
    trial.attach("note", lambda path: path.write_text(f"{values}"))
    trial.record(weight=genes["y"])
    return values


def kept(run_dir: Path) -> set[int]:
    return {int(folder.name) for folder in (run_dir / "attachments").iterdir()}


def numbers(entries: list[en.Evaluation]) -> set[int]:
    return {entry.number for entry in entries}


@pytest.mark.parametrize("workers", [None, 2])
def test_the_hall_of_fame_has_its_files(tmp_path: Path, workers: int | None) -> None:
    result = en.evolve(
        SPACE, gain, max_evaluations=60, strategy="random", seed=1, run_dir=tmp_path,
        workers=workers,
    )  # fmt: skip
    assert kept(tmp_path) == numbers(result.hall_of_fame)
    assert len(result.hall_of_fame) == 10
    for entry in en.open_run(tmp_path).hall_of_fame:
        assert float(entry.files["note"].read_text()) == entry.fitness
    others = [entry for entry in result.evaluations if entry.number not in kept(tmp_path)]
    assert all(entry.files == {} for entry in others)
    assert len(others) == 50


@pytest.mark.parametrize("limits", [{}, {"at_most": {"weight": 0.5}}, {"at_most": {"weight": -1}}])
def test_the_whole_pareto_front_has_its_files(tmp_path: Path, limits: dict[str, Any]) -> None:
    strategy = en.NSGA2(12, **limits)
    result = en.evolve(
        SPACE, both, objectives=TWO, strategy=strategy, max_evaluations=72, seed=0,
        run_dir=tmp_path,
    )  # fmt: skip
    front = numbers(result.pareto_front)
    assert front <= kept(tmp_path) == front | numbers(result.hall_of_fame)
    assert all(
        entry.files["note"].read_text() == f"{entry.values}" for entry in result.pareto_front
    )


def test_a_search_that_goes_on_keeps_the_same(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    settings: dict[str, Any] = {"objectives": TWO, "strategy": en.NSGA2(10), "seed": 3}
    en.evolve(SPACE, both, max_evaluations=60, run_dir=whole, **settings)
    for n in (7, 31, 60):
        settings["strategy"] = en.NSGA2(10)
        (cut / "attachments" / "500").mkdir(parents=True)  # of a trial that was killed
        en.evolve(SPACE, both, max_evaluations=n, run_dir=cut, **settings)
    assert kept(cut) == kept(whole)


def test_all_files_are_kept_if_asked_for(tmp_path: Path) -> None:
    def fails(genes: dict[str, Any], trial: en.Trial) -> float:
        trial.attach("note", lambda path: path.write_text("x"))
        if genes["x"] < 0.5:
            raise RuntimeError("no")
        assert trial.would_be_kept(-100.0)
        return float(genes["x"])

    result = en.evolve(
        SPACE, fails, max_evaluations=30, strategy="random", seed=1, run_dir=tmp_path,
        keep_files="all", max_consecutive_failures=30,
    )  # fmt: skip
    assert kept(tmp_path) == numbers(list(result.evaluations))
    assert {entry.status for entry in result.evaluations} == {"ok", "failed"}


def test_the_poorest_go_where_the_disk_space_is_used_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def large(genes: dict[str, Any], trial: en.Trial) -> float:
        trial.attach("note", lambda path: path.write_bytes(bytes(1000)))
        return float(genes["x"])

    with caplog.at_level(logging.WARNING):
        result = en.evolve(
            SPACE, large, max_evaluations=30, strategy="random", seed=1, run_dir=tmp_path,
            keep_bytes=3500,
        )  # fmt: skip
    assert kept(tmp_path) == numbers(result.hall_of_fame[:3])
    assert caplog.text.count("more than keep_bytes=3500") == 1, "said once"
    en.evolve(
        SPACE, large, max_evaluations=30, strategy="random", seed=1, run_dir=tmp_path, keep_bytes=1
    )
    assert kept(tmp_path) == {result.champion.number}, "never the champion's"


def test_equals_on_the_front_are_all_kept(tmp_path: Path) -> None:
    def equal(genes: dict[str, Any], trial: en.Trial) -> tuple[float, float]:
        trial.attach("note", lambda path: path.write_text("x"))
        return 1.0, 2.0

    result = en.evolve(
        {"x": list(range(20))}, equal, objectives=TWO, strategy="nsga2", max_evaluations=20,
        seed=0, run_dir=tmp_path,
    )  # fmt: skip
    assert len(result.pareto_front) == len(result.evaluations) > 10
    assert kept(tmp_path) == numbers(result.pareto_front)
