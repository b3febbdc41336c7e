"""The report of a run: one HTML file that a person opens to understand a search."""

from __future__ import annotations

import math
import os
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from evonas.arguments import check_one_of
from evonas.files import as_directory, display_path, replace_file
from evonas.records import Status
from evonas.report import plots
from evonas.report.answer import answer, run_state
from evonas.report.network import network_of
from evonas.report.page import Chart, Drawing, Expandable, Fold, Grid, Heading, Page, Table, Text
from evonas.report.page import chart as drawn
from evonas.report.strip import blocks_of
from evonas.report.summary import (
    champion_code,
    champion_genes,
    confirmed_table,
    ranking,
    reproduction,
    run_name,
)
from evonas.run.result import open_run

if TYPE_CHECKING:
    from evonas.run.result import Result

__all__ = ["render", "write_report"]

_MAX_GENES = 16
_SHOWN_GENES = 10
_SLICES = 4  # genes along which the model is drawn, where it explains
_LEAST_EXPLAINED = 0.3  # of the variance of evaluations left out
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
        MissingDependencyError: plotly or Jinja2 is not installed.
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
        MissingDependencyError: plotly or Jinja2 is not installed.
    """
    strategy, seed = result.record.strategy_name, result.record.seed
    page = Page(f"evonas: {run_name(result)}", f"{strategy} · seed {seed} · {run_state(result)}")
    page.answer = answer(result)
    has_fitness = bool(result.hall_of_fame)
    if has_fitness:
        if len(result.objectives) > 1:
            _front(page, result)
        _champion(page, result)
        if result.confirmed or len(result.objectives) == 1:
            _best(page, result)
    _course(page, result)
    if len(result.hall_of_fame) > 1:
        _genes(page, result)
        _family(page, result)
    _failures(page, result, is_open=not has_fitness)
    if has_fitness:
        page.section("Code", is_open=False).add(champion_code(result))
    page.section("How to reproduce", is_open=False).add(*reproduction(result))
    return page.render()


def _champion(page: Page, result: Result) -> None:
    unmet = result.counts.unmet
    section = page.section("Nearest to the limits" if unmet else "Champion")
    blocks = blocks_of(result)
    if blocks is not None:
        section.add(blocks.large_strip(result.champion))
    net = network_of(result.champion)
    if net is not None and blocks is None:
        section.add(Heading("Its network"), Drawing(net))
    section.add(*champion_genes(result))
    if net is not None and blocks is not None:
        section.add(Fold("Its network", [Drawing(net)]))


def _best(page: Page, result: Result) -> None:
    section = page.section("Best points")
    if result.confirmed:
        section.add(Heading("Repeated on fresh seeds"), *confirmed_table(result))
        section.add(Heading("In the search"))
    section.add(ranking(result, result.hall_of_fame))


def _course(page: Page, result: Result) -> None:
    section = page.section("The search")
    charts: list[Chart | None] = []
    if result.hall_of_fame:
        charts += [
            drawn(plots.progress(result, objective=p)) for p in range(len(result.objectives))
        ]
    if result.logbook:
        charts.append(drawn(plots.generations(result)))
    for metric in plots.curve_metrics(result)[:2]:
        figure = plots.learning_curves(result, metric)
        charts.append(drawn(figure, "Coloured by the evaluation's final fitness."))
    if len(result.hall_of_fame) > 1:
        if len(result.objectives) == 1:
            charts += [drawn(plots.cost(result, name)) for name in _costs(result)]
        charts.append(_importance(result))
        if blocks_of(result) is not None:
            note = "Of the points proposed in each generation; the last column is the champion."
            charts += [
                drawn(plots.frozen_shares(result), note),
                drawn(plots.best_strips(result), "The best point of each generation, its blocks."),
            ]
    section.add(*_grid(charts))


def _costs(result: Result) -> list[str]:
    """Returns by what the objective is drawn: the weights of a network, or what a recipe takes."""
    metrics = result.champion.metrics
    if "trainable_params" in metrics:
        return ["train_seconds", "trainable_params"]
    return ["params"] if "params" in metrics else []


def _importance(result: Result) -> Chart | None:
    """Returns which genes matter; None: the evaluations do not tell."""
    explained = _explained(result)
    if explained == -math.inf:
        return None
    note = (
        f"By a model of the evaluations, which predicts {max(0.0, explained):.0%} of the variance "
        "of each one left out; near 0 the shares mean nothing."
    )
    return drawn(plots.gene_importance(result, most=_SHOWN_GENES), note)


def _explained(result: Result) -> float:
    """Returns the share of the variance that a model explains; -inf: there is none."""
    try:
        return result.importance().explained
    except ValueError:
        return -math.inf


def _grid(charts: list[Chart | None]) -> list[Grid]:
    kept = [each for each in charts if each is not None]
    return [Grid(kept)] if kept else []


def _front(page: Page, result: Result) -> None:
    section = page.section("Pareto front")
    if unmet := result.counts.unmet:
        section.add(Text(f"{unmet[0].upper()}{unmet[1:]}: these are the nearest."))
    pairs = list(combinations(range(len(result.objectives)), 2))[:3]
    section.add(*_grid([drawn(plots.pareto(result, x, y)) for x, y in pairs]))
    section.add(ranking(result, result.pareto_front))


def _genes(page: Page, result: Result) -> None:
    section = page.section("Genes", is_open=False)
    is_strip = blocks_of(result) is not None
    if not is_strip:
        note = "One line per evaluation, the most important genes from the left. Click the legend."
        section.add(drawn(plots.parallel_coordinates(result), note, wide=True))
    names = list(plots.importances(result))[:_MAX_GENES]
    n_all = len(result.record.gene_names)
    if len(names) < n_all:
        section.add(Text(f"The {len(names)} most important of {n_all} genes, those first:"))

    def charts(chosen: list[str]) -> list[Grid]:
        found: list[Chart | None] = []
        for name in chosen:
            found.append(drawn(plots.fitness_by_gene(result, name)))
            if not is_strip and result.proposals:
                found.append(drawn(plots.value_shares(result, name)))
        return _grid(found)

    section.add(*charts(names[:_SHOWN_GENES]))
    if not is_strip and _explained(result) > _LEAST_EXPLAINED:
        slices = [drawn(plots.slice_of(result, name)) for name in names[:_SLICES]]
        text = Text("The champion with one gene changed, and two standard deviations of the model:")
        section.add(Fold("What a model of the evaluations expects", [text, *_grid(slices)]))
    if rest := names[_SHOWN_GENES:]:
        section.add(Fold(f"{len(rest)} more genes", charts(rest)))


def _family(page: Page, result: Result) -> None:
    tree = plots.ancestry(result)
    if sum(entry.status is Status.OK for entry in tree.members.values()) > 1:
        note = "Hover over an ancestor to see which genes set it apart from its best parent."
        section = page.section("Family tree", is_open=False)
        section.add(drawn(plots.family_tree(result), note))


def _failures(page: Page, result: Result, *, is_open: bool) -> None:
    kinds = plots.failure_kinds(result)
    if not kinds:
        return
    section = page.section("Failures", is_open=is_open)
    section.add(drawn(plots.failures(result)))
    rows = [
        (
            kind.status.value.replace("_", " "),
            f"{len(kind.evaluations):,}",
            kind.evaluations[0].number,
            Expandable(kind.reason[:300], error[:_MAX_ERROR])
            if (error := kind.evaluations[0].error or "").strip() != kind.reason
            else kind.reason[:300],
        )
        for kind in kinds[:_MAX_KINDS]
    ]
    n_more = len(kinds) - _MAX_KINDS
    note = f"… and {n_more:,} other reasons." if n_more > 0 else ""
    section.add(Table(["status", "times", "first", "reason"], rows, text=(0, 3), note=note))
