"""What came of it: the Pareto front, what failed, the champion's ancestors, shares of masks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evonas.records import Evaluation, Status
from evonas.report.gene_columns import (
    ok_evaluations,
    window_title,
    windows,
)
from evonas.report.progress import require_fitness
from evonas.report.strip import Blocks, blocks_of
from evonas.report.style import (
    BEST,
    GREY,
    MAIN,
    graph_objects,
    new_figure,
    safe,
    thinned,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from evonas.run.result import Result

__all__ = [
    "FailureKind",
    "best_strips",
    "cost",
    "failure_kinds",
    "failures",
    "frozen_shares",
    "pareto",
]

_MAX_POINTS = 2_000


def pareto(result: Result, x: int = 0, y: int = 1) -> Figure:
    """Returns two objectives of every evaluation, and the Pareto front of all objectives.

    Args:
        result: Of the run.
        x: Objective on the horizontal axis, from 0.
        y: Objective on the vertical axis.

    Raises:
        ValueError: The run has one objective.
        EvonasError: No evaluation has a fitness.
    """
    if len(result.objectives) < 2:
        raise ValueError(
            f"a Pareto front needs two objectives, got one ({result.objectives[0].name}): "
            "`progress(result)` draws that"
        )
    require_fitness(result)
    go = graph_objects()
    ok = ok_evaluations(result)
    front = sorted(result.pareto_front, key=lambda entry: entry.values[x])
    names = [safe(objective.name) for objective in result.objectives]
    hover = f"evaluation %{{customdata}}<br>{names[x]} %{{x:.5g}}<br>{names[y]} %{{y:.5g}}"
    kept = [ok[place] for place in thinned(len(ok), _MAX_POINTS)]
    note = "" if len(kept) == len(ok) else f" ({len(kept):,} of {len(ok):,} shown)"
    looks: list[tuple[str, list[Evaluation], dict[str, Any]]] = [
        (f"one evaluation{note}", kept, {"mode": "markers", "marker": {"color": GREY, "size": 5}}),
        # A line through the front of three objectives would zigzag.
        (f"Pareto front ({len(front):,})", front,
         {"mode": "lines+markers" if len(names) == 2 else "markers",
          "marker": {"color": BEST, "size": 8},
          "line": {"color": BEST, "shape": "vh" if _is_max(result, x) else "hv", "width": 1.5}}),
    ]  # fmt: skip
    traces = [
        go.Scatter(
            x=np.array([entry.values[x] for entry in entries], dtype=np.float64),
            y=np.array([entry.values[y] for entry in entries], dtype=np.float64),
            customdata=np.array([entry.number for entry in entries]),
            name=label, hovertemplate=f"{hover}<extra></extra>", **look,
        )
        for label, entries, look in looks
    ]  # fmt: skip
    axes = [f"{names[at]} ({'more' if _is_max(result, at) else 'less'} is better)" for at in (x, y)]
    return new_figure(
        f"{result.objectives[x].name} and {result.objectives[y].name}",
        traces,
        xaxis={"title": axes[0]},
        yaxis={"title": axes[1]},
        height=440,
    )


def cost(result: Result, by: str = "seconds") -> Figure:
    """Returns the first objective of every evaluation against what it cost, and the best a cost.

    Args:
        result: Of the run.
        by: `"seconds"` of an evaluation, or a metric on record, such as `"trainable_params"`,
            `"params"` or `"macs"`: less is better.

    Raises:
        ValueError: No evaluation has a number for it.
        EvonasError: No evaluation has a fitness.
    """
    require_fitness(result)
    go = graph_objects()
    ok = [
        (entry, each) for entry in ok_evaluations(result) if (each := _cost(entry, by)) is not None
    ]
    if not ok:
        known = sorted({name for entry in ok_evaluations(result) for name in entry.metrics})
        raise ValueError(
            f"no evaluation has a number {by!r}: on record are {', '.join(['seconds', *known])}"
        )
    weight = 1 if _is_max(result, 0) else -1
    front: list[tuple[Evaluation, float]] = []
    for entry, spent in sorted(ok, key=lambda pair: (pair[1], -weight * pair[0].values[0])):
        if not front or weight * entry.values[0] > weight * front[-1][0].values[0]:
            front.append((entry, spent))
    name = result.objectives[0].name
    hover = f"evaluation %{{customdata}}<br>{safe(by)} %{{x:.5g}}<br>{safe(name)} %{{y:.5g}}"
    kept = [ok[place] for place in thinned(len(ok), _MAX_POINTS)]
    looks: list[tuple[str, list[tuple[Evaluation, float]], dict[str, Any]]] = [
        ("one evaluation", kept, {"mode": "markers", "marker": {"color": GREY, "size": 5}}),
        ("best for its cost", front,
         {"mode": "lines+markers", "marker": {"color": BEST, "size": 8},
          "line": {"color": BEST, "shape": "hv", "width": 1.5}}),
    ]  # fmt: skip
    traces = [
        go.Scatter(
            x=np.array([spent for _, spent in pairs], dtype=np.float64),
            y=np.array([entry.values[0] for entry, _ in pairs], dtype=np.float64),
            customdata=np.array([entry.number for entry, _ in pairs]),
            name=label, hovertemplate=f"{hover}<extra></extra>", **look,
        )
        for label, pairs, look in looks
    ]  # fmt: skip
    return new_figure(
        f"{name} against {by}",
        traces,
        xaxis={"title": safe(by), "rangemode": "tozero"},
        yaxis={"title": safe(name)},
        height=320,
    )


def _cost(entry: Evaluation, by: str) -> float | None:
    """Returns seconds or a metric of an evaluation; None: it has no such finite number."""
    value = entry.seconds if by == "seconds" else entry.metrics.get(by)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        return None
    return float(value)


def _is_max(result: Result, objective: int) -> bool:
    return result.objectives[objective].direction == "max"


@dataclass(frozen=True)
class FailureKind:
    """Evaluations that came to nothing in the same way.

    Attributes:
        status: How they ended.
        reason: The line of the error that says why.
        evaluations: All of them.
    """

    status: Status
    reason: str
    evaluations: tuple[Evaluation, ...]


def failure_kinds(result: Result) -> list[FailureKind]:
    """Returns the evaluations without a fitness by status and reason, the most frequent first."""
    found: dict[tuple[Status, str], list[Evaluation]] = {}
    for entry in result.evaluations:
        if entry.status is not Status.OK:
            found.setdefault((entry.status, _reason(entry)), []).append(entry)
    kinds = [FailureKind(*key, tuple(entries)) for key, entries in found.items()]
    return sorted(kinds, key=lambda kind: -len(kind.evaluations))


def _reason(entry: Evaluation) -> str:
    """Returns the line that says why: of a traceback the exception, else the first."""
    lines = [line for line in (entry.error or "").splitlines() if line.strip()]
    if not lines:
        return "no reason on record"
    frames = [place for place, line in enumerate(lines) if line.startswith('  File "')]
    if not frames:
        return lines[0].strip()
    after = [line for line in lines[frames[-1] :] if not line.startswith(" ")]
    return (after or lines[-1:])[0].strip()


def failures(result: Result) -> Figure:
    """Returns how many evaluations came to nothing, by kind, and when.

    Raises:
        ValueError: None did.
    """
    bad = [entry for entry in result.evaluations if entry.status is not Status.OK]
    if not bad:
        raise ValueError("no evaluation of this run failed: there is nothing to draw")
    counts = Counter(entry.status.value for entry in bad)
    kept = [bad[place] for place in thinned(len(bad), _MAX_POINTS)]
    labels = {name: f"{name.replace('_', ' ')} ({n:,})" for name, n in counts.items()}
    points = graph_objects().Scatter(
        x=np.array([entry.number for entry in kept]),
        y=[labels[entry.status.value] for entry in kept],
        mode="markers", marker={"symbol": "line-ns-open", "size": 14, "color": BEST},
        hovertemplate="evaluation %{x}: %{y}<extra></extra>",
    )  # fmt: skip
    last = result.evaluations[-1].number
    return new_figure(
        f"evaluations without a fitness ({len(bad):,} of {len(result.evaluations):,})",
        [points],
        height=170 + 34 * len(counts),
        xaxis={"title": "evaluation, in ask order", "range": [-0.02 * last - 1, 1.02 * last + 1]},
        yaxis={
            "type": "category",
            "categoryorder": "array",
            "categoryarray": [labels[name] for name, _ in reversed(counts.most_common())],
        },
    )


def frozen_shares(result: Result) -> Figure:
    """Returns in which share of a generation's points each block is frozen.

    The last column is the champion. Blocks are in the order of the model, input at the top.

    Raises:
        ValueError: The run's points do not say what is done to blocks.
        EvonasError: No evaluation has a fitness.
    """
    blocks = _needed_blocks(result)
    stretches = [window for window in windows(result) if window.evaluations]
    columns = [
        np.mean([[place == 0 for place in blocks.places(e.genes)] for e in w.evaluations], axis=0)
        for w in stretches
    ]
    columns.append(np.array([float(place == 0) for place in blocks.places(result.champion.genes)]))
    heat = _heat(blocks, np.array(columns).T, [*(w.label for w in stretches), "champion"])
    heat.update(
        zmin=0, zmax=1, colorscale=[[0, "#f4f1ea"], [1, MAIN]],
        colorbar={"tickformat": ".0%", "thickness": 12},
        hovertemplate=f"%{{text}}, %{{x}}: %{{z:.0%}} {safe(blocks.words[0])}<extra></extra>",
    )  # fmt: skip
    return _blocks_figure(result, blocks, heat, "share of points that freeze each block")


def best_strips(result: Result) -> Figure:
    """Returns what the best point of each generation does to each block; the last: the champion.

    Raises:
        ValueError: The run's points do not say what is done to blocks.
        EvonasError: No evaluation has a fitness.
    """
    blocks = _needed_blocks(result)
    weight = result.objectives[0].weight
    columns, labels = [], []
    for window in windows(result):
        ok = [entry for entry in window.evaluations if entry.status is Status.OK]
        if ok:
            best = max(ok, key=lambda entry: (entry.values[0] * weight, -entry.number))
            columns.append(blocks.places(best.genes))
            labels.append(window.label)
    columns.append(blocks.places(result.champion.genes))
    n = len(blocks.values)
    heat = _heat(blocks, np.array(columns).T, [*labels, "champion"])
    heat.update(
        zmin=-0.5, zmax=n - 0.5,
        colorscale=[[end, colour] for at, colour in enumerate(blocks.colours)
                    for end in (at / n, (at + 1) / n)],
        colorbar={"tickvals": list(range(n)), "ticktext": [safe(w, 16) for w in blocks.words],
                  "thickness": 12},
        customdata=[[safe(blocks.words[at]) if at >= 0 else "?" for at in row]
                    for row in np.array(columns).T],
        hovertemplate="%{text}, %{x}: %{customdata}<extra></extra>",
    )  # fmt: skip
    return _blocks_figure(result, blocks, heat, "the best point of each generation")


def _needed_blocks(result: Result) -> Blocks:
    blocks = blocks_of(result)
    if blocks is None:
        raise ValueError(
            "a map of blocks needs a search of what to do with each block of a model "
            "(`Problem.strip` describes them): `value_shares(result, gene)` draws other genes"
        )
    require_fitness(result)
    return blocks


def _heat(blocks: Blocks, shares: NDArray[Any], labels: list[str]) -> Any:
    return graph_objects().Heatmap(
        z=shares, x=labels,
        # Numbers, not names: two long names may be shortened to the same.
        y=np.arange(len(blocks.names)), xgap=1, ygap=1,
        text=[[safe(name)] * shares.shape[1] for name in blocks.names],
    )  # fmt: skip


def _blocks_figure(result: Result, blocks: Blocks, heat: Any, title: str) -> Figure:
    ticks = thinned(len(blocks.names), 60)
    return new_figure(
        title,
        [heat],
        height=190 + 22 * min(len(blocks.names), 40),
        xaxis={"title": window_title(result), "type": "category"},
        yaxis={
            "autorange": "reversed",
            "tickvals": ticks.tolist(),
            "ticktext": [safe(blocks.names[place], 30) for place in ticks],
        },
    )
