"""The report's first lines: what was searched, what was found and how sure it is, at what cost."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evonas.exceptions import WeightsError
from evonas.execution.weights import WEIGHTS
from evonas.records import Evaluation, Status
from evonas.report.formats import duration, number
from evonas.report.strip import blocks_of
from evonas.report.style import as_number
from evonas.run.repeats import repeats_text, weights_text
from evonas.run.store.lock import LOCK, is_held
from evonas.space import SearchSpace

if TYPE_CHECKING:
    from evonas.run.result import Confirmed, Result
    from evonas.run.store.record import RunRecord

__all__ = ["answer", "fixed_settings", "run_state", "spread"]


def answer(result: Result) -> list[tuple[str, str]]:
    """Returns a name and a text for each part of the answer."""
    found = [("Searched", _searched(result)), ("Found", _found(result))]
    sure = _sureness(result)
    return [
        *found,
        *([("How sure", sure)] if sure else []),
        ("Cost", _cost(result)),
        ("Next", _next(result)),
    ]


def run_state(result: Result) -> str:
    """Returns how the run ended, or that it has not."""
    if result.outcome is None:
        held = None if result.run_dir is None else is_held(result.run_dir / LOCK)
        return {True: "still running", False: "killed", None: "still running, or killed"}[held]
    return f"{result.outcome}: {result.stop_reason}"


def fixed_settings(record: RunRecord) -> dict[str, Any]:
    """Returns the fingerprint without the settings that a gene gives in every point.

    Where the gene is conditional the setting counts for the points without it.
    """
    conditions = record.space.get("conditions")  # of a record that anybody may have written
    genes = set(record.gene_names)
    genes -= set(conditions if isinstance(conditions, Mapping) else ())
    return {name: value for name, value in record.fingerprint.items() if name not in genes}


def spread(values: Sequence[float], digits: int = 4) -> str:
    """Returns mean and sample standard deviation; of one value only that."""
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.{digits}g}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.2g}"


def _searched(result: Result) -> str:
    record = result.record
    wanted = " and ".join(
        f"{'highest' if objective.direction == 'max' else 'lowest'} {objective.name}"
        for objective in result.objectives
    )
    genes = len(record.gene_names)
    limits = f", within the limits ({record.limits.words})" if record.limits else ""
    return (
        f"{record.strategy_name} looked for the {wanted}{_problem(record.fingerprint)}"
        f"{_data(fixed_settings(record), record.metadata)}{limits}. The space has {genes} "
        f"{'gene' if genes == 1 else 'genes'} and {_size(record.space)}."
    )


def _problem(fingerprint: dict[str, Any]) -> str:
    if isinstance(model := fingerprint.get("model"), str) and model:
        return f" of {model} ({fingerprint.get('problem')})"
    if isinstance(name := fingerprint.get("problem_id"), str):
        return f" of the function {name}"
    kind = fingerprint.get("problem")
    return f" in {kind}" if isinstance(kind, str) else ""


def _data(settings: dict[str, Any], metadata: dict[str, Any]) -> str:
    name = metadata.get("dataset") or metadata.get("data")
    words = f" on {name}" if isinstance(name, str) else ""
    n_train, n_val = settings.get("n_train"), settings.get("n_val")
    if type(n_train) is int and type(n_val) is int:
        words += f", trained on {n_train:,} and scored on {n_val:,} examples"
    if type(epochs := settings.get("n_epochs")) is int:
        words += f", {epochs} {'epoch' if epochs == 1 else 'epochs'} each"
    return words


def _size(space: dict[str, Any]) -> str:
    try:
        size = SearchSpace.from_json(space, constraints={}).cardinality
    except (TypeError, ValueError):  # of a gene that this evonas does not know
        return "an unknown number of points"
    if math.isinf(size):
        return "infinitely many points (some genes are real numbers)"
    return f"{size:,} points" if size < 1e6 else f"{float(size):.2g} points"


def _found(result: Result) -> str:
    if not result.hall_of_fame:
        return "Nothing yet: no evaluation has a fitness."
    if unmet := result.counts.unmet:
        nearest = result.hall_of_fame[0]
        known = {objective.name for objective in result.objectives}
        limits = result.record.limits
        limited = "".join(
            f", {name} {number(as_number(nearest.metrics.get(name)))}"
            for name in (*limits.at_least, *limits.at_most)
            if name not in known
        )
        words = f"evaluation {nearest.number} with {_values(result, nearest)}{limited}"
        return f"{unmet[0].upper()}{unmet[1:]}. The nearest is {words}."
    if len(result.objectives) > 1:
        return _front(result)
    champion, objective = result.champion, result.objectives[0]
    blocks = blocks_of(result)
    what = f" ({blocks.label(champion)})" if blocks is not None else ""
    searched = _searched_value(result, champion)
    value = champion.values[0] if searched is None else searched
    words = f"Evaluation {champion.number}{what} has {objective.name} {number(value)}"
    words += repeats_text(champion)
    first = _first_generation(result)
    if not first:
        return f"{words}."
    values = [entry.values[0] for entry in first]
    best = max(values) if objective.direction == "max" else min(values)
    median = f"{number(statistics.median(values))} as their median"
    if not objective.better(value, best):
        return (
            f"{words}, no better than the best of the first {len(values)} points, which had "
            f"{median}."
        )
    return f"{words}. The first {len(values)} points had {number(best)} at best and {median}."


def _front(result: Result) -> str:
    front = result.pareto_front
    copied = result.counts.copied  # all of which have a fitness
    n = result.counts.by_status.get("ok", 0) + copied
    counted = f"{n:,} ({result.counts.copied_words})" if copied else f"{n:,}"
    ends = [front[0]] if len(front) == 1 else [front[0], front[-1]]

    are = "is a point" if len(front) == 1 else "are points"
    within = " within the limits" if result.record.limits else ""
    span = " to ".join(f"{_values(result, entry)} (evaluation {entry.number})" for entry in ends)
    front_words = f"{are}{within} that no other beats in one objective without losing in another"
    return f"{len(front)} of {counted} {front_words}: {span}."


def _values(result: Result, entry: Evaluation) -> str:
    pairs = zip(result.objectives, entry.values, strict=True)
    return ", ".join(f"{objective.name} {number(value)}" for objective, value in pairs)


def _searched_value(result: Result, champion: Evaluation) -> float | None:
    """Returns the value of the search itself: a champion's may be that of its first repeat."""
    for entry in result.evaluations:
        if entry.key == champion.key and entry.status is Status.OK:
            return entry.values[0]
    return None


def _first_generation(result: Result) -> list[Evaluation]:
    """Returns the points with a fitness of the first generation, where there are later ones."""
    generations = {plan.generation for plan in result.proposals}
    if len(generations) < 2:
        return []
    first = min(generations)
    numbers = {plan.evaluation for plan in result.proposals if plan.generation == first}
    return [e for e in result.evaluations if e.number in numbers and e.status is Status.OK]


def _sureness(result: Result) -> str:
    if not result.hall_of_fame:
        return ""
    confirmed = [entry for entry in result.confirmed if entry.values]
    if not confirmed:
        return (
            "Every score is of one training. The best of many is partly luck: expect less of it on "
            "another seed."
        )
    own = next((e for e in confirmed if e.evaluation.key == result.champion.key), None)
    words = _repeats(result, own) if own is not None else ""
    others = [entry for entry in confirmed if entry is not own]
    if own is not None and others:
        weight = result.objectives[0].weight
        rival = max(others, key=lambda entry: weight * entry.mean)
        words += f" The best of the {len(others)} others has {spread(rival.values)}."
        noise = max(own.std, rival.std) if min(len(own.values), len(rival.values)) > 1 else math.nan
        if abs(own.mean - rival.mean) <= noise:
            words += " That is within the spread of the seeds: the two cannot be told apart."
    return words or (
        f"{len(confirmed)} points were trained again on fresh seeds, the champion was not."
    )


def _repeats(result: Result, entry: Confirmed) -> str:
    n = len(entry.values)
    seeds = "one fresh seed" if n == 1 else f"{n} fresh seeds"
    several = len(result.objectives) > 1  # where "Found" names the ends of the front
    tried = entry.evaluation.number >= 0  # the search tried it
    which = f"evaluation {entry.evaluation.number}" if several and tried else "it"
    return (
        f"Trained again on {seeds} {which} has {result.objectives[0].name} {spread(entry.values)}."
    )


def _cost(result: Result) -> str:
    counts = result.counts
    spent = sum(entry.seconds for entry in result.evaluations if entry.number >= counts.copied)
    words = (
        f"{duration(result.seconds)} of searching; {counts.evaluated:,} "
        f"{'training' if counts.evaluated == 1 else 'trainings'} took {duration(spent)} in all"
    )
    told = [
        f"{n:,} {name}"
        for name, n in (
            ("proposals known already and not trained again", counts.reused),
            ("invalid and never trained", counts.by_status.get("invalid", 0)),
            ("stopped early", counts.by_status.get("pruned", 0)),
            ("failed", counts.failed),
            ("copied from earlier runs", counts.copied),
        )
        if n
    ]
    return f"{words}{'; ' if told else ''}{', '.join(told)}."


def _next(result: Result) -> str:
    place = "RUN" if result.run_dir is None else shlex.quote(result.location)
    if result.outcome is None:
        watch = f"evonas serve {place} follows a search, evonas resume {place} goes on after a kill"
        return f"It has not ended: {watch}."
    if not result.hall_of_fame:
        return "Fix what failed (below) and run the same command again: nothing else is repeated."
    steps = []
    if result.counts.unmet:
        steps.append("loosen the limits in a new run, or search on with a larger budget")
    if result.outcome != "finished":
        steps.append(f"go on with evonas resume {place}")
    if not result.confirmed and len(result.objectives) == 1:
        steps.append(f'train the best again on fresh seeds: evonas.confirm(problem, "{place}")')
    if _still_rising(result):
        steps.append("the best still rose in the last fifth: a larger budget may find more")
    if result.counts.failed > 0.2 * max(1, result.counts.evaluated):
        steps.append("see why so many failed (below)")
    steps.append(_use(result, place))
    text = "; ".join(steps)
    return f"{text[0].upper()}{text[1:]}."


def _use(result: Result, place: str) -> str:
    if WEIGHTS in result.champion.files:
        champion = f'evonas.open_run("{place}").champion'
        if _can_build(result.champion):
            use = f"use its weights: {champion}.load_model()"
        else:
            use = (
                f"use its weights: {champion}.load_model(model), where model is your function of "
                "the genes to the module"
            )
        repeated = result.champion.repeats
        weights = weights_text(result.champion, result.objectives) if repeated else ""
        return f"{use}; they are {weights}" if weights else use
    return f'use it: evonas.open_run("{place}").champion.genes'


def _can_build(champion: Evaluation) -> bool:
    try:
        return champion.kept is not None and champion.kept.can_build(champion.number)
    except WeightsError:  # its description is damaged, which load_model() will say
        return False


def _still_rising(result: Result) -> bool:
    """Whether the champion of the search came in its last fifth, of twenty evaluations or more."""
    ok = [entry for entry in result.evaluations if entry.status is Status.OK]
    if len(ok) < 20 or len(result.objectives) > 1:
        return False
    return result.hall_of_fame[0].number > ok[int(0.8 * len(ok))].number
