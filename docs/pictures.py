"""Draws the README's picture, light and dark, from two finished runs, and its badges.

    python examples/cifar10_alexnet.py --preset quick --run-dir runs/networks
    python examples/bert_freezing.py --preset quick --recipe --run-dir runs/recipe
    python docs/pictures.py runs/networks runs/recipe        # writes docs/images/*.svg

The picture shows how the search for a network went, the network that it found, and the best recipe
for fine-tuning beside what people try by hand, each with its accuracy on test data over fresh
seeds. Nothing in it is typed in: every figure is read from the runs.
"""

from __future__ import annotations

import argparse
import configparser
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import evonas as en
from evonas.report.network import Layer, network_of, short
from evonas.report.strip import Blocks, blocks_of

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
WIDTH, HEIGHT = 880, 484
FONT = "font-family=\"system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif\""
ROWS = ("search 1", "full fine-tuning", "layer-wise decay", "relative gradients", "head only")


@dataclass(frozen=True)
class Theme:
    """The colours of a picture, for a light or a dark page."""

    name: str
    text: str
    soft: str
    line: str
    best: str
    kinds: dict[str, str]


_KINDS = {"conv": "#0072b2", "pool": "#009e73", "linear": "#e69f00", "other": "#a0aab5"}
THEMES = (
    Theme("light", "#1f2328", "#59636e", "#d1d9e0", "#d9480f", _KINDS),
    Theme("dark", "#f0f6fc", "#9198a1", "#3d444d", "#ff922b",
          {**_KINDS, "conv": "#3d9bd9", "pool": "#2bb58a"}),
)  # fmt: skip


def text(x: float, y: float, words: str, colour: str, size: float = 13, **more: str) -> str:
    """Returns a line of text; `more` are attributes, `_` for `-`."""
    extra = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}"{extra}>'
        f"{escape(words)}</text>"
    )


def progress(result: en.Result, theme: Theme, x: float, y: float, w: float, h: float) -> str:
    """Returns each evaluation as a dot and the best so far as a line, in a box."""
    scored = [(e.number, e.fitness) for e in result.evaluations if e.fitness is not None]
    last, top = max(n for n, _ in scored), max(value for _, value in scored)
    ticks = [tick for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0) if tick <= top + 0.1]

    def at(n: float, value: float) -> tuple[float, float]:
        return x + w * n / last, y + h - h * value / ticks[-1]

    parts = []
    for tick in ticks:
        height = at(0, tick)[1]
        parts.append(f'<path d="M{x} {height:.1f}h{w}" stroke="{theme.line}"/>')
        parts.append(text(x - 8, height + 4, f"{tick:.1f}", theme.soft, 11, text_anchor="end"))
    for n, value in scored:
        cx, cy = at(n, value)
        parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="3.2" fill="{theme.soft}" '
                     'fill-opacity="0.55"/>')  # fmt: skip
    best, path = scored[0][1], "M{:.1f} {:.1f}".format(*at(*scored[0]))
    for n, value in scored:
        if value > best:
            best = value
            path += "H{:.1f}V{:.1f}".format(*at(n, value))
    path += f"H{x + w:.1f}"
    parts.append(f'<path d="{path}" fill="none" stroke="{theme.best}" stroke-width="2.5"/>')
    label = f"best {best:.3f}"
    parts.append(text(x + w, at(0, best)[1] - 8, label, theme.best, 13, text_anchor="end",
                      font_weight="600"))  # fmt: skip
    words = f"validation accuracy of {len(scored)} networks, each trained for itself"
    return "".join([*parts, text(x, y + h + 20, words, theme.soft, 12)])


def network(result: en.Result, theme: Theme, x: float, y: float, w: float, h: float) -> str:
    """Returns the champion's layers as boxes: as high as their maps, as wide as their channels.

    Raises:
        ValueError: The run has kept no network.
    """
    net = network_of(result.champion)
    if net is None:
        raise ValueError(f"{result.location} has kept no network of its champion: run it again")
    kinds = ("conv", "pool", "linear")
    drawn = [(kind, layer) for layer in net.layers for kind in kinds
             if kind in layer.kind.lower() and "adaptive" not in layer.kind.lower()]  # fmt: skip
    widths = [_width(layer) for _, layer in drawn]
    gap = min(26.0, (w - sum(widths)) / max(1, len(drawn) - 1))
    largest = max(layer.shape[-1] for _, layer in drawn if layer.shape and len(layer.shape) > 1)
    middle, left, parts = y + h / 2 - 14, x, []
    total = sum(widths) + gap * (len(drawn) - 1)
    parts.append(f'<path d="M{x} {middle:.1f}h{total:.1f}" stroke="{theme.line}"/>')
    for (kind, layer), width in zip(drawn, widths, strict=True):
        tall = _height(layer, largest, h - 40)
        parts.append(
            f'<rect x="{left:.1f}" y="{middle - tall / 2:.1f}" width="{width:.1f}" '
            f'height="{tall:.1f}" rx="3" fill="{theme.kinds[kind]}"/>'
        )
        if kind != "pool" and layer.shape:
            parts.append(text(left + width / 2, middle + tall / 2 + 14, str(layer.shape[0]),
                              theme.soft, 11, text_anchor="middle"))  # fmt: skip
        left += width + gap
    words = f"{short(net.params)} weights, {short(net.macs)} multiply-adds"
    parts.append(text(x, y + h + 20, words, theme.soft, 12))
    place = x
    for kind, name in (("conv", "convolution"), ("pool", "pooling"), ("linear", "linear")):
        parts.append(f'<rect x="{place:.1f}" y="{y + h + 30:.1f}" width="11" height="11" rx="2" '
                     f'fill="{theme.kinds[kind]}"/>')  # fmt: skip
        parts.append(text(place + 17, y + h + 40, name, theme.soft, 12))
        place += 7 * len(name) + 34
    return "".join(parts)


def _width(layer: Layer) -> float:
    if "pool" in layer.kind.lower() or not layer.shape:
        return 8.0
    return 14.0 if len(layer.shape) == 1 else 14 + 0.55 * min(64, layer.shape[0])


def _height(layer: Layer, largest: int, most: float) -> float:
    if layer.shape and len(layer.shape) > 1:
        return max(18.0, most * layer.shape[-1] / largest)
    return max(18.0, most * min(1.0, (layer.shape[0] if layer.shape else 1) / 100))


def recipes(result: en.Result, theme: Theme, x: float, y: float) -> str:
    """Returns recipes as strips of squares, block by block, with what each reached."""
    blocks = blocks_of(result)
    if blocks is None:
        raise ValueError(f"{result.location} is no search of recipes")
    compared = json.loads((Path(result.location) / "comparison.json").read_text(encoding="utf-8"))
    rows = {row["label"].split(", search")[0]: row for row in compared["rows"]}
    side, gap, parts = 30, 4, []
    for place, name in enumerate(row for row in ROWS if row in rows):
        top = y + place * 32
        genes = _genes(name, blocks, result)
        label = "found by the search" if name.startswith("search") else name
        parts.append(text(x, top + 17, label, theme.text, 13,
                          font_weight="600" if name.startswith("search") else "400"))  # fmt: skip
        for number, square in enumerate(blocks.strip(genes).squares):
            left = x + 170 + number * (side + gap)
            parts.append(
                f'<rect x="{left}" y="{top}" width="{side}" height="24" rx="3" '
                f'fill="{square.colour}"><title>{escape(square.words)}</title></rect>'
            )
        test = rows[name]["test"]
        mean, std = statistics.mean(test), statistics.stdev(test)
        right = x + 170 + len(blocks.names) * (side + gap) + 14
        parts.append(text(right, top + 17, f"{mean:.2f} ± {std:.2f}", theme.text, 13))
        share = 100 * rows[name]["trainable_share"]
        told = f"{share:.0f} % trained" if share >= 1 else "under 1 % trained"
        parts.append(text(right + 100, top + 17, told, theme.soft, 12))
    return "".join(parts) + _legend(blocks, theme, x + 170 + len(blocks.names) * 34 + 250, y)


def _genes(name: str, blocks: Blocks, result: en.Result) -> dict[str, Any]:
    if name.startswith("search"):
        return dict(result.champion.genes)
    return dict(zip(blocks.names, blocks.labels[name], strict=True))


def _legend(blocks: Blocks, theme: Theme, x: float, y: float) -> str:
    parts = []
    for place, (colour, words) in enumerate(zip(blocks.colours, blocks.words, strict=True)):
        top = y + place * 24
        parts.append(f'<rect x="{x}" y="{top}" width="14" height="14" rx="2" fill="{colour}"/>')
        told = words.replace("all x", "all, rate × ")
        parts.append(text(x + 21, top + 12, told, theme.soft, 12))
    return "".join(parts)


def picture(networks: en.Result, recipe: en.Result, theme: Theme) -> str:
    """Returns the README's picture as an SVG, on whatever the page's colour is."""
    n_seeds = json.loads((Path(recipe.location) / "comparison.json").read_text())["repeats"]
    heads = (
        (40, 22, "A search for a network"),
        (470, 22, "The network that it found"),
        (40, 282, "Which layers to fine-tune, and at which rate"),
    )
    model = f"blocks of a BERT, from input to output; test accuracy on {n_seeds} fresh seeds"
    body = [text(x, y, words, theme.text, 16, font_weight="600") for x, y, words in heads]
    body += [
        progress(networks, theme, 40, 40, 380, 150),
        network(networks, theme, 470, 40, 390, 150),
        text(40, 302, model, theme.soft, 12),
        recipes(recipe, theme, 40, 318),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" {FONT}><title>A search as evonas records it</title>'
        f"{''.join(body)}</svg>\n"
    )


def badge(name: str, value: str) -> str:
    """Returns a badge as an SVG: a name, and what is true of it."""
    left, right = 7 * len(name) + 14, 7 * len(value) + 14
    parts = [
        f'<rect width="{left + right}" height="20" rx="3" fill="#3b4148"/>',
        f'<path d="M{left} 0h{right - 3}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-{right - 3}z" '
        'fill="#2b6cb0"/>',
        text(left / 2, 14, name, "#fff", 11, text_anchor="middle"),
        text(left + right / 2, 14, value, "#fff", 11, text_anchor="middle"),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" '
        f"{FONT}><title>{escape(name)}: {escape(value)}</title>{''.join(parts)}</svg>\n"
    )


def badges() -> dict[str, str]:
    """Returns the README's badges, by file name: what setup.cfg says, and where things are."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return {
        "badge-python.svg": badge("Python", config["options"]["python_requires"].strip(">=") + "+"),
        "badge-licence.svg": badge("licence", config["metadata"]["license"]),
        "badge-tests.svg": badge("tests", "bash .ci/run"),
        "badge-docs.svg": badge("docs", "mkdocs serve"),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", help="a run of cifar10_alexnet.py")
    parser.add_argument("recipe", help="a run of bert_freezing.py --recipe")
    parser.add_argument("--out", type=Path, default=IMAGES, help="where to (default docs/images)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    networks, recipe = en.open_run(options.networks), en.open_run(options.recipe)
    found = {f"search-{theme.name}.svg": picture(networks, recipe, theme) for theme in THEMES}
    for name, svg in {**found, **badges()}.items():
        (options.out / name).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
