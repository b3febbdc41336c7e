"""Following a run: what is new is read once, and watching neither writes nor waits for a search."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.live.watch import Watch
from evonas.run.store import RunReader


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes the databases of all watches, as the live view does when it ends."""
    made: list[Watch] = []
    begin = Watch.__init__

    def noted(self: Watch, run_dir: Path) -> None:
        begin(self, run_dir)
        made.append(self)

    monkeypatch.setattr(Watch, "__init__", noted)
    yield
    for watch in made:
        watch.close()


class Follower:
    """Looks at the run after each evaluation, from inside the search."""

    def __init__(self, run_dir: Path) -> None:
        self.watch = Watch(run_dir)
        self.told: list[dict[str, Any]] = []

    def __call__(self, genes: en.Genes, trial: en.Trial) -> float:
        self.watch._looked_at = -1e9  # as if a second had passed
        self.told.append(self.watch.look())
        trial.report(fitness=genes["x"])
        return genes["x"]


def search(run_dir: Path, fitness: Any, **more: Any) -> en.Result:
    settings: dict[str, Any] = {"population": 6, "generations": 4, "elite": 1, "seed": 0}
    settings["progress"] = False
    problem = en.FunctionProblem(en.SearchSpace({"x": en.Float(0.0, 1.0)}), fitness, problem_id="x")
    return en.evolve(problem, run_dir=run_dir, **(settings | more))


def test_a_run_is_followed_while_it_is_written(tmp_path: Path) -> None:
    follower = Follower(tmp_path / "run")
    result = search(tmp_path / "run", follower)
    counts = [len(told["points"]["x"]) for told in follower.told]
    assert counts == list(range(len(result.evaluations))), "each evaluation is there at once"
    assert not any(told["ended"] for told in follower.told)
    assert follower.told[3]["state"] == "running"
    assert follower.told[3]["running"] == {"trials": [], "others": 3}
    assert follower.told[9]["progress"]["share"] == pytest.approx(9 / 21)
    assert "left at most" in follower.told[9]["progress"]["left"]
    watch = Watch(tmp_path / "run")
    assert watch.look()["ended"] is True
    watch.close()


def test_what_is_known_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    evaluation = RunReader.evaluation
    monkeypatch.setattr(
        RunReader, "evaluation", lambda self, n: read.append(n) or evaluation(self, n)
    )

    def slow_first(genes: en.Genes, trial: en.Trial) -> float:
        if trial.number % 3 == 0:
            watch._looked_at = -1e9
            read.clear()
            watch.look()
            counted.append(list(read))
        return genes["x"]

    watch, counted = Watch(tmp_path), list[list[int]]()
    search(tmp_path, slow_first)
    assert counted[:4] == [[], [0, 1, 2], [3, 4, 5], [6, 7, 8]]
    watch._looked_at = -1e9
    watch.look()
    del watch._evaluations[2]  # as where a slow trial ends after those that began behind it
    watch._first_unknown = 2
    watch._looked_at = -1e9
    read.clear()
    watch.look()
    assert read == [2]


def test_a_look_is_kept_for_ten_times_what_it_cost(tmp_path: Path) -> None:
    search(tmp_path, lambda genes, trial: genes["x"])
    watch = Watch(tmp_path)
    first = watch.look()
    assert watch.look() is first
    watch._looked_at -= 1.5
    second = watch.look()
    assert second is not first
    watch._looked_at, watch._cost = time.monotonic() - 5.0, 1.0
    assert watch.look() is second
    watch._looked_at -= 6.0
    assert watch.look() is not second


def test_watching_writes_nothing(tmp_path: Path) -> None:
    search(tmp_path, lambda genes, trial: genes["x"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    watch = Watch(tmp_path)
    watch.look()
    watch.close()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before


def test_a_trial_under_way_is_shown_with_what_it_reported(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []

    def trains(genes: en.Genes, trial: en.Trial) -> float:
        if trial.number == 2:
            for epoch in range(3):
                time.sleep(0.6)
                trial.report(accuracy=epoch / 2, loss=float("nan"))
            told.append(Watch(tmp_path).look())
        return genes["x"]

    search(tmp_path, trains)
    (trial,) = told[0]["running"]["trials"]
    assert (trial["number"], trial["epoch"]) == (2, 3) or trial["epoch"] == 2
    assert trial["curves"]["accuracy"][:2] == [0.0, 0.5]
    assert trial["curves"]["loss"][0] is None
    assert trial["genes"].startswith("x 0.")
    json.dumps(told, allow_nan=False)
    assert list((tmp_path / "output").glob("*")) == [], "its file goes with it"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"number": "1"}', '{"number": 1}', '{"number": 1, "epochs": 3, "genes": []}',
     '{"number": 1, "epochs": [1, [1], [0, 1, {"a": {}}]], "genes": {"<b>": [[]]}}',
     '{"number": 1, "started_at": "x", "epochs": [["0", 0, 0]]}', "[" * 100_000],
)  # fmt: skip
def test_a_strangers_file_of_a_trial_breaks_nothing(tmp_path: Path, text: str) -> None:
    told: list[dict[str, Any]] = []

    def plants(genes: en.Genes, trial: en.Trial) -> float:
        if trial.number == 0:
            (tmp_path / "output").mkdir()
            (tmp_path / "output" / "1.running.json").write_text(text)
            told.append(Watch(tmp_path).look())
        return genes["x"]

    search(tmp_path, plants, generations=1)
    json.dumps(told, allow_nan=False)
    assert told[0]["state"] == "running"


def test_a_run_that_has_not_begun_says_so(tmp_path: Path) -> None:
    from evonas.run.store import Store

    with Store.create(tmp_path):
        assert Watch(tmp_path).look()["state"].startswith("preparing")


def test_ten_thousand_evaluations_stay_fluid(tmp_path: Path) -> None:
    en.evolve(
        {"x": en.Float(0.0, 1.0), "y": en.Float(0.0, 1.0)}, lambda genes, trial: genes["x"],
        strategy=en.RandomSearch(), max_evaluations=10_000, seed=0, run_dir=tmp_path,
        progress=False,
    )  # fmt: skip
    watch = Watch(tmp_path)
    told = watch.look()
    assert len(told["points"]["x"]) == 2_000
    assert told["points"]["n"] == 10_000
    assert len(json.dumps(told)) < 150_000
    watch._looked_at = -1e9
    began = time.perf_counter()
    watch.look()
    assert time.perf_counter() - began < 2.0
