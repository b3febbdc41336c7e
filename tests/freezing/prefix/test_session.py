from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from evonas.freezing import Block, Examples, apply_mask, find_blocks, trainable_parameter_groups
from evonas.freezing.prefix.decision import ReuseDecision, decide_reuse
from evonas.freezing.prefix.replay import fill_order
from evonas.freezing.prefix.session import PrefixSession
from evonas.freezing.prefix.store import PrefixStore
from evonas.training import evaluate, fit, forward


def sentences(n: int = 30, *, left: bool = False) -> Examples:
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(3, 10, (n,), generator=generator).tolist()
    rows = [torch.randint(5, 50, (length,), generator=generator) for length in lengths]
    inputs = {"input_ids": rows, "attention_mask": [torch.ones_like(row) for row in rows]}
    targets = torch.randint(0, 2, (n,), generator=generator)
    return Examples(inputs, targets, padding_side="left" if left else "right")


def pictures(n: int = 20, size: int = 32) -> Examples:
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(n, 3, size, size, generator=generator)
    return Examples(
        images.contiguous(memory_format=torch.channels_last),
        torch.randint(0, 2, (n,), generator=generator),
    )


def vectors(n: int = 20) -> Examples:
    generator = torch.Generator().manual_seed(2)
    return Examples(torch.randn(n, 4, generator=generator), torch.arange(n) % 2)


class Own(nn.Module):
    """A network of one's own: convolutions, batch norm, one ReLU used everywhere, dense layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(4)
        self.drop = nn.Dropout(0.3)
        self.fc1 = nn.Linear(8 * 4, 16)
        self.fc2 = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.bn1(self.conv1(x))))
        x = self.pool(self.relu(self.bn2(self.conv2(x))))
        return self.fc2(self.drop(self.relu(self.fc1(x.flatten(1)))))


def train(model: nn.Module, source: Any, n_epochs: int = 2) -> int:
    """At least four steps; returns how many."""
    groups = trainable_parameter_groups(model)
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9)
    model.train()
    torch.manual_seed(5)
    n_steps = 0
    for epoch in range(n_epochs):
        for inputs, targets in source.batches(7, seed=epoch, shuffle=True):
            optimizer.zero_grad()
            functional.cross_entropy(forward(model, inputs), targets).backward()
            optimizer.step()
            n_steps += 1
    return n_steps


def assert_same_training(
    model: nn.Module, data: Examples, blocks: tuple[Block, ...], depths: Iterable[int]
) -> None:
    """Trains with and without reuse at each depth; the weights must agree."""
    start = copy.deepcopy(model.state_dict())
    decision = decide_reuse(model, blocks, data)
    assert all(torch.equal(start[name], value) for name, value in model.state_dict().items())
    store = PrefixStore()
    for depth in depths:
        assert decision.deepest(depth) == depth, decision.refused
        mask = [int(position < depth) for position in range(len(blocks))]
        ends = []
        for reuse in (False, True):
            model.load_state_dict(start)
            with apply_mask(model, mask, blocks=blocks) as applied:
                if reuse:
                    with PrefixSession(applied, {"train": data}, decision, store) as session:
                        assert session.depths == {"train": depth}
                        n_steps = train(model, session.source("train"))
                else:
                    n_steps = train(model, data)
            assert n_steps >= 4
            ends.append(copy.deepcopy(model.state_dict()))
        moved = [name for name in start if not torch.equal(start[name], ends[0][name])]
        assert moved
        # Up to rounding: prefixes are computed in other batches, for which torch may choose
        # another convolution.
        for name, value in ends[0].items():
            torch.testing.assert_close(ends[1][name], value, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize(
    "name", ["bert", "distilbert", "albert", "gpt2", "qwen2", "gemma2", "modernbert"]
)
def test_transformers_train_the_same_behind_a_prefix(name: str, build: Any) -> None:
    model, data = build(name), sentences()
    blocks = find_blocks(model, data.gather(torch.arange(2)))
    assert_same_training(model, data, blocks, range(1, len(blocks) + 1))


@pytest.mark.parametrize("name", ["resnet", "vit", "convnext", "mobilenet", "hf-resnet"])
def test_image_models_train_the_same_behind_a_prefix(name: str, build: Any) -> None:
    model, data = build(name), pictures()
    if name == "hf-resnet":
        data = Examples({"pixel_values": data.gather(torch.arange(20))}, data.targets)
    blocks = find_blocks(model, data.gather(torch.arange(2)))
    depths = (1, 2, len(blocks) - 1, len(blocks)) if name != "resnet" else (1, 3, 6)
    assert_same_training(model, data, blocks, depths)


def test_an_own_model_trains_the_same_behind_a_prefix() -> None:
    model, data = Own(), pictures(size=32)
    model.fc1 = nn.Linear(8 * 4, 16)
    assert_same_training(model, data, find_blocks(model, data.gather(torch.arange(2))), range(1, 4))


class Shifted(nn.Module):
    """`shift` is 0, so the output of `drop` is that of `one`, until `shift` is trained."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.shift = nn.Parameter(torch.zeros(4))
        self.one, self.two, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.two(self.drop(self.one(x) + self.shift)).tanh())


def test_a_trained_parameter_between_modules_is_not_cut_away() -> None:
    model, data = Shifted(), vectors()
    blocks = find_blocks(model, data.gather(torch.arange(2)), blocks=["one", "two"])
    assert blocks[0].modules == ("one", "drop")
    assert decide_reuse(model, blocks, data).cuts == {1: ("one", 1)}, "not behind drop"
    assert_same_training(model, data, blocks, range(1, 2))


def test_left_padding() -> None:
    class Bag(nn.Module):
        """Uses each token's position from the right, so it wants left padding."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.tokens, self.positions = nn.Embedding(50, 6), nn.Embedding(12, 6)
            self.mix, self.out = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            position = torch.arange(input_ids.shape[1]).flip(0).expand(len(input_ids), -1)
            x = self.mix(self.tokens(input_ids) + self.positions(position)).tanh()
            return self.out((x * attention_mask.unsqueeze(-1)).sum(1))

    model, data = Bag(), sentences(left=True)
    assert_same_training(model, data, find_blocks(model, data.gather(torch.arange(2))), range(3, 4))
    wrong = decide_reuse(model, find_blocks(model, data.gather(torch.arange(2))), sentences())
    assert 3 not in wrong.cuts, "with right padding a position depends on the batch"


def enable_checkpointing(model: Any) -> None:
    enable = getattr(model, "activation_checkpointing_enable", None)
    (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_with_gradient_checkpointing(name: str, build: Any) -> None:
    model, data = build(name), sentences()
    blocks = find_blocks(model, data.gather(torch.arange(2)))
    model.config.use_cache = False
    enable_checkpointing(model)
    assert_same_training(model, data, blocks, range(1, 4))


class Segments(nn.Module):
    """Checkpoints segments that hold frozen and trained blocks alike."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2), nn.Tanh(), nn.Linear(4, 4))
            for _ in range(4)
        )
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for segment in (self.blocks[:2], self.blocks[2:]):
            x = checkpoint(nn.Sequential(*segment), x, use_reentrant=False)
        return self.head(x)


def test_with_checkpointed_segments() -> None:
    model, data = Segments(), vectors()
    blocks = find_blocks(model, blocks=["blocks.*"])
    assert_same_training(model, data, blocks, range(1, 4))


def test_a_checkpointed_backward_pass_outside_its_batch_is_refused() -> None:
    model, data = Segments(), vectors()
    blocks = find_blocks(model, blocks=["blocks.*"])
    decision = decide_reuse(model, blocks, data)
    ids = torch.arange(5)
    with (
        apply_mask(model, [1, 0, 0, 0], blocks=blocks) as applied,
        PrefixSession(applied, {"train": data}, decision, PrefixStore()) as session,
    ):
        with session.batch("train", ids):
            loss = model(data.gather(ids)).sum()
        with pytest.raises(RuntimeError, match="call backward\\(\\) inside the batch's context"):
            loss.backward()


@contextmanager
def counted_calls(model: nn.Module) -> Iterator[Counter[str]]:
    """Counts what computes: the calls of leaf modules."""
    calls: Counter[str] = Counter()
    handles = [
        module.register_forward_hook(lambda *_, path=path: calls.update([path]))
        for path, module in model.named_modules()
        if not any(True for _ in module.children())
    ]
    yield calls
    for handle in handles:
        handle.remove()


def test_the_prefix_is_computed_once_and_a_deeper_one_from_it(build: Any) -> None:
    model, data = build("bert"), sentences()
    blocks = find_blocks(model, data.gather(torch.arange(2)))
    decision = decide_reuse(model, blocks, data)
    store = PrefixStore()
    words = "bert.embeddings.word_embeddings"
    first, second = (f"bert.encoder.layer.{i}.attention.self.query" for i in range(2))

    def calls(mask: list[int], n_epochs: int) -> tuple[Counter[str], int]:
        with (
            apply_mask(model, mask, blocks=blocks) as applied,
            counted_calls(model) as found,
            PrefixSession(applied, {"train": data}, decision, store) as session,
        ):
            n_steps = train(model, session.source("train"), n_epochs)
        return found, n_steps

    n_fills, n_traces, n_probes = len(fill_order(data)), 2, 2
    plain, n_steps = calls([0, 0, 0, 0, 0], 2)
    assert plain[words] == n_steps
    found, _ = calls([1, 0, 0, 0, 0], 2)
    assert found[words] == n_fills + n_traces + n_probes
    assert found[first] == n_steps + n_traces
    found, _ = calls([1, 1, 0, 1, 0], 2)
    assert found[words] == n_traces + n_probes, "the deeper prefix starts from the stored one"
    assert found[first] == n_fills + n_traces + n_probes
    assert found[second] == n_steps + n_traces
    found, _ = calls([1, 1, 0, 0, 0], 3)
    assert found[words] == found[first] == n_traces, "it is still stored"
    assert len(store) == 2


def test_fit_trains_and_validates_behind_the_prefix(build: Any) -> None:
    data, val = sentences(30), sentences(21)
    results = []
    for reuse in (False, True):
        model = build("bert")
        blocks = find_blocks(model, data.gather(torch.arange(2)))
        decision = decide_reuse(model, blocks, data)
        sets = {"train": data, "val": val}
        used = decision if reuse else ReuseDecision()
        rows: list[float] = []
        with (
            apply_mask(model, [1, 1, 1, 0, 0], blocks=blocks) as applied,
            PrefixSession(applied, sets, used, PrefixStore()) as session,
        ):
            torch.manual_seed(3)
            fit(
                model, session.source("train"), session.source("val"), n_epochs=2, batch_size=7,
                seed=1, report=lambda _, row, rows=rows: rows.append(row["train_loss"]),
                optimizer=lambda m: torch.optim.AdamW(trainable_parameter_groups(m), lr=1e-3),
            )  # fmt: skip
            assert session.depths == dict.fromkeys(sets, 3 if reuse else 0)
            outputs = evaluate(
                model, session.source("val").batches(9), metric=lambda o, _: float(o.sum())
            )
        results.append((*rows, outputs, model.classifier.weight.detach()))
    torch.testing.assert_close(results[0], results[1])


def test_bfloat16(build: Any) -> None:
    model, data = build("bert"), sentences()
    blocks = find_blocks(model, data.gather(torch.arange(2)))
    decision = decide_reuse(model, blocks, data)
    model.eval()
    plain, reused = [], []
    with (
        apply_mask(model, [1, 1, 1, 0, 0], blocks=blocks) as applied,
        PrefixSession(
            applied, {"val": data}, decision, PrefixStore(), precision="bfloat16"
        ) as session,
        torch.autocast("cpu", dtype=torch.bfloat16),
        torch.no_grad(),
    ):
        for ids in data.batches_of_ids(7):
            plain.append(forward(model, data.gather(ids)))
            with session.batch("val", ids):
                reused.append(forward(model, data.gather(ids)))
    torch.testing.assert_close(torch.cat(plain), torch.cat(reused), atol=0.02, rtol=0.05)


def test_the_session_leaves_nothing_behind(build: Any) -> None:
    model, data = build("gpt2").eval(), sentences()
    blocks = find_blocks(model, data.gather(torch.arange(2)))
    attributes = [set(module.__dict__) for module in model.modules()]
    decision = decide_reuse(model, blocks, data)
    store = PrefixStore()
    with apply_mask(model, [1, 1, 0, 0, 0], blocks=blocks) as applied:
        modes = [module.training for module in model.modules()]
        state = torch.get_rng_state()
        session = PrefixSession(applied, {"train": data}, decision, store)
        assert torch.equal(state, torch.get_rng_state()), "a filled and an empty store draw alike"
        assert [module.training for module in model.modules()] == modes
        session.close()
    assert not any(module.training for module in model.modules())
    assert [set(module.__dict__) for module in model.modules()] == attributes
    store.clear()
    assert len(store) == 0, "no level is pinned any more"


def test_outside_a_batch_the_model_is_plain() -> None:
    model, data = Own().eval(), pictures()
    blocks = find_blocks(model, data.gather(torch.arange(2)))
    decision = decide_reuse(model, blocks, data)
    other = torch.randn(5, 3, 32, 32)
    expected = model(other)
    with (
        apply_mask(model, [1, 1, 0], blocks=blocks) as applied,
        PrefixSession(applied, {"train": data}, decision, PrefixStore()) as session,
    ):
        torch.testing.assert_close(model(other), expected)
        with session.batch("train", torch.arange(5)):
            inside = model(other)
        torch.testing.assert_close(inside, model(data.gather(torch.arange(5))))
        torch.testing.assert_close(model(other), expected)


def test_other_weights_are_not_served_stored_outputs() -> None:
    model, data = Own().eval(), pictures()
    blocks = find_blocks(model, data.gather(torch.arange(2)))
    decision = decide_reuse(model, blocks, data)
    store = PrefixStore()
    ids = torch.arange(6)
    for change in (None, "conv1.weight", "bn1.running_mean"):
        if change is not None:
            model.state_dict()[change].add_(0.5)
        with (
            apply_mask(model, [1, 0, 0], blocks=blocks) as applied,
            PrefixSession(applied, {"train": data}, decision, store) as session,
            session.batch("train", ids),
        ):
            found = model(data.gather(ids))
        torch.testing.assert_close(found, model(data.gather(ids)))
    assert len(store) == 3


def test_a_store_that_is_too_small_gives_a_shallower_prefix_or_none() -> None:
    model, data = Own(), pictures()
    blocks = find_blocks(model, data.gather(torch.arange(2)))
    decision = decide_reuse(model, blocks, data)
    n_bytes = {1: 20 * 4 * 8 * 8 * 4, 2: 20 * 8 * 2 * 2 * 4}  # behind each max-pooling
    for memory_bytes, depths in (
        (n_bytes[1], {1: 1, 2: 2}),
        (n_bytes[1] - 1, {1: 0, 2: 2}),
        (n_bytes[2] - 1, {1: 0, 2: 0}),
    ):
        for depth, expected in depths.items():
            store = PrefixStore(memory_bytes=memory_bytes, file_bytes=0)
            mask = [int(position < depth) for position in range(3)]
            with (
                apply_mask(model, mask, blocks=blocks) as applied,
                PrefixSession(applied, {"train": data}, decision, store) as session,
            ):
                assert session.depths == {"train": expected}
                assert train(model, session.source("train"), 1) == 3


def test_a_depth_that_is_not_settled_is_not_started_behind_another() -> None:
    """What another depth was found to be must not change a training."""
    model, data = Own(), pictures()
    blocks = find_blocks(model, data.gather(torch.arange(2)))
    decision = decide_reuse(model, blocks, data, [1])
    for mask, expected in (([1, 0, 0], 1), ([1, 1, 0], 0)):
        with (
            apply_mask(model, mask, blocks=blocks) as applied,
            PrefixSession(applied, {"train": data}, decision, PrefixStore()) as session,
        ):
            assert session.depths == {"train": expected}


def test_augmented_batches_are_plain() -> None:
    model, data = Own().eval(), pictures()
    blocks = find_blocks(model, data.gather(torch.arange(2)))
    decision = decide_reuse(model, blocks, data)
    with (
        apply_mask(model, [1, 0, 0], blocks=blocks) as applied,
        PrefixSession(applied, {"train": data}, decision, PrefixStore()) as session,
    ):
        batches = session.source("train").batches(
            5, seed=0, augment=lambda images, generator: images * 0
        )
        outputs = [model(inputs) for inputs, _ in batches]
        assert all(torch.equal(row, outputs[0][0]) for batch in outputs for row in batch)


def test_channels_last_outputs_come_back_channels_last() -> None:
    model, data = Own().to(memory_format=torch.channels_last), pictures()
    blocks = find_blocks(model, data.gather(torch.arange(2)))
    decision = decide_reuse(model, blocks, data)
    seen = []
    model.conv2.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with (
        apply_mask(model, [1, 0, 0], blocks=blocks) as applied,
        PrefixSession(applied, {"train": data}, decision, PrefixStore()) as session,
        session.batch("train", torch.arange(5)),
    ):
        model(data.gather(torch.arange(5)))
    assert seen[-1].shape == (5, 4, 8, 8)
    assert seen[-1].is_contiguous(memory_format=torch.channels_last)


def test_bad_sessions() -> None:
    model, data = Own(), pictures()
    applied = apply_mask(model, [1, 0, 0], blocks=find_blocks(model, data.gather(torch.arange(2))))
    with PrefixSession(applied, {"train": data}, ReuseDecision(), PrefixStore()) as session:
        with pytest.raises(ValueError, match="one of train, got 'test'"):
            session.source("test")
        with (
            pytest.raises(ValueError, match="one of train, got 'test'"),
            session.batch("test", torch.arange(2)),
        ):
            pass
    applied.undo()
    with pytest.raises(RuntimeError, match="undone.* is not in force"):
        PrefixSession(applied, {"train": data}, ReuseDecision(), PrefixStore())
