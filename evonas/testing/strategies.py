"""What every strategy must pass."""

from __future__ import annotations

import os
import random
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np

from evonas.exceptions import TooManyFailures
from evonas.objectives import Objective
from evonas.problem import FunctionProblem, Problem
from evonas.records import Genes, Status
from evonas.run.evolve import evolve
from evonas.run.history import History
from evonas.run.result import Result
from evonas.strategies.base import Proposal, SearchContext, Strategy
from evonas.testing._checks import (
    check,
    check_equal,
    check_raises,
    global_states,
    through_json,
)
from evonas.testing.problems import RoughProblem, onemax_space, smooth_problem
from evonas.testing.runs import killed_copies, trace

__all__ = ["StrategyConformance"]


class StrategyConformance(ABC):
    """The contract of `Strategy`, as tests: subclass it, say how yours is made, and run pytest.

    Each method named `test_*` is one clause. They search toy problems in memory and in temporary
    directories, in a few seconds together. A method that does not apply is overridden.

    Attributes:
        n_rows: Logbook rows (generations) of the test runs, at least 3.
        objectives: What the test problems return.

    Example:
        >>> from evonas import Generational
        >>> class TestGenerational(StrategyConformance):
        ...     def make_strategy(self):
        ...         return Generational(population=8, elite=2)
        >>> TestGenerational().test_same_seed_same_run()
    """

    n_rows: ClassVar[int] = 3
    objectives: ClassVar[Sequence[Objective]] = (Objective("fitness"),)

    @abstractmethod
    def make_strategy(self) -> Strategy:
        """Returns a new strategy with the same settings each time, of 5 to 20 points a row."""

    def test_settings_are_json_and_name_the_strategy(self) -> None:
        """Two strategies made alike have equal settings, and JSON keeps them."""
        settings = self.make_strategy().settings()
        check_equal(through_json(settings), settings, "settings() must be JSON")
        check_equal(self.make_strategy().settings(), settings, "settings() of another one")
        check(settings.get("name") == self.make_strategy().name, "settings() lacks the name")

    def test_it_goes_on_when_points_are_invalid_or_fail(self) -> None:
        """Every row closes, whatever becomes of the points."""
        result = self._search()
        check_equal(len(result.logbook), self.n_rows, "logbook rows")
        counts = result.counts.by_status
        check(counts["invalid"] and counts["failed"], f"too smooth a run to tell: {counts}")

    def test_proposals_are_points_of_the_space(self) -> None:
        """Genes are active ones in canonical form that satisfy the constraints; parents ran."""
        problem = self._problem()
        strategy = self.make_strategy()
        proposals: list[Proposal] = []

        def ask(n_free: int) -> list[Proposal]:
            proposals.extend(asked := own_ask(n_free))
            return asked

        own_ask = strategy.ask
        with patch.object(strategy, "ask", ask):
            result = self._search(strategy, problem=problem)
        for proposal in proposals:
            genes = proposal.genes
            check_equal(problem.space.validate(genes), genes, "genes of a proposal")
            check_equal(problem.space.violated(genes), [], "constraints of a proposal")
            check_equal(proposal.key, problem.key(genes), "key of a proposal")
            check(problem.invalid_reason(genes) is None, "a point known to be invalid is proposed")
        ids = [proposal.id for proposal in proposals]
        check(ids == sorted(set(ids)), f"ids must ascend, got {ids}")
        numbers = {entry.number for entry in result.evaluations}
        parents = {number for proposal in proposals for number in proposal.parents}
        check(parents <= numbers, f"parents {parents - numbers} were never evaluated")

    def test_it_says_whether_a_row_is_under_way(self) -> None:
        """Not at first; with proposals out, unless it never waits for them."""
        strategy = self._bound()
        check(not strategy.is_under_way, "under way before the first ask")
        proposals = strategy.ask(1)
        check(proposals, "nothing is proposed")
        check(strategy.is_under_way is not strategy.asynchronous, "under way after the first ask")
        again = self._bound()
        again.load_state_dict(through_json(strategy.state_dict()), [])
        check(again.is_under_way, "not under way when loaded with proposals out")
        check_equal(again.ask(1), proposals, "what was proposed before and not told")

    def test_same_seed_same_run(self) -> None:
        """Nothing but the seed decides; a new strategy knows nothing of the last run."""
        check_equal(trace(self._search()), trace(self._search()), "a second run")
        first = [
            [entry.genes for entry in self._search(seed=seed).evaluations[:5]] for seed in (7, 8)
        ]
        check(first[0] != first[1], "seeds 7 and 8 begin with the same points")

    def test_global_generators_are_neither_read_nor_moved(self) -> None:
        """The caller's `random` and `numpy.random` neither steer the search nor notice it."""
        runs = []
        for seed in (1, 2):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002 (the user's own)
            before = global_states()
            runs.append(trace(self._search()))
            check(global_states() == before, "the global `random` or `numpy.random` was moved")
        check_equal(runs[0], runs[1], "a run under another global seed")

    def test_killed_at_any_commit_it_ends_the_same(self) -> None:
        """Killed after any of its commits and started again, it ends as if nothing had been."""
        with _folder() as folder:
            copies = killed_copies(lambda path: self._search(run_dir=path), Path(folder))
            whole = trace(self._search(run_dir=Path(folder, "whole")))
            for copy in copies:
                again = trace(self._search(run_dir=copy))
                check_equal(again, whole, f"{copy.name} of {len(copies)}, started again")

    def test_extended_it_ends_as_if_asked_for_more_at_once(self) -> None:
        """Row by row, each in a start of its own, gives the same run."""
        with _folder() as folder:
            whole = trace(self._search(run_dir=folder))
        with _folder() as folder:
            for n_rows in range(1, self.n_rows + 1):
                result = self._search(run_dir=folder, generations=n_rows)
            check_equal(trace(result), whole, "a run that was extended row by row")

    def test_killed_in_a_space_searched_to_its_end_it_ends_the_same(self) -> None:
        """What is on record is told before the search sees that nothing is left."""

        def search(run_dir: Path) -> Result:
            problem = self._problem(onemax_space(3))
            return self._search(problem=problem, generations=1000, run_dir=run_dir)

        with _folder() as folder:
            copies = killed_copies(search, Path(folder))
            whole = trace(search(Path(folder, "whole")))
            for copy in copies:
                check_equal(trace(search(copy)), whole, f"{copy.name} of {len(copies)}")

    def test_the_state_is_json_and_stays_bounded(self) -> None:
        """The size of the state follows the population, not the length of the run."""
        sizes = []
        for n_rows in (self.n_rows, 4 * self.n_rows):
            strategy = self.make_strategy()
            self._search(strategy, generations=n_rows)
            state = strategy.state_dict()
            check_equal(through_json(state), state, "state_dict() must be JSON")
            sizes.append(len(str(state)))
        check(sizes[1] < 1.5 * sizes[0], f"the state grew from {sizes[0]} to {sizes[1]} characters")

    def test_the_state_of_another_strategy_is_refused(self) -> None:
        """`load_state_dict` says whose state it is."""
        strategy = self._bound()
        state = {**strategy.state_dict(), "name": "SomebodyElse"}
        check_raises(ValueError, "SomebodyElse", lambda: strategy.load_state_dict(state, []))

    def test_duplicates_are_reused(self) -> None:
        """A point is evaluated once, however often it is proposed, and a small space ends."""
        result = self._search(problem=self._problem(onemax_space(3)), generations=1000)
        keys = [entry.key for entry in result.evaluations]
        check(len(set(keys)) == len(keys), "a point was evaluated twice")
        check(len(keys) <= 8, f"8 points gave {len(keys)} evaluations")

    def test_only_what_has_a_fitness_ranks(self) -> None:
        """The hall of fame holds `ok` evaluations, the champion is the best of them."""
        strategy = self.make_strategy()
        result = self._search(strategy)
        ok = [entry for entry in result.evaluations if entry.status is Status.OK]
        values = {entry.key: entry.values for entry in ok}
        check(len(strategy.hall_of_fame) > 0, "the hall of fame is empty")
        for individual in strategy.hall_of_fame:
            check(individual.key in values, "the hall of fame holds a point without a fitness")
            found = tuple(individual.fitness.values)
            check_equal(found, values[individual.key], "a fitness in the hall of fame")
        objective = self.objectives[0]
        best = result.champion.values[0]
        check(
            not any(objective.better(entry.values[0], best) for entry in ok),
            f"the champion has {best}, but there are better ones",
        )

    def test_every_point_failing_stops_the_search(self) -> None:
        """After `max_consecutive_failures`, with the last error."""

        def fails(genes: Genes, trial: Any) -> float:
            raise RuntimeError("nothing works")

        problem = FunctionProblem(onemax_space(), fails, objectives=self.objectives)
        check_raises(
            TooManyFailures,
            "(?s)6 evaluations in a row failed.*nothing works",
            lambda: evolve(problem, strategy=self.make_strategy(), max_consecutive_failures=6),
        )

    def test_the_direction_of_the_objectives_counts(self) -> None:
        """Mirrored objectives on a mirrored fitness give the mirrored run."""
        mirrored = [
            Objective(entry.name, "min" if entry.direction == "max" else "max")
            for entry in self.objectives
        ]
        one, other = smooth_problem(self.objectives), smooth_problem(mirrored, sign=-1.0)
        first = self._search(problem=one)
        second = self._search(problem=other)
        check_equal(
            [entry.genes for entry in second.evaluations],
            [entry.genes for entry in first.evaluations],
            "the points of the mirrored run",
        )

    def test_initial_points_come_first(self) -> None:
        """What the user knows to be good is in the first population."""
        problem = smooth_problem(self.objectives)
        initial = [{"x0": 0.5, "x1": -0.25}, {"x0": 4.0, "x1": 4.0}]
        result = self._search(problem=problem, initial=initial)
        check_equal([entry.genes for entry in result.evaluations][:2], initial, "the first points")

    def _problem(self, space: Any = None) -> Problem:
        return RoughProblem(space, objectives=self.objectives)

    def _bound(self) -> Strategy:
        strategy, problem = self.make_strategy(), self._problem()
        history = History(problem, {})
        strategy.bind(SearchContext(problem.space, problem.objectives, 7, history))
        return strategy

    def _search(
        self, strategy: Strategy | None = None, *, problem: Problem | None = None, **changes: Any
    ) -> Result:
        arguments: dict[str, Any] = {"generations": self.n_rows, "seed": 7, "progress": False}
        arguments |= {"max_consecutive_failures": 1000, **changes}
        return evolve(
            problem or self._problem(), strategy=strategy or self.make_strategy(), **arguments
        )


def _folder() -> tempfile.TemporaryDirectory[str]:
    # In memory where there is such a place: processes die here, not machines.
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)
