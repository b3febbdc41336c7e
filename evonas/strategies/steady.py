"""What asynchronous strategies share: open proposals, rows of the logbook, the hall of fame."""

from __future__ import annotations

import random
import statistics
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from deap import tools

from evonas.arguments import check_int
from evonas.evolution.hall_of_fame import StableHallOfFame, same_key
from evonas.evolution.individual import (
    Fitness,
    Individual,
    individual_from_json,
    individual_to_json,
)
from evonas.evolution.random_state import derive_seed
from evonas.exceptions import UnsatisfiableSpaceError
from evonas.records import Evaluation, Genes, Status
from evonas.strategies.base import Proposal, SearchContext, Strategy

__all__ = ["MAX_DRAWS", "Point", "SteadyState"]

MAX_DRAWS = 1_000  # in vain: then a finite space is gone through point by point
_MAX_LISTED = 1_000_000


class Point(NamedTuple):
    """What a strategy chose: the genes, their key, and the evaluations it was made from."""

    genes: Genes
    key: str
    parents: tuple[int, ...] = ()


class SteadyState(Strategy):
    """Base of asynchronous strategies: a point is proposed whenever a slot is free.

    A subclass says which, in `_choose`; hears what became of it, in `_observe`; and saves what it
    keeps, in `_own_state`. Points of `initial` come first. `row_every` results make a row of the
    logbook. Logbook and hall of fame follow the first objective.

    Consistency:
        Nothing is drawn but in `_choose`, from a generator that the run's seed and the number of
        proposals so far determine: so the state holds no generator, which would be its largest part
        by far. With one worker a resumed run is the same run; with more, results come in another
        order each time.

    Args:
        row_every: Evaluations to a row of the logbook ("generation").
        hall_of_fame: How many of the best to keep.
    """

    asynchronous: ClassVar[bool] = True

    def __init__(self, *, row_every: int, hall_of_fame: int) -> None:
        check_int("row_every", row_every, minimum=1)
        check_int("hall_of_fame", hall_of_fame, minimum=1)
        self.row_every = row_every
        self.logbook = tools.Logbook()
        self.logbook.header = ["gen", "nevals", "reused", "failed", "best", "mean", "std", "min"]
        self.hall_of_fame = StableHallOfFame(hall_of_fame, similar=same_key)
        self._next_id = 0
        self._n_given = 0  # of `initial`
        self._open: dict[int, Proposal] = {}  # by id: not told
        self._again: deque[Proposal] = deque()  # open ones that an earlier start asked for
        self._failed: list[Proposal] = []  # since the last that did not
        self._row: dict[str, int] = dict.fromkeys(("nevals", "reused", "failed"), 0)
        self._row_values: list[float] = []
        self._rest: Iterator[Genes] | None = None

    # -- what a subclass decides -------------------------------------------------------------

    @abstractmethod
    def _choose(self, rng: random.Random) -> Point | None:
        """Returns a point neither evaluated nor proposed, or None: there is no more."""

    @abstractmethod
    def _observe(self, proposal: Proposal, evaluation: Evaluation) -> None:
        """Takes a result of any status but `invalid`."""

    @abstractmethod
    def _own_state(self) -> dict[str, Any]:
        """Returns what the strategy keeps beside the proposals, as JSON."""

    @abstractmethod
    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what `_own_state` returned."""

    def _own_settings(self) -> dict[str, Any]:
        return {}

    # -- the contract ------------------------------------------------------------------------

    def settings(self) -> dict[str, Any]:
        """Returns every argument."""
        return {
            "name": self.name,
            **self._own_settings(),
            "row_every": self.row_every,
            "hall_of_fame": self.hall_of_fame.maxsize,
        }

    @property
    def is_under_way(self) -> bool:
        """Whether points are left that an earlier start asked for."""
        return bool(self._again)

    def most_evaluations(self, generations: int) -> int:
        """Returns the evaluations of so many rows."""
        return self.row_every * generations

    def bind(self, context: SearchContext) -> None:
        """Takes the space; see `Strategy.bind`."""
        self._context = context
        self._space = context.space
        self._history = context.history
        self._objective = context.objectives[0]

    def ask(self, n_free: int) -> list[Proposal]:
        """Returns as many points as there are free slots, while there are any."""
        proposals: list[Proposal] = []
        while len(proposals) < n_free:
            proposal = self._again.popleft() if self._again else self._next()
            if proposal is None:
                break
            self._open[proposal.id] = proposal
            proposals.append(proposal)
        return proposals

    def _next(self) -> Proposal | None:
        point = self._next_given()
        if point is None:
            seed = derive_seed(self._context.seed, self.name, self._next_id)
            point = self._choose(random.Random(seed))
        return None if point is None else self._proposed(point)

    def _next_given(self) -> Point | None:
        """Returns the next of `initial`; what is on record already is told from there."""
        given, history = self._context.initial, self._history
        while self._n_given < len(given):
            genes = given[self._n_given]
            self._n_given += 1
            key = history.key(genes)
            if not self._is_open(key) and not history.is_invalid(key, genes):
                return Point(genes, key)
        return None

    def _proposed(self, point: Point) -> Proposal:
        n_in_row = self._row["nevals"] + self._row["reused"] + len(self._open)
        row = len(self.logbook) + n_in_row // self.row_every
        self._next_id += 1
        return Proposal(self._next_id - 1, point.genes, point.key, row, point.parents)

    def tell(self, proposal: Proposal, evaluation: Evaluation, *, reused: bool) -> None:
        """Hears a result; each `row_every`-th closes a row of the logbook."""
        del self._open[proposal.id]
        status = evaluation.status
        if status is Status.INVALID:
            return  # invalid, as its trial found out: the next point takes its place
        self._row["reused" if reused else "nevals"] += 1
        if status is Status.OK:
            self._row_values.append(float(evaluation.values[0]))
            self._enter_hall(proposal, evaluation)
        if status.is_failure:
            self._row["failed"] += not reused
            self._failed.append(proposal)
        else:
            self._failed.clear()
        self._observe(proposal, evaluation)
        if self._row["nevals"] + self._row["reused"] >= self.row_every:
            self._close_row()

    def _enter_hall(self, proposal: Proposal, evaluation: Evaluation) -> None:
        hall = self.hall_of_fame
        fitness = Fitness((self._objective.weight,), evaluation.values[:1])
        if len(hall) == hall.maxsize and not fitness > hall[-1].fitness:
            return  # most do: to make an individual of it costs as much as all else here
        hall.update([self._individual(proposal, evaluation)])

    def _individual(self, proposal: Proposal, evaluation: Evaluation) -> Individual:
        """Returns a point with its first fitness value as an individual."""
        fitness = Fitness((self._objective.weight,), evaluation.values[:1])
        individual = Individual(self._space.values(proposal.genes), fitness)
        individual.key, individual.number = proposal.key, evaluation.number
        individual.parents = proposal.parents
        return individual

    def _close_row(self) -> None:
        values = self._row_values
        record: dict[str, float | None] = dict.fromkeys(("mean", "std", "min", "max"))
        if values:
            record["mean"], record["std"] = statistics.fmean(values), statistics.pstdev(values)
            record["min"], record["max"] = min(values), max(values)
        best = self.hall_of_fame[0].fitness.values[0] if self.hall_of_fame else None
        self.logbook.record(gen=len(self.logbook), **self._row, best=best, **record)
        self._row = dict.fromkeys(self._row, 0)
        self._row_values = []

    # -- finding points ----------------------------------------------------------------------

    def _new_point(self, genes: Genes, parents: tuple[int, ...] = ()) -> Point | None:
        """Returns the point, unless it was evaluated or proposed before, or is invalid."""
        key = self._history.key(genes)
        if self._history.seen(key) or self._is_open(key) or self._history.is_invalid(key, genes):
            return None
        return Point(genes, key, parents)

    def _is_open(self, key: str) -> bool:
        return any(proposal.key == key for proposal in self._open.values())

    def _random_point(self, rng: random.Random) -> Point | None:
        """Returns a new random point, or None: there is none left.

        Raises:
            UnsatisfiableSpaceError: Hardly any point of a large space builds anything.
        """
        space, history = self._space, self._history
        n_invalid = 0
        for _ in range(0 if self._rest is not None else MAX_DRAWS):
            genes = space.sample(rng)
            point = self._new_point(genes)
            if point is not None:
                return point
            n_invalid += history.is_invalid(history.key(genes), genes)
        if space.cardinality <= _MAX_LISTED:
            return self._point_of_the_rest()
        self._refuse_unsatisfiable(n_invalid)
        return None

    def _refuse_unsatisfiable(self, n_invalid: int) -> None:
        """Refuses to go on where `MAX_DRAWS` points in a row were in vain, some of them invalid.

        Raises:
            UnsatisfiableSpaceError: Says what to do.
        """
        if n_invalid:
            raise UnsatisfiableSpaceError(
                f"none of {MAX_DRAWS:,} points in a row builds anything new ({n_invalid:,} are "
                "invalid): loosen the space's constraints, or add one for what the problem finds "
                "invalid"
            )

    def _point_of_the_rest(self) -> Point | None:
        if self._rest is None:
            self._list_the_rest()
        rest: Iterable[Genes] = self._rest or ()
        return next(filter(None, map(self._new_point, rest)), None)

    # -- state -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Returns what is open, the row under way, the hall of fame and the strategy's own."""
        return {
            "name": self.name,
            "next_id": self._next_id,
            "n_given": self._n_given,
            "lists": self._rest is not None,
            "open": [_proposal_to_json(each) for each in (*self._open.values(), *self._again)],
            "failed": [_proposal_to_json(each) for each in self._failed],
            "row": dict(self._row),
            "row_values": list(self._row_values),
            "hall_of_fame": [individual_to_json(best) for best in self.hall_of_fame],
            "own": self._own_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Takes a state of `state_dict` back; see `Strategy.load_state_dict`."""
        if state.get("name") != self.name:
            raise ValueError(f"the state is {state.get('name')}'s, expected one of {self.name}")
        self._next_id, self._n_given = state["next_id"], state["n_given"]
        self._row, self._row_values = dict(state["row"]), list(state["row_values"])
        self.logbook.clear()
        for row in rows:
            self.logbook.record(**row)
        self.hall_of_fame.clear()
        for entry in state["hall_of_fame"]:
            self.hall_of_fame.update([individual_from_json(entry, (self._objective.weight,))])
        self._open, self._rest = {}, None
        self._again = deque(self._proposal(entry) for entry in state["open"])
        self._failed = []
        self._load_own_state(state["own"])
        if state["lists"]:
            self._list_the_rest()
        for entry in state["failed"]:
            proposal = self._proposal(entry)
            if self._history.seen(proposal.key):
                self._failed.append(proposal)
            else:  # the user fixed what made it fail: a new proposal of the same point
                self._again.append(
                    self._proposed(Point(proposal.genes, proposal.key, proposal.parents))
                )

    def _list_the_rest(self) -> None:
        points = list(self._space.enumerate())
        random.Random(derive_seed(self._context.seed, "rest")).shuffle(points)
        self._rest = iter(points)  # a later start passes over what this one takes from it

    def _proposal(self, entry: Mapping[str, Any]) -> Proposal:
        genes = dict(entry["genes"])
        return Proposal(
            entry["id"],
            genes,
            self._history.key(genes),
            entry["generation"],
            tuple(entry["parents"]),
        )


def _proposal_to_json(proposal: Proposal) -> dict[str, Any]:
    return {
        "id": proposal.id,
        "generation": proposal.generation,
        "genes": proposal.genes,
        "parents": list(proposal.parents),
    }
