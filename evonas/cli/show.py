"""`evonas show`: what a run is doing, or did."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from evonas.cli.screen import (
    CommandWithExamples,
    console,
    echo,
    json_option,
    json_text,
    pairs,
    printable,
    put,
    run_argument,
    shown,
    table,
)
from evonas.report.formats import aligned, duration, number
from evonas.report.listing import PREPARING
from evonas.report.network import (
    classes_text,
    layer_rows,
    network_of,
    precision_text,
    preprocessing_text,
)
from evonas.report.state import State, is_preparing, last_start, read_state, summary
from evonas.report.strip import blocks_of
from evonas.run.repeats import repeats_text, weights_text
from evonas.run.store import RunRecord

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

    from evonas.run.result import Result

__all__ = ["show"]

_MAX_LISTED = 12
_MAX_LAYERS = 24
_MAX_FRONT = 30
_MAX_CLASSES = 30


@click.command(
    cls=CommandWithExamples,
    examples=(
        "evonas show runs/demo",
        "evonas show runs/demo --watch --every 10",
        "evonas show runs/demo --json | jq .champion.genes",
    ),
)
@run_argument()
@json_option()
@click.pass_context
@click.option("--watch", is_flag=True, help="Show it again and again, until the search ends.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often --watch looks.",
)
def show(ctx: click.Context, run: Path, as_json: bool, watch: bool, every: float) -> None:
    """Show state, champion and what comes next.

    Counts by status, the hall of fame and the time spent, too.

    Works while the search goes on. With --watch it ends when the search does, and with Ctrl-C.
    --json --watch prints a line of JSON whenever something has changed.
    """
    if not watch and ctx.get_parameter_source("every") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--every says how often --watch looks: give --watch too")
    if not watch:
        if is_preparing(run):
            told = {"run_dir": str(run), "state": PREPARING}
            echo(json_text(told) if as_json else f"{run}: {PREPARING}")
        else:
            _print(read_state(run), as_json)
    elif as_json or not console().is_terminal:
        _print_changes(run, as_json, every)
    else:
        _watch(run, every)


def _print(state: State, as_json: bool) -> None:
    if as_json:
        click.echo(json_text(summary(state)))
    else:
        put(_page(state))


def _states(run: Path, every: float) -> Iterator[State]:
    while is_preparing(run):
        time.sleep(every)
    while True:
        state = read_state(run)
        yield state
        if state.has_ended:
            return
        time.sleep(every)


def _print_changes(run: Path, as_json: bool, every: float) -> None:
    before = None
    for state in _states(run, every):
        seen = summary(state)
        clock = seen.pop("seconds")
        if seen != before:
            if as_json:
                click.echo(json_text({**seen, "seconds": clock}, indent=None))
            else:
                put(_page(state), "")
        before = seen


def _watch(run: Path, every: float) -> None:
    from rich.live import Live

    screen = console()
    # On a screen of its own a page longer than the terminal is cut, not scrolled past.
    with Live(console=screen, auto_refresh=False, screen=False, transient=True) as live:
        for state in _states(run, every):
            last = state
            live.update(_page(state, live=True), refresh=True)
    put(_page(last))


def _page(state: State, *, live: bool = False) -> Group:
    from rich.console import Group
    from rich.text import Text

    result = state.result
    parts: list[RenderableType] = [pairs(_head(state))]
    # Beside the table, whose cells are wrapped: a command is copied as one line.
    parts += [Text(line, no_wrap=True, overflow="ignore") for line in _recipe(state)]
    if not result.hall_of_fame:
        return Group(*parts, Text("\nno evaluation has a fitness yet"))
    champion = result.champion
    unmet = result.counts.unmet
    title = f"\n{unmet}\nthe nearest" if unmet else "\nchampion   "
    title += f" number {champion.number}, "
    if len(result.objectives) == 1:
        title += f"fitness {number(champion.values[0])}"
    else:
        named = zip(result.objectives, champion.values, strict=True)
        title += ", ".join(f"{objective.name} {number(value)}" for objective, value in named)
    title += repeats_text(champion)
    if champion.repeats and (weights := weights_text(champion, result.objectives)):
        title += f"\nits weights {weights}"
    genes = [(name, shown(value)) for name, value in champion.genes.items()]
    if live and len(genes) > _MAX_LISTED:
        genes = [*genes[:_MAX_LISTED], (f"… and {len(genes) - _MAX_LISTED} more", "")]
    blocks = blocks_of(result)
    if blocks is not None:
        title += f"\n  {blocks.label(champion)}"
    parts += [Text(printable(title)), pairs(genes, indent=2)]
    net = None if live else network_of(champion)
    if net is not None:
        parts.append(Text("\nits network"))
        names = ["weights", "multiply-adds", "share", "layer", "type", "output"]
        layers = layer_rows(net, _MAX_LAYERS)
        lines = [(*costs, bar, name, kind, shape) for name, kind, shape, *costs, bar in layers]
        parts.append(table(names, lines, left=4))
    if not live and (said := preprocessing_text(champion)):
        parts.append(Text(printable(f"\nits inputs  {said}")))
    if not live and (classes := classes_text(champion, _MAX_CLASSES)):
        parts.append(Text(printable(f"\nits classes {classes}")))
    if result.confirmed:
        parts.append(Text("\nrepeated on fresh seeds"))
        rows = [
            (
                entry.evaluation.number if entry.evaluation.number >= 0 else "-",
                f"{entry.mean:.4f}" if entry.values else "-",
                f"{entry.std:.4f}" if len(entry.values) > 1 else "-",
                len(entry.values),
                entry.evaluation.key[:12],
            )
            for entry in result.confirmed
        ]
        parts.append(table(["number", "mean", "std", "repeats", "key"], rows, left=1))
    parts += _ranking(result)
    return Group(*parts)


def _ranking(result: Result) -> list[RenderableType]:
    """Returns the hall of fame, or with several objectives the front."""
    from rich.text import Text

    several = len(result.objectives) > 1
    entries = result.pareto_front if several else result.hall_of_fame
    title = "\nhall of fame"
    if result.counts.unmet:
        title = "\nnearest to the limits"
    elif several:
        title = f"\nPareto front, {len(entries)} "
        title += "that no other beats in one objective without losing in another"
    names = [objective.name for objective in result.objectives]
    kept = entries[:_MAX_FRONT]
    columns = [aligned([entry.values[place] for entry in kept]) for place in range(len(names))]
    rows = [
        (entry.number, *values, f"{entry.seconds:.1f}", entry.key[:12])
        for entry, values in zip(kept, zip(*columns, strict=True), strict=True)
    ]
    more = [Text(f"… and {len(entries) - len(kept)} more")] if len(entries) > len(kept) else []
    return [Text(title), table(["number", *names, "seconds", "key"], rows, left=1), *more]


def _strategy_words(record: RunRecord) -> str:
    words = f"{record.strategy_name}, seed {record.seed}"
    return f"{words} (auto: {record.chosen_for})" if record.chosen_for else words


def _head(state: State) -> list[tuple[str, object]]:
    result, counts = state.result, state.result.counts
    wanted = ", ".join(f"{entry.name} ({entry.direction})" for entry in result.objectives)
    starts = len(result.sessions)
    spent = duration(result.seconds)
    if starts > 1:
        spent += f" in {starts} starts"
    if counts.evaluated:
        spent += f", {number(result.seconds / counts.evaluated, 3)} s per evaluation"
    lines: list[tuple[str, object]] = [
        ("run", result.location),
        ("state", state.words),
        ("strategy", _strategy_words(result.record)),
        ("objectives" if len(result.objectives) > 1 else "objective", wanted),
        *([("limits", limits.words)] if (limits := result.record.limits) else []),
        *(
            [("precision", precision_text(result.record.precision))]
            if result.record.precision
            else []
        ),
        ("generations", len(result.logbook)),
        (
            "trained",
            f"{_how_far(state)}  (reused {counts.reused}, invalid "
            f"{counts.by_status.get('invalid', 0)}, failed {counts.failed})",
        ),
    ]
    lines += [
        (f"  {name}", counts.by_status[name])
        for name in ("pruned", "failed", "diverged", "out_of_memory", "timeout", "lost")
        if counts.by_status.get(name)
    ]
    lines += [("copied", counts.copied_words)] if counts.copied else []
    lines.append(("time", spent))
    left = "" if result.outcome == "finished" and state.has_ended else _left(state)
    if left:
        lines.append(("left", left))
    lines.append(("next", _next(state)))
    return lines


def _how_far(state: State) -> str:
    result, most = state.result, state.most_evaluations
    done = result.counts.evaluated
    if most is None or (state.has_ended and result.outcome == "finished"):
        return str(done)
    return f"{done} of {_at_most(state)}{most}"


def _at_most(state: State) -> str:
    """Says where duplicates, which are not trained, may make it less."""
    return "at most " if "generations" in state.budget_left() else ""


def _left(state: State) -> str:
    words = []
    for name, amount in state.budget_left().items():
        if name == "max_seconds":
            words.append(f"{duration(amount)} of max_seconds")
        else:
            unit = "generation" if name == "generations" else "evaluation"
            words.append(f"{amount:.0f} {unit}{'' if amount == 1 else 's'}")
    seconds = state.seconds_left()
    if seconds is not None and state.most_evaluations is not None and not state.has_ended:
        words.append(f"{_at_most(state)}about {duration(seconds)} at this pace")
    return ", ".join(words)


def _recipe(state: State) -> list[str]:
    """Returns how to go on with a run that has ended, the command in a line of its own."""
    run, start = state.result.run_dir, last_start(state.result)
    if not state.has_ended or run is None:
        return []
    if start is not None and not start.goes_on_with(run):
        return [
            f"\nmoved here or copied: its command goes on with {start.run_dir}. To go on with this",
            f"one, run it with --run-dir {run.resolve()}, or run_dir= in its code:",
            f"  {start.line}",
        ]
    if state.result.outcome == "finished":
        return ["\nto go on, run the same command with a larger budget"]
    if start is None:
        return ["\nto go on, run the same command (or cell) again"]
    return [
        "\nto go on, run the same command again, or",
        f"  evonas resume {shlex.quote(state.result.location)}",
    ]


def _next(state: State) -> str:
    asked = state.asked
    listed = ", ".join(str(each) for each in asked.numbers[:_MAX_LISTED])
    if len(asked.numbers) > _MAX_LISTED:
        listed += f" and {len(asked.numbers) - _MAX_LISTED} more"
    waiting = f"number {listed} of generation {asked.generation}, asked for and not finished"
    if asked.numbers:
        return waiting
    if not state.has_ended:
        return "what the strategy asks for"
    return "nothing" if state.result.outcome == "finished" else "the next generation"
