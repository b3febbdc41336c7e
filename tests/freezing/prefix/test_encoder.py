"""PyTorch's own encoder layers, whose fused kernel returns another dtype under autocast."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from evonas.execution import Trial, TrialSettings
from evonas.freezing import (
    Examples,
    FreezingProblem,
    applied_mask,
    apply_mask,
    find_blocks,
    trainable_parameter_groups,
)
from evonas.freezing.prefix.decision import decide_reuse
from evonas.freezing.prefix.session import PrefixSession
from evonas.freezing.prefix.store import PrefixStore
from evonas.training import autocast, forward, seeded

# torch says at each nested tensor that they are a prototype.
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")

MASKS = [(1, 0, 0, 0), (1, 1, 0, 0), (1, 1, 1, 0), (1, 1, 1, 1)]
TOLERANCE: dict[str, dict[str, float]] = {"float32": {}, "bfloat16": {"rtol": 0.02, "atol": 0.01}}


def layer() -> nn.Module:
    return nn.TransformerEncoderLayer(24, 2, 48, batch_first=True)


class Layers(nn.Module):
    """Encoder layers in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 24)
        self.layers = nn.ModuleList(layer() for _ in range(3))
        self.head = nn.Linear(24, 2)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        for encoder in self.layers:
            x = encoder(x)
        return self.head(x.mean(1))


class Padded(nn.Module):
    """torch's container of them, with a padding mask."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 24)
        self.encoder = nn.TransformerEncoder(layer(), 3)
        self.head = nn.Linear(24, 2)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.encoder(self.words(ids), src_key_padding_mask=mask == 0)
        return self.head(x[:, 0])


def data_for(model: nn.Module, n: int = 30) -> Examples:
    generator = torch.Generator().manual_seed(2)
    targets = torch.arange(n) % 2
    if isinstance(model, Layers):
        return Examples(torch.randint(5, 50, (n, 6), generator=generator), targets)
    lengths = torch.randint(3, 9, (n,), generator=generator).tolist()
    rows = [torch.randint(5, 50, (length,), generator=generator) for length in lengths]
    return Examples({"ids": rows, "mask": [torch.ones_like(row) for row in rows]}, targets)


def train(model: nn.Module, source: Any, precision: str) -> None:
    optimizer = torch.optim.SGD(trainable_parameter_groups(model), lr=0.05)
    model.train()
    torch.manual_seed(5)
    for inputs, targets in source.batches(7, seed=0, shuffle=True):
        optimizer.zero_grad()
        with autocast(precision, "cpu"):
            outputs = forward(model, inputs)
        functional.cross_entropy(outputs.float(), targets).backward()
        optimizer.step()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", [Layers, Padded])
def test_encoders_train_and_evaluate_the_same_behind_a_prefix(
    kind: type[nn.Module], precision: str
) -> None:
    with seeded(0):
        model = kind()
    data, start = data_for(model), copy.deepcopy(model.state_dict())
    blocks = find_blocks(model, data.gather(torch.arange(2)))
    assert len(blocks) == 4
    decision = decide_reuse(model, blocks, data, precision=precision)
    assert sorted(decision.cuts) == [1, 2, 3, 4], decision.refused
    store = PrefixStore()
    for depth in (1, 2, 3, 4):
        mask = [int(position < depth) for position in range(4)]
        ends: list[list[Tensor]] = []
        for used in (decision, type(decision)()):
            model.load_state_dict(start)
            with (
                apply_mask(model, mask, blocks=blocks) as applied,
                PrefixSession(
                    applied, {"train": data}, used, store, precision=precision
                ) as session,
            ):
                assert session.depths == {"train": depth if used is decision else 0}
                train(model, session.source("train"), precision)
                model.eval()
                with torch.no_grad(), autocast(precision, "cpu"):
                    outputs = [
                        forward(model, inputs) for inputs, _ in session.source("train").batches(9)
                    ]
            ends.append([*copy.deepcopy(model.state_dict()).values(), *outputs])
        for ours, plain in zip(*ends, strict=True):
            assert ours.dtype == plain.dtype
            torch.testing.assert_close(ours, plain, **TOLERANCE[precision], msg=f"depth {depth}")


def test_what_is_stored_has_the_dtype_that_training_sees() -> None:
    with seeded(0):
        model = Layers()
    data = data_for(model)
    blocks = find_blocks(model, data.gather(torch.arange(2)))
    decision = decide_reuse(model, blocks, data, precision="bfloat16")
    seen: dict[str, list[torch.dtype]] = {"plain": [], "stored": []}
    original = model.layers[2].forward

    def watch(x: Tensor, name: str) -> Tensor:
        seen[name].append(x.dtype)
        return original(x)

    for name, used in (("plain", type(decision)()), ("stored", decision)):
        with (
            apply_mask(model, [1, 1, 1, 0], blocks=blocks) as applied,
            PrefixSession(
                applied, {"train": data}, used, PrefixStore(), precision="bfloat16"
            ) as session,
        ):
            # Not with a hook, which would keep torch off the kernel that this is about.
            model.layers[2].__dict__["forward"] = lambda x, name=name: watch(x, name)
            try:
                train(model, session.source("train"), "bfloat16")
            finally:
                del model.layers[2].__dict__["forward"]
    assert seen["plain"] == seen["stored"] != []


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_problem_trains_encoder_layers_behind_each_prefix(precision: str) -> None:
    with seeded(0):
        pretrained = Layers()

    def factory() -> nn.Module:
        model = copy.deepcopy(pretrained)
        model.head = nn.Linear(24, 2)
        return model

    data = data_for(pretrained)
    values = {}
    for reuse in (True, False):
        problem = FreezingProblem(
            factory, data, data, n_epochs=1, precision=precision, reuse_prefix=reuse,
            metric=lambda outputs, _: float(outputs.std()),
        )  # fmt: skip
        trials = [Trial(TrialSettings(seed=3, problem=problem.configure(None))) for _ in MASKS]
        values[reuse] = [
            problem.evaluate(problem.genes_of(mask), trial)
            for mask, trial in zip(MASKS, trials, strict=True)
        ]
        depths = [trial.metrics["prefix_depth"] for trial in trials]
        assert depths == ([1, 2, 3, 4] if reuse else [0, 0, 0, 0])
    assert values[True] == pytest.approx(values[False], rel=0.02)


def test_an_encoder_with_a_padding_mask_trains_behind_a_frozen_layer() -> None:
    with seeded(0):
        model = Padded()
    data = data_for(model)
    blocks = find_blocks(model, data.gather(torch.arange(2)))
    inputs = data.gather(torch.arange(5))
    assert model.encoder.use_nested_tensor
    with apply_mask(model, [1, 1, 0, 0], blocks=blocks):
        forward(model.train(), inputs).sum().backward()  # torch alone: an AssertionError
        masked = forward(model.eval(), inputs)
        applied = applied_mask(model)
        assert applied is not None
        applied.check_gradients()
    assert model.encoder.use_nested_tensor
    with torch.no_grad():
        torch.testing.assert_close(masked.detach(), forward(model.eval(), inputs))
