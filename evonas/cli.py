"""The command `evonas`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from evonas.callbacks.progress import format_duration
from evonas.exceptions import EvonasError
from evonas.records import Evaluation
from evonas.report import write_report
from evonas.result import Result, open_run
from evonas.storage.lock import LOCK, is_held

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0 done, 1 no such run or a damaged one."""
    parser = argparse.ArgumentParser(
        prog="evonas", description="Look at the runs of evonas. Reading a run never changes it."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    show = commands.add_parser(
        "show",
        help="state, champion, hall of fame and counts of a run",
        description="Prints state, champion, hall of fame and counts; works while the run goes on.",
        epilog="example: evonas show runs/cifar10-alexnet",
    )
    show.add_argument("run", help="the run's directory")
    show.add_argument("--json", action="store_true", help="print JSON for programs")
    report = commands.add_parser(
        "report",
        help="write one HTML file that shows the search",
        description="Writes one HTML file, without a network, that shows what the search did.",
        epilog="example: evonas report runs/cifar10-alexnet -o alexnet.html",
    )
    report.add_argument("run", help="the run's directory")
    report.add_argument("-o", "--output", help="the file (default: report.html in the run)")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "report":
            print(write_report(arguments.run, arguments.output))
            return 0
        result = open_run(arguments.run)
    except (EvonasError, FileNotFoundError) as error:
        print(f"evonas: {error}", file=sys.stderr)
        return 1
    text = json.dumps(_summary(result), indent=2) if arguments.json else "\n".join(_lines(result))
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `evonas show RUN | head` has read all it wants
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _summary(result: Result) -> dict[str, Any]:
    hall = result.hall_of_fame
    return {
        "run_dir": str(result.run_dir),
        "outcome": result.outcome,
        "running": _is_running(result),
        "stop_reason": result.stop_reason,
        "strategy": result.settings["strategy"],
        "seed": result.settings["seed"],
        "seconds": result.seconds,
        "rows": len(result.logbook),
        "counts": {**result.counts.by_status, "reused": result.counts.reused},
        "champion": _entry(result.champion) if hall else None,
        "hall_of_fame": [_entry(evaluation) for evaluation in hall],
        "confirmed": [
            {
                **_entry(entry.evaluation),
                "mean": entry.mean if entry.values else None,  # NaN is not JSON
                "values": entry.values,
            }
            for entry in result.confirmed
        ],
    }


def _is_running(result: Result) -> bool | None:
    return None if result.run_dir is None else is_held(result.run_dir / LOCK)


def _entry(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "number": evaluation.number,
        "key": evaluation.key,
        "fitness": evaluation.fitness,
        "genes": evaluation.genes,
        "seconds": evaluation.seconds,
    }


def _lines(result: Result) -> list[str]:
    counts = result.counts
    state = f"{result.outcome}: {result.stop_reason}"
    if result.outcome is None:
        state = {
            True: "running",
            False: "killed (the same command goes on)",
            None: "running, or killed (the same command goes on)",
        }[_is_running(result)]
    strategy = result.settings["strategy"]
    lines = [
        f"run         {result.run_dir}",
        f"state       {state}",
        f"strategy    {strategy['name']}, seed {result.settings['seed']}",
        f"generations {len(result.logbook)}",
        f"trained     {counts.evaluated}  (reused {counts.reused}, "
        f"invalid {counts.by_status.get('invalid', 0)}, failed {counts.failed})",
        f"time        {format_duration(result.seconds)}",
    ]
    for name in ("pruned", "failed", "diverged", "out_of_memory", "timeout", "lost"):
        number = counts.by_status.get(name, 0)
        if number:
            lines.append(f"  {name:<13} {number}")
    if not result.hall_of_fame:
        return [*lines, "", "no evaluation has a fitness yet"]
    champion = result.champion
    lines += ["", f"champion    number {champion.number}, fitness {_shown(champion.fitness)}"]
    width = max(map(len, champion.genes))
    lines += [f"  {name:<{width}}  {value}" for name, value in champion.genes.items()]
    if result.confirmed:
        lines += ["", "repeated on fresh seeds", "  number      mean       std  repeats"]
        lines += [
            f"  {entry.evaluation.number:>6} {entry.mean:>9.4f} {entry.std:>9.4f}"
            f"  {len(entry.values):>7}"
            for entry in result.confirmed
        ]
    lines += ["", "hall of fame", "  number   fitness  seconds  key"]
    lines += [
        f"  {entry.number:>6} {_shown(entry.fitness):>9} {entry.seconds:>8.1f}  {entry.key[:12]}"
        for entry in result.hall_of_fame
    ]
    return lines


def _shown(fitness: float | tuple[float, ...] | None) -> str:
    if isinstance(fitness, tuple):
        return ", ".join(f"{value:.4g}" for value in fitness)
    return "-" if fitness is None else f"{fitness:.4g}"
