"""What is maximised or minimised, and the limits that come before it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal

from evonas.arguments import check_choice, check_list
from evonas.exceptions import FitnessError
from evonas.records import Evaluation, Status, as_metric

__all__ = ["Limits", "Objective", "as_objectives", "divergence", "fitness_values"]

Direction = Literal["max", "min"]

_LARGEST = 1e100  # of a fitness: the squares of larger ones, in means and models, overflow

_DIRECTIONS: dict[str, Direction] = {
    "maximize": "max", "maximise": "max", "minimize": "min", "minimise": "min",
}  # fmt: skip


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
        direction = self.direction
        if isinstance(direction, str):  # as other libraries say it
            direction = _DIRECTIONS.get(direction, direction)
        check_choice(f"objective {self.name!r}: direction", direction, ("max", "min"))
        object.__setattr__(self, "direction", direction)

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
    if isinstance(objectives, Objective):
        return (objectives,)
    found = tuple(check_list("objectives", objectives, "Objective(name, direction)"))
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


def divergence(values: Sequence[float]) -> str | None:
    """Returns why values are no fitness: NaN, infinite, or too large; None: they are one."""
    if all(-_LARGEST <= value <= _LARGEST for value in values):  # not so of NaN
        return None
    shown = values[0] if len(values) == 1 else tuple(values)
    is_large = all(map(math.isfinite, values))
    return f"the fitness is {shown}" + (f", beyond {_LARGEST:g}" if is_large else "")


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
    try:
        return as_metric(name, value)
    except (TypeError, ValueError) as error:
        raise FitnessError(f"the fitness function returned what is no record: {error}") from None


def _expected(objectives: Sequence[Objective]) -> str:
    names = ", ".join(objective.name for objective in objectives)
    return f"a number ({names})" if len(objectives) == 1 else f"{len(objectives)} values ({names})"


def _quoted(names: Any) -> str:
    return ", ".join(repr(name) for name in names) or "nothing"


@dataclass(frozen=True, slots=True)
class Limits:
    """What evaluations must keep to, as a strategy was told and its run's settings keep it.

    Args:
        at_most: Name of an objective or recorded metric to its largest allowed value.
        at_least: The same for smallest allowed values.
        tie_breaker: A recorded metric of which less is better among equals.

    Example:
        >>> from evonas.records import Status
        >>> small = Evaluation(0, "", {}, Status.OK, (0.8,), {"params": 900})
        >>> large = Evaluation(1, "", {}, Status.OK, (0.9,), {"params": 1500})
        >>> limits = Limits(at_most={"params": 1000})
        >>> [limits.excess(entry, [Objective("accuracy")]) for entry in (small, large)]
        [0.0, 0.5]
    """

    at_most: Mapping[str, float] = field(default_factory=dict)
    at_least: Mapping[str, float] = field(default_factory=dict)
    tie_breaker: str | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Limits:
        """Returns the limits in the settings of a strategy; most have none."""
        return cls(settings.get("at_most") or {}, settings.get("at_least") or {})

    def __bool__(self) -> bool:
        return bool(self.at_most or self.at_least)

    @property
    def words(self) -> str:
        """What they say, for people: `accuracy ≥ 0.5, params ≤ 40,000`."""
        told = [(name, "≥", limit) for name, limit in self.at_least.items()]
        told += [(name, "≤", limit) for name, limit in self.at_most.items()]
        return ", ".join(f"{name} {sign} {limit:,.10g}" for name, sign, limit in told)

    def unmet(self, best: Evaluation | None, objectives: Sequence[Objective]) -> str:
        """Returns the sentence that no evaluation is within them; empty where one is.

        Args:
            best: The best `ok` evaluation by `rank`. None: there is none, of which nothing is said.
            objectives: Of the search.
        """
        if best is None or self.excess(best, objectives) == 0.0:
            return ""
        return f"no evaluation is within the limits ({self.words})"

    def excess(self, evaluation: Evaluation, objectives: Sequence[Objective]) -> float:
        """Returns how far an `ok` evaluation is out: the sum of relative excesses; 0.0: it is not.

        Infinite where what is limited is not on record.
        """
        if not self:  # as in most runs, for each of their evaluations
            return 0.0
        known = _known(evaluation, objectives)
        total = 0.0
        for limits, sign in ((self.at_most, 1.0), (self.at_least, -1.0)):
            for name, limit in limits.items():
                value = known.get(name, math.nan)
                if not _is_limitable(value):
                    return math.inf
                total += max(0.0, sign * (value - limit)) / (abs(limit) or 1.0)
        return total

    def allow(self, evaluation: Evaluation, objectives: Sequence[Objective]) -> bool:
        """Whether an evaluation has a fitness and is within the limits."""
        return evaluation.status is Status.OK and self.excess(evaluation, objectives) == 0.0

    def check(self, evaluation: Evaluation, objectives: Sequence[Objective]) -> None:
        """Refuses limits on what is not on record.

        Raises:
            FitnessError: A limit names neither an objective nor a number on record.
        """
        known = _known(evaluation, objectives)
        for name in (*self.at_most, *self.at_least):
            if not _is_limitable(known.get(name)):
                raise FitnessError(
                    f"the limit on {name!r} names no number that the fitness function returns "
                    f"or records; it has: {', '.join(known)}"
                )

    def ranked(
        self, evaluations: Iterable[Evaluation], objectives: Sequence[Objective]
    ) -> list[Evaluation]:
        """Returns those within the limits, best first.

        The first objective counts, the next one among equals; then the earliest. Where none is
        within the limits: all, the smallest violations first.
        """
        ranked = sorted(evaluations, key=lambda entry: self.rank(entry, objectives))
        if ranked and self.excess(ranked[0], objectives) == 0.0:
            return [entry for entry in ranked if self.excess(entry, objectives) == 0.0]
        return ranked

    def rank(self, evaluation: Evaluation, objectives: Sequence[Objective]) -> tuple[float, ...]:
        """Returns what is smaller for the better one of two `ok` evaluations, never equal."""
        values = zip(objectives, evaluation.values, strict=False)
        costs = (-objective.weight * value for objective, value in values)
        tie = self.tie_rank(evaluation)
        return (self.excess(evaluation, objectives), *costs, tie, evaluation.number)

    def tie_rank(self, evaluation: Evaluation) -> float:
        """Returns what is smaller for the better one of two that are equal in the objectives."""
        if self.tie_breaker is None:
            return 0.0
        value = evaluation.metrics.get(self.tie_breaker)
        return float(value) if isinstance(value, (int, float)) else math.inf

    def nearest(
        self, evaluations: Iterable[Evaluation], objectives: Sequence[Objective]
    ) -> list[Evaluation]:
        """Returns those within the limits; if none is, those with the smallest violation."""
        entries = [(self.excess(entry, objectives), entry) for entry in evaluations]
        least = min((excess for excess, _ in entries), default=0.0)
        return [entry for excess, entry in entries if excess == least]


def _known(evaluation: Evaluation, objectives: Sequence[Objective]) -> dict[str, Any]:
    names = (objective.name for objective in objectives)
    return {**evaluation.metrics, **dict(zip(names, evaluation.values, strict=True))}


def _is_limitable(value: Any) -> bool:
    return isinstance(value, (int, float)) and not math.isnan(value)
