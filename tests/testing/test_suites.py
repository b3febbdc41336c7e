"""The conformance suites find what they are there to find."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evonas as en
from evonas import testing
from evonas.execution import Executor, Outcome, SerialExecutor, Task
from evonas.records import Status
from evonas.testing import (
    ExecutorConformance,
    Flaky,
    GeneConformance,
    RoughProblem,
    SlowQuadratic,
    StrategyConformance,
    noisy,
    quadratic,
    trace,
)

ROOT = Path(__file__).resolve().parents[2]
SUITES = [StrategyConformance, ExecutorConformance, GeneConformance]


def test_it_needs_no_test_runner() -> None:
    code = "import sys, evonas.testing; print({'pytest', 'torch'} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("suite", SUITES)
def test_every_clause_says_what_it_asks(suite: type) -> None:
    clauses = [value for name, value in vars(suite).items() if name.startswith("test_")]
    assert len(clauses) > 8
    assert all(clause.__doc__ for clause in clauses)
    assert not suite.__name__.startswith("Test")  # imported, it is not collected itself
    assert suite.__name__ in testing.__all__


# -- strategies --------------------------------------------------------------------------------


class DrawsInTell(en.Generational):
    """Its next generation depends on how often results were told: twice after a kill."""

    def tell(self, proposal: Any, evaluation: Any, *, reused: bool) -> None:
        self._extra = getattr(self, "_extra", 0) + 1
        super().tell(proposal, evaluation, reused=reused)

    def ask(self, n_free: int) -> Any:
        if not self.is_under_way and getattr(self, "_extra", 0) % 2:
            self._rng.random()
        return super().ask(n_free)


class ForgetsItsHall(en.Generational):
    def state_dict(self) -> Any:
        return super().state_dict() | {"hall_of_fame": []}


class IgnoresTheSeed(en.Generational):
    def bind(self, context: Any) -> None:
        super().bind(context)
        self._rng = random.Random(0)


class AsksTheGlobalGenerator(en.Generational):
    def ask(self, n_free: int) -> Any:
        if not self.is_under_way:
            self._rng.seed(random.random())
        return super().ask(n_free)


class GrowsForEver(en.Generational):
    def state_dict(self) -> Any:
        return super().state_dict() | {"all": list(range(50 * self._next_id))}


class RanksFailures(en.Generational):
    def tell(self, proposal: Any, evaluation: Any, *, reused: bool) -> None:
        slot = self._slots[proposal.id]
        super().tell(proposal, evaluation, reused=reused)
        if evaluation.status.is_failure:
            slot.individual.fitness.values = (1e9,)
            self.hall_of_fame.update([slot.individual])


class Maximises(en.Generational):
    """Takes what is to be minimised for what is to be maximised."""

    def tell(self, proposal: Any, evaluation: Any, *, reused: bool) -> None:
        super().tell(proposal, evaluation, reused=reused)
        slot = self._slots.get(proposal.id)
        if slot and slot.individual.fitness.valid and self._objective.direction == "min":
            slot.individual.fitness.values = (-slot.individual.fitness.values[0],)


class NamesNothing(en.Generational):
    def settings(self) -> Any:
        return super().settings() | {"name": "x", "toolbox": (1, 2)}


class LeavesOutTheInitial(en.Generational):
    def _given(self, genes: Any) -> Any:
        return self._vary(set())


class TakesAnyState(en.Generational):
    def load_state_dict(self, state: Any, rows: Any) -> None:
        super().load_state_dict({**state, "name": self.name}, rows)


STRATEGIES = {
    DrawsInTell: "test_killed_at_any_commit_it_ends_the_same",
    ForgetsItsHall: "test_extended_it_ends_as_if_asked_for_more_at_once",
    IgnoresTheSeed: "test_same_seed_same_run",
    AsksTheGlobalGenerator: "test_global_generators_are_neither_read_nor_moved",
    GrowsForEver: "test_the_state_is_json_and_stays_bounded",
    RanksFailures: "test_only_what_has_a_fitness_ranks",
    Maximises: "test_the_direction_of_the_objectives_counts",
    NamesNothing: "test_settings_are_json_and_name_the_strategy",
    LeavesOutTheInitial: "test_initial_points_come_first",
    TakesAnyState: "test_the_state_of_another_strategy_is_refused",
}


@pytest.mark.parametrize("kind", STRATEGIES, ids=lambda kind: kind.__name__)
def test_a_faulty_strategy_is_found(kind: type[en.Generational]) -> None:
    class Suite(StrategyConformance):
        def make_strategy(self) -> en.Strategy:
            return kind(6, elite=1)

    with pytest.raises(AssertionError):
        getattr(Suite(), STRATEGIES[kind])()


# -- executors ---------------------------------------------------------------------------------


class Wrapped(SerialExecutor):
    """A serial executor with a fault in what it makes of an outcome."""

    def submit(self, task: Task) -> Any:
        future = super().submit(task)
        future._result = self.spoil(future.result())
        return future

    def spoil(self, outcome: Outcome) -> Outcome:
        return outcome


class LosesEpochs(Wrapped):
    def spoil(self, outcome: Outcome) -> Outcome:
        return Outcome(outcome.status, outcome.values, outcome.metrics, (), outcome.seconds)


class ScoresFailures(Wrapped):
    def spoil(self, outcome: Outcome) -> Outcome:
        return Outcome(Status.OK, outcome.values or (0.0, 0.0))


class SeedsAnyhow(SerialExecutor):
    """Each trial with a seed of its own: also once torch is imported, whose trials seed anyway."""

    def submit(self, task: Task) -> Any:
        self._n_tasks = getattr(self, "_n_tasks", 0) + 1
        return super().submit(replace(task, settings=replace(task.settings, seed=self._n_tasks)))


class RestoresNothing(SerialExecutor):
    def shutdown(self) -> None:
        self._python_state = None
        super().shutdown()


class TellsTheTrialNothing(SerialExecutor):
    def submit(self, task: Task) -> Any:
        return super().submit(Task(task.genes, en.Trial().settings))


EXECUTORS = {
    LosesEpochs: "test_the_outcome_holds_all_that_was_returned",
    ScoresFailures: "test_whatever_goes_wrong_becomes_a_status",
    SeedsAnyhow: "test_global_draws_follow_from_the_seed",
    RestoresNothing: "test_the_callers_generators_are_as_before",
    TellsTheTrialNothing: "test_the_trial_has_its_settings",
}


@pytest.mark.parametrize("kind", EXECUTORS, ids=lambda kind: kind.__name__)
def test_a_faulty_executor_is_found(kind: type[SerialExecutor]) -> None:
    class Suite(ExecutorConformance):
        def make_executor(self) -> Executor:
            return kind()

    state, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with pytest.raises(AssertionError):
            getattr(Suite(), EXECUTORS[kind])()
    finally:
        random.setstate(state)
        np.random.set_state(numpys)  # noqa: NPY002


# -- genes -------------------------------------------------------------------------------------


class MutatesToItself(en.Integer):
    def mutate(self, value: Any, rng: Any, sigma: float = 0.1) -> Any:
        return value


class ReturnsNumpys(en.Integer):
    def sample(self, rng: Any) -> Any:
        return np.int64(super().sample(rng))


class AsksTheGlobal(en.Integer):
    def sample(self, rng: Any) -> Any:
        return super().sample(random.Random(random.random()))


class NeighboursItself(en.Integer):
    def neighbours(self, value: Any) -> Any:
        return iter((value,))


class MiscountsItself(en.Integer):
    @property
    def cardinality(self) -> int:
        return 99


class TakesAnything(en.Integer):
    def validate(self, name: str, value: Any) -> Any:
        return value


class EncodesTooFar(en.Integer):
    def encode(self, value: Any) -> Any:
        return [2.0]


GENES = {
    MutatesToItself: "test_mutation_finds_another_value",
    ReturnsNumpys: "test_a_sample_is_valid_and_canonical",
    AsksTheGlobal: "test_randomness_comes_from_the_rng",
    NeighboursItself: "test_neighbours_are_other_values",
    MiscountsItself: "test_all_values_are_as_many_as_it_says",
    TakesAnything: "test_nonsense_is_refused_by_name",
    EncodesTooFar: "test_encoding_there_and_back",
}


@pytest.mark.parametrize("kind", GENES, ids=lambda kind: kind.__name__)
def test_a_faulty_gene_is_found(kind: type[en.Integer]) -> None:
    class Suite(GeneConformance):
        def make_genes(self) -> Iterable[Any]:
            return [kind(1, 9)]

    with pytest.raises((AssertionError, TypeError)):
        getattr(Suite(), GENES[kind])()


class TestGenes(GeneConformance):
    """The library's own genes, in all their shapes."""

    def make_genes(self) -> Iterable[Any]:
        return [
            en.Boolean(),
            en.Categorical([1, 1.5, True, "a", None, [1, 2], {"a": None}]),
            en.Categorical([3]),
            en.Categorical({"short": len, "long": max}),
            en.Integer(1, 1000),
            en.Integer(1, 1024, log=True),
            en.Integer(-8, 64, step=8),
            en.Integer(5, 5),
            en.Float(-1, 1),
            en.Float(-1, 1.25, step=0.05),
            en.Float(1e-6, 1, log=True),
            en.Float(2, 2),
        ]


# -- toy problems ------------------------------------------------------------------------------


def test_a_flaky_function_fails_on_the_same_points_again() -> None:
    flaky = Flaky(quadratic, rate=0.3)
    fates = []
    for seed in range(200):
        trial = en.Trial(en.execution.TrialSettings(seed=seed))
        fate = []
        for _ in range(2):
            try:
                fate.append(flaky({"x0": 1.0}, trial))
            except RuntimeError as error:
                fate.append(str(error))
        assert fate[0] == fate[1]
        fates.append(fate[0] == -1.0)
    assert 120 < sum(fates) < 160


def test_noise_follows_from_the_seed() -> None:
    values = [
        noisy({"x0": 0.0}, en.Trial(en.execution.TrialSettings(seed=seed))) for seed in (1, 1, 2)
    ]
    assert values[0] == values[1] != values[2]


def test_a_slow_function_takes_its_time() -> None:
    trial = en.Trial()
    assert SlowQuadratic(0.02)({"x0": 2.0}, trial) == -4.0
    assert trial.seconds >= 0.02


def test_a_trace_leaves_out_timings_and_nothing_else(tmp_path: Path) -> None:
    def search(folder: str, **changes: Any) -> en.Result:
        return en.evolve(
            RoughProblem(), population=5, generations=2, elite=1, max_consecutive_failures=99,
            run_dir=tmp_path / folder, **({"seed": 0} | changes),
        )  # fmt: skip

    one, two = search("one"), search("two")
    assert trace(one) == trace(two)
    assert [entry.seconds for entry in one.evaluations] != [e.seconds for e in two.evaluations]
    found = trace(one)
    assert set(found) == {
        "logbook", "hall_of_fame", "champion", "evaluations", "counts", "proposals", "state",
    }  # fmt: skip
    other = trace(search("three", seed=1))
    assert all(found[name] != other[name] for name in found if name != "counts")
