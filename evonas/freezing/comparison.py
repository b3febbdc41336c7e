"""The honest end of a mask search: fresh seeds, the masks people try by hand, a held-out test."""

from __future__ import annotations

import math
import os
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from evonas.arguments import check_callable, check_int, check_one_of
from evonas.evolution.random_state import derive_seed
from evonas.exceptions import EvonasError
from evonas.execution.base import Executor
from evonas.execution.choice import choose_executor
from evonas.files import as_directory
from evonas.freezing.advice import frozen_in_words
from evonas.freezing.problem import FreezingProblem
from evonas.objectives import Limits
from evonas.records import Evaluation, Genes, Status
from evonas.run.confirm import confirm
from evonas.run.identity import configure_as
from evonas.run.result import Confirmed, Result, open_run
from evonas.training.data.examples import Examples

__all__ = ["MaskRow", "MaskTable", "compare_masks"]

_MAX_DRAWS = 1000

Candidates = dict[str, tuple[Genes, list[str]]]
"""Points to compare, and what each is called, by key."""


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
    """

    rows: tuple[MaskRow, ...]
    blocks: tuple[str, ...]
    metric: str
    repeats: int
    note: str = ""
    words_for: str = "frozen"

    @property
    def champion(self) -> MaskRow:
        """The row with the best mean validation score; the test scores have no say."""
        return self.rows[0]

    def row(self, label: str) -> MaskRow | None:
        """Returns the row that has `label` (among others), if there is one."""
        return next((row for row in self.rows if label in row.label.split(", ")), None)

    def __str__(self) -> str:
        width = max(len(row.label) for row in self.rows)
        lines = [
            f"{'':2}{'mask':<{width}}  {'validation':>15}  {'test':>15}  {'trainable':>9}"
            f"  {'seconds':>11}  {'in the search':>13}{self._rate_column(None)}"
            f"  {self.words_for}",
        ]
        for row in self.rows:
            searched = "" if row.searched is None else f"{row.searched:.4f}"
            failed = f"  {row.n_failed} failed" if row.n_failed else ""
            mask = row.words or f"{list(row.mask)} {frozen_in_words(self.blocks, row.mask)}"
            lines.append(
                f"{'* ' if row is self.champion else '  '}{row.label:<{width}}"
                f"  {_spread(row.val):>15}  {_spread(row.test):>15}  {row.trainable_share:>9.1%}"
                f"  {_spread(row.seconds, 1):>11}  {searched:>13}{self._rate_column(row)}"
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
        if self.repeats == 1:
            yield f"{self.metric}, on one fresh seed each; * is the best on validation"
        else:
            yield (
                f"{self.metric}, mean ± standard deviation over {self.repeats} fresh seeds each; "
                f"* is the best mean on validation"
            )
        if len(self.rows) > 1 and len({row.mean for row in self.rows}) == 1:
            yield (
                "all masks scored the same: nothing was learned; train for longer, with another "
                "lr, or on more examples"
            )
        smallest = self._within_noise(lambda row: row.trainable_share)
        if smallest is not None:
            yield (
                f"the smallest mask within the noise of the best: {smallest.label}, "
                f"{smallest.trainable_share:.1%} trainable"
            )
        fastest = self._within_noise(lambda row: statistics.fmean(row.seconds or (math.inf,)))
        if fastest is not None:
            yield (
                f"the fastest within the noise of the best: {fastest.label}, "
                f"{_spread(fastest.seconds, 1)} s"
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
            others = "1 random mask" if len(randoms) == 1 else f"{len(randoms)} random masks"
            yield f"against {others}: {_part(self.champion)} {gain:+.4f}"
        if self.note:
            yield self.note

    def to_json(self) -> dict[str, Any]:
        """Returns plain data."""
        return {
            "metric": self.metric,
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
                    "failed": row.n_failed,
                    "lr": row.lr,
                }
                for row in self.rows
            ],
        }

    def _within_noise(self, cost: Callable[[MaskRow], float]) -> MaskRow | None:
        """Returns the row of the least cost of those within the noise of the champion.

        Two standard errors of the difference are noise. None where it is the champion itself.
        """
        rows = [
            row
            for row in self.rows
            if (error := _standard_error(self.champion.val, row.val)) is not None
            and self.champion.mean - row.mean <= 2 * error
        ]
        cheapest = min(rows, key=cost, default=self.champion)
        return cheapest if cost(cheapest) < cost(self.champion) else None

    def _best_first_k(self) -> MaskRow | None:
        return next((row for row in self.rows if row.label.startswith("first ")), None)


def compare_masks(
    problem: FreezingProblem,
    run_dir: str | os.PathLike[str],
    test: Examples | tuple[Any, Any] | None = None,
    *,
    top: int = 3,
    n_random: int = 3,
    repeats: int = 3,
    executor: Executor | None = None,
    on_repeat: Callable[[Evaluation, Evaluation], None] | None = None,
) -> MaskTable:
    """Trains the best masks and the usual ones on fresh seeds; the best mean is the champion.

    A search reports its best single score, which is partly luck: what it gained shows only on
    fresh seeds and beside what anyone would have tried. Compared are the search's `top` masks, full
    fine-tuning, head only, the best of the first-k masks that the search tried, and `n_random`
    masks drawn by the run's seed. The champion is the one with the best mean *validation* score,
    and `mask.json` gets its scores; each training is scored once on `test`, which decides nothing.

    Where the search chose among several learning rates, each of the usual masks has the one at
    which it scored best in the search, and random masks have the champion's.

    The repeats are kept in the run (see `evonas.confirm`): called again, none is made again.

    Args:
        problem: The run's problem.
        run_dir: The run's directory.
        test: Examples that neither training nor search has seen. None: no test scores.
        top: How many of the search's masks.
        n_random: How many random masks.
        repeats: Fresh seeds for each mask.
        executor: Where to train. None: in this process, on the CPU.
        on_repeat: Called with the evaluation and the record of each training.

    Raises:
        TypeError, ValueError: A number is out of range; the test examples are wrong, or those of
            training or validation.
        FileNotFoundError: There is no run in `run_dir`.
        RunMismatchError: The run is of another problem.
        EvonasError: No evaluation of the search, or no training of the comparison, has a score.
        SearchInterrupted: Ctrl-C or SIGTERM; what is finished is kept.
    """
    check_one_of("problem", problem, FreezingProblem, "a FreezingProblem")
    check_int("top", top, minimum=1)
    check_int("n_random", n_random, minimum=0)
    check_int("repeats", repeats, minimum=1)
    if executor is not None:
        executor = choose_executor(executor)
    if on_repeat is not None:
        check_callable("on_repeat", on_repeat)
    if problem.objectives[0].name != problem.metric_name:
        raise ValueError(
            f"masks are compared by {problem.metric_name}, but the first objective of the problem "
            f"is {problem.objectives[0].name}: name the metric first"
        )
    result = open_run(run_dir)
    configure_as(problem, result.record, str(run_dir))
    if not result.hall_of_fame:
        raise EvonasError(f"no mask of {run_dir} has a fitness: there is nothing to compare")
    candidates = _candidates(problem, result, top, n_random)
    tested = problem if test is None else problem.with_test(test)
    confirmed = confirm(
        tested,
        run_dir,
        top=top,
        also=[genes for genes, _ in candidates.values()],
        repeats=repeats,
        executor=executor,
        on_repeat=on_repeat,
        counts=tested.has_tested,
    )
    rows = [
        _row(problem, entry, ", ".join(candidates[entry.evaluation.key][1]), repeats)
        for entry in confirmed
        if entry.evaluation.key in candidates
    ]
    if not any(row.val for row in rows):
        error = confirmed[0].repeats[0].error
        raise EvonasError(f"no training of the comparison has a score; the first: {error}")
    names = tuple(block.name for block in problem.blocks)
    table = MaskTable(
        tuple(rows), names, problem.metric_name, repeats, _note(problem, result), problem.words_for
    )
    champion = confirmed[0].evaluation
    if champion.key in candidates:
        files = problem.run_files(as_directory(run_dir))
        files.on_comparison(champion, table.champion.label, _scores(table))
    return table


def candidate_count(problem: FreezingProblem, result: Result, top: int, n_random: int) -> int:
    """Returns how many masks `compare_masks` will train."""
    return len(_candidates(problem, result, top, n_random))


def _candidates(problem: FreezingProblem, result: Result, top: int, n_random: int) -> Candidates:
    """Returns each point to compare with what it is called."""
    limits = Limits(tie_breaker=problem.tie_breaker)
    ok = [entry for entry in result.evaluations if entry.status is Status.OK]
    ok.sort(key=lambda entry: limits.rank(entry, result.objectives[:1]))
    # The last of a mask in this order is its best rate.
    best = {problem.without_rate(entry.genes): entry.genes for entry in reversed(ok)}
    ranked = list({problem.without_rate(entry.genes): None for entry in ok})
    found: Candidates = {}
    first_k: list[Genes] = []
    for label, variants in problem.rivals().items():
        point = problem.without_rate(variants[0])
        if label.startswith("first "):
            first_k += [best[point]] if point in best else []
            continue
        genes = best.get(point, variants[len(variants) // 2])
        found[problem.key(genes)] = genes, [label]
    if first_k:
        genes = min(first_k, key=lambda genes: ranked.index(problem.without_rate(genes)))
        found[problem.key(genes)] = genes, [problem.label_of(genes)]
    for place, point in enumerate(ranked[:top], 1):
        genes, label = best[point], problem.label_of(best[point])
        _, labels = found.setdefault(problem.key(genes), (genes, []))
        labels.append(f"search {place}")
        if label not in ("mask", "recipe", *labels):
            labels.insert(0, label)
    lr = problem.lr_of(best[ranked[0]])
    taken = {problem.without_rate(genes) for genes, _ in found.values()}
    draws = _random_points(problem, int(result.record.seed), taken | set(ranked), taken, lr)
    for number in range(1, n_random + 1):
        drawn = next(draws, None)
        if drawn is None:
            break
        taken.add(problem.without_rate(drawn))
        found[problem.key(drawn)] = drawn, [f"random {number}"]
    return found


def _random_points(
    problem: FreezingProblem,
    seed: int,
    known: set[tuple[tuple[str, Any], ...]],
    taken: set[tuple[tuple[str, Any], ...]],
    lr: float,
) -> Iterator[Genes]:
    """Yields points that the search has not tried, then any that are not compared yet."""
    for avoided in (known, taken):
        rng = random.Random(derive_seed(seed, "random masks"))
        for _ in range(_MAX_DRAWS):
            genes = problem.random_point(rng, lr)
            point = problem.without_rate(genes)
            if point not in avoided and point not in taken and not problem.invalid_reason(genes):
                yield genes


def _row(problem: FreezingProblem, entry: Confirmed, label: str, repeats: int) -> MaskRow:
    records = entry.repeats[:repeats]
    ok = [record for record in records if record.status is Status.OK]
    name = f"test_{problem.metric_name}"
    shares = [record.metrics["trainable_share"] for record in ok]
    searched = entry.evaluation.number >= 0 and entry.evaluation.status is Status.OK
    return MaskRow(
        label=label,
        mask=problem.mask_of(entry.evaluation.genes),
        searched=entry.evaluation.values[0] if searched else None,
        val=tuple(record.values[0] for record in ok),
        test=tuple(record.metrics[name] for record in ok if name in record.metrics),
        trainable_share=shares[0] if shares else math.nan,
        seconds=tuple(record.metrics["train_seconds"] for record in ok),
        n_failed=len(records) - len(ok),
        lr=problem.lr_of(entry.evaluation.genes) if len(problem.rates) > 1 else None,
        words=problem.words(entry.evaluation.genes),
    )


def _scores(table: MaskTable) -> dict[str, Any]:
    """Returns the champion's scores on fresh seeds, for `mask.json`."""
    scores: dict[str, Any] = {"metric": table.metric, "seeds": len(table.champion.val)}
    for name, values in (("validation", table.champion.val), ("test", table.champion.test)):
        scores[f"{name}_mean"] = statistics.fmean(values) if values else None
        scores[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else None
    return scores


def _note(problem: FreezingProblem, result: Result) -> str:
    """Returns what to say of what failed, and of rivals that were not tried at every rate."""
    known = {entry.key for entry in result.evaluations}
    fewer = [
        name
        for name, variants in problem.rivals().items()
        if not name.startswith("first ")
        and not all(problem.key(genes) in known for genes in variants)
    ]
    notes = []
    if fewer and len(problem.rates) > 1:
        notes.append(
            f"not tried at every learning rate: {', '.join(fewer)}; a larger first population does"
        )
    failed = [entry for entry in result.evaluations if entry.status.is_failure]
    if failed:
        masks = "1 mask" if len(failed) == 1 else f"{len(failed)} masks"
        error = (failed[0].error or failed[0].status.value).strip().splitlines()[-1]
        notes.append(f"{masks} of the search failed; evaluation {failed[0].number}: {error}")
    return "\n".join(notes)


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
