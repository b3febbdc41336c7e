"""The frame of a report: one HTML page that needs no network, its style and its script."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from evonas.report.style import graph_objects

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = [
    "Markup",
    "Page",
    "Section",
    "code_block",
    "description_list",
    "details",
    "esc",
    "table",
]

# The page may run its own script and nothing else: no request can leave it, whatever a run holds.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)

_STYLE = """
:root{color-scheme:light;--ink:#1d2733;--soft:#56616d;--line:#dde2e7;--main:#2b6cb0;--best:#d9480f}
*{box-sizing:border-box}
body{margin:0;font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:#f5f6f8}
main,header>div,nav>div{max-width:1180px;margin:0 auto;padding:0 16px}
header{background:#fff;border-bottom:1px solid var(--line);padding:22px 0 18px}
h1{font-size:24px;margin:0 0 2px;overflow-wrap:anywhere}
h2{font-size:19px;margin:34px 0 10px;scroll-margin-top:52px}
h3{font-size:15px;margin:0 0 2px;overflow-wrap:anywhere}
p{margin:4px 0 10px}
.soft{color:var(--soft);font-size:13px}
nav{position:sticky;top:0;background:#fff;border-bottom:1px solid var(--line);z-index:9}
nav>div{display:flex;gap:16px;overflow-x:auto;padding-top:9px;padding-bottom:9px}
nav a{color:var(--main);text-decoration:none;white-space:nowrap;font-size:14px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:10px;
margin-top:16px}
.tile{border:1px solid var(--line);border-radius:8px;padding:9px 12px;background:#fff}
.tile b{display:block;font-size:20px;line-height:1.25;overflow-wrap:anywhere}
.tile.best b{color:var(--best)}
.tile span{color:var(--soft);font-size:12.5px;display:block}
.card{background:#fff;border:1px solid var(--line);border-radius:8px;padding:12px;margin:0 0 14px;
min-width:0}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,420px),1fr));gap:14px}
.grid .card{margin:0}
.scroll{overflow-x:auto}
.tall{overflow:auto;max-height:560px}
.wide .chart{min-width:760px}
figure{margin-inline:0}.chart{width:100%}
table{border-collapse:collapse;font-size:13.5px;min-width:min(100%,520px)}
th,td{text-align:left;padding:5px 24px 5px 0;border-bottom:1px solid var(--line);
vertical-align:top}
th{color:var(--soft);font-weight:600;white-space:nowrap}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.text{white-space:nowrap}
td.text:last-child{white-space:normal;overflow-wrap:anywhere;min-width:180px}
tr.best td{font-weight:600;color:var(--best)}
pre{clear:both;margin:0;padding:12px;background:#f5f6f8;border-radius:6px;overflow:auto;max-height:520px;
font:12.5px/1.45 ui-monospace,monospace;tab-size:4}
dl{display:grid;gap:3px 16px;margin:0;
font-size:14px}
dl.short{grid-template-columns:repeat(auto-fill,minmax(min(100%,215px),1fr))}
dl.short div{display:flex;gap:10px;justify-content:space-between;padding-right:18px}
dl.long div{display:grid;grid-template-columns:minmax(110px,200px) 1fr;gap:12px}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere;min-width:0}
button{font:inherit;font-size:13px;padding:3px 12px;border:1px solid var(--main);border-radius:6px;
background:#fff;color:var(--main);cursor:pointer;float:right;margin-bottom:8px}
summary{cursor:pointer;color:var(--main)}
noscript{display:block;padding:12px;background:#fff3cd}
@media (max-width:600px){h2{margin-top:24px}.tiles{grid-template-columns:1fr 1fr}
.card{padding:10px 8px}
dl.long div{display:block}dl.long dd{margin-bottom:6px}}
@page{margin:12mm}
@media print{body{background:#fff;font-size:12px}nav,button{display:none}
main,header>div{max-width:none;padding:0}.card{break-inside:avoid;border-color:#ccc}
.card.long{break-inside:auto}.grid{grid-template-columns:1fr 1fr}
.scroll{overflow:visible}.wide .chart{min-width:0}
pre{max-height:none;white-space:pre-wrap;overflow-wrap:anywhere}h2{break-after:avoid}}
"""

# Charts are drawn one a frame, the first ones first: a page of sixty is there at once.
_SCRIPT = """
(function(){
"use strict";
// plotly.js 4 offers by itself to upload a chart: here nothing leaves the page.
var touch=matchMedia("(pointer: coarse)").matches;
var charts=Array.prototype.slice.call(document.querySelectorAll(".chart"));
function draw(i){
  if(i>=charts.length){document.documentElement.dataset.drawn=String(i);return;}
  var box=charts[i],figure=JSON.parse(box.nextElementSibling.textContent);
  box.style.minHeight="";
  if(touch)figure.layout.dragmode=false;  // a finger on a chart scrolls the page
  Plotly.newPlot(box,figure.data,figure.layout,
    {responsive:true,displaylogo:false,showSendToCloud:false,plotlyServerURL:"",
     displayModeBar:touch?false:"hover",
     modeBarButtons:[["toImage","zoom2d","pan2d","resetScale2d"]]})
    .then(function(){setTimeout(draw,0,i+1);});
}
draw(0);
// Paper has another width than the window, and is laid out only after this event: a page of A4 or
// Letter with the margins set above holds 690 px.
function fit(forPaper){
  charts.forEach(function(box){
    if(!box._fullLayout)return;
    var width=box.closest(".grid")?310:660;
    Plotly.relayout(box,forPaper?{width:width,autosize:false}:{width:null,autosize:true});
  });
}
window.addEventListener("beforeprint",function(){fit(true);});
window.addEventListener("afterprint",function(){fit(false);});
document.querySelectorAll("button[data-copy]").forEach(function(button){
  button.addEventListener("click",function(){
    var code=document.getElementById(button.dataset.copy);
    function done(ok){button.textContent=ok?"copied":"press Ctrl-C";}
    function select(){
      var range=document.createRange();range.selectNodeContents(code);
      var chosen=window.getSelection();chosen.removeAllRanges();chosen.addRange(range);
      done(document.execCommand("copy"));
    }
    if(navigator.clipboard){
      navigator.clipboard.writeText(code.textContent).then(function(){done(true);},select);
    }else{select();}
  });
});
})();
"""


@dataclass
class Section:
    """A part of the page, with a place in its menu.

    Attributes:
        title: Of the heading.
        parts: HTML, in order.
    """

    title: str
    parts: list[str] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """What the menu links to."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())


class Page:
    """Collects sections and figures and writes the page.

    Args:
        title: Of the page, plain text.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.header: list[str] = []
        self.sections: list[Section] = []
        self.n_figures = 0

    def section(self, title: str) -> Section:
        """Returns a new section at the end."""
        self.sections.append(Section(title))
        return self.sections[-1]

    def chart(self, figure: Figure, note: str = "", *, wide: bool = False) -> str:
        """Returns a card with a figure; its title becomes the card's heading.

        Args:
            figure: Titles hold no markup of the run: see `style.safe`.
            note: A sentence below the heading, plain text.
            wide: Whether a phone scrolls it sideways instead of pressing it together.
        """
        self.n_figures += 1
        layout = json.loads(json.dumps(figure.layout.to_plotly_json(), cls=_encoder()))
        title = layout.pop("title", {}).get("text", "")
        layout["margin"]["t"] = 40 if _has_legend(figure) else 26
        data = {"data": figure.data, "layout": layout}
        # "<" cannot end the script element then; JSON knows no other place for it than strings.
        text = json.dumps(data, cls=_encoder(), separators=(",", ":")).replace("<", "\\u003c")
        height = int(figure.layout.height)
        said = f'<p class="soft">{esc(note)}</p>' if note else ""
        return (
            f'<figure class="card{" wide" if wide else ""}"><h3>{title}</h3>{said}'
            f'<div class="scroll"><div class="chart" style="min-height:{height}px"></div>'
            f'<script type="application/json">{text}</script></div></figure>'
        )

    def render(self) -> str:
        """Returns the page."""
        graph_objects()  # says what to install where plotly is missing
        from plotly.offline import get_plotlyjs

        filled = [section for section in self.sections if section.parts]
        menu = "".join(f'<a href="#{part.anchor}">{esc(part.title)}</a>' for part in filled)
        body = "".join(
            f'<section><h2 id="{part.anchor}">{esc(part.title)}</h2>{"".join(part.parts)}</section>'
            for part in filled
        )
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f'<title>{esc(self.title)}</title><link rel="icon" href="data:,">'
            f"<style>{_STYLE}</style></head><body>"
            f"<header><div>{''.join(self.header)}</div></header><nav><div>{menu}</div></nav>"
            "<main><noscript>The charts of this page are drawn by its own script: allow it."
            f"</noscript>{body}</main>\n<script>{get_plotlyjs()}</script>\n"
            f"<script>{_SCRIPT}</script></body></html>\n"
        )


def _encoder() -> type[json.JSONEncoder]:
    from plotly.utils import PlotlyJSONEncoder

    encoder: type[json.JSONEncoder] = PlotlyJSONEncoder
    return encoder


def _has_legend(figure: Figure) -> bool:
    wanted = figure.layout.showlegend
    return bool(len(figure.data) > 1 if wanted is None else wanted)


def esc(text: object) -> str:
    """Returns text of the run as HTML."""
    return html.escape(str(text))


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    text: Sequence[int] = (),
    best: int | None = None,
) -> str:
    """Returns a table; cells are plain text, or `Markup` of this module's making.

    Args:
        head: The headings.
        rows: The cells.
        text: Columns of text; the others are numbers and stand at the right.
        best: The row to mark.
    """
    kinds = ["text" if place in text else "number" for place in range(len(head))]
    cells = [
        "".join(
            f'<td class="{kind}">{cell if isinstance(cell, Markup) else esc(cell)}</td>'
            for kind, cell in zip(kinds, row, strict=True)
        )
        for row in rows
    ]
    names = "".join(
        f'<th class="{kind}">{esc(name)}</th>' for kind, name in zip(kinds, head, strict=True)
    )
    body = "".join(
        f'<tr class="{"best" if place == best else ""}">{row}</tr>'
        for place, row in enumerate(cells)
    )
    return (
        f'<div class="card long scroll"><table><thead><tr>{names}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


class Markup(str):
    """HTML that is one already: made here, of text that was escaped."""

    __slots__ = ()


def details(summary: str, text: str) -> Markup:
    """Returns text that opens on a click."""
    return Markup(f"<details><summary>{esc(summary)}</summary><pre>{esc(text)}</pre></details>")


def description_list(pairs: Sequence[tuple[str, object]]) -> str:
    """Returns names with what they are, side by side where all are short."""
    items = "".join(
        f"<div><dt>{esc(name)}</dt><dd>{esc(value)}</dd></div>" for name, value in pairs
    )
    short = all(len(str(name)) + len(str(value)) < 30 for name, value in pairs)
    return f'<div class="card"><dl class="{"short" if short else "long"}">{items}</dl></div>'


def code_block(title: str, code: str, name: str) -> str:
    """Returns code with a button that copies it.

    Args:
        title: Above it.
        code: Plain text.
        name: An id of its own in the page.
    """
    return (
        f'<div class="card long"><button type="button" data-copy="{esc(name)}">copy</button>'
        f'<h3>{esc(title)}</h3><pre><code id="{esc(name)}">{esc(code)}</code></pre></div>'
    )
