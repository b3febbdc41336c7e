"""What every gene must pass."""

from __future__ import annotations

import copy
import math
import pickle
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, ClassVar

from evonas.run.evolve import evolve
from evonas.space import SearchSpace
from evonas.space.genes import Gene
from evonas.strategies.generational import Generational
from evonas.testing._checks import check, check_equal, check_raises, through_json
from evonas.testing.runs import trace

__all__ = ["GeneConformance"]


class GeneConformance(ABC):
    """The contract of `Gene`, as tests: subclass it, say which genes, and run pytest.

    Each method named `test_*` is one clause, checked for every gene of `make_genes`.

    Attributes:
        n_samples: Values drawn per gene and clause.

    Example:
        >>> from evonas import Boolean
        >>> class TestBoolean(GeneConformance):
        ...     def make_genes(self):
        ...         return [Boolean()]
        >>> TestBoolean().test_mutation_finds_another_value()
    """

    n_samples: ClassVar[int] = 50

    @abstractmethod
    def make_genes(self) -> Iterable[Gene]:
        """Returns the genes to check: wide and narrow ones, and one with a single value."""

    def test_a_sample_is_valid_and_canonical(self) -> None:
        """`validate` returns it as it is, of the same type; so does JSON."""
        for gene, value in self._values():
            _check_value(gene, value, "a sample")
            _check_value(gene, through_json(value), "a sample, through JSON")
            check_equal(through_json(value), value, f"a sample of {gene!r} through JSON")

    def test_the_first_value_is_valid(self) -> None:
        """And so is every value of a gene that can be counted."""
        for gene in self.make_genes():
            _check_value(gene, gene.first, "first")

    def test_randomness_comes_from_the_rng(self) -> None:
        """The same rng gives the same values, and the global one is not asked."""
        for gene in self.make_genes():
            before = random.getstate()
            drawn = []
            for _ in range(2):
                rng = random.Random(5)
                value = gene.sample(rng)
                drawn.append([value, gene.mutate(value, rng), *gene.blend(value, value, rng)])
            check_equal(drawn[1], drawn[0], f"{gene!r} drawn twice from one seed")
            check(random.getstate() == before, f"{gene!r} draws from the global random")

    def test_mutation_finds_another_value(self) -> None:
        """A valid one, whatever sigma, and never the same where there is another."""
        rng = random.Random(1)
        for gene, value in self._values():
            for sigma in (0.0, 0.1, 10.0):
                before = copy.deepcopy(value)
                found = gene.mutate(value, rng, sigma)
                _check_value(gene, found, f"a mutation with sigma {sigma}")
                check_equal(value, before, f"{gene!r} changed the value that it mutated")
                if gene.cardinality > 1:
                    check(
                        not _same(found, value), f"{gene!r} mutated {value!r} to itself, {sigma=}"
                    )

    def test_blending_stays_valid(self) -> None:
        """Both children are values of the gene; equal parents give themselves or valid values."""
        rng = random.Random(2)
        for gene, value in self._values():
            for alpha in (0.0, 0.5, 5.0):
                for child in gene.blend(value, gene.sample(rng), rng, alpha):
                    _check_value(gene, child, f"a blend with alpha {alpha}")

    def test_nonsense_is_refused_by_name(self) -> None:
        """`validate` raises ValueError or TypeError and names the gene."""
        for gene in self.make_genes():
            for wrong in (object(), math.nan, None, "no such value", [[]], {"no": "value"}):
                if any(_same(wrong, value) for value in islice(_countable(gene), 100)):
                    continue
                refuse = partial(gene.validate, "width7", wrong)
                check_raises((ValueError, TypeError), "'width7'", refuse)

    def test_neighbours_are_other_values(self) -> None:
        """Valid, and never the value itself."""
        for gene, value in self._values():
            near = list(islice(gene.neighbours(value), 100))
            for other in near:
                _check_value(gene, other, "a neighbour")
                check(not _same(other, value), f"{gene!r}: {value!r} neighbours itself")
            check(near or gene.cardinality == 1, f"{gene!r}: {value!r} has no neighbours")

    def test_all_values_are_as_many_as_it_says(self) -> None:
        """Each once, the first one first; infinitely many are refused."""
        for gene in self.make_genes():
            if math.isinf(gene.cardinality):
                check_raises(ValueError, "infinitely many", partial(_all_of, gene))
                continue
            values = list(islice(gene.all_values(), 10_001))
            check(
                len(values) == min(gene.cardinality, 10_001),
                f"{gene!r} says {gene.cardinality} values and has {len(values)}",
            )
            check(_same(values[0], gene.first), f"{gene!r}: {values[0]!r} is not its first value")
            for value in values[:100]:
                _check_value(gene, value, "one of all values")
            texts = {repr(value) for value in values}
            check(len(texts) == len(values), f"{gene!r} has a value twice")

    def test_encoding_there_and_back(self) -> None:
        """`n_features` floats in [0, 1]; `decode` takes any floats to a valid value."""
        rng = random.Random(3)
        for gene, value in self._values():
            features = gene.encode(value)
            check(len(features) == gene.n_features, f"{gene!r}: {len(features)} features")
            check(all(0.0 <= x <= 1.0 for x in features), f"{gene!r} encodes {value!r}: {features}")
            back = gene.decode(features)
            near = _same(back, value) or (
                isinstance(value, float) and math.isclose(back, value, rel_tol=1e-9, abs_tol=1e-12)
            )
            check(near, f"{gene!r}: {value!r} comes back as {back!r}")
            anywhere = [rng.uniform(-0.5, 1.5) for _ in features]
            _check_value(gene, gene.decode(anywhere), f"decoded from {anywhere}")

    def test_genes_are_plain_values(self) -> None:
        """Equal when made alike; they pickle, copy, hash, and are described by JSON."""
        for gene, again in zip(self.make_genes(), self.make_genes(), strict=True):
            check(gene == again and hash(gene) == hash(again), f"{gene!r} differs from itself")
            for copied in (pickle.loads(pickle.dumps(gene)), copy.deepcopy(gene)):
                check(copied == gene and repr(copied) == repr(gene), f"{gene!r} copied: {copied!r}")
            described = gene.to_json()
            check_equal(through_json(described), described, f"to_json() of {gene!r}")
            check("type" in described, f"to_json() of {gene!r} lacks its type")

    def test_a_search_runs_on_them(self) -> None:
        """All of them in one space: same seed, same run, and every point is valid."""
        space = SearchSpace({f"gene{n}": gene for n, gene in enumerate(self.make_genes())})

        def length(genes: dict[str, Any], trial: Any) -> float:
            return float(len(repr(genes)))

        def search() -> dict[str, Any]:
            strategy = Generational(6, elite=1, crossover="blend")
            return trace(evolve(space, length, strategy=strategy, generations=3, seed=0))

        first = search()
        for entry in first["evaluations"]:
            check_equal(space.validate(entry["genes"]), entry["genes"], "genes on record")
        check_equal(search(), first, "a second search")

    def _values(self) -> Iterator[tuple[Gene, Any]]:
        for gene in self.make_genes():
            rng = random.Random(0)
            for _ in range(self.n_samples):
                yield gene, gene.sample(rng)


def _check_value(gene: Gene, value: Any, what: str) -> None:
    found = gene.validate("gene", value)
    check(_same(found, value), f"{gene!r}: {what}, {value!r}, is not canonical ({found!r} is)")


def _same(one: Any, other: Any) -> bool:
    # By type too: 1, 1.0 and True are three values.
    return type(one) is type(other) and repr(one) == repr(other)


def _all_of(gene: Gene) -> list[Any]:
    return list(gene.all_values())


def _countable(gene: Gene) -> Iterator[Any]:
    return iter(()) if math.isinf(gene.cardinality) else gene.all_values()
