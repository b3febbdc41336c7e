"""A result as a notebook shows it: the champion, how the search went, and what became of it."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from evonas.records import Status
from evonas.report.formats import format_duration, number
from evonas.run.repeats import repeats_text, weights_text

if TYPE_CHECKING:
    from evonas.run.result import Result

__all__ = ["as_html"]

_WIDTH, _HEIGHT, _MARGIN = 480, 160, 8
_MAX_DOTS = 1_000
_MAX_GENES = 40


def as_html(result: Result) -> str:
    """Returns a fragment of HTML without scripts; whatever a run holds is escaped.

    Args:
        result: Of any run, also of one without a fitness yet.
    """
    counts = result.counts
    head = f"{escape(result.record.strategy_name)}, {escape(result.location)}"
    said = (
        f"{counts.evaluated:,} evaluated, {counts.reused:,} reused, {counts.failed:,} failed, "
        f"{format_duration(result.seconds)}"
    )
    said += f"; {counts.copied_words}" if counts.copied else ""
    parts = [f"<b>{head}</b><br>{said}"]
    ok = [entry for entry in result.evaluations if entry.status is Status.OK]
    if ok:
        champion = result.champion
        values = ", ".join(
            f"{objective.name} {number(value)}"
            for objective, value in zip(result.objectives, champion.values, strict=True)
        )
        name = "champion"
        if counts.unmet:
            parts.append(f"<br>{escape(counts.unmet)}")
            name = "the nearest"
        values += repeats_text(champion)
        parts.append(f"<br>{name}: evaluation {champion.number}, {escape(values)}")
        if champion.repeats and (weights := weights_text(champion, result.objectives)):
            parts.append(f"<br>its weights: {escape(weights)}")
        if len(result.objectives) > 1 and not counts.unmet:
            parts.append(f"<br>{len(result.pareto_front)} on the Pareto front")
        limits = result.record.limits
        allowed = {entry.number for entry in ok if limits.allow(entry, result.objectives)}
        points = [(entry.number, entry.values[0]) for entry in ok]
        parts.append(_progress(points, allowed, result.objectives[0].weight))
        shown = list(champion.genes.items())
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{escape(_shown(value))}</td></tr>"
            for name, value in shown[:_MAX_GENES]
        )
        more = len(shown) - _MAX_GENES
        parts.append(f"<table>{rows}</table>" + (f"and {more} genes more" if more > 0 else ""))
    return f"<div>{''.join(parts)}</div>"


def _shown(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)


def _progress(points: list[tuple[int, float]], allowed: set[int], weight: float) -> str:
    """Returns a drawing: each evaluation a dot, the best so far of those allowed a line."""
    last = max(1, max(n for n, _ in points))
    # A few poor ones must not flatten the rest.
    ordered = sorted(value for _, value in points)
    poorest = ordered[len(ordered) // 20] if weight > 0 else ordered[-1 - len(ordered) // 20]
    best = ordered[-1] if weight > 0 else ordered[0]
    spread = (best - poorest) or 1.0

    def place(n: int, value: float) -> tuple[str, str]:
        share = min(1.0, max(0.0, (value - poorest) / spread))
        x = _MARGIN + (_WIDTH - 2 * _MARGIN) * n / last
        return f"{x:.1f}", f"{_HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * share:.1f}"

    svg = ElementTree.Element("svg", width=str(_WIDTH), height=str(_HEIGHT), role="img",
                              xmlns="http://www.w3.org/2000/svg")  # fmt: skip
    ElementTree.SubElement(svg, "title").text = (
        f"each evaluation, and the best so far: {number(poorest)} and what is poorer at the "
        f"bottom, {number(best)} at the top"
    )
    line: list[str] = []
    leading = -weight * math.inf
    for n, value in points:
        if n in allowed and weight * value > weight * leading:
            leading = value
            line += [",".join(place(n, value))] if not line else _step(line[-1], place(n, value))
    for n, value in points[:: -(-len(points) // _MAX_DOTS)]:
        x, y = place(n, value)
        ElementTree.SubElement(svg, "circle", cx=x, cy=y, r="2.5", fill="#8a8a8a", opacity="0.6")
    if line:
        line += _step(line[-1], (place(last, leading)[0], line[-1].split(",")[1]))
        look = {"fill": "none", "stroke": "#0072b2", "stroke-width": "2"}
        ElementTree.SubElement(svg, "polyline", {"points": " ".join(line), **look})
    return f"<div>{ElementTree.tostring(svg, encoding='unicode')}</div>"


def _step(before: str, after: tuple[str, str]) -> list[str]:
    """Returns the corner and the end of a step of the line."""
    return [f"{after[0]},{before.split(',')[1]}", ",".join(after)]
