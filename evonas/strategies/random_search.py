"""Random search without replacement: the baseline, and the strategy that never waits."""

from __future__ import annotations

import random
import statistics
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from deap import tools

from evonas.chromosome import Fitness, Individual
from evonas.exceptions import UnsatisfiableSpaceError
from evonas.randomness import derive_seed
from evonas.records import Evaluation, Genes, Status
from evonas.strategies.base import Proposal, SearchContext, Strategy
from evonas.strategies.hall import StableHallOfFame

__all__ = ["RandomSearch"]

_MAX_DRAWS = 1_000  # in vain: then a finite space is gone through point by point
_MAX_LISTED = 1_000_000


class RandomSearch(Strategy):
    """Random points, none of them twice, until the budget or the space is used up.

    Asynchronous: a point is proposed whenever a slot is free. Which points are proposed, and in
    which order, depends on the seed alone; with more than one worker they end in another order,
    and so rows of the logbook may hold other points than with one.

    Serves several objectives too; the logbook and the hall of fame then follow the first.

    Args:
        row_every: Evaluations to a row of the logbook ("generation").
        hall_of_fame: How many of the best to keep.

    Source:
        Bergstra and Bengio (2012), "Random search for hyper-parameter optimization", JMLR 13, with
        replacement; ours without.

    Example:
        >>> RandomSearch(row_every=20).most_evaluations(generations=5)
        100
    """

    asynchronous: ClassVar[bool] = True

    def __init__(self, *, row_every: int = 50, hall_of_fame: int = 10) -> None:
        for name, value in (("row_every", row_every), ("hall_of_fame", hall_of_fame)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, got {value!r} ({type(value).__name__})")
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.row_every = row_every
        self.logbook = tools.Logbook()
        self.logbook.header = ["gen", "nevals", "reused", "failed", "best", "mean", "std", "min"]
        self.hall_of_fame = StableHallOfFame(hall_of_fame, similar=_same_key)
        self._draw = 0  # number of the next draw
        self._next_id = 0
        self._open: dict[int, Proposal] = {}  # by id: not told
        self._again: deque[Proposal] = deque()  # open ones that an earlier start asked for
        self._failed: list[Proposal] = []  # since the last that did not
        self._draws: dict[int, int] = {}  # of these three, by id, where a draw gave the point
        self._row: dict[str, int] = dict.fromkeys(("nevals", "reused", "failed"), 0)
        self._row_values: list[float] = []
        self._lists = False  # draws no more, but goes through the space
        self._rest: Iterator[Genes] | None = None

    def settings(self) -> dict[str, Any]:
        """Returns every argument."""
        return {
            "name": self.name,
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
        self._weights = tuple(objective.weight for objective in context.objectives)

    # -- ask and tell ------------------------------------------------------------------------

    def ask(self, n_free: int) -> list[Proposal]:
        """Returns as many new points as there are free slots, while there are any."""
        proposals: list[Proposal] = []
        while len(proposals) < n_free:
            proposal = self._again.popleft() if self._again else self._next()
            if proposal is None:
                break
            self._open[proposal.id] = proposal
            proposals.append(proposal)
        return proposals

    def _next(self) -> Proposal | None:
        found = self._next_point()
        if found is None:
            return None
        genes, key, draw = found
        if draw is not None:
            self._draws[self._next_id] = draw
        n_in_row = self._row["nevals"] + self._row["reused"] + len(self._open)
        row = len(self.logbook) + n_in_row // self.row_every
        self._next_id += 1
        return Proposal(self._next_id - 1, genes, key, row)

    def _next_point(self) -> tuple[Genes, str, int | None] | None:
        """Returns a point neither evaluated nor proposed, its key and its draw; None: no more."""
        context, history = self._context, self._context.history
        open_keys = {proposal.key for proposal in self._open.values()}
        n_invalid = 0
        for _ in range(0 if self._lists else _MAX_DRAWS):
            genes = self._drawn(self._draw)
            self._draw += 1
            key = history.key(genes)
            if key in open_keys or history.seen(key):
                continue
            if not history.is_invalid(key, genes):
                return genes, key, self._draw - 1
            n_invalid += 1
        if context.space.cardinality <= _MAX_LISTED:
            self._lists = True
            return self._point_of_the_rest(open_keys)
        if n_invalid:
            raise UnsatisfiableSpaceError(
                f"none of {_MAX_DRAWS:,} points in a row builds anything new ({n_invalid:,} are "
                "invalid): loosen the space's constraints, or add one for what the problem finds "
                "invalid"
            )
        return None

    def _drawn(self, number: int) -> Genes:
        """Returns the point of one draw, which follows from its number: no state is needed."""
        context = self._context
        if number < len(context.initial):
            return context.initial[number]
        return context.space.sample(random.Random(derive_seed(context.seed, "draw", number)))

    def _point_of_the_rest(self, open_keys: set[str]) -> tuple[Genes, str, None] | None:
        history = self._context.history
        if self._rest is None:
            points = list(self._context.space.enumerate())
            random.Random(derive_seed(self._context.seed, "rest")).shuffle(points)
            self._rest = iter(points)  # a later start passes over what this one takes from it
        for genes in self._rest:
            key = history.key(genes)
            if key in open_keys or history.seen(key) or history.is_invalid(key, genes):
                continue
            return genes, key, None
        return None

    def tell(self, proposal: Proposal, evaluation: Evaluation, *, reused: bool) -> None:
        """Hears a result; each `row_every`-th closes a row of the logbook."""
        del self._open[proposal.id]
        status = evaluation.status
        if status is Status.INVALID:
            self._draws.pop(proposal.id, None)
            return  # builds nothing, as its trial found out: the next point takes its place
        self._row["reused" if reused else "nevals"] += 1
        if status is Status.OK:
            self._row_values.append(float(evaluation.values[0]))
            self._enter_hall(proposal, evaluation)
        if status.is_failure:
            self._row["failed"] += not reused
            self._failed.append(proposal)
        else:
            for entry in (proposal, *self._failed):
                self._draws.pop(entry.id, None)
            self._failed.clear()
        if self._row["nevals"] + self._row["reused"] >= self.row_every:
            self._close_row()

    def _enter_hall(self, proposal: Proposal, evaluation: Evaluation) -> None:
        fitness, hall = Fitness(self._weights[:1], evaluation.values[:1]), self.hall_of_fame
        if len(hall) == hall.maxsize and not fitness > hall[-1].fitness:
            return  # most do: to make an individual of it costs as much as all else here
        individual = Individual(self._context.space.values(proposal.genes), fitness)
        individual.key, individual.number = proposal.key, evaluation.number
        hall.update([individual])

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

    # -- state -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Returns the number of draws, what is open, the row under way and the hall of fame."""
        return {
            "name": self.name,
            "draw": self._draw,
            "lists": self._lists,
            "next_id": self._next_id,
            "open": [self._to_json(entry) for entry in (*self._open.values(), *self._again)],
            "failed": [self._to_json(entry) for entry in self._failed],
            "row": dict(self._row),
            "row_values": list(self._row_values),
            "hall_of_fame": [
                {
                    "values": list(best),
                    "fitness": best.fitness.values[0],
                    "key": best.key,
                    "number": best.number,
                }
                for best in self.hall_of_fame
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Takes a state of `state_dict` back; see `Strategy.load_state_dict`."""
        if state.get("name") != self.name:
            raise ValueError(f"the state is {state.get('name')}'s, expected one of {self.name}")
        self._draw, self._next_id = state["draw"], state["next_id"]
        self._lists, self._rest = state["lists"], None
        self._row, self._row_values = dict(state["row"]), list(state["row_values"])
        self.logbook.clear()
        for row in rows:
            self.logbook.record(**row)
        self.hall_of_fame.clear()
        for entry in state["hall_of_fame"]:
            best = Individual(entry["values"], Fitness(self._weights[:1], (entry["fitness"],)))
            best.key, best.number = entry["key"], entry["number"]
            self.hall_of_fame.update([best])
        self._open = {}
        self._draws = {}
        self._again = deque(self._from_json(entry) for entry in state["open"])
        self._failed = []
        for entry in state["failed"]:
            proposal = self._from_json(entry)
            if self._context.history.seen(proposal.key):
                self._failed.append(proposal)
            else:  # the user mended what made it fail: a new proposal of the same point
                self._draws.pop(proposal.id, None)
                self._again.append(
                    Proposal(self._next_id, proposal.genes, proposal.key, len(self.logbook))
                )
                self._next_id += 1

    def _to_json(self, proposal: Proposal) -> dict[str, Any]:
        """Returns a proposal without the genes where its draw tells them.

        The state is written with every evaluation, and 64 slots have 64 points open.
        """
        draw = self._draws.get(proposal.id)
        point = {"genes": proposal.genes} if draw is None else {"draw": draw}
        return {"id": proposal.id, "generation": proposal.generation, **point}

    def _from_json(self, entry: Mapping[str, Any]) -> Proposal:
        genes = entry.get("genes")
        if genes is None:
            self._draws[entry["id"]] = entry["draw"]
            genes = self._drawn(entry["draw"])
        return Proposal(entry["id"], genes, self._context.history.key(genes), entry["generation"])


def _same_key(first: Any, second: Any) -> bool:
    return bool(first.key == second.key)
