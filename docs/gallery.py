"""Makes the gallery of the docs: three small searches, their reports and pictures of them.

    python docs/gallery.py site/gallery   # under a minute; mkdocs does it by itself: site_build.py

Every search trains for real, on the digits that come with scikit-learn.
"""

from __future__ import annotations

import contextlib
import copy
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pictures
import torch
from sklearn.datasets import load_digits as bundled_digits
from torch import Tensor, nn

import evonas as en
from evonas.freezing import RecipeProblem
from evonas.nas import FAMILIES, ImageClassificationProblem
from evonas.report import write_report
from evonas.report.strip import blocks_of
from evonas.training import ModelProblem, load_digits, split

LIGHT = pictures.THEMES[0]


def networks(run_dir: Path) -> en.Result:
    """Returns a search for a convolutional network."""
    data = load_digits()
    chosen = data.subset(split(data, n_train=400, n_val=10, seed=0)[0])
    family = FAMILIES["alexnet-small"]
    problem = ImageClassificationProblem(
        family.space(), family.network, chosen, n_epochs=2, batch_size=32, precision="float32"
    )
    return en.evolve(
        problem, population=8, generations=3, elite=2, seed=0, run_dir=run_dir,
        threads_per_trial=1, progress=False,
    )  # fmt: skip


def front(run_dir: Path) -> en.Result:
    """Returns a search for accuracy and for few weights."""
    x, y = _digits()

    def model(genes: dict[str, int]) -> nn.Module:
        return nn.Sequential(
            nn.Linear(64, genes["width"]), nn.ReLU(), nn.Linear(genes["width"], 10)
        )

    space = {"width": en.Integer(2, 128, log=True), "lr": en.Float(1e-3, 1e-1, log=True)}
    problem = ModelProblem(
        space, model, train=(x[:1400], y[:1400]), val=(x[1400:], y[1400:]), n_epochs=3,
        objectives=[en.Objective("accuracy"), en.Objective("params", "min")], precision="float32",
    )  # fmt: skip
    return en.evolve(
        problem, strategy=en.NSGA2(8), generations=4, seed=0, run_dir=run_dir,
        threads_per_trial=1, progress=False,
    )  # fmt: skip


def recipe(run_dir: Path) -> en.Result:
    """Returns a search for a recipe: pretrained on the digits 0 to 4, fine-tuned on 5 to 9."""
    x, y = _digits()
    x = x.reshape(-1, 1, 8, 8)
    torch.manual_seed(0)
    body = [_conv(1, 16), _conv(16, 32), nn.MaxPool2d(2), _conv(32, 32), nn.AdaptiveAvgPool2d(1)]
    network = nn.Sequential(*body, nn.Flatten(), nn.Linear(32, 5))
    optimizer, low = torch.optim.AdamW(network.parameters(), lr=1e-2), y < 5
    for _ in range(8):
        for batch in torch.randperm(int(low.sum())).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[low][batch]), y[low][batch]).backward()
            optimizer.step()
    x, y = x[~low], y[~low] - 5

    def pretrained() -> nn.Module:
        model = copy.deepcopy(network)
        model[-1].reset_parameters()
        return model

    problem = RecipeProblem(
        pretrained, (x[:60], y[:60]), (x[60:260], y[60:260]), lr=3e-3, n_epochs=4, batch_size=16,
        blocks={"conv1": "0", "conv2": "1", "conv3": "3"},
    )  # fmt: skip
    return en.evolve(
        problem, strategy=en.SurrogateEvolution(n_initial=12), max_evaluations=20, seed=0,
        run_dir=run_dir, threads_per_trial=1, progress=False,
    )  # fmt: skip


def _conv(n_in: int, n_out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU())


def _digits() -> tuple[Tensor, Tensor]:
    x, y = map(torch.from_numpy, bundled_digits(return_X_y=True))  # (1797, 64), (1797,)
    return x.float() / 16, y


def _canvas(height: int, title: str, body: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 880 {height}" role="img" '
        f'{pictures.FONT}><title>{title}</title><rect width="880" height="{height}" rx="6" '
        f'fill="#fff"/>{body}</svg>\n'
    )


def draw_networks(result: en.Result) -> str:
    """Returns how the search went, and the network that it found."""
    body = pictures.progress(result, LIGHT, 50, 24, 370, 150)
    return _canvas(230, "networks", body + pictures.network(result, LIGHT, 470, 24, 390, 150))


def draw_front(result: en.Result) -> str:
    """Returns every evaluation as a dot, accuracy against weights, and the front as a line."""
    scored = [entry.values for entry in result.evaluations if entry.values]
    most = max(math.log10(params) for _, params in scored)
    least = min(math.log10(params) for _, params in scored)

    def at(values: tuple[float, ...]) -> tuple[float, float]:
        x = 60 + 780 * (math.log10(values[1]) - least) / (most - least)
        return x, 190 - 160 * values[0]

    parts = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{LIGHT.soft}" fill-opacity="0.5"/>'
        for x, y in map(at, scored)
    ]
    line = sorted(at(entry.values) for entry in result.pareto_front)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
    parts.append(f'<polyline points="{path}" fill="none" stroke="{LIGHT.best}" stroke-width="2"/>')
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{LIGHT.best}"/>' for x, y in line]
    for tick in (0.0, 0.5, 1.0):
        parts.append(pictures.text(46, 194 - 160 * tick, f"{tick:.1f}", LIGHT.soft, 11,
                                   text_anchor="end"))  # fmt: skip
    words = f"accuracy against weights, from {10**least:,.0f} to {10**most:,.0f} (logarithmic)"
    return _canvas(230, "front", "".join([*parts, pictures.text(60, 216, words, LIGHT.soft, 12)]))


def draw_recipe(result: en.Result) -> str:
    """Returns the best five recipes as strips."""
    blocks, parts = blocks_of(result), []
    if blocks is None:
        raise ValueError("the recipes of this run are not drawn as strips")
    for place, entry in enumerate(result.hall_of_fame[:5]):
        top = 20 + 34 * place
        parts.append(pictures.text(30, top + 17, f"{entry.fitness:.3f}", LIGHT.text))
        for number, square in enumerate(blocks.strip(entry.genes).squares):
            parts.append(f'<rect x="{100 + 40 * number}" y="{top}" width="36" height="24" rx="3" '
                         f'fill="{square.colour}"/>')  # fmt: skip
        left = 120 + 40 * len(blocks.names)
        parts.append(pictures.text(left, top + 17, blocks.label(entry), LIGHT.soft, 12))
    return _canvas(210, "recipes", "".join(parts))


SEARCHES: dict[str, tuple[Callable[[Path], en.Result], Callable[[en.Result], str]]] = {
    "networks": (networks, draw_networks),
    "front": (front, draw_front),
    "recipe": (recipe, draw_recipe),
}


def build(folder: Path) -> list[Path]:
    """Writes the reports and pictures into a folder, and returns their paths."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    # The reports name the directories of their runs: as a user's would, not those of this machine.
    with tempfile.TemporaryDirectory() as work, contextlib.chdir(work):
        for name, (search, draw) in SEARCHES.items():
            run_dir = Path("runs") / name
            result = search(run_dir)
            made.append(write_report(run_dir, folder / f"{name}.html"))
            made.append(folder / f"{name}.svg")
            made[-1].write_text(draw(result), encoding="utf-8")
    return made


if __name__ == "__main__":
    for path in build(Path(sys.argv[1])):
        sys.stdout.write(f"{path}\n")
