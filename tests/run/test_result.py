from __future__ import annotations

import gc
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas
import pytest
from deap import tools

import evonas as en
from evonas.exceptions import MissingDependencyError
from evonas.testing import Flaky, RoughProblem, onemax, onemax_space, trace

TWO = [en.Objective("accuracy"), en.Objective("params", "min")]


def search(run_dir: Path | None = None, problem: Any = None, **changes: Any) -> en.Result:
    arguments: dict[str, Any] = {"population": 8, "generations": 3, "elite": 1, "seed": 1}
    arguments |= {"max_consecutive_failures": 1000, "run_dir": run_dir}
    return en.evolve(problem or RoughProblem(), **(arguments | changes))


def test_champion_and_hall_of_fame_are_the_best_evaluations(tmp_path: Path) -> None:
    result = search(tmp_path)
    ok = [entry for entry in result.evaluations if entry.status is en.Status.OK]
    ranked = sorted(ok, key=lambda entry: (-entry.values[0], entry.number))
    assert result.hall_of_fame == ranked[:10]
    assert result.champion == ranked[0]
    assert result.champion.fitness == ranked[0].values[0]


@pytest.mark.parametrize("size", [1, 3])
def test_the_hall_of_fame_has_the_strategys_size(size: int) -> None:
    result = search(strategy=en.Generational(8, elite=1, hall_of_fame=size), population=None,
                    elite=None)  # fmt: skip
    assert len(result.hall_of_fame) == size


def test_the_same_from_memory_from_disk_and_opened_again(tmp_path: Path) -> None:
    in_memory, on_disk = search(), search(tmp_path)
    opened = en.open_run(tmp_path)
    for name in ("champion", "hall_of_fame", "logbook", "evaluations", "counts"):
        assert trace(in_memory)[name] == trace(on_disk)[name]
    assert trace(opened) == trace(on_disk)
    assert opened.evaluations == on_disk.evaluations  # to the last digit of a second
    assert opened.seconds == on_disk.seconds > 0
    assert (opened.outcome, opened.stop_reason) == ("finished", "3 generations are done")
    assert in_memory.run_dir is None
    assert opened.run_dir == tmp_path
    assert opened.objectives == (en.Objective("fitness"),)
    assert isinstance(opened.logbook, tools.Logbook)
    assert str(opened.logbook).split()[:3] == ["gen", "nevals", "reused"]


def test_lists_of_a_result_are_copies(tmp_path: Path) -> None:
    result = search(tmp_path)
    result.hall_of_fame.clear()
    assert result.hall_of_fame


def test_evaluations_are_read_when_asked_for(tmp_path: Path) -> None:
    result = search(tmp_path)
    (tmp_path / "run.db").rename(tmp_path / "elsewhere.db")
    assert result.champion.fitness is not None
    with pytest.raises(FileNotFoundError, match=r"holds no run: there is no run.db in it"):
        _ = result.evaluations


def test_without_any_fitness_there_is_no_champion(tmp_path: Path) -> None:
    with pytest.raises(en.TooManyFailures, match="3 evaluations in a row failed"):
        search(tmp_path, en.FunctionProblem(onemax_space(), Flaky(rate=1.0)),
               max_consecutive_failures=3)  # fmt: skip
    result = en.open_run(tmp_path)
    assert result.hall_of_fame == []
    assert result.outcome == "failures"
    with pytest.raises(en.EvonasError, match=r"no evaluation has a fitness \(3 failed\)"):
        _ = result.champion
    assert "no champion, 3 evaluated, 0 reused, 3 failed" in repr(result)
    assert result.to_frame()["fitness"].isna().all()


def test_nothing_evaluated_at_all(tmp_path: Path) -> None:
    result = search(tmp_path, max_seconds=0, generations=None)
    assert result.evaluations == ()
    assert list(result.logbook) == []
    assert result.pareto_front == []
    assert len(result.to_frame()) == 0
    with pytest.raises(en.EvonasError, match=r"no evaluation has a fitness \(nothing evaluated\)"):
        _ = result.champion


def test_counts(tmp_path: Path) -> None:
    result = search(tmp_path)
    counts = result.counts
    assert counts.evaluated == sum(
        entry.status is not en.Status.INVALID for entry in result.evaluations
    )
    assert sum(counts.by_status.values()) == len(result.evaluations)
    assert counts.failed == counts.by_status["failed"] + counts.by_status["diverged"]
    assert repr(result) == (
        f"<Result of {tmp_path}: champion {result.champion.fitness}, {counts.evaluated} evaluated,"
        f" {counts.reused} reused, {counts.failed} failed>"
    )
    assert "<Result in memory: " in repr(search())


class Scripted(en.Strategy):
    """Proposes every point of the space once, in one row: for results with several objectives."""

    def __init__(self) -> None:
        self.logbook = tools.Logbook()
        self.hall_of_fame = tools.HallOfFame(1)
        self.row_open = False
        self.n_left = 0

    def settings(self) -> dict[str, Any]:
        return {"name": self.name}

    @property
    def is_under_way(self) -> bool:
        return self.n_left > 0

    def bind(self, context: Any) -> None:
        self.context = context

    def ask(self, n_free: int) -> list[Any]:
        from evonas.strategies import Proposal

        if self.logbook:
            return []
        points = list(self.context.space.enumerate())
        self.n_left = len(points)
        key = self.context.history.key
        return [Proposal(number, genes, key(genes), 0) for number, genes in enumerate(points)]

    def tell(self, proposal: Any, evaluation: Any, *, reused: bool) -> None:
        self.n_left -= 1
        if self.n_left == 0:
            self.logbook.record(gen=0)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any, rows: Any) -> None:
        raise NotImplementedError


def test_the_pareto_front() -> None:
    points = {
        "a": (0.9, 100.0), "b": (0.8, 50.0), "c": (0.8, 60.0), "d": (0.7, 50.0), "e": (0.9, 100.0),
        "f": (0.95, 400.0), "g": (0.1, 1.0), "h": None,
    }  # fmt: skip

    def fitness(genes: Any, trial: Any) -> Any:
        found = points[genes["point"]]
        if found is None:
            raise RuntimeError("none")
        return {"accuracy": found[0], "params": found[1], "note": genes["point"]}

    result = en.evolve({"point": list(points)}, fitness, objectives=TWO, strategy=Scripted())
    assert [entry.genes["point"] for entry in result.pareto_front] == ["f", "a", "e", "b", "g"]
    assert result.champion.genes == {"point": "f"}
    assert result.champion.fitness == (0.95, 400.0)
    assert result.champion.metrics == {"note": "f"}
    assert result.stop_reason == "every point of the space has been evaluated"


def test_to_frame(tmp_path: Path) -> None:
    result = search(tmp_path)
    frame = result.to_frame()
    evaluations = en.open_run(tmp_path).evaluations
    genes = [f"gene.{name}" for name in result.record.gene_names]
    assert "gene.width3" in genes
    # In the order of the space, though some genes are inactive in the first rows.
    assert list(frame.columns) == [
        "number", "status", "fitness", *genes, "metric.draw", "seconds", "key", "error",
    ]  # fmt: skip
    assert list(frame["number"]) == [entry.number for entry in evaluations]
    assert list(frame["status"]) == [entry.status.value for entry in evaluations]
    ok = frame["status"] == "ok"
    assert frame.loc[~ok, "fitness"].isna().all()
    assert frame.loc[ok, "fitness"].max() == en.open_run(tmp_path).champion.fitness
    shallow = frame["gene.depth"] == 1
    assert frame.loc[shallow, "gene.width3"].isna().all()
    assert isinstance(frame, pandas.DataFrame)


def test_to_frame_of_several_objectives() -> None:
    frame = en.evolve(
        {"x": [1, 2]}, lambda genes, trial: (genes["x"], -genes["x"]), objectives=TWO,
        strategy=Scripted(),
    ).to_frame()  # fmt: skip
    assert list(frame["accuracy"]) == [1.0, 2.0]
    assert list(frame["params"]) == [-1.0, -2.0]


def test_to_frame_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    result = search()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        MissingDependencyError, match=r"to_frame needs pandas, .*: pip install pandas"
    ):
        result.to_frame()


def test_a_run_is_read_while_it_goes_on(tmp_path: Path) -> None:
    seen = []

    class Peeks(en.Observer):
        def on_evaluation(self, evaluation: Any, best: Any) -> None:
            result = en.open_run(tmp_path)
            seen.append(len(result.evaluations))
            assert result.outcome is None
            assert result.champion == best

    en.evolve(
        onemax_space(6), onemax, population=4, generations=2, seed=0, run_dir=tmp_path,
        callbacks=[Peeks()],
    )  # fmt: skip
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) > 4


def test_a_printed_evaluation_is_a_line() -> None:
    def half(genes: Any, trial: en.Trial) -> float:
        if genes["x"] == 2:
            raise RuntimeError("no two")
        return float(genes["x"])

    result = en.evolve({"x": [1, 2]}, half, strategy=en.RandomSearch(), seed=0)
    shown = sorted(repr(entry).split(": ", 1)[1] for entry in result.evaluations)
    assert shown == ["failed, genes {'x': 2}>", "fitness 1, genes {'x': 1}>"]
    assert str(result.champion).startswith("<Evaluation ")


def test_a_result_in_memory_is_read_from_any_thread_and_closes_itself() -> None:
    result = en.evolve({"x": [1, 2, 3]}, lambda genes, trial: genes["x"], max_evaluations=3)
    with ThreadPoolExecutor(1) as pool:
        assert len(pool.submit(getattr, result, "evaluations").result()) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        del result
        gc.collect()


def test_a_program_that_ends_with_a_result_says_nothing() -> None:
    code = (
        "import evonas as en; r = en.evolve({'x': [1, 2]}, lambda g, t: g['x'], max_evaluations=2,"
        " progress=False)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_the_front_of_one_objective_is_what_equals_the_best() -> None:
    result = en.evolve(
        {"x": [1, 2, 3, 4], "y": [1, 2]}, lambda genes, trial: float(genes["x"] // 2),
        strategy="random", max_evaluations=8, seed=0, progress=False,
    )  # fmt: skip
    front = result.pareto_front
    assert [entry.genes["x"] for entry in front] == [4, 4]
    assert front[0] == result.champion
    assert [entry.number for entry in front] == sorted(entry.number for entry in front)
