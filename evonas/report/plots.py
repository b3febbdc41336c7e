"""The figures of a run, as plotly figures: show them, change them, save them.

Each takes the `Result` of `evolve` or `open_run`. What a run has nothing to draw for raises a
`ValueError` that says why.

Example:
    >>> import evonas as en
    >>> from evonas.report import plots
    >>> result = en.evolve(
    ...     {"x": en.Float(0.0, 1.0)}, lambda genes, trial: genes["x"], population=6, generations=2,
    ...     seed=0, progress=False,
    ... )
    >>> figure = plots.progress(result)
    >>> figure.layout.title.text
    'fitness by evaluation'
    >>> [trace.name for trace in figure.data]
    ['one evaluation', 'best so far']
"""

from __future__ import annotations

from evonas.report.ancestry import Ancestry, ancestry, family_tree
from evonas.report.gene_columns import importances
from evonas.report.outcomes import (
    FailureKind,
    best_strips,
    cost,
    failure_kinds,
    failures,
    frozen_shares,
    pareto,
)
from evonas.report.progress import curve_metrics, generations, learning_curves, progress
from evonas.report.values import (
    fitness_by_gene,
    gene_importance,
    parallel_coordinates,
    slice_of,
    value_shares,
)

__all__ = [
    "Ancestry",
    "FailureKind",
    "ancestry",
    "best_strips",
    "cost",
    "curve_metrics",
    "failure_kinds",
    "failures",
    "family_tree",
    "fitness_by_gene",
    "frozen_shares",
    "gene_importance",
    "generations",
    "importances",
    "learning_curves",
    "parallel_coordinates",
    "pareto",
    "progress",
    "slice_of",
    "value_shares",
]
