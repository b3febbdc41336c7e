from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import evonas as en
from evonas.records import Evaluation, Status
from evonas.report.gene_columns import column, importances, ok_evaluations, window_title, windows
from evonas.report.style import as_number, safe, shown, thinned


def entries(values: list[dict[str, Any]]) -> list[Evaluation]:
    return [Evaluation(n, str(n), genes, Status.OK, (float(n),)) for n, genes in enumerate(values)]


def test_a_discrete_gene_is_grouped_by_value(small: en.Result) -> None:
    widths = [{"width": 64}, {"width": 16}, {"width": 64}]
    groups = column(small, "width", entries(widths)).groups()
    assert groups.labels == ("16", "32", "64")
    assert groups.codes.tolist() == [2, 0, 2]


def test_an_inactive_gene_is_a_group_of_its_own(small: en.Result) -> None:
    groups = column(small, "dropout", entries([{"dropout": 0.0}, {}, {"dropout": 0.5}])).groups()
    assert groups.labels[-1] == "inactive"
    assert groups.codes.tolist() == [0, 5, 4]


def test_bins_of_a_logarithmic_gene_have_equal_width_on_its_scale(small: en.Result) -> None:
    rates = [{"lr": 1e-4}, {"lr": 10**-3.3}, {"lr": 1e-1}]
    groups = column(small, "lr", entries(rates)).groups()
    assert groups.labels[0] == "0.0001 – 0.000398"
    assert groups.codes.tolist() == [0, 1, 4]


def test_bins_of_an_integer_are_whole_numbers(small: en.Result) -> None:
    layers = [{"layers": n} for n in (1, 8, 9, 16, 17, 40)]
    groups = column(small, "layers", entries(layers)).groups()
    assert groups.labels == ("1 – 8", "9 – 16", "17 – 24", "25 – 32", "33 – 40")
    assert groups.codes.tolist() == [0, 0, 1, 1, 2, 4]


def test_rare_values_are_put_together(write_run: Callable[..., en.Result]) -> None:
    space = en.SearchSpace({"x": en.Categorical([f"value {n}" for n in range(30)])})
    result = write_run(200, space=space)
    groups = column(result, "x", ok_evaluations(result)).groups()
    assert len(groups.labels) == 9
    assert groups.labels[-1] == "others"
    sizes = np.bincount(groups.codes)
    assert sizes.sum() == len(ok_evaluations(result))


def test_positions_are_between_0_and_1(small: en.Result) -> None:
    places, ticks = column(small, "lr", entries([{"lr": 1e-4}, {"lr": 1e-1}])).positions()
    assert places.tolist() == [0.0, 1.0]
    assert ticks == [(0.0, "0.0001"), (1.0, "0.1")]
    places, ticks = column(small, "width", entries([{"width": 32}])).positions()
    assert places.tolist() == [0.5]
    assert [label for _, label in ticks] == ["16", "32", "64"]


def test_an_unknown_gene_is_named(small: en.Result) -> None:
    with pytest.raises(ValueError, match="no gene 'depth': the genes are lr, width, deep, layers"):
        column(small, "depth", [])


def test_importance_finds_the_gene_that_matters(write_run: Callable[..., en.Result]) -> None:
    def only_width(entry: Evaluation) -> Evaluation:
        noise = entry.number % 7 / 1000
        return Evaluation(
            entry.number, entry.key, entry.genes, Status.OK, (entry.genes["width"] / 64 + noise,)
        )

    found = importances(write_run(600, edit=only_width))
    assert next(iter(found)) == "width"
    assert found["width"] > 0.85
    assert max(share for name, share in found.items() if name != "width") < 0.03


def test_windows_are_generations(small: en.Result) -> None:
    found = windows(small)
    assert [window.label for window in found] == ["0", "1", "2", "3", "4"]
    assert [len(window.evaluations) for window in found] == [12, 10, 10, 10, 10]
    assert window_title(small) == "generation"


def test_many_generations_share_a_window(large: en.Result) -> None:
    found = windows(large)
    assert len(found) <= 30
    assert found[0].label == "0–6"
    assert sum(len(window.evaluations) for window in found) == 10_000


def test_without_generations_windows_are_tenths(write_run: Callable[..., en.Result]) -> None:
    result = write_run(40, per_generation=1000)
    assert [len(window.evaluations) for window in windows(result)] == [4] * 10
    assert window_title(result) == "tenth of the search"


def test_thinned_keeps_the_ends() -> None:
    assert thinned(5, 10).tolist() == [0, 1, 2, 3, 4]
    kept = thinned(10_000, 300)
    assert (len(kept), kept[0], kept[-1]) == (300, 0, 9_999)
    assert thinned(0, 10).tolist() == []


def test_text_of_a_run_is_no_markup() -> None:
    assert safe("<b>&") == "&lt;b&gt;&amp;"
    assert safe("x" * 100, 10) == "x" * 9 + "…"
    assert [shown(value) for value in (True, 0.123456, 3, "relu", [1, 2])] == [
        "yes", "0.1235", "3", "relu", "[1, 2]",
    ]  # fmt: skip


def test_only_finite_numbers_are_drawn() -> None:
    assert as_number(2) == 2.0
    assert all(np.isnan(as_number(value)) for value in (None, "x", True, float("inf")))
