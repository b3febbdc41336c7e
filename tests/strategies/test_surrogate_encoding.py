"""How the model of SurrogateEvolution sees a gene of the user's own."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import evonas as en
from evonas.space.genes import Gene
from evonas.strategies.surrogate.encoding import Encoding


@dataclass(frozen=True)
class Corner(Gene):
    """A corner of a cube, by its coordinates."""

    sides: int = 6

    @property
    def first(self) -> list[int]:
        return [0] * self.sides

    @property
    def cardinality(self) -> int:
        return int(2**self.sides)

    @property
    def n_features(self) -> int:
        return self.sides

    def sample(self, rng: random.Random) -> list[int]:
        return [rng.randrange(2) for _ in range(self.sides)]

    def mutate(self, value: list[int], rng: random.Random, sigma: float = 0.1) -> list[int]:
        place = rng.randrange(self.sides)
        return [x ^ (i == place) for i, x in enumerate(value)]

    def validate(self, name: str, value: Any) -> list[int]:
        return [int(x) for x in value]

    def neighbours(self, value: list[int]) -> Iterator[list[int]]:
        for place in range(self.sides):
            yield [x ^ (i == place) for i, x in enumerate(value)]

    def all_values(self) -> Iterator[list[int]]:
        return ([(n >> i) & 1 for i in range(self.sides)] for n in range(self.cardinality))

    def encode(self, value: list[int]) -> list[float]:
        return [float(x) for x in value]

    def decode(self, features: Sequence[float]) -> list[int]:
        return [int(x >= 0.5) for x in features]

    def to_json(self) -> dict[str, Any]:
        return {"type": "corner", "sides": self.sides}


def distances(encoding: Encoding, rows: Any, gene: int) -> Any:
    """From the first row to all, in one gene."""
    places = encoding.coordinates(rows)
    weights = (encoding.gene_of == gene).astype(float)
    choices, numbers = encoding.weighted(places[:1], places, weights)
    return (choices + numbers)[0]


def test_all_features_of_a_gene_count() -> None:
    encoding = Encoding(en.SearchSpace({"at": Corner(4), "x": en.Float(0.0, 1.0)}))
    points = [[[0, 0, 0, 0], 0.5], [[0, 1, 0, 0], 0.5], [[0, 1, 1, 1], 0.5], [[0, 1, 0, 0], 0.9]]
    rows = encoding.rows(points)
    np.testing.assert_allclose(distances(encoding, rows, 0), [0.0, 0.25, 0.75, 0.25])
    np.testing.assert_array_equal(rows[1, 0], rows[3, 0])


def test_an_inactive_one_is_at_the_centre() -> None:
    space = en.SearchSpace({"on": en.Boolean(), "at": Corner(4)}, conditions={"at": {"on": [True]}})
    encoding = Encoding(space)
    rows = encoding.rows([[False, [0, 1, 0, 0]], [True, [0, 1, 1, 1]], [False, [1, 1, 1, 1]]])
    np.testing.assert_allclose(distances(encoding, rows, 1), [0.0, 0.25, 0.0])


def test_genes_of_the_same_choices_share_them_in_any_order() -> None:
    encoding = Encoding(en.SearchSpace({
        "a": en.Categorical(["x", "y", "z"]), "n": en.Float(0.0, 1.0),
        "b": en.Categorical(["z", "x", "y"]), "other": en.Categorical(["x", "y", "w"]),
        "few": en.Categorical(["x", "y"]), "also few": en.Categorical(["x", "y"]),
    }))  # fmt: skip
    assert encoding.n_shared == 3
    assert encoding.gene_of.tolist() == [0, 0, 0, 1, 2, 2, 2, 3, 3, 3, 4, 4, 5, 5]
    assert encoding.choice_of.tolist() == [0, 1, 2, -1, 2, 0, 1, *[-1] * 7]
    rows = encoding.rows([["x", 0.5, "z", "x", "x", "y"], ["y", 0.1, "x", "w", "x", "x"]])
    for gene, distance in enumerate([1.0, 0.16, 1.0, 1.0, 0.0, 1.0]):
        np.testing.assert_allclose(distances(encoding, rows, gene), [0.0, distance], atol=1e-12)


def test_a_search_over_it_learns() -> None:
    """The best of 64 corners in 24 evaluations: at random in 3 of 8 searches."""
    aim = [1, 0, 1, 1, 0, 1]

    def agreement(genes: Any, trial: en.Trial) -> float:
        return float(sum(a == b for a, b in zip(genes["at"], aim, strict=True)))

    for seed in range(4):
        result = en.evolve({"at": Corner()}, agreement, max_evaluations=24, seed=seed)
        assert result.champion.genes["at"] == aim
