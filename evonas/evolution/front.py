"""The Pareto front: evaluations that no other beats in one objective without losing in another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from deap import tools

from evonas.evolution.individual import Fitness, Individual
from evonas.objectives import Limits, Objective
from evonas.records import Evaluation, Status

__all__ = ["pareto_front"]


def pareto_front(
    evaluations: Iterable[Evaluation], objectives: Sequence[Objective], limits: Limits
) -> list[Evaluation]:
    """Returns the `ok` evaluations that no other dominates, sorted by the first objective.

    Args:
        evaluations: Of any status.
        objectives: What their values are.
        limits: What they must keep to; where none does, those least far out count.
    """
    weights = [objective.weight for objective in objectives]
    ok = (entry for entry in evaluations if entry.status is Status.OK)
    entries = [
        Individual([entry], Fitness(weights, entry.values))
        for entry in limits.nearest(ok, objectives)
    ]
    if len(objectives) == 1:  # DEAP's sorting takes two or more
        best = max((individual.fitness.wvalues for individual in entries), default=None)
        return [found[0] for found in entries if found.fitness.wvalues == best]
    if not entries:
        return []
    front = tools.sortLogNondominated(entries, len(entries), first_front_only=True)
    found = [individual[0] for individual in front]

    def rank(entry: Evaluation) -> tuple[list[float], int]:
        pairs = zip(weights, entry.values, strict=True)
        return [-weight * value for weight, value in pairs], entry.number

    return sorted(found, key=rank)
