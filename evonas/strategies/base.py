"""The contract that every search algorithm keeps: ask, tell, state_dict, load_state_dict."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from deap import tools

from evonas.arguments import made_by
from evonas.objectives import Objective
from evonas.records import Evaluation, Genes
from evonas.space import SearchSpace

__all__ = ["KnownPoints", "Proposal", "SearchContext", "Strategy"]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A point that a strategy wants evaluated.

    Attributes:
        id: Unique in the run, ascending in the order in which the strategy made them.
        genes: Active genes, canonical.
        key: `KnownPoints.key(genes)`.
        generation: Logbook row that it will count in, from 0.
        parents: Evaluation numbers of the individuals it was made from.
    """

    id: int
    genes: Genes
    key: str
    generation: int
    parents: tuple[int, ...] = ()


class KnownPoints(Protocol):
    """What a strategy may ask about points, without knowing storage or problem."""

    def key(self, genes: Genes) -> str:
        """Returns the point's key."""

    def seen(self, key: str) -> bool:
        """Whether the record has an evaluation of this key, whatever its status."""

    def is_invalid(self, key: str, genes: Genes) -> bool:
        """Whether the genes are invalid; the finding goes on record with its reason."""

    def evaluations(self) -> Iterable[Evaluation]:
        """Returns what is on record, by number, with which a strategy begins or goes on.

        For a strategy that learns from all evaluations: they are no part of its state. Those of
        proposals that its state holds as not told are told (again) after `load_state_dict`, and
        must be left out until then. What failed before the user fixed the cause is not among them.
        """


@dataclass(frozen=True, slots=True)
class SearchContext:
    """What a strategy is given before it starts.

    Attributes:
        space: The search space.
        objectives: What is optimised; at least one.
        seed: The run's seed.
        history: Answers about points.
        initial: Genes that the first population must contain, validated.
    """

    space: SearchSpace
    objectives: Sequence[Objective]
    seed: int
    history: KnownPoints
    initial: Sequence[Genes] = field(default=())


class Strategy(ABC):
    """A search algorithm in ask/tell form.

    Protocol:
        `bind` once, then `load_state_dict` or nothing, then `ask` and `tell` in turn. Every
        proposal is told exactly once. A synchronous strategy is asked only when everything it
        proposed has been told, and told in ask order; an asynchronous one is asked whenever a
        slot is free and told as results come.

    Consistency:
        The state is committed after each `ask` that returned something and whenever a logbook row
        closed. After `load_state_dict`, `ask` returns again what was proposed and not told when
        that state was taken; replayed in the same order, the same tells must lead to the same
        next state. So nothing may be drawn from the random generator in `tell`.

    Attributes:
        logbook: One row per generation (or what stands for one), a `deap.tools.Logbook`.
        hall_of_fame: The best individuals, fed with `ok` evaluations only, in tell order.
    """

    asynchronous: ClassVar[bool] = False

    logbook: tools.Logbook
    hall_of_fame: tools.HallOfFame

    @property
    def name(self) -> str:
        """What the run and its errors call the strategy."""
        return type(self).__name__

    def __repr__(self) -> str:
        return made_by(self, self.settings())

    @property
    @abstractmethod
    def is_under_way(self) -> bool:
        """Whether a row is open: proposals not told yet, or told `invalid` and to be replaced.

        A search stops between rows where it can, and hears what is on record of an open one first
        when it goes on. For an asynchronous strategy: whether an earlier start asked for proposals
        that `ask` has not returned again.
        """

    @property
    def initial_size(self) -> int:
        """How many points it tries before it learns from results: a first population."""
        return 20

    def most_evaluations(self, generations: int) -> int | None:
        """Returns how many trials so many logbook rows can take at most; None: not known."""
        return None

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Returns all that determines the trajectory, as JSON; a resumed run must have the same."""

    @abstractmethod
    def bind(self, context: SearchContext) -> None:
        """Takes what is searched.

        Raises:
            ValueError: The strategy cannot search this (several objectives, a population too
                small for `initial`).
        """

    @abstractmethod
    def ask(self, n_free: int) -> list[Proposal]:
        """Returns what to evaluate next, or nothing when results must be heard first.

        Args:
            n_free: Free slots. An asynchronous strategy returns at most so many; a synchronous
                one returns its next batch whole.
        """

    @abstractmethod
    def tell(self, proposal: Proposal, evaluation: Evaluation, *, reused: bool) -> None:
        """Hears how a proposal ended.

        Args:
            proposal: As `ask` returned it (equal, not necessarily the same object).
            evaluation: Its record, of any status.
            reused: Whether the record existed before.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Returns the state as JSON, bounded by the population; the logbook is not part of it."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Takes a state back, with the logbook's rows.

        Raises:
            ValueError: The state is another strategy's.
        """
