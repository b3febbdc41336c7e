"""Random points of a search space that satisfy its constraints, in bounded time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from evonas.exceptions import UnsatisfiableSpaceError
from evonas.records import Genes

if TYPE_CHECKING:
    from evonas.space import SearchSpace

__all__ = ["draw_values", "first_satisfying"]

SAMPLE_TRIES = 1_000
"""How many random points are tried before a space is enumerated or given up."""
LARGEST_ENUMERATION = 100_000
"""How many points a space may have to be enumerated when random points find nothing."""


def draw_values(space: SearchSpace, rng: Any) -> list[Any]:
    """Returns the values of a random point; see `SearchSpace.sample_values`."""

    def draw() -> list[Any]:
        return [gene.sample(rng) for gene in space.gene_types]

    if not space.constraints:
        return draw()
    try:
        return first_satisfying(space, draw)
    except UnsatisfiableSpaceError as error:
        if space.cardinality > LARGEST_ENUMERATION:
            raise UnsatisfiableSpaceError(
                f"{error}; the space is too large to try every point: relax or repair the"
                " constraints"
            ) from None
    # Not cached: a resumed search must consume the rng as the uninterrupted one did.
    allowed = list(space.enumerate())
    if not allowed:
        rejected = _rejected(space, space.enumerate(constrained=False))
        raise UnsatisfiableSpaceError(
            f"none of the {space.cardinality:,} points of the space satisfies its constraints"
            f" ({_listed(rejected)}): relax or repair the constraints"
        )
    return space.values(allowed[int(rng.random() * len(allowed))], rng)


def first_satisfying(space: SearchSpace, draw: Callable[[], list[Any]]) -> list[Any]:
    """Returns the first drawn list of values that is allowed; see `SearchSpace.resample`."""
    seen = []
    for _ in range(SAMPLE_TRIES):
        values = draw()
        if space.satisfied(values):
            return values
        seen.append(values)
    rejected = _rejected(space, map(space.genes, seen))
    raise UnsatisfiableSpaceError(
        f"none of {SAMPLE_TRIES:,} random points satisfies the constraints ({_listed(rejected)})"
    )


def _rejected(space: SearchSpace, points: Iterable[Genes]) -> dict[str, int]:
    counts = dict.fromkeys(space.constraints, 0)
    for genes in points:
        for name in space.violated(genes):
            counts[name] += 1
    return counts


def _listed(rejected: Mapping[str, int]) -> str:
    return ", ".join(f"{name!r} rejected {count:,}" for name, count in rejected.items())
