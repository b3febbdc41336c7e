from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from evonas.training import (
    Examples,
    FlipCrop,
    accuracy,
    evaluate,
    fit,
    load_digits,
    place,
    split,
    train_epoch,
)


def network(n_channels: int = 3, n_classes: int = 3, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(n_channels, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(128, n_classes),
    )


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


# The gradient's norm is 0.7 to 1.4 here: clipped in every step, in some, in none.
@pytest.mark.parametrize("grad_clip", [None, 0.05, 0.95, 1e3])
def test_float32_equals_a_hand_written_loop_to_the_bit(
    data: Examples, grad_clip: float | None
) -> None:
    resident = data
    batches = [list(resident.batches(16, seed=epoch, shuffle=True)) for epoch in range(2)]

    ours, optimizer = place(network(), "cpu"), None
    optimizer = sgd(ours)
    means = [train_epoch(ours, epoch, optimizer, grad_clip=grad_clip) for epoch in batches]

    by_hand = place(network(), "cpu")
    optimizer = sgd(by_hand)
    for epoch, mean in zip(batches, means, strict=True):
        total = 0.0
        for inputs, labels in epoch:
            optimizer.zero_grad()
            loss = functional.cross_entropy(by_hand(inputs), labels)
            loss.backward()
            if grad_clip is not None:
                nn.utils.clip_grad_norm_(by_hand.parameters(), grad_clip)
            optimizer.step()
            total += loss.item() * len(labels)
        assert mean == pytest.approx(total / 60, rel=1e-12)
    assert torch.equal(weights(ours), weights(by_hand))


def test_fit_trains_as_its_parts_do_with_an_order_for_each_epoch(data: Examples) -> None:
    resident = data
    seen: list[list[int]] = []

    class Watched:
        def __len__(self) -> int:
            return len(resident)

        def batches(self, batch_size: int, *, seed: int | None = None, **how: Any) -> Any:
            found = list(resident.batches(batch_size, seed=seed, **how))
            seen.append(torch.cat([labels for _, labels in found]).tolist())
            return iter(found)

    def run(seed: int) -> Tensor:
        model = place(network(), "cpu")
        fit(model, Watched(), resident, n_epochs=2, batch_size=16, optimizer=sgd, seed=seed)
        return weights(model)

    first = run(1)
    torch.rand(5)  # the global generator decides nothing where there is no dropout
    assert torch.equal(run(1), first)
    assert not torch.equal(run(2), first)
    assert seen[0] != seen[1]
    assert seen[0] == seen[2]


def test_fit_reports_each_epoch_and_returns_the_last_metric(data: Examples) -> None:
    resident = data
    rows: list[tuple[int, Mapping[str, float]]] = []
    model = place(network(), "cpu")
    value = fit(
        model,
        resident,
        resident,
        n_epochs=3,
        batch_size=16,
        optimizer=sgd,
        scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5),
        seed=0,
        report=lambda epoch, metrics: rows.append((epoch, dict(metrics))),
    )
    assert [epoch for epoch, _ in rows] == [0, 1, 2]
    assert [metrics["lr"] for _, metrics in rows] == [0.1, 0.05, 0.025]
    assert all(set(metrics) == {"accuracy", "train_loss", "lr"} for _, metrics in rows)
    assert rows[-1][1]["accuracy"] == value == evaluate(model, resident.batches(60))


def test_a_scheduler_can_step_with_each_batch(data: Examples) -> None:
    resident = data
    model = place(network(), "cpu")
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    fit(
        model,
        resident,
        resident,
        n_epochs=2,
        batch_size=16,
        optimizer=optimizer,
        scheduler=scheduler,
        step_scheduler=True,
        seed=0,
    )
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**8)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_digits_are_learnt_in_both_precisions(precision: str) -> None:
    data = load_digits(16)
    train, val = split(data, seed=0)
    model = place(network(1, 10), "cpu")
    value = fit(
        model,
        data.subset(train),
        data.subset(val),
        n_epochs=3,
        batch_size=32,
        optimizer=sgd,
        seed=0,
        precision=precision,
    )
    assert value > 0.85
    assert next(model.parameters()).dtype == torch.float32


def test_bfloat16_is_used_where_asked_for(data: Examples) -> None:
    dtypes = set()
    model = place(network(), "cpu")
    model.register_forward_hook(lambda module, inputs, output: dtypes.add(output.dtype))
    batches = list(data.batches(60))
    train_epoch(model, batches, sgd(model), precision="bfloat16")
    evaluate(model, batches, precision="bfloat16")
    assert dtypes == {torch.bfloat16}


def test_the_loss_gets_float32_and_the_model_trains_in_train_mode(data: Examples) -> None:
    modes = []
    model = place(network(), "cpu")
    model.eval()
    model.register_forward_hook(lambda module, inputs, output: modes.append(module.training))

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        assert outputs.dtype == torch.float32
        return functional.cross_entropy(outputs, labels)

    batches = list(data.batches(60))
    train_epoch(model, batches, sgd(model), loss, precision="bfloat16")
    assert modes == [True]


@pytest.mark.parametrize("where", ["loss", "metric"])
def test_divergence_ends_the_training_with_nan_and_without_a_report(
    data: Examples, where: str
) -> None:
    resident = data
    reported = []
    calls = 0

    def metric(outputs: Tensor, targets: Tensor) -> float:
        nonlocal calls
        calls += 1
        return math.inf if where == "metric" and calls == 2 else 0.5

    model = network()
    value = fit(
        place(model, "cpu"),
        resident,
        resident,
        n_epochs=5,
        batch_size=16,
        optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=1e30 if where == "loss" else 0.1),
        metric=metric,
        seed=0,
        report=lambda epoch, metrics: reported.append(epoch),
    )
    assert math.isnan(value)
    assert reported == ([] if where == "loss" else [0])


def test_evaluation_equals_accuracy_by_hand_and_restores_each_mode(data: Examples) -> None:
    model = place(network(dropout=0.5), "cpu")
    model.train()
    model[0].eval()  # type: ignore[index]  # a frozen block
    resident = data
    value = evaluate(model, resident.batches(7))
    assert [module.training for module in model] == [False] + [True] * 5  # type: ignore[attr-defined]
    ((inputs, labels),) = resident.batches(60)
    model.eval()
    assert value == (model(inputs).argmax(1) == labels).double().mean().item()


def test_a_metric_gets_all_outputs_and_targets_at_once(data: Examples) -> None:
    shapes = []

    def metric(outputs: Tensor, targets: Tensor) -> float:
        shapes.append((tuple(outputs.shape), tuple(targets.shape), outputs.dtype))
        return 0.25

    batches = data.batches(7)
    assert evaluate(place(network(), "cpu"), batches, metric=metric, precision="bfloat16") == 0.25
    assert shapes == [((60, 3), (60,), torch.float32)]


def test_accuracy_is_a_share_and_nan_where_the_model_has_diverged() -> None:
    outputs = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert accuracy(outputs, torch.tensor([1, 0, 1, 0])) == 0.75
    outputs[0, 0] = math.nan
    assert math.isnan(accuracy(outputs, torch.tensor([1, 0, 1, 0])))


@pytest.mark.parametrize("how", ["mapping", "tuple"])
def test_models_of_tokens_train_with_the_same_loop(how: str) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embedding = nn.Embedding(10, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
            x = self.embedding(input_ids) * attention_mask.unsqueeze(-1)
            return SimpleNamespace(logits=self.head(x.mean(1)))

    ids = torch.tensor([[1, 2], [3, 4]])
    mask = torch.ones(2, 2)
    inputs = {"input_ids": ids, "attention_mask": mask} if how == "mapping" else (ids, mask)
    targets = torch.tensor([0, 1])
    model = Tokens()
    model.embedding.requires_grad_(False)
    before = model.embedding.weight.clone()
    optimizer = torch.optim.SGD(model.head.parameters(), lr=5.0)
    losses = [train_epoch(model, [(inputs, targets)], optimizer, grad_clip=1.0) for _ in range(20)]
    assert losses[-1] < losses[0] / 2
    assert evaluate(model, [(inputs, targets)]) == 1.0
    assert torch.equal(model.embedding.weight, before)


def test_only_training_batches_are_augmented(data: Examples) -> None:
    resident = data
    sizes = []

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        sizes.append(len(images))
        return FlipCrop(pad=1)(images, generator)

    fit(
        place(network(), "cpu"),
        resident,
        resident,
        n_epochs=1,
        batch_size=32,
        optimizer=sgd,
        seed=0,
        augment=augment,
    )
    assert sizes == [32, 28]


@pytest.mark.parametrize(("drop_last", "steps"), [(None, 1), (False, 2), (True, 1)])
def test_a_single_left_over_example_is_left_out_unless_asked_for(
    data: Examples, drop_last: bool | None, steps: int
) -> None:
    # Batch norm raises on a batch of one; 41 = 40 + 1.
    sizes: list[int] = []

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        sizes.append(len(labels))
        return functional.cross_entropy(outputs, labels)

    fit(
        place(network(), "cpu"),
        data.subset(range(41)),
        data,
        n_epochs=1,
        batch_size=40,
        optimizer=sgd,
        loss_function=loss,
        seed=0,
        drop_last=drop_last,
    )
    assert sizes == [40, 1][:steps]


@pytest.mark.parametrize(
    ("optimizer", "fused"),
    [
        (lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9), True),
        (lambda m: torch.optim.AdamW(m.parameters()), True),
        (lambda m: torch.optim.SGD(m.parameters(), lr=0.1, foreach=True), None),
        (lambda m: torch.optim.SGD(m.parameters(), lr=0.1, fused=False), False),
        (lambda m: torch.optim.Adagrad(m.parameters()), None),
    ],
)
def test_optimizers_are_fused_where_the_choice_was_left_open(
    data: Examples, optimizer: Any, fused: bool | None
) -> None:
    resident = data
    model = place(network(), "cpu")
    made = optimizer(model)
    fit(model, resident, resident, n_epochs=1, batch_size=60, optimizer=made, seed=0)
    assert made.param_groups[0].get("fused") is fused
    by_hand = place(network(), "cpu")
    made = optimizer(by_hand)
    ((inputs, labels),) = resident.batches(60)
    functional.cross_entropy(by_hand(inputs), labels).backward()
    made.step()
    torch.testing.assert_close(weights(model), weights(by_hand), rtol=1e-5, atol=1e-6)


def test_place_keeps_optimizers_valid_and_lays_out_convolutions(data: Examples) -> None:
    model = network()
    optimizer = sgd(model)
    assert place(model, "cpu") is model
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[index]
    before = weights(model)
    train_epoch(model, data.batches(60), optimizer)
    assert not torch.equal(weights(model), before)


def test_what_cannot_be_trained_is_refused(data: Examples) -> None:
    resident = data
    model = place(network(), "cpu")

    def run(**changed: Any) -> None:
        settings: dict[str, Any] = {"n_epochs": 1, "batch_size": 8, "optimizer": sgd, "seed": 0}
        fit(model, resident, resident, **{**settings, **changed})

    with pytest.raises(ValueError, match="n_epochs must be at least 1, got 0"):
        run(n_epochs=0)
    with pytest.raises(ValueError, match="precision must be 'float32' or 'bfloat16', got 'int8'"):
        run(precision="int8")
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        run(batch_size=0)
    with pytest.raises(ValueError, match="at least one batch"):
        train_epoch(model, [], sgd(model))
    with pytest.raises(ValueError, match="at least one batch"):
        evaluate(model, [])

    class Pair(nn.Module):
        def forward(self, inputs: Tensor) -> Any:
            return inputs, inputs

    with pytest.raises(
        TypeError, match=r"must return a tensor, an object with \.logits .*, got tup"
    ):
        evaluate(Pair(), resident.batches(8))
