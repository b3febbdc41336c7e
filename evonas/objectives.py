"""What is maximised or minimised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

from evonas.exceptions import FitnessError

__all__ = ["Objective", "as_objectives", "fitness_values"]

Direction = Literal["max", "min"]


@dataclass(frozen=True, slots=True)
class Objective:
    """One named value of the fitness and the direction in which it is better.

    Args:
        name: The name under which the fitness function returns it and the records keep it.
        direction: `"max"` or `"min"`.

    Example:
        >>> Objective("params", "min").weight
        -1.0
    """

    name: str
    direction: Direction = "max"

    def __post_init__(self) -> None:
        if type(self.name) is not str or not self.name:
            raise ValueError(f"objective name must be a non-empty string, got {self.name!r}")
        if self.direction not in ("max", "min"):
            raise ValueError(
                f"objective {self.name!r}: direction must be 'max' or 'min', got {self.direction!r}"
            )

    @property
    def weight(self) -> float:
        """DEAP's fitness weight: 1.0 to maximise, -1.0 to minimise."""
        return 1.0 if self.direction == "max" else -1.0

    def better(self, value: float, than: float) -> bool:
        """Whether `value` is strictly better than `than`."""
        return value > than if self.direction == "max" else value < than


def as_objectives(objectives: Objective | Sequence[Objective] | None) -> tuple[Objective, ...]:
    """One objective, several, or none (then one called `fitness`, maximised) as a tuple.

    Raises:
        ValueError: The sequence is empty, or two objectives have one name.
        TypeError: An entry is not an `Objective`.
    """
    if objectives is None:
        return (Objective("fitness"),)
    found = (objectives,) if isinstance(objectives, Objective) else tuple(objectives)
    if not found:
        raise ValueError("objectives is empty: give at least one Objective(name, direction)")
    for entry in found:
        if not isinstance(entry, Objective):
            raise TypeError(
                f"objectives must be Objective(name, direction), got {entry!r}"
                f" ({type(entry).__name__})"
            )
    names = [entry.name for entry in found]
    if len(set(names)) != len(names):
        raise ValueError(f"two objectives have the same name: {', '.join(names)}")
    return found


def fitness_values(
    returned: Any, objectives: Sequence[Objective]
) -> tuple[tuple[float, ...], dict[str, Any]]:
    """Returns what a fitness function returned as one float per objective, and the rest of a dict.

    NaN and infinities pass: the caller judges them.

    Args:
        returned: A number, a tuple or list of numbers in the order of the objectives, or a dict by
            objective name, whose other entries are metrics to put on record.
        objectives: What is expected, at least one.

    Raises:
        FitnessError: It is none of these, has the wrong number of values, lacks an objective, or
            holds a metric that is not JSON.

    Example:
        >>> fitness_values({"loss": 1, "params": 70}, [Objective("loss", "min")])
        ((1.0,), {'params': 70})
    """
    if type(returned) is float and len(objectives) == 1:  # by far the most frequent
        return (returned,), {}
    if isinstance(returned, Mapping):
        missing = [objective.name for objective in objectives if objective.name not in returned]
        if missing:
            raise FitnessError(
                f"the fitness function returned a dict without {_quoted(missing)}: expected"
                f" {_expected(objectives)}, got the keys {_quoted(returned)}"
            )
        names = {objective.name for objective in objectives}
        return (
            tuple(_value(objective.name, returned[objective.name]) for objective in objectives),
            {str(k): _metric(str(k), entry) for k, entry in returned.items() if k not in names},
        )
    if returned is None:
        raise FitnessError(
            f"the fitness function returned None, expected {_expected(objectives)}: is a `return`"
            " missing?"
        )
    entries = returned if isinstance(returned, (tuple, list)) else (returned,)
    if len(entries) != len(objectives):
        number = "1 value" if len(entries) == 1 else f"{len(entries)} values"
        raise FitnessError(
            f"the fitness function returned {number} ({returned!r}), expected"
            f" {_expected(objectives)}"
        )
    return (
        tuple(
            _value(objective.name, entry)
            for objective, entry in zip(objectives, entries, strict=True)
        ),
        {},
    )


def _value(name: str, value: Any) -> float:
    if _is_number(value):
        try:
            return float(value)
        except OverflowError:
            raise FitnessError(
                f"the fitness function returned an int for {name!r} that no float can hold"
            ) from None
    hint = ": of a tensor or array return .item()" if hasattr(value, "item") else ""
    raise FitnessError(
        f"the fitness function must return a number for {name!r}, got {value!r}"
        f" ({type(value).__name__}){hint}"
    )


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, Real)  # numpy's scalars too


def _metric(name: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, (list, tuple)):
        return [_metric(name, entry) for entry in value]
    if isinstance(value, Mapping):
        return {str(key): _metric(name, entry) for key, entry in value.items()}
    hint = "; for a tensor or array: .item() or .tolist()" if hasattr(value, "item") else ""
    raise FitnessError(
        f"the fitness function returned {type(value).__name__} for the metric {name!r}, expected a"
        f" JSON value (numbers, strings, lists, dicts){hint}"
    )


def _expected(objectives: Sequence[Objective]) -> str:
    names = ", ".join(objective.name for objective in objectives)
    return f"a number ({names})" if len(objectives) == 1 else f"{len(objectives)} values ({names})"


def _quoted(names: Any) -> str:
    return ", ".join(repr(name) for name in names) or "nothing"
