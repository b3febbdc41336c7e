"""The parts of a report that are text and tables."""

from __future__ import annotations

import json
import math
import shlex
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evonas.records import Evaluation, Status
from evonas.report.formats import duration, number
from evonas.report.gene_columns import all_boolean, gene_names
from evonas.report.page import code_block, description_list, esc, table
from evonas.report.style import as_number, shown
from evonas.run.store.lock import LOCK, is_held

if TYPE_CHECKING:
    from evonas.run.result import Confirmed, Result

__all__ = [
    "champion_code",
    "champion_genes",
    "confirmed_table",
    "front_table",
    "hall_table",
    "headline",
    "reproduction",
    "run_name",
]

_MAX_ROWS = 50
_MAX_CODE = 200_000


def headline(result: Result) -> list[str]:
    """Returns the run's name, what it is, and its figures as tiles."""
    counts = result.counts
    strategy = result.record.strategy_name
    wanted = ", ".join(
        f"{'highest' if objective.direction == 'max' else 'lowest'} {objective.name}"
        for objective in result.objectives
    )
    tiles = [*_best_tiles(result)]
    tiles += [("trained", f"{counts.evaluated:,}", "evaluations"),
              ("reused", f"{counts.reused:,}", "proposals known already")]  # fmt: skip
    invalid = counts.by_status.get("invalid", 0)
    note = f"and {invalid:,} invalid, never trained" if invalid else "without a fitness"
    tiles.append(("failed", f"{counts.failed:,}", note))
    if pruned := counts.by_status.get("pruned", 0):
        tiles.append(("pruned", f"{pruned:,}", "stopped early"))
    spent = sum(entry.seconds for entry in result.evaluations)
    tiles.append(("time", duration(result.seconds), f"{duration(spent)} inside trials"))
    return [
        f"<h1>{esc(run_name(result))}</h1>",
        f'<p class="soft">{esc(strategy)} looking for the {esc(wanted)} · seed '
        f"{esc(result.record.seed)} · {esc(_state(result))}</p>",
        '<div class="tiles">',
        *(
            f'<div class="tile{" best" if place == 0 else ""}"><span>{esc(label)}</span>'
            f"<b>{esc(value)}</b><span>{esc(note)}</span></div>"
            for place, (label, value, note) in enumerate(tiles)
        ),
        "</div>",
    ]


def run_name(result: Result) -> str:
    """Returns the last two parts of the run's path: many a run's folder is called `run`."""
    if result.run_dir is None:
        return "a run in memory"
    return "/".join(part for part in result.run_dir.resolve().parts[-2:] if part != "/")


def _best_tiles(result: Result) -> list[tuple[str, str, str]]:
    if not result.hall_of_fame:
        return [("champion", "none yet", "no evaluation has a fitness")]
    champion = result.champion
    for entry in result.confirmed:
        if entry.evaluation.key == champion.key and entry.values:
            note = f"mean of {len(entry.values)} fresh seeds, evaluation {champion.number}"
            return [(f"champion's {result.objectives[0].name}", _spread(entry.values), note)]
    value = ", ".join(number(value, 4) for value in champion.values)
    names = ", ".join(objective.name for objective in result.objectives)
    note = f"one training of evaluation {champion.number}: the best of many is partly luck"
    if len(result.objectives) > 1:
        note = f"evaluation {champion.number}, best by {result.objectives[0].name}: see the front"
    return [(f"champion's {names}", value, note)]


def _state(result: Result) -> str:
    if result.outcome is None:
        held = None if result.run_dir is None else is_held(result.run_dir / LOCK)
        return {True: "still running", False: "killed", None: "still running, or killed"}[held]
    return f"{result.outcome}: {result.stop_reason}"


def champion_genes(result: Result) -> str:
    """Returns number, fitness, metrics and genes of the champion."""
    champion = result.champion
    pairs: list[tuple[str, object]] = [
        ("evaluation", f"{champion.number}, key {champion.key[:12]}")
    ]
    searched = _searched(result, champion)
    for place, objective in enumerate(result.objectives):
        if searched is not None:
            pairs.append((f"{objective.name} in the search", number(searched.values[place], 5)))
    pairs.append(("seconds", f"{champion.seconds:.1f}"))
    pairs += [
        (name, number(value, 5) if type(value) in (int, float) else _value(value))
        for name, value in champion.metrics.items()
        if value is not None
    ]
    genes = [(name, shown(value)) for name, value in champion.genes.items()]
    return f"{description_list(pairs)}<h3>Genes</h3>{description_list(genes)}"


def _searched(result: Result, evaluation: Evaluation) -> Evaluation | None:
    """Returns the search's own evaluation of a point, if it has one with a fitness."""
    for entry in result.evaluations:
        if entry.key == evaluation.key and entry.status is Status.OK:
            return entry
    return None


def hall_table(result: Result) -> str:
    """Returns the hall of fame."""
    names = [objective.name for objective in result.objectives]
    return _ranking(["number", *names, "seconds", "key"], result.hall_of_fame)


def front_table(result: Result) -> str:
    """Returns the evaluations that no other dominates."""
    names = [objective.name for objective in result.objectives]
    return _ranking(["number", *names, "seconds", "key"], result.pareto_front)


def _ranking(head: list[str], entries: Sequence[Evaluation]) -> str:
    rows = [
        (
            entry.number,
            *(number(value, 5) for value in entry.values),
            f"{entry.seconds:.1f}",
            entry.key[:12],
        )
        for entry in entries[:_MAX_ROWS]
    ]
    more = len(entries) - len(rows)
    note = f"<p class='soft'>… and {more:,} more.</p>" if more > 0 else ""
    return table(head, rows, text=(len(head) - 1,)) + note


def confirmed_table(result: Result) -> list[str]:
    """Returns the honest table: what was trained again on fresh seeds, and the search's own score.

    Test scores are metrics called `test_…` (as `compare_masks` records them).
    """
    metrics = sorted(
        {
            name
            for entry in result.confirmed
            for repeat in entry.repeats
            for name, value in repeat.metrics.items()
            if name.startswith("test_") and not math.isnan(as_number(value))
        }
    )
    masks = all_boolean(result)
    shares = any("trainable_share" in repeat.metrics for entry in result.confirmed
                 for repeat in entry.repeats)  # fmt: skip
    objective = result.objectives[0].name
    head = ["number", *(["mask"] if masks else []), f"{objective} (mean ± std)", "seeds"]
    head += [*metrics, *(["trainable"] if shares else []), "seconds", "in the search"]
    rows: list[list[object]] = []
    for entry in result.confirmed:
        searched = _searched(result, entry.evaluation)
        row: list[object] = [entry.evaluation.number if entry.evaluation.number >= 0 else "–"]
        row += [_mask_label(result, entry.evaluation)] if masks else []
        row += [_spread(entry.values), f"{len(entry.values)} of {len(entry.repeats)}"]
        row += [_spread(_metric(entry, name)) for name in metrics]
        row += [_percent(_metric(entry, "trainable_share"))] if shares else []
        seconds = _metric(entry, "train_seconds") or [repeat.seconds for repeat in entry.repeats]
        row += [_spread(seconds, 3), number(searched.values[0], 4) if searched else "–"]
        rows.append(row)
    confirmed_keys = [entry.evaluation.key for entry in result.confirmed]
    champion = result.champion.key
    best = confirmed_keys.index(champion) if champion in confirmed_keys else None
    note = (
        "A search reports its best single score, which is partly luck. Here the same points were "
        "trained again on fresh seeds"
    )
    if result.record.confirmed_champion is not None:
        note = f"{note}; the best mean is the champion."
    else:
        note = (
            f"{note}. The champion is still the search's best single score: the repeats are not "
            "finished, or the search went on after them. Confirm again to have the best mean."
        )
    return [
        f'<p class="soft">{esc(note)}</p>',
        table(head, rows, text=(1,) if masks else (), best=best),
    ]


def _metric(entry: Confirmed, name: str) -> list[float]:
    found = [repeat.metrics.get(name) for repeat in entry.repeats if repeat.status is Status.OK]
    return [value for value in map(as_number, found) if not math.isnan(value)]


def _mask_label(result: Result, evaluation: Evaluation) -> str:
    frozen = [bool(evaluation.genes.get(name)) for name in gene_names(result)]
    bits = "".join("1" if bit else "0" for bit in frozen)
    bits = bits if len(bits) <= 40 else f"{bits[:39]}…"
    if not any(frozen):
        return f"{bits} nothing frozen"
    if all(frozen):
        return f"{bits} all frozen"
    first = frozen.index(False)
    if not any(frozen[first:]):
        return f"{bits} first {first} frozen"
    # `compare_masks` draws the others that the search did not train.
    return f"{bits} {'of the search' if evaluation.number >= 0 else 'random'}"


def champion_code(result: Result) -> str:
    """Returns the champion's source where the run keeps it, its genes otherwise."""
    champion = result.champion
    for file in _source_files(result.run_dir, champion.number):
        try:
            code = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it vanished under us, as files of a running search do
        if len(code) <= _MAX_CODE:
            return code_block(file.name, code, "champion-code")
    genes = json.dumps(champion.genes, indent=4, ensure_ascii=False)
    return code_block("the champion's genes (JSON)", genes, "champion-code")


def _source_files(run_dir: Path | None, number: int) -> list[Path]:
    if run_dir is None:
        return []
    return [
        *sorted(run_dir.glob("ga-champ-*.py")),
        *sorted((run_dir / "ga_architecture").glob(f"*-{number}.py")),
    ]


def reproduction(result: Result) -> list[str]:
    """Returns command, versions, hardware, and what the run is, as it was recorded."""
    parts = []
    sessions = result.sessions
    if sessions:
        last = sessions[-1]["environment"]
        command = last.get("command")
        if isinstance(command, list):
            parts.append(code_block("the command", shlex.join(map(str, command)), "command"))
        pairs = [(name, _value(value)) for name, value in last.items() if name != "command"]
        parts += ["<h3>Machine and versions</h3>", description_list(pairs)]
        rows = [
            (
                place,
                time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(session["started_at"])),
                duration(session["seconds"]),
                session["outcome"] or "no end on record",
                session["reason"] or "",
            )
            for place, session in enumerate(sessions, 1)
        ][-_MAX_ROWS:]
        parts.append(f"<h3>Starts ({len(sessions)})</h3>")
        parts.append(table(["start", "at", "for", "outcome", "reason"], rows, text=(1, 3, 4)))
    left_out = {"space", "initial", "baselines", "retryable"}
    record = result.record.to_json()
    settings = [(name, _value(value)) for name, value in record.items() if name not in left_out]
    parts += ["<h3>Settings</h3>", description_list(settings)]
    space = json.dumps(result.record.space, indent=1, ensure_ascii=False)
    if len(space) <= _MAX_CODE:
        parts.append(code_block("search space (JSON)", space, "space"))
    return parts


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(entry)}" for name, entry in value.items()) or "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(entry) for entry in value) or "–"
    if value is None:
        return "–"
    return shown(value)


def _spread(values: Sequence[float], digits: int = 4) -> str:
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.{digits}g}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.2g}"


def _percent(values: Sequence[float]) -> str:
    return f"{values[0]:.1%}" if values else "–"
