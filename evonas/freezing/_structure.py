"""How a model is taken apart: units that own parameters, loose parameters, silent modules.

There is no table of architectures. A model is a tree of modules; what is repeated in it (the
elements of a `ModuleList`, a `Sequential` or a `ModuleDict`) are its blocks, and what stands beside
the repeated part is opened until it shows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from evonas.freezing._calls import Call

__all__ = ["Granularity", "Item", "Structure", "is_dropout", "is_norm", "walk"]

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


def is_norm(module: nn.Module) -> bool:
    """Whether `module` is a normalisation layer (by its class's name: RMSNorm, LayerNorm2d, …)."""
    return re.search(r"norm\w*$", type(module).__name__, re.IGNORECASE) is not None


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
        runs: Path to the position of its first call; None where no sample ran.
    """

    modules: dict[str, nn.Module]
    children: dict[str, list[str]]
    owned: dict[str, list[str]]
    direct: dict[str, list[str]]
    aliases: dict[str, list[str]]
    sizes: dict[str, int]
    runs: dict[str, int] | None = None
    _body: dict[str, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module, calls: Sequence[Call] | None = None) -> Structure:
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
        runs: dict[str, int] | None = None
        if calls is not None:
            runs = {}
            for call in calls:
                runs.setdefault(call.path, call.start)
        direct, aliases = _own_parameters(modules, runs)
        owned: dict[str, list[str]] = {path: [] for path in modules}
        for path, names in direct.items():
            for ancestor in _ancestors(path):
                owned[ancestor] += names
        if runs is not None:
            runs = _subtree_runs(runs, children)
            for path, names in children.items():
                children[path] = _by_first_run(names, runs)
        sizes = {name: model.get_parameter(name).numel() for name in aliases}
        return cls(modules, children, owned, direct, aliases, sizes, runs)

    def n_parameters(self, path: str) -> int:
        """Returns how many numbers the parameters in the subtree of `path` hold."""
        return sum(self.sizes[name] for name in self.owned[path])

    def never_run(self, path: str) -> bool:
        """Whether a sample ran, and no module in the subtree of `path` did."""
        return self.runs is not None and self.runs[path] == _NEVER

    def is_leaf(self, path: str) -> bool:
        """Whether there is nothing to open: no child owns a parameter.

        MultiheadAttention counts as one: it uses the weights of its child without calling it.
        """
        module = self.modules[path]
        if isinstance(module, nn.MultiheadAttention) or hasattr(module, "parametrizations"):
            return True
        return not any(self.owned[child] for child in self.children[path])

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

    def holds_sequence(self, path: str) -> bool:
        """Whether the subtree of `path`, itself included, holds a sequence of blocks."""
        if path not in self._body:
            self._body[path] = self.is_sequence(path) or any(
                self.holds_sequence(child) for child in self.children[path]
            )
        return self._body[path]

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
        granularity: `block` opens whatever holds a sequence, `layer` everything that has children
            with parameters, `stage` only the root and `opened`.
        forced: Paths of modules and names of parameters that are pieces whatever else holds.
        opened: Paths that are opened too.
    """
    items: list[Item] = []
    forced = forced or {}
    inner = {ancestor for path in forced for ancestor in _ancestors(path)} - set(forced)

    def open_up(path: str) -> bool:
        if not path or path in inner or path in opened:
            return True
        if structure.is_leaf(path) or granularity == "stage":
            return False
        if granularity == "layer" or structure.holds_sequence(path):
            return True
        # A plain Sequential of layers stands for its layers (VGG's features, a user's network).
        plain = type(structure.modules[path]) in _CONTAINERS
        return plain and sum(bool(structure.owned[c]) for c in structure.children[path]) > 1

    def visit(path: str, parent: str) -> None:
        if not structure.owned[path]:
            items.append(Item(path, parent, "tied" if structure.is_tied(path) else "silent"))
        elif path not in forced and open_up(path):
            descend(path)
        else:
            items.append(Item(path, parent, "unit", structure.holds_sequence(path)))

    def descend(path: str) -> None:
        items.extend(Item(name, path, "loose") for name in structure.direct[path])
        sequence = granularity == "block" and structure.is_sequence(path)
        for child in structure.children[path]:
            if not sequence or not structure.owned[child]:
                visit(child, path)
                continue
            opens = child in inner or structure.is_sequence(child) or structure.is_stage(child)
            if child not in forced and opens:
                element(child, path)
            else:
                items.append(Item(child, path, "unit", body=True))

    def element(path: str, parent: str) -> None:
        # Inside a stage the sequence is opened once more; its elements are blocks.
        if structure.is_sequence(path) or path in inner:
            descend(path)
            return
        items.extend(Item(name, path, "loose") for name in structure.direct[path])
        for child in structure.children[path]:
            if structure.is_sequence(child):
                for block in structure.children[child]:
                    kind: Literal["unit", "silent"] = (
                        "unit" if structure.owned[block] else "silent"
                    )
                    items.append(Item(block, child, kind, body=kind == "unit"))
            else:
                visit(child, path)

    descend("")
    return items


def _own_parameters(
    modules: Mapping[str, nn.Module], runs: Mapping[str, int] | None
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Returns direct parameters by module and the aliases; of tied names the first to run owns."""
    names: dict[int, list[tuple[int, str, str]]] = {}
    for path, module in modules.items():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                run = _NEVER if runs is None else runs.get(path, _NEVER)
                names.setdefault(id(parameter), []).append((run, path, _join(path, name)))
    direct: dict[str, list[str]] = {path: [] for path in modules}
    aliases = {}
    for entries in names.values():
        # A stable sort by first run alone: where nothing ran, the first registered name owns.
        owner, *others = sorted(entries, key=lambda entry: entry[0])
        direct[owner[1]].append(owner[2])
        aliases[owner[2]] = [entry[2] for entry in others]
    return direct, aliases


def _subtree_runs(runs: Mapping[str, int], children: Mapping[str, list[str]]) -> dict[str, int]:
    """Returns for each path the first run of anything in its subtree."""
    result: dict[str, int] = {}

    def first(path: str) -> int:
        result[path] = min([runs.get(path, _NEVER), *(first(child) for child in children[path])])
        return result[path]

    first("")
    return result


def _by_first_run(paths: Sequence[str], runs: Mapping[str, int]) -> list[str]:
    """Sorts by first run; what never ran stays behind the sibling it was registered after."""
    keys: list[tuple[int, int]] = []
    latest = -1
    for position, path in enumerate(paths):
        latest = latest if runs[path] == _NEVER else runs[path]
        keys.append((latest, position))
    return [path for _, path in sorted(zip(keys, paths, strict=True))]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _ancestors(path: str) -> list[str]:
    """Returns `path`, its ancestors, and the root ("")."""
    parts = path.split(".") if path else []
    return [".".join(parts[:length]) for length in range(len(parts), -1, -1)]
