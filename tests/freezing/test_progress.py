from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.callbacks import RunInfo
from evonas.callbacks.base import Counts
from evonas.freezing import GenerationLog


def evaluation(genes: Any, value: float, **metrics: Any) -> en.Evaluation:
    return en.Evaluation(0, "key", genes, en.Status.OK, (value,), metrics)


def info(*, resumed: bool = False, best: Any = None, most: int | None = None) -> RunInfo:
    counts = Counts({"ok": 7, "invalid": 1})
    return RunInfo(
        None, "Generational", [en.Objective("accuracy")], most, None, resumed, counts, best
    )


def row(gen: int, nevals: int, reused: int, failed: int) -> dict[str, Any]:
    return {"gen": gen, "nevals": nevals, "reused": reused, "failed": failed}


def test_a_generation_as_the_field_knows_it(make_problem: Any) -> None:
    problem, file = make_problem(), io.StringIO()
    log = GenerationLog(problem, file)
    log.on_start(info())
    log.on_row(row(0, 2, 0, 2))
    best = evaluation(problem.genes_of([0, 1, 0, 1]), 0.85, trainable_share=0.3412)
    log.on_evaluation(evaluation(problem.genes_of([1, 1, 1, 1]), 0.1), best)
    log.on_row(row(1, 12, 3, 0))
    log.on_row(row(2, 0, 15, 0))
    log.on_end("done")
    assert file.getvalue().splitlines() == [
        "=== Generation 1 ===",
        "no mask has a fitness yet | 2 trained (2 of them failed), 0 reused",
        "=== Generation 2 ===",
        "Fittest chromosome: [0, 1, 0, 1] | Fitness: 0.8500 | trainable 34.1% | 12 trained, "
        "3 reused",
        "=== Generation 3 ===",
        "Fittest chromosome: [0, 1, 0, 1] | Fitness: 0.8500 | trainable 34.1% | 0 trained, "
        "15 reused",
    ]


def test_the_first_failure_of_each_kind_is_printed(make_problem: Any) -> None:
    problem, file = make_problem(), io.StringIO()
    log = GenerationLog(problem, file)
    log.on_start(info())
    errors = ["Traceback\n  ...\nRuntimeError: shapes 2 and 3", "RuntimeError: shapes 4 and 5",
              "Traceback\nTypeError: no number"]  # fmt: skip
    for number, error in enumerate(errors, 7):
        log.on_evaluation(
            en.Evaluation(number, "key", {}, en.Status.FAILED, (), {}, error=error), None
        )
    log.on_evaluation(en.Evaluation(10, "key", {}, en.Status.OUT_OF_MEMORY, (), {}), None)
    whole = "; the whole text is in result.evaluations and `evonas report`"
    assert file.getvalue().splitlines() == [
        f"evaluation 7 failed: RuntimeError: shapes 2 and 3{whole}",
        f"evaluation 9 failed: TypeError: no number{whole}",
        "evaluation 10 out of memory: out_of_memory",
    ]


def test_going_on(make_problem: Any) -> None:
    problem, file = make_problem(), io.StringIO()
    log = GenerationLog(problem, file)
    log.on_start(info(resumed=True, best=evaluation(problem.genes_of([1, 0, 0, 0]), 1.0)))
    log.on_row(row(4, 1, 0, 0))
    assert file.getvalue().splitlines() == [
        "going on after 7 trainings",
        "=== Generation 5 ===",
        "Fittest chromosome: [1, 0, 0, 0] | Fitness: 1.0000 | 1 trained, 0 reused",
    ]


def test_the_time_left(make_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, file = make_problem(), io.StringIO()
    log = GenerationLog(problem, file)
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    start = info(most=21)
    log.on_start(start)
    start.counts.by_status["ok"] = 14
    monkeypatch.setattr("time.monotonic", lambda: 170.0)  # seven trainings in 70 seconds
    log.on_row(row(1, 7, 0, 0))
    assert file.getvalue().endswith("no mask has a fitness yet | 7 trained, 0 reused | 1 min 10 s "
                                    "left\n")  # fmt: skip


def test_in_a_search_on_standard_output(
    make_problem: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = make_problem(n_epochs=1)
    problem.rigged = {(0, 0, 0, 0): 0.5, (1, 1, 0, 0): math.nan, (1, 1, 1, 1): 0.75}

    def search(generations: int) -> en.Result:
        return en.evolve(
            problem, population=4, generations=generations, seed=2, run_dir=tmp_path,
            callbacks=[GenerationLog(problem)], threads_per_trial=1, initial=[
                problem.genes_of(mask) for mask in [(0, 0, 0, 0), (1, 1, 0, 0), (1, 1, 1, 1),
                                                    (1, 0, 0, 0)]
            ],
        )  # fmt: skip

    problem.rigged[1, 0, 0, 0] = 0.25
    search(1)
    checking = "preparing: checking whether the output of the first {} may be computed once"
    assert capsys.readouterr().out.splitlines() == [
        "preparing: measuring which precision trains faster",
        checking.format("2 blocks"),
        "evaluation 1 diverged: the fitness is nan",
        checking.format("4 blocks"),
        checking.format("block"),
        "=== Generation 1 ===",
        "Fittest chromosome: [1, 1, 1, 1] | Fitness: 0.7500 | trainable 5.6% | "
        "4 trained (1 of them failed), 0 reused",
    ]
    search(2)
    assert capsys.readouterr().out.splitlines()[:2] == [
        "going on after 4 trainings",
        "=== Generation 2 ===",
    ]
    search(2)
    out = capsys.readouterr().out
    assert out.startswith("finished already, after ")
    assert out.endswith(" trainings: 2 generations are done\n")
