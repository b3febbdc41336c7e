"""What `evolve` promises: seeds, budgets, duplicates, statuses."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evonas as en
from evonas.execution import SerialExecutor
from evonas.run.store import RunReader
from evonas.testing import (
    Flaky,
    RoughProblem,
    noisy,
    onemax,
    onemax_space,
    quadratic,
    quadratic_space,
    trace,
)

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {"population": 6, "generations": 4, "elite": 1, "seed": 0}


class Counted:
    """A fitness function that knows how often it was called."""

    def __init__(self, fitness: Callable[[Any, Any], Any] = onemax) -> None:
        self.fitness = fitness
        self.n_calls = 0

    def __call__(self, genes: Any, trial: Any) -> Any:
        self.n_calls += 1
        return self.fitness(genes, trial)


# -- seeds -------------------------------------------------------------------------------------


def test_the_seed_decides() -> None:
    runs = [trace(en.evolve(quadratic_space(), noisy, **(SMALL | {"seed": s}))) for s in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0]["evaluations"] != runs[2]["evaluations"]


def test_without_a_seed_one_is_drawn_and_kept(tmp_path: Path) -> None:
    unseeded = SMALL | {"seed": None}
    first = en.evolve(quadratic_space(), noisy, run_dir=tmp_path / "a", **unseeded)
    other = en.evolve(quadratic_space(), noisy, run_dir=tmp_path / "b", **unseeded)
    assert first.record.seed != other.record.seed
    longer = unseeded | {"generations": 6}
    extended = en.evolve(quadratic_space(), noisy, run_dir=tmp_path / "a", **longer)
    seed = first.record.seed
    assert extended.record.seed == seed
    whole = en.evolve(quadratic_space(), noisy, run_dir=tmp_path / "c", **(longer | {"seed": seed}))
    assert trace(extended) == trace(whole)


def test_the_users_generators_neither_steer_nor_notice() -> None:
    """Nor do the draws of the fitness function, of observers and of the user's operators."""

    class Draws(en.Observer):
        def on_evaluation(self, evaluation: Any, best: Any) -> None:
            random.random()
            np.random.random()  # noqa: NPY002

    def draws(genes: Any, trial: Any) -> float:
        return random.random() + float(np.random.random())  # noqa: NPY002

    runs = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
        observers = [Draws()] if seed == 1 else []
        runs.append(trace(en.evolve(quadratic_space(), draws, callbacks=observers, **SMALL)))
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002
    assert runs[0] == runs[1]


SPAWNED = """
import json, sys
import evonas as en
from evonas.testing import RoughProblem, trace

result = en.evolve(
    RoughProblem(), population=8, generations=4, elite=2, seed=11, max_consecutive_failures=1000
)
found = trace(result)
print(json.dumps({"found": found, "hash": hash("evonas")}))
"""


def test_same_run_in_another_process_with_another_hash_seed() -> None:
    runs = []
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", SPAWNED],
            check=True, capture_output=True, text=True, timeout=120,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        runs.append(json.loads(done.stdout))
    here = en.evolve(
        RoughProblem(), population=8, generations=4, elite=2, seed=11, max_consecutive_failures=1000
    )
    assert runs[0]["hash"] != runs[1]["hash"]
    assert runs[0]["found"] == runs[1]["found"] == json.loads(json.dumps(trace(here)))


def test_a_trials_seed_follows_from_the_runs_seed_and_the_point() -> None:
    seen: dict[int, set[int]] = {0: set(), 1: set()}
    for seed, found in seen.items():
        for _ in range(2):
            result = en.evolve(onemax_space(4), onemax, **(SMALL | {"seed": seed}))
            pairs = {(entry.key, entry.seed) for entry in result.evaluations}
            found |= {entry_seed for _, entry_seed in pairs}
            assert len(found) == len(pairs)
    assert not seen[0] & seen[1]


# -- duplicates --------------------------------------------------------------------------------


def test_a_duplicate_is_reused_and_counted(tmp_path: Path) -> None:
    fitness = Counted()
    result = en.evolve(
        onemax_space(4), fitness, strategy=en.Generational(8, elite=1, novelty_tries=0),
        generations=6, seed=0, run_dir=tmp_path,
    )  # fmt: skip
    assert fitness.n_calls == len(result.evaluations) == result.counts.evaluated <= 16
    assert result.counts.reused == sum(row["reused"] for row in result.logbook) > 0
    proposals = trace(result)["proposals"]
    assert len(proposals) == 8 + 5 * 7
    assert result.counts.reused == sum(entry.reused for entry in proposals)
    keys = {entry.number: entry.key for entry in result.evaluations}
    assert len(set(keys.values())) == len(keys)
    assert {entry.evaluation for entry in proposals} == set(keys)


def test_a_duplicate_in_the_first_population_waits_for_the_first(tmp_path: Path) -> None:
    fitness = Counted()
    point = {f"bit{index}": True for index in range(4)}
    result = en.evolve(
        onemax_space(4), fitness, initial=[point, point, point], population=3, generations=1,
        seed=0, run_dir=tmp_path,
    )  # fmt: skip
    assert fitness.n_calls == 1
    assert [entry.evaluation for entry in trace(result)["proposals"]] == [0, 0, 0]
    assert (result.logbook[0]["nevals"], result.logbook[0]["reused"]) == (1, 2)


def test_a_failed_duplicate_is_reused_too() -> None:
    fitness = Counted(Flaky(rate=0.6))
    result = en.evolve(
        onemax_space(3), fitness, strategy=en.Generational(6, elite=1, novelty_tries=0),
        generations=6, seed=0, max_consecutive_failures=100,
    )  # fmt: skip
    assert result.counts.failed > 0
    assert fitness.n_calls == len(result.evaluations) <= 8


class WithSource(en.Problem):
    """Two genes that build the same where `padding` is the only difference."""

    def __init__(self) -> None:
        super().__init__(en.SearchSpace({"width": [1, 2], "padding": [0, 1], "lr": [0.1, 0.2]}))

    def source(self, genes: Any) -> str:
        return f"width = {genes['width']}  # padding {genes['padding']}\n"

    def training_genes(self, genes: Any) -> Any:
        return {"lr": genes["lr"]}

    def evaluate(self, genes: Any, trial: Any) -> float:
        return genes["width"] / genes["lr"]


def test_points_of_one_source_are_one() -> None:
    problem = WithSource()
    result = en.evolve(problem, population=8, generations=3, elite=1, seed=0)
    assert len(result.evaluations) == 4
    assert len({entry.key for entry in result.evaluations}) == 4
    assert all(entry.key == problem.key(entry.genes) for entry in result.evaluations)


# -- statuses ----------------------------------------------------------------------------------


def test_each_failure_is_kept_with_its_reason() -> None:
    result = en.evolve(RoughProblem(), **(SMALL | {"population": 16}), max_consecutive_failures=99)
    by_status: dict[str, list[en.Evaluation]] = {}
    for entry in result.evaluations:
        by_status.setdefault(entry.status, []).append(entry)
    assert set(by_status) == {"ok", "invalid", "failed", "diverged"}
    for entry in by_status["failed"]:
        assert "Traceback" in str(entry.error)
        assert "RuntimeError: rough: raises here" in str(entry.error)
        assert len(entry.epochs) == 1
    assert {entry.error for entry in by_status["diverged"]} == {"the fitness is nan"}
    reasons = {entry.error for entry in by_status["invalid"]}
    assert reasons == {"rough: is invalid", "rough: is invalid, as the trial found out"}
    assert all(entry.error is None and entry.fitness is not None for entry in by_status["ok"])
    assert all(
        entry.fitness is None for name in by_status if name != "ok" for entry in by_status[name]
    )
    assert result.counts.by_status == {
        status.value: len(by_status.get(status, [])) for status in en.Status
    }
    assert result.counts.failed == len(by_status["failed"]) + len(by_status["diverged"])


def test_invalid_points_are_replaced_not_scored() -> None:
    """Each generation has as many points as asked for, all of them with a trial that counts."""
    result = en.evolve(RoughProblem(), **SMALL, max_consecutive_failures=99)
    assert result.counts.by_status["invalid"] > 0
    assert [row["nevals"] + row["reused"] for row in result.logbook] == [6, 5, 5, 5]
    assert result.counts.evaluated == sum(row["nevals"] for row in result.logbook)


def test_numbers_are_taken_in_ask_order() -> None:
    result = en.evolve(RoughProblem(), **SMALL, max_consecutive_failures=99)
    assert [entry.number for entry in result.evaluations] == list(range(len(result.evaluations)))


# -- initial points ----------------------------------------------------------------------------


def test_initial_points_are_in_the_first_population(tmp_path: Path) -> None:
    initial = [{"x0": 1, "x1": 2.0}, {"x0": -1.0, "x1": 0.0}]
    arguments: dict[str, Any] = SMALL | {"initial": initial, "run_dir": tmp_path}
    result = en.evolve(quadratic_space(), quadratic, **arguments)
    assert [entry.genes for entry in result.evaluations][:2] == initial
    assert type(result.evaluations[0].genes["x0"]) is float
    assert len(result.evaluations) == 6 + 3 * 5
    with pytest.raises(en.exceptions.RunMismatchError, match="other initial points"):
        en.evolve(quadratic_space(), quadratic, **(arguments | {"initial": initial[:1]}))


# -- the rest ----------------------------------------------------------------------------------


def test_a_dict_of_lists_will_do() -> None:
    result = en.evolve({"x": [1, 2], "y": [3, 4]}, lambda genes, trial: genes["x"] * genes["y"])
    assert result.champion.genes == {"x": 2, "y": 4}


def test_an_executor_of_the_users(tmp_path: Path) -> None:
    """It is started once and shut down, also after an error."""
    calls = []

    class Watched(SerialExecutor):
        def start(self, problem: Any) -> None:
            calls.append("start")
            super().start(problem)

        def shutdown(self) -> None:
            calls.append("shutdown")
            super().shutdown()

    en.evolve(onemax_space(), onemax, executor=Watched(), **SMALL)
    assert calls == ["start", "shutdown"]
    with pytest.raises(en.TooManyFailures):
        en.evolve(onemax_space(), Flaky(rate=1.0), executor=Watched(), **SMALL)
    assert calls == ["start", "shutdown"] * 2


def test_what_the_trial_is_told() -> None:
    seen = []

    def fitness(genes: Any, trial: en.Trial) -> float:
        seen.append(trial.settings)
        return onemax(genes, trial)

    class Configured(en.FunctionProblem):
        def configure(self, stored: Any) -> dict[str, Any]:
            return stored or {"precision": "bfloat16"}

    problem = Configured(onemax_space(), fitness)
    result = en.evolve(problem, **SMALL, threads_per_trial=3, deterministic=True)
    best = None
    for settings, entry in zip(seen, result.evaluations, strict=True):
        assert (settings.number, settings.key) == (entry.number, entry.key)
        assert (settings.threads, settings.deterministic) == (3, True)
        assert settings.problem == {"precision": "bfloat16"}
        assert settings.best == best
        assert not Path(settings.attachments).exists(), "of a run in memory, which is over"
        best = max(entry.values[0], best or 0.0)


def test_what_was_chosen_at_the_first_start_stays(tmp_path: Path) -> None:
    """The problem's settings and the threads, whatever a later start would choose."""
    chosen = []

    class Chooses(en.FunctionProblem):
        def configure(self, stored: Any) -> dict[str, Any]:
            chosen.append(stored)
            return dict(stored or {"precision": "float32"})

    problem = Chooses(onemax_space(), onemax)
    en.evolve(problem, run_dir=tmp_path, threads_per_trial=2, **(SMALL | {"generations": 1}))
    result = en.evolve(problem, run_dir=tmp_path, **SMALL)
    assert chosen == [None, {"precision": "float32"}]
    assert result.record.threads == 2


def test_genes_of_lists_cannot_be_changed_by_the_fitness_function(tmp_path: Path) -> None:
    def spoils(genes: Any, trial: Any) -> float:
        value = len(genes["layers"])
        genes["layers"].append("spoilt")
        return value

    space = {"layers": [[1], [1, 2], [1, 2, 3]], "more": [0, 1, 2, 3]}
    result = en.evolve(space, spoils, run_dir=tmp_path, **SMALL)
    assert "spoilt" not in str([entry.genes for entry in result.evaluations])
    assert "spoilt" not in str(trace(result)["state"])


def test_sessions_and_metadata_are_on_record(tmp_path: Path) -> None:
    for note in ("first", "second"):
        en.evolve(onemax_space(), onemax, run_dir=tmp_path, metadata={"note": note}, **SMALL)
    with RunReader.open(tmp_path) as reader:
        sessions = reader.sessions()
        assert reader.begun_record().metadata == {"note": "second"}
    assert [entry["outcome"] for entry in sessions] == ["finished", "finished"]
    environment = sessions[0]["environment"]
    assert environment["packages"]["deap"]
    assert environment["cores"] == len(os.sched_getaffinity(0))
    assert environment["python"].count(".") == 2


def test_durability_power_runs(tmp_path: Path) -> None:
    result = en.evolve(onemax_space(), onemax, run_dir=tmp_path, durability="power", **SMALL)
    assert result.outcome == "finished"


def test_a_fitness_function_that_changes_directory_moves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)

    def moves(genes: en.Genes, trial: en.Trial) -> float:
        os.chdir(tmp_path / "other")
        return float(genes["x"])

    result = en.evolve({"x": [1, 2, 3]}, moves, max_evaluations=3, run_dir="run")
    assert [path.name for path in (tmp_path / "other").iterdir()] == []
    assert len(result.evaluations) == 3
    assert len(en.open_run(tmp_path / "run").evaluations) == 3
    with pytest.raises(ValueError, match="run_dir must be the path of a directory, got ''"):
        en.evolve({"x": [1, 2, 3]}, moves, run_dir="")
    with pytest.raises(ValueError, match="run_dir must be the path of a directory"):
        en.open_run("")


def test_the_champions_attachments_are_kept_for_a_plain_function_too(tmp_path: Path) -> None:
    def fitness(genes: en.Genes, trial: en.Trial) -> float:
        kept = trial.attach("x.txt", lambda path: path.write_text(str(genes["x"])))
        assert kept
        return float(genes["x"])

    space = {"x": list(range(10))}
    result = en.evolve(space, fitness, population=5, generations=3, seed=0, run_dir=tmp_path)
    found = en.open_run(tmp_path).attachments
    assert found == result.attachments
    assert list(found) == ["x.txt"]
    assert found["x.txt"].read_text() == str(result.champion.genes["x"])
    kept = {int(path.name) for path in (tmp_path / "attachments").iterdir()}
    assert kept == {entry.number for entry in result.hall_of_fame}
    assert [entry.files["x.txt"].read_text() for entry in result.hall_of_fame] == [
        str(entry.genes["x"]) for entry in result.hall_of_fame
    ]
    en.confirm(en.FunctionProblem(en.SearchSpace(space), fitness), tmp_path, top=2, repeats=2)
    (confirmed,) = en.open_run(tmp_path).attachments.values()
    assert confirmed.parent.name.startswith("confirmed")
    assert confirmed.read_text() == str(en.open_run(tmp_path).champion.genes["x"])
    again = en.evolve(space, lambda genes, trial: 1.0, population=5, generations=1, seed=0)
    assert again.attachments == {}
