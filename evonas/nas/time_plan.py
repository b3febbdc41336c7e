"""How a given number of seconds is divided between a search and the training of what it found."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evonas.arguments import check_int, check_number

__all__ = ["N_FINALISTS", "TimePlan", "plan_time"]

_FINAL_EPOCHS = 100  # of the final training: what more adds is less than a better network can
_MAX_FINAL_EPOCHS = 200  # nothing is gained beyond
_FINAL_SHARES = (0.5, 0.9)  # of all seconds: the final training never has less or more
_N_TRAININGS = 16  # of the first round
N_FINALISTS = 4
"""Networks of the second round, each trained on four times as many images: as long as the first."""
_LONGER = 4
_EPOCHS = (5, 12)  # of a training of the first round
_MIN_TRAIN = 4_000  # images of it: fewer rank networks by luck
_IMAGES_AN_EPOCH = 1_000  # an epoch more for each square of it in images to be trained
_LEAST_FINAL_EPOCHS = 50  # of the largest network that is searched
_MAX_VAL = 5_000


@dataclass(frozen=True, slots=True)
class TimePlan:
    """Seconds and sizes of a search and of the training that follows.

    Attributes:
        seconds: Of both.
        search_seconds: Of both rounds of the search; 0: the first network is trained without one.
        n_epochs: Of a training in the first round.
        n_train: Images of such a training.
        n_val: Images that it is validated on.
        epoch_seconds: What an epoch of the first network over all images takes.
        max_growth: How many times its multiply-adds a network may have: the final training then
            has 50 epochs at least.
        final_epochs: Epochs of the first network in the final training, as it was planned: they
            decide its recipe, which stays where more time is given later.
    """

    seconds: float
    search_seconds: float
    n_epochs: int
    n_train: int
    n_val: int
    epoch_seconds: float
    max_growth: float
    final_epochs: float = math.inf

    @property
    def first_round_seconds(self) -> float:
        """Seconds of the first round of the search: half of them."""
        return self.search_seconds / 2

    def longer(self, n_images: int) -> dict[str, int]:
        """Returns sizes of a training of the second round: four times as many image passes.

        Where nothing is searched: of the first network's only training before the final one.

        Args:
            n_images: That there are.
        """
        if not self.search_seconds:
            return {"n_epochs": 1, "n_train": self.n_train, "n_val": self.n_val}
        n_train = min(_LONGER * self.n_train, n_images - self.n_val)
        n_epochs = round(_LONGER * self.n_train * self.n_epochs / n_train)
        return {"n_epochs": n_epochs, "n_train": n_train, "n_val": self.n_val}

    def final_seconds(self, spent: float) -> float:
        """Returns those of the final training where so many are spent; a second at least.

        They are what is left, but no more than 200 epochs of the first network take.
        """
        most = _MAX_FINAL_EPOCHS * self.epoch_seconds
        return max(1.0, min(self.seconds - spent, most))


def plan_time(seconds: float, *, images_per_second: float, n_images: int) -> TimePlan:
    """Divides `seconds` by what is still to be gained.

    The final training gets what 100 epochs of the first network over all images take, at least half
    and at most nine tenths of the time: where a network is too large to be trained to its end,
    training counts for more than another network, and where it is small the search does. A search
    has two rounds: half of its time for about 16 short trainings, half for the best of them again,
    four times as long. Where the time does not allow for trainings of 5 epochs of 4,000 images,
    which rank networks by luck, nothing is searched.

    Args:
        seconds: Of search and final training together.
        images_per_second: That the first network trains.
        n_images: Of the final training.

    Raises:
        ValueError: A number is not above 0, or the seconds are too few for two epochs of the
            first network over all images: says how many minutes are needed.

    Example:
        >>> plan = plan_time(1800, images_per_second=6000, n_images=50_000)
        >>> round(plan.search_seconds), plan.n_epochs, plan.n_train
        (900, 12, 14062)
        >>> plan_time(1800, images_per_second=1400, n_images=50_000).search_seconds
        0.0
    """
    check_number("seconds", seconds, above=0)
    check_number("images_per_second", images_per_second, above=0)
    check_int("n_images", n_images, minimum=1)
    epoch = n_images / images_per_second
    least, most = (share * seconds for share in _FINAL_SHARES)
    if 2 * epoch > most:
        raise ValueError(
            f"{seconds / 60:.1f} minutes are too short: an epoch of one network over {n_images:,} "
            f"images takes about {epoch / 60:.1f} of them here, and two are the least: give at "
            f"least {2 * epoch / _FINAL_SHARES[1] / 60 + 0.05:.1f}"
        )
    final = min(max(_FINAL_EPOCHS * epoch, least), most, _MAX_FINAL_EPOCHS * epoch)
    search = seconds - final
    n_val = min(_MAX_VAL, max(1, n_images // 5))
    allowed = search * images_per_second / (_N_TRAININGS + _LONGER * N_FINALISTS)
    n_epochs = round(min(max((allowed / _IMAGES_AN_EPOCH) ** 0.5, _EPOCHS[0]), _EPOCHS[1]))
    n_train = int(min(max(allowed / n_epochs, _MIN_TRAIN), n_images - n_val))  # of what there is
    if n_epochs * n_train > 1.01 * allowed:
        search = 0.0
    final_epochs = (seconds - search) / epoch
    growth = max(1.0, final_epochs / _LEAST_FINAL_EPOCHS)
    return TimePlan(seconds, search, n_epochs, n_train, n_val, epoch, growth, final_epochs)
