from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable
from itertools import count

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from evonas.freezing import Examples, find_blocks
from evonas.freezing.prefix.decision import ReuseDecision, decide_reuse, first_decision


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
    assert decision.refused == {}


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


class Gated(Skip):
    """Likewise, but times a parameter that is zero: only its gradient shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        early = self.one(x).tanh()
        return self.out(self.two(early).tanh() + self.gate * early) + 0 * self.shift.sum()


class GatedTwice(Gated):
    """Likewise, times two: at the start not even a gradient shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        early = self.one(x).tanh()
        late = self.two(early).tanh()
        late = late * (1 + self.gate + self.second) + 1000 * self.gate * self.second * early
        return self.out(late) + 0 * self.shift.sum()


class BatchNormed(Loose):
    """What the first block returns depends on the other examples of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return self.out(self.two(x - x.mean(0)).tanh()) + 0 * self.shift.sum()


@pytest.mark.parametrize(
    ("model_class", "exact", "refused"),
    [
        (Loose, [], {1: "requires a gradient", 2: "requires a gradient"}),
        (Noisy, [1], {2: "draws random numbers in training"}),
        (Skip, [1], {2: "outputs in eval mode differ"}),
        (Gated, [1], {2: "gradients differ after a step"}),
        (GatedTwice, [1], {2: "gradients differ after a step"}),
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


class LayerDrop(Loose):
    """Leaves a layer out once in a million passes, as wav2vec2 does once in ten."""

    draw: Callable[[], float]

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x).tanh()
        if not (self.training and self.draw() < 1e-6):
            x = self.two(x).tanh()
        return self.out(x) + 0 * self.shift.sum()


@pytest.mark.parametrize(
    "draw",
    [lambda: float(torch.rand([])), random.random, np.random.random],
    ids=["torch", "python", "numpy"],
)
def test_a_prefix_that_may_leave_a_layer_out_is_refused(draw: Callable[[], float]) -> None:
    model, data = LayerDrop(), vectors()
    model.draw = draw
    decision = decide_reuse(model, find_blocks(model, blocks=["one", "two"]), data)
    assert sorted(decision.cuts) == [1], "nothing is drawn for the first"
    assert decision.refused == {2: "the prefix draws random numbers in training"}
    model.draw = lambda: 1.0
    assert sorted(decide_reuse(model, find_blocks(model, blocks=["one", "two"]), data).cuts) == [
        1,
        2,
    ]


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
    data = pictures()
    with caplog.at_level(logging.WARNING, logger="evonas.freezing"):
        decision = first_decision("Sequential", data, augmented=True)
    assert (decision.cuts, decision.deepest(3), decision.is_settled(3)) == ({}, 0, True)
    assert caplog.messages == [
        "Sequential: frozen prefixes are computed in every epoch: the training data are augmented "
        "at random"
    ]
    holed = pictures()
    holed.transform = lambda images: images.masked_fill(images > 1, torch.nan)
    noisy = pictures()
    noisy.transform = lambda images: images + torch.randn(images.shape)
    for examples, reason in (
        (holed, "the inputs hold NaN"),
        (noisy, "transform of the training data is random"),
        (pictures(4), "4 examples are too few"),
    ):
        assert reason in first_decision("Sequential", examples, augmented=False).refused[0]
    caplog.clear()
    assert first_decision("Sequential", data, augmented=False) == ReuseDecision()
    assert caplog.messages == []


class Deep(nn.Module):
    """Five layers; what two of them return is used again behind the next."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.three = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.four, self.out = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        early = self.one(x).tanh()
        late = self.two(early).tanh()
        late = self.three(late).tanh() + early
        return self.out(self.four(late).tanh() + early)


def test_a_depth_is_tried_when_it_is_asked_for(
    checked: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    model, data = Deep(), vectors()
    blocks = find_blocks(model, blocks=["one", "two", "three", "four"])
    caplog.set_level(logging.INFO, logger="evonas.freezing")
    first = decide_reuse(model, blocks, data, [1])
    assert (sorted(first.cuts), dict(first.refused), checked) == ([1], {}, [1])
    assert [first.is_settled(depth) for depth in range(5)] == [True, True, False, False, False]
    assert decide_reuse(model, blocks, data, [0, 1], known=first) is first, "nothing to try"
    checked.clear()
    later = decide_reuse(model, blocks, data, [3], known=first)
    assert set(checked) == {3, 2}, "down to the next that is equal"
    assert (sorted(later.cuts), sorted(later.refused)) == ([1], [2, 3])
    assert [later.deepest(depth) for depth in range(5)] == [0, 1, 1, 1, 0]
    assert not later.is_settled(4)
    assert ReuseDecision.from_json(json.loads(json.dumps(later.to_json()))) == later
    whole = decide_reuse(model, blocks, data)
    assert whole == decide_reuse(model, blocks, data, [4], known=later)
    assert caplog.messages[:2] == [
        "Deep: the output of the first block is computed once: equal up to rounding",
        "Deep: the output of the first block is computed once, of the first 3 blocks not: outputs "
        "in eval mode differ",
    ]


def test_where_nothing_may_be_reused_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    model, data = Loose(), vectors()
    blocks = find_blocks(model, blocks=["one", "two"])
    caplog.set_level(logging.INFO, logger="evonas.freezing")
    decision = decide_reuse(model, blocks, data, [2])
    decide_reuse(model, blocks, data, [1], known=ReuseDecision({}, {2: decision.refused[2]}))
    assert [(record.levelname, record.message) for record in caplog.records] == [
        (level, f"Loose: the output of {which} is computed in every epoch: the prefix's output "
         "requires a gradient")
        for level, which in (("WARNING", "the first 2 blocks"), ("INFO", "the first block"))
    ]  # fmt: skip


def test_a_model_that_fails_is_not_reused(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Loose):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no\nway")

    model, data = Failing(), vectors()
    decision = decide_reuse(model, find_blocks(model, blocks=["one", "two"]), data, [1])
    assert decision == ReuseDecision({}, {0: "RuntimeError: no"})
    assert caplog.messages == [
        "Failing: frozen prefixes are computed in every epoch: RuntimeError: no"
    ]


@pytest.mark.parametrize(
    ("n_examples", "seconds", "n_checks"),
    [
        (600, 9.0, 3),
        (599, 9.0, 2),
        (200, 9.0, 1),
        (199, 9.0, 0),
        (199, 0.1, 1),  # a check is estimated to take ten times as long
        (0, 0.03, 3),
        (None, 9.0, 3),
    ],
)
def test_trying_takes_no_longer_than_a_tenth_of_a_training(
    n_examples: int | None,
    seconds: float,
    n_checks: int,
    checked: list[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = count(step=seconds)
    monkeypatch.setattr("evonas.freezing.prefix.check.time.thread_time", clock.__next__)
    model, data = Deep(), vectors()
    blocks = find_blocks(model, blocks=["one", "two", "three", "four"])
    decision = decide_reuse(model, blocks, data, [3], n_examples=n_examples)
    assert checked == [3, 2, 1][:n_checks]
    assert sorted(decision.cuts) == ([1] if n_checks == 3 else [])
    assert decision.is_settled(3), "for good"
    long = "a check would take longer than a tenth of a training"
    untried = {depth for depth, reason in decision.refused.items() if reason == long}
    assert untried == ({3 - n_checks} if n_checks < 3 else set())
    assert decision.deepest(3) == (1 if n_checks == 3 else 0)
    shallower = decide_reuse(model, blocks, data, [1], known=decision)
    assert shallower.deepest(3) == decision.deepest(3), "whatever is found later"
    if n_checks == 0:
        assert caplog.messages == [
            f"Deep: the output of the first 3 blocks is computed in every epoch: {long}"
        ]
