"""What the good individuals have: fitness by gene value, importance, parallel coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evonas.report.gene_columns import (
    INACTIVE,
    Column,
    column,
    importances,
    ok_evaluations,
    window_title,
    windows,
)
from evonas.report.progress import CLASSES, fitness_classes, require_fitness
from evonas.report.style import (
    BEST,
    CLASS_COLOURS,
    GREY,
    LEGEND,
    MAIN,
    PALETTE,
    bounded_range,
    graph_objects,
    new_figure,
    safe,
    shown,
    thinned,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from evonas.run.result import Result

__all__ = [
    "fitness_by_gene",
    "gene_importance",
    "parallel_coordinates",
    "slice_of",
    "smooth",
    "value_shares",
]

_MAX_POINTS = 400
_MAX_LINES = 300
_GOLDEN = 0.6180339887498949


def fitness_by_gene(result: Result, gene: str, *, most: int = _MAX_POINTS) -> Figure:
    """Returns the fitness of the evaluations by the value of one gene.

    Args:
        result: Of the run.
        gene: Its name.
        most: Points drawn; boxes and trends are of all evaluations.

    Raises:
        ValueError: The space has no such gene.
        EvonasError: No evaluation has a fitness.
    """
    require_fitness(result)
    ok = ok_evaluations(result)
    values = column(result, gene, ok)
    fitness = np.array([entry.values[0] for entry in ok], dtype=np.float64)
    numbers = np.array([entry.number for entry in ok])
    draw = _scatter_with_trend if values.is_continuous else _boxes
    traces, xaxis = draw(values, fitness, numbers, most)
    objective = result.objectives[0].name
    return new_figure(
        f"{objective} by {gene}",
        traces,
        xaxis={"title": safe(gene), **xaxis},
        yaxis={"title": safe(objective), "range": bounded_range(fitness)},
        showlegend=False,
        height=320,
    )


def slice_of(result: Result, gene: str) -> Figure:
    """Returns what a model of the evaluations expects along one gene, the champion's others kept.

    The band is two standard deviations of that expectation: narrow where there were evaluations.
    See `Result.slice`.

    Args:
        result: Of the run.
        gene: Its name.

    Raises:
        ValueError: The space has no such gene, or the evaluations are too few for a model.
        EvonasError: No evaluation has a fitness.
    """
    require_fitness(result)
    go = graph_objects()
    along = result.slice(gene)
    values = column(result, gene, ok_evaluations(result))
    mean, spread = np.array(along.mean), 2 * np.array(along.sd)
    hover = "%{x}: %{y:.5g}<extra></extra>"
    if values.is_continuous:
        traces = _band(np.array(along.values, dtype=np.float64), mean, spread, hover)
        axis = _axis_of(values)
    else:
        labels = [safe(shown(value), 16) for value in along.values]
        error = {"type": "data", "array": spread, "color": MAIN}
        points = go.Scatter(
            x=np.array(labels), y=mean, error_y=error, mode="markers",
            marker={"color": BEST, "size": 9}, hovertemplate=hover,
        )  # fmt: skip
        traces, axis = [points], {"type": "category"}
    chosen = result.champion.genes.get(gene)
    if chosen is not None:
        at = chosen if values.is_continuous else safe(shown(chosen), 16)
        low, high = float((mean - spread).min()), float((mean + spread).max())
        traces.append(
            go.Scatter(
                x=np.array([at, at]), y=np.array([low, high]), mode="lines", hoverinfo="skip",
                line={"color": GREY, "dash": "dot"},
            )
        )  # fmt: skip
    objective = result.objectives[0].name
    return new_figure(
        f"{objective} expected by {gene}",
        traces,
        xaxis={"title": f"{safe(gene)} (dotted: the champion's)", **axis},
        yaxis={"title": safe(objective)},
        showlegend=False,
        height=320,
    )


def _band(
    at: NDArray[np.float64], mean: NDArray[np.float64], spread: NDArray[np.float64], hover: str
) -> list[Any]:
    """Returns a line with a band about it."""
    go = graph_objects()
    band = go.Scatter(
        x=np.r_[at, at[::-1]], y=np.r_[mean + spread, (mean - spread)[::-1]],
        fill="toself", fillcolor="rgba(217,72,15,0.15)", line={"width": 0}, mode="lines",
        hoverinfo="skip",
    )  # fmt: skip
    line = {"color": BEST, "width": 2}
    return [band, go.Scatter(x=at, y=mean, mode="lines", line=line, hovertemplate=hover)]


def _boxes(
    values: Column, fitness: NDArray[np.float64], numbers: NDArray[Any], most: int
) -> tuple[list[Any], dict[str, Any]]:
    """Returns a box per value (of all evaluations) and points beside each other (of some)."""
    go = graph_objects()
    groups = values.groups()
    traces = []
    quartiles = [
        (place, np.quantile(fitness[groups.codes == place], [0.0, 0.25, 0.5, 0.75, 1.0]))
        for place in range(len(groups.labels))
        if (groups.codes == place).any()
    ]
    stats = np.array([ends for _, ends in quartiles])
    keep = thinned(len(fitness), most)
    # Points beside each other without a random draw: the golden ratio fills evenly.
    jitter = ((numbers[keep] * _GOLDEN) % 1.0 - 0.5) * 0.5
    traces.append(
        go.Box(
            x=np.array([place for place, _ in quartiles]), q1=stats[:, 1], median=stats[:, 2],
            q3=stats[:, 3], lowerfence=stats[:, 0], upperfence=stats[:, 4], width=0.7,
            line={"color": MAIN, "width": 1.3}, fillcolor="rgba(43,108,176,0.12)",
            hoverinfo="y",
        )
    )  # fmt: skip
    traces.append(_points(groups.codes[keep] + jitter, fitness[keep], numbers[keep]))
    sizes = np.bincount(groups.codes, minlength=len(groups.labels))
    ticks = [f"{safe(label, 16)}<br>({n:,})" for label, n in zip(groups.labels, sizes, strict=True)]
    last = len(groups.labels) - 0.5
    axis = {"tickvals": list(range(len(ticks))), "ticktext": ticks, "range": [-0.5, last]}
    return traces, axis


def _scatter_with_trend(
    values: Column, fitness: NDArray[np.float64], numbers: NDArray[Any], most: int
) -> tuple[list[Any], dict[str, Any]]:
    """Returns points (of some evaluations) and a smooth trend with its uncertainty (of all)."""
    x, y, ids = values.numbers(), fitness[values.active], numbers[values.active]
    keep = thinned(len(x), most)
    traces = [_points(x[keep], y[keep], ids[keep])]
    trend = smooth(np.log(x) if values.log else x, y)
    if trend is not None:
        at, mean, error = trend
        at = np.exp(at) if values.log else at
        traces += _band(at, mean, 2 * error, "mean near %{x:.4g}: %{y:.5g}<extra></extra>")
    return traces, _axis_of(values)


def _axis_of(values: Column) -> dict[str, Any]:
    if not values.log:
        return {}
    low, high = (float(values.spec[end]) for end in ("low", "high"))
    ticks = {"dtick": 1} if high / low > 90 else {"nticks": 6}
    ends = [np.log10(low) - 0.03, np.log10(high) + 0.03]
    return {"type": "log", "range": ends, "exponentformat": "power", **ticks}


def smooth(
    x: NDArray[np.float64], y: NDArray[np.float64], n: int = 60
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None:
    """Returns places (n,), the local mean of `y` there (n,) and its standard error (n,).

    A line is fitted at each place, weighted by a Gaussian of the distance, of the width among four
    whose predictions of left-out values are best. Drawn only where there are points. None: there
    are fewer than ten points, or all at one place.

    Source: local linear regression, Fan and Gijbels (1996), chapter 3; Gaussian weights and
    leave-one-out cross validation over shares of the range of `x` here.
    """
    if len(x) < 10 or np.ptp(x) == 0.0:
        return None
    few = thinned(len(x), 500)
    widths = np.array([0.05, 0.1, 0.2, 0.4]) * np.ptp(x)
    own = np.arange(len(few))
    misses = []
    for width in widths:
        hat = _hat(x[few], x[few], float(width))
        left_out = (y[few] - hat @ y[few]) / np.maximum(1.0 - hat[own, own], 0.05)
        misses.append(float(np.median(np.abs(left_out))))
    width = float(widths[int(np.argmin(misses))])
    at = np.linspace(x.min(), x.max(), n)
    hat = _hat(at, x, width)
    mean = hat @ y
    near = np.exp(-0.5 * ((at[:, None] - x[None, :]) / width) ** 2)
    residuals = y - np.interp(x, at, mean)
    variance = (near @ residuals**2) / np.maximum(near.sum(axis=1), 1e-300)
    error = np.sqrt(variance * (hat**2).sum(axis=1))
    drawn = near.sum(axis=1) >= 3.0
    return (at[drawn], mean[drawn], error[drawn]) if drawn.sum() > 1 else None


def _hat(at: NDArray[np.float64], x: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Returns the weights (n_at, n_x) of the local linear fit: times `y`, its values at `at`."""
    gaps = x[None, :] - at[:, None]
    near = np.exp(-0.5 * (gaps / width) ** 2) + 1e-12
    s0, s1 = near.sum(axis=1), (near * gaps).sum(axis=1)
    s2 = (near * gaps**2).sum(axis=1)
    # A ridge keeps the fit level where all points lie at one place.
    s2 = s2 + 1e-3 * width**2 * s0
    weights: NDArray[np.float64] = near * (s2[:, None] - s1[:, None] * gaps)
    fit: NDArray[np.float64] = weights / (s0 * s2 - s1**2)[:, None]
    return fit


def _points(x: NDArray[Any], y: NDArray[np.float64], numbers: NDArray[Any]) -> Any:
    return graph_objects().Scatter(
        x=x, y=y, customdata=numbers, mode="markers",
        marker={"size": 5, "color": MAIN, "opacity": 0.45},
        hovertemplate="evaluation %{customdata}: %{y:.5g}<extra></extra>",
    )  # fmt: skip


def value_shares(result: Result, gene: str) -> Figure:
    """Returns which values of a gene were proposed in each generation, as stacked shares.

    Raises:
        ValueError: The space has no such gene.
    """
    go = graph_objects()
    stretches = windows(result)
    everything = [entry for window in stretches for entry in window.evaluations]
    groups = column(result, gene, everything).groups()
    at = np.repeat(np.arange(len(stretches)), [len(window.evaluations) for window in stretches])
    counts = np.zeros((len(stretches), len(groups.labels)))
    np.add.at(counts, (at, groups.codes), 1.0)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    labels = [window.label for window in stretches]
    traces = [
        go.Bar(
            x=labels, y=shares[:, place], name=safe(label, 24),
            marker={"color": _colour(label, place), "line": {"width": 0}},
            hovertemplate=f"{safe(label)}: %{{y:.0%}}<extra></extra>",
        )
        for place, label in enumerate(groups.labels)
        if counts[:, place].any()
    ]  # fmt: skip
    return new_figure(
        f"values of {gene} over the search",
        traces,
        barmode="stack",
        bargap=0.04,
        showlegend=True,
        height=320,
        legend={**LEGEND, "traceorder": "normal"},
        xaxis={"title": window_title(result), "type": "category"},
        yaxis={"title": "share", "tickformat": ".0%", "range": [0, 1]},
    )


def _colour(label: str, place: int) -> str:
    return "#e3e7eb" if label == INACTIVE else PALETTE[place % len(PALETTE)]


def gene_importance(result: Result, *, most: int = 25) -> Figure:
    """Returns how much each gene explains of the first objective: see `Result.importance`.

    A bar's dark part is what the gene explains by itself.

    Args:
        result: Of the run.
        most: Genes drawn, the most important ones.

    Raises:
        EvonasError: No evaluation has a fitness.
        ValueError: See `Result.importance`.
    """
    require_fitness(result)
    found = result.importance()
    names = list(found.total)[:most][::-1]
    alone = np.array([min(found.alone[name], found.total[name]) for name in names])
    rest = np.array([found.total[name] for name in names]) - alone
    bars = [
        graph_objects().Bar(
            x=shares, y=[safe(name, 28) for name in names], orientation="h", name=title,
            marker={"color": colour}, hovertemplate=f"%{{y}} {title}: %{{x:.1%}}<extra></extra>",
        )
        for title, shares, colour in (("alone", alone, MAIN), ("with others", rest, GREY))
    ]  # fmt: skip
    n = len(found.total)
    note = "" if len(names) == n else f" (the first {len(names)} of {n})"
    return new_figure(
        f"variance of {result.objectives[0].name} that each gene explains{note}",
        bars,
        barmode="stack",
        legend={**LEGEND, "traceorder": "normal"},
        height=130 + 24 * len(names),
        xaxis={
            "title": "share explained",
            "tickformat": ".0%",
            "range": [0, max(0.1, 1.05 * float((alone + rest).max()))],
        },
        yaxis={"type": "category", "ticks": ""},
    )


def parallel_coordinates(
    result: Result, *, most_genes: int = 12, most_lines: int = _MAX_LINES
) -> Figure:
    """Returns one line per evaluation through its gene values to its fitness, the best in colour.

    Args:
        result: Of the run.
        most_genes: Axes drawn, the most important genes first.
        most_lines: Lines drawn; of more, an even selection of each class.

    Raises:
        EvonasError: No evaluation has a fitness.
    """
    require_fitness(result)
    ok = ok_evaluations(result)
    names = list(importances(result))[:most_genes]
    numbers = np.array([entry.number for entry in ok])
    fitness = np.array([entry.values[0] for entry in ok], dtype=np.float64)
    inside = bounded_range(fitness) or [float(fitness.min()), float(fitness.max())]
    width = max(inside[1] - inside[0], 1e-300)
    heights = np.full((len(ok), len(names) + 1), _NO_VALUE)  # (n, n_axes), in [0, 1]
    heights[:, -1] = np.clip((fitness - inside[0]) / width, 0.0, 1.0)
    ticks: list[list[tuple[float, str]]] = []
    for axis, name in enumerate(names):
        values = column(result, name, ok)
        places, marks = values.positions()
        spread = 0.0 if values.is_continuous else 0.03
        apart = ((numbers[values.active] * _GOLDEN) % 1.0 - 0.5) * spread
        heights[values.active, axis] = places + apart
        labels = [mark for mark in marks if mark[1] != INACTIVE]
        ticks.append([*labels, *([] if values.active.all() else [(_NO_VALUE, INACTIVE)])])
    ticks.append([(0.0, f"{inside[0]:.4g}"), (1.0, f"{inside[1]:.4g}")])
    classes = fitness_classes(result, ok)
    traces = []
    for place in reversed(range(len(CLASSES))):
        members = np.flatnonzero(classes == place)
        members = members[thinned(len(members), most_lines // len(CLASSES))]
        if len(members):
            traces.append(_lines(heights, members, numbers, CLASSES[place], CLASS_COLOURS[place]))
    champion = np.flatnonzero(numbers == result.champion.number)
    if len(champion):
        traces.append(_lines(heights, champion, numbers, "champion", BEST, width=3))
    return new_figure(
        "gene values and fitness",
        traces,
        height=460,
        legend={**LEGEND, "traceorder": "reversed"},
        xaxis={"showgrid": False, "ticks": "", "showline": False, "side": "bottom",
               "tickvals": list(range(len(names) + 1)), "tickangle": 30,
               "ticktext": [*(safe(name, 18) for name in names),
                            f"<b>{safe(result.objectives[0].name, 18)}</b>"],
               "range": [-0.4, len(names) + 0.6]},
        yaxis={"visible": False, "range": [-0.2, 1.08]},
        shapes=[{"type": "line", "x0": x, "x1": x, "y0": -0.03, "y1": 1.03, "layer": "below",
                 "line": {"color": "#5c6670", "width": 1}} for x in range(len(names) + 1)],
        annotations=[_mark(x, *tick) for x, axis in enumerate(ticks) for tick in axis],
    )  # fmt: skip


_NO_VALUE = -0.14  # where the lines of inactive genes pass, below the axes


def _lines(
    heights: NDArray[np.float64],
    members: NDArray[np.int64],
    numbers: NDArray[Any],
    label: str,
    colour: str,
    width: float = 1.0,
) -> Any:
    n_axes = heights.shape[1]
    gap = np.full((len(members), 1), np.nan)
    return graph_objects().Scatter(
        x=np.tile(np.r_[np.arange(n_axes), np.nan], len(members)),
        y=np.hstack([heights[members], gap]).ravel().round(4),
        customdata=np.repeat(numbers[members], n_axes + 1),
        mode="lines", name=label, line={"color": colour, "width": width}, opacity=0.85,
        hovertemplate=f"evaluation %{{customdata}} ({label})<extra></extra>",
    )  # fmt: skip


def _mark(x: int, y: float, text: str) -> dict[str, Any]:
    return {
        "x": x, "y": y, "text": safe(text, 12), "showarrow": False, "xanchor": "left",
        "xshift": 3, "font": {"size": 10, "color": "#38424d"}, "bgcolor": "rgba(255,255,255,0.8)",
    }  # fmt: skip
