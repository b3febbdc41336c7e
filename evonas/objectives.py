"""What is maximised or minimised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Objective", "as_objectives"]

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
        if not isinstance(self.name, str) or not self.name:
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
                f"objectives must be Objective(name, direction), got {entry!r} ({type(entry).__name__})"
            )
    names = [entry.name for entry in found]
    if len(set(names)) != len(names):
        raise ValueError(f"two objectives have the same name: {', '.join(names)}")
    return found
