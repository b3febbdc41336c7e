"""Which genes a model function never looks at: a search would spend its trainings on them."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from evonas.records import Genes
from evonas.space import SearchSpace

__all__ = ["ReadGenes", "unread_genes"]

_log = logging.getLogger(__name__)

_N_POINTS = 8  # tried before a gene counts as unread: one may matter in some points only


class ReadGenes(dict[str, Any]):
    """Genes that note which of them are read.

    Attributes:
        read: Names of those that were.
    """

    def __init__(self, genes: Genes) -> None:
        super().__init__(genes)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Returns a gene, or `default`."""
        self.read.add(name)
        return super().get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        """Removes a gene and returns it, or `default`."""
        self.read.add(name)
        return super().pop(name, *default)

    # Whoever goes through them all (`**genes`, `dict(genes)`) may use them all.

    def __iter__(self) -> Iterator[str]:
        self.read.update(super().keys())
        return super().__iter__()

    def keys(self) -> Any:
        """Returns their names."""
        self.read.update(super().keys())
        return super().keys()

    def values(self) -> Any:
        """Returns their values."""
        self.read.update(super().keys())
        return super().values()

    def items(self) -> Any:
        """Returns names and values."""
        self.read.update(super().keys())
        return super().items()


def unread_genes(
    space: SearchSpace, build: Callable[[ReadGenes], object], known: set[str]
) -> list[str]:
    """Returns the genes that `build` does not read in any of eight points.

    Args:
        space: Whose genes.
        build: May raise; what it read before counts.
        known: Genes that something else reads; so do conditions, those that they are about.
    """
    rng = random.Random(0)
    of_conditions = {parent for conditions in space.conditions.values() for parent in conditions}
    read = known | of_conditions
    left = [name for name, gene in space.items() if name not in read and gene.cardinality > 1]
    for point in islice(iter(lambda: space.sample(rng), None), _N_POINTS):
        if not left:
            break
        genes = ReadGenes(point)
        try:
            build(genes)
        except Exception as error:  # noqa: BLE001 (of the user's function: a trial records it)
            _log.debug("%s has no model: %r", point, error)
        left = [name for name in left if name not in genes.read]
    return left
