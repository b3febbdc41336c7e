"""From the pieces of a model to its blocks: what belongs together, and where loose things go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evonas.freezing._structure import Item, Structure, is_dropout, is_norm

__all__ = ["Group", "group_items"]


@dataclass(slots=True, eq=False)
class Group:
    """A block in the making; `items` in order."""

    name: str = ""
    items: list[Item] = field(default_factory=list)
    is_head: bool = False

    def paths(self, *kinds: str) -> tuple[str, ...]:
        """Returns the paths of its items of these kinds."""
        return tuple(item.path for item in self.items if item.kind in kinds)


def group_items(
    structure: Structure,
    items: Sequence[Item],
    *,
    merge: bool = True,
    forced: Mapping[str, str] | None = None,
) -> list[Group]:
    """Returns the groups of `items` in order; each item that owns or drops anything is in one.

    Args:
        structure: Of the model.
        items: What `walk` returned.
        merge: Whether layers before the first repeated block make one stem, and a norm joins the
            layer before it.
        forced: Path or parameter name to the name of the group that it makes.
    """
    owning = [item for item in items if item.kind in ("unit", "loose")]
    groups = _Grouping(structure, owning, merge, forced or {}).run()
    of_item = {id(item): group for group in groups for item in group.items}
    _mark_heads(structure, groups)
    _place_silent(structure, items, of_item)
    order = {id(item): position for position, item in enumerate(items)}
    for group in groups:
        group.items.sort(key=lambda item: order[id(item)])
    for group in groups:
        group.name = group.name or _name(structure, group, groups)
    return groups


def _mark_heads(structure: Structure, groups: Sequence[Group]) -> None:
    """Sets `is_head`.

    In a transformers model the head is what lies outside the base model, which is exactly what a
    checkpoint of the base model does not hold. Elsewhere it is the last group, unless that is one
    of the repeated blocks, or weights tied to an earlier block come after it.
    """
    for path in structure.wrapped():
        # Of the class: a wrapper may forward attributes to the transformers model within.
        prefix = getattr(type(structure.modules[path]), "base_model_prefix", None)
        if not isinstance(prefix, str):
            continue
        base = f"{path}.{prefix}" if path else prefix
        for group in groups:
            units = group.paths("unit")
            inside = any(f"{unit}.".startswith(f"{base}.") for unit in units)
            group.is_head = base in structure.modules and bool(units) and not inside
        return
    if len(groups) < 2 or any(item.body for item in groups[-1].items):
        return
    units = groups[-1].paths("unit")
    own = {*groups[-1].paths("loose"), *(name for path in units for name in structure.owned[path])}
    groups[-1].is_head = own.issuperset(structure.last)


class _Grouping:
    """Runs once over the owning items."""

    def __init__(
        self, structure: Structure, items: list[Item], merge: bool, forced: Mapping[str, str]
    ) -> None:
        self.structure = structure
        self.items = items
        self.merge = merge
        self.forced = forced
        bodies = [i for i, item in enumerate(items) if item.body]
        self.first_body = bodies[0] if bodies and merge else 0
        self.groups: list[Group] = []
        self.named: dict[str, Group] = {}
        self.pending: list[Item] = []  # loose parameters that wait for the next unit

    def run(self) -> list[Group]:
        for position, item in enumerate(self.items):
            if item.path in self.forced:
                self._force(item)
            elif item.kind == "loose":
                self._loose(position, item)
            elif self._joins(position, item):
                self._add(self.groups[-1], item)
            else:
                self._add(self._new(), item)
        if self.pending:
            group = self.groups[-1] if self.groups else self._new()
            group.items += self.pending
        return self.groups

    def _new(self) -> Group:
        self.groups.append(Group())
        return self.groups[-1]

    def _add(self, group: Group, item: Item) -> None:
        group.items += [*self.pending, item]
        self.pending = []

    def _force(self, item: Item) -> None:
        name = self.forced[item.path]
        if name not in self.named:
            self.named[name] = self._new()
            self.named[name].name = name
        self.named[name].items.append(item)

    def _loose(self, position: int, item: Item) -> None:
        following = next((i for i in self.items[position:] if i.kind == "unit"), None)
        inside = following is not None and following.is_inside(item.parent)
        in_stem = position < self.first_body
        # Before the body it belongs to the stem, also where the next unit is a block of the body
        # (ViT's encoder.pos_embedding).
        waits = inside and not (in_stem and following is not None and following.body)
        if self.groups and not waits and not self.groups[-1].name:
            self.groups[-1].items.append(item)
        else:
            self.pending.append(item)

    def _joins(self, position: int, item: Item) -> bool:
        """Whether a unit belongs to the group before it."""
        if not self.merge or not self.groups or self.groups[-1].name:
            return False
        units = [i for i in self.groups[-1].items if i.kind == "unit"]
        if not units or not all(map(self._is_layer, [item, units[-1]])):
            return False
        if position < self.first_body:
            return True
        previous = self.items[position - 1]
        return (
            previous is units[-1]
            and previous.parent == item.parent
            and is_norm(self.structure.modules[item.path])
            and not is_norm(self.structure.modules[previous.path])
        )

    def _is_layer(self, item: Item) -> bool:
        return self.structure.is_leaf(item.path) and not item.body


def _place_silent(
    structure: Structure, items: Sequence[Item], of_item: Mapping[int, Group]
) -> None:
    """Puts modules without parameters into the group of a neighbour.

    One that computes (an activation, a pooling) goes with what comes before it, so that a frozen
    prefix ends behind it. A dropout goes with a neighbour of the same parent: GPT-2's
    `transformer.drop` with the embeddings before it, BERT's `dropout` with the classifier after
    it. One right before the head goes with the head, which keeps it however much is frozen.
    """
    for position, item in enumerate(items):
        if item.kind != "silent":
            continue
        before = next((i for i in reversed(items[:position]) if id(i) in of_item), None)
        after = next((i for i in items[position:] if id(i) in of_item), None)
        neighbour = before or after
        if any(map(is_dropout, structure.modules[item.path].modules())):
            near = [i for i in (before, after) if i is not None]
            siblings = [i for i in near if i.parent == item.parent]
            relatives = [i for i in near if i.is_inside(item.parent)]
            neighbour = next(iter([*siblings, *relatives]), neighbour)
            if after is not None and of_item[id(after)].is_head:
                neighbour = after
        if neighbour is not None:
            of_item[id(neighbour)].items.append(item)


def _name(structure: Structure, group: Group, groups: Sequence[Group]) -> str:
    units = group.paths("unit")
    if len(units) < 2:
        return (units or group.paths("loose"))[0]
    after_a_layer = all(is_norm(structure.modules[path]) for path in units[1:])
    in_stem = group is groups[0] and any(i.body for g in groups for i in g.items)
    if after_a_layer and not in_stem:
        return units[0]
    kinds = [type(structure.modules[path]).__name__.lower() for path in units]
    name = "embeddings" if all("embedding" in k or "norm" in k for k in kinds) else "stem"
    taken = {*structure.modules, *structure.aliases, *(g.name for g in groups)}
    while name in taken:
        name += "_"
    return name
