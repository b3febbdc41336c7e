"""Evaluations of earlier runs as the beginning of a new one."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import evonas as en
from evonas.cli import main
from evonas.exceptions import RunMismatchError, WeightsError
from evonas.report.answer import answer
from evonas.strategies import RandomSearch
from evonas.testing import trace

SPACE = {"x": en.Integer(0, 40), "y": en.Integer(0, 40)}


class Bowl(en.FunctionProblem):
    """Notes the points that were really evaluated."""

    def __init__(self, problem_id: str = "bowl", **settings: Any) -> None:
        super().__init__(en.SearchSpace(SPACE), self.height, problem_id=problem_id, **settings)
        self.evaluated: list[tuple[int, int]] = []

    def height(self, genes: Any, trial: en.Trial) -> float:
        self.evaluated.append((genes["x"], genes["y"]))
        if genes["x"] == 13:
            raise RuntimeError("unlucky")
        return -abs(genes["x"] - 20.0) - abs(genes["y"] - 30.0)


def search(run_dir: Any, problem: Any = None, **arguments: Any) -> en.Result:
    settings: dict[str, Any] = {"population": 12, "generations": 3, "seed": 1} | arguments
    return en.evolve(problem or Bowl(), run_dir=run_dir, max_consecutive_failures=99, **settings)


def test_nothing_that_earlier_runs_evaluated_is_evaluated_again(tmp_path: Path) -> None:
    first = search(tmp_path / "one")
    second = search(tmp_path / "two", seed=2)
    before = {e.key for r in (first, second) for e in r.evaluations if e.status is en.Status.OK}
    problem = Bowl()
    warm = search(
        tmp_path / "three", problem, seed=3, warm_start=[tmp_path / "one", tmp_path / "two"]
    )
    copied = warm.evaluations[: len(before)]
    assert {entry.key for entry in copied} == before
    assert [entry.number for entry in warm.evaluations] == list(range(len(warm.evaluations)))
    new = [(e.genes["x"], e.genes["y"]) for e in warm.evaluations[len(before) :]]
    assert sorted(problem.evaluated) == sorted(new)
    assert warm.counts.evaluated == len(new), "copies are not counted"
    assert warm.champion.fitness >= max(first.champion.fitness, second.champion.fitness)
    assert warm.logbook[0]["best"] == max(first.champion.fitness, second.champion.fitness), (
        "the first population has the best"
    )
    assert warm.logbook[0]["reused"] >= 3


def test_copies_do_not_count_towards_the_budget(tmp_path: Path) -> None:
    search(tmp_path / "one")
    problem = Bowl()
    search(
        tmp_path / "two", problem, strategy=RandomSearch(), population=None, generations=None,
        max_evaluations=5, warm_start=tmp_path / "one",
    )  # fmt: skip
    assert len(problem.evaluated) == 5


def test_a_warm_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    search(tmp_path / "one")
    arguments: dict[str, Any] = {"seed": 5, "warm_start": [tmp_path / "one"]}
    whole = search(tmp_path / "whole", **arguments)

    class Stops(en.Observer):
        def on_evaluation(self, evaluation: en.Evaluation, best: en.Evaluation | None) -> None:
            if evaluation.number % 7 == 0:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "cut", callbacks=[Stops()], **arguments)
    resumed = search(tmp_path / "cut", **arguments)
    assert trace(resumed) == trace(whole)
    # The other run is no longer needed.
    assert trace(search(tmp_path / "cut", seed=5)) == trace(whole)


def test_another_problem_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    search(tmp_path / "one")
    with pytest.raises(
        RunMismatchError, match="the run .*one of warm_start was .*problem_id: bowl in the run, x"
    ):
        search(tmp_path / "two", Bowl("x here"), warm_start=[tmp_path / "one"])
    other = Bowl(objectives=en.Objective("fitness", "min"))
    with pytest.raises(RunMismatchError, match="other objectives"):
        search(tmp_path / "two", other, warm_start=[tmp_path / "one"])
    assert search(tmp_path / "two").counts.evaluated, "nothing is left of what was refused"


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no run"):
        search(tmp_path / "two", warm_start=[tmp_path / "typo"])


def test_a_run_that_has_begun_takes_no_more(tmp_path: Path) -> None:
    search(tmp_path / "one")
    search(tmp_path / "two", seed=2)
    with pytest.raises(RunMismatchError, match="this one has begun without"):
        search(tmp_path / "two", seed=2, generations=4, warm_start=[tmp_path / "one"])


def test_in_memory(tmp_path: Path) -> None:
    search(tmp_path / "one")
    assert search(None, warm_start=[tmp_path / "one"], seed=4).counts.reused


@pytest.fixture
def two_objectives(tmp_path: Path) -> en.Result:
    """Thirty points, all of them on the front, and five more that begin with them."""

    def both(genes: en.Genes, trial: en.Trial) -> tuple[float, float]:
        return genes["x"], genes["x"] ** 2

    settings: dict[str, Any] = {"objectives": [en.Objective("a"), en.Objective("c", "min")]}
    space = {"x": en.Float(0.0, 1.0)}
    one, two = tmp_path / "one", tmp_path / "two"
    en.evolve(space, both, max_evaluations=30, seed=0, run_dir=one, **settings)
    return en.evolve(
        space, both, max_evaluations=5, seed=1, run_dir=two, warm_start=[one], **settings
    )


def test_the_report_counts_copies_and_leaves_their_seconds_out(two_objectives: en.Result) -> None:
    result = two_objectives
    result.evaluations = tuple(  # of a cached property
        replace(entry, seconds=10.0 if entry.number < 30 else 0.1) for entry in result.evaluations
    )
    told = dict(answer(result))
    assert told["Found"].startswith("35 of 35 (30 copied from earlier runs) are points")
    assert "; 5 trainings took 0.5 s in all" in told["Cost"]
    assert told["Cost"].endswith("30 copied from earlier runs.")


def test_every_view_of_a_run_says_how_many_were_copied(
    two_objectives: en.Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = two_objectives
    assert (result.counts.evaluated, result.counts.copied) == (5, 30)
    assert repr(result.counts).startswith("<Counts: 5 evaluated, 5 ok, ")
    assert repr(result.counts).endswith(" reused, 30 copied>")
    assert "0 failed, 30 copied from earlier runs>" in repr(result)
    assert " s; 30 copied from earlier runs" in result._repr_html_()
    assert main(["show", str(result.run_dir)]) == 0
    assert re.search("copied +30 copied from earlier runs", capsys.readouterr().out)
    assert main(["show", str(result.run_dir), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["copied"] == 30
    assert main(["list", str(tmp_path)]) == 0
    assert "5 + 30 copied" in capsys.readouterr().out
    assert main(["list", str(tmp_path), "--json"]) == 0
    assert [line["copied"] for line in json.loads(capsys.readouterr().out)] == [30, 0]
    assert "copied" not in repr(en.open_run(tmp_path / "one"))


def test_a_copy_says_where_its_weights_are(tmp_path: Path) -> None:
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))

    def saving(genes: en.Genes, trial: en.Trial) -> float:
        trial.save(torch.nn.Linear(genes["x"], 1))
        return genes["x"] / 10

    space = {"x": [1, 2, 3, 4, 5, 6]}
    settings: dict[str, Any] = {"strategy": "random", "keep_files": "all", "workers": 1}
    en.evolve(space, saving, max_evaluations=2, seed=0, run_dir=one, **settings)
    en.evolve(space, saving, max_evaluations=2, seed=1, run_dir=two, **settings)
    for _ in range(2):  # and where it goes on
        warm = [two, one]
        en.evolve(space, saving, max_evaluations=1, run_dir=three, warm_start=warm, **settings)
    result = en.open_run(three)
    assert result.counts.copied > 2
    for copy in (
        *result.evaluations[: result.counts.copied],
        pickle.loads(pickle.dumps(result.evaluations[0])),
    ):
        with pytest.raises(WeightsError) as raised:
            copy.load_model(lambda genes: torch.nn.Linear(genes["x"], 1))
        words = (
            rf"evaluation {copy.number} was copied from (.*) by warm_start, without its files: .*"
        )
        found = re.fullmatch(
            words + r"evonas.open_run\('(.*)'\).evaluations\[(\d+)\] has them", str(raised.value)
        )
        assert found is not None
        assert found[1] == found[2]
        origin = en.open_run(found[1]).evaluations[int(found[3])]
        assert origin.key == copy.key
        assert origin.load_model(lambda genes: torch.nn.Linear(genes["x"], 1)).in_features
    own = result.evaluations[-1]
    assert own.load_model(lambda genes: torch.nn.Linear(genes["x"], 1))


def test_the_export_of_a_copied_champion_names_its_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search(tmp_path / "one")
    search(tmp_path / "two", seed=2, warm_start=[tmp_path / "one"], max_evaluations=1)
    champion = en.open_run(tmp_path / "two").champion
    assert champion.number < en.open_run(tmp_path / "two").counts.copied
    out = str(tmp_path / "m.safetensors")
    assert main(["export", str(tmp_path / "two"), "--format", "safetensors", "-o", out]) == 1
    assert f"was copied from {tmp_path / 'one'} by warm_start" in capsys.readouterr().err
