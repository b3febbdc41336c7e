"""Real trainings in worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import evonas as en
from evonas.execution import ProcessExecutor
from evonas.nas import ImageClassificationProblem, alexnet_small_space, plain_network
from evonas.testing import trace
from evonas.training import Examples


@pytest.mark.slow
def test_trainings_are_the_same_with_two_workers_of_which_one_is_killed(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 4
    images = torch.randint(0, 40, (200, 3, 16, 16), dtype=torch.uint8, generator=generator)
    images += (labels * 50).to(torch.uint8).view(-1, 1, 1, 1)
    data = Examples(images, labels, ("a", "b", "c", "d"))

    class Kills(en.Observer):
        def on_evaluation(self, evaluation: en.Evaluation, best: en.Evaluation | None) -> None:
            if evaluation.number == 1:
                os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    def search(workers: int, *callbacks: en.Observer) -> dict[str, Any]:
        problem = ImageClassificationProblem(
            alexnet_small_space(), plain_network, data, n_epochs=2, batch_size=16,
            precision="float32",
        )  # fmt: skip
        return trace(
            en.evolve(
                problem,
                population=4,
                generations=2,
                elite=1,
                seed=4,
                threads_per_trial=1,
                run_dir=tmp_path / str(workers),
                executor=None if workers == 1 else ProcessExecutor(workers),
                callbacks=callbacks,
                progress=False,
            )
        )

    assert search(2, Kills()) == search(1)
    champion = tmp_path / "2" / "ga-champ-alexnet.pt"
    assert champion.exists()
    weights = [torch.load(tmp_path / run / champion.name, weights_only=True) for run in "12"]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
