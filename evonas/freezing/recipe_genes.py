"""The genes of a recipe: a state for each block, or a few numbers for all of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import product
from typing import Any, Protocol

from evonas.arguments import check_list, check_mapping, check_number
from evonas.freezing.states import FROZEN, State
from evonas.records import Genes
from evonas.space.gene import Gene
from evonas.space.genes import Categorical, Integer
from evonas.training.recipe import TRAINING_GENES, Training

__all__ = [
    "Compact",
    "PerBlock",
    "StateGenes",
    "check_decays",
    "check_own_genes",
    "default_of",
    "takes_genes",
]

ALL = "all"
DECAY = "layer-wise decay"

States = dict[str, State]


class StateGenes(Protocol):
    """How genes say what becomes of the blocks."""

    @property
    def genes(self) -> Mapping[str, Gene]:
        """By name."""

    @property
    def conditions(self) -> Mapping[str, Mapping[str, Sequence[Any]]]:
        """When they are active, see `SearchSpace`."""

    def states(self, genes: Mapping[str, Any]) -> States:
        """Returns the state of each block."""

    def point(self, states: Mapping[str, State]) -> Genes | None:
        """Returns the genes of these states; None where none have them."""

    def decayed(self) -> dict[str, States]:
        """Returns what trains all blocks at rates that fall from the head on, by name."""


class PerBlock:
    """A gene for each block, which is its state.

    Args:
        states: Block name to the states it may have, `frozen` first.
        multiples: Of the rate, ascending; 1 is among them.
    """

    conditions: Mapping[str, Mapping[str, Sequence[Any]]] = {}

    def __init__(self, states: Mapping[str, Sequence[State]], multiples: Sequence[float]) -> None:
        self._multiples = multiples
        self._choices = states
        self.genes: dict[str, Gene] = {name: Categorical(list(own)) for name, own in states.items()}

    def states(self, genes: Mapping[str, Any]) -> States:
        """Returns the state of each block."""
        return {name: genes[name] for name in self.genes}

    def point(self, states: Mapping[str, State]) -> Genes | None:
        """Returns the states, which are the genes; None where a block has no such state."""
        fits = all(state in self._choices[name] for name, state in states.items())
        return dict(states) if fits else None

    def decayed(self) -> dict[str, States]:
        """Returns the multiples up to 1 in equal shares of the blocks."""
        steps = self._multiples[: self._multiples.index(1.0) + 1]
        n = len(self.genes)
        if len(steps) < 2:
            return {}
        return {DECAY: {name: steps[at * len(steps) // n] for at, name in enumerate(self.genes)}}


class Compact:
    """Three genes for all blocks: how many are frozen, what of the others is trained, how fast.

    The rate of a trained block is that of the head times `decay` for each block between them.

    Args:
        states: Block name to the states it may have.
        decays: In (0, 1]; 1 is among them.
        n_most: How many of the first blocks may be frozen.
    """

    def __init__(
        self, states: Mapping[str, Sequence[State]], decays: Sequence[float], n_most: int
    ) -> None:
        self._states, self._n_most, self._decays = states, n_most, list(decays)
        kinds = [state for own in states.values() for state in own if isinstance(state, str)]
        self._kinds = [ALL, *(kind for kind in dict.fromkeys(kinds) if kind != FROZEN)]
        self.genes: dict[str, Gene] = {
            "n_frozen": Integer(0, n_most),
            "trained": Categorical(self._kinds),
            "decay": Categorical(self._decays),
        }
        self.conditions = {"decay": {"trained": [ALL]}}

    def states(self, genes: Mapping[str, Any]) -> States:
        """Returns the state of each block; one that cannot be trained as it says is frozen."""
        n, kind, decay = len(self._states), genes["trained"], genes.get("decay", 1.0)
        found: States = {}
        for at, (name, own) in enumerate(self._states.items()):
            trained: State = decay ** (n - 1 - at) if kind == ALL else kind
            known = kind == ALL or kind in own
            found[name] = trained if at >= genes["n_frozen"] and known else FROZEN
        return found

    def point(self, states: Mapping[str, State]) -> Genes | None:
        """Returns the first genes that have these states."""
        tried = product(range(self._n_most + 1), self._kinds, reversed(self._decays))
        for n, kind, decay in tried:
            genes: Genes = {"n_frozen": n, "trained": kind}
            if kind == ALL:
                genes["decay"] = decay
            if self.states(genes) == states:
                return genes
        return None

    def decayed(self) -> dict[str, States]:
        """Returns all blocks trained at each of the decays below 1."""
        return {
            f"{DECAY} {decay:g}": self.states({"n_frozen": 0, "trained": ALL, "decay": decay})
            for decay in self._decays
            if decay < 1
        }


def check_decays(decays: Sequence[float]) -> tuple[float, ...]:
    """Returns the decays ascending, 1 among them.

    Raises:
        TypeError, ValueError: One is not in (0, 1].
    """
    for value in check_list("decays", decays, "factors in (0, 1]"):
        check_number("an entry of decays", value, above=0, maximum=1)
    return tuple(sorted({1.0, *map(float, decays)}))


def check_own_genes(
    genes: Mapping[str, Gene] | None,
    training: Training,
    taken: Collection[str],
    *,
    are_used: bool,
) -> dict[str, Gene]:
    """Returns the genes that a user adds to those of a recipe.

    Args:
        genes: By name; those of settings of `Training` replace them.
        training: The settings.
        taken: Names that are in use.
        are_used: Whether the model factory or the optimizer takes genes.

    Raises:
        TypeError, ValueError: One is no gene, has a name that is taken, a value that its setting
            cannot have, or would do nothing.
    """
    genes = {} if genes is None else genes
    check_mapping("genes", genes)
    for name, gene in genes.items():
        if not isinstance(gene, Gene):
            raise TypeError(f"genes[{name!r}] must be a gene, got {type(gene).__name__}")
        if name in taken:
            use = "lr= takes several rates" if name == "lr" else "choose another name"
            raise ValueError(f"genes has {name!r}, which this problem has already: {use}")
        if name in TRAINING_GENES:
            training.check_gene(f"genes[{name!r}]", name, gene)
        elif not are_used:
            raise ValueError(
                f"genes has {name!r}, which would do nothing: neither does model_factory take "
                "genes (as its first argument), nor optimizer; settings of the training are "
                f"{', '.join(TRAINING_GENES)}"
            )
    return dict(genes)


def default_of(name: str, gene: Gene, training: Training) -> Any:
    """Returns the value of a gene for points that people try by hand: the setting, or the first."""
    if name in TRAINING_GENES:
        try:
            return gene.validate(name, getattr(training, name))
        except (TypeError, ValueError):  # the search is to leave it
            pass
    return gene.first


def takes_genes(factory: Callable[..., Any], *, are_given: bool) -> bool:
    """Whether a model factory takes an argument, genes.

    It must be given one; or there are genes, and its first argument is called so and has a default.
    """
    try:
        parameters = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):  # of C
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if are_given and parameters and parameters[0].kind in kinds and parameters[0].name == "genes":
        return True
    return any(p.kind in kinds and p.default is inspect.Parameter.empty for p in parameters)
