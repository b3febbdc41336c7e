"""The typed genes: how one variable is sampled, mutated, recombined, checked and encoded.

`rng` is a `random.Random`, or anything with its methods (the module `random` too). Values are JSON:
a `Categorical` may also name objects, and then its values are the names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from evonas.space.choices import Boolean, Categorical
from evonas.space.gene import Gene
from evonas.space.numbers import Float, Integer

__all__ = ["Boolean", "Categorical", "Float", "Gene", "Integer", "gene_from_json"]


def gene_from_json(data: Mapping[str, Any]) -> Gene:
    """Returns the gene that `to_json` described; named choices come back as their names.

    Raises:
        ValueError: The description is not one of a gene.

    Example:
        >>> gene_from_json({"type": "integer", "low": 1, "high": 5, "step": 2, "log": False})
        Integer(1, 5, step=2)
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"a gene's JSON must be an object with 'type', got {data!r}")
    kinds: dict[Any, Callable[..., Gene]] = {
        "categorical": Categorical,
        "integer": Integer,
        "float": Float,
        "boolean": Boolean,
    }
    kind = data.get("type")
    if kind not in kinds:
        raise ValueError(f"a gene's 'type' must be one of {', '.join(kinds)}, got {kind!r}")
    settings = {key: value for key, value in data.items() if key != "type"}
    try:
        return kinds[kind](**settings)
    except TypeError as error:
        raise ValueError(f"this is not the JSON of a gene ({error}): {dict(data)!r}") from None
