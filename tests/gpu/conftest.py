"""The tier `gpu`: `pytest -m gpu -n 0`. A test that asks for `device` runs on the CPU, too.

So the body of such a test is proven in the fast tier, and on a GPU only what a GPU does differently
can fail it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from evonas.training import Examples, ModelProblem

NO_GPU = "no CUDA device here: run `pytest -m gpu -n 0` on a machine that has one"
CUDA = pytest.param(
    "cuda:0",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)],
)


@pytest.fixture(params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> str:
    """The CPU in the fast tier, a GPU in the tier `gpu`."""
    return str(request.param)


@pytest.fixture(autouse=True)
def _comparable() -> Iterator[None]:
    """One thread, and float32 that is not rounded to TF32: results of devices are compared."""
    threads, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    yield
    if torch.cuda.is_available():  # a test that failed may have left it
        torch.cuda.set_sync_debug_mode("default")
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = tf32


@pytest.fixture(scope="session")
def images() -> Examples:
    """96 images of three classes, each brighter than the one before."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(96) % 3
    pixels = torch.randint(0, 120, (96, 3, 16, 16), generator=generator)
    pixels += 60 * labels.view(-1, 1, 1, 1)
    return Examples(pixels.to(torch.uint8), labels, ("dark", "grey", "bright"))


def convolutions(genes: dict[str, Any]) -> nn.Module:
    """A network whose every operation has a deterministic algorithm on a GPU."""
    width = genes["width"]
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.SiLU(),
        nn.AvgPool2d(4), nn.Conv2d(width, 8, 3, padding=1), nn.SiLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Dropout(genes["p"]), nn.Linear(32, 3),
    )  # fmt: skip


@pytest.fixture(scope="session")
def make_problem(images: Examples) -> Callable[..., ModelProblem]:
    """Makes a problem of small networks on the images."""

    def make(**settings: Any) -> ModelProblem:
        space = {"width": [4, 8], "p": [0.0, 0.3], "lr": [0.02, 0.05, 0.1]}
        settings = {
            "n_epochs": 2, "batch_size": 16, "optimizer": "nesterov", "precision": "float32",
            "direction": "max", **settings,
        }  # fmt: skip
        kind = settings.pop("kind", ModelProblem)
        part = images.subset(range(64)), images.subset(range(64, 96))
        return kind(space, convolutions, *part, **settings)

    return make
