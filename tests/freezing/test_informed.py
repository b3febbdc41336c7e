"""Rules that look at weights and gradients, held against values worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evonas.freezing import RecipeProblem, find_blocks
from evonas.freezing.informed import relative_gradients, signal_to_noise


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def test_gradients_by_weights() -> None:
    model = Two()
    with torch.no_grad():
        model.first.weight.copy_(torch.eye(2))
        model.second.weight.copy_(4 * torch.eye(2))
    blocks = find_blocks(model, blocks=["first", "second"])
    batch = torch.tensor([[1.0, 0.0]]), torch.zeros(1)
    # The sum of second(first(x)): gradients (4, 0; 4, 0) and (1, 0; 1, 0), weights of norm
    # sqrt(2) and 4 sqrt(2): 4 and 1/4, the largest being 1.
    found = relative_gradients(model, blocks, batch, lambda outputs, targets: outputs.sum())
    assert found == pytest.approx([1.0, 1 / 16])
    assert all(p.grad is None for p in model.parameters())


def test_signal_above_the_noise_of_a_matrix_of_its_size() -> None:
    torch.manual_seed(0)
    noise = torch.randn(64, 64) / 8
    strong = noise + 8 * torch.ones(64, 64) / 64  # one singular value of about 8
    model = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(2)), nn.Linear(64, 2))
    with torch.no_grad():
        model[0].weight.copy_(noise)  # type: ignore[arg-type, operator]
        model[1].weight.copy_(strong)  # type: ignore[arg-type, operator]
    blocks = find_blocks(model, blocks=["0", "1"])
    values = torch.linalg.svdvals(strong.double())
    low, high = torch.quantile(values, torch.tensor([0.25, 0.75]).double())
    above = values > 2 * (high - low) / 1.349
    expected = values[above].sum() / values[~above].sum() / values[0]
    found = signal_to_noise(model, blocks)
    assert found[1] == pytest.approx(float(expected), rel=1e-6)
    assert above[0]


def test_a_block_of_vectors_or_zeros_has_no_signal() -> None:
    model = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 2))
    nn.init.zeros_(model[1].weight)  # type: ignore[arg-type]
    assert signal_to_noise(model, find_blocks(model, blocks=["0", "1"])) == [0.0, 0.0]


def test_they_are_rivals_of_a_search() -> None:
    torch.manual_seed(0)
    x = torch.randn(40, 6)

    def factory() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            layers = [layer for _ in range(4) for layer in (nn.Linear(6, 6), nn.Tanh())]
            net = nn.Sequential(*layers, nn.Linear(6, 2))
        with torch.no_grad():
            net[0].weight.mul_(100.0)  # type: ignore[operator]
        return net

    data = x, (x[:, 0] > 0).long()
    made = RecipeProblem(factory, data, data, lr=[1e-3, 1e-2], precision="float32")
    rivals = made.rivals()
    (slow, fast) = rivals["relative gradients"]
    assert (slow["lr"], fast["lr"]) == (1e-3, 1e-2)
    assert fast["0"] == "frozen"  # a hundred times the weights, and small gradients behind tanh
    assert 1.0 in {fast[name] for name in ("2", "4", "6")}
    ratios = dict(zip(("0", "2", "4", "6"), signal_to_noise(factory(), made.blocks), strict=True))
    half = {name for name in ratios if rivals["signal to noise"][0][name] == 1.0}
    assert half == set(sorted(ratios, key=lambda name: -ratios[name])[:2])
    assert {rivals["signal to noise"][0][name] for name in set(ratios) - half} == {"frozen"}
    assert made.label_of(fast) == "relative gradients"
