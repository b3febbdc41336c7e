"""Trainings that are stopped and go on: the same bits, the same time, and no damaged checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evonas.exceptions import FitnessError
from evonas.training import Examples, FlipCrop, Training, place, resumable
from evonas.training.resumable import Progress, fit_resumable

N, BATCH = 50, 8  # six whole batches an epoch
Loss = Callable[[Tensor, Tensor], Tensor]


def data() -> Examples:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (N, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return Examples(images, torch.arange(N) % 2, ("even", "odd"))


def trained(
    checkpoint: Path, *, schedule: str = "one_cycle", loss: Loss | None = None, **options: Any
) -> tuple[nn.Module, Progress]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 2)
    )
    place(model, "cpu")
    training = Training(3, BATCH, "nesterov", 0.05, schedule=schedule, ema=0.9)  # type: ignore[arg-type]
    settings = {
        "batch_size": BATCH, "optimizer": training.make_optimizer(model.parameters()),
        "scheduler": training.make_scheduler, "seed": 5, "identity": {"genes": 1}, "ema": 0.9,
        "loss_function": loss or nn.CrossEntropyLoss(), "augment": FlipCrop(pad=1, cutout=2),
        "checkpoint": checkpoint, **options,
    }  # fmt: skip
    return model, fit_resumable(model, data(), **settings)


class Interrupting:
    """A cross entropy that Ctrl-C hits at its n-th call."""

    def __init__(self, at: int) -> None:
        self._left = at

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt
        return nn.functional.cross_entropy(outputs, targets)


@pytest.mark.parametrize("schedule", ["one_cycle", "constant", "cosine"])
@pytest.mark.parametrize("stops", [(1,), (4, 9), (6, 6, 1)], ids=str)
def test_a_training_that_was_stopped_ends_with_the_same_bits(
    schedule: str, stops: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, told = trained(tmp_path / "whole", n_epochs=3, schedule=schedule)
    monkeypatch.setattr(resumable, "_SAVE_EVERY", 0.0)
    for at in stops:
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "cut", n_epochs=3, schedule=schedule, loss=Interrupting(at))
    found, progress = trained(tmp_path / "cut", n_epochs=3, schedule=schedule)
    for name, value in wanted.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    assert (told.steps, progress.steps) == (18, 18)
    assert progress.share == 1.0


def test_a_kill_costs_what_was_trained_since_the_checkpoint(tmp_path: Path) -> None:
    """Nothing is written within 15 seconds: the next start begins anew, to the same end."""
    wanted, _ = trained(tmp_path / "whole", n_epochs=2)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", n_epochs=2, loss=Interrupting(5))
    assert not (tmp_path / "cut").exists()
    found, _ = trained(tmp_path / "cut", n_epochs=2)
    assert torch.equal(found[0].weight, wanted[0].weight)  # type: ignore[arg-type,index]


def test_after_the_end_nothing_is_trained(tmp_path: Path) -> None:
    wanted, _ = trained(tmp_path / "file", n_epochs=2)
    found, progress = trained(tmp_path / "file", n_epochs=2, loss=Interrupting(1))
    assert torch.equal(found[4].weight, wanted[4].weight)  # type: ignore[arg-type,index]
    assert progress.steps == 12


def test_seconds_are_spent_and_the_rate_falls_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(resumable.time, "monotonic", lambda: now[0])
    rates: list[float] = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        now[0] += 0.75
        return nn.functional.cross_entropy(outputs, targets)

    told: list[Progress] = []

    class Optimizer(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            rates.append(self.param_groups[0]["lr"])
            super().step()

    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    training = Training(schedule="one_cycle")
    run = partial(
        fit_resumable, model, data(), batch_size=BATCH,
        optimizer=Optimizer(model.parameters(), 0.4), scheduler=training.make_scheduler, seed=0,
        loss_function=loss, identity={},
        checkpoint=tmp_path / "file", report=told.append,
    )  # fmt: skip
    progress = run(seconds=10.0)
    assert progress.steps == 14, "the step that ends after 10 seconds is the last"
    assert [entry.epoch for entry in told] == [1, 2, 2]
    assert told[-1] == progress
    assert max(rates) == pytest.approx(0.4, rel=0.05)
    assert rates[0] == pytest.approx(0.4 / 25)
    assert rates[-1] < 0.02

    # More seconds: it goes on, over all starts.
    rates.clear()
    again = partial(run, optimizer=Optimizer(model.parameters(), 0.4))
    assert again(seconds=16.0).steps == 22
    assert rates[0] < 0.3, "two thirds of the way the rate is on its way down"


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_checkpoint_is_left_and_said(damage: str, tmp_path: Path) -> None:
    wanted, _ = trained(tmp_path / "file", n_epochs=1)
    content = bytearray((tmp_path / "file").read_bytes())
    match damage:
        case "cut":
            content = content[:-100]
        case "flipped":
            content[len(content) // 2] ^= 1
        case "empty":
            content.clear()
    (tmp_path / "file").write_bytes(content)
    with pytest.warns(RuntimeWarning, match="file is not gone on from, because it is damaged"):
        found, _ = trained(tmp_path / "file", n_epochs=1)
    assert torch.equal(found[0].weight, wanted[0].weight)  # type: ignore[arg-type,index]


def test_a_checkpoint_of_another_training_is_left_and_said(tmp_path: Path) -> None:
    trained(tmp_path / "file", n_epochs=1)
    with pytest.warns(RuntimeWarning, match="of a training with other settings: trained anew"):
        _, progress = trained(tmp_path / "file", n_epochs=2, identity={"genes": 2})
    assert progress.steps == 12


def test_divergence_is_an_error_that_names_the_rate(tmp_path: Path) -> None:
    with pytest.raises(FitnessError, match=r"diverged in epoch 1, with a .* up to 0\.05"):
        trained(tmp_path / "file", n_epochs=1, loss=lambda outputs, _: outputs.sum() * math.nan)


@pytest.mark.parametrize("lengths", [{}, {"n_epochs": 1, "seconds": 1.0}, {"n_epochs": 0},
                                     {"seconds": 0.0}])  # fmt: skip
def test_one_length_above_zero_is_asked_for(lengths: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"give one of|must be (at least 1|above 0)"):
        trained(tmp_path / "file", **lengths)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(Exception, match="cannot be written") as caught:
        trained(tmp_path / "a" / "file", n_epochs=1)
    assert type(caught.value).__name__ == "RunStorageError"
