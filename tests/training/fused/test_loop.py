"""Candidates trained at once come to what each comes to alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evonas.exceptions import FitnessError, FusionError, TrialPruned
from evonas.training import Examples, FlipCrop, MeanLoss, Training, fit, seeded
from evonas.training.fused.loop import Candidate, fit_together
from evonas.training.fused.noise import RandomStates
from evonas.training.fused.stacked import StackedModels, _TorchsBatchNorm

# Sums in another order: what float32 loses in three short epochs. Nothing else may differ.
TOLERANCE = {"rtol": 2e-4, "atol": 2e-5}

SETTINGS = [
    Training(3, 8, "nesterov", 0.05, 0.9, 1e-3, "one_cycle", 0.1, 0.0, 3.0),
    Training(3, 8, "nesterov", 0.1, 0.8, 0.0, "cosine", 0.0, 0.9, None),
    Training(3, 8, "sgd", 0.02, 0.0, 5e-4, "constant", 0.2, 0.0, 0.5),
]
Row = dict[str, float]


def convolutions(p: float) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.SiLU(inplace=True),
        nn.Dropout2d(p), nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.GELU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Dropout(p), nn.Linear(32, 16), nn.SiLU(), nn.Dropout(p, inplace=True),
        nn.Linear(16, 3),
    )  # fmt: skip


class Alike:
    """Trains the same candidates alone and at once, and keeps what each came to.

    Args:
        prunes: After which epoch a candidate is pruned, by its number.
        options: For both loops.
    """

    def __init__(
        self,
        data: Examples,
        settings: list[Training],
        build: Callable[[int], nn.Module] = lambda number: convolutions(0.1 * number),
        *,
        metric: Any = None,
        prunes: dict[int, int] | None = None,
        **options: Any,
    ) -> None:
        train, val = data.subset(range(45)), data.subset(range(45, 60))
        options |= {"batch_size": 8}
        self.alone, self.together = [], []
        self.rows: list[list[Row]] = [[] for _ in settings]
        self.rows_together: list[list[Row]] = [[] for _ in settings]
        self.models, self.candidates = [], []
        states = RandomStates(torch.device("cpu"))
        for number, training in enumerate(settings):
            last = (prunes or {}).get(number)
            with seeded(100 + number):
                one = candidate(build(number), training, number, metric)
                one.report = _into(self.rows[number], last)
                self.models.append(one.model)
                self.alone.append(_alone(one, train, val, options))
            with seeded(100 + number):
                other = candidate(build(number), training, number, metric)
                states.append_current()
            other.report = _into(self.rows_together[number], last)
            self.candidates.append(other)
        self.together = fit_together(self.candidates, train, val, states=states, **options)

    def check(self) -> None:
        for one, other in zip(self.alone, self.together, strict=True):
            if not isinstance(one, float) or math.isnan(one):
                assert str(other) == str(one)
            else:
                assert other == pytest.approx(one, rel=1e-3, abs=1e-3)
        for rows, together in zip(self.rows, self.rows_together, strict=True):
            assert [list(row) for row in rows] == [list(row) for row in together]
            for row, other in zip(rows, together, strict=True):
                assert other == pytest.approx(row, rel=1e-3, abs=1e-4)
        for one, model, other in zip(self.alone, self.models, self.candidates, strict=True):
            if isinstance(one, float) and math.isfinite(one):
                same_state(other.model, model)


def candidate(model: nn.Module, training: Training, seed: int, metric: Any = None) -> Candidate:
    optimizer = training.make_optimizer(model.parameters())
    n_steps = training.n_steps(45)
    return Candidate(
        model, optimizer, seed, training.n_epochs, n_steps,
        scheduler=training.make_scheduler(optimizer, n_steps), metric=metric,
        loss_function=nn.CrossEntropyLoss(label_smoothing=training.label_smoothing),
        grad_clip=training.grad_clip, ema=training.ema,
    )  # fmt: skip


def _alone(one: Candidate, train: Examples, val: Examples, options: Any) -> float | TrialPruned:
    try:
        return fit(
            one.model, train, val, n_epochs=one.n_epochs, optimizer=one.optimizer,
            scheduler=one.scheduler, step_scheduler=True, seed=one.seed, metric=one.metric,
            loss_function=one.loss_function, grad_clip=one.grad_clip, ema=one.ema,
            report=one.report, **options,
        )  # fmt: skip
    except TrialPruned as pruned:
        return pruned


def same_state(found: nn.Module, expected: nn.Module) -> None:
    state = found.state_dict()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(
            state[name], tensor, msg=lambda m, n=name: f"{n}: {m}", **TOLERANCE
        )


def _into(rows: list[Row], last: int | None) -> Callable[[int, Any], None]:
    def report(epoch: int, metrics: Any) -> None:
        assert epoch == len(rows)
        rows.append(dict(metrics))
        if epoch == last:
            raise TrialPruned(epoch, 0.25, 0.5)

    return report


def test_rates_momentum_decay_dropout_smoothing_clipping_and_averages_are_each_ones_own(
    data: Examples,
) -> None:
    alike = Alike(data, SETTINGS)
    alike.check()
    assert len({round(row[-1]["train_loss"], 3) for row in alike.rows}) == 3  # they do differ


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adam", "adamw", "rmsprop", "adagrad"])
def test_every_optimizer_trains_as_torchs_does(data: Examples, optimizer: Any) -> None:
    settings = [  # small rates: RMSprop divides the rounding of small gradients by themselves
        Training(2, 8, optimizer, lr, momentum, decay, "linear")
        for lr, momentum, decay in [(1e-3, 0.9, 0.0), (3e-4, 0.0, 0.01), (2e-3, 0.5, 0.1)]
    ]
    Alike(data, settings).check()


def test_running_statistics_are_those_of_training_alone(data: Examples) -> None:
    alike = Alike(data, SETTINGS)
    norms = [candidate.model[1] for candidate in alike.candidates]
    for norm, alone in zip(norms, alike.models, strict=True):
        assert torch.allclose(norm.running_mean, alone[1].running_mean, rtol=1e-4, atol=1e-6)
        assert torch.allclose(norm.running_var, alone[1].running_var, rtol=1e-4, atol=1e-6)
        assert norm.num_batches_tracked == alone[1].num_batches_tracked == 18
    assert not torch.allclose(norms[0].running_mean, norms[1].running_mean)


def test_masks_of_dropout_are_bit_for_bit_those_of_training_alone() -> None:
    """A model that is dropout alone: what it trains on is the mask."""

    class Masked(nn.Module):
        def __init__(self, p: float) -> None:
            super().__init__()
            self.dropout, self.linear = nn.Dropout(p), nn.Linear(1, 1, bias=False)
            nn.init.ones_(self.linear.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.dropout(x)[:, :, None])[:, :, 0]

    models, states, alone = [], RandomStates(torch.device("cpu")), []
    for number, p in enumerate([0.5, 0.0, 0.2]):
        with seeded(number):
            model = Masked(p)
            states.append_current()
            alone.append(torch.stack([model(torch.ones(4, 33)) for _ in range(2)]))
        models.append(model)
    stacked = StackedModels(models, (nn.Dropout,), states)
    before = torch.get_rng_state()
    together = torch.stack([stacked.train_outputs(torch.ones(3, 4, 33)) for _ in range(2)], 1)
    assert torch.equal(together, torch.stack(alone))
    assert torch.equal(before, torch.get_rng_state())


def test_augmentation_and_test_time_flips_are_each_ones_own(data: Examples) -> None:
    Alike(data, SETTINGS, augment=FlipCrop(pad=1, cutout=2), test_time_flip=True).check()


def test_losses_and_metrics_of_the_user(data: Examples) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - nn.functional.one_hot(targets, 3)).square().mean()

    alike = Alike(data, SETTINGS[:2], metric=MeanLoss(loss))
    alike.check()


def test_bfloat16_is_as_near_as_bfloat16_is(data: Examples) -> None:
    alike = Alike(data, SETTINGS[:2], precision="bfloat16")
    for rows, together in zip(alike.rows, alike.rows_together, strict=True):
        assert together[0]["train_loss"] == pytest.approx(rows[0]["train_loss"], rel=0.03)


def test_one_that_diverges_leaves_the_others_as_they_are(data: Examples) -> None:
    wild = Training(3, 8, "nesterov", 1e30, 0.9, 0.0)
    alike = Alike(data, [SETTINGS[0], wild, SETTINGS[1]])
    assert math.isnan(alike.alone[1])
    assert alike.rows_together[1] == []
    alike.check()


def test_one_that_is_pruned_and_one_of_fewer_epochs_leave_the_others_as_they_are(
    data: Examples,
) -> None:
    settings = [SETTINGS[0], replace(SETTINGS[1], n_epochs=1), *SETTINGS[1:]]
    alike = Alike(data, settings, prunes={3: 1})
    alike.check()
    assert isinstance(alike.together[3], TrialPruned)
    assert list(map(len, alike.rows_together)) == [3, 1, 3, 2]


def test_a_metric_that_is_wrong_ends_its_candidate_alone(data: Examples) -> None:
    def metric(outputs: Tensor, targets: Tensor) -> float:
        calls.append(1)
        if len(calls) == 2:
            raise FitnessError("the metric m returned nan")
        return 0.5

    calls: list[int] = []
    states, candidates = RandomStates(torch.device("cpu")), []
    for number, training in enumerate(SETTINGS):
        with seeded(number):
            candidates.append(candidate(convolutions(0.0), training, number, metric))
            states.append_current()
    train = data.subset(range(45))
    found = fit_together(candidates, train, train, states=states, batch_size=8)
    assert [str(each) for each in found] == ["0.5", "the metric m returned nan", "0.5"]
    assert len(calls) == 3 + 2 + 2


def test_shapes_that_differ_are_refused_by_name(data: Examples) -> None:
    with pytest.raises(
        FusionError,
        match=r"candidates 0 and 1 .* module 1 is Linear\(in_features=192, out_features=5, .* in "
        r"the one and Linear\(in_features=192, out_features=6",
    ):
        Alike(data, SETTINGS[:2], build=lambda n: nn.Sequential(
            nn.Flatten(), nn.Linear(192, 5 + n), nn.Linear(5 + n, 3)))  # fmt: skip


def test_batch_norms_are_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within `vmap` that of cuDNN asks for a layout, which is an error on a GPU."""
    asked: list[bool] = []
    batch_norm = torch.batch_norm
    monkeypatch.setattr(
        torch, "batch_norm", lambda *args: asked.append(args[-1]) or batch_norm(*args)
    )
    with _TorchsBatchNorm():
        x = torch.randn(6, 3, 2, 2)
        norm = nn.BatchNorm2d(3)
        found = norm(x)
    assert asked == [False]
    assert torch.equal(found, nn.BatchNorm2d(3)(x))
    assert norm.running_mean is not None
    assert norm.running_mean.abs().sum() > 0
