"""What strategies for a single objective check."""

from __future__ import annotations

from evonas.strategies.base import SearchContext, Strategy

__all__ = ["require_one_objective"]


def require_one_objective(strategy: Strategy, context: SearchContext) -> None:
    """Refuses several objectives.

    Raises:
        ValueError: There are several.
    """
    if len(context.objectives) != 1:
        names = ", ".join(objective.name for objective in context.objectives)
        raise ValueError(
            f"{strategy.name} optimises one objective, got {len(context.objectives)} ({names}): "
            "NSGA2 and SurrogateEvolution take several"
        )
