"""Genes without an order: one of several choices, true or false."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

import numpy as np

from evonas.space.canonical import canonical_json, copy_json, plain_json
from evonas.space.gene import DEFAULT_SIGMA, Gene

__all__ = ["Boolean", "Categorical"]


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Categorical(Gene):
    """One of several values without an order.

    The values are JSON (numbers, strings, booleans, None, lists and dicts of them), told apart by
    their JSON text: `1`, `1.0` and `True` are three choices. What JSON would change (a tuple comes
    back as a list) or does not know is named: pass a dict of name to object. The gene's value is
    then the name, and `object(name)` the object; objects count neither for equality nor in JSON.

    Neighbours: every other choice. Features: one per choice, 1 at the value's.

    Args:
        choices: A list or tuple of JSON values, or a dict of name to object.

    Raises:
        ValueError: There are no choices, two are the same, or one is NaN or infinite.
        TypeError: A choice is not JSON or not what JSON gives back, or a name is not a string.

    Example:
        >>> gene = Categorical([32, 64, 96])
        >>> gene.cardinality, list(gene.neighbours(64))
        (3, [32, 96])
        >>> Categorical({"half": 0.5, "round": round}).object("round")(2.6)
        3
    """

    choices: tuple[Any, ...]
    """The values (the names, where objects are named). Do not change lists or dicts in it."""
    _objects: tuple[Any, ...] | None
    _n: int
    _texts: dict[str, int]
    _positions: dict[Any, int] | None

    def __init__(self, choices: Sequence[Any] | Mapping[str, Any]) -> None:
        if isinstance(choices, (str, bytes)) or not isinstance(choices, (Mapping, list, tuple)):
            raise TypeError(
                "Categorical: choices must be a list or tuple of JSON values, or a dict of name to"
                f" object, got {choices!r} ({type(choices).__name__})"
            )
        if not choices:
            raise ValueError("Categorical: choices must hold at least one choice, got none")
        objects = None
        if isinstance(choices, Mapping):
            for name in choices:
                if not isinstance(name, str):
                    raise TypeError(
                        f"Categorical: the names of named choices must be strings, got {name!r}"
                    )
            objects = tuple(choices.values())
            choices = tuple(choices)
        values = tuple(_plain_choice(value) for value in choices)
        texts: dict[str, int] = {}
        for position, value in enumerate(values):
            text = canonical_json(value)
            if text in texts:
                raise ValueError(f"Categorical: the choice {value!r} is given twice")
            texts[text] = position
        put = object.__setattr__
        put(self, "choices", values)
        put(self, "_objects", objects)
        put(self, "_n", len(values))
        put(self, "_texts", texts)
        put(self, "_positions", _hashed(values))

    @property
    def is_named(self) -> bool:
        """Whether the values are names of objects."""
        return self._objects is not None

    @property
    def is_hashable(self) -> bool:
        """Whether every choice has a hash, and no two have the same (as 1, 1.0 and True have)."""
        return self._positions is not None

    @property
    def has_containers(self) -> bool:
        """Whether a choice is a list or a dict, which must be copied before it is handed out."""
        return any(isinstance(value, (list, dict)) for value in self.choices)

    @property
    def first(self) -> Any:
        """The first choice."""
        return self.choices[0]

    @property
    def cardinality(self) -> int:
        """How many choices there are."""
        return self._n

    @property
    def n_features(self) -> int:
        """One per choice."""
        return self._n

    def position(self, value: Any) -> int:
        """Returns the place of a value (in canonical form) among the choices.

        Raises:
            ValueError: It is not among them.
        """
        try:
            if self._positions is not None:
                return self._positions[value]
            return self._texts[canonical_json(value)]
        except (KeyError, TypeError):
            raise ValueError(f"{value!r} is not among {self!r}") from None

    def object(self, name: str) -> Any:
        """Returns the object of a named choice; where choices are not named, the choice itself.

        Raises:
            ValueError: There is no such choice.
        """
        position = self.position(name)
        if self._objects is None:
            return copy_json(self.choices[position])
        return self._objects[position]

    def sample(self, rng: Random) -> Any:
        """Returns a choice, each with the same probability."""
        return self.choices[int(rng.random() * self._n)]

    def mutate(self, value: Any, rng: Random, sigma: float = DEFAULT_SIGMA) -> Any:
        """Returns another choice, each with the same probability."""
        if self._n == 1:
            return value
        position = int(rng.random() * (self._n - 1))
        return self.choices[position if position < self.position(value) else position + 1]

    def validate(self, name: str, value: Any) -> Any:
        """Returns the choice; a number that equals exactly one choice is taken for it."""
        try:
            value = plain_json(value)
            position = self._texts.get(canonical_json(value))
        except (TypeError, ValueError):
            position = None
        if position is None and isinstance(value, (int, float)) and not isinstance(value, bool):
            same = [
                place
                for place, choice in enumerate(self.choices)
                if isinstance(choice, (int, float))
                and not isinstance(choice, bool)
                and choice == value
            ]
            position = same[0] if len(same) == 1 else None
        if position is None:
            what = "the name of a choice" if self.is_named else "one of"
            raise ValueError(f"gene {name!r} must be {what} {_listed(self.choices)}, got {value!r}")
        return copy_json(self.choices[position])

    def neighbours(self, value: Any) -> Iterator[Any]:
        """Yields every other choice."""
        here = self.position(value)
        return (choice for place, choice in enumerate(self.choices) if place != here)

    def all_values(self) -> Iterator[Any]:
        """Yields the choices."""
        return iter(self.choices)

    def encode(self, value: Any) -> list[float]:
        """Returns 1.0 at the value's place and 0.0 elsewhere."""
        features = [0.0] * self._n
        features[self.position(value)] = 1.0
        return features

    def decode(self, features: Sequence[float]) -> Any:
        """Returns the choice with the largest feature (the first of equals)."""
        return self.choices[max(range(self._n), key=features.__getitem__)]

    def to_json(self) -> dict[str, Any]:
        """Returns type and choices; of named choices the names."""
        return {"type": "categorical", "choices": [copy_json(value) for value in self.choices]}

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, Categorical):
            return NotImplemented
        return list(self._texts) == list(other._texts)

    def __hash__(self) -> int:
        return hash(tuple(self._texts))

    def __repr__(self) -> str:
        return f"Categorical({_listed(self.choices)})"


@dataclass(frozen=True)
class Boolean(Gene):
    """True or False.

    Neighbours: the other. Features: one, 0 or 1.

    Example:
        >>> list(Boolean().all_values())
        [False, True]
    """

    @property
    def first(self) -> bool:
        """False."""
        return False

    @property
    def cardinality(self) -> int:
        """Two."""
        return 2

    @property
    def n_features(self) -> int:
        """One."""
        return 1

    def sample(self, rng: Random) -> bool:
        """Returns True or False, each with probability 0.5."""
        return rng.random() < 0.5

    def mutate(self, value: Any, rng: Random, sigma: float = DEFAULT_SIGMA) -> bool:
        """Returns the other one."""
        return not value

    def validate(self, name: str, value: Any) -> bool:
        """Returns the value as a bool; 0 and 1 are refused."""
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(
                f"gene {name!r} must be True or False, got {value!r} ({type(value).__name__})"
            )
        return bool(value)

    def neighbours(self, value: Any) -> Iterator[bool]:
        """Yields the other one."""
        return iter((not value,))

    def all_values(self) -> Iterator[bool]:
        """Yields False, then True."""
        return iter((False, True))

    def encode(self, value: Any) -> list[float]:
        """Returns 1.0 for True and 0.0 for False."""
        return [1.0 if value else 0.0]

    def decode(self, features: Sequence[float]) -> bool:
        """Returns whether the feature is at least 0.5."""
        return bool(features[0] >= 0.5)

    def to_json(self) -> dict[str, Any]:
        """Returns the type."""
        return {"type": "boolean"}


def _plain_choice(value: Any) -> Any:
    try:
        plain = plain_json(value)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"Categorical: {error}; choices that are not JSON are named:"
            " Categorical({'relu': nn.ReLU, 'gelu': nn.GELU})"
        ) from None
    if _holds_tuple(value):
        raise TypeError(
            f"Categorical: the choice {value!r} would come back as {plain!r}, since genes are kept"
            " as JSON, which has no tuples: write the list, or name the choices:"
            " Categorical({'3x3': (3, 3), '5x5': (5, 5)}), whose values are the names"
        )
    return plain


def _holds_tuple(value: Any) -> bool:
    parts = value.values() if isinstance(value, dict) else value
    return isinstance(value, tuple) or (
        isinstance(value, (list, dict)) and any(map(_holds_tuple, parts))
    )


def _hashed(values: tuple[Any, ...]) -> dict[Any, int] | None:
    # None where a choice has no hash, or two are equal (1, 1.0 and True): texts tell those apart.
    try:
        positions = {value: position for position, value in enumerate(values)}
    except TypeError:
        return None
    return positions if len(positions) == len(values) else None


def _listed(values: Sequence[Any], most: int = 12) -> str:
    shown = ", ".join(repr(value) for value in islice(values, most))
    return f"[{shown}]" if len(values) <= most else f"[{shown}, … {len(values)} in all]"
