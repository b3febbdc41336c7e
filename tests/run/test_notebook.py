"""What a notebook shows of a result."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

import evonas as en

HOSTILE = "<script>alert(1)</script>"


def view(**arguments: Any) -> Any:
    settings: dict[str, Any] = {"max_evaluations": 12, "seed": 0, "strategy": "random"}
    result = en.evolve(**{**settings, **arguments})
    return result, ElementTree.fromstring(result._repr_html_().replace("<br>", " "))


def text_of(root: Any) -> str:
    return " ".join("".join(root.itertext()).split())


@pytest.mark.parametrize("direction", ["max", "min"])
def test_the_champion_the_counts_and_the_progress(direction: Any) -> None:
    objective = en.Objective("loss", direction)
    result, root = view(
        problem={"x": en.Float(-3.0, 3.0)}, fitness=lambda genes, trial: genes["x"] / 3,
        objectives=objective,
    )  # fmt: skip
    shown = text_of(root)
    assert "RandomSearch, in memory" in shown
    assert "12 evaluated, 0 reused, 0 failed" in shown
    best = result.champion
    assert f"champion: evaluation {best.number}, loss {best.fitness:.4g}" in shown
    dots = [each for each in root.iter() if each.tag.endswith("circle")]
    assert len(dots) == 12
    # The best is drawn at the top, whatever the direction, and the line ends there.
    heights = [float(each.get("cy")) for each in dots]
    assert heights.index(min(heights)) == best.number
    (line,) = [each for each in root.iter() if each.tag.endswith("polyline")]
    corners = [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
    assert corners[-1] == (472.0, min(heights))
    assert [y for _, y in corners] == sorted((y for _, y in corners), reverse=True)


def test_nothing_of_a_run_is_markup() -> None:
    space = {HOSTILE: [HOSTILE, "<b>b</b>"]}
    result, root = view(problem=space, fitness=lambda genes, trial: len(genes[HOSTILE]))
    assert "<script>" not in result._repr_html_()
    assert f"{HOSTILE}{HOSTILE}" in text_of(root)


def test_a_run_without_a_fitness(tmp_path: Any) -> None:
    def fails(genes: Any, trial: Any) -> float:
        raise ValueError("no power")

    with pytest.raises(en.TooManyFailures):
        en.evolve({"x": [1, 2, 3]}, fails, max_evaluations=3, run_dir=tmp_path, strategy="random")
    shown = en.open_run(tmp_path)._repr_html_()
    assert "3 failed" in shown
    assert "champion" not in shown


def test_many_genes_and_a_front() -> None:
    space = {f"g{i}": en.Boolean() for i in range(45)}
    objectives = (en.Objective("good"), en.Objective("cost", "min"))
    result, root = view(
        problem=space, objectives=objectives,
        fitness=lambda genes, trial: (float(genes["g0"]), 1.0),
    )  # fmt: skip
    shown = text_of(root)
    assert "and 5 genes more" in shown
    assert f"{len(result.pareto_front)} on the Pareto front" in shown
    assert ", cost 1" in shown


def test_numbers_are_short_where_a_result_is_printed() -> None:
    result = en.evolve({"x": [1]}, lambda genes, trial: 0.25999999046325684, max_evaluations=1)
    assert repr(result).startswith("<Result in memory: champion 0.26, 1 evaluated")
