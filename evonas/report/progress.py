"""How the search went: by evaluation, by generation, and epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evonas.exceptions import EvonasError
from evonas.objectives import Objective
from evonas.records import Evaluation, Status
from evonas.report.style import (
    BEST,
    CLASS_COLOURS,
    GREY,
    LEGEND,
    MAIN,
    as_number,
    bounded_range,
    graph_objects,
    new_figure,
    safe,
    thinned,
    whole_ticks,
)
from evonas.run.store import RunRecord

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = [
    "Searched",
    "curve_metrics",
    "generations",
    "learning_curves",
    "progress",
    "require_fitness",
]

_MAX_POINTS = 2_000
_MAX_CURVES = 300
_MAX_EPOCHS = 200
CLASSES = ("best tenth", "next 15 %", "next quarter", "the rest")
_CLASS_ENDS = (0.1, 0.25, 0.5)


class Searched(Protocol):
    """What the main figures need of a `Result`, which stands above them: see docs/design.md."""

    record: RunRecord
    objectives: tuple[Objective, ...]
    logbook: Any

    @property
    def champion(self) -> Evaluation:
        """The best evaluation."""

    @property
    def hall_of_fame(self) -> list[Evaluation]:
        """The best evaluations, best first."""

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """Every evaluation, in ask order."""


def require_fitness(result: Searched) -> None:
    """Refuses a run in which nothing has a fitness yet.

    Raises:
        EvonasError: That is so.
    """
    if not result.hall_of_fame:
        raise EvonasError(
            "no evaluation of this run has a fitness: there is nothing to draw yet "
            "(`result.counts` and `failures(result)` say what became of them)"
        )


def progress(result: Searched, *, objective: int = 0, most: int = _MAX_POINTS) -> Figure:
    """Returns fitness by evaluation with the best so far: the main figure of a run.

    Args:
        result: Of the run.
        objective: Which one, from 0.
        most: Points drawn; of more, an even selection (the best so far is always whole).

    Raises:
        EvonasError: No evaluation has a fitness.
    """
    require_fitness(result)
    go = graph_objects()
    chosen = result.objectives[objective]
    ok = [entry for entry in result.evaluations if entry.status is Status.OK]
    numbers = np.array([entry.number for entry in ok])
    values = np.array([entry.values[objective] for entry in ok], dtype=np.float64)
    keep = thinned(len(ok), most)
    name = safe(chosen.name)
    hover = f"evaluation %{{x}}<br>{name} %{{y:.5g}}<extra></extra>"
    traces = [
        go.Scatter(
            x=numbers[part], y=values[part], mode="markers", name=label, hovertemplate=hover,
            marker={"size": 6 if len(keep) < 500 else 4, "opacity": 0.6, **look},
        )
        for label, part, look in _by_origin(result, numbers, keep)
    ]  # fmt: skip
    best = best_so_far(result, ok, values * chosen.weight) * chosen.weight
    steps = steps_of(best)
    if len(steps):  # within the limits, where there are some
        traces.append(
            go.Scatter(
                x=numbers[steps], y=best[steps], mode="lines", name="best so far",
                line={"shape": "hv", "color": BEST, "width": 2.5}, hovertemplate=hover,
            )
        )  # fmt: skip
    return new_figure(
        f"{chosen.name} by evaluation",
        traces,
        xaxis={"title": "evaluation, in ask order"},
        yaxis={"title": name, "range": bounded_range(values)},
    )


def best_so_far(
    result: Searched, ok: Sequence[Evaluation], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the largest value so far within the limits, -inf before the first that is."""
    limits = result.record.limits
    within = np.array([limits.allow(entry, result.objectives) for entry in ok])
    return np.asarray(np.maximum.accumulate(np.where(within, values, -np.inf)))


def steps_of(best: NDArray[np.float64]) -> NDArray[np.intp]:
    """Returns the places at which the best so far changes, and the last one; none without one."""
    steps = np.flatnonzero(np.r_[True, best[1:] != best[:-1]] & np.isfinite(best))
    return np.unique(np.r_[steps, len(best) - 1]) if len(steps) else steps


def _by_origin(
    result: Searched, numbers: NDArray[Any], keep: NDArray[np.int64]
) -> list[tuple[str, NDArray[np.int64], dict[str, Any]]]:
    """Returns label, places and look of the run's own points and of those of earlier runs."""
    n_copied = result.record.n_copied
    note = "" if len(keep) == len(numbers) else f" ({len(keep):,} of {len(numbers):,} shown)"
    own, copied = keep[numbers[keep] >= n_copied], keep[numbers[keep] < n_copied]
    parts = [(f"one evaluation{note}", own, {"color": MAIN})]
    if len(copied):
        parts.append(("of an earlier run", copied, {"color": GREY, "symbol": "diamond"}))
    return parts


def generations(result: Searched) -> Figure:
    """Returns best, mean, spread and worst of each generation (of each row of the logbook).

    The best so far is a line of its own: a generation's best may be worse.

    Raises:
        ValueError: The logbook has no row yet.
    """
    if not result.logbook:
        raise ValueError("the logbook has no row yet: the first generation is not closed")
    go = graph_objects()
    rows = [dict(row) for row in result.logbook]
    rows = [rows[place] for place in thinned(len(rows), _MAX_POINTS)]
    name = safe(result.objectives[0].name)
    x = np.array([row.get("gen", place) for place, row in enumerate(rows)])
    of = {key: _column(rows, key) for key in ("best", "mean", "std", "min", "max")}
    own_best, worst = of["max"], of["min"]
    if result.objectives[0].direction == "min":
        own_best, worst = worst, own_best
    lines: list[tuple[str, NDArray[np.float64], dict[str, Any]]] = [
        ("worst", worst, {"color": GREY, "width": 1, "dash": "dot"}),
        ("mean", of["mean"], {"color": MAIN, "width": 2}),
        ("best", own_best, {"color": BEST, "width": 2.5}),
        ("best so far", of["best"], {"color": BEST, "width": 1, "dash": "dash"}),
    ]
    drawn = np.isfinite(of["mean"] + of["std"])
    # No wider than what there was: an accuracy above 1 would be no accuracy.
    around = [
        np.fmin(of["mean"] + of["std"], of["max"]),
        np.fmax(of["mean"] - of["std"], of["min"]),
    ]
    traces = [
        go.Scatter(
            x=np.r_[x[drawn], x[drawn][::-1]], y=np.r_[around[0][drawn], around[1][drawn][::-1]],
            fill="toself", fillcolor="rgba(43,108,176,0.15)", line={"width": 0}, mode="lines",
            name="mean ± standard deviation", hoverinfo="skip",
        )
    ]  # fmt: skip
    mode = "lines+markers" if len(rows) <= 60 else "lines"
    traces += [
        go.Scatter(
            x=x, y=y, mode=mode, name=label, line=line, marker={"size": 5},
            hovertemplate=f"generation %{{x}}<br>{label} %{{y:.5g}}<extra></extra>",
        )
        for label, y, line in lines
    ]  # fmt: skip
    together = np.concatenate([of["best"], own_best, of["mean"], worst])
    return new_figure(
        f"{result.objectives[0].name} by generation",
        traces,
        xaxis={"title": "generation", "tickformat": "d", **whole_ticks(len(rows))},
        yaxis={"title": name, "range": bounded_range(together)},
    )


def _column(rows: Sequence[dict[str, Any]], key: str) -> NDArray[np.float64]:
    return np.array([as_number(row.get(key)) for row in rows], dtype=np.float64)


def curve_metrics(result: Searched) -> list[str]:
    """Returns the names of the metrics reported per epoch, the objective's first, then losses."""
    names: dict[str, None] = {}
    for place in thinned(len(result.evaluations), 50):
        for epoch in result.evaluations[place].epochs:
            names |= dict.fromkeys(epoch.metrics)
    wanted = [objective.name for objective in result.objectives]
    return sorted(names, key=lambda name: (name not in wanted, "loss" not in name))


def learning_curves(
    result: Searched, metric: str | None = None, *, most: int = _MAX_CURVES
) -> Figure:
    """Returns the learning curve of every evaluation, the champion's marked.

    Args:
        result: Of the run.
        metric: What was reported per epoch; None: the first of `curve_metrics`.
        most: Curves drawn; of more, an even selection, the best among them.

    Raises:
        ValueError: No evaluation reported this metric.
    """
    names = curve_metrics(result)
    metric = names[0] if metric is None and names else metric
    found = [
        (entry, epochs, curve)
        for entry in result.evaluations
        for epochs, curve in [_curve(entry, metric)]
        if np.isfinite(curve).any()
    ]
    if not found or metric is None:
        raise ValueError(
            f"no evaluation reported {metric!r} per epoch; reported were: {', '.join(names) or '-'}"
        )
    champion = result.champion if result.hall_of_fame else None
    kept = [found[place] for place in thinned(len(found), most)]
    classes = fitness_classes(result, [entry for entry, _, _ in kept])
    go = graph_objects()
    traces = []
    for place in reversed(range(len(CLASSES))):
        group = [kept[index] for index in np.flatnonzero(classes == place)]
        if group:
            traces.append(_curves_trace(CLASSES[place], CLASS_COLOURS[place], group))
    for entry, epochs, curve in found:
        if champion is not None and entry.number == champion.number:
            traces.append(
                go.Scatter(
                    x=epochs, y=curve, mode="lines+markers", name=f"champion ({entry.number})",
                    line={"color": BEST, "width": 3}, marker={"size": 5},
                    hovertemplate="champion, epoch %{x}: %{y:.5g}<extra></extra>",
                )
            )  # fmt: skip
    note = "" if len(kept) == len(found) else f" ({len(kept):,} of {len(found):,} shown)"
    everything = np.concatenate([curve for _, _, curve in kept])
    lengths = [epochs for _, epochs, _ in kept]
    return new_figure(
        f"{metric} by epoch{note}",
        traces,
        legend={**LEGEND, "traceorder": "reversed"},
        xaxis={"title": "epoch", **whole_ticks(int(np.nanmax(np.concatenate(lengths))))},
        yaxis={"title": safe(metric), "range": bounded_range(everything)},
    )


def _curve(entry: Evaluation, metric: str | None) -> tuple[NDArray[Any], NDArray[np.float64]]:
    rows = [entry.epochs[place] for place in thinned(len(entry.epochs), _MAX_EPOCHS)]
    values = [as_number(row.metrics.get(metric)) for row in rows] if metric else []
    return np.array([row.epoch + 1 for row in rows], dtype=np.float64), np.array(values)


def _curves_trace(
    label: str,
    colour: str,
    curves: Sequence[tuple[Evaluation, NDArray[Any], NDArray[np.float64]]],
) -> Any:
    """Returns many curves as one trace with gaps: hundreds of traces would make the page slow."""
    gap = np.array([np.nan])
    numbers = np.concatenate(
        [np.full(len(epochs) + 1, entry.number) for entry, epochs, _ in curves]
    )
    return graph_objects().Scatter(
        x=np.concatenate([part for _, epochs, _ in curves for part in (epochs, gap)]),
        y=np.concatenate([part for _, _, curve in curves for part in (curve, gap)]),
        mode="lines", name=label, line={"color": colour, "width": 1.2}, opacity=0.8,
        customdata=numbers,
        hovertemplate="evaluation %{customdata}, epoch %{x}: %{y:.5g}<extra></extra>",
    )  # fmt: skip


def fitness_classes(result: Searched, entries: Sequence[Evaluation]) -> NDArray[np.int64]:
    """Returns the place in `CLASSES` (n,) of each evaluation, by the first objective."""
    weight = result.objectives[0].weight
    ok = [entry.values[0] * weight for entry in result.evaluations if entry.status is Status.OK]
    best_first = np.sort(-np.array(ok, dtype=np.float64))
    places = []
    for entry in entries:
        share = 1.0
        if entry.status is Status.OK:
            share = np.searchsorted(best_first, -entry.values[0] * weight) / len(ok)
        places.append(sum(share >= end for end in _CLASS_ENDS))
    return np.array(places, dtype=np.int64)
