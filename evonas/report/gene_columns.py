"""The genes of many evaluations as columns: values, groups of equal values, importance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evonas.records import Evaluation, Status
from evonas.report.style import shown, thinned

if TYPE_CHECKING:
    from evonas.run.result import Result

__all__ = [
    "INACTIVE",
    "Column",
    "Groups",
    "Window",
    "column",
    "gene_names",
    "importances",
    "ok_evaluations",
    "window_title",
    "windows",
]

_N_BINS = 5
_MAX_GROUPS = 8
INACTIVE = "inactive"


@dataclass(frozen=True)
class Groups:
    """Evaluations grouped by the value of a gene.

    Attributes:
        labels: Of each group.
        codes: The group (n,) of each evaluation.
    """

    labels: tuple[str, ...]
    codes: NDArray[np.int64]


@dataclass(frozen=True)
class Column:
    """One gene over evaluations.

    Attributes:
        name: The gene's.
        spec: The gene as the run's settings describe it.
        active: Whether each evaluation has the gene (n,).
        values: Its value in each that has.
    """

    name: str
    spec: Mapping[str, Any]
    active: NDArray[np.bool_]
    values: tuple[Any, ...]

    @property
    def log(self) -> bool:
        """Whether the gene is searched on a logarithmic scale."""
        return bool(self.spec.get("log"))

    @property
    def is_continuous(self) -> bool:
        """Whether the gene is a number with too many values for a group each."""
        if self.spec.get("type") == "float":
            return True
        return self.spec.get("type") == "integer" and self._n_steps() > _MAX_GROUPS

    def numbers(self) -> NDArray[np.float64]:
        """Returns the values of a number."""
        return np.array(self.values, dtype=np.float64)

    def positions(self) -> tuple[NDArray[np.float64], list[tuple[float, str]]]:
        """Returns places in [0, 1], one for each value, and ticks (place, label)."""
        if self.is_continuous:
            low, high = self._bounds()
            scaled = self._scale(self.numbers())
            width = max(float(high - low), 1e-300)
            ends = [(0.0, shown(self.spec["low"])), (1.0, shown(self.spec["high"]))]
            return np.clip((scaled - low) / width, 0.0, 1.0), ends
        groups = self._by_value(most=10**9)
        last = max(1, len(groups.labels) - 1)
        ticks = [(place / last, label) for place, label in enumerate(groups.labels)]
        places = groups.codes[self.active] / last
        return places, [ticks[place] for place in thinned(len(ticks), 8)]

    def groups(self) -> Groups:
        """Returns groups of equal values, of a continuous number five bins of equal width."""
        return self._in_bins() if self.is_continuous else self._by_value(_MAX_GROUPS)

    def _in_bins(self) -> Groups:
        low, high = self._bounds()
        scaled = self._scale(self.numbers())
        edges = np.linspace(low, high, _N_BINS + 1)
        codes = np.searchsorted(edges[1:-1], scaled, side="right")
        ends = [math.exp(edge) if self.log else float(edge) for edge in edges]
        labels = [f"{a:.3g} – {b:.3g}" for a, b in pairwise(ends)]
        if self.spec["type"] == "integer":
            whole = [math.ceil(round(end, 6)) for end in ends]
            labels = [f"{a} – {b - 1}" for a, b in pairwise([*whole[:-1], whole[-1] + 1])]
        return self._with_inactive(labels, codes)

    def _by_value(self, most: int) -> Groups:
        labels = [shown(value) for value in self.values]
        counted: dict[str, int] = dict.fromkeys(self._all_labels(), 0)
        for label in labels:
            counted[label] = counted.get(label, 0) + 1
        kept = set(sorted(counted, key=lambda label: -counted[label])[:most])
        names = [label for label in counted if label in kept]
        place = {label: index for index, label in enumerate(names)}
        codes = np.array([place.get(label, len(names)) for label in labels], dtype=np.int64)
        others = ["others"] if len(kept) < len(counted) else []
        return self._with_inactive([*names, *others], codes)

    def _with_inactive(self, labels: Sequence[str], codes: NDArray[Any]) -> Groups:
        if self.active.all():
            return Groups(tuple(labels), codes.astype(np.int64))
        everywhere = np.full(len(self.active), len(labels), dtype=np.int64)
        everywhere[self.active] = codes
        return Groups((*labels, INACTIVE), everywhere)

    def _all_labels(self) -> list[str]:
        kind = self.spec.get("type")
        if kind == "boolean":
            return [shown(False), shown(True)]
        if kind == "integer":
            return [shown(self.spec["low"] + i * self.spec["step"]) for i in range(self._n_steps())]
        return [shown(choice) for choice in self.spec.get("choices", ())]

    def _n_steps(self) -> int:
        low, high, step = (int(self.spec[key]) for key in ("low", "high", "step"))
        return (high - low) // step + 1

    def _bounds(self) -> tuple[float, float]:
        low, high = self._scale(np.array([self.spec["low"], self.spec["high"]], dtype=np.float64))
        return float(low), float(high)

    def _scale(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.log(values) if self.log else values


def gene_names(result: Result) -> list[str]:
    """Returns the names of the run's genes, in the order of its space."""
    return result.record.gene_names


def column(result: Result, gene: str, evaluations: Sequence[Evaluation]) -> Column:
    """Returns one gene of evaluations.

    Raises:
        ValueError: The run's space has no such gene.
    """
    for spec in result.record.gene_specs:
        if spec["name"] == gene:
            active = np.array([gene in entry.genes for entry in evaluations], dtype=np.bool_)
            values = tuple(entry.genes[gene] for entry in evaluations if gene in entry.genes)
            return Column(gene, spec, active, values)
    raise ValueError(f"no gene {gene!r}: the genes are {', '.join(gene_names(result))}")


def ok_evaluations(result: Result) -> list[Evaluation]:
    """Returns the evaluations that have a fitness."""
    return [entry for entry in result.evaluations if entry.status is Status.OK]


def importances(result: Result) -> dict[str, float]:
    """Returns each gene's share in the first objective, with all that it does together with others.

    See `Result.importance`; all 0, in the order of the space, where it can say nothing.
    """
    try:
        return result.importance().total
    except ValueError:  # too few evaluations, or a gene of a class that is not at hand
        return dict.fromkeys(gene_names(result), 0.0)


@dataclass(frozen=True)
class Window:
    """A stretch of the search: a generation, or several, or some proposals in a row.

    Attributes:
        label: What it is.
        evaluations: The individuals proposed in it; one proposed twice is there twice.
    """

    label: str
    evaluations: tuple[Evaluation, ...]


def window_title(result: Result) -> str:
    """Returns what the stretches of `windows` are."""
    several = len({plan.generation for plan in result.proposals}) > 1
    return "generation" if several else "tenth of the search"


def windows(result: Result, *, most: int = 30) -> list[Window]:
    """Returns the search in stretches, at most `most`: generations where there are several.

    Elite individuals that only live on are not counted: what is shown is what was proposed.
    """
    known = {entry.number: entry for entry in result.evaluations}
    proposed = [plan for plan in result.proposals if plan.evaluation in known]
    numbers = sorted({plan.generation for plan in proposed})
    if len(numbers) > 1:
        places = {number: place for place, number in enumerate(numbers)}
        at = np.array([places[plan.generation] for plan in proposed])
        names = [str(number) for number in numbers]
    else:
        at = np.arange(len(proposed)) // max(1, math.ceil(len(proposed) / 10))
        names = [str(part + 1) for part in range(int(at.max()) + 1 if len(at) else 0)]
    size = max(1, math.ceil(len(names) / most))
    found = []
    for start in range(0, len(names), size):
        part = names[start : start + size]
        label = part[0] if len(part) == 1 else f"{part[0]}–{part[-1]}"
        chosen = np.flatnonzero((at >= start) & (at < start + size))
        found.append(Window(label, tuple(known[proposed[i].evaluation] for i in chosen)))
    return found
