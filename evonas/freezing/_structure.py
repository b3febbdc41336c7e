"""How a model is taken apart: units that own parameters, loose parameters, silent modules.

There is no table of architectures. A model is a tree of modules; what is repeated in it (the
elements of a `ModuleList`, a `Sequential` or a `ModuleDict`) are its blocks, and what stands beside
the repeated part is opened until it shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from evonas.freezing._calls import ModuleCall

__all__ = [
    "Granularity",
    "Item",
    "Structure",
    "is_bias",
    "is_dropout",
    "is_norm",
    "norm_parameters",
    "parents",
    "small_parameters",
    "walk",
]

Granularity = Literal["block", "stage", "layer"]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_NEVER = 1 << 60


@dataclass(slots=True)
class Item:
    """One piece of a model, in the order of its first run (or of registration).

    Attributes:
        path: A module's path, or a parameter's name.
        parent: The path of the module that registers it.
        kind: `unit`: a module that owns parameters; `loose`: a parameter of a module that was
            opened; `tied`: a module whose parameters are owned elsewhere; `silent`: a module
            without any parameter (a dropout, an activation).
        body: Whether it is, or holds, an element of the repeated part.
    """

    path: str
    parent: str
    kind: Literal["unit", "loose", "tied", "silent"]
    body: bool = False

    def is_inside(self, parent: str) -> bool:
        """Whether it lies in the subtree of `parent`."""
        return not parent or self.path.startswith(f"{parent}.")


def is_norm(module: nn.Module) -> bool:
    """Whether `module` is a normalisation layer (by its class's name: RMSNorm, LayerNorm2d, …)."""
    return re.search(r"norm\w*$", type(module).__name__, re.IGNORECASE) is not None


def norm_parameters(model: nn.Module) -> set[str]:
    """Returns the names of the parameters of normalisation layers."""
    return {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if is_norm(module)
        for name, _ in module.named_parameters(recurse=False)
    }


def is_bias(name: str) -> bool:
    """Whether a parameter is a bias, by the names that torch's modules give them.

    Example:
        >>> [is_bias(f"0.{name}") for name in ("bias", "in_proj_bias", "bias_ih_l0_reverse")]
        [True, True, True]
        >>> is_bias("0.parametrizations.bias.original"), is_bias("0.relative_position_bias_table")
        (True, False)
    """
    own = re.sub(r"\bparametrizations\.(\w+)\..*", r"\1", name).rpartition(".")[2]
    return re.fullmatch(r"(\w+_)?bias(_[kv]|_[ih]h(_l\d+)?(_reverse)?)?", own) is not None


def small_parameters(model: nn.Module) -> set[str]:
    """Returns the names of the parameters that are not decayed: biases, norms, vectors."""
    small = {name for name, p in model.named_parameters() if p.ndim < 2 or is_bias(name)}
    return small | norm_parameters(model)


def is_dropout(module: nn.Module) -> bool:
    """Whether `module` drops at random: Dropout and its kin, DropPath, StochasticDepth."""
    name = type(module).__name__
    return re.search(r"drop_?(out|path|block)|stochastic_?depth", name, re.IGNORECASE) is not None


@dataclass(slots=True)
class Structure:
    """A model's modules and parameters under their first names, and who owns what.

    Attributes:
        modules: Path to module, each module once.
        children: Path to the paths of its children.
        owned: Path to the names of the parameters in its subtree, each parameter once.
        direct: Path to the names of its own parameters.
        aliases: Parameter name to its other names (tied parameters).
        sizes: Parameter name to how many numbers it holds.
        runs: Path to the position of the first call in its subtree; None where no sample ran.
        called: Paths of the modules that a sample called.
        last: The parameters of the module that is called last, or registered last.
    """

    modules: dict[str, nn.Module]
    children: dict[str, list[str]]
    owned: dict[str, list[str]]
    direct: dict[str, list[str]]
    aliases: dict[str, list[str]]
    sizes: dict[str, int]
    runs: dict[str, int] | None = None
    called: frozenset[str] = frozenset()
    last: tuple[str, ...] = ()
    _holds: dict[tuple[str, bool], bool] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module, calls: Sequence[ModuleCall] | None = None) -> Structure:
        """Returns the structure of `model`; `calls` are those of a forward pass."""
        modules = dict(model.named_modules())
        first_name = {id(module): path for path, module in modules.items()}
        children = {
            path: [
                name
                for child, sub in module.named_children()
                if first_name[id(sub)] == (name := _join(path, child))
            ]
            for path, module in modules.items()
        }
        direct, others = _own_parameters(modules)
        owned: dict[str, list[str]] = {path: [] for path in modules}
        for path, names in direct.items():
            for above in [path, *parents(path)]:
                owned[above] += names
        runs: dict[str, int] | None = None
        if calls is not None:
            first = {call.path: call.start for call in reversed(calls)}
            for path, names in direct.items():
                # T5 runs `encoder.embed_tokens`, whose weight is registered first as `shared`.
                tied = [first[use] for name in names for use, _ in others[name] if use in first]
                if tied:
                    first[path] = min(first.get(path, _NEVER), *tied)
            runs = _subtree_runs(first, children)
        aliases = {name: [alias for _, alias in rest] for name, rest in others.items()}
        sizes = {name: model.get_parameter(name).numel() for name in aliases}
        called = frozenset(call.path for call in calls or ())
        last = _last_used(modules, others, modules if calls is None else [c.path for c in calls])
        return cls(modules, children, owned, direct, aliases, sizes, runs, called, last)

    def wrapped(self) -> Iterator[str]:
        """Yields the paths of the model and, where one module is all that it wraps, of that one."""
        path: str | None = ""
        while path is not None:
            yield path
            owning = [child for child in self.children[path] if self.owned[child]]
            path = owning[0] if len(owning) == 1 and not self.direct[path] else None

    def n_parameters(self, path: str) -> int:
        """Returns how many numbers the parameters in the subtree of `path` hold."""
        return sum(self.sizes[name] for name in self.owned[path])

    def never_run(self, path: str) -> bool:
        """Whether a sample ran, and no module in the subtree of `path` did."""
        return self.runs is not None and self.runs[path] == _NEVER

    def is_leaf(self, path: str) -> bool:
        """Whether there is nothing to open: no child owns a parameter.

        A module that uses its children's weights without calling them counts as one, too:
        MultiheadAttention, or whatever a sample shows to do so.
        """
        module = self.modules[path]
        # In its own tables: a wrapper may forward attributes to the model within.
        if isinstance(module, nn.MultiheadAttention) or "parametrizations" in module._modules:
            return True
        owning = [child for child in self.children[path] if self.owned[child]]
        return not owning or (path in self.called and all(map(self.never_run, owning)))

    def is_tied(self, path: str) -> bool:
        """Whether a module that owns nothing uses the parameters of others (a tied head)."""
        return any(True for _ in self.modules[path].parameters())

    def is_block_like(self, path: str) -> bool:
        """Whether a module could be one of a repeated kind: composite, with two weights or more.

        One weight and a norm make a `Conv2dNormActivation`, which is a layer.
        """
        if isinstance(self.modules[path], _CONTAINERS) or self.is_leaf(path):
            return False
        return sum(p.ndim > 1 for p in self.modules[path].parameters()) > 1

    def is_sequence(self, path: str) -> bool:
        """Whether `path` is a container whose elements are blocks, or sequences of blocks."""
        if not isinstance(self.modules[path], _CONTAINERS):
            return False
        elements = [child for child in self.children[path] if self.owned[child]]
        blocks = [c for c in elements if self.is_block_like(c) or self.is_sequence(c)]
        if isinstance(self.modules[path], nn.Sequential):
            return len(blocks) > 1 or 0 < len(blocks) == len(elements)
        return bool(blocks)

    def is_nested(self, path: str) -> bool:
        """Whether `path` is a sequence of sequences, or of stages."""
        return self.is_sequence(path) and any(
            self.is_sequence(child) or self.is_stage(child) for child in self.children[path]
        )

    def holds_sequence(self, path: str, *, nested: bool = False) -> bool:
        """Whether the subtree of `path`, itself included, holds a sequence of blocks.

        With `nested`, a sequence of sequences.
        """
        if (path, nested) not in self._holds:
            here = self.is_nested(path) if nested else self.is_sequence(path)
            self._holds[path, nested] = here or any(
                self.holds_sequence(child, nested=nested) for child in self.children[path]
            )
        return self._holds[path, nested]

    def is_stage(self, path: str) -> bool:
        """Whether an element of a sequence is a stage: a module around further blocks of one class.

        The blocks of a stage have a norm in them (Swin, ConvNeXt and ResNet as transformers has
        them); the experts of a mixture and the heads of an attention have none.
        """
        for inner in self._subtree(path):
            if not isinstance(self.modules[inner], _CONTAINERS):
                continue
            blocks = [
                type(self.modules[child])
                for child in self.children[inner]
                if self.is_block_like(child)
                and any(is_norm(module) for module in self.modules[child].modules())
            ]
            if len(blocks) > 1 and len(set(blocks)) == 1:
                return True
        return False

    def _subtree(self, path: str) -> list[str]:
        found = [path]
        for child in self.children[path]:
            found += self._subtree(child)
        return found


def walk(
    structure: Structure,
    granularity: Granularity,
    *,
    forced: Mapping[str, str] | None = None,
    opened: frozenset[str] = frozenset(),
) -> list[Item]:
    """Returns the pieces of a model in order.

    Args:
        structure: Of the model.
        granularity: `block` opens whatever holds a sequence, `stage` whatever holds a sequence of
            sequences, `layer` everything that has children with parameters.
        forced: Paths of modules and names of parameters that are pieces whatever else holds.
        opened: Paths that are opened too.
    """
    walker = _Walker(structure, granularity, forced or {}, opened)
    walker.descend("", "part")
    return _in_order(walker.items, structure.runs)


_Role = Literal["part", "element", "stage part", "stage element"]


class _Walker:
    """Goes down a model's tree; a role says where in it a module stands."""

    def __init__(
        self,
        structure: Structure,
        granularity: Granularity,
        forced: Mapping[str, str],
        opened: frozenset[str],
    ) -> None:
        self.structure = structure
        self.granularity = granularity
        self.forced = forced
        self.opened = {parent for path in forced for parent in parents(path)} | opened
        self.items: list[Item] = []

    def descend(self, path: str, role: _Role) -> None:
        self.items += [Item(name, path, "loose") for name in self.structure.direct[path]]
        below: _Role = "part"
        if self.structure.is_sequence(path):
            below = "stage element" if role == "stage part" else "element"
        elif role == "element":
            below = "stage part"
        for child in self.structure.children[path]:
            self._visit(child, path, below)

    def _visit(self, path: str, parent: str, role: _Role) -> None:
        if not self.structure.owned[path]:
            kind: Literal["tied", "silent"] = "tied" if self.structure.is_tied(path) else "silent"
            self.items.append(Item(path, parent, kind))
        elif path in self.opened or (path not in self.forced and self._opens(path, role)):
            self.descend(path, role)
        else:
            is_element = role.endswith("element") and self.structure.is_block_like(path)
            body = is_element or self.structure.holds_sequence(path)
            self.items.append(Item(path, parent, "unit", body))

    def _opens(self, path: str, role: _Role) -> bool:
        structure = self.structure
        if structure.is_leaf(path):
            return False
        if self.granularity == "layer":
            return True
        if self.granularity == "stage":
            return structure.holds_sequence(path, nested=True)
        if role == "part":
            # A plain Sequential of layers stands for its layers (VGG's features, a user's network).
            plain = type(structure.modules[path]) in _CONTAINERS
            several = sum(bool(structure.owned[c]) for c in structure.children[path]) > 1
            return structure.holds_sequence(path) or (plain and several)
        if role == "element":
            return structure.is_sequence(path) or structure.is_stage(path)
        return role == "stage part" and structure.is_sequence(path)


def _own_parameters(
    modules: Mapping[str, nn.Module],
) -> tuple[dict[str, list[str]], dict[str, list[tuple[str, str]]]]:
    """Returns parameter names by owner, and `(module, name)` of the other uses of each parameter.

    The first registered use owns, as in `named_parameters()`: so names do not depend on a sample.
    """
    uses: dict[int, list[tuple[str, str]]] = {}
    for path, module in modules.items():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                uses.setdefault(id(parameter), []).append((path, _join(path, name)))
    direct: dict[str, list[str]] = {path: [] for path in modules}
    others = {}
    for (path, name), *rest in uses.values():
        direct[path].append(name)
        others[name] = rest
    return direct, others


def _last_used(
    modules: Mapping[str, nn.Module],
    others: Mapping[str, list[tuple[str, str]]],
    order: Iterable[str],
) -> tuple[str, ...]:
    """Returns the first names of the parameters of the last module in `order` that has any."""
    owner = {alias: name for name, uses in others.items() for _, alias in uses}
    found: tuple[str, ...] = ()
    for path in order:
        names = [_join(path, n) for n, p in modules[path]._parameters.items() if p is not None]
        found = tuple(owner.get(name, name) for name in names) or found
    return found


def _subtree_runs(runs: Mapping[str, int], children: Mapping[str, list[str]]) -> dict[str, int]:
    """Returns for each path the first run of anything in its subtree."""
    result: dict[str, int] = {}

    def first(path: str) -> int:
        result[path] = min([runs.get(path, _NEVER), *(first(child) for child in children[path])])
        return result[path]

    first("")
    return result


def _in_order(items: Sequence[Item], runs: Mapping[str, int] | None) -> list[Item]:
    """Sorts by first run; what did not run stays behind the item it was registered after."""
    if runs is None:
        return list(items)
    keys: list[tuple[float, int]] = []
    for position, item in enumerate(items):
        if item.kind == "loose":  # right before the first thing that runs inside its module
            inside = [runs[i.path] for i in items if i.kind != "loose" and i.is_inside(item.parent)]
            keys.append((min(inside, default=_NEVER) - 0.5, position))
        elif runs[item.path] != _NEVER:
            keys.append((runs[item.path], position))
        else:
            keys.append((keys[-1][0] if keys else -1, position))
    return [items[position] for _, position in sorted(keys)]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def parents(path: str) -> list[str]:
    """Returns the paths of all modules around `path`, the nearest first, the root ("") last."""
    parts = path.split(".") if path else []
    return [".".join(parts[:length]) for length in range(len(parts) - 1, -1, -1)]
