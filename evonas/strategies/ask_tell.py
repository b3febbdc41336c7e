"""A search that somebody else drives: ask for points, tell how good they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evonas.arguments import check_int
from evonas.evolution.front import pareto_front
from evonas.evolution.random_state import derive_seed
from evonas.objectives import Limits, Objective, as_objectives, divergence, fitness_values
from evonas.records import Evaluation, Genes, Status
from evonas.space import SearchSpace
from evonas.strategies.auto import as_strategy
from evonas.strategies.base import Proposal, SearchContext, Strategy

__all__ = ["AskTell"]

_MOST_ROUNDS = 1_000  # in which a strategy proposes nothing new, before it is left alone


class AskTell:
    """A strategy without a driver: for a loop, a scheduler or a laboratory of your own.

    Nothing is stored and nothing is run here: `evolve` does both. A point that was told already
    is not asked for again; the strategy hears its old value.

    Args:
        space: The search space, or the dict of genes for one.
        strategy: A strategy, or its name as in `evolve`.
        objectives: What is told. None: one value, maximised.
        seed: Root of all randomness.
        initial: Points to begin with.

    Attributes:
        evaluations: What was told, in that order.

    Raises:
        TypeError, ValueError: An argument is something else.

    Example:
        >>> search = AskTell({"x": [1, 2, 3], "y": [1, 2, 3]}, "local", seed=0)
        >>> while len(search.evaluations) < 9:
        ...     for proposal in search.ask():
        ...         search.tell(proposal, proposal.genes["x"] * proposal.genes["y"])
        >>> search.best.genes
        {'x': 3, 'y': 3}
    """

    def __init__(
        self,
        space: SearchSpace | Mapping[str, Any],
        strategy: Strategy | str = "surrogate",
        *,
        objectives: Objective | Sequence[Objective] | None = None,
        seed: int = 0,
        initial: Iterable[Genes] = (),
    ) -> None:
        self.space = space if isinstance(space, SearchSpace) else SearchSpace(space)
        self.objectives = as_objectives(objectives)
        strategy = as_strategy(strategy)
        check_int("seed", seed, minimum=0, maximum=None)
        self.strategy = strategy
        self.evaluations: list[Evaluation] = []
        self._seed = seed
        self._by_key: dict[str, Evaluation] = {}
        self._open: dict[int, Proposal] = {}
        self._first: dict[str, int] = {}  # key to the proposal that was evaluated
        self._due: list[Proposal] = []  # not told to the strategy yet, as it asked
        points = [self.space.validate(genes) for genes in initial]
        strategy.bind(SearchContext(self.space, self.objectives, seed, _Known(self), points))

    def __repr__(self) -> str:
        told, is_open = len(self.evaluations), len(self._open)
        return f"<AskTell: {self.strategy.name}, {told} told, {is_open} open>"

    def ask(self, n: int = 1) -> list[Proposal]:
        """Returns points to evaluate.

        None where the strategy waits for what it asked for, or has nothing new to propose.

        Args:
            n: How many are wanted. A strategy of generations returns its whole batch.

        Raises:
            ValueError: `n` is below 1.
        """
        check_int("n", n, minimum=1)
        found: list[Proposal] = []
        for _ in range(_MOST_ROUNDS):
            if found or (self._due and not self.strategy.asynchronous):
                break
            proposals = self.strategy.ask(n)
            if not proposals:
                break
            asked = {proposal.key for proposal in self._due}
            for proposal in proposals:
                self._due.append(proposal)
                if proposal.key not in self._by_key and proposal.key not in asked:
                    asked.add(proposal.key)
                    self._open[proposal.id] = proposal
                    found.append(proposal)
            self._tell_due()
        return found

    def seed_of(self, proposal: Proposal) -> int:
        """Returns the seed of a point's trial, in [0, 2**32): the same in every run."""
        return derive_seed(self._seed, proposal.key)

    def tell(self, proposal: Proposal, value: Any, *, status: str = "ok", error: str = "") -> None:
        """Tells how a proposal ended.

        Args:
            proposal: As `ask` returned it.
            value: A number; for several objectives a tuple or a dict. NaN and infinities are
                recorded as `diverged`. Not looked at where the status is another than `ok`.
            status: `ok`, `failed`, `invalid`, … (see `Status`).
            error: Why there is no value.

        Raises:
            TypeError: It is no proposal.
            ValueError: It was not asked for, or was told already; there is no such status.
            FitnessError: The value is none.
        """
        if not isinstance(proposal, Proposal):
            raise TypeError(
                f"proposal must be one that ask() returned, got {proposal!r} "
                f"({type(proposal).__name__}); points of your own come first with initial=[genes]"
            )
        if self._open.get(proposal.id) != proposal:
            raise ValueError(f"proposal {proposal.id} was not asked for, or was told already")
        ended = _as_status(status)
        values: tuple[float, ...] = ()
        metrics: dict[str, Any] = {}
        if ended is Status.OK:
            values, metrics = fitness_values(value, self.objectives)
            reason = divergence(values)
            if reason is not None:
                ended, error = Status.DIVERGED, reason
        number = len(self.evaluations)
        evaluation = Evaluation(
            number, proposal.key, proposal.genes, ended, values, metrics,
            seed=self.seed_of(proposal), error=error or None,
        )  # fmt: skip
        del self._open[proposal.id]
        self._by_key[proposal.key] = evaluation
        self.evaluations.append(evaluation)
        self._first[proposal.key] = proposal.id
        self._tell_due()

    def _tell_due(self) -> None:
        """Tells what has an answer: a synchronous strategy in the order in which it asked."""
        waiting: list[Proposal] = []
        for proposal in self._due:
            evaluation = self._by_key.get(proposal.key)
            if evaluation is None or (waiting and not self.strategy.asynchronous):
                waiting.append(proposal)
                continue
            reused = self._first[proposal.key] != proposal.id
            self.strategy.tell(proposal, evaluation, reused=reused)
        self._due = waiting

    @property
    def best(self) -> Evaluation:
        """The best that was told within the strategy's limits, by the first objective.

        Of several objectives see `pareto_front`.

        Raises:
            ValueError: Nothing was told that has a value.
        """
        ok = [entry for entry in self.evaluations if entry.status is Status.OK]
        if not ok:
            raise ValueError("nothing was told yet that has a value")
        return Limits.of(self.strategy.settings()).ranked(ok, self.objectives)[0]

    @property
    def pareto_front(self) -> list[Evaluation]:
        """What was told that no other beats in one objective without losing in another.

        Sorted by the first objective.
        """
        limits = Limits.of(self.strategy.settings())
        return pareto_front(self.evaluations, self.objectives, limits)


def _as_status(status: str) -> Status:
    try:
        return Status(status)
    except ValueError:
        known = ", ".join(f"'{each}'" for each in Status)
        raise ValueError(f"status must be one of {known}, got {status!r}") from None


class _Known:
    """Answers a strategy's questions about points: see `KnownPoints`."""

    def __init__(self, search: AskTell) -> None:
        self._search = search
        self.key = search.space.key

    def seen(self, key: str) -> bool:
        return key in self._search._by_key

    def is_invalid(self, key: str, genes: Genes) -> bool:
        known = self._search._by_key.get(key)
        return known is not None and known.status is Status.INVALID

    def evaluations(self) -> Iterable[Evaluation]:
        return tuple(self._search.evaluations)
