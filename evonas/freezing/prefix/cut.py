"""Where a model can be cut behind a frozen prefix, read off its calls on two small batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree  # transformers registers its output classes there

from evonas.freezing._calls import ModuleCall, record_calls, rng_kept
from evonas.freezing._structure import parents
from evonas.freezing.blocks import Block
from evonas.freezing.mask import frozen_subtrees
from evonas.freezing.torch_workarounds import padded_tensors
from evonas.training.passes import modes_kept

__all__ = ["Cut", "LeafRule", "NoCut", "OutputRule", "Probe", "Trace"]

_BATCH, _LENGTH = "batch", "length"
_CONSTANTS = (type(None), bool, int, float, str)


class NoCut(Exception):
    """This depth cannot be cut; the message says why."""


@dataclass(frozen=True)
class LeafRule:
    """The shape of one tensor that a module returns, for any batch.

    Attributes:
        dims: Each a size, or `batch`, or `length` (the padded length).
        dtype: Of the tensor, as the trace saw it; see `dtypes_at`.
        order: Its dimensions as they are stored: batch, length, then by stride, so that
            channels-last stays channels-last.
    """

    dims: tuple[int | str, ...]
    dtype: torch.dtype
    order: tuple[int, ...]

    def shape(self, batch: int, length: int) -> tuple[int, ...]:
        """Returns the shape for a batch."""
        sizes = {_BATCH: batch, _LENGTH: length}
        return tuple(sizes[d] if isinstance(d, str) else d for d in self.dims)

    @property
    def is_stored(self) -> bool:
        """Whether there is one part of it for each example."""
        return _BATCH in self.dims

    @property
    def is_ragged(self) -> bool:
        """Whether each example has its own length in it."""
        return _LENGTH in self.dims

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of what is stored for one example (or one position of it)."""
        return tuple(d for i in self.order if isinstance(d := self.dims[i], int))


@dataclass(frozen=True)
class OutputRule:
    """What a module returns, for any batch: a tree of tensors and constants."""

    tree: Any
    leaves: tuple[Any, ...]

    def placeholder(self, batch: int, length: int, device: torch.device) -> Any:
        """Returns zeros in the right shapes. No expanded ones: an in-place ReLU must work."""
        leaves = [
            torch.zeros(leaf.shape(batch, length), dtype=leaf.dtype, device=device)
            if isinstance(leaf, LeafRule)
            else leaf
            for leaf in self.leaves
        ]
        return _pytree.tree_unflatten(leaves, self.tree)

    def filled(self, tensors: Sequence[Tensor]) -> Any:
        """Returns the output made of `tensors`, one for each `LeafRule`."""
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, LeafRule) else leaf for leaf in self.leaves]
        return _pytree.tree_unflatten(leaves, self.tree)

    @property
    def rules(self) -> tuple[LeafRule, ...]:
        """Those of the tensors."""
        return tuple(leaf for leaf in self.leaves if isinstance(leaf, LeafRule))


@dataclass(frozen=True)
class Probe:
    """A batch to trace with.

    Attributes:
        inputs: As the model takes them.
        batch: Examples in it.
        length: Its padded length (1 where examples have one size).
    """

    inputs: Any
    batch: int
    length: int


@dataclass(frozen=True)
class Cut:
    """How to start a forward pass behind a prefix.

    Attributes:
        depth: Blocks in the prefix.
        path: The module whose call ends the prefix; it returns what was stored.
        number: Which call of that module it is, from 0, when the prefix is skipped.
        stored: What that call returns.
        skipped: Path and number of the calls before it that return placeholders.
        hidden: The calls, by their start in the trace, that do not happen then.
        n_calls: How often each module is called in one forward pass then.
        start: The start, in the trace, of the call that ends the prefix.
    """

    depth: int
    path: str
    number: int
    stored: OutputRule
    skipped: Mapping[tuple[str, int], OutputRule]
    hidden: frozenset[int]
    n_calls: Mapping[str, int]
    start: int


class Trace:
    """The calls of a model on two batches of different sizes, and the cuts that they allow.

    Args:
        model: Run twice, in eval mode, without gradients; left unchanged.
        blocks: In the order in which they run.
        probes: Two batches; where lengths vary, also of different lengths.

    Raises:
        NoCut: The two batches are not treated alike, so outputs cannot be foretold.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[Block], probes: Sequence[Probe]) -> None:
        self.model = model
        self.blocks = blocks
        self.probes = probes
        with modes_kept(model), rng_kept(model), padded_tensors(model):
            model.eval()
            runs = [record_calls(model, probe.inputs, _describe) for probe in probes]
        self.calls = runs[0]
        if [c.path for c in self.calls] != [c.path for c in runs[1]]:
            raise NoCut("its modules are not called in the same order on every batch")
        self.modules = dict(model.named_modules())
        self._other = {a.start: b for a, b in zip(*runs, strict=True)}

    def cuts(self, depth: int) -> list[Cut]:
        """Returns the ways to cut behind the first `depth` blocks, in the order to try them.

        Right behind the last call of the prefix; where that is of a module without parameters (a
        pooling, but also a rotary embedding), behind the last with parameters too. Calls of
        modules that hold several blocks (`bert.encoder`) count as one; where that does not do (a
        container may return a cache), those of the blocks themselves.

        Raises:
            NoCut: There is none.
        """
        cuts: dict[tuple[str, frozenset[int]], Cut] = {}
        reasons: list[str] = []
        for tops in self._tops(depth):
            calls = self._prefix_calls(depth, tops)
            owning = [call for call in calls if self._owns(call.path)]
            ends = [calls[-1].start, owning[-1].start] if owning else []
            for last in dict.fromkeys(ends):
                try:
                    cut = self._cut(depth, [call for call in calls if call.start <= last])
                    cuts.setdefault((cut.path, cut.hidden), cut)
                except NoCut as error:
                    reasons.append(str(error))
        if not cuts:
            nothing = "no module of the prefix is called before the other blocks"
            raise NoCut(reasons[0] if reasons else nothing)
        return list(cuts.values())

    def number(self, start: int, hidden: frozenset[int]) -> int:
        """Returns which call of its module the call at `start` is when `hidden` do not happen."""
        return self._numbers(hidden)[start]

    def _tops(self, depth: int) -> tuple[list[str], list[str]]:
        """Returns the topmost modules of the prefix, and those of its blocks."""
        mask = [int(position < depth) for position in range(len(self.blocks))]
        topmost = frozen_subtrees(self.model, self.blocks, mask)
        own = {path for block in self.blocks[:depth] for path in block.modules}
        loose = [top for top in topmost if not any(top in (p, *parents(p)) for p in own)]
        return topmost, [*loose, *own]

    def _prefix_calls(self, depth: int, tops: Sequence[str]) -> list[ModuleCall]:
        """Returns the outermost calls of modules in `tops`, before any other block's."""
        names = {name for block in self.blocks[:depth] for name in block.parameters}
        inside = {id(p) for name, p in self.model.named_parameters() if name in names}
        # A module around the prefix begins before it. Whether a trainable parameter of its own is
        # used before the cut or behind it no hook can tell; the comparison of gradients does.
        around = {parent for top in tops for parent in parents(top)}
        others = {
            path
            for path, module in self.modules.items()
            if path not in around and any(id(p) not in inside for p in module.parameters(False))
        }
        first_other = next((c.start for c in self.calls if c.path in others), len(self.calls) * 2)
        found: list[ModuleCall] = []
        for call in self.calls:
            nested = found and found[-1].end is not None and call.start < found[-1].end
            if nested or call.end is None or call.end > first_other:
                continue
            if any(call.path == top or top in parents(call.path) for top in tops):
                found.append(call)
        return found

    def _cut(self, depth: int, calls: Sequence[ModuleCall]) -> Cut:
        *before, last = calls
        skipped = [call for call in before if self._owns(call.path)]
        hidden = frozenset(call.start for call in [*skipped, last])
        stored = self._rule(last)
        if not stored.rules or not all(rule.is_stored for rule in stored.rules):
            raise NoCut(f"{last.path} returns something that is not one part for each example")
        numbers = self._numbers(hidden)
        paths = {call.start: call.path for call in self.calls}
        return Cut(
            depth=depth,
            path=last.path,
            number=numbers[last.start],
            stored=stored,
            skipped={(c.path, numbers[c.start]): self._rule(c) for c in skipped},
            hidden=hidden,
            n_calls=Counter(paths[start] for start in numbers),
            start=last.start,
        )

    def _numbers(self, hidden: frozenset[int]) -> dict[int, int]:
        """Returns, by start, the number of each call among those of its module that happen.

        What is called inside the `hidden` calls does not happen.
        """
        numbers: dict[int, int] = {}
        seen: Counter[str] = Counter()
        until = -1
        for call in self.calls:
            if call.start < until:
                continue
            numbers[call.start] = seen[call.path]
            seen[call.path] += 1
            if call.start in hidden and call.end is not None:
                until = call.end
        return numbers

    def _owns(self, path: str) -> bool:
        return any(True for _ in self.modules[path].parameters())

    def _rule(self, call: ModuleCall) -> OutputRule:
        tree, leaves = call.output
        other_tree, other_leaves = self._other[call.start].output
        if tree != other_tree:
            raise NoCut(f"{call.path} does not return the same kind of thing on every batch")
        first, second = self.probes
        rules: list[Any] = []
        for a, b in zip(leaves, other_leaves, strict=True):
            if isinstance(a, _TensorLeaf) and isinstance(b, _TensorLeaf):
                rules.append(_leaf_rule(call.path, a, b, first, second))
            elif type(a) is type(b) and isinstance(a, _CONSTANTS) and a == b:
                rules.append(a)
            else:
                raise NoCut(f"{call.path} returns {type(a).__name__}, which cannot be stored")
        return OutputRule(tree, tuple(rules))


@dataclass(frozen=True)
class _TensorLeaf:
    shape: tuple[int, ...]
    dtype: torch.dtype
    stride: tuple[int, ...]


def _describe(output: Any) -> tuple[Any, list[Any]]:
    """Returns the tree and the leaves of an output, tensors replaced by their description."""
    leaves, tree = _pytree.tree_flatten(output)
    described = [
        _TensorLeaf(tuple(leaf.shape), leaf.dtype, tuple(leaf.stride()))
        if isinstance(leaf, Tensor)
        else leaf
        for leaf in leaves
    ]
    return tree, described


def _leaf_rule(path: str, a: _TensorLeaf, b: _TensorLeaf, first: Probe, second: Probe) -> LeafRule:
    if a.dtype != b.dtype or len(a.shape) != len(b.shape):
        raise NoCut(f"{path} returns tensors of different kinds on different batches")
    dims: list[int | str] = []
    for sizes in zip(a.shape, b.shape, strict=True):
        if sizes == (first.batch, second.batch) and _BATCH not in dims:
            dims.append(_BATCH)
        elif sizes == (first.length, second.length) and sizes[0] != sizes[1]:
            dims.append(_LENGTH)
        elif sizes[0] == sizes[1]:
            dims.append(sizes[0])
        else:
            raise NoCut(f"{path} returns a tensor whose shape follows neither batch nor length")
    if dims.count(_LENGTH) > 1:
        raise NoCut(f"{path} returns a tensor with two dimensions of the sequence's length")
    named = [dims.index(name) for name in (_BATCH, _LENGTH) if name in dims]
    rest = [i for i in range(len(dims)) if i not in named]
    # By stride, so that a channels-last output is stored and comes back channels-last. Dimensions
    # of size 1 have arbitrary strides; the sort is stable.
    rest.sort(key=lambda i: -a.stride[i])
    return LeafRule(tuple(dims), a.dtype, (*named, *rest))
