"""What the tests of the command share: small runs, and what a run's folder holds."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.testing import RoughProblem

Search = Callable[..., en.Result]
Snapshot = Callable[[Path], dict[str, tuple[bytes, int]]]


@pytest.fixture(scope="session")
def search() -> Search:
    """Runs a small search over a problem in which everything that can go wrong does."""

    def run(run_dir: Path, **changes: Any) -> en.Result:
        arguments: dict[str, Any] = {"population": 12, "generations": 3, "elite": 1, "seed": 1}
        arguments |= {"max_consecutive_failures": 1000, "run_dir": run_dir}
        problem = changes.pop("problem", None) or RoughProblem()
        return en.evolve(problem, **(arguments | changes))

    return run


@pytest.fixture(scope="session")
def ended(search: Search, tmp_path_factory: pytest.TempPathFactory) -> en.Result:
    """A run that has ended; only to be read."""
    return search(tmp_path_factory.mktemp("ended") / "run")


@pytest.fixture(scope="session")
def snapshot() -> Snapshot:
    """Content and time of change of a folder's files."""

    def take(folder: Path) -> dict[str, tuple[bytes, int]]:
        return {
            str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    return take


@pytest.fixture(scope="session")
def classified(tmp_path_factory: pytest.TempPathFactory) -> en.Result:
    """A run of image classification with all its files, in which nothing is trained."""
    import torch

    from evonas.nas import FAMILIES, ImageClassificationProblem
    from evonas.training import Examples

    class Untrained(ImageClassificationProblem):
        def evaluate(self, genes: dict[str, Any], trial: en.Trial) -> float:
            if trial.number == 2:
                raise RuntimeError("as a training may")
            for epoch in range(3):
                trial.report(accuracy=(epoch + 1) * (0.2 + genes["lr"]), loss=1.0, train_loss=2.0)
            return 0.6 + 3 * genes["lr"]

    images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8)
    family = FAMILIES["alexnet-small"]
    problem = Untrained(
        family.space(), family.network, Examples(images, torch.arange(40) % 2, ("cat", "dog")),
        n_epochs=3, batch_size=8, precision="float32", dataset="my_pets",
    )  # fmt: skip
    run_dir = tmp_path_factory.mktemp("classified") / "run"
    points = []
    rng = random.Random(0)
    while not points:
        genes = problem.space.sample(rng)
        points += [genes] if problem.invalid_reason(genes) is None else []
    # The same network with two learning rates: one model, two trainings.
    points.append({**points[0], "lr": points[0]["lr"] / 2})
    return en.evolve(
        problem, population=8, generations=2, elite=1, seed=0, run_dir=run_dir, initial=points
    )
