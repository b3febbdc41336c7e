"""What bad input gets: name, expected, got, way out; and nothing is lost."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evonas as en
from evonas.callbacks import ProgressBar
from evonas.exceptions import RunMismatchError, UnsatisfiableSpaceError
from evonas.testing import RoughProblem, onemax, onemax_space, quadratic, quadratic_space, trace

SMALL: dict[str, Any] = {"population": 4, "generations": 3, "elite": 1, "seed": 0}


# -- spaces ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: {"x": []}, ValueError, "gene 'x': Categorical: choices must hold at least one"),
        (lambda: {"x": en.Categorical([])}, ValueError, "choices must hold at least one choice"),
        (lambda: {"x": [1, 1]}, ValueError, "gene 'x': Categorical: the choice 1 is given twice"),
        (lambda: {"x": [math.nan]}, ValueError, "gene 'x': .*nan"),
        (lambda: {"x": [max]}, TypeError, "gene 'x': .*choices that are not JSON are named"),
        (lambda: {"x": 3}, TypeError, "gene 'x' must be a Gene .*, got 3"),
        (dict, ValueError, "SearchSpace needs at least one gene, got none"),
        (lambda: {"x": en.Integer(5, 4)}, ValueError, "low must not exceed high, got 5 > 4"),
        (lambda: {"x": en.Float(1.0, 0.5)}, ValueError, "low must not exceed high, got 1.0 > 0.5"),
        (lambda: {"x": en.Float(0.0, 1.0, log=True)}, ValueError, "log=True needs low > 0, got"),
        (lambda: {"x": en.Integer(0, 9, log=True)}, ValueError, "log=True needs low > 0, got|low"),
        (
            lambda: en.SearchSpace({"x": [1]}, conditions={"x": {"depth": [1]}}),
            ValueError, "the parent 'depth' is not a gene of the space; its genes are: x",
        ),
        (
            lambda: en.SearchSpace({"x": [1]}, conditions={"width": {"x": [1]}}),
            ValueError, "conditional gene 'width' is not a gene of the space; its genes are: x",
        ),
    ],
)  # fmt: skip
def test_spaces(make: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        en.evolve(make(), onemax, **SMALL)


def test_a_space_that_nothing_satisfies(tmp_path: Path) -> None:
    """An error, not a loop: of a finite space, of an endless one, and of the problem's own view."""
    never = {"never": lambda genes: False}
    message = r"none of the 4 points of the space satisfies its constraints \('never' rejected 4\)"
    with pytest.raises(UnsatisfiableSpaceError, match=message):
        en.evolve(en.SearchSpace({"x": [1, 2], "y": [1, 2]}, constraints=never), onemax, **SMALL)
    with pytest.raises(UnsatisfiableSpaceError, match="'never' rejected 1,000.*relax or repair"):
        en.evolve(en.SearchSpace({"x": en.Float(0, 1)}, constraints=never), onemax, **SMALL)

    class Hopeless(RoughProblem):
        def invalid_reason(self, genes: Any) -> str:
            return "no shape"

    with pytest.raises(UnsatisfiableSpaceError, match="none of 10000 points in a row builds any"):
        en.evolve(Hopeless(), **SMALL)


def test_trials_that_all_find_their_point_invalid(tmp_path: Path) -> None:
    """In an endless space that would never stop: no trial counts, no generation closes."""

    def fitness(genes: Any, trial: Any) -> float:
        raise en.InvalidPoint(f"no shape for {genes['x0']:.1f}")

    message = (
        r"1,000 trials in a row found their point invalid, the last one \(number 999, genes .*\) "
        r"because: no shape for .*; give the space a constraint, or the problem an invalid_reason"
    )
    with pytest.raises(UnsatisfiableSpaceError, match=message):
        en.evolve(quadratic_space(), fitness, population=20, generations=3, seed=0)


# -- arguments of evolve -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"elite": 4}, ValueError, "elite must be less than population, got elite=4, population=4"),
        ({"elite": 5}, ValueError, "elite must be less than population"),
        ({"population": 1}, ValueError, "population must be at least 2, got 1"),
        ({"population": 0}, ValueError, "population must be at least 2, got 0"),
        ({"population": "4"}, TypeError, r"population must be an int, got '4' \(str\)"),
        ({"generations": 0}, ValueError, "generations must be at least 1, got 0"),
        ({"generations": 2.0}, TypeError, r"generations must be an int, got 2.0 \(float\)"),
        ({"max_evaluations": -1}, ValueError, "max_evaluations must be at least 1, got -1"),
        ({"max_seconds": -1}, ValueError, "max_seconds must be at least 0, got -1"),
        ({"max_seconds": math.nan}, ValueError, "max_seconds must be a finite number, got nan"),
        ({"max_seconds": "1h"}, TypeError, r"max_seconds must be a number, got '1h' \(str\)"),
        ({"patience": 0}, ValueError, "patience must be at least 1, got 0"),
        ({"target_fitness": "high"}, TypeError, "target_fitness must be a number, got 'high'"),
        ({"target_fitness": math.nan}, ValueError, "target_fitness must be .*got nan"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"seed": 1.5}, TypeError, r"seed must be an int, got 1.5 \(float\)"),
        ({"workers": 0}, ValueError, "workers must be at least 1, got 0"),
        ({"threads_per_trial": 0}, ValueError, "threads_per_trial must be at least 1, got 0"),
        ({"max_consecutive_failures": 0}, ValueError, "max_consecutive_failures must be at lea"),
        ({"durability": "disk"}, ValueError, "durability must be 'process' or 'power', got 'disk'"),
        ({"strategy": "GA"}, ValueError, "give either strategy or population, elite and toolbox"),
        (
            {"objectives": "loss"},
            TypeError,
            "objectives must be a list of Objective",
        ),
        ({"objectives": []}, ValueError, "objectives is empty: give at least one"),
        ({"callbacks": [1]}, TypeError, "callbacks must be evonas.Observer objects, got int"),
        ({"initial": [{"bit9": True}]}, ValueError, "unknown gene 'bit9'"),
        ({"initial": [{"bit0": True}]}, ValueError, r"missing gene: 'bit1' \(expected Boolean"),
        (
            {"initial": [{"bit0": 1, "bit1": True}]},
            TypeError,
            "'bit0' must be True or False, got 1",
        ),
        ({"initial": [3]}, TypeError, "genes must be a dict of gene name to value, got 3"),
    ],
)
def test_wrong_arguments_leave_no_run_behind(
    changes: Any, error: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        en.evolve(onemax_space(2), onemax, run_dir=tmp_path, **(SMALL | changes))
    en.evolve(onemax_space(2), onemax, run_dir=tmp_path, **SMALL)  # corrected, it just runs


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((3, onemax), {}, TypeError, "first argument, problem, must be a Problem, .* got 3"),
        ((onemax_space(),), {}, TypeError, "a fitness function .* is missing"),
        ((onemax_space(), 3), {}, TypeError, "fitness must be callable as .*, got int"),
        ((RoughProblem(), onemax), {}, ValueError, "a Problem brings its own fitness"),
        ((RoughProblem(),), {"problem_id": "x"}, ValueError, "a Problem brings its own fitness"),
        (
            (onemax_space(), onemax),
            {"strategy": "GA"},
            ValueError,
            "must be a Strategy object or 'auto', .*, got",
        ),
    ],
)
def test_wrong_problems(arguments: Any, keywords: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        en.evolve(*arguments, **keywords)


def test_initial_points_that_build_nothing(tmp_path: Path) -> None:
    space = en.SearchSpace(
        {"x": [1, 2, 3], "y": [1, 2, 3]}, constraints={"x_is_less": lambda g: g["x"] < g["y"]}
    )
    point = {"x": 3, "y": 1}
    message = r"initial point {'x': 3, 'y': 1} is invalid \(violates x_is_less\): fix it or"
    with pytest.raises(ValueError, match=message):
        en.evolve(space, onemax, initial=[point], run_dir=tmp_path, **SMALL)

    class Narrow(en.FunctionProblem):
        def invalid_reason(self, genes: Any) -> str | None:
            return "too wide" if genes["x"] == 3 else None

    with pytest.raises(ValueError, match=r"is invalid \(too wide\): fix it or leave it out"):
        en.evolve(
            Narrow(en.SearchSpace({"x": [1, 2, 3], "y": [1]}), onemax), initial=[point],
            run_dir=tmp_path, **SMALL,
        )  # fmt: skip
    point["y"], point["x"] = 3, 1
    en.evolve(space, onemax, initial=[point], run_dir=tmp_path, **SMALL)


# -- fitness functions -------------------------------------------------------------------------


class Tensor:
    """What a tensor looks like to code that must not import torch."""

    def item(self) -> float:
        return 0.5

    def __repr__(self) -> str:
        return "tensor(0.5000)"


NO_FITNESS = {
    "None": (
        None,
        "failed",
        r"returned None, expected a number \(fitness\): is a `return` missing",
    ),
    "a string": ("0.9", "failed", r"must return a number for 'fitness', got '0.9' \(str\)"),
    "a bool": (True, "failed", r"must return a number for 'fitness', got True \(bool\)"),
    "a tensor": (Tensor(), "failed", r"got tensor\(0.5000\) \(Tensor\): of a tensor .* \.item\(\)"),
    "an array": (
        np.zeros(1),
        "failed",
        r"got array.* \(ndarray\): of a tensor or array return .item\(\)",
    ),
    "two values": ((1.0, 2.0), "failed", r"returned 2 values .*, expected a number \(fitness\)"),
    "no values": ((), "failed", r"returned 0 values .*, expected a number \(fitness\)"),
    "a dict without it": (
        {"acc": 1.0},
        "failed",
        "a dict without 'fitness': .* got the keys 'acc'",
    ),
    "NaN": (math.nan, "diverged", "the fitness is nan"),
    "infinity": (-math.inf, "diverged", "the fitness is -inf"),
    "NumPy's NaN": (np.float32("nan"), "diverged", "the fitness is nan"),
    "a metric that is no JSON": ({"fitness": 1.0, "net": Tensor()}, "failed", "metric 'net'"),
}


@pytest.mark.parametrize("name", NO_FITNESS)
def test_what_is_no_fitness_is_recorded_and_the_search_goes_on(name: str, tmp_path: Path) -> None:
    returned, status, message = NO_FITNESS[name]
    result = en.evolve(
        onemax_space(), lambda genes, trial: returned if genes["bit0"] else 1.0,
        run_dir=tmp_path, **SMALL,
    )  # fmt: skip
    assert len(result.logbook) == 3
    for entry in result.evaluations:
        assert entry.status == (status if entry.genes["bit0"] else "ok")
    errors = [str(entry.error) for entry in result.evaluations if entry.genes["bit0"]]
    assert errors
    for error in errors:
        with pytest.raises(AssertionError, match=message):
            raise AssertionError(error)
    assert not result.champion.genes["bit0"]


@pytest.mark.parametrize("name", NO_FITNESS)
def test_what_is_never_a_fitness_stops_the_search(name: str) -> None:
    returned, status, message = NO_FITNESS[name]
    stopped = rf"(?s)10 evaluations in a row failed: .*{message}.* \({status}, number 9, genes "
    with pytest.raises(en.TooManyFailures, match=f"{stopped}.*Fix it and run the same"):
        en.evolve(onemax_space(), lambda genes, trial: returned, **(SMALL | {"population": 20}))


@pytest.mark.parametrize("returned", [np.float64(0.5), np.float32(0.5), np.int64(1), 1, 0.5])
def test_every_number_is_a_fitness(returned: Any, tmp_path: Path) -> None:
    result = en.evolve(onemax_space(), lambda genes, trial: returned, run_dir=tmp_path, **SMALL)
    assert type(result.champion.fitness) is float
    assert result.champion.fitness == returned


def needs_more(genes: Any, trial: Any, epochs: int) -> float:
    return 1.0


@pytest.mark.parametrize("fitness", [lambda genes: 1.0, lambda: 1.0, needs_more])
def test_a_fitness_function_with_the_wrong_arguments(fitness: Any, tmp_path: Path) -> None:
    message = r"fitness must be callable as fitness\(genes, trial\), got (<lambda>|needs_more)\("
    with pytest.raises(TypeError, match=message):
        en.evolve(onemax_space(), fitness, run_dir=tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fitness", "message"),
    [
        (lambda genes, trial: genes["b"], "KeyError: 'b'"),
        (lambda genes, trial: None, "is a `return` missing"),
        (lambda genes, trial: float("nan"), "the fitness is nan"),
    ],
)
def test_a_search_in_which_all_failed_raises(fitness: Any, message: str, tmp_path: Path) -> None:
    """Also where the budget ends before there are too many in a row."""
    expected = (
        rf"(?s)all 5 evaluations failed: [^\n]*{message}.*; the last one .*Fix it and run the same"
    )
    with pytest.raises(en.TooManyFailures, match=expected):
        en.evolve({"a": en.Float(0, 1)}, fitness, max_evaluations=5, run_dir=tmp_path)
    result = en.open_run(tmp_path)
    assert (result.outcome, result.stop_reason) == ("failures", "max_evaluations 5 is used up")


def test_the_one_evaluation_is_no_plural() -> None:
    def fitness(genes: Any, trial: Any) -> float:
        raise OSError("no disk")

    with pytest.raises(en.TooManyFailures, match="^the one evaluation failed: OSError: no disk"):
        en.evolve({"a": [1, 2]}, fitness, max_evaluations=1, progress=False)


def test_the_users_error_and_its_line_come_first() -> None:
    def fitness(genes: Any, trial: Any) -> float:
        return float(json.loads("{"))

    line = fitness.__code__.co_firstlineno + 1
    with pytest.raises(en.TooManyFailures) as caught:
        en.evolve({"a": [1, 2]}, fitness, max_evaluations=2)
    first = str(caught.value).partition("\n")[0]
    assert first.startswith(
        "all 2 evaluations failed: json.decoder.JSONDecodeError: Expecting prop"
    )
    assert f"(line {line} of {__file__}, in fitness); the last one (failed, number 1" in first


def test_a_reason_in_one_line_is_said_once() -> None:
    with pytest.raises(en.TooManyFailures) as caught:
        en.evolve({"a": [1, 2]}, lambda genes, trial: math.nan, max_evaluations=2, seed=0)
    assert str(caught.value).count("the fitness is nan") == 1
    assert re.search(r"nan; the last one \(diverged, number 1, genes {'a': \d}\)\nFix it",
                     str(caught.value))  # fmt: skip


def test_one_evaluation_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(en.TooManyFailures, match="^1 evaluation in a row failed"):
        en.evolve({"a": [1, 2]}, lambda genes, trial: math.nan, max_consecutive_failures=1,
                  max_evaluations=1, callbacks=[ProgressBar(bar=False, lines=True)])  # fmt: skip
    assert "; at most 1 evaluation;" in capsys.readouterr().err
    result = en.evolve({"a": [1, 2, 3]}, lambda genes, trial: 0.0, population=2, generations=1)
    assert result.stop_reason == "1 generation is done"


def test_a_search_that_failed_everywhere_goes_on_once_mended(tmp_path: Path) -> None:
    """The same command: what failed is tried again, what had not failed is not repeated."""
    broken = [True]  # not the code: a file is missing
    calls = []

    def fitness(genes: Any, trial: en.Trial) -> float:
        calls.append(trial.key)
        if broken[0] and trial.number >= 5:
            raise FileNotFoundError("data/train.bin")
        return onemax(genes, trial)

    def search(run_dir: Path) -> en.Result:
        return en.evolve(
            onemax_space(), fitness, population=10, generations=4, elite=1, seed=0,
            run_dir=run_dir, max_consecutive_failures=4,
        )  # fmt: skip

    for n_starts in (1, 2):
        message = r"(?s)4 evaluations in a row failed.*FileNotFoundError: data/train.bin"
        with pytest.raises(en.TooManyFailures, match=message):
            search(tmp_path / "fixed")
        result = en.open_run(tmp_path / "fixed")
        assert result.counts.by_status["failed"] == 4 * n_starts
        assert (result.outcome, result.stop_reason) == ("failures", "too many failures in a row")
    broken[0] = False
    n_calls = len(calls)
    result = search(tmp_path / "fixed")
    assert calls[:5] == [entry.key for entry in result.evaluations[:5]]
    assert not set(calls[:5]) & set(calls[n_calls:])
    assert len(calls) - n_calls == len(set(calls[n_calls:]))
    assert result.outcome == "finished"
    whole = search(tmp_path / "whole")
    assert trace(result)["logbook"] == trace(whole)["logbook"]
    # Of equals the earlier one is in the hall, and what was tried again came later.
    assert [entry.fitness for entry in result.hall_of_fame] == [
        entry.fitness for entry in whole.hall_of_fame
    ]
    assert result.champion.genes == whole.champion.genes
    again = search(tmp_path / "fixed")
    assert trace(again) == trace(result)


def test_failures_must_come_in_a_row() -> None:
    """Nothing else stops a search: two of three points fail here, and it ends well."""

    def fitness(genes: Any, trial: en.Trial) -> float:
        if trial.number % 3:
            raise RuntimeError("two of three")
        return quadratic(genes, trial)

    result = en.evolve(quadratic_space(), fitness, max_consecutive_failures=3, **SMALL)
    assert result.counts.failed > 5
    with pytest.raises(en.TooManyFailures, match="2 evaluations in a row failed"):
        en.evolve(quadratic_space(), fitness, max_consecutive_failures=2, **SMALL)


def test_a_pruned_trial_is_no_failure() -> None:
    assert not en.Status.PRUNED.is_failure
    assert not en.Status.INVALID.is_failure
    assert [status for status in en.Status if status.is_final] == [en.Status.OK, en.Status.INVALID]


# -- another run's directory -------------------------------------------------------------------


class Other(en.FunctionProblem):
    def fingerprint(self) -> dict[str, Any]:
        return {"data": ("cifar", 10), "epochs": self.epochs}

    epochs = 5


def problem(epochs: int) -> Other:
    found = Other(onemax_space(), onemax)
    found.epochs = epochs
    return found


MISMATCHES = {
    "a gene": (
        {"problem": en.SearchSpace({**dict(onemax_space().items()), "bit6": [0, 1]})},
        r"another search space \(genes.bit6.*in the run, .*here\)",
    ),
    "a gene more": (
        {"problem": onemax_space(9)},
        r"another search space \(genes.bit8: nothing in the run, {'name': 'bit8', .* here\)",
    ),
    "a gene less": (
        {"problem": onemax_space(7)},
        r"another search space \(genes.bit7: {'name': 'bit7', .* in the run, nothing here\)",
    ),
    "a bound": (
        {"problem": en.SearchSpace({**dict(onemax_space().items()), "bit6": en.Float(0, 2)})},
        r"another search space \(genes.bit6.type: boolean in the run, float here\)",
    ),
    "a constraint": (
        {"problem": en.SearchSpace(dict(onemax_space().items()), constraints={"c": any})},
        r"another search space \(constraints.0: nothing in the run, c here\)",
    ),
    "problem_id": (
        {"problem_id": "other data"},
        r"another problem \(problem_id: onemax in the run, other data here\)",
    ),
    "objectives": (
        {"objectives": en.Objective("fitness", "min")},
        r"other objectives \(fitness: max in the run, min here\)",
    ),
    "population": (
        {"population": 5},
        r"another strategy \(population: 4 in the run, 5 here\)",
    ),
    "elite": ({"elite": 2}, r"another strategy \(elite: 1 in the run, 2 here\)"),
    "mutation": (
        {"population": None, "elite": None,
         "strategy": en.Generational(4, elite=1, gene_mutation_prob=0.5)},
        r"another strategy \(gene_mutation_prob: nothing in the run, 0.5 here\)",
    ),
    "toolbox": (
        {"toolbox": en.make_toolbox(onemax_space())},
        r"another strategy \(own_toolbox: False in the run, True here\)",
    ),
    "initial": (
        {"initial": [{f"bit{index}": True for index in range(8)}]},
        r"other initial points \(0: nothing in the run, {'bit0': True, .* here\)",
    ),
    "deterministic": ({"deterministic": True}, r"another deterministic \(False in the run, True h"),
    "seed": ({"seed": 1}, "was started with seed 0, here 1: leave it out, or pass a new"),
    "threads": (
        {"threads_per_trial": 64},
        r"was started with threads_per_trial \d+, here 64: leave it out, or pass a new",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISMATCHES)
def test_a_run_of_something_else_is_refused_and_left_alone(name: str, tmp_path: Path) -> None:
    def search(**changes: Any) -> en.Result:
        found = changes.pop("problem", onemax_space())
        return en.evolve(found, onemax, run_dir=tmp_path, **(SMALL | changes))

    changes, message = MISMATCHES[name]
    before = trace(search())
    with pytest.raises(RunMismatchError, match=message):
        search(**changes)
    assert trace(search()) == before
    with pytest.raises(RunMismatchError, match="new run_dir"):
        search(**changes)


def test_a_problem_with_another_fingerprint(tmp_path: Path) -> None:
    """Tuples in it come back as lists, and are no difference."""
    for _ in range(2):
        en.evolve(problem(5), run_dir=tmp_path, **SMALL)
    with pytest.raises(RunMismatchError, match=r"another problem \(epochs: 5 in the run, 6 here\)"):
        en.evolve(problem(6), run_dir=tmp_path, **SMALL)


def test_what_may_change_between_starts(tmp_path: Path) -> None:
    en.evolve(onemax_space(), onemax, run_dir=tmp_path, **SMALL)
    result = en.evolve(
        onemax_space(), onemax, population=4, elite=1, generations=5, patience=50, seed=None,
        max_evaluations=40, max_seconds=100, target_fitness=100.0, max_consecutive_failures=3,
        devices="cpu", workers=1, progress=False, callbacks=[en.Observer()], run_dir=tmp_path,
        durability="power", metadata={"note": 2},
    )  # fmt: skip
    assert len(result.logbook) == 5


def test_a_run_that_is_being_driven(tmp_path: Path) -> None:
    def again(genes: Any, trial: Any) -> float:
        return en.evolve(onemax_space(), onemax, run_dir=tmp_path, **SMALL).champion.values[0]

    with pytest.raises(en.TooManyFailures, match=rf"RunInUseError: run {tmp_path} is in use by th"):
        en.evolve(onemax_space(), again, run_dir=tmp_path, **(SMALL | {"population": 12}))
