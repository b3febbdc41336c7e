"""How large the trainings of a recipe search may be that ends, with its table, in a given time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evonas.arguments import check_int, check_number

__all__ = ["FineTuningPlan", "plan_fine_tuning"]

_SEARCH_SHARE = 0.55  # of the time; the table has the rest, but for a tenth that loading takes
_TABLE_SHARE = 0.35
_TRAININGS = 1.5  # of a search, for each rival at each rate
_MEAN_COST = 0.6  # of a recipe, where full fine-tuning costs 1: most freeze something
_TOGETHER = 0.75  # of its speed has a worker beside others
_FORWARD = 1 / 3  # of a training step
_LEAST_PASSES = 1_200  # of examples through a training, for a larger image size to be chosen
_EPOCHS = (3, 10)
_N_VAL = (200, 2_000)  # 200 answers: a standard error of at most 3.5 points
_N_TEST = (500, 2_000)
_SEEDS = (2, 5)


@dataclass(frozen=True, slots=True)
class FineTuningPlan:
    """Sizes of the trainings of a recipe search.

    Attributes:
        seconds: Of all of it.
        search_seconds: Of the search.
        size: Height and width of images; 0 for what has none.
        n_train: Training examples.
        n_val: Validation examples.
        n_test: Test examples of the table.
        n_epochs: Of each training.
        n_initial: Points of the first population: room for each rival at each rate.
        training_seconds: What full fine-tuning takes once, beside the other workers.
    """

    seconds: float
    search_seconds: float
    size: int
    n_train: int
    n_val: int
    n_test: int
    n_epochs: int
    n_initial: int
    training_seconds: float

    def n_seeds(self, candidate_seconds: float, n_workers: int) -> int:
        """Returns on how many fresh seeds the table's rows are trained: 2 to 5.

        Args:
            candidate_seconds: Of one training of each row together.
            n_workers: Trainings at once.
        """
        fitting = _TABLE_SHARE * self.seconds * n_workers / max(candidate_seconds, 1e-9)
        return max(_SEEDS[0], min(_SEEDS[1], int(fitting)))

    def to_json(self) -> dict[str, Any]:
        """Returns plain data."""
        return asdict(self)


def plan_fine_tuning(
    seconds: float,
    example_seconds: Mapping[int, float],
    *,
    n_train: int,
    n_test: int,
    n_val: int | None,
    n_rivals: int,
    n_rates: int,
    n_workers: int,
) -> FineTuningPlan:
    """Returns the plan of a search in so many seconds.

    Args:
        seconds: Of search and table.
        example_seconds: Image size (0 where there is none) to the seconds that one example takes
            in a step of full fine-tuning, alone on the machine. The largest size is chosen in
            which a training still sees 1,200 examples.
        n_train: Examples that there are to train on.
        n_test: Likewise, for the table.
        n_val: To score recipes on; None: they are taken from the training examples.
        n_rivals: Recipes that people try by hand.
        n_rates: Learning rates.
        n_workers: Trainings at once.

    Raises:
        TypeError, ValueError: A number is out of range; the time is too short for trainings that
            tell anything: says how many minutes are needed.

    Example:
        >>> plan = plan_fine_tuning(600, {64: 0.011, 96: 0.02}, n_train=50_000, n_test=10_000,
        ...                         n_val=None, n_rivals=9, n_rates=3, n_workers=2)
        >>> plan.size, plan.n_epochs, plan.n_train, plan.n_val, plan.n_initial
        (64, 3, 457, 457, 36)
    """
    check_number("seconds", seconds, above=0)
    for name, value in {"n_train": n_train, "n_rivals": n_rivals, "n_rates": n_rates}.items():
        check_int(name, value, minimum=1)
    check_int("n_workers", n_workers, minimum=1)
    n_trainings = math.ceil(_TRAININGS * n_rivals * n_rates)
    speed = n_workers * (_TOGETHER if n_workers > 1 else 1.0)
    full_seconds = _SEARCH_SHARE * seconds * speed / (n_trainings * _MEAN_COST)
    passes = {size: full_seconds / cost for size, cost in example_seconds.items()}
    enough = [size for size, n in passes.items() if n >= _LEAST_PASSES]
    size = max(enough) if enough else min(passes)
    # Every pass of an example through a training brings one through a validation, as a rule.
    most = passes[size] / (1 + _FORWARD)
    known = n_train if n_val is not None else n_train // 2
    n_epochs = max(_EPOCHS[0], min(_EPOCHS[1], int(most / known)))
    n_used = min(known, int(most / n_epochs))
    needed = seconds * _N_VAL[0] * _EPOCHS[0] / max(most, 1e-9)
    if most < _N_VAL[0] * _EPOCHS[0] / 2:
        raise ValueError(
            f"{seconds / 60:.3g} minutes are too short for recipes of this model: "
            f"{n_trainings} trainings of {_EPOCHS[0]} epochs of {_N_VAL[0]} examples need about "
            f"{math.ceil(needed / 60)} minutes"
        )
    available = n_train - n_used if n_val is None else n_val
    return FineTuningPlan(
        seconds=seconds,
        search_seconds=_SEARCH_SHARE * seconds,
        size=size,
        n_train=n_used,
        n_val=min(available, max(_N_VAL[0], min(n_used, _N_VAL[1]))),
        n_test=min(n_test, max(_N_TEST[0], min(int(passes[size]), _N_TEST[1]))),
        n_epochs=n_epochs,
        n_initial=math.ceil(n_rivals * n_rates * 4 / 3),
        training_seconds=n_used
        * n_epochs
        * (1 + _FORWARD)
        * example_seconds[size]
        * n_workers
        / speed,
    )
