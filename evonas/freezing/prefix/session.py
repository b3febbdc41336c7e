"""Trainings that start behind a frozen prefix, whose output is computed once and kept."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from evonas.freezing._calls import rng_kept
from evonas.freezing.mask import AppliedMask, frozen_prefix
from evonas.freezing.prefix.check import probes_for
from evonas.freezing.prefix.cut import Cut, NoCut, Trace
from evonas.freezing.prefix.decision import ReuseDecision
from evonas.freezing.prefix.replay import (
    NotStorable,
    Replay,
    dtypes_at,
    fill,
    fill_order,
    gather,
    level_specs,
    prefix_output,
)
from evonas.freezing.prefix.store import PrefixStore, StoredLevel
from evonas.training import Augment, Batch, autocast
from evonas.training.data.examples import Examples, as_bytes
from evonas.training.passes import modes_kept

__all__ = ["PrefixSession", "PrefixSource"]


class PrefixSession:
    """One training under a mask, whose frozen prefix is not computed again.

    While the first k blocks are frozen, their output for an example never changes: within this
    training, nor in any other one from the same weights whose mask begins with k frozen blocks. It
    is computed once for each set of examples, from the deepest one already stored, in a fixed
    order of batches; then training and validation start behind it. Where the decision does not
    allow depth k, the next shallower one is used; where none, or where that is too much for the
    store, every pass is plain. Either way the training is the same, to float rounding.

    Stored outputs are found by the weights of the prefix, the examples and the precision, so a
    store may be shared by trainings of any models, one after the other.

    Args:
        applied: The mask in force; its model is patched until the session ends.
        examples: Sets of examples by name, such as `train` and `val`, on the model's device.
        decision: What `decide_reuse` found for this run.
        store: Where outputs are kept.
        precision: As the training's.

    Raises:
        RuntimeError: The mask is no longer in force.

    Example:
        >>> from torch import nn
        >>> from torch.nn import functional
        >>> from evonas.freezing import apply_mask, find_blocks
        >>> from evonas.freezing.prefix.decision import decide_reuse
        >>> from evonas.freezing.prefix.store import PrefixStore
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))
        >>> data = Examples(torch.randn(20, 3), torch.arange(20) % 2)
        >>> blocks = find_blocks(net)
        >>> decision = decide_reuse(net, blocks, data)
        >>> with (
        ...     PrefixStore() as store,
        ...     apply_mask(net, [1, 0], blocks=blocks) as applied,
        ...     PrefixSession(applied, {"train": data}, decision, store) as session,
        ... ):
        ...     for inputs, targets in session.source("train").batches(10, seed=0, shuffle=True):
        ...         functional.cross_entropy(net(inputs), targets).backward()
        >>> session.depths
        {'train': 1}
    """

    def __init__(
        self,
        applied: AppliedMask,
        examples: Mapping[str, Examples],
        decision: ReuseDecision,
        store: PrefixStore,
        *,
        precision: str = "float32",
    ) -> None:
        if not applied.active:
            raise RuntimeError(f"{applied!r} is not in force: apply the mask anew")
        self.model = applied.model
        self.blocks = applied.blocks
        self.depth = frozen_prefix(applied.mask)
        self.examples = dict(examples)
        self._decision = decision
        self._store = store
        self._precision = precision
        self._replay = Replay(self.model)
        self._used: dict[str, tuple[Cut, StoredLevel]] = {}
        self._depths = dict.fromkeys(self.examples, 0)
        self._digests: list[bytes] = []
        try:
            for name in self.examples:
                self._prepare(name)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def depths(self) -> dict[str, int]:
        """How many blocks are not computed, for each set of examples; 0 is plain."""
        return dict(self._depths)

    def source(self, name: str) -> PrefixSource:
        """Returns the examples `name` as a source for `evonas.training.fit`."""
        return PrefixSource(self, name)

    @contextmanager
    def batch(self, name: str, ids: Tensor) -> Iterator[None]:
        """Lets the model start behind the prefix for the examples `ids` of the set `name`.

        The inputs that it gets inside must be those of `examples[name].gather(ids)`, and its
        backward pass must end inside too.

        Raises:
            ValueError: There is no such set.
        """
        if name not in self.examples:
            raise ValueError(f"examples must be one of {', '.join(self.examples)}, got {name!r}")
        if name not in self._used:
            yield
            return
        cut, level = self._used[name]
        examples = self.examples[name]
        tensors = functools.partial(gather, level, cut, examples, ids)
        with self._replay.running(cut, len(ids), examples.width(ids), tensors):
            yield

    def close(self) -> None:
        """Puts the model's `forward`s back; stored outputs stay in the store."""
        self._replay.remove()
        while self._used:
            _, (_, level) = self._used.popitem()
            level.pins -= 1

    def _prepare(self, name: str) -> None:
        """Finds or computes the outputs of the deepest prefix that may be kept."""
        examples = self.examples[name]
        depth = self._decision.deepest(self.depth)
        if depth == 0 or len(examples) < 5:
            return
        device = next(self.model.parameters()).device
        # Whether a trial finds its prefix stored must not change what it draws afterwards.
        with modes_kept(self.model), rng_kept(self.model), torch.no_grad():
            self.model.train()
            with autocast(self._precision, device):
                try:
                    trace = Trace(self.model, self.blocks, probes_for(examples))
                except NoCut:
                    return
                # No shallower depth takes its place where it cannot be kept: which of them are
                # settled differs between a run and the same run resumed.
                cut = self._cut(trace, depth)
                if cut is None:
                    return
                level = self._level(examples, trace, cut)
                if level is not None:
                    level.pins += 1
                    self._used[name] = cut, level
                    self._depths[name] = depth
                    self._replay.add(cut)

    def _cut(self, trace: Trace, depth: int) -> Cut | None:
        """Returns the cut that was found equal, if this set of examples allows it too."""
        try:
            found = trace.cuts(depth)
        except NoCut:
            return None
        path, variant = self._decision.cuts[depth]
        return found[variant] if variant < len(found) and found[variant].path == path else None

    def _level(self, examples: Examples, trace: Trace, cut: Cut) -> StoredLevel | None:
        """Returns the outputs at `cut`, computed if need be; None where that cannot be."""
        key = self._key(examples, cut)
        level = self._store.get(key)
        if level is not None:
            return level
        probe = probes_for(examples)[0]
        number = trace.number(cut.start, frozenset())
        try:
            dtypes = dtypes_at(self.model, cut, number, probe.inputs)
        except NotStorable:
            return None
        level = self._store.create(key, level_specs(cut, examples, dtypes))
        if level is None:
            return None
        level.pins += 1
        try:
            # Looked up only now: making room may have dropped some.
            self._fill(level, examples, trace, cut, self._base(examples, trace, cut))
        except NotStorable:
            return None  # incomplete, so nobody gets it, and the next one replaces it
        finally:
            level.pins -= 1
        level.complete = True
        return level

    def _base(self, examples: Examples, trace: Trace, cut: Cut) -> tuple[Cut, StoredLevel] | None:
        """Returns the deepest outputs before `cut` that are stored, to go on from."""
        for depth in sorted((d for d in self._decision.cuts if d < cut.depth), reverse=True):
            lower = self._cut(trace, depth)
            stored = None if lower is None else self._store.get(self._key(examples, lower))
            if lower is not None and stored is not None:
                return lower, stored
        return None

    def _fill(
        self,
        level: StoredLevel,
        examples: Examples,
        trace: Trace,
        cut: Cut,
        base: tuple[Cut, StoredLevel] | None,
    ) -> None:
        number = trace.number(cut.start, base[0].hidden if base else frozenset())
        replay = Replay(self.model)
        try:
            if base is not None:
                replay.add(base[0])
            for ids in fill_order(examples):
                with contextlib.ExitStack() as stack:
                    if base is not None:
                        tensors = functools.partial(gather, base[1], base[0], examples, ids)
                        width = examples.width(ids)
                        stack.enter_context(replay.running(base[0], len(ids), width, tensors))
                    outputs = prefix_output(self.model, cut.path, number, examples.gather(ids))
                fill(level, cut, examples, ids, outputs)
        finally:
            replay.remove()

    def _key(self, examples: Examples, cut: Cut) -> Hashable:
        """Returns all that the stored outputs depend on."""
        while len(self._digests) < cut.depth:
            block = self.blocks[len(self._digests)]
            digest = hashlib.sha256(self._digests[-1] if self._digests else b"")
            buffers = (
                buffer
                for path in block.modules
                for buffer in self.model.get_submodule(path).buffers()
            )
            parameters = (self.model.get_parameter(name) for name in block.parameters)
            for tensor in (*parameters, *buffers):
                digest.update(as_bytes(tensor))
            self._digests.append(digest.digest())
        model, weights = type(self.model).__qualname__, self._digests[cut.depth - 1]
        return model, weights, examples.identity, self._precision, cut.depth, cut.path, cut.number


class PrefixSource:
    """A session's examples as a `BatchSource`: what `evonas.training.fit` asks for.

    While a batch is in the caller's hands, the session's model starts behind the prefix; so its
    backward pass must end before the next batch is asked for, as any plain loop does. With an
    augmentation the batches are plain.

    Args:
        session: Must be open while batches are used.
        name: Which of its sets of examples.

    Raises:
        ValueError: There is no such set.
    """

    def __init__(self, session: PrefixSession, name: str) -> None:
        if name not in session.examples:
            raise ValueError(f"examples must be one of {', '.join(session.examples)}, got {name!r}")
        self.session = session
        self.name = name
        self.examples = session.examples[name]

    def __len__(self) -> int:
        return len(self.examples)

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        shuffle: bool = False,
        augment: Augment | None = None,
        drop_last: bool = False,
    ) -> Iterator[Batch]:
        """Iterates once over `(inputs, targets)`, as `Examples.batches` does."""
        options: dict[str, Any] = {"seed": seed, "shuffle": shuffle, "drop_last": drop_last}
        if augment is not None:
            return self.examples.batches(batch_size, augment=augment, **options)
        return self._behind(self.examples.batches_of_ids(batch_size, **options))

    def _behind(self, order: Sequence[Tensor]) -> Iterator[Batch]:
        for ids in order:
            inputs, targets = self.examples.gather(ids), self.examples.targets_of(ids)
            with self.session.batch(self.name, ids):
                yield inputs, targets
