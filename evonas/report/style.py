"""What all figures share: plotly where it is needed, colours, thinning, text that is safe."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evonas.exceptions import MissingDependencyError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = [
    "BEST",
    "CLASS_COLOURS",
    "GREY",
    "LEGEND",
    "MAIN",
    "PALETTE",
    "as_number",
    "bounded_range",
    "graph_objects",
    "new_figure",
    "safe",
    "shown",
    "thinned",
    "whole_ticks",
]

MAIN = "#2b6cb0"
BEST = "#d9480f"
GREY = "#a0aab5"
# Okabe and Ito's colours, which colour-blind readers tell apart too; black left out.
PALETTE = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#8c7ae6",
    "#b0b7bf",
)  # fmt: skip
CLASS_COLOURS = ("#08519c", "#4292c6", "#9ecae1", "#d3d9df")
"""From the best to the rest."""

LEGEND = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
_GRID = "#e3e7eb"
_AXIS: dict[str, Any] = {
    "gridcolor": _GRID, "zeroline": False, "linecolor": "#8c96a0", "ticks": "outside",
    "tickcolor": "#8c96a0", "ticklen": 4, "automargin": True,
}  # fmt: skip


def graph_objects() -> Any:
    """Returns `plotly.graph_objects`.

    Raises:
        MissingDependencyError: plotly is not installed.
    """
    try:
        import plotly.graph_objects
    except ImportError as error:
        raise MissingDependencyError.of(
            "drawing figures and reports", "plotly", error, "pip install 'evonas[report]'"
        ) from error
    return plotly.graph_objects


def new_figure(title: str, traces: Sequence[Any], **layout: Any) -> Figure:
    """Returns a figure in the report's look.

    Args:
        title: Plain text.
        traces: Its traces, the first drawn first.
        layout: Whatever else plotly's layout takes; `xaxis` and `yaxis` add to the look.
    """
    go = graph_objects()
    for trace in traces:
        # A line of one point would be nothing.
        if trace.type == "scatter" and trace.mode == "lines" and len(trace.y) == 1:
            trace.mode = "lines+markers"
    xaxis, yaxis = layout.pop("xaxis", {}), layout.pop("yaxis", {})
    look: dict[str, Any] = {
        "template": go.layout.Template(),  # not plotly's own, which is 7 kB in every figure
        "title": {"text": safe(title, 200), "x": 0, "xref": "paper", "font": {"size": 16}},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#1d2733"},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "colorway": list(PALETTE),
        "height": 380,
        "margin": {"l": 56, "r": 16, "t": 84, "b": 48},
        "hovermode": "closest",
        "legend": LEGEND,
        "xaxis": _AXIS | xaxis,
        "yaxis": _AXIS | yaxis,
    }
    return go.Figure(data=list(traces), layout=look | layout)


def safe(text: object, most: int = 48) -> str:
    """Returns text of the run for a figure: shortened, and without markup (plotly knows some)."""
    plain = str(text)
    if len(plain) > most:
        plain = f"{plain[: most - 1]}…"
    return html.escape(plain, quote=False)


def shown(value: object) -> str:
    """Returns a gene's value as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return str(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def as_number(value: object) -> float:
    """Returns a finite number as it is, and NaN (a gap in a line) for all else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return math.nan


def thinned(n: int, most: int) -> NDArray[np.int64]:
    """Returns at most `most` of the places 0 to n - 1, evenly spread, with the first and last."""
    if n <= most:
        return np.arange(n)
    return np.unique(np.linspace(0, n - 1, most).round().astype(np.int64))


def bounded_range(values: NDArray[np.float64]) -> list[float] | None:
    """Returns an axis range without far outliers, None where there are none.

    One diverging loss of 1e9 would press all other points into a line.
    """
    finite = values[np.isfinite(values)]
    if len(finite) < 8:
        return None
    low, high = np.quantile(finite, [0.05, 0.95])
    margin = max(high - low, 1e-12)
    if finite.max() - high < 5 * margin and low - finite.min() < 5 * margin:
        return None
    inside = finite[(finite <= high + 5 * margin) & (finite >= low - 5 * margin)]
    pad = 0.05 * max(float(inside.max() - inside.min()), 1e-12)
    return [float(inside.min()) - pad, float(inside.max()) + pad]


def whole_ticks(n: int) -> dict[str, Any]:
    """Returns what keeps plotly from ticks between the numbers of an axis with `n` of them."""
    return {"dtick": 1} if n <= 12 else {}
