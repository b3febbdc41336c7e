"""The parts of a report: charts, tables, lists and code, as data for its template."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from evonas.report.style import as_number, graph_objects
from evonas.report.template import rendered

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from evonas.report.network import Net
    from evonas.report.strip import Square

__all__ = [
    "POLICY",
    "Chart", "Code", "Drawing", "Expandable", "Fold", "Grid", "Heading", "Page", "Pairs", "Part",
    "Section", "Strip", "Table", "Text", "chart",
]  # fmt: skip

# The page may run its own script and nothing else: no request can leave it, whatever a run holds.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading within a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str
    is_soft: bool = True


@dataclass(frozen=True, slots=True)
class Expandable:
    """A cell of a table that opens on a click."""

    kind: ClassVar[str] = "expandable"
    summary: str
    text: str


@dataclass(frozen=True, slots=True)
class Strip:
    """Blocks of a model in a row, coloured by what of them is trained.

    Attributes:
        squares: Of the blocks, from the input on.
        label: What people call it.
        legend: What the colours mean; empty for a small strip in a table.
    """

    kind: ClassVar[str] = "strip"
    squares: Sequence[Square]
    label: str = ""
    legend: Sequence[Square] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A table; cells are text, an `Expandable` or a `Strip`.

    Attributes:
        head: The headings.
        rows: The cells.
        text: Columns of text; the others are numbers and stand at the right.
        best: The row to mark.
        note: A sentence below.
    """

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    text: Sequence[int] = ()
    best: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Names with what they are, side by side where all are short."""

    kind: ClassVar[str] = "pairs"
    entries: Sequence[tuple[str, object]]

    @property
    def is_short(self) -> bool:
        """Whether several stand in one line."""
        return all(len(str(name)) + len(str(value)) < 30 for name, value in self.entries)


@dataclass(frozen=True, slots=True)
class Code:
    """Code with a button that copies it.

    Attributes:
        title: Above it.
        text: The code.
        name: An id of its own in the page.
    """

    kind: ClassVar[str] = "code"
    title: str
    text: str
    name: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """A network, layer by layer."""

    kind: ClassVar[str] = "drawing"
    net: Net


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure, as JSON for plotly.

    Attributes:
        title: Above it.
        note: A sentence below that.
        height: In pixels.
        figure: Data and layout; `<` is spelled out, so that it cannot end its element.
        is_wide: Whether a phone scrolls it sideways instead of pressing it together.
    """

    kind: ClassVar[str] = "chart"
    title: str
    note: str
    height: int
    figure: str
    is_wide: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """Charts side by side where there is room."""

    kind: ClassVar[str] = "grid"
    parts: Sequence[Chart]


@dataclass(frozen=True, slots=True)
class Fold:
    """Parts that open on a click."""

    kind: ClassVar[str] = "fold"
    title: str
    parts: Sequence[Part]


Part = Heading | Text | Table | Pairs | Code | Drawing | Chart | Grid | Fold | Strip


@dataclass
class Section:
    """A part of the page, with a place in its menu.

    Attributes:
        title: Of the heading.
        parts: In order.
        is_open: Whether it is shown at once; else it opens on a click.
    """

    title: str
    parts: list[Part] = field(default_factory=list)
    is_open: bool = True

    @property
    def anchor(self) -> str:
        """What the menu links to."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())

    def add(self, *parts: Part | None) -> None:
        """Adds what there is."""
        self.parts += [part for part in parts if part is not None]


class Page:
    """Collects sections and writes the page.

    Args:
        title: Of the page, plain text.
        about: A line below it.

    Attributes:
        answer: Name and text of each paragraph with which it opens.
        sections: The sections.
    """

    def __init__(self, title: str, about: str = "") -> None:
        self.title = title
        self.about = about
        self.answer: list[tuple[str, str]] = []
        self.sections: list[Section] = []

    def section(self, title: str, *, is_open: bool = True) -> Section:
        """Returns a new section at the end."""
        self.sections.append(Section(title, is_open=is_open))
        return self.sections[-1]

    def render(self) -> str:
        """Returns the page.

        Raises:
            MissingDependencyError: plotly or Jinja2 is not installed.
        """
        graph_objects()  # says what to install where plotly is missing
        from plotly.offline import get_plotlyjs

        filled = [section for section in self.sections if section.parts]
        return rendered(
            "report.html", page=self, sections=filled, policy=POLICY, plotly=get_plotlyjs()
        )


def chart(figure: Figure, note: str = "", *, wide: bool = False) -> Chart | None:
    """Returns a figure as a part of a page, with its title above it; None: it shows too little.

    A figure of fewer than two points says less than a sentence does.

    Args:
        figure: Its title holds no markup of the run: see `style.safe`.
        note: A sentence below the heading, plain text.
        wide: See `Chart`.
    """
    if max(map(_n_points, figure.data), default=0) < 2:
        return None
    layout = json.loads(json.dumps(figure.layout.to_plotly_json(), cls=_encoder()))
    title = html.unescape(layout.pop("title", {}).get("text", ""))
    layout["margin"]["t"] = 40 if _has_legend(figure) else 26
    data = {"data": figure.data, "layout": layout}
    # "<" cannot end the script element then; JSON knows no other place for it than strings.
    text = json.dumps(data, cls=_encoder(), separators=(",", ":")).replace("<", "\\u003c")
    return Chart(title, note, int(figure.layout.height), text, wide)


def _n_points(trace: Any) -> int:
    """Returns how many points a trace shows; a heat map, a box or a bar counts for two."""
    if trace.type != "scatter":
        return 2
    values = trace.y if trace.y is not None else ()
    return int(np.isfinite([as_number(value) if not isinstance(value, str) else 0.0
                            for value in np.asarray(values).tolist()]).sum())  # fmt: skip


def _encoder() -> type[json.JSONEncoder]:
    from plotly.utils import PlotlyJSONEncoder

    encoder: type[json.JSONEncoder] = PlotlyJSONEncoder
    return encoder


def _has_legend(figure: Figure) -> bool:
    wanted = figure.layout.showlegend
    return bool(len(figure.data) > 1 if wanted is None else wanted)
