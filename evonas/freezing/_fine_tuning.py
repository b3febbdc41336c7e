"""One fine-tuning under a mask, behind its frozen prefix."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from torch import Tensor

from evonas.exceptions import FitnessError
from evonas.freezing._recipe import Recipe
from evonas.freezing.mask import AppliedMask
from evonas.freezing.prefix.decision import ReuseDecision
from evonas.freezing.prefix.session import PrefixSession
from evonas.freezing.prefix.store import PrefixStore
from evonas.training import Augment, Timed, evaluate, fit
from evonas.training.data.examples import Examples

if TYPE_CHECKING:
    from evonas.execution.trial import Trial

__all__ = ["DeviceCache", "LossFunction", "Metric", "fine_tune"]

LossFunction = Callable[[Tensor, Tensor], Tensor]
Metric = Callable[[Tensor, Tensor], float]

_EVAL_BATCH_SIZE = 128


@dataclass(frozen=True)
class DeviceCache:
    """What trainings on one device share."""

    examples: dict[str, Examples]
    store: PrefixStore

    @classmethod
    def on(
        cls, device: str, examples: Mapping[str, Examples], memory_bytes: int, file_bytes: int
    ) -> Self:
        """Returns the examples, moved there, and an empty store."""
        return cls(
            {name: part.to(device) for name, part in examples.items()},
            PrefixStore(memory_bytes=memory_bytes, file_bytes=file_bytes, device=device),
        )


def fine_tune(
    applied: AppliedMask,
    place: DeviceCache,
    trial: Trial,
    recipe: Recipe,
    *,
    decision: ReuseDecision,
    precision: str,
    loss_function: LossFunction,
    metric: Metric,
    metric_name: str,
    augment: Augment | None,
) -> float:
    """Trains the masked model; returns its validation metric and records what it took.

    Where `place` has examples `test`, the trained model is scored once on them, too.

    Raises:
        RuntimeError: No gradient reached a block that the mask leaves trainable.
        FitnessError: The metric returned NaN of outputs that are numbers.
    """
    model, began = applied.model, time.perf_counter()
    metric = _checked(metric, metric_name)
    with PrefixSession(
        applied, place.examples, decision, place.store, precision=precision
    ) as session:
        train, val = session.source("train"), Timed(session.source("val"))
        optimizer = recipe.make_optimizer(model)
        value = fit(
            model,
            train,
            val,
            n_epochs=recipe.n_epochs,
            batch_size=recipe.batch_size,
            eval_batch_size=_EVAL_BATCH_SIZE,
            optimizer=optimizer,
            scheduler=recipe.make_scheduler(optimizer, len(train)),
            step_scheduler=True,
            seed=trial.seed,
            loss_function=loss_function,
            metric=val.timed(metric),
            metric_name=metric_name,
            precision=precision,
            augment=augment,
            grad_clip=recipe.grad_clip,
            report=lambda _, metrics: trial.report(**metrics),
        )
        seconds = time.perf_counter() - began - val.seconds
        if math.isfinite(value):
            applied.check_gradients()
        if "test" in place.examples and math.isfinite(value):
            batches = session.source("test").batches(_EVAL_BATCH_SIZE)
            score = evaluate(model, batches, metric=metric, precision=precision)
            trial.record(**{f"test_{metric_name}": score})
        trial.record(prefix_depth=session.depths["train"])
    trial.record(train_seconds=seconds, examples_per_second=recipe.n_epochs * len(train) / seconds)
    return value


def _checked(metric: Metric, name: str) -> Metric:
    """Returns the metric, whose NaN is its own fault where all outputs are numbers."""

    def measured(outputs: Tensor, targets: Tensor) -> float:
        value = float(metric(outputs, targets))
        if not math.isfinite(value) and bool(outputs.isfinite().all()):
            raise FitnessError(f"the metric {name} returned {value}")
        return value

    return measured
