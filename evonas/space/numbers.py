"""Genes that are numbers: whole ones on a grid, real ones in an interval."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Integral, Real
from random import Random
from typing import Any

import numpy as np

from evonas.space.gene import DEFAULT_SIGMA, Gene

__all__ = ["Float", "Integer"]

FLOAT_STEP = 0.05  # of a Float's (log) range: the distance of its neighbours
_LARGEST_INTEGER = 2**53  # beyond it a float, and so a feature, no longer tells integers apart


class _Number(Gene):
    """What `Integer` and `Float` share: a scale from 0 (low) to 1 (high), linear or logarithmic."""

    low: Any
    high: Any

    @abstractmethod
    def _scaled(self, value: Any) -> float: ...

    @abstractmethod
    def _unscaled(self, position: float) -> Any: ...

    @property
    def first(self) -> Any:
        """The lowest value."""
        return self.low

    @property
    def n_features(self) -> int:
        """One."""
        return 1

    def encode(self, value: Any) -> list[float]:
        """Returns the place of the value between low (0) and high (1), on the (log) scale."""
        return [self._scaled(value)]

    def decode(self, features: Sequence[float]) -> Any:
        """Returns the value at a place between 0 and 1; places beyond are clipped."""
        return self._unscaled(features[0])

    def blend(self, a: Any, b: Any, rng: Random, alpha: float = 0.5) -> tuple[Any, Any]:
        """Returns two values drawn around a and b on the (log) scale, clipped into the bounds.

        Source: BLX-alpha (Eshelman and Schaffer 1993) as in DEAP's `cxBlend`: one draw for both
        children, which mirror each other.
        """
        weight = (1.0 + 2.0 * alpha) * rng.random() - alpha
        x, y = self._scaled(a), self._scaled(b)
        return (
            self._unscaled((1.0 - weight) * x + weight * y),
            self._unscaled(weight * x + (1.0 - weight) * y),
        )


@dataclass(frozen=True, repr=False)
class Integer(_Number):
    """A whole number from `low` to `high`, in steps.

    Neighbours: one step down, one step up. Features: one, the place between low and high.

    Args:
        low: Lowest value.
        high: Highest value; where it is not a whole number of steps above `low`, the last step
            below it is the highest.
        step: Distance of two values.
        log: Whether small values are told apart more finely: a value v is drawn in proportion to
            log((v + step) / v), and mutation moves by factors.

    Raises:
        ValueError: low > high, step < 1, `log` with low < 1, or a bound beyond 2**53.
        TypeError: A bound or the step is not a whole number.

    Example:
        >>> list(Integer(16, 64, step=16).all_values())
        [16, 32, 48, 64]
    """

    low: int
    high: int
    step: int = field(default=1, kw_only=True)
    log: bool = field(default=False, kw_only=True)
    _n: int = field(init=False, compare=False)
    _last: int = field(init=False, compare=False)
    _log_range: float = field(init=False, compare=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name in ("low", "high", "step"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise TypeError(f"Integer: {name} must be a whole number, got {value!r}")
            put(self, name, int(value))
        _check_flag("Integer", self.log)
        if self.low > self.high:
            raise ValueError(f"Integer: low must not exceed high, got {self.low} > {self.high}")
        if self.step < 1:
            raise ValueError(f"Integer: step must be at least 1, got {self.step}")
        if self.log and self.low < 1:
            raise ValueError(f"Integer: log=True needs low >= 1, got low={self.low}")
        if max(abs(self.low), abs(self.high)) > _LARGEST_INTEGER:
            raise ValueError(
                f"Integer: low and high must lie within ±2**53, got {self.low} and {self.high}"
            )
        put(self, "_n", (self.high - self.low) // self.step + 1)
        put(self, "_last", self.low + (self._n - 1) * self.step)
        put(self, "_log_range", math.log(self._last / self.low) if self.log else 0.0)

    @property
    def cardinality(self) -> int:
        """How many values there are."""
        return self._n

    def sample(self, rng: Random) -> int:
        """Returns a value, uniform, or with `log` in proportion to log((v + step) / v)."""
        if not self.log:
            return self.low + self.step * int(rng.random() * self._n)
        # The grid point below a log-uniform number in [low, last + step).
        span = math.log((self._last + self.step) / self.low)
        value = self.low * math.exp(rng.random() * span)
        return self._at(int((value - self.low) / self.step))

    def mutate(self, value: Any, rng: Random, sigma: float = DEFAULT_SIGMA) -> int:
        """Returns the value after a Gaussian step on the (log) scale, reflected at the bounds.

        Where that rounds to the same value: the next one in the step's direction.
        """
        move = rng.gauss(0.0, sigma)
        found = self._unscaled(_reflected(self._scaled(value) + move))
        if found != value or self._n == 1:
            return found
        found = value + self.step if move >= 0.0 else value - self.step
        if found > self._last:
            return int(value) - self.step
        return int(value) + self.step if found < self.low else int(found)

    def validate(self, name: str, value: Any) -> int:
        """Returns the value as an int; a float without a fraction counts as whole."""
        expected = f"gene {name!r} must be a whole number from {self!r}"
        number = _number(expected, value)
        try:
            whole = int(number)
        except (OverflowError, ValueError):  # infinities and NaN
            raise ValueError(f"{expected}, got {value!r}") from None
        if whole != number:
            raise ValueError(f"{expected}, got {value!r}")
        if not self.low <= whole <= self._last or (whole - self.low) % self.step:
            raise ValueError(f"{expected}, got {whole!r}")
        return whole

    def neighbours(self, value: Any) -> Iterator[int]:
        """Yields the values one step down and one step up, where there are such."""
        nearest = (int(value) - self.step, int(value) + self.step)
        return (near for near in nearest if self.low <= near <= self._last)

    def all_values(self) -> Iterator[int]:
        """Yields every value from low to high."""
        return iter(range(self.low, self._last + 1, self.step))

    def to_json(self) -> dict[str, Any]:
        """Returns type, bounds, step and log."""
        return {
            "type": "integer",
            "low": self.low,
            "high": self.high,
            "step": self.step,
            "log": self.log,
        }

    def __repr__(self) -> str:
        step = f", step={self.step}" if self.step != 1 else ""
        return f"Integer({self.low}, {self.high}{step}{', log=True' if self.log else ''})"

    def _at(self, index: int) -> int:
        return self.low + self.step * min(max(index, 0), self._n - 1)

    def _scaled(self, value: Any) -> float:
        if self._n == 1:
            return 0.0
        if self.log:
            return math.log(value / self.low) / self._log_range
        return (value - self.low) / (self._last - self.low)  # type: ignore[no-any-return]

    def _unscaled(self, position: float) -> int:
        clipped = min(max(position, 0.0), 1.0)
        if not self.log:
            return self._at(round(clipped * (self._n - 1)))
        value = self.low * math.exp(clipped * self._log_range)
        return self._at(round((value - self.low) / self.step))


@dataclass(frozen=True, repr=False)
class Float(_Number):
    """A real number from `low` to `high`, both included, or one of a grid between them.

    Neighbours: 0.05 of the (log) range down and up, ending at the bounds; with a step, the values
    a step away. Features: one, the place between low and high.

    Args:
        low: Lowest value.
        high: Highest value.
        log: Whether the scale is logarithmic.
        step: Distance of two values, as decimals: `Float(0, 1, step=0.1)` has 0.3, not
            0.30000000000000004. Where `high` is not a whole number of steps above `low`, the last
            step below it is the highest. None: any value.

    Raises:
        ValueError: low > high, a bound is not finite, `log` with low <= 0 or with a step, or a
            step that is not above 0.
        TypeError: A bound is not a number.

    Example:
        >>> Float(0.001, 0.1, log=True).validate("lr", 0.01)
        0.01
    """

    low: float
    high: float
    log: bool = False
    step: float | None = field(default=None, kw_only=True)
    _grid: Integer | None = field(init=False, compare=False)
    _from: float = field(init=False, compare=False)
    _range: float = field(init=False, compare=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name in ("low", "high"):
            value = getattr(self, name)
            if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
                raise TypeError(f"Float: {name} must be a number, got {value!r}")
            if not math.isfinite(value):
                raise ValueError(f"Float: {name} must be finite, got {value!r}")
            put(self, name, float(value) + 0.0)  # -0.0 has another JSON text than 0.0
        given: object = self.log
        if isinstance(given, str) and given == "log":  # Float(1e-4, 1e-1, "log")
            put(self, "log", True)
        _check_flag("Float", self.log)
        if self.low > self.high:
            raise ValueError(f"Float: low must not exceed high, got {self.low} > {self.high}")
        if self.log and self.low <= 0.0:
            raise ValueError(f"Float: log=True needs low > 0, got low={self.low}")
        put(self, "_grid", None)
        if self.step is not None:
            self._set_grid()
        put(self, "_from", math.log(self.low) if self.log else self.low)
        put(self, "_range", (math.log(self.high) if self.log else self.high) - self._from)
        if not math.isfinite(self._range):
            raise ValueError(f"Float: high - low must be finite, got {self.low} to {self.high}")

    def _set_grid(self) -> None:
        step: Any = self.step
        if isinstance(step, bool) or not isinstance(step, Real):
            raise TypeError(f"Float: step must be a number, got {step!r}")
        if not (math.isfinite(step) and float(step) > 0):
            raise ValueError(f"Float: step must be above 0, got {step!r}")
        if self.log:
            raise ValueError("Float: log=True has no steps; give the values, as a list")
        put = object.__setattr__
        put(self, "step", float(step))
        n_steps = int((_decimal(self.high) - _decimal(self.low)) / _decimal(step))
        put(self, "_grid", Integer(0, n_steps))
        put(self, "high", self._at(n_steps))

    def _at(self, index: int) -> float:
        return float(_decimal(self.low) + index * _decimal(self.step)) + 0.0

    def _index(self, value: Any) -> int:
        return round((float(value) - self.low) / self.step) if self.step else 0

    @property
    def cardinality(self) -> int | float:
        """Infinite; with a step, or where low equals high, how many values there are."""
        if self._grid is not None:
            return self._grid.cardinality
        return 1 if self.low == self.high else math.inf

    def sample(self, rng: Random) -> float:
        """Returns a value, uniform or log-uniform."""
        if self._grid is not None:
            return self._at(self._grid.sample(rng))
        return self._unscaled(rng.random())

    def mutate(self, value: Any, rng: Random, sigma: float = DEFAULT_SIGMA) -> float:
        """Returns the value after a Gaussian step on the (log) scale, reflected at the bounds."""
        if self._grid is not None:
            return self._at(self._grid.mutate(self._index(value), rng, sigma))
        if self.low == self.high:
            return self.low
        found = self._unscaled(_reflected(self._scaled(value) + rng.gauss(0.0, sigma)))
        if found != value:
            return found
        # The step was lost in rounding (sigma 0, or bounds a few floats apart).
        found = math.nextafter(value, self.high if value < self.high else self.low)
        return found + 0.0

    def validate(self, name: str, value: Any) -> float:
        """Returns the value as a float; whole numbers count as floats."""
        expected = f"gene {name!r} must be a number from {self!r}"
        number = _number(expected, value)
        if not self.low <= number <= self.high:  # refuses NaN too
            raise ValueError(f"{expected}, got {value!r}")
        if self._grid is not None:
            near = self._at(self._index(number))
            if not math.isclose(number, near, rel_tol=1e-9, abs_tol=1e-9 * (self.step or 0.0)):
                raise ValueError(f"{expected}, got {value!r}")
            return near
        return float(number) + 0.0

    def neighbours(self, value: Any) -> Iterator[float]:
        """Yields the values 0.05 of the (log) range, or a step, below and above."""
        if self._grid is not None:
            return map(self._at, self._grid.neighbours(self._index(value)))
        place = self._scaled(value)
        found = (self._unscaled(place + move) for move in (-FLOAT_STEP, FLOAT_STEP))
        return (near for near in found if near != value)

    def all_values(self) -> Iterator[float]:
        """Yields every value from low to high, where there is a step or low equals high."""
        if self._grid is not None:
            return map(self._at, self._grid.all_values())
        if self.low != self.high:
            raise ValueError(f"{self!r} has infinitely many values: they cannot be enumerated")
        return iter((self.low,))

    def to_json(self) -> dict[str, Any]:
        """Returns type, bounds and log, and the step where there is one."""
        data = {"type": "float", "low": self.low, "high": self.high, "log": self.log}
        return data if self.step is None else {**data, "step": self.step}

    def __repr__(self) -> str:
        step = "" if self.step is None else f", step={self.step}"
        return f"Float({self.low}, {self.high}{', log=True' if self.log else ''}{step})"

    def _scaled(self, value: Any) -> float:
        if self._range == 0.0:
            return 0.0
        return ((math.log(value) if self.log else float(value)) - self._from) / self._range

    def _unscaled(self, position: float) -> float:
        if self._grid is not None:
            return self._at(self._grid.decode([position]))
        if position <= 0.0:
            return self.low
        if position >= 1.0:
            return self.high
        value = self._from + position * self._range
        return min(max(math.exp(value) if self.log else value, self.low), self.high) + 0.0


def _decimal(value: Any) -> Decimal:
    return Decimal(repr(float(value)))


def _number(expected: str, value: Any) -> Any:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{expected}, got {value!r} ({type(value).__name__})")
    return value


def _check_flag(kind: str, log: object) -> None:
    if not isinstance(log, bool):
        raise TypeError(f"{kind}: log must be True or False, got {log!r}")


def _reflected(position: float) -> float:
    """Returns a place folded back into [0, 1] at its ends, however far out it is."""
    folded = abs(position) % 2.0
    return 2.0 - folded if folded > 1.0 else folded
