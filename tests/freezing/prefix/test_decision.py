from __future__ import annotations

import json
import logging

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from evonas.freezing import Examples, find_blocks
from evonas.freezing.prefix.decision import ReuseDecision, decide_reuse


def pictures(n: int = 20) -> Examples:
    generator = torch.Generator().manual_seed(2)
    return Examples(torch.randn(n, 3, 16, 16, generator=generator), torch.arange(n) % 2)


def vectors(n: int = 20) -> Examples:
    generator = torch.Generator().manual_seed(2)
    return Examples(torch.randn(n, 4, generator=generator), torch.arange(n) % 2)


def own() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 2),
    )  # fmt: skip


def test_the_decision_is_json() -> None:
    model, data = own(), pictures()
    decision = decide_reuse(model, find_blocks(model, data.gather(torch.arange(2))), data)
    assert sorted(decision.cuts) == [1, 2, 3]
    assert ReuseDecision.from_json(json.loads(json.dumps(decision.to_json()))) == decision
    assert (
        decision.message == "frozen prefixes are computed once: equal up to rounding at every depth"
    )


class Loose(nn.Module):
    """A parameter of the root is used before the blocks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.shift = nn.Parameter(torch.zeros(4))
        self.one, self.two, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.two(self.one(x + self.shift).tanh()).tanh())


class Noisy(Loose):
    """Drops outside of any module, as BART's encoder does."""

    def forward(self, x: Tensor) -> Tensor:
        x = functional.dropout(self.one(x), 0.3, self.training)
        return self.out(self.two(x).tanh()) + 0 * self.shift.sum()


class Skip(Loose):
    """The output of the first block is used again behind the second."""

    def forward(self, x: Tensor) -> Tensor:
        early = self.one(x).tanh()
        return self.out(self.two(early).tanh() + early) + 0 * self.shift.sum()


class BatchNormed(Loose):
    """What the first block returns depends on the other examples of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return self.out(self.two(x - x.mean(0)).tanh()) + 0 * self.shift.sum()


@pytest.mark.parametrize(
    ("model_class", "exact", "refused"),
    [
        (Loose, [], {1: "requires a gradient", 2: "requires a gradient"}),
        (Noisy, [1], {2: "not always the same"}),
        (Skip, [1], {2: "outputs in eval mode differ"}),
        (BatchNormed, [1], {2: "not always the same"}),
    ],
)
def test_what_is_not_exact_is_refused(
    model_class: type[Loose], exact: list[int], refused: dict[int, str]
) -> None:
    model, data = model_class(), vectors()
    blocks = find_blocks(model, blocks=["one", "two"])  # `shift` is in none
    decision = decide_reuse(model, blocks, data)
    assert sorted(decision.cuts) == exact
    for depth, reason in refused.items():
        assert reason in decision.refused[depth]


def test_a_model_that_reads_its_padding_is_refused() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.tokens, self.mix, self.out = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.mix(self.tokens(ids)).tanh().mean(1))

    for lengths, exact in (([3, 3, 3, 5, 5, 5, 5, 5], []), ([4] * 8, [1, 2])):
        rows = [[1 + i % 8 for i in range(length)] for length in lengths]
        data = Examples({"ids": rows}, [0, 1] * 4)
        model = Mean()
        decision = decide_reuse(model, find_blocks(model, data.gather(torch.arange(2))), data)
        assert sorted(decision.cuts) == exact


def test_random_data_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    model, data = own(), pictures()
    blocks = find_blocks(model, data.gather(torch.arange(2)))
    with caplog.at_level(logging.WARNING, logger="evonas.freezing"):
        decision = decide_reuse(model, blocks, data, augmented=True)
    assert (decision.cuts, decision.deepest(3)) == ({}, 0)
    assert len(caplog.records) == 1
    assert (
        "Sequential: frozen prefixes are computed in every epoch: the training data are"
        in caplog.text
    )
    holed = pictures()
    holed.transform = lambda images: images.masked_fill(images > 1, torch.nan)
    assert "the inputs hold NaN" in decide_reuse(model, blocks, holed).message
    noisy = pictures()
    noisy.transform = lambda images: images + torch.randn(images.shape)
    assert "transform of the training data is random" in decide_reuse(model, blocks, noisy).message
    assert "4 examples are too few" in decide_reuse(model, blocks, pictures(4)).message


def test_trying_takes_no_longer_than_a_tenth_of_a_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, data = own(), pictures()
    blocks = find_blocks(model, data.gather(torch.arange(2)))
    whole = decide_reuse(model, blocks, data, n_epochs=3)
    assert sorted(whole.cuts) == [1, 2, 3]
    now = [0.0]

    def clock() -> float:
        now[0] += 2.0  # between any two looks
        return now[0]

    monkeypatch.setattr("evonas.freezing.prefix.decision.time.monotonic", clock)
    part = decide_reuse(model, blocks, data, n_epochs=1)
    assert 0 < len(part.cuts) < 3
    assert set(part.refused.values()) == {"to try it would take longer than a tenth of a training"}
    assert sorted([*part.cuts, *part.refused]) == [1, 2, 3]
