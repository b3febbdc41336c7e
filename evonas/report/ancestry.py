"""The champion's family tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evonas.records import Evaluation, Status
from evonas.report.style import (
    BEST,
    GREY,
    MAIN,
    graph_objects,
    new_figure,
    safe,
    shown,
    whole_ticks,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from evonas.run.result import Result

__all__ = ["Ancestry", "ancestry", "family_tree"]

_MAX_ANCESTORS = 200


@dataclass(frozen=True)
class Ancestry:
    """Whom the champion descends from.

    Attributes:
        members: Number to evaluation: the champion and its ancestors, the nearest first.
        parents: Number to the numbers of the parents that are members.
        generation: Number to the generation in which it was proposed.
        n_left_out: More distant ancestors than were asked for.
    """

    members: dict[int, Evaluation]
    parents: dict[int, tuple[int, ...]]
    generation: dict[int, int]
    n_left_out: int

    @property
    def line(self) -> list[int]:
        """The champion, its best parent, that one's best parent, and so on."""
        found = [next(iter(self.members))]
        while above := self.parents[found[-1]]:
            # Members are listed from the nearest on; parents always come before their children.
            found.append(above[0])
        return found


def ancestry(result: Result, *, most: int = _MAX_ANCESTORS) -> Ancestry:
    """Returns the champion's ancestors, the nearest `most` of them.

    Raises:
        EvonasError: No evaluation has a fitness.
    """
    known = {entry.number: entry for entry in result.evaluations}
    champion = result.champion
    known.setdefault(champion.number, champion)
    born = {plan.evaluation: plan for plan in result.proposals if not plan.reused}
    order = {champion.number: None}
    queue = [champion.number]
    for number in queue:  # grows while it is walked: breadth first
        plan = born.get(number)
        for parent in plan.parents if plan else ():
            # A parent was evaluated before; anything else is a damaged record, and a circle.
            if parent in known and parent < number and parent not in order:
                order[parent] = None
                queue.append(parent)
    members = {number: known[number] for number in queue[: most + 1]}
    weight = result.objectives[0].weight
    parents = {
        number: tuple(
            sorted(
                {parent for parent in born[number].parents if parent in members and parent < number}
                if number in born
                else (),
                key=lambda parent: (-_value(members[parent], weight), parent),
            )
        )
        for number in members
    }
    generation = {number: born[number].generation if number in born else 0 for number in members}
    return Ancestry(members, parents, generation, len(queue) - len(members))


def _value(entry: Evaluation, weight: float) -> float:
    return entry.values[0] * weight if entry.status is Status.OK else -np.inf


def family_tree(result: Result, *, most: int = _MAX_ANCESTORS) -> Figure:
    """Returns the champion's ancestors by generation and fitness, its line of best parents in bold.

    Args:
        result: Of the run.
        most: Ancestors drawn, the nearest.

    Raises:
        ValueError: The champion has no parents on record.
        EvonasError: No evaluation has a fitness.
    """
    tree = ancestry(result, most=most)
    drawn = {number: entry for number, entry in tree.members.items() if entry.status is Status.OK}
    if len(drawn) < 2:
        raise ValueError(
            f"the champion (evaluation {result.champion.number}) has no parents on record: it was "
            f"{_origin(result)}"
        )
    several = len(set(tree.generation.values())) > 1
    place = tree.generation if several else {number: number for number in drawn}
    go = graph_objects()
    line = [number for number in tree.line if number in drawn]
    edges = [
        (parent, child) for child in drawn for parent in tree.parents[child] if parent in drawn
    ]
    path = list(zip(line[1:], line, strict=False))
    traces = [
        _edges("parent to child", edges, place, drawn, {"color": GREY, "width": 1}),
        _edges("line of best parents", path, place, drawn, {"color": BEST, "width": 3}),
        go.Scatter(
            x=np.array([place[number] for number in drawn]),
            y=np.array([entry.values[0] for entry in drawn.values()], dtype=np.float64),
            mode="markers", name="ancestor", text=[_hover(tree, number) for number in drawn],
            hovertemplate="%{text}<extra></extra>",
            marker={
                "size": [15 if number == line[0] else 8 for number in drawn],
                "color": [BEST if number in line else MAIN for number in drawn],
                "line": {"width": 1, "color": "white"},
            },
        ),
    ]  # fmt: skip
    left_out = f", {tree.n_left_out:,} more distant ones left out" if tree.n_left_out else ""
    who = "ancestor" if len(drawn) == 2 else "ancestors"
    return new_figure(
        f"the champion and its {len(drawn) - 1:,} {who}{left_out}",
        traces,
        height=440,
        xaxis={
            "title": "generation" if several else "evaluation",
            "tickformat": "d",
            **whole_ticks(max(place.values()) - min(place.values())),
        },
        yaxis={"title": safe(result.objectives[0].name)},
    )


def _origin(result: Result) -> str:
    """Returns where a champion without parents comes from, as far as the record tells."""
    record, champion = result.record, result.champion
    if champion.number < 0:
        return "given to confirm"
    if champion.number < record.n_copied:
        return "copied from another run"
    if champion.genes in record.initial:
        return "given as a start"
    n_initial = record.strategy.get("n_initial")  # of a strategy that proposes by a model
    if n_initial is not None and champion.number >= n_initial:
        return f"proposed by the model of {record.strategy_name}, which learns from all evaluations"
    return "drawn at random, or proposed without parents"


def _edges(
    label: str,
    pairs: list[tuple[int, int]],
    place: dict[int, int],
    drawn: dict[int, Evaluation],
    line: dict[str, Any],
) -> Any:
    x = [at for parent, child in pairs for at in (place[parent], place[child], np.nan)]
    y = [
        at
        for parent, child in pairs
        for at in (drawn[parent].values[0], drawn[child].values[0], np.nan)
    ]
    return graph_objects().Scatter(
        x=np.array(x, dtype=np.float64), y=np.array(y, dtype=np.float64), mode="lines", name=label,
        line=line, hoverinfo="skip",
    )  # fmt: skip


def _hover(tree: Ancestry, number: int) -> str:
    """Returns who it is, and what sets it apart from its best parent."""
    entry = tree.members[number]
    lines = [f"evaluation {number}: {entry.values[0]:.5g}"]
    if parents := tree.parents[number]:
        lines.append(f"parents: {', '.join(map(str, parents))}")
        before = tree.members[parents[0]].genes
        changed = [
            f"{safe(name, 24)}: {_gene(before, name)} → {_gene(entry.genes, name)}"
            for name in {**before, **entry.genes}
            if before.get(name) != entry.genes.get(name)
        ]
        lines += [f"changed against {parents[0]}:", *changed[:8]]
        if len(changed) > 8:
            lines.append(f"… and {len(changed) - 8} more")
    return "<br>".join(lines)


def _gene(genes: dict[str, Any], name: str) -> str:
    return safe(shown(genes[name]), 24) if name in genes else "–"
