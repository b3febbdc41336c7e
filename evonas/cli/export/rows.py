"""Every evaluation as CSV, and as JSON with its epochs."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from evonas.cli.screen import json_text
from evonas.records import Evaluation
from evonas.run.result import Result

__all__ = ["as_csv", "as_json", "reason"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a text a formula for spreadsheets: it gets an apostrophe, which they do not show."""


def as_csv(result: Result) -> str:
    """Returns a row for each evaluation, in ask order.

    Columns: number, status, one per objective, seconds, seed, started_at (seconds since 1970),
    generation, `gene.<name>` in the order of the space, `metric.<name>`, epochs (how many), key,
    error (its last line). An inactive gene is empty; lists and dicts are JSON.
    """
    genes = result.record.gene_names
    metrics = list(dict.fromkeys(name for entry in result.evaluations for name in entry.metrics))
    ancestry = _ancestry(result)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            "number", "status", *(_cell(objective.name) for objective in result.objectives),
            "seconds", "seed", "started_at", "generation",
            *(f"gene.{name}" for name in genes), *(f"metric.{name}" for name in metrics),
            "epochs", "key", "error",
        ]
    )  # fmt: skip
    for entry in result.evaluations:
        # Of a pruned one the first objective is what it reported last.
        values = [*entry.values, *[None] * len(result.objectives)][: len(result.objectives)]
        generation, _ = ancestry.get(entry.number, (None, ()))
        writer.writerow(
            [
                entry.number, entry.status.value, *map(_cell, values),
                entry.seconds, entry.seed, entry.started_at, generation,
                *(_cell(entry.genes.get(name)) for name in genes),
                *(_cell(entry.metrics.get(name)) for name in metrics),
                len(entry.epochs), entry.key, _cell(reason(entry)),
            ]
        )  # fmt: skip
    return out.getvalue()


def as_json(result: Result) -> str:
    """Returns what the run is and each evaluation with its epochs, as strict JSON."""
    ancestry = _ancestry(result)
    left_out = {"retryable"}
    evaluations = []
    for entry in result.evaluations:
        generation, parents = ancestry.get(entry.number, (None, ()))
        evaluations.append(
            {
                "number": entry.number,
                "key": entry.key,
                "status": entry.status.value,
                "values": list(entry.values),
                "genes": entry.genes,
                "metrics": dict(entry.metrics),
                "epochs": [
                    {"epoch": each.epoch, "seconds": each.seconds, "metrics": dict(each.metrics)}
                    for each in entry.epochs
                ],
                "seconds": entry.seconds,
                "seed": entry.seed,
                "started_at": entry.started_at,
                "generation": generation,
                "parents": list(parents),
                "error": entry.error,
                "output": entry.output,
            }
        )
    return json_text(
        {
            "run_dir": str(result.run_dir),
            "settings": {
                name: value
                for name, value in result.record.to_json().items()
                if name not in left_out
            },
            "evaluations": evaluations,
        }
    )


def reason(entry: Evaluation) -> str | None:
    """Returns why an evaluation has no fitness: the last line of its traceback."""
    lines = (entry.error or "").strip().splitlines()
    return lines[-1] if lines else None


def _ancestry(result: Result) -> dict[int, tuple[int, tuple[int, ...]]]:
    """Returns evaluation number to its generation and its parents."""
    return {
        proposal.evaluation: (proposal.generation, proposal.parents)
        for proposal in result.proposals
        if not proposal.reused
    }


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json_text(value, indent=None) if isinstance(value, (list, tuple, dict)) else value
