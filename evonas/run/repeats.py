"""What is said of an evaluation that `confirm` repeated: its mean, and whose its weights are."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from evonas.objectives import Objective
from evonas.records import Evaluation, Status
from evonas.report.formats import counted, number

__all__ = ["mean_of_repeats", "repeats_text", "weights_json", "weights_text"]


def mean_of_repeats(evaluation: Evaluation) -> float | None:
    """Returns the mean of the first objective over the repeats that ended `ok`; None: of none."""
    values = _values(evaluation)
    return statistics.fmean(values) if values else None


def repeats_text(evaluation: Evaluation) -> str:
    """Returns what follows the values of an evaluation that was repeated; else an empty text.

    Example:
        >>> again = [Evaluation(n, "k", {}, Status.OK, (v,)) for n, v in enumerate((0.5, 0.6))]
        >>> repeats_text(Evaluation(3, "k", {}, Status.OK, (0.7,), seed=1, repeats=tuple(again)))
        ' in the search, mean 0.55 of 2 repeats'
    """
    mean = mean_of_repeats(evaluation)
    if mean is None:
        return ""
    # Where the search has no score for the point, the record of a repeat stands in for its own.
    is_repeat = any(repeat.seed == evaluation.seed for repeat in evaluation.repeats)
    where = "in one repeat" if is_repeat else "in the search"
    return f" {where}, mean {number(mean)} of {counted(len(_values(evaluation)), 'repeat')}"


def weights_text(evaluation: Evaluation, objectives: Sequence[Objective]) -> str:
    """Returns whose weights were kept and the score of exactly those; empty where none were.

    Example:
        >>> weights_text(Evaluation(3, "k", {}, Status.OK, (0.7,)), [])
        ''
    """
    training = evaluation.weights_of
    if training is None:
        return ""
    if training is evaluation:
        text = f"of the search (seed {training.seed})"
    else:
        text = f"of the first of {counted(len(evaluation.repeats), 'repeat')}"
        text += f" on fresh seeds (seed {training.seed})"
    if training.status is not Status.OK:
        return f"{text}, which ended {training.status}"
    pairs = zip(objectives, training.values, strict=True)
    return f"{text}: {', '.join(f'{each.name} {number(value)}' for each, value in pairs)}"


def weights_json(evaluation: Evaluation, objectives: Sequence[Objective]) -> dict[str, Any] | None:
    """Returns the same for programs; None where no weights were kept.

    `training` is `search` or `first repeat`, `scores` has each objective's score of these weights.
    """
    training = evaluation.weights_of
    if training is None:
        return None
    names = [objective.name for objective in objectives]
    return {
        "training": "search" if training is evaluation else "first repeat",
        "seed": training.seed,
        "status": training.status.value,
        "scores": dict(zip(names, training.values, strict=False)),
        "mean_of_repeats": mean_of_repeats(evaluation),
        "repeats": len(_values(evaluation)),
    }


def _values(evaluation: Evaluation) -> list[float]:
    return [each.values[0] for each in evaluation.repeats if each.status is Status.OK]
