from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from deap import base, tools

import evonas as en
from evonas.evolution.hall_of_fame import StableHallOfFame
from evonas.testing import (
    RoughProblem,
    StrategyConformance,
    conditional_space,
    onemax,
    onemax_space,
    quadratic,
    quadratic_space,
    trace,
)


class TestPublished(StrategyConformance):
    """The published settings, on a smaller scale."""

    def make_strategy(self) -> en.Strategy:
        return en.Generational(8, elite=2)


class TestBlendMinimising(StrategyConformance):
    objectives = (en.Objective("loss", "min"),)

    def make_strategy(self) -> en.Strategy:
        return en.Generational(
            5, elite=0, crossover="blend", crossover_prob=0.5, tournament_size=2, novelty_tries=0
        )


class TestRoulette(StrategyConformance):
    def make_strategy(self) -> en.Strategy:
        return en.Generational(5, elite=1, crossover="two_point", selection="roulette")

    def test_the_direction_of_the_objectives_counts(self) -> None:
        """Roulette maximises only: see `test_roulette_cannot_minimise`."""

    def test_initial_points_come_first(self) -> None:
        """Roulette takes no negative fitness, which this problem has."""

    def test_every_point_failing_stops_the_search(self) -> None:
        """As in the other suites: selection has no part in it."""


class TestOwnToolbox(StrategyConformance):
    """A toolbox of the user's, for whatever space it is asked."""

    def make_strategy(self) -> en.Strategy:
        return AnySpace(6, elite=1)


class AnySpace(en.Generational):
    """Makes the toolbox when it knows the space, as a user's script would."""

    def bind(self, context: Any) -> None:
        toolbox = en.make_toolbox(context.space, objectives=context.objectives)
        toolbox.register("mutate", double_mutation, toolbox.mutate)
        toolbox.register("select", tools.selRandom)
        self._user_toolbox = toolbox
        super().bind(context)


def double_mutation(mutate: Any, individual: Any) -> tuple[Any]:
    for _ in range(1 + int(np.random.randint(2))):  # noqa: NPY002 (DEAP users do)
        (individual,) = mutate(individual)
    return (individual,)


# -- what a generation is ----------------------------------------------------------------------


def search(strategy: en.Strategy, problem: Any = None, **changes: Any) -> en.Result:
    arguments: dict[str, Any] = {"generations": 4, "seed": 1, "max_consecutive_failures": 1000}
    return en.evolve(problem or RoughProblem(), strategy=strategy, **(arguments | changes))


def test_elites_are_carried_over_unchanged_and_not_evaluated_again() -> None:
    strategy = en.Generational(6, elite=2)
    populations = []

    class Watch(en.Observer):
        def on_row(self, row: Any) -> None:
            hall = [(best.key, list(best), best.number) for best in strategy.hall_of_fame[:2]]
            populations.append((list(strategy.population), hall))

    problem = RoughProblem(onemax_space(10), smooth=True)
    result = search(strategy, problem, callbacks=[Watch()])
    assert len(populations) == 4
    for (_, hall), (population, _) in pairwise(populations):
        assert [(best.key, list(best), best.number) for best in population[:2]] == hall
        assert all(best.fitness.valid for best in population[:2])
    assert [row["nevals"] + row["reused"] for row in result.logbook] == [6, 4, 4, 4]
    assert len(result.evaluations) == 6 + 3 * 4 - result.counts.reused


def test_parents_are_only_those_with_a_fitness(tmp_path: Any) -> None:
    result = search(en.Generational(8, elite=1), run_dir=tmp_path)
    status = {entry.number: entry.status for entry in result.evaluations}
    parents = {number for entry in trace(result)["proposals"] for number in entry.parents}
    assert parents
    assert {status[number] for number in parents} == {en.Status.OK}
    assert {"failed", "diverged"} & {entry.status.value for entry in result.evaluations}


def test_a_generation_of_failures_is_followed_by_random_points() -> None:
    """Nothing to select from, and no reason to stop."""

    def fails_at_first(genes: dict[str, Any], trial: en.Trial) -> float:
        if trial.number < 4:
            raise RuntimeError("not yet")
        return onemax(genes, trial)

    problem = en.FunctionProblem(onemax_space(), fails_at_first)
    result = search(en.Generational(4, elite=2), problem)
    assert [row["failed"] for row in result.logbook] == [4, 0, 0, 0]
    assert [row["nevals"] + row["reused"] for row in result.logbook] == [4, 4, 2, 2]
    assert result.logbook[0]["best"] is None
    assert result.logbook[0]["mean"] is None
    assert result.champion.fitness is not None


def test_novelty_tries_bound_how_often_duplicates_are_varied_again() -> None:
    reused = {}
    for tries in (0, 50):
        strategy = en.Generational(10, elite=1, novelty_tries=tries, gene_mutation_prob=0.02)
        problem = en.FunctionProblem(onemax_space(7), onemax)
        result = search(strategy, problem, generations=6)
        reused[tries] = result.counts.reused
        assert sum(row["reused"] for row in result.logbook) == result.counts.reused
    assert reused[50] < reused[0]


def test_a_generation_has_no_duplicates_within_while_there_are_other_points(tmp_path: Any) -> None:
    strategy = en.Generational(12, elite=1, novelty_tries=500)
    result = search(
        strategy, en.FunctionProblem(onemax_space(4), onemax), generations=1, run_dir=tmp_path
    )
    assert (result.logbook[0]["nevals"], result.logbook[0]["reused"]) == (12, 0)


@pytest.mark.parametrize(("probability", "n_parents"), [(1.0, 2), (0.0, 1)])
def test_the_lineage_is_on_record(probability: float, n_parents: int, tmp_path: Any) -> None:
    strategy = en.Generational(6, elite=1, crossover_prob=probability)
    found = trace(search(strategy, run_dir=tmp_path))["proposals"]
    assert {len(entry.parents) for entry in found if entry.generation == 0} == {0}
    assert {len(entry.parents) for entry in found if entry.generation > 0} == {n_parents}


def test_the_logbook_is_deaps_and_counts_every_place() -> None:
    strategy = en.Generational(8, elite=2)
    result = search(strategy, RoughProblem(onemax_space(9), smooth=True))
    for logbook in (strategy.logbook, result.logbook):
        assert isinstance(logbook, tools.Logbook)
        assert logbook.select("gen") == [0, 1, 2, 3]
        assert [n + r for n, r in zip(*logbook.select("nevals", "reused"), strict=True)] == [
            8, 6, 6, 6,
        ]  # fmt: skip
    first = [entry.values[0] for entry in result.evaluations[:8]]
    row = result.logbook[0]
    assert (row["best"], row["max"], row["min"]) == (max(first), max(first), min(first))
    assert row["mean"] == pytest.approx(np.mean(first))
    assert row["std"] == pytest.approx(np.std(first))


@pytest.mark.parametrize("direction", ["max", "min"])
@pytest.mark.parametrize("elite", [0, 3])
def test_the_hall_of_fame_is_the_results(direction: Any, elite: int) -> None:
    """Among many ties too, and after a resume: DEAP's own would reverse them."""
    strategy = en.Generational(8, elite=elite, gene_mutation_prob=0.15, hall_of_fame=5)
    result = search(strategy, RoughProblem(objectives=en.Objective("score", direction)))
    hall = strategy.hall_of_fame
    assert isinstance(hall, tools.HallOfFame)
    assert [(best.number, best.key, tuple(best.fitness.values)) for best in hall] == [
        (entry.number, entry.key, entry.values) for entry in result.hall_of_fame
    ]
    values = [entry.values[0] for entry in result.hall_of_fame]
    assert len(set(values)) < len(values) == 5
    again = en.Generational(8, elite=elite, gene_mutation_prob=0.15, hall_of_fame=5)
    problem = RoughProblem(objectives=en.Objective("score", direction))
    again.bind(context(problem))
    again.load_state_dict(strategy.state_dict(), [])
    assert [best.number for best in again.hall_of_fame] == [best.number for best in hall]


def test_of_equals_the_hall_keeps_the_first() -> None:
    """As DEAP's does not: it drops the earlier one first."""

    def fill(hall: tools.HallOfFame) -> list[list[int]]:
        for number, value in enumerate((1.0, 5.0, 5.0, 5.0, 0.0, 6.0, 5.0)):
            hall.update([en.Individual([number], en.Fitness((1.0,), (value,)))])
        return list(hall)

    assert fill(StableHallOfFame(3)) == [[5], [1], [2]]
    assert fill(tools.HallOfFame(3)) != [[5], [1], [2]]


def context(problem: en.Problem, initial: Sequence[Any] = ()) -> Any:
    from evonas.run.history import History
    from evonas.strategies import SearchContext

    history = History(problem, {})
    return SearchContext(problem.space, problem.objectives, 0, history, initial)


# -- toolboxes of the user's -------------------------------------------------------------------


def test_numpy_values_of_own_operators_become_pythons() -> None:
    """And a value counts as one point, however it is spelt."""
    space = en.SearchSpace({"x": en.Integer(0, 3), "y": [0.5, 1.5]})
    toolbox = en.make_toolbox(space)

    def mutate(individual: Any) -> tuple[Any]:
        individual[0] = random.choice([np.int64(2), np.float64(3.0), 1])
        individual[1] = np.float32(1.5)
        return (individual,)

    toolbox.register("mutate", mutate)
    strategy = en.Generational(5, elite=1, toolbox=toolbox)
    result = search(strategy, en.FunctionProblem(space, lambda genes, trial: genes["x"]))
    for entry in result.evaluations:
        assert type(entry.genes["x"]) is int
        assert type(entry.genes["y"]) is float
    assert len({str(entry.genes) for entry in result.evaluations}) == len(result.evaluations)


def test_operators_that_leave_the_space_are_named() -> None:
    space = en.SearchSpace({"x": [1, 2], "y": [1, 2, 3]})
    toolbox = en.make_toolbox(space)

    def mutate(individual: Any) -> tuple[Any]:
        individual[1] = 7
        return (individual,)

    toolbox.register("mutate", mutate)
    with pytest.raises(ValueError, match=r"gene 'y' must be one of \[1, 2, 3\], got 7"):
        en.evolve(space, onemax, population=4, toolbox=toolbox)


def test_operators_that_break_a_constraint_are_asked_again() -> None:
    space = conditional_space()
    toolbox = en.make_toolbox(space)
    loose = en.make_toolbox(space.unconstrained())
    toolbox.register("mutate", loose.mutate)
    toolbox.register("mate", loose.mate)
    result = search(en.Generational(8, elite=1, toolbox=toolbox))
    assert all(space.violated(entry.genes) == [] for entry in result.evaluations)


def test_an_individual_class_of_deaps_creator_will_do() -> None:
    from deap import creator

    creator.create("FitnessTest", base.Fitness, weights=(-1.0,))
    creator.create("IndividualTest", list, fitness=creator.FitnessTest)
    try:
        space = quadratic_space()
        toolbox = en.make_toolbox(space, individual_class=creator.IndividualTest)
        objective = en.Objective("loss", "min")
        result = en.evolve(
            space, lambda genes, trial: -quadratic(genes, trial), objectives=objective,
            population=6, generations=8, elite=1, toolbox=toolbox, seed=0,
        )  # fmt: skip
        assert result.champion.values[0] == min(entry.values[0] for entry in result.evaluations)
        assert result.logbook[-1]["mean"] < result.logbook[0]["mean"]
    finally:
        del creator.FitnessTest, creator.IndividualTest


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("mate", "toolbox has no mate: start from en.make_toolbox"),
        ("select", "toolbox has no select: start from en.make_toolbox"),
    ],
)
def test_a_toolbox_without_an_operator(remove: str, message: str) -> None:
    toolbox = en.make_toolbox(onemax_space())
    toolbox.unregister(remove)
    with pytest.raises(ValueError, match=message):
        en.evolve(onemax_space(), onemax, population=4, toolbox=toolbox)


def test_a_toolbox_for_other_objectives() -> None:
    toolbox = en.make_toolbox(onemax_space(), objectives=en.Objective("loss", "min"))
    with pytest.raises(ValueError, match=r"fitness weights \(-1.0,\), expected \(1.0,\)"):
        en.evolve(onemax_space(), onemax, population=4, toolbox=toolbox)


# -- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"population": 1}, ValueError, "population must be at least 2, got 1"),
        ({"population": 0}, ValueError, "population must be at least 2, got 0"),
        ({"population": 5.0}, TypeError, r"population must be an int, got 5.0 \(float\)"),
        ({"population": True}, TypeError, r"population must be an int, got True \(bool\)"),
        ({"population": 4, "elite": 4}, ValueError, "elite=4, population=4"),
        ({"population": 4, "elite": 9}, ValueError, "elite must be less than population"),
        ({"population": 4, "elite": -1}, ValueError, "elite must be at least 0, got -1"),
        ({"crossover_prob": 1.5}, ValueError, r"crossover_prob must be at most 1.0, got 1.5"),
        ({"crossover_prob": "1"}, TypeError, r"crossover_prob must be a number, got '1' \(str\)"),
        ({"gene_mutation_prob": -0.1}, ValueError, r"gene_mutation_prob must be at least 0.0"),
        ({"gene_mutation_prob": float("nan")}, ValueError, "gene_mutation_prob .* got nan"),
        ({"tournament_size": 0}, ValueError, "tournament_size must be at least 1, got 0"),
        ({"novelty_tries": -1}, ValueError, "novelty_tries must be at least 0, got -1"),
        ({"hall_of_fame": 0}, ValueError, "hall_of_fame must be at least 1, got 0"),
    ],
)
def test_wrong_arguments(arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        en.Generational(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crossover": "three_point"}, "crossover must be .* or 'blend', got 'three_point'"),
        ({"selection": "lottery"}, "selection must be .* or 'best', got 'lottery'"),
    ],
)
def test_unknown_operators(arguments: Any, message: str, tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=message):
        search(en.Generational(4, **arguments), run_dir=tmp_path)
    search(en.Generational(4), run_dir=tmp_path)  # the directory holds no run of the wrong one


def test_roulette_cannot_minimise(tmp_path: Any) -> None:
    """Said before anything is evaluated, not after the first generation."""
    calls = []

    def loss(genes: Any, trial: Any) -> float:
        calls.append(genes)
        return 1.0

    problem = en.FunctionProblem(onemax_space(), loss, objectives=en.Objective("loss", "min"))
    with pytest.raises(ValueError, match="roulette' needs a maximised objective"):
        search(en.Generational(4, selection="roulette"), problem, run_dir=tmp_path)
    assert calls == []


def test_it_optimises_one_objective() -> None:
    problem = RoughProblem(objectives=[en.Objective("accuracy"), en.Objective("params", "min")])
    with pytest.raises(ValueError, match=r"one objective, got 2 \(accuracy, params\)"):
        search(en.Generational(4), problem)


def test_more_initial_points_than_places() -> None:
    with pytest.raises(ValueError, match="initial has 3 points, more than population=2"):
        en.evolve(quadratic_space(1), quadratic, population=2, initial=[{"x0": 0}] * 3)


def test_another_strategys_state() -> None:
    strategy = en.Generational(4)
    strategy.bind(context(RoughProblem()))
    with pytest.raises(ValueError, match="the state is Other's, expected one of Generational"):
        strategy.load_state_dict({"name": "Other"}, [])


@pytest.mark.parametrize(("population", "elite"), [(12, 8), (50, 33), (2, 1), (100, 66)])
def test_two_thirds_are_carried_over_and_one_gene_a_child_changes(
    population: int, elite: int
) -> None:
    strategy = en.Generational(population)
    strategy.bind(context(RoughProblem()))
    assert strategy.elite == elite
    assert strategy.toolbox.mutate.keywords["indpb"] == 1 / len(RoughProblem().space)
    assert en.Generational().population_size == 12
    given = en.Generational(gene_mutation_prob=0.3)
    given.bind(context(RoughProblem()))
    assert given.toolbox.mutate.keywords["indpb"] == 0.3
