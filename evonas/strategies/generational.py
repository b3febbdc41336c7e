"""The generational genetic algorithm with elitism."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from deap import tools
from deap.base import Toolbox

from evonas.arguments import check_choice, check_int, check_number, check_one_of
from evonas.evolution.hall_of_fame import StableHallOfFame, same_key
from evonas.evolution.individual import individual_to_json
from evonas.evolution.random_state import (
    borrowed_global_rng,
    derive_seed,
    restore_rng_state,
    rng_state_to_json,
)
from evonas.evolution.toolbox import make_toolbox
from evonas.exceptions import UnsatisfiableSpaceError
from evonas.records import Evaluation, Genes, Status
from evonas.strategies.base import Proposal, SearchContext, Strategy
from evonas.strategies.single import require_one_objective

__all__ = ["Generational"]

_MAX_INVALID_IN_A_ROW = 10_000


@dataclass(slots=True)
class _OpenProposal:
    """One place of the generation under way."""

    individual: Any
    proposal: Proposal
    told: bool = False
    invalid: bool = False


class Generational(Strategy):
    """Selection, crossover, mutation and elitism, a whole generation at a time.

    Generation 0 is `initial` and random points. Each later one carries the `elite` best individuals
    ever over, unchanged and not evaluated again, and fills up with children: two parents by
    selection, crossover, mutation of each gene with `gene_mutation_prob`. A child that builds
    nothing is varied again; one that was seen before is varied again up to `novelty_tries` times,
    then its recorded result is reused. Individuals without a fitness (failed, pruned) are never
    parents. DEAP's operators run inside a guard around the global random generators.

    Args:
        population: Individuals in a generation, at least 2. `population - elite` of them are new,
            so as many workers have something to do.
        elite: How many are carried over, less than `population`. None: two thirds, so that each
            few children learn from those before them.
        crossover: Kind of crossover.
        crossover_prob: Probability that a child has two parents (else it is a mutated clone).
        gene_mutation_prob: Probability for each gene to take another value. None: one gene of each
            child on average.
        selection: How parents are chosen among the last generation.
        tournament_size: Individuals drawn per tournament.
        novelty_tries: How often a child seen before is varied again.
        hall_of_fame: How many of the best to keep.
        toolbox: A DEAP toolbox whose individual, mate, mutate, select and clone are used instead;
            it then decides crossover, mutation and selection.

    Source:
        Generational GA with elitism as in De Jong (1975); tournament selection as in Goldberg and
        Deb (1991); a mutation rate of one gene in all as in Mühlenbein (1992). Ours differs in what
        it does with duplicates and invalid points, and in the size of the elite, from
        `benchmarks.search_quality`.

    Example:
        >>> Generational(population=20, elite=2).settings()["elite"]
        2
    """

    def __init__(
        self,
        population: int = 12,
        *,
        elite: int | None = None,
        crossover: Literal["one_point", "two_point", "uniform", "blend"] = "uniform",
        crossover_prob: float = 1.0,
        gene_mutation_prob: float | None = None,
        selection: Literal["tournament", "roulette", "best"] = "tournament",
        tournament_size: int = 5,
        novelty_tries: int = 20,
        hall_of_fame: int = 10,
        toolbox: Toolbox | None = None,
    ) -> None:
        check_int("population", population, minimum=2)
        if elite is None:
            elite = 2 * population // 3
        check_int("elite", elite, minimum=0)
        if elite >= population:
            raise ValueError(
                f"elite must be less than population, got elite={elite}, population={population}"
            )
        check_number("crossover_prob", crossover_prob, minimum=0.0, maximum=1.0)
        if gene_mutation_prob is not None:
            check_number("gene_mutation_prob", gene_mutation_prob, minimum=0.0, maximum=1.0)
        check_choice("crossover", crossover, ("one_point", "two_point", "uniform", "blend"))
        check_choice("selection", selection, ("tournament", "roulette", "best"))
        if toolbox is not None:
            check_one_of("toolbox", toolbox, Toolbox, "a DEAP Toolbox (start from make_toolbox)")
        check_int("tournament_size", tournament_size, minimum=1)
        check_int("novelty_tries", novelty_tries, minimum=0)
        check_int("hall_of_fame", hall_of_fame, minimum=1)
        self.population_size = population
        self.elite = elite
        self._crossover = crossover
        self._crossover_prob = crossover_prob
        self._gene_mutation_prob = gene_mutation_prob
        self._selection = selection
        self._tournament_size = tournament_size
        self._novelty_tries = novelty_tries
        self._user_toolbox = toolbox
        self.logbook = tools.Logbook()
        self.logbook.header = ["gen", "nevals", "reused", "failed", "best", "mean", "std", "min"]
        self.hall_of_fame = StableHallOfFame(max(hall_of_fame, elite), similar=same_key)
        self.population: list[Any] = []
        self._elites: list[Any] = []
        self._parents: list[Any] = []
        self._slots: dict[int, _OpenProposal] = {}  # by proposal id, in ask order
        self._n_open = 0
        self._next_id = 0
        self._row = {"nevals": 0, "reused": 0, "failed": 0}

    def settings(self) -> dict[str, Any]:
        """Returns every argument; a toolbox of the user's is known by the names it registers."""
        return {
            "name": self.name,
            "population": self.population_size,
            "elite": self.elite,
            "crossover": self._crossover,
            "crossover_prob": self._crossover_prob,
            "gene_mutation_prob": self._gene_mutation_prob,
            "selection": self._selection,
            "tournament_size": self._tournament_size,
            "novelty_tries": self._novelty_tries,
            "hall_of_fame": self.hall_of_fame.maxsize,
            "own_toolbox": self._user_toolbox is not None,
        }

    @property
    def initial_size(self) -> int:
        """The population."""
        return self.population_size

    @property
    def is_under_way(self) -> bool:
        """Whether the present generation is not closed yet."""
        return self._n_open > 0

    def most_evaluations(self, generations: int) -> int:
        """Returns the first population and the children of the other generations."""
        return self.population_size + (generations - 1) * (self.population_size - self.elite)

    def bind(self, context: SearchContext) -> None:
        """Takes the space; see `Strategy.bind`."""
        self._check_objectives(context)
        if len(context.initial) > self.population_size:
            raise ValueError(
                f"initial has {len(context.initial)} points, more than population="
                f"{self.population_size}"
            )
        if self._selection == "roulette" and context.objectives[0].weight < 0:
            raise ValueError(
                "selection='roulette' needs a maximised objective (selection='tournament' minimises"
                f" too), got {context.objectives[0]}"
            )
        self._context = context
        self._space = context.space
        self._history = context.history
        self._objective = context.objectives[0]
        self._rng = random.Random(derive_seed(context.seed, "strategy"))
        self.toolbox = self._user_toolbox or make_toolbox(
            context.space,
            objectives=context.objectives,
            crossover=self._crossover,
            gene_mutation_prob=(
                1.0 / len(context.space)
                if self._gene_mutation_prob is None
                else self._gene_mutation_prob
            ),
            selection=self._selection,
            tournament_size=self._tournament_size,
        )
        _check_toolbox(self.toolbox)
        with borrowed_global_rng(random.Random(0)):
            self._template = self.toolbox.individual()
        weights = tuple(self._template.fitness.weights)
        expected = tuple(objective.weight for objective in context.objectives)
        if weights != expected:
            raise ValueError(
                f"the toolbox's individuals have fitness weights {weights}, expected {expected}: "
                "make the toolbox with the same objectives"
            )
        self._statistics = tools.Statistics(_first_value)
        self._statistics.register("mean", np.mean)
        self._statistics.register("std", np.std)
        self._statistics.register("min", np.min)
        self._statistics.register("max", np.max)

    def _check_objectives(self, context: SearchContext) -> None:
        require_one_objective(self, context)

    # -- ask and tell ------------------------------------------------------------------------

    def ask(self, n_free: int) -> list[Proposal]:
        """Returns the next generation, or what of the present one is still open."""
        vary = self._breed if self._n_open == 0 else None
        if vary is None and any(slot.invalid for slot in self._slots.values()):
            vary = self._replace_invalid
        if vary is not None:  # borrowing draws: a resumed search asks once more without varying
            with borrowed_global_rng(self._rng):
                vary()
        return [slot.proposal for slot in self._slots.values() if not slot.told]

    def tell(self, proposal: Proposal, evaluation: Evaluation, *, reused: bool) -> None:
        """Hears a result; the last of a generation closes it with a logbook row."""
        slot = self._slots[proposal.id]
        if evaluation.status is Status.INVALID:
            slot.invalid = True  # its fitness function found it out: replaced at the next ask
            return
        slot.told = True
        individual = slot.individual
        individual.number, individual.key = evaluation.number, evaluation.key
        self._row["reused" if reused else "nevals"] += 1
        if evaluation.status is Status.OK:
            individual.fitness.values = evaluation.values
            self.hall_of_fame.update([individual])
        elif evaluation.status.is_failure and not reused:
            self._row["failed"] += 1
        self._n_open -= 1
        if self._n_open == 0:
            self._close_generation()

    def _breed(self) -> None:
        self._elites = []
        if self.population:
            self._elites = [self.toolbox.clone(best) for best in self.hall_of_fame[: self.elite]]
        self._parents = [ind for ind in self.population if ind.fitness.valid]
        given = [] if self.population else self._context.initial
        slots = [self._given(genes) for genes in given]
        keys = {slot.proposal.key for slot in slots}
        for _ in range(self.population_size - len(self._elites) - len(slots)):
            slot = self._vary(keys)
            keys.add(slot.proposal.key)
            slots.append(slot)
        self._slots = {slot.proposal.id: slot for slot in slots}
        self._n_open = len(slots)

    def _replace_invalid(self) -> None:
        kept = [slot for slot in self._slots.values() if not slot.invalid]
        keys = {slot.proposal.key for slot in kept}
        self._parents = [ind for ind in self.population if ind.fitness.valid]
        for _ in range(len(self._slots) - len(kept)):
            slot = self._vary(keys)
            keys.add(slot.proposal.key)
            kept.append(slot)
        self._slots = {slot.proposal.id: slot for slot in kept}

    def _given(self, genes: Genes) -> _OpenProposal:
        individual = self.toolbox.clone(self._template)
        individual[:] = self._space.values(genes)
        key = self._history.key(genes)
        return self._slot(individual, genes, key, ())

    def _vary(self, keys: set[str]) -> _OpenProposal:
        """Returns a slot with a child (a random point where there are no parents)."""
        history, space = self._history, self._space
        n_seen = 0
        for _ in range(_MAX_INVALID_IN_A_ROW):
            child, parents = self._child() if self._parents else (self.toolbox.individual(), ())
            if self._user_toolbox is not None and not self._is_in_space(child):
                continue
            genes = space.genes(child)
            key = history.key(genes)
            if history.is_invalid(key, genes):
                continue
            if n_seen < self._novelty_tries and (key in keys or history.seen(key)):
                n_seen += 1
                continue
            return self._slot(child, genes, key, parents)
        raise UnsatisfiableSpaceError(
            f"none of {_MAX_INVALID_IN_A_ROW} points in a row builds anything: loosen the space's "
            "constraints, or add one for what the problem finds invalid"
        )

    def _select_parents(self) -> Any:
        return self.toolbox.select(self._parents, 2)

    def _child(self) -> tuple[Any, tuple[int, ...]]:
        toolbox = self.toolbox
        first, second = self._select_parents()
        child = toolbox.clone(first)
        parents: tuple[int, ...] = (first.number,)
        if self._crossover_prob >= 1.0 or random.random() < self._crossover_prob:
            child, _ = toolbox.mate(child, toolbox.clone(second))
            parents = (first.number, second.number)
        (child,) = toolbox.mutate(child)
        del child.fitness.values
        return child, parents

    def _is_in_space(self, individual: Any) -> bool:
        # Operators of the user's may leave the space: a wrong value is their bug, and named; a
        # violated constraint is bad luck, and varied again. NumPy's numbers become Python's.
        individual[:] = self._space.validate_values(individual)
        return self._space.satisfied(individual)

    def _slot(
        self, individual: Any, genes: Genes, key: str, parents: tuple[int, ...]
    ) -> _OpenProposal:
        individual.key, individual.parents, individual.number = key, parents, None
        proposal = Proposal(self._next_id, genes, key, len(self.logbook), parents)
        self._next_id += 1
        return _OpenProposal(individual, proposal)

    def _close_generation(self) -> None:
        self.population = self._survivors([slot.individual for slot in self._slots.values()])
        self._elites, self._slots = [], {}
        fit = [individual for individual in self.population if individual.fitness.valid]
        record: dict[str, Any] = dict.fromkeys(("mean", "std", "min", "max"))
        if fit:
            record = {name: float(x) for name, x in self._statistics.compile(fit).items()}
        best = self.hall_of_fame[0].fitness.values[0] if self.hall_of_fame else None
        record |= self._more_of_the_row()
        self.logbook.record(gen=len(self.logbook), **self._row, best=best, **record)
        self._row = dict.fromkeys(self._row, 0)

    def _survivors(self, children: list[Any]) -> list[Any]:
        return self._elites + children

    def _more_of_the_row(self) -> dict[str, float | None]:
        return {}

    # -- state -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Returns population, generation under way, hall of fame and random state as JSON."""
        return {
            "name": self.name,
            "rng": rng_state_to_json(self._rng),
            "next_id": self._next_id,
            "row": dict(self._row),
            "population": [individual_to_json(individual) for individual in self.population],
            "elites": [individual_to_json(individual) for individual in self._elites],
            "hall_of_fame": [individual_to_json(best) for best in self.hall_of_fame],
            "slots": [
                {
                    "individual": individual_to_json(slot.individual),
                    "id": slot.proposal.id,
                    "told": slot.told,
                }
                for slot in self._slots.values()
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Takes a state of `state_dict` back; see `Strategy.load_state_dict`."""
        if state.get("name") != self.name:
            raise ValueError(f"the state is {state.get('name')}'s, expected one of {self.name}")
        restore_rng_state(self._rng, state["rng"])
        self._next_id = state["next_id"]
        self._row = dict(state["row"])
        self.logbook.clear()
        for row in rows:
            self.logbook.record(**row)
        self.population = [self._individual(entry) for entry in state["population"]]
        self._elites = [self._individual(entry) for entry in state["elites"]]
        self.hall_of_fame.clear()
        for entry in state["hall_of_fame"]:
            self.hall_of_fame.update([self._individual(entry)])
        self._slots = {}
        for entry in state["slots"]:
            individual = self._individual(entry["individual"])
            proposal = Proposal(
                entry["id"],
                self._space.genes(individual),
                individual.key,
                len(rows),
                individual.parents,
            )
            self._slots[proposal.id] = _OpenProposal(individual, proposal, entry["told"])
        self._n_open = sum(not slot.told for slot in self._slots.values())

    def _individual(self, entry: Mapping[str, Any]) -> Any:
        individual = self.toolbox.clone(self._template)
        individual[:] = entry["values"]
        individual.number, individual.key = entry["number"], entry["key"]
        individual.parents = tuple(entry["parents"])
        del individual.fitness.values
        if entry["fitness"] is not None:
            individual.fitness.values = entry["fitness"]
        return individual


def _first_value(individual: Any) -> float:
    return float(individual.fitness.values[0])


def _check_toolbox(toolbox: Toolbox) -> None:
    missing = [
        name
        for name in ("individual", "mate", "mutate", "select", "clone")
        if not hasattr(toolbox, name)
    ]
    if missing:
        raise ValueError(
            f"toolbox has no {', '.join(missing)}: start from en.make_toolbox(space) and register "
            "your operators on it"
        )
