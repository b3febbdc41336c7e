"""Hyperband and successive halving: many short trainings, of which the best go on for longer."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

from evonas.arguments import check_int, check_string
from evonas.records import Evaluation, Genes, Status
from evonas.space.gene import Gene
from evonas.space.genes import Categorical, Integer
from evonas.strategies.base import Proposal, SearchContext
from evonas.strategies.single import require_one_objective
from evonas.strategies.steady import MAX_DRAWS, Point, SteadyState

__all__ = ["Hyperband"]

Rung = tuple[int, int]  # the bracket, which is the rung where it begins, and the rung
Seen = tuple[str, Evaluation]  # the key of a configuration, and its evaluation on a rung


class Hyperband(SteadyState):
    """Tries many points for a few epochs, and the best of them for longer and longer.

    The space has a gene of how long a point is trained, `n_epochs`. Its greatest value, and what
    remains of it divided by `reduction` again and again, are the rungs. New points, drawn at
    random, begin on the lowest rung of a bracket; of those that a rung has seen, the best
    `1 / reduction` are evaluated again on the next one, as soon as there is one (asynchronously:
    no worker waits). Each evaluation is one on record, made from the shorter one, its parent.

    With `continue_trainings=True` a problem that trains goes on from the checkpoint of the shorter
    training, so that a rung costs only the epochs that it adds; otherwise each trains anew.

    Args:
        fidelity: Name of that gene: an `Integer`, or a `Categorical` of numbers, always active.
        reduction: Of those on a rung, one in so many goes on.
        n_brackets: How many rungs points begin on: 1 is successive halving. None: all, which is
            Hyperband; each bracket gets about the same number of epochs.
        row_every: Evaluations to a row of the logbook ("generation").
        hall_of_fame: How many of the best to keep.

    Raises:
        ValueError: From `bind`: the space has no such gene, or it has less than two rungs.

    Source:
        Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar (2018), "Hyperband", JMLR 18; without
        waiting as in Li et al. (2020), "A System for Massively Parallel Hyperparameter Tuning".

    Example:
        >>> Hyperband(reduction=4).settings()["reduction"]
        4
    """

    def __init__(
        self,
        *,
        fidelity: str = "n_epochs",
        reduction: int = 3,
        n_brackets: int | None = 1,
        row_every: int = 50,
        hall_of_fame: int = 10,
    ) -> None:
        check_string("fidelity", fidelity)
        check_int("reduction", reduction, minimum=2)
        if n_brackets is not None:
            check_int("n_brackets", n_brackets, minimum=1)
        super().__init__(row_every=row_every, hall_of_fame=hall_of_fame)
        self._fidelity, self._reduction, self._n_brackets = fidelity, reduction, n_brackets
        self._rungs: list[Any] = []  # values of the gene, ascending
        self._reached: dict[str, dict[int, Evaluation]] = {}  # by configuration, by rung

    def _own_settings(self) -> dict[str, Any]:
        return {
            "fidelity": self._fidelity,
            "reduction": self._reduction,
            "n_brackets": self._n_brackets,
        }

    @property
    def initial_size(self) -> int:
        """Points of the lowest rung before the first goes on."""
        return self._reduction

    def bind(self, context: SearchContext) -> None:
        """Takes the space; see `Strategy.bind`."""
        require_one_objective(self, context)
        gene = dict(context.space.items()).get(self._fidelity)
        self._rungs = _rungs(gene, self._fidelity, self._reduction)
        conditions = context.space.conditions
        if self._fidelity in conditions or any(self._fidelity in on for on in conditions.values()):
            raise ValueError(
                f"the gene {self._fidelity!r} must be free of conditions for {self.name}: "
                "it is set to each rung in turn"
            )
        super().bind(context)
        self._recall(frozenset())

    def _choose(self, rng: random.Random) -> Point | None:
        by_rung = self._by_rung()
        for rung in reversed(range(len(self._rungs) - 1)):
            for bracket in range(rung + 1):
                point = self._promoted(by_rung.get((bracket, rung), []), rung)
                if point is not None:
                    return point
        return self._new_configuration(rng) or self._next_best(by_rung)

    def _new_configuration(self, rng: random.Random) -> Point | None:
        """Returns a random point of a configuration that no rung has seen.

        Raises:
            UnsatisfiableSpaceError: There is none at all.
        """
        n_rungs = len(self._rungs)
        n_brackets = min(self._n_brackets or n_rungs, n_rungs)
        # A bracket's points cost alike in epochs: see the source, algorithm 1.
        weights = [
            n_rungs / (n_rungs - each) * self._reduction ** (n_rungs - 1 - each)
            for each in range(n_brackets)
        ]
        bracket = rng.choices(range(n_brackets), weights)[0]
        asked = {self._configuration(proposal.genes) for proposal in self._open.values()}
        n_invalid = 0
        for _ in range(MAX_DRAWS):
            genes = {**self._space.sample(rng), self._fidelity: self._rungs[bracket]}
            configuration = self._configuration(genes)
            if configuration in self._reached or configuration in asked:
                continue
            point = None if self._space.violated(genes) else self._new_point(genes)
            if point is not None:
                return point
            n_invalid += self._history.is_invalid(self._history.key(genes), genes)
        if not self._reached and not asked:
            self._refuse_unsatisfiable(n_invalid)
        return None

    def _promoted(self, seen: list[Seen], rung: int) -> Point | None:
        """Returns the best of those on a rung that may go on and has not, on the next rung."""
        best = _best_first(seen, self._objective.weight)[: len(seen) // self._reduction]
        return self._first_on(rung + 1, best)

    def _next_best(self, by_rung: Mapping[Rung, list[Seen]]) -> Point | None:
        """Returns the best that has not gone on, where there is no new configuration any more."""
        for rung in reversed(range(len(self._rungs) - 1)):
            seen = [each for (_, on), found in by_rung.items() if on == rung for each in found]
            point = self._first_on(rung + 1, _best_first(seen, self._objective.weight))
            if point is not None:
                return point
        return None

    def _first_on(self, rung: int, seen: Iterable[Seen]) -> Point | None:
        for configuration, entry in seen:
            if rung not in self._reached[configuration]:
                genes = {**entry.genes, self._fidelity: self._rungs[rung]}
                point = self._new_point(genes, (entry.number,))
                if point is not None:
                    return point
        return None

    def _by_rung(self) -> dict[Rung, list[Seen]]:
        found: dict[Rung, list[Seen]] = defaultdict(list)
        for configuration, reached in self._reached.items():
            bracket = min(reached)
            for rung, entry in reached.items():
                found[bracket, rung].append((configuration, entry))
        return found

    def _configuration(self, genes: Genes) -> str:
        """Returns what all rungs of a point have in common."""
        return self._history.key({**genes, self._fidelity: self._rungs[-1]})

    def _observe(self, proposal: Proposal, evaluation: Evaluation) -> None:
        self._take(evaluation)

    def _take(self, evaluation: Evaluation) -> None:
        value = evaluation.genes.get(self._fidelity)
        if value in self._rungs and evaluation.status is not Status.INVALID:
            reached = self._reached.setdefault(self._configuration(evaluation.genes), {})
            reached[self._rungs.index(value)] = evaluation

    def _recall(self, open_keys: frozenset[str]) -> None:
        """Takes what is on record, without those that will be told again."""
        self._reached = {}
        for evaluation in self._history.evaluations():
            if evaluation.key not in open_keys:
                self._take(evaluation)

    def _own_state(self) -> dict[str, Any]:
        return {}

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        self._recall(frozenset(proposal.key for proposal in self._again))


def _best_first(seen: Iterable[Seen], weight: float) -> list[Seen]:
    scored = [each for each in seen if each[1].status is Status.OK]
    return sorted(scored, key=lambda each: (-weight * each[1].values[0], each[1].number))


def _rungs(gene: Gene | None, name: str, reduction: int) -> list[Any]:
    """Returns the greatest value, and the greatest that are so much smaller, ascending."""
    if isinstance(gene, Integer):
        values: list[Any] = list(range(gene.low, gene.high + 1, gene.step))
    elif isinstance(gene, Categorical) and all(type(each) in (int, float) for each in gene.choices):
        values = sorted(gene.choices)
    else:
        raise ValueError(
            f"Hyperband needs a gene {name!r} of how long a point is trained, an Integer or a "
            f"Categorical of numbers, got {'none' if gene is None else gene}: add "
            f'"{name}": Integer(1, 27) to the space, or name another with fidelity='
        )
    found = [values[-1]]
    for power in count(1):
        smaller = [value for value in values if value <= values[-1] / reduction**power]
        if not smaller:
            break
        found.append(smaller[-1])
    rungs = sorted(set(found))
    if len(rungs) < 2:
        raise ValueError(
            f"the gene {name!r} goes from {values[0]} to {values[-1]}, which is one rung only for "
            f"reduction={reduction}: widen it, or take a smaller reduction"
        )
    return rungs
