"""What a run is, and that a start with other code is not taken for the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.exceptions import RunMismatchError
from evonas.execution import SerialExecutor, Task
from evonas.run.identity import comparable
from evonas.run.store import Store
from evonas.testing import RoughProblem

SPACE = {"x": list(range(20))}


def fitness(step: int) -> Any:
    """Returns a function as two versions of one file would have it."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(
        f"def helper(x): return x + {step}\ndef fitness(genes, trial): return helper(genes['x'])",
        names,
    )
    return names["fitness"]


def search(step: int, run_dir: Path, **options: Any) -> en.Result:
    options = {"max_evaluations": 5, "seed": 0, "run_dir": run_dir, **options}
    return en.evolve(SPACE, fitness(step), **options)


def test_edited_code_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    search(1, tmp_path)
    search(1, tmp_path, max_evaluations=6)
    with pytest.raises(
        RunMismatchError, match=r"other code: .*problem_id='fitness'; else pass a new"
    ):
        search(2, tmp_path, max_evaluations=7)
    assert len(search(2, tmp_path, max_evaluations=7, problem_id="fitness").evaluations) == 7
    with pytest.raises(RunMismatchError, match="other code"):
        search(2, tmp_path, max_evaluations=8)  # the run is still the first one's
    with pytest.raises(RunMismatchError, match="problem_id: fitness in the run, other here"):
        search(1, tmp_path, problem_id="other")


def test_a_problem_class_counts_with_its_code(tmp_path: Path) -> None:
    def problem(step: int) -> en.Problem:
        class Mine(en.Problem):
            def evaluate(self, genes: en.Genes, trial: en.Trial) -> float:
                return genes["x"] + step

        return Mine(en.SearchSpace(SPACE))

    en.evolve(problem(1), max_evaluations=3, seed=0, run_dir=tmp_path)
    en.evolve(problem(1), max_evaluations=4, seed=0, run_dir=tmp_path)
    with pytest.raises(RunMismatchError, match="other code"):
        en.evolve(problem(2), max_evaluations=5, seed=0, run_dir=tmp_path)


def test_where_all_failed_the_code_may_be_fixed(tmp_path: Path) -> None:
    def broken(genes: en.Genes, trial: en.Trial) -> float:
        raise NameError("accurcy")

    broken.__qualname__ = "fitness"
    with pytest.raises(en.TooManyFailures):
        en.evolve(SPACE, broken, max_evaluations=20, seed=0, run_dir=tmp_path)
    assert search(1, tmp_path).counts.by_status["ok"] == 5
    with pytest.raises(RunMismatchError, match="other code"):
        search(2, tmp_path)


def test_code_of_another_python_is_not_compared(tmp_path: Path) -> None:
    search(1, tmp_path)
    with Store.create(tmp_path) as store:
        record = store.begun_record()
        code = record.fingerprint["code"]
        old = {**record.fingerprint, "code": code.replace("py3.", "py2.")}
        store.write_record(replace(record, fingerprint=old))
    assert len(search(2, tmp_path, max_evaluations=6).evaluations) == 6
    one, two = ({"loss": f"f py3.1{n}-0123456789abcdef", "lr": 1} for n in (1, 2))
    assert len(set(map(str, comparable(one, two)))) == 1
    assert comparable(one, {**one, "code": "x"}) == [one, one]


def test_a_run_that_goes_on_on_another_kind_of_device_is_said_or_refused(tmp_path: Path) -> None:
    """A GPU adds in another order, and drops out by other random numbers."""

    class Elsewhere(SerialExecutor):
        device = "cuda:1"

        def submit(self, task: Task) -> Any:
            return super().submit(replace(task, settings=replace(task.settings, device="cpu")))

    class OnTorch(RoughProblem):
        uses_torch = True

    def start(executor: Any, *, deterministic: bool, n: int) -> en.Result:
        return en.evolve(
            OnTorch(), max_evaluations=n, run_dir=tmp_path / str(deterministic), seed=0,
            strategy="random", executor=executor, deterministic=deterministic, progress=False,
        )  # fmt: skip

    for deterministic in (False, True):
        start(Elsewhere(), deterministic=deterministic, n=2)
        start(Elsewhere(), deterministic=deterministic, n=3)
    with pytest.warns(
        RuntimeWarning, match="was started on cuda and goes on on cpu: its trainings"
    ):
        assert len(start(SerialExecutor(), deterministic=False, n=4).evaluations) == 4
    with pytest.raises(RunMismatchError, match="cuda with deterministic=True, here on cpu"):
        start(SerialExecutor(), deterministic=True, n=4)
