"""NSGA-II: several objectives, and limits that come before them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from deap import tools
from deap.base import Toolbox

from evonas.arguments import check_mapping, check_number
from evonas.evolution.hall_of_fame import StableHallOfFame, same_key
from evonas.evolution.individual import Fitness
from evonas.objectives import Limits
from evonas.records import Evaluation, Status
from evonas.strategies.base import Proposal, SearchContext
from evonas.strategies.generational import Generational
from evonas.strategies.hypervolume import hypervolume

__all__ = ["NSGA2"]


class NSGA2(Generational):
    """Keeps the least dominated of parents and children, spread out along the Pareto front.

    A generation has `population` children; of them and their parents DEAP's `selNSGA2` keeps
    `population`, each point once. Parents are chosen by tournaments of two: the less dominated one
    wins, of two in the same front the one in the emptier part of it.

    Limits come first (constraint domination): a point within all limits dominates one that is not,
    of two that are not the one that is less far out (the sum of relative excesses) dominates.

    The logbook's `hypervolume` is that of the front within the limits, above the worst values of
    the first generation. Hall of fame and champion are within the limits, too, and follow the first
    objective; the front itself is `result.pareto_front`.

    Args:
        population: Individuals that survive, and children in a generation; at least 2.
        at_most: Name of an objective or recorded metric to its largest allowed value.
        at_least: The same for smallest allowed values.
        crossover: See `Generational`, as for the rest.
        crossover_prob: Probability that a child has two parents.
        gene_mutation_prob: Probability for each gene to take another value. None: one gene of each
            child on average.
        novelty_tries: How often a child seen before is varied again.
        hall_of_fame: How many of the best in the first objective to keep.
        toolbox: A DEAP toolbox whose individual, mate, mutate and clone are used instead.

    Source:
        Deb, Pratap, Agarwal and Meyarivan (2002), "A fast and elitist multiobjective genetic
        algorithm: NSGA-II", with its constrained domination (section VI).

    Example:
        >>> from evonas import Objective, evolve
        >>> result = evolve(
        ...     {"depth": [1, 2, 3, 4], "width": [1, 2, 3, 4]},
        ...     lambda genes, trial: (genes["depth"] + genes["width"], genes["width"] ** 2),
        ...     objectives=[Objective("accuracy"), Objective("cost", "min")],
        ...     strategy=NSGA2(6, at_most={"cost": 9}), generations=4, seed=0,
        ... )
        >>> sorted(entry.values for entry in result.pareto_front)[0]
        (5.0, 1.0)
    """

    def __init__(
        self,
        population: int = 50,
        *,
        at_most: Mapping[str, float] | None = None,
        at_least: Mapping[str, float] | None = None,
        crossover: Literal["one_point", "two_point", "uniform", "blend"] = "one_point",
        crossover_prob: float = 1.0,
        gene_mutation_prob: float | None = 0.15,
        novelty_tries: int = 20,
        hall_of_fame: int = 10,
        toolbox: Toolbox | None = None,
    ) -> None:
        super().__init__(
            population,
            elite=0,
            crossover=crossover,
            crossover_prob=crossover_prob,
            gene_mutation_prob=gene_mutation_prob,
            novelty_tries=novelty_tries,
            hall_of_fame=hall_of_fame,
            toolbox=toolbox,
        )
        self._limits = Limits(
            _checked_limits("at_most", at_most), _checked_limits("at_least", at_least)
        )
        _refuse_contradiction(self._limits)
        self.logbook.header = [*self.logbook.header, "hypervolume"]
        self._excess: dict[int, float] = {}  # by evaluation number, of population and children
        # Those of a hall that is loaded are within, and `_excess` no longer knows all of them.
        self.hall_of_fame = _HallWithin(
            hall_of_fame, lambda individual: self._excess.get(individual.number, 0.0) == 0.0
        )
        self._reference: list[float] | None = None

    def settings(self) -> dict[str, Any]:
        """Returns every argument."""
        limits = self._limits
        return {**super().settings(), "at_most": limits.at_most, "at_least": limits.at_least}

    def _check_objectives(self, context: SearchContext) -> None:
        self._objectives = context.objectives

    # -- limits ------------------------------------------------------------------------------

    def tell(self, proposal: Proposal, evaluation: Evaluation, *, reused: bool) -> None:
        """Hears a result; the last of a generation closes it with a logbook row.

        Raises:
            FitnessError: A limit names neither an objective nor a metric on record.
        """
        if evaluation.status is Status.OK:
            self._limits.check(evaluation, self._objectives)
            self._excess[evaluation.number] = self._limits.excess(evaluation, self._objectives)
        super().tell(proposal, evaluation, reused=reused)

    # -- selection ---------------------------------------------------------------------------

    def _select_parents(self) -> list[Any]:
        # The population is in the order of its ranking: the smaller place wins.
        places = range(len(self._parents))
        return [self._parents[min(tools.selRandom(places, 2))] for _ in range(2)]

    def _survivors(self, children: list[Any]) -> list[Any]:
        pool: dict[str, _Ranked] = {}
        for individual in [*self.population, *children]:
            if individual.fitness.valid and individual.key not in pool:
                pool[individual.key] = _Ranked(individual, self._excess[individual.number])
        chosen = tools.selNSGA2(list(pool.values()), self.population_size)
        ranked = [
            entry
            for front in tools.sortNondominated(chosen, len(chosen))
            for entry in sorted(front, key=_crowding, reverse=True)
        ]
        survivors = [entry.individual for entry in ranked]
        self._excess = {entry.number: self._excess[entry.number] for entry in survivors}
        return survivors

    def _more_of_the_row(self) -> dict[str, float | None]:
        weighted = [tuple(individual.fitness.wvalues) for individual in self.population]
        if self._reference is None:
            if not weighted:
                return {"hypervolume": None}
            self._reference = [min(column) for column in zip(*weighted, strict=True)]
        allowed = [
            values
            for values, individual in zip(weighted, self.population, strict=True)
            if self._excess[individual.number] == 0.0
        ]
        return {"hypervolume": hypervolume(allowed, self._reference)}

    # -- state -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Returns what `Generational` does, the excess over limits and the hypervolume's base."""
        excess = [[number, value] for number, value in self._excess.items()]
        return {**super().state_dict(), "excess": excess, "reference": self._reference}

    def load_state_dict(self, state: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Takes a state of `state_dict` back; see `Strategy.load_state_dict`."""
        super().load_state_dict(state, rows)
        self._excess = {int(number): float(value) for number, value in state["excess"]}
        self._reference = state["reference"]


class _HallWithin(StableHallOfFame):
    """Lets in only what is within the limits."""

    def __init__(self, maxsize: int, is_within: Callable[[Any], bool]) -> None:
        super().__init__(maxsize, similar=same_key)
        self._is_within = is_within

    def update(self, population: Sequence[Any]) -> None:
        super().update([individual for individual in population if self._is_within(individual)])


class _Dominance(Fitness):
    """A fitness behind which stands an excess over limits; only `dominates` looks at that."""

    def __init__(self, weights: Sequence[float], values: Sequence[float], excess: float) -> None:
        super().__init__(weights, values)
        self.excess = excess

    def dominates(self, other: Any, obj: slice = slice(None)) -> bool:
        if self.excess != other.excess:
            return bool(self.excess < other.excess)
        return bool(super().dominates(other, obj))

    def __eq__(self, other: object) -> bool:
        # DEAP ranks equal fitnesses together.
        return isinstance(other, _Dominance) and (self.wvalues, self.excess) == (
            other.wvalues,
            other.excess,
        )

    def __hash__(self) -> int:
        return hash((self.wvalues, self.excess))


class _Ranked:
    """An individual as `selNSGA2` shall see it."""

    def __init__(self, individual: Any, excess: float) -> None:
        self.individual = individual
        fitness = individual.fitness
        self.fitness = _Dominance(fitness.weights, fitness.values, excess)


def _crowding(entry: _Ranked) -> float:
    return float(entry.fitness.crowding_dist)


def _checked_limits(name: str, limits: Mapping[str, float] | None) -> dict[str, float]:
    if limits is None:
        return {}
    check_mapping(name, limits)
    for key, value in limits.items():
        check_number(f"{name}[{key!r}]", value)
    return dict(limits)


def _refuse_contradiction(limits: Limits) -> None:
    for name in limits.at_most.keys() & limits.at_least.keys():
        least, most = limits.at_least[name], limits.at_most[name]
        if least > most:
            raise ValueError(
                f"no value of {name!r} is at least {least} and at most {most}: at_least[{name!r}] "
                f"must not be above at_most[{name!r}]"
            )
