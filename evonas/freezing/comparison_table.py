"""The table at the end of a mask search: what was compared, and what it says."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from evonas.freezing.advice import frozen_in_words
from evonas.records import Genes

__all__ = ["MaskRow", "MaskTable"]


@dataclass(frozen=True)
class MaskRow:
    """One mask, trained on several fresh seeds.

    Attributes:
        label: What it is: `full fine-tuning`, `head only`, `first 4 frozen`, `search 1` (the
            search's best), `random 1`; several where it is several.
        mask: 1 (frozen) or 0 for each block.
        searched: The search's own score of it, None where it did not try it.
        val: Validation scores, one for each seed that ended well.
        test: Test scores of the same trainings.
        trainable_share: In [0, 1].
        seconds: Of each training, validation aside.
        n_failed: Trainings that ended without a score.
        lr: Its learning rate, where the search chose among several; None: all have the same.
        words: What it does to the blocks, for the table.
        trainable_params: How many numbers are trained; 0 where it is not known.
        memory_bytes: Peak of each training, see `PeakMemory`.
        genes: The point, for `RecipeProblem.recipe`.
    """

    label: str
    mask: tuple[int, ...]
    searched: float | None
    val: tuple[float, ...]
    test: tuple[float, ...]
    trainable_share: float
    seconds: tuple[float, ...]
    n_failed: int = 0
    lr: float | None = None
    words: str = ""
    trainable_params: int = 0
    memory_bytes: tuple[float, ...] = ()
    genes: Genes = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """The mean validation score; NaN without one."""
        return statistics.fmean(self.val) if self.val else math.nan


@dataclass(frozen=True)
class MaskTable:
    """What `compare_masks` found; printed, it is a table for people.

    Attributes:
        rows: Best mean validation score first.
        blocks: Names of the blocks.
        metric: Name of the score.
        repeats: How many seeds.
        note: What the reader should know of the search; "" where there is nothing.
        words_for: Head of the column that says what a row does to the blocks.
        noun: What a row is: `mask` or `recipe`.
        direction: `"max"` or `"min"`: in which the score is better.
    """

    rows: tuple[MaskRow, ...]
    blocks: tuple[str, ...]
    metric: str
    repeats: int
    note: str = ""
    words_for: str = "frozen"
    noun: str = "mask"
    direction: Literal["max", "min"] = "max"

    @property
    def champion(self) -> MaskRow:
        """The row with the best mean validation score; the test scores have no say."""
        return self.rows[0]

    @property
    def noise(self) -> float:
        """The standard error of a row's mean validation score, of all rows together.

        By the median of their variances, so that one unstable row does not widen it, divided by
        the median of a chi-square distribution over its mean (Wilson and Hilferty 1931), so that
        it is right where all rows are alike. NaN where no row has two scores.
        """
        several = [row.val for row in self.rows if len(row.val) > 1]
        if not several:
            return math.nan
        freedom = statistics.median(len(values) - 1 for values in several)
        variance = statistics.median(map(statistics.variance, several))
        return math.sqrt(variance / (1 - 2 / (9 * freedom)) ** 3 / self.repeats)

    @property
    def smallest(self) -> MaskRow:
        """The row that trains the least of those within the noise of the champion."""
        return self._within_noise(lambda row: row.trainable_share)

    @property
    def fastest(self) -> MaskRow:
        """The row of the fewest seconds of those within the noise of the champion."""
        return self._within_noise(lambda row: statistics.fmean(row.seconds or (math.inf,)))

    def row(self, label: str) -> MaskRow | None:
        """Returns the row that has `label` (among others), if there is one."""
        return next((row for row in self.rows if label in row.label.split(", ")), None)

    def __str__(self) -> str:
        width = max(len(row.label) for row in self.rows)
        lines = [
            f"{'':2}{self.noun:<{width}}  {'validation':>15}  {'test':>15}  {'trainable':>9}"
            f"  {'parameters':>11}  {'seconds':>11}  {'memory MB':>9}  {'in the search':>13}"
            f"{self._rate_column(None)}  {self.words_for}",
        ]
        for row in self.rows:
            searched = "" if row.searched is None else f"{row.searched:.4f}"
            failed = f"  {row.n_failed} failed" if row.n_failed else ""
            mask = row.words or f"{list(row.mask)} {frozen_in_words(self.blocks, row.mask)}"
            lines.append(
                f"{'* ' if row is self.champion else '  '}{row.label:<{width}}"
                f"  {_spread(row.val):>15}  {_spread(row.test):>15}  {row.trainable_share:>9.1%}"
                f"  {_count(row.trainable_params):>11}  {_spread(row.seconds, 1):>11}"
                f"  {_megabytes(row.memory_bytes):>9}  {searched:>13}{self._rate_column(row)}"
                f"  {mask}{failed}"
            )
        return "\n".join([*lines, "", *self.verdicts()])

    def _rate_column(self, row: MaskRow | None) -> str:
        """Returns the cell of a row, or of the head, where the rows have rates of their own."""
        if all(each.lr is None for each in self.rows):
            return ""
        return f"  {'lr':>8}" if row is None else f"  {row.lr:>8.2g}"

    def verdicts(self) -> Iterator[str]:
        """Yields a sentence for the champion against each baseline, and the note."""
        metric = self.metric if self.direction == "max" else f"{self.metric} (smaller is better)"
        if self.repeats == 1:
            yield f"{metric}, on one fresh seed each; * is the best on validation"
        else:
            yield (
                f"{metric}, mean ± standard deviation over {self._seeds()} fresh seeds each; "
                "* is the best mean on validation; noise is one standard error, "
                f"{self.noise:.4f}"
            )
        if len(self.rows) > 1 and len({row.mean for row in self.rows}) == 1:
            yield (
                f"all {self.noun}s scored the same: nothing was learned; train for longer, with "
                "another lr, or on more examples"
            )
        yield f"best: {self.champion.label}, validation {_spread(self.champion.val)}"
        if self.repeats > 1:
            smallest, fastest = self.smallest, self.fastest
            yield (
                f"smallest within the noise of the best: {smallest.label}, "
                f"{smallest.trainable_share:.1%} trainable{self._behind(smallest)}"
            )
            yield (
                f"fastest within the noise of the best: {fastest.label}, "
                f"{_spread(fastest.seconds, 1)} s{self._behind(fastest)}"
            )
        usual = [row for row in self.rows if _is_usual(row.label)] + [self._best_first_k()]
        for row in usual:
            if row is not None and row is not self.champion:
                yield f"against {row.label.split(', ')[0]}: {_difference(self.champion, row)}"
        randoms = [row for row in self.rows if row.label.startswith("random")]
        scores = tuple(score for row in randoms for score in row.test or row.val)
        if scores and self.champion not in randoms:
            mean = statistics.fmean(self.champion.test or self.champion.val)
            gain = mean - statistics.fmean(scores)
            n = len(randoms)
            others = f"1 random {self.noun}" if n == 1 else f"{n} random {self.noun}s"
            yield f"against {others}: {_part(self.champion)} {gain:+.4f}"
        if self.note:
            yield self.note

    def to_json(self) -> dict[str, Any]:
        """Returns plain data."""
        return {
            "metric": self.metric,
            "direction": self.direction,
            "blocks": list(self.blocks),
            "repeats": self.repeats,
            "note": self.note,
            "rows": [
                {
                    "label": row.label,
                    "mask": list(row.mask),
                    "searched": row.searched,
                    "val": list(row.val),
                    "test": list(row.test),
                    "trainable_share": row.trainable_share,
                    "seconds": list(row.seconds),
                    "trainable_params": row.trainable_params,
                    "memory_bytes": list(row.memory_bytes),
                    "failed": row.n_failed,
                    "lr": row.lr,
                }
                for row in self.rows
            ],
        }

    def _within_noise(self, cost: Callable[[MaskRow], float]) -> MaskRow:
        """Returns the row of the least cost of those within the noise of the champion.

        Of equal costs: the better one.

        Source:
            The one-standard-error rule of Breiman et al. (1984), "Classification and regression
            trees", section 3.4.3. With two or three seeds a row's own spread is luck, so the error
            is that of all rows.
        """
        noise = self.noise
        rows = [
            row for row in self.rows
            if len(row.val) > 1 and self._distance(row) <= noise
        ]  # fmt: skip
        return min(rows, key=cost, default=self.champion)

    def _seeds(self) -> str:
        """Returns on how many seeds rows were trained: some may have more than asked for."""
        most = max(len(row.val) + row.n_failed for row in self.rows)
        return str(self.repeats) if most <= self.repeats else f"{self.repeats} to {most}"

    def _behind(self, row: MaskRow) -> str:
        if row is self.champion:
            return ""
        return f", {self._distance(row):.4f} behind it on validation"

    def _distance(self, row: MaskRow) -> float:
        """Returns by how much the champion's mean is better."""
        gain = self.champion.mean - row.mean
        return gain if self.direction == "max" else -gain

    def _best_first_k(self) -> MaskRow | None:
        return next((row for row in self.rows if row.label.startswith("first ")), None)


def _difference(champion: MaskRow, other: MaskRow) -> str:
    ours, theirs = (champion.test or champion.val), (other.test or other.val)
    if not theirs or not ours:
        return "no score to compare with"
    gain = statistics.fmean(ours) - statistics.fmean(theirs)
    text = f"{_part(champion)} {gain:+.4f}"
    if len(ours) < 2 or len(theirs) < 2:
        return f"{text} (one seed: no spread to judge it by)"
    error = _standard_error(ours, theirs) or 0.0
    # Two standard errors are no proof with few seeds, but less than two is no gain at all.
    verdict = "" if abs(gain) > 2 * error else ": within the noise of so few seeds"
    return f"{text} ± {error:.4f} (standard error of the difference){verdict}"


def _standard_error(one: Sequence[float], two: Sequence[float]) -> float | None:
    """Returns the standard error of the difference of two means, None with fewer than two each."""
    if len(one) < 2 or len(two) < 2:
        return None
    return math.sqrt(statistics.variance(one) / len(one) + statistics.variance(two) / len(two))


def _is_usual(label: str) -> bool:
    """Whether a row is something that people try by hand, other than the first k frozen."""
    name = label.split(", ")[0]
    return not name.startswith(("first ", "search ", "random ")) and name not in ("mask", "recipe")


def _part(row: MaskRow) -> str:
    return "test" if row.test else "validation"


def _spread(values: Sequence[float], digits: int = 4) -> str:
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def _megabytes(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values) / 1e6:,.0f}" if values else "-"


def _count(value: int) -> str:
    return f"{value:,}" if value else "-"
