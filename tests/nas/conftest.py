"""What the tests of this folder share: small images and problems on them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from evonas.nas import FAMILIES
from evonas.nas.problem import ImageClassificationProblem
from evonas.training import Examples

IMAGE = (3, 32, 32)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # The networks here are tiny: two threads wait for each other more than they compute.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_data() -> Callable[..., Examples]:
    """Makes images of four classes, each brighter than the one before."""

    def make(n: int = 40, channels: int = 3, seed: int = 3) -> Examples:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(n) % 4
        images = torch.randint(0, 64, (n, channels, 32, 32), generator=generator)
        images += 60 * labels.view(-1, 1, 1, 1)
        return Examples(images.to(torch.uint8), labels, ("a", "b", "c", "d"))

    return make


@pytest.fixture(scope="session")
def make_problem(
    make_data: Callable[..., Examples],
) -> Callable[..., ImageClassificationProblem]:
    """Makes a problem of a family of spaces, in float32 unless asked otherwise."""

    def make(name: str = "alexnet-small", **settings: Any) -> ImageClassificationProblem:
        data = settings.pop("data", None) or make_data(settings.pop("n_images", 40))
        settings = {"n_epochs": 1, "batch_size": 8, "precision": "float32", **settings}
        family = FAMILIES[name]
        return ImageClassificationProblem(family.space(), family.network, data, **settings)

    return make


@pytest.fixture(scope="session")
def valid_points() -> Callable[..., list[dict[str, Any]]]:
    """Draws points of a problem that have a valid shape."""

    def draw(problem: ImageClassificationProblem, n: int, seed: int = 7) -> list[dict[str, Any]]:
        rng, found = random.Random(seed), []
        while len(found) < n:
            genes = problem.space.sample(rng)
            if problem.invalid_reason(genes) is None:
                found.append(genes)
        return found

    return draw
