"""The report of a run: one HTML file that a person opens to understand a search."""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from evonas.arguments import check_one_of
from evonas.files import as_directory, display_path, replace_file
from evonas.records import Status
from evonas.report import plots
from evonas.report.gene_columns import all_boolean
from evonas.report.network import draw, network_of
from evonas.report.page import Page, details, table
from evonas.report.summary import (
    champion_code,
    champion_genes,
    confirmed_table,
    front_table,
    hall_table,
    headline,
    reproduction,
    run_name,
)
from evonas.report.values import all_genes
from evonas.run.result import open_run

if TYPE_CHECKING:
    from evonas.run.result import Result

__all__ = ["render", "write_report"]

_MAX_GENES = 16
_MAX_KINDS = 40
_MAX_ERROR = 4_000


def write_report(
    run_dir: str | os.PathLike[str], path: str | os.PathLike[str] | None = None
) -> Path:
    """Writes the report of a run and returns where: one HTML file that needs no network.

    Everything comes from the run's directory, which may still be written by a search. The file is
    written whole or not at all.

    Args:
        run_dir: The run's directory.
        path: Where to write. None: `report.html` in the run's directory.

    Raises:
        FileNotFoundError: There is no run in `run_dir`.
        RunCorruptError: Its database is damaged.
        RunStorageError: The report cannot be written.
        MissingDependencyError: plotly is not installed.
    """
    folder = as_directory(run_dir)
    if path is not None:
        check_one_of("path", path, (str, os.PathLike), "the path of a file")
    if path == "":
        raise ValueError("path must name a file, got ''")
    chosen = folder / "report.html" if path is None else Path(path)
    page = render(open_run(folder)).encode("utf-8", errors="backslashreplace")
    way_out = "name another file with path="
    replace_file(chosen, lambda part: part.write_bytes(page), way_out=way_out, parents=False)
    return Path(display_path(chosen)) if path is None else chosen


def render(result: Result) -> str:
    """Returns the report of a result as HTML.

    Raises:
        MissingDependencyError: plotly is not installed.
    """
    page = Page(f"evonas: {run_name(result)}")
    page.header = headline(result)
    has_fitness = bool(result.hall_of_fame)
    if has_fitness:
        _champion(page, result)
    _course(page, result)
    if has_fitness:
        _front(page, result)
        _genes(page, result)
        _family(page, result)
    _failures(page, result)
    if has_fitness:
        page.section("Code").parts.append(champion_code(result))
    page.section("How to reproduce").parts += reproduction(result)
    return page.render()


def _champion(page: Page, result: Result) -> None:
    section = page.section("Champion")
    section.parts.append(champion_genes(result))
    net = network_of(result.champion)
    if net is not None:
        section.parts.append(f'<h3>Its network</h3><div class="card tall">{draw(net)}</div>')
    if result.confirmed:
        section.parts.append("<h3>Repeated on fresh seeds</h3>")
        section.parts += confirmed_table(result)
    section.parts.append("<h3>Hall of fame</h3>")
    section.parts.append(hall_table(result))


def _course(page: Page, result: Result) -> None:
    section = page.section("The search")
    if result.hall_of_fame:
        for place in range(len(result.objectives)):
            section.parts.append(page.chart(plots.progress(result, objective=place)))
    if result.logbook:
        section.parts.append(page.chart(plots.generations(result)))
    for metric in plots.curve_metrics(result)[:2]:
        figure = plots.learning_curves(result, metric)
        section.parts.append(page.chart(figure, "Coloured by the evaluation's final fitness."))


def _front(page: Page, result: Result) -> None:
    if len(result.objectives) < 2:
        return
    section = page.section("Pareto front")
    for x, y in list(combinations(range(len(result.objectives)), 2))[:3]:
        section.parts.append(page.chart(plots.pareto(result, x, y)))
    section.parts.append(front_table(result))


def _genes(page: Page, result: Result) -> None:
    mask_search = all_boolean(result)
    if mask_search:
        note = "Of the masks proposed in each generation; the last column is the champion's mask."
        figure = plots.frozen_shares(result)
        chart = page.chart(figure, note, wide=len(figure.data[0].x) > 12)
        page.section("Masks").parts.append(chart)
    section = page.section("Genes")
    note = (
        "One gene at a time, corrected for the number of values (Kruskal-Wallis eta squared): the "
        "effect of two genes together is not seen, and genes that changed together share credit."
    )
    section.parts.append(page.chart(plots.gene_importance(result), note))
    if not mask_search:
        note = "One line per evaluation, the most important genes from the left. Click the legend."
        section.parts.append(page.chart(plots.parallel_coordinates(result), note, wide=True))
    names = all_genes(result, _MAX_GENES)
    n_all = len(result.record.gene_names)
    if len(names) < n_all:
        section.parts.append(f"<p>The {len(names)} most important of {n_all} genes:</p>")
    cards = []
    for name in names:
        cards.append(page.chart(plots.fitness_by_gene(result, name)))
        if not mask_search and result.proposals:
            cards.append(page.chart(plots.value_shares(result, name)))
    section.parts.append(f'<div class="grid">{"".join(cards)}</div>')


def _family(page: Page, result: Result) -> None:
    tree = plots.ancestry(result)
    if sum(entry.status is Status.OK for entry in tree.members.values()) > 1:
        note = "Hover over an ancestor to see which genes set it apart from its best parent."
        page.section("Family tree").parts.append(page.chart(plots.family_tree(result), note))


def _failures(page: Page, result: Result) -> None:
    kinds = plots.failure_kinds(result)
    if not kinds:
        return
    section = page.section("Failures")
    section.parts.append(page.chart(plots.failures(result)))
    rows = [
        (
            kind.status.value.replace("_", " "),
            f"{len(kind.evaluations):,}",
            kind.evaluations[0].number,
            details(kind.reason[:300], error[:_MAX_ERROR])
            if (error := kind.evaluations[0].error or "").strip() != kind.reason
            else kind.reason[:300],
        )
        for kind in kinds[:_MAX_KINDS]
    ]
    section.parts.append(table(["status", "times", "first", "reason"], rows, text=(0, 3)))
    if len(kinds) > _MAX_KINDS:
        section.parts.append(f"<p>… and {len(kinds) - _MAX_KINDS:,} other reasons.</p>")
