"""Proposals between `ask` and `tell`: queued, running, or waiting for another's result."""

from __future__ import annotations

from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

from evonas.execution.base import Outcome
from evonas.records import Evaluation
from evonas.run.interrupts import Interrupts
from evonas.strategies.base import Proposal

__all__ = ["InFlight", "Planned"]


@dataclass(slots=True, eq=False)
class Planned:
    """A proposal, and the evaluation that answers it.

    Attributes:
        proposal: What the strategy asked for.
        number: Of the evaluation.
        reused: Whether another proposal had the evaluation made.
        evaluation: None until it is on record.
        seed: Of the trial.
    """

    proposal: Proposal
    number: int
    reused: bool
    evaluation: Evaluation | None = None
    seed: int = 0


class InFlight:
    """Everything asked for and not yet told, by how far it has come.

    Args:
        in_ask_order: Whether results leave in the order of `ask` (a synchronous strategy), or as
            they arrive.

    Attributes:
        running: The trials that executors run.
    """

    def __init__(self, *, in_ask_order: bool) -> None:
        self._in_ask_order = in_ask_order
        self.running: dict[Future[Outcome], Planned] = {}
        self._planned: deque[Planned] = deque()  # in ask order
        self._arrived: deque[Planned] = deque()  # in order of arrival; unused in ask order
        self._queue: deque[Planned] = deque()  # to submit
        self._awaiting: dict[int, list[Planned]] = {}  # by number of the evaluation
        self._numbers: dict[str, int] = {}  # key to the number of an evaluation not yet recorded

    def __len__(self) -> int:
        return len(self._planned)

    @property
    def first(self) -> Planned | None:
        """The one asked for first."""
        return self._planned[0] if self._planned else None

    @property
    def n_unfinished(self) -> int:
        """How many trials run or wait for a slot."""
        return len(self.running) + len(self._queue)

    def number_of(self, key: str) -> int | None:
        """Returns the number of the evaluation of a key that is under way, if one is."""
        return self._numbers.get(key)

    def numbers(self, ids: set[int]) -> list[int]:
        """Returns the numbers of the trials that proposals `ids` started."""
        return [p.number for p in self._planned if p.proposal.id in ids and not p.reused]

    def add(self, planned: Planned) -> None:
        """Takes a proposal: answered, answered by a trial under way, or to be submitted."""
        self._planned.append(planned)
        if planned.evaluation is not None:
            self._arrive(planned, planned.evaluation)
        elif planned.number in self._awaiting:
            self._awaiting[planned.number].append(planned)
        else:
            self._awaiting[planned.number] = [planned]
            self._numbers[planned.proposal.key] = planned.number
            self._queue.append(planned)

    def next_to_submit(self) -> Planned | None:
        """Removes and returns the next one in the queue for a slot."""
        return self._queue.popleft() if self._queue else None

    def collect(self, interrupts: Interrupts) -> list[tuple[Planned, Future[Outcome]]]:
        """Waits until a trial has ended; removes and returns all that have, by number."""
        done = [future for future in self.running if future.done()]
        if not done:
            with interrupts.raising():
                done = list(wait(self.running, return_when=FIRST_COMPLETED).done)
        return sorted(
            ((self.running.pop(future), future) for future in done),
            key=lambda ended: ended[0].number,
        )

    def record(self, evaluation: Evaluation) -> None:
        """Answers each proposal that waits for this evaluation."""
        for planned in self._awaiting.pop(evaluation.number):
            self._arrive(planned, evaluation)
        self._numbers.pop(evaluation.key, None)

    @property
    def has_answered(self) -> bool:
        """Whether `pop_answered` has one to return."""
        if self._in_ask_order:
            return bool(self._planned) and self._planned[0].evaluation is not None
        return bool(self._arrived)

    def pop_answered(self) -> tuple[Planned, Evaluation]:
        """Removes and returns the next proposal to tell, with its evaluation.

        Raises:
            RuntimeError: None has an evaluation.
        """
        if self._in_ask_order:
            planned = self._planned.popleft()
        else:
            planned = self._arrived.popleft()
            self._planned.remove(planned)
        if planned.evaluation is None:
            raise RuntimeError(f"proposal {planned.proposal.id} is told without a result")
        return planned, planned.evaluation

    def _arrive(self, planned: Planned, evaluation: Evaluation) -> None:
        planned.evaluation = evaluation
        if not self._in_ask_order:
            self._arrived.append(planned)
