"""A run that is killed at any commit and started again ends as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evonas as en
from evonas.run.store import RunReader
from evonas.testing import (
    ProcessKilled,
    RoughProblem,
    commits_watched,
    dies_at_commit,
    killed_copies,
    onemax_space,
    trace,
)

Search = Callable[[Path], en.Result]


@contextmanager
def folder() -> Iterator[Path]:
    # Processes die here, not machines: a disk would only be slow.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as path:
        yield Path(path) / "run"


class Counted(RoughProblem):
    """A rough problem that counts its trials, over all starts."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.trials = 0

    def evaluate(self, genes: Any, trial: Any) -> Any:
        self.trials += 1
        return super().evaluate(genes, trial)


def own_toolbox(space: en.SearchSpace) -> Any:
    """Operators as a DEAP user writes them: NumPy's global generator, NumPy's types."""
    toolbox = en.make_toolbox(space, crossover="uniform")

    def mutate(individual: Any) -> tuple[Any]:
        if np.random.random() < 0.8:  # noqa: NPY002 (the old ways are the point)
            width = 1 + np.random.randint(3)  # noqa: NPY002
            individual[width] = np.random.choice([16, 32, 48, 64])  # noqa: NPY002
        return (individual,)

    toolbox.register("mutate", mutate)
    return toolbox


ROUGH = {
    "defaults": lambda space: {"population": 6, "elite": 2},
    "many duplicates": lambda space: {
        "strategy": en.Generational(6, elite=1, novelty_tries=0, gene_mutation_prob=0.05)
    },
    "blend, no elite": lambda space: {
        "strategy": en.Generational(5, elite=0, crossover="blend", crossover_prob=0.6)
    },
    "own toolbox": lambda space: {"population": 6, "elite": 1, "toolbox": own_toolbox(space)},
    "initial points": lambda space: {
        "population": 5,
        "elite": 1,
        "initial": [
            {"depth": 2, "width1": 64, "width2": 32, "activation": "elu"},
            {"depth": 1, "width1": 16, "activation": "relu"},
        ],
    },
}


@pytest.mark.parametrize("name", ROUGH)
def test_killed_at_any_commit(name: str) -> None:
    def search(path: Path) -> en.Result:
        return en.evolve(
            problem,
            **ROUGH[name](problem.space),
            generations=4,
            seed=3,
            max_consecutive_failures=1000,
            run_dir=path,
        )

    problem = Counted()
    whole = assert_same_after_any_death(search, problem)
    counts = whole["counts"]
    assert counts["invalid"] > 0
    assert counts["failed"] + counts["diverged"] > 0
    assert counts["reused"] > 0 or "duplicates" not in name
    assert len(whole["logbook"]) == 4


def assert_same_after_any_death(
    search: Search, problem: Counted, *, ends_well: bool = True
) -> dict[str, Any]:
    """Kills `search` after each of its commits and starts it again; returns the whole's trace."""
    n_trials: list[int] = []  # at each commit

    def note(number: int, done: bool) -> None:
        if done:
            n_trials.append(problem.trials)

    with folder() as path:
        with commits_watched(note):
            copies = killed_copies(search, path)
        whole = trace(en.open_run(path / "whole"))
        n_whole = problem.trials
        assert len(copies) == len(n_trials) > 10
        if not ends_well:  # its last commit says so: what comes then is no resume
            copies, n_trials = copies[:-1], n_trials[:-1]
        for copy, n_before in zip(copies, n_trials, strict=True):
            problem.trials = n_before
            found = trace(search(copy))
            assert found == whole, f"{copy.name} of {len(copies)}, started again"
            assert problem.trials == n_whole, f"{copy.name}: a trial was repeated or left out"
    return whole


def test_only_the_trial_in_hand_is_repeated() -> None:
    """Killed between the end of a trial and its commit."""

    def search(path: Path) -> en.Result:
        return en.evolve(problem, population=4, elite=1, generations=3, seed=1, run_dir=path)

    problem = Counted(onemax_space(6), smooth=True)
    with folder() as path:
        whole = trace(search(path))
    n_whole = problem.trials
    repeated = []
    for number in range(1, 12):
        problem.trials = 0
        with folder() as path:
            with pytest.raises(ProcessKilled), dies_at_commit(number, before=True):
                search(path)
            assert trace(search(path)) == whole
        repeated.append(problem.trials - n_whole)
    # Settings, session, first proposals, four trials, second proposals, three trials.
    assert repeated == [0, 0, 0, 1, 1, 1, 1, 0, 1, 1, 1]


def test_killed_again_and_again() -> None:
    """Each start gets a few commits further, the first of them with starting alone."""

    def search(path: Path) -> en.Result:
        return en.evolve(
            problem, population=6, elite=2, generations=4, seed=5, run_dir=path,
            max_consecutive_failures=1000,
        )  # fmt: skip

    problem = Counted()
    with folder() as path:
        whole = trace(search(path))
    n_trials = problem.trials
    for n_commits in (4, 5, 8):
        problem.trials = n_starts = 0
        with folder() as path:
            finished = False
            while not finished:
                n_starts += 1
                with suppress(ProcessKilled), dies_at_commit(n_commits):
                    result = search(path)
                    finished = True
            assert trace(result) == whole
            assert problem.trials == n_trials
            assert n_starts > 3


def test_killed_in_a_space_that_is_searched_to_its_end() -> None:
    """The last point's evaluation is on record, its generation not yet closed."""

    def search(path: Path) -> en.Result:
        return en.evolve(
            problem, population=5, elite=1, generations=30, seed=0, run_dir=path,
            max_consecutive_failures=1000,
        )  # fmt: skip

    problem = Counted(onemax_space(3))
    whole = assert_same_after_any_death(search, problem)
    assert len(whole["evaluations"]) == 8
    # Every generation is closed: each proposal counts in a row, but those that a trial found
    # invalid, which were replaced.
    invalid = {entry["number"] for entry in whole["evaluations"] if entry["status"] == "invalid"}
    told = [entry for entry in whole["proposals"] if entry.evaluation not in invalid]
    assert len(told) < len(whole["proposals"])
    assert sum(row["nevals"] + row["reused"] for row in whole["logbook"]) == len(told)
    assert len(whole["logbook"]) < 30


@pytest.mark.parametrize("population", [3, 4, 5, 6])
def test_killed_when_the_target_is_met(population: int) -> None:
    """Whether the point that meets it is in the midst of a generation or closes it."""

    def search(path: Path) -> en.Result:
        return en.evolve(
            problem, population=population, elite=1, generations=14, seed=2, run_dir=path,
            target_fitness=6.5,
        )  # fmt: skip

    problem = Counted(onemax_space(6), smooth=True)
    whole = assert_same_after_any_death(search, problem)
    assert whole["champion"]["values"][0] >= 6.5


def test_killed_with_patience() -> None:
    def search(path: Path) -> en.Result:
        return en.evolve(
            problem, population=4, elite=1, patience=2, seed=1, run_dir=path,
            max_consecutive_failures=1000,
        )  # fmt: skip

    problem = Counted()
    whole = assert_same_after_any_death(search, problem)
    assert whole["logbook"][-1]["best"] == whole["logbook"][-3]["best"]


def test_killed_between_the_failures_in_a_row() -> None:
    """They are counted over all starts: the search stops where it would have stopped."""

    def search(path: Path) -> en.Result:
        with pytest.raises(en.TooManyFailures, match="12 evaluations in a row failed"):
            en.evolve(
                problem, population=5, elite=1, generations=9, seed=2, run_dir=path,
                max_consecutive_failures=12,
            )  # fmt: skip
        return en.open_run(path)

    class Failing(Counted):
        def evaluate(self, genes: Any, trial: Any) -> Any:
            super().evaluate(genes, trial)
            if trial.number > 6:
                raise RuntimeError("the disk is full")
            return 1.0

    problem = Failing(smooth=True)
    assert_same_after_any_death(search, problem, ends_well=False)


class Mendable(Counted):
    """Fails from a certain trial on, until it is fixed; then still fails on some points."""

    def __init__(self) -> None:
        super().__init__(onemax_space(6), smooth=True)
        self.fixed = False

    def evaluate(self, genes: Any, trial: Any) -> Any:
        value = super().evaluate(genes, trial)
        hopeless = genes["bit0"] and genes["bit1"]
        if hopeless or (trial.number >= 8 and not self.fixed):
            raise RuntimeError("broken")
        return value


def test_killed_while_failures_are_tried_again() -> None:
    """What failed before the search stopped is tried once more, however often that start dies."""

    def search(path: Path) -> en.Result:
        return en.evolve(
            problem, strategy=en.Generational(6, elite=1, novelty_tries=0), generations=6, seed=2,
            run_dir=path, max_consecutive_failures=5,
        )  # fmt: skip

    def break_down(path: Path) -> None:
        problem.fixed = False
        with pytest.raises(en.TooManyFailures, match="broken"):
            search(path)
        problem.fixed = True

    problem = Mendable()
    with folder() as path:
        break_down(path / "broken")
        n_broken = problem.trials

        def fixed(run_dir: Path) -> None:
            shutil.copytree(path / "broken", run_dir)
            search(run_dir)

        copies = killed_copies(fixed, path)
        whole = trace(en.open_run(path / "whole"))
        assert whole["counts"]["failed"] > 5  # the hopeless ones failed once more
        n_mended = problem.trials - n_broken
        for copy in copies:
            problem.trials = 0
            assert trace(search(copy)) == whole, f"{copy.name} of {len(copies)}"
            assert problem.trials <= n_mended


def test_stopped_by_a_budget_in_the_midst_of_a_generation() -> None:
    """Extended, it ends as if the budget had been larger from the start."""

    def search(path: Path, n_evaluations: int) -> en.Result:
        return en.evolve(
            problem, population=6, elite=1, generations=4, seed=4, run_dir=path,
            max_evaluations=n_evaluations, max_consecutive_failures=1000,
        )  # fmt: skip

    problem = Counted()
    with folder() as path:
        whole = trace(search(path, 1000))
    n_trials, problem.trials = problem.trials, 0
    with folder() as path:
        for n_evaluations in range(1, n_trials + 2):
            result = search(path, n_evaluations)
            # A trial that finds its point invalid is none of them.
            assert result.counts.evaluated == min(n_evaluations, result.counts.evaluated)
        assert trace(result) == whole
    assert problem.trials == n_trials


def test_the_files_for_people_are_made_up_for(tmp_path: Path) -> None:
    """What a death between commit and file left out is written at the next start."""

    class Files:
        def __init__(self, run_dir: Path) -> None:
            self.run_dir = run_dir

        def on_evaluation(self, evaluation: en.Evaluation) -> None:
            (self.run_dir / f"point{evaluation.number}").touch()

        def on_champion(self, evaluation: en.Evaluation, attachments: Path | None) -> None:
            weights = (attachments / "weights").read_text() if attachments else "none"
            (self.run_dir / "champion").write_text(f"{evaluation.number} {weights}")

    class WithFiles(RoughProblem):
        def evaluate(self, genes: Any, trial: Any) -> Any:
            value = super().evaluate(genes, trial)
            trial.attach("weights", lambda path: path.write_text(str(trial.number)))
            return value

        def run_files(self, run_dir: Path) -> Files:
            return Files(run_dir)

    def search(path: Path) -> en.Result:
        return en.evolve(
            WithFiles(onemax_space(4)), population=5, elite=1, generations=2, seed=0, run_dir=path,
            max_consecutive_failures=1000,
        )  # fmt: skip

    def files(path: Path) -> dict[str, str]:
        found = [
            file
            for file in path.rglob("*")
            if file.is_file() and not file.name.startswith(("run.db", "run.lock"))
        ]
        return {str(file.relative_to(path)): file.read_text() for file in sorted(found)}

    killed = tmp_path / "runs"
    copies = killed_copies(search, killed)
    result = en.open_run(killed / "whole")
    whole = files(killed / "whole")
    champion = result.champion.number
    assert whole["champion"] == f"{champion} {champion}"
    assert whole[f"attachments/{champion}/weights"] == str(champion)
    trained = [entry.number for entry in result.evaluations if entry.status != "invalid"]
    assert [name for name in whole if name.startswith("point")] == sorted(
        f"point{number}" for number in trained
    )
    assert {name for name in whole if name.startswith("attachments")} == {
        f"attachments/{entry.number}/weights" for entry in result.hall_of_fame
    }
    for copy in copies:
        search(copy)
        assert files(copy) == whole, f"{copy.name}, started again"


def test_the_harness_notices_a_lost_commit() -> None:
    """The tests above rest on `trace` telling two runs apart, and on nothing being saved."""
    problem = RoughProblem()
    arguments: dict[str, Any] = {"population": 4, "elite": 1, "generations": 2, "seed": 1}
    with folder() as path:
        with pytest.raises(ProcessKilled), dies_at_commit(4, before=True):
            en.evolve(problem, run_dir=path, **arguments)
        with RunReader.open(path) as reader:
            assert reader.sessions()[-1]["outcome"] is None
            n_before = len(list(reader.evaluations()))
        with pytest.raises(ProcessKilled), dies_at_commit(4):
            en.evolve(problem, run_dir=path, **arguments)
        with RunReader.open(path) as reader:
            assert len(list(reader.evaluations())) > n_before
