"""`evonas source`: the code of an architecture."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import click

from evonas.cli.screen import (
    CommandWithExamples,
    json_option,
    json_text,
    run_argument,
    write_or_print,
)
from evonas.exceptions import EvonasError
from evonas.records import Evaluation, Status
from evonas.run.files import ARCHITECTURES, champion_module, numbered
from evonas.run.result import Result, open_run

__all__ = ["chosen", "source"]

_MAX_NAMED = 5


@click.command(
    cls=CommandWithExamples,
    examples=(
        "evonas source runs/demo champion",
        "evonas source runs/demo 17 -o net17.py",
        "evonas source runs/demo 0ab32661947d --json | jq -r .path",
    ),
)
@run_argument()
@click.argument("key")
@json_option()
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write it to this file.")
def source(run: Path, key: str, as_json: bool, output: Path | None) -> None:
    """Print the code of an architecture that the search tried.

    KEY is an evaluation's number, the beginning of its key (`evonas show` lists both), or the word
    `champion`.

    It is the network's code: a class to import, which does nothing when it is run. What runs alone
    is the champion's own file, ga-champ-NAME.py in RUN, with its weights (.pt) beside it.
    """
    result = open_run(run)
    evaluation = chosen(result, key)
    path = _file(result, run, evaluation)
    text = path.read_text(encoding="utf-8")
    if as_json:
        text = json_text(
            {
                "number": evaluation.number,
                "key": evaluation.key,
                "genes": evaluation.genes,
                "path": str(path),
                "source": text,
            }
        )
    write_or_print(text, output)


def chosen(result: Result, wanted: str) -> Evaluation:
    """Returns the evaluation of that number, key, beginning of a key, or the word `champion`.

    Raises:
        EvonasError: There is none, or there are several.
    """
    if wanted == "champion":
        return result.champion
    numbers = {entry.number: entry for entry in result.evaluations}
    if wanted.isdecimal() and int(wanted) in numbers:
        return numbers[int(wanted)]
    # The last of a key: one that failed may have been tried again.
    by_key = {
        entry.key: entry for entry in result.evaluations if entry.key.startswith(wanted.lower())
    }
    if len(by_key) == 1:
        return next(iter(by_key.values()))
    if by_key:
        named = ", ".join(
            f"{entry.key[: len(wanted) + 6]} (number {entry.number})"
            for entry in list(by_key.values())[:_MAX_NAMED]
        )
        more = f" and {len(by_key) - _MAX_NAMED} more" if len(by_key) > _MAX_NAMED else ""
        raise EvonasError(
            f"key {wanted!r} is the beginning of {len(by_key)} keys: {named}{more}; give more of it"
        )
    if not numbers:
        raise EvonasError(f"{result.location} has no evaluation yet")
    close = difflib.get_close_matches(wanted.lower(), ["champion"])
    raise EvonasError(
        f"{result.location} has no evaluation {wanted!r}"
        + (" (did you mean champion?)" if close else "")
        + f": give a number (up to {max(numbers)}), the beginning of a key, or champion"
    )


def _file(result: Result, run: Path, evaluation: Evaluation) -> Path:
    """Returns the file with the code of an evaluation."""
    champion = champion_module(run)
    files = numbered(run / ARCHITECTURES)
    if not files and champion is None:
        problem = result.record.fingerprint.get("problem") or "a function of yours"
        raise EvonasError(
            f"{run} has no source: its problem ({problem}) builds no code from genes; "
            f"`evonas show {run} --json` has the genes"
        )
    if evaluation.status is Status.INVALID:
        reason = (evaluation.error or "").strip().splitlines()
        raise EvonasError(
            f"evaluation {evaluation.number} is invalid and stands for no network"
            + (f": {reason[-1]}" if reason else "")
        )
    path = files.get(evaluation.number)
    if path is None and evaluation.key == _champion_key(result):
        path = champion
    if path is None or not os.access(path, os.R_OK):
        raise EvonasError(
            f"the source of evaluation {evaluation.number} is missing in {run / ARCHITECTURES}: "
            f"`evonas resume {run}` writes missing files again"
        )
    return path


def _champion_key(result: Result) -> str | None:
    return result.champion.key if result.hall_of_fame else None
