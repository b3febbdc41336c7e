"""What a model may take and return."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from evonas.training.loop import evaluate
from evonas.training.passes import forward


class Returns(nn.Module):
    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.wrap = wrap

    def forward(self, x: torch.Tensor) -> Any:
        return self.wrap(x)


@pytest.mark.parametrize(
    "wrap",
    [lambda x: x, lambda x: SimpleNamespace(logits=x), lambda x: {"logits": x, "hidden": None}],
)
def test_a_tensor_is_found_in_what_a_model_returns(wrap: Any) -> None:
    x = torch.ones(2, 3)
    for inputs in (x, {"x": x}, (x,)):
        assert torch.equal(forward(Returns(wrap), inputs), x)


@pytest.mark.parametrize("wrap", [lambda x: (x, x), lambda x: {"out": x}, lambda x: None])
def test_anything_else_is_refused(wrap: Any) -> None:
    with pytest.raises(TypeError, match="must return a tensor, an object with .logits or a dict"):
        forward(Returns(wrap), torch.ones(2, 3))


def test_a_test_time_flip_averages_the_outputs_for_an_image_and_its_mirror_image() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 1, 4, 4, generator=generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    seen: list[torch.Tensor] = []

    def metric(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        seen.append(outputs)
        return 0.0

    batches = [(images[:4], torch.zeros(4)), (images[4:], torch.zeros(2))]
    evaluate(model, batches, metric=metric, test_time_flip=True)
    wanted = (model(images) + model(images.flip(3))) / 2
    torch.testing.assert_close(seen[0], wanted)
