"""The parts of a report that are text and tables."""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evonas.records import Evaluation, Status
from evonas.report.answer import fixed_settings, spread
from evonas.report.formats import aligned, duration, number
from evonas.report.gene_columns import importances
from evonas.report.network import classes_text, preprocessing_text
from evonas.report.page import Code, Fold, Heading, Pairs, Part, Strip, Table, Text
from evonas.report.strip import Blocks, blocks_of
from evonas.report.style import as_number, shown
from evonas.run.repeats import weights_text

if TYPE_CHECKING:
    from evonas.run.result import Confirmed, Result

__all__ = [
    "champion_code",
    "champion_genes",
    "confirmed_table",
    "ranking",
    "reproduction",
    "run_name",
]

_MAX_ROWS = 50
_MAX_GENES = 6
_MAX_CODE = 200_000


def run_name(result: Result) -> str:
    """Returns the last two parts of the run's path: many a run's folder is called `run`."""
    if result.run_dir is None:
        return "a run in memory"
    return "/".join(part for part in result.run_dir.resolve().parts[-2:] if part != "/")


def champion_genes(result: Result) -> list[Part]:
    """Returns number, metrics and genes of the champion."""
    champion = result.champion
    pairs: list[tuple[str, object]] = [
        ("evaluation", champion.number),
        ("key", champion.key[:12]),
        ("seconds", f"{champion.seconds:.1f}"),
    ]
    pairs += [
        (name, number(value, 5) if type(value) in (int, float) else _value(value))
        for name, value in champion.metrics.items()
        if value is not None
    ]
    searched = _searched(result, champion)
    for place, objective in enumerate(result.objectives):
        if searched is not None and objective.name not in champion.metrics:
            pairs.insert(1 + place, (objective.name, number(searched.values[place], 5)))
    if weights := weights_text(champion, result.objectives):
        pairs.append(("weights", weights))
    if said := preprocessing_text(champion):
        pairs.append(("inputs", said))
    if named := classes_text(champion):
        pairs.append(("classes", named))
    blocks = blocks_of(result)
    names = () if blocks is None else blocks.names
    genes = [(name, shown(value)) for name, value in champion.genes.items() if name not in names]
    parts: list[Part] = [Heading("Its genes"), Pairs(genes)] if genes else []
    return [*parts, Fold("Its measurements", [Pairs(pairs)])]


def _searched(result: Result, evaluation: Evaluation) -> Evaluation | None:
    """Returns the search's own evaluation of a point, if it has one with a fitness."""
    for entry in result.evaluations:
        if entry.key == evaluation.key and entry.status is Status.OK:
            return entry
    return None


def ranking(result: Result, entries: Sequence[Evaluation]) -> Table:
    """Returns evaluations with their values and the genes in which they differ."""
    kept = entries[:_MAX_ROWS]
    blocks = blocks_of(result)
    strips = () if blocks is None else blocks.names
    differing = [
        name
        for name in (importances(result) if len(kept) > 1 else ())
        if name not in strips and len({_gene(entry, name) for entry in kept}) > 1
    ]
    genes = differing[:_MAX_GENES]
    head = ["number", *(objective.name for objective in result.objectives)]
    head += [*genes, "seconds", *(["blocks"] if blocks is not None else [])]
    columns = [
        aligned([entry.values[place] for entry in kept]) for place in range(len(result.objectives))
    ]
    rows: list[list[object]] = []
    for place, entry in enumerate(kept):
        row: list[object] = [entry.number, *(column[place] for column in columns)]
        row += [*(_gene(entry, name) for name in genes), f"{entry.seconds:.1f}"]
        row += [] if blocks is None else [blocks.strip(entry.genes, blocks.label(entry))]
        rows.append(row)
    notes = []
    if len(kept) < len(entries):
        notes.append(f"… and {len(entries) - len(kept):,} more.")
    if len(differing) > len(genes):
        n_more = len(differing) - len(genes)
        notes.append(f"They differ in {n_more} more genes, which matter less.")
    places = () if blocks is None else (len(head) - 1,)
    best = next((at for at, e in enumerate(kept) if e.key == result.champion.key), None)
    return Table(head, rows, text=places, best=best, note=" ".join(notes))


def _gene(entry: Evaluation, name: str) -> str:
    return shown(entry.genes[name]) if name in entry.genes else "–"


def confirmed_table(result: Result) -> list[Part]:
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
    blocks = blocks_of(result)
    shares = any("trainable_share" in repeat.metrics for entry in result.confirmed
                 for repeat in entry.repeats)  # fmt: skip
    objective = result.objectives[0].name
    head = ["number", *(["blocks"] if blocks else []), f"{objective} (mean ± std)", "seeds"]
    head += [*metrics, *(["trainable"] if shares else []), "seconds", "in the search"]
    rows: list[list[object]] = []
    for entry in result.confirmed:
        searched = _searched(result, entry.evaluation)
        row: list[object] = [entry.evaluation.number if entry.evaluation.number >= 0 else "–"]
        row += [_strip(blocks, entry.evaluation)] if blocks else []
        row += [spread(entry.values), f"{len(entry.values)} of {len(entry.repeats)}"]
        row += [spread(_metric(entry, name)) for name in metrics]
        row += [_percent(_metric(entry, "trainable_share"))] if shares else []
        seconds = _metric(entry, "train_seconds") or [repeat.seconds for repeat in entry.repeats]
        row += [spread(seconds, 3), number(searched.values[0], 4) if searched else "–"]
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
    return [Text(note), Table(head, rows, text=(1,) if blocks else (), best=best)]


def _metric(entry: Confirmed, name: str) -> list[float]:
    found = [repeat.metrics.get(name) for repeat in entry.repeats if repeat.status is Status.OK]
    return [value for value in map(as_number, found) if not math.isnan(value)]


def _strip(blocks: Blocks, evaluation: Evaluation) -> Strip:
    label = blocks.label(evaluation)
    if label == blocks.in_words(evaluation.genes):
        # `compare_masks` draws the others that the search did not train.
        label = "of the search" if evaluation.number >= 0 else "random"
    return blocks.strip(evaluation.genes, label)


def champion_code(result: Result) -> Code:
    """Returns the champion's source where the run keeps it, its genes otherwise."""
    champion = result.champion
    for file in _source_files(result.run_dir, champion.number):
        try:
            code = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it vanished under us, as files of a running search do
        if len(code) <= _MAX_CODE:
            return Code(file.name, code, "champion-code")
    genes = json.dumps(champion.genes, indent=4, ensure_ascii=False)
    return Code("the champion's genes (JSON)", genes, "champion-code")


def _source_files(run_dir: Path | None, number: int) -> list[Path]:
    if run_dir is None:
        return []
    return [
        *sorted(run_dir.glob("ga-champ-*.py")),
        *sorted((run_dir / "ga_architecture").glob(f"*-{number}.py")),
    ]


def reproduction(result: Result) -> list[Part]:
    """Returns command, settings, machine and versions, as they were recorded."""
    parts: list[Part] = []
    sessions = result.sessions
    if sessions:
        last = sessions[-1]["environment"]
        command = last.get("command")
        if isinstance(command, list):
            parts.append(Code("the command", shlex.join(map(str, command)), "command"))
    parts += [Heading("Settings"), Pairs(_settings(result))]
    if sessions:
        packages = last.get("packages")
        versions = packages if isinstance(packages, Mapping) else {}
        machine = [
            (name, last[name]) for name in ("platform", "processor", "cores") if name in last
        ]
        machine += [("python", last.get("python")), *versions.items()]
        parts += [Heading("Machine and versions")]
        parts.append(Pairs([(name, _value(value)) for name, value in machine if value is not None]))
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
        parts.append(Heading(f"Starts ({len(sessions)})"))
        parts.append(Table(["start", "at", "for", "outcome", "reason"], rows, text=(1, 3, 4)))
    return [*parts, Fold("Internals", _internals(result))]


def _settings(result: Result) -> list[tuple[str, object]]:
    """Returns what a person would write down of a search, in words."""
    record = result.record
    strategy = {
        name: value
        for name, value in record.strategy.items()
        if name != "name" and value is not None
    }
    told: dict[str, object] = {"strategy": record.strategy_name, **strategy, "seed": record.seed}
    told |= {"threads per trial": record.threads, "workers": record.workers}
    told |= {"pruner": record.pruner, **record.problem_settings}
    known = {
        name: value
        for name, value in fixed_settings(record).items()
        if name not in ("data", "weights", "blocks", "code") and not isinstance(value, Mapping)
    }
    known |= {name: value for name, value in record.metadata.items() if value is not None}
    return [
        (name.replace("_", " "), _value(value))
        for name, value in {**known, **told}.items()
        if value not in (None, "", [])
    ]


def _internals(result: Result) -> list[Part]:
    left_out = {"space", "initial", "baselines", "retryable", "strip"}
    record = result.record.to_json()
    pairs = [(name, _value(value)) for name, value in record.items() if name not in left_out]
    parts: list[Part] = [Pairs(pairs)]
    if result.sessions:
        last = result.sessions[-1]["environment"]
        parts.append(Pairs([(name, _value(value)) for name, value in last.items()]))
    space = json.dumps(result.record.space, indent=1, ensure_ascii=False)
    if len(space) <= _MAX_CODE:
        parts.append(Code("search space (JSON)", space, "space"))
    return parts


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(entry)}" for name, entry in value.items()) or "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(entry) for entry in value) or "–"
    if value is None:
        return "–"
    return shown(value)


def _percent(values: Sequence[float]) -> str:
    return f"{values[0]:.1%}" if values else "–"
