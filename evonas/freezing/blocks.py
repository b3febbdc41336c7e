"""The freezable blocks of any model, found from its modules and one forward pass."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, get_args

import torch
from torch import nn

from evonas.arguments import check_bool, check_choice, check_list
from evonas.freezing._calls import ModuleCall, record_calls, rng_kept
from evonas.freezing._grouping import Group, group_items
from evonas.freezing._structure import Granularity, Structure, is_dropout, is_norm, parents, walk
from evonas.training.passes import modes_kept

__all__ = ["Block", "Granularity", "Patterns", "find_blocks"]

Patterns = Sequence[str] | Mapping[str, str | Sequence[str]]


@dataclass(frozen=True, repr=False)
class Block:
    """A part of a model that is frozen or trained as a whole: names only, no tensors.

    So it serves every instance of the same architecture, compares, and pickles small. All names
    are those of `named_modules()` and `named_parameters()`.

    Attributes:
        name: A module's path; `stem` or `embeddings` where several modules before the first
            repeated block belong together.
        modules: Paths of its modules, each with its whole subtree.
        parameters: Names of all its parameters.
        loose_parameters: Those of them that lie outside `modules` (ViT's `class_token`).
        dropouts: Paths of the dropout modules in it.
        batch_norms: Paths of the modules in it that keep running statistics.
        tied: Other names under which its parameters are used (a language-model head).
        n_parameters: How many numbers its parameters hold.
        is_head: Whether it is the model's head, which is freshly initialised as a rule.
    """

    name: str
    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    loose_parameters: tuple[str, ...] = ()
    dropouts: tuple[str, ...] = ()
    batch_norms: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    n_parameters: int = 0
    is_head: bool = False

    def __repr__(self) -> str:
        extra = "" if self.modules == (self.name,) else f", modules={list(self.modules)}"
        extra += f", loose={list(self.loose_parameters)}" if self.loose_parameters else ""
        extra += f", tied={list(self.tied)}" if self.tied else ""
        extra += ", head" if self.is_head else ""
        return f"Block({self.name!r}, {self.n_parameters:,} parameters{extra})"


def find_blocks(
    model: nn.Module,
    sample: Any = None,
    *,
    granularity: Granularity = "block",
    blocks: Patterns | None = None,
    include_head: bool = False,
) -> tuple[Block, ...]:
    """Returns the freezable blocks of `model`, in the order in which a forward pass runs them.

    What is repeated in a model (encoder layers, residual blocks) are its blocks; what comes before
    is its embeddings or stem, what comes after (a final norm, a pooler) one block each. With the
    head, every parameter and every dropout and batch norm is in exactly one block; a tied
    parameter belongs to the one that uses it first, which says so in `tied`.

    The head is what a transformers model has outside its base model, elsewhere the last block
    (where its weights are its own). It is left out, so it stays trainable, unless `include_head`.

    Args:
        model: Left unchanged, random numbers included; run once, in eval mode, if there is a
            sample.
        sample: One batch: a tensor, a mapping of keyword arguments or a tuple of positional ones.
            None: the order is that of registration, which most models register as they run.
        granularity: `block`: each repeated block. `stage`: what holds them (`layer1`, `encoder`);
            with a sample, of a flat list of blocks those of one output shape (EfficientNet).
            `layer`: each module that has parameters and nothing inside.
        blocks: Patterns of module paths in place of the rules: each module that matches is a
            block. `*` stands for anything but a dot. A pattern that fits no full path may fit the
            end of one (`encoder.layer.*` in a model that calls it `bert.encoder.layer.0`). A
            mapping `{name: patterns}` makes one block of all its matches, which may be parameters
            too. Modules that no pattern matches stay trainable.
        include_head: Whether the head is among them.

    Raises:
        TypeError: `model` is not a module, or a pattern not a string.
        ValueError: The model has no parameters, only one block, or a block that the forward pass
            of `sample` never runs; a pattern matches nothing, or what another one matches.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))
        >>> find_blocks(net)
        (Block('0', 24 parameters, modules=['0', '1']), Block('2', 72 parameters))
        >>> [block.name for block in find_blocks(net, include_head=True)]
        ['0', '2', '3']
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    check_choice("granularity", granularity, get_args(Granularity))
    check_bool("include_head", include_head)
    name = type(model).__name__
    if not any(True for _ in model.parameters()):
        raise ValueError(
            f"{name} has no parameters, so nothing of it can be frozen: "
            f"pass a model with at least two blocks that own parameters"
        )
    calls = None
    if sample is not None:
        with modes_kept(model), rng_kept(model):
            model.eval()  # training would update BatchNorm's statistics
            calls = record_calls(model, sample, _shape if granularity == "stage" else None)
    structure = Structure.of(model, calls)
    found = _found(structure, granularity, calls or ())
    if blocks is not None:
        return _matched(structure, blocks, found, name)
    if len(found) < 2:
        raise ValueError(
            f"a freeze mask needs a model of at least two blocks, got one in {name}: "
            f"pass granularity='layer', or the whole model rather than a part of it"
        )
    _check_all_run(structure, found, name)
    chosen = tuple(block for block in found if include_head or not block.is_head)
    if not chosen:
        raise ValueError(
            f"no block of {name} was found beside its head ({', '.join(b.name for b in found)}): "
            "say which modules are blocks as blocks=[...], or pass include_head=True"
        )
    return chosen


def _found(
    structure: Structure, granularity: Granularity, calls: Sequence[ModuleCall]
) -> list[Block]:
    groups = _opened(structure, "block" if granularity == "stage" else granularity, set(), 1)
    if granularity == "stage":
        heads = [path for group in groups if group.is_head for path in group.paths("unit")]
        opened = {p for path in heads for p in parents(path)}
        groups = _opened(structure, granularity, opened, 2)
        if stages := _stages_by_shape(structure, groups, calls):
            items = walk(structure, granularity, forced=stages, opened=frozenset(opened))
            groups = group_items(structure, items, forced=stages)
    return [_block(structure, group) for group in groups]


def _stages_by_shape(
    structure: Structure, groups: Sequence[Group], calls: Sequence[ModuleCall]
) -> dict[str, str]:
    """Returns the name of the stage of each block of a flat sequence: those of one output shape.

    EfficientNets have all their blocks in one list. Where all blocks have one shape, as in a
    transformer, or each its own, there is nothing to divide.
    """
    shapes = {call.path: call.output for call in calls}
    found: dict[str, str] = {}
    for sequence in (path for group in groups for path in group.paths("unit")):
        if not structure.is_sequence(sequence) or structure.is_nested(sequence):
            continue
        blocks = [child for child in structure.children[sequence] if structure.owned[child]]
        stages = [list(stage) for _, stage in groupby(blocks, key=shapes.get)]
        if None in map(shapes.get, blocks) or not 1 < len(stages) < len(blocks):
            continue
        for stage in stages:
            last = stage[-1].rpartition(".")[2]
            name = stage[0] if len(stage) == 1 else f"{stage[0]}-{last}"
            found |= dict.fromkeys(stage, name)
    return found


def _shape(output: Any) -> tuple[int, ...] | None:
    """Returns the shape of one example in what a module returned, None where it is no tensor."""
    return tuple(output.shape[1:]) if isinstance(output, torch.Tensor) else None


def _opened(
    structure: Structure, granularity: Granularity, opened: set[str], n_blocks: int
) -> list[Group]:
    """Opens the largest module until `n_blocks` beside the head (norms aside) show."""
    while True:
        items = walk(structure, granularity, opened=frozenset(opened))
        groups = group_items(structure, items, merge=granularity != "layer")
        units = [path for group in groups if not group.is_head for path in group.paths("unit")]
        closed = [path for path in units if not structure.is_leaf(path)]
        weighty = [path for path in units if not is_norm(structure.modules[path])]
        if not closed or (len(weighty) >= n_blocks and len(groups) > 1):
            return groups
        opened.add(max(closed, key=structure.n_parameters))


def _block(structure: Structure, group: Group) -> Block:
    modules, loose = group.paths("unit", "silent"), group.paths("loose")
    units = group.paths("unit")
    parameters = [*loose, *(name for path in units for name in structure.owned[path])]
    inside = {
        path: module
        for path, module in structure.modules.items()
        if any(path == top or path.startswith(f"{top}.") for top in modules)
    }
    return Block(
        name=group.name,
        modules=modules,
        parameters=tuple(parameters),
        loose_parameters=loose,
        dropouts=tuple(p for p, m in inside.items() if is_dropout(m) and not structure.owned[p]),
        batch_norms=tuple(p for p, m in inside.items() if "running_mean" in m._buffers),
        tied=tuple(alias for name in parameters for alias in structure.aliases[name]),
        n_parameters=sum(structure.sizes[name] for name in parameters),
        is_head=group.is_head,
    )


def _check_all_run(structure: Structure, blocks: Iterable[Block], name: str) -> None:
    never = [
        block.name
        for block in blocks
        if block.modules and all(structure.never_run(path) for path in block.modules)
    ]
    if never:
        raise ValueError(
            f"every block must run in a forward pass of the sample, but {name} never ran "
            f"{', '.join(never)} (in eval mode): pass another sample, or name the blocks to use "
            f"as blocks=[...]"
        )


def _matched(
    structure: Structure, patterns: Patterns, found: Sequence[Block], name: str
) -> tuple[Block, ...]:
    forced = _forced(structure, patterns, found, name)
    items = walk(structure, "block", forced=forced)
    groups = group_items(structure, items, forced=forced)
    names = set(forced.values())
    blocks = [_block(structure, g) for g in groups if g.name in names]
    _check_all_run(structure, blocks, name)
    return tuple(blocks)


def _forced(
    structure: Structure, patterns: Patterns, found: Sequence[Block], name: str
) -> dict[str, str]:
    """Returns the block name of each matched module path or parameter name."""
    named: list[tuple[str | None, str]] = []
    if not isinstance(patterns, Mapping):
        listed = check_list("blocks", patterns, "patterns, or a dict of name to patterns")
        named = [(None, pattern) for pattern in listed]
    else:
        named = [
            (block, pattern)
            for block, those in patterns.items()
            for pattern in (
                [those] if isinstance(those, str) else check_list("blocks", those, "patterns")
            )
        ]
    if not named:
        raise ValueError("blocks must hold at least one pattern, got none")
    forced: dict[str, str] = {}
    origin: dict[str, str] = {}
    for block, pattern in named:
        if not isinstance(pattern, str):
            raise TypeError(f"a pattern of blocks must be a string, got {type(pattern).__name__}")
        matches = _matches(structure, pattern, found, name)
        for path in matches:
            for other, by in origin.items():
                if path == other or other in parents(path) or path in parents(other):
                    raise ValueError(
                        f"freeze pattern {pattern!r} matches {path!r} of {name}, and {by!r} "
                        f"matches {other!r}: each parameter can be in one block only"
                    )
        forced |= {path: block or default for path, default in matches.items()}
        origin |= dict.fromkeys(matches, pattern)
    return forced


def _matches(
    structure: Structure, pattern: str, found: Sequence[Block], name: str
) -> dict[str, str]:
    """Returns what `pattern` matches, each with the name its block would have."""
    for block in found:
        if block.name == pattern and block.name not in structure.modules:
            parts = [path for path in block.modules if structure.owned[path]]
            return dict.fromkeys([*parts, *block.loose_parameters], pattern)
    expression = "[^.]*".join(map(re.escape, pattern.split("*")))
    modules = [path for path in structure.modules if path and structure.owned[path]]
    for start in ("", r"(?:.*\.)?"):
        for names in (modules, list(structure.aliases)):
            matching = [path for path in names if re.fullmatch(start + expression, path)]
            if matching:
                return {path: path for path in matching}
    raise ValueError(
        f"freeze pattern {pattern!r} matches no block of {name}; "
        f"its blocks are: {', '.join(block.name for block in found)}"
    )
