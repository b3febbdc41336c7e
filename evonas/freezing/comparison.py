"""The honest end of a mask search: fresh seeds, the masks people try by hand, a held-out test."""

from __future__ import annotations

import math
import os
import random
import statistics
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from evonas.arguments import check_callable, check_int, check_one_of
from evonas.evolution.random_state import derive_seed
from evonas.exceptions import EvonasError
from evonas.execution.base import Executor
from evonas.execution.choice import choose_executor
from evonas.execution.user_code import refuse_while_reading
from evonas.files import as_directory
from evonas.freezing.comparison_table import MaskRow, MaskTable
from evonas.freezing.problem import FreezingProblem
from evonas.objectives import Limits
from evonas.records import Evaluation, Genes, Status
from evonas.run.confirm import confirm
from evonas.run.identity import configure_as
from evonas.run.result import Confirmed, Result, open_run
from evonas.training.data.examples import Examples

__all__ = ["candidate_count", "compare_masks", "row_of"]

_MAX_DRAWS = 1000

Candidates = dict[str, tuple[Genes, list[str]]]
"""Points to compare, and what each is called, by key."""


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

    The repeats are kept in the run (see `evonas.confirm`): called again, none is made again, and
    what was confirmed before is in the table too.

    Args:
        problem: The run's problem.
        run_dir: The run's directory.
        test: Examples that neither training nor search has seen. None: no test scores.
        top: How many of the search's masks, or recipes: those that differ in the learning rate
            alone are one.
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
    refuse_while_reading("compare_masks")
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
        top=1,
        also=[genes for genes, _ in candidates.values()],
        repeats=repeats,
        executor=executor,
        on_repeat=on_repeat,
        counts=tested.has_tested,
    )
    rows = [
        row_of(tested, entry, ", ".join(_labels(problem, entry.evaluation, candidates)))
        for entry in confirmed
    ]
    if not any(row.val for row in rows):
        error = confirmed[0].repeats[0].error
        raise EvonasError(f"no training of the comparison has a score; the first: {error}")
    names = tuple(block.name for block in problem.blocks)
    repeats = max(repeats, min(len(entry.repeats) for entry in confirmed))
    table = MaskTable(
        tuple(rows), names, problem.metric_name, repeats, _note(problem, result),
        problem.words_for, problem.noun, problem.objectives[0].direction,
    )  # fmt: skip
    files = problem.run_files(as_directory(run_dir))
    scores = _scores(table.champion, table.metric)
    files.on_comparison(confirmed[0].evaluation, table.champion.label, scores)
    found = {entry.evaluation.key: entry.evaluation for entry in confirmed}
    for verdict in ("smallest", "fastest") if repeats > 1 else ():
        row: MaskRow = getattr(table, verdict)
        chosen = found[problem.key(row.genes)]
        files.on_verdict(verdict, chosen, row.label, _scores(row, table.metric))
    return table


def candidate_count(problem: FreezingProblem, result: Result, top: int, n_random: int) -> int:
    """Returns how many masks `compare_masks` will train."""
    return len(_candidates(problem, result, top, n_random))


def _candidates(problem: FreezingProblem, result: Result, top: int, n_random: int) -> Candidates:
    """Returns each point to compare with what it is called."""
    limits = Limits(tie_breaker=problem.tie_breaker)
    ok = [entry for entry in result.evaluations if entry.status is Status.OK]
    ok.sort(key=lambda entry: limits.rank(entry, result.objectives[:1]))
    # Of a mask the best rate, and the best of the user's own genes.
    best: dict[Any, Genes] = {}
    for entry in ok:
        best.setdefault(problem.without_rate(entry.genes), entry.genes)
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
        genes = next(genes for genes in best.values() if genes in first_k)
        found[problem.key(genes)] = genes, [problem.label_of(genes)]
    # Own genes make another recipe of the same blocks; another rate does not.
    ranked: dict[Any, Genes] = {}
    for entry in ok:
        apart = {name: value for name, value in entry.genes.items() if name != "lr"}
        ranked.setdefault(tuple(apart.items()), entry.genes)
    for place, genes in enumerate(islice(ranked.values(), top), 1):
        _, labels = found.setdefault(problem.key(genes), (genes, []))
        labels.append(f"search {place}")
        label = problem.label_of(genes)
        if label != problem.noun and not any(label in known for _, known in found.values()):
            labels.insert(0, label)
    lr = problem.lr_of(ok[0].genes)
    taken = {problem.without_rate(genes) for genes, _ in found.values()}
    draws = _random_points(problem, int(result.record.seed), taken | set(best), taken, lr)
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


def _labels(problem: FreezingProblem, evaluation: Evaluation, candidates: Candidates) -> list[str]:
    """Returns what a row is called; those that an earlier call confirmed are rows as well."""
    if evaluation.key in candidates:
        return candidates[evaluation.key][1]
    if evaluation.number < 0:
        label = problem.label_of(evaluation.genes)
        return ["random, before" if label == problem.noun else label]
    return [f"evaluation {evaluation.number}"]


def row_of(problem: FreezingProblem, entry: Confirmed, label: str) -> MaskRow:
    """Returns the row of a point that was confirmed on fresh seeds."""
    records = entry.repeats
    ok = [record for record in records if record.status is Status.OK]
    name = f"test_{problem.metric_name}"
    shares = [record.metrics["trainable_share"] for record in ok]
    searched = entry.evaluation.number >= 0 and entry.evaluation.status is Status.OK
    return MaskRow(
        label=label,
        mask=problem.mask_of(entry.evaluation.genes),
        searched=entry.evaluation.values[0] if searched else None,
        val=tuple(record.values[0] for record in ok),
        test=tuple(
            record.metrics[name]
            for record in ok
            if name in record.metrics and problem.has_tested(record)
        ),
        trainable_share=shares[0] if shares else math.nan,
        seconds=tuple(record.metrics["train_seconds"] for record in ok),
        n_failed=len(records) - len(ok),
        lr=problem.lr_of(entry.evaluation.genes) if len(problem.rates) > 1 else None,
        words=problem.words(entry.evaluation.genes),
        trainable_params=int(ok[0].metrics["trainable_params"]) if ok else 0,
        memory_bytes=tuple(record.metrics["peak_memory_bytes"] for record in ok),
        genes=entry.evaluation.genes,
    )


def _scores(row: MaskRow, metric: str) -> dict[str, Any]:
    """Returns the scores of a row on fresh seeds, for `mask.json`."""
    scores: dict[str, Any] = {"metric": metric, "seeds": len(row.val)}
    for name, values in (("validation", row.val), ("test", row.test)):
        scores[f"{name}_mean"] = statistics.fmean(values) if values else None
        scores[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else None
    return scores


def _note(problem: FreezingProblem, result: Result) -> str:
    """Returns what to say of what failed, and of rivals that were not tried at every rate."""
    known = {entry.key for entry in result.evaluations}
    rivals = problem.rivals()
    n_all = len({problem.key(genes) for variants in rivals.values() for genes in variants})
    fewer = [
        name
        for name, variants in rivals.items()
        if not name.startswith("first ")
        and not all(problem.key(genes) in known for genes in variants)
    ]
    notes = []
    if fewer and len(problem.rates) > 1:
        notes.append(
            f"not tried at every learning rate: {', '.join(fewer)}; a first population of {n_all} "
            "holds them all"
        )
    failed = [entry for entry in result.evaluations if entry.status.is_failure]
    if failed:
        masks = "1 mask" if len(failed) == 1 else f"{len(failed)} masks"
        error = (failed[0].error or failed[0].status.value).strip().splitlines()[-1]
        notes.append(f"{masks} of the search failed; evaluation {failed[0].number}: {error}")
    return "\n".join(notes)
