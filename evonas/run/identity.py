"""What a run is: fixed at its first start, compared at every later one."""

from __future__ import annotations

import os
import platform
import random
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from evonas.exceptions import RunMismatchError
from evonas.execution.choice import available_cores
from evonas.execution.process_state import changed_state
from evonas.problem import Problem
from evonas.pruning import Pruner
from evonas.records import Genes
from evonas.run.interrupts import Interrupts
from evonas.run.signature import sign
from evonas.run.store import RunRecord, Store
from evonas.run.store.encoding import from_json, to_json
from evonas.strategies.base import Strategy

__all__ = [
    "comparable",
    "configure_as",
    "device_kind",
    "environment",
    "identify",
    "refuse_invalid",
    "settled",
    "start_command",
    "trial_threads",
]


def identify(
    problem: Problem,
    strategy: Strategy,
    stored: RunRecord | None,
    initial: Iterable[Genes],
    seed: int | None,
    threads: int,
    deterministic: bool,
    *,
    pruner: Pruner | None = None,
    name: str,
    has_scores: bool = True,
) -> RunRecord:
    """Returns what the run is: as stored if it has begun, and as asked for here otherwise.

    Args:
        problem: Is configured as the run was, or by its own choice.
        strategy: How to search.
        stored: The record of earlier starts, if there were any.
        initial: Points for the first population.
        seed: None: as stored, or drawn.
        threads: Per trial: what `trial_threads` returned.
        deterministic: Whether torch must use deterministic algorithms only.
        pruner: Which trials to end early.
        name: What an error calls the run.
        has_scores: Whether the run has evaluations that did not fail. Without any, the code may be
            another: the user has fixed it.

    Raises:
        RunMismatchError: The run was started as something else.
    """
    problem_settings = problem.configure(None if stored is None else stored.problem_settings)
    here = RunRecord(
        space=problem.space.to_json(),
        fingerprint=problem.fingerprint(),
        objectives=problem.objectives,
        strategy=strategy.settings(),
        initial=tuple(_initial(problem, genes) for genes in initial),
        deterministic=deterministic,
        pruner=None if pruner is None else pruner.settings(),
        problem_settings=problem_settings,
        seed=random.SystemRandom().randrange(2**32) if seed is None else seed,
        threads=threads,
        process=changed_state(),
        tie_breaker=problem.tie_breaker,
        strip=dict(problem.strip()) if stored is None else stored.strip,
    )
    # As a later start will find it: tuples are lists.
    here = RunRecord.from_json(from_json(to_json(here.to_json())))
    if stored is None:
        return here
    if not has_scores and _only_code_differs(stored.fingerprint, here.fingerprint):
        stored = replace(stored, fingerprint=here.fingerprint)
    _compare(stored, here, _NAMES, name)
    if seed is not None:
        _check_same("seed", seed, stored.seed, name)
    return replace(stored, problem_settings=here.problem_settings)


def trial_threads(stored: RunRecord | None, given: int | None, name: str) -> int | None:
    """Returns with how many threads a trial computes: as given or stored; None: to be chosen.

    Args:
        stored: The record of earlier starts, if there were any.
        given: What the user asks for; None: nothing.
        name: What an error calls the run.

    Raises:
        RunMismatchError: The run was started with another number.
    """
    if given is not None and stored is not None:
        _check_same("threads_per_trial", given, stored.threads, name)
    return given or (None if stored is None else stored.threads)


def device_kind(
    problem: Problem, stored: RunRecord | None, device: str, deterministic: bool, name: str
) -> str | None:
    """Returns on which kind of device the run was begun, `"cpu"` or `"cuda"`; None: without torch.

    Warns where this start computes on another, which adds in another order.

    Args:
        problem: Whether it uses torch.
        stored: The record of earlier starts, if there were any.
        device: Where trials compute now.
        deterministic: Whether the run promises the same bits.
        name: What an error calls the run.

    Raises:
        RunMismatchError: It is another, and the run promises the same bits.
    """
    if not problem.uses_torch:
        return None
    kind = device.partition(":")[0]
    before = None if stored is None else stored.device
    if before is None or before == kind:
        return kind
    if deterministic:
        raise RunMismatchError(
            f"{name} was started on {before} with deterministic=True, here on {kind}, which gives "
            f"other bits: pass devices={before!r}, or a new run_dir"
        )
    warnings.warn(
        f"{name} was started on {before} and goes on on {kind}: its trainings from now on differ "
        f"from those before in their rounding, and in their dropout; devices={before!r} avoids it",
        RuntimeWarning,
        stacklevel=4,  # the caller of evolve, which is wrapped
    )
    return before


def _check_same(words: str, given: int, before: int, name: str) -> None:
    if given != before:
        raise RunMismatchError(
            f"{name} was started with {words} {before}, here {given}: leave it out, or pass a "
            "new run_dir"
        )


def configure_as(problem: Problem, stored: RunRecord, name: str) -> None:
    """Configures a problem as a run has it, and refuses one that is not the run's.

    Args:
        problem: Is configured.
        stored: What the run is.
        name: What an error calls the run.

    Raises:
        RunMismatchError: Its space, fingerprint or objectives are others.
    """
    problem.configure(stored.problem_settings)
    here = replace(
        stored,
        space=from_json(to_json(problem.space.to_json())),
        fingerprint=from_json(to_json(problem.fingerprint())),
        objectives=problem.objectives,
    )
    _compare(stored, here, ("space", "fingerprint", "objectives"), name)


def settled(
    problem: Problem,
    genes: Genes,
    record: RunRecord,
    store: Store,
    interrupts: Interrupts,
    say: Callable[[str], None],
) -> RunRecord:
    """Returns the record of the run with all decided that a trial of the genes needs.

    What is new is committed first, so that the trial does the same in a later start.

    Args:
        problem: Decides.
        genes: Of the trial.
        record: What the run is.
        store: Where what is new is committed.
        interrupts: End it.
        say: Tells people what takes its time.

    Raises:
        KeyboardInterrupt: A signal came.
    """
    with interrupts.raising():
        settings = problem.settings_for(genes, record.problem_settings, say)
    if settings is record.problem_settings:
        return record
    record = replace(record, problem_settings=dict(settings))
    store.write_record(record)
    return record


def _initial(problem: Problem, genes: Genes) -> Genes:
    # Before anything is written: the points belong to what a run is, and a wrong one would stay.
    genes = problem.space.validate(genes)
    refuse_invalid(genes, problem.space.violated(genes))
    reason = problem.invalid_reason(genes)
    if reason is not None:
        raise ValueError(_INVALID.format(genes, reason))
    return genes


_INVALID = "initial point {} is invalid ({}): fix it or leave it out"


def refuse_invalid(genes: Genes, violated: Sequence[str]) -> None:
    """Refuses an initial point that violates constraints.

    Raises:
        ValueError: There are such constraints.
    """
    if violated:
        raise ValueError(_INVALID.format(genes, f"violates {', '.join(violated)}"))


_CODE = re.compile(r"\bpy\d+\.\d+-(?=[0-9a-f]{16}\b)")
_DIGEST = re.compile(rf"{_CODE.pattern}[0-9a-f]{{16}}")

_NAMES = {
    "space": "another search space",
    "fingerprint": "another problem",
    "objectives": "other objectives",
    "strategy": "another strategy",
    "initial": "other initial points",
    "deterministic": "another deterministic",
    "process": "another setting of the process",
    "pruner": "another pruner",
}


def _compare(stored: RunRecord, here: RunRecord, names: Iterable[str], run: str) -> None:
    before, now = stored.to_json(), here.to_json()
    before["fingerprint"], now["fingerprint"] = comparable(
        before["fingerprint"], now["fingerprint"]
    )
    named = stored.fingerprint.get("problem_id")
    way_out = "" if named is None else (
        f"Where old evaluations compare with new ones, pass problem_id={named!r}; else "
    )  # fmt: skip
    for name in names:
        if name == "fingerprint" and _only_code_differs(before[name], now[name]):
            raise RunMismatchError(
                f"{run} was started with other code: the fitness function or model, or a function, "
                f"class or constant of yours that it uses, was edited since. {way_out}pass a new "
                "run_dir, or restore what it was"
            )
        if before[name] != now[name]:
            sides = before[name], now[name]
            difference = _difference(*(map(dict, sides) if name == "objectives" else sides))
            is_renamed = difference.startswith("problem_id") and "code" in here.fingerprint
            raise RunMismatchError(
                f"{run} was started with {_NAMES[name]} ({difference})"
                f"{f'. {way_out}' if is_renamed else ': '}pass a new run_dir, or restore what it "
                "was"
            )


def comparable(*fingerprints: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns fingerprints without what does not compare.

    An entry `code` that not all of them have; all digests of code where one was named by the user's
    `problem_id` instead, and where they were made by different versions of Python.
    """
    found = [dict(fingerprint) for fingerprint in fingerprints]
    is_named = any("problem_id" in each and "code" not in each for each in found)
    if not all("code" in fingerprint for fingerprint in found):
        for fingerprint in found:
            fingerprint.pop("code", None)
    texts = [to_json(fingerprint) for fingerprint in found]
    if is_named or len({python for text in texts for python in _CODE.findall(text)}) > 1:
        texts = [_DIGEST.sub("code", text) for text in texts]
    return [from_json(text) for text in texts]


def _only_code_differs(stored: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    stored_code, here_code = stored.get("code"), here.get("code")
    return stored_code != here_code and {**stored, "code": None} == {**here, "code": None}


def _difference(stored: Any, here: Any, path: str = "") -> str:
    """Says where two JSON values first differ."""
    if isinstance(stored, list) and isinstance(here, list):
        stored, here = _by_name(stored), _by_name(here)
    if isinstance(stored, Mapping) and isinstance(here, Mapping):
        for name in [*stored, *(name for name in here if name not in stored)]:
            if stored.get(name) != here.get(name):
                inner = f"{path}.{name}" if path else str(name)
                return _difference(stored.get(name), here.get(name), inner)
    return f"{path + ': ' if path else ''}{_short(stored)} in the run, {_short(here)} here"


def _by_name(entries: list[Any]) -> dict[str, Any]:
    """Returns the entries of a list by their names (genes have some), or by their places."""
    return {
        str(entry["name"] if isinstance(entry, Mapping) and "name" in entry else place): entry
        for place, entry in enumerate(entries)
    }


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def environment(
    budget: Mapping[str, Any] | None = None,
    *,
    run_dir: str | os.PathLike[str] | None = None,
    most_evaluations: int | None = None,
) -> dict[str, Any]:
    """Returns the command, the machine and the versions, for the record of a start.

    Args:
        budget: When this start ends, for whoever asks how much is left. None: not on record.
        run_dir: The run's directory: what `command` goes on with. None: in memory.
        most_evaluations: How many evaluations the budget allows at most. None: not known.
    """
    packages: dict[str, str | None] = {}
    for name in ("evonas", "deap", "numpy", "torch", "torchvision"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    found = {
        "command": start_command(),
        "directory": _directory(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": available_cores(),
        "packages": packages,
        **({} if budget is None else {"budget": dict(budget)}),
        **({} if run_dir is None else {"run_dir": os.path.abspath(run_dir)}),
        **({} if most_evaluations is None else {"most_evaluations": most_evaluations}),
    }
    return found if run_dir is None else {**found, "signature": sign(found)}


def _directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed
        return ""


def start_command() -> list[str] | None:
    """Returns the command that runs this program again, or None where no command would.

    A notebook, a prompt, or a script that came through standard input.
    """
    # As the interpreter got it, with its own options and `-m`: sys.argv has lost them.
    arguments = sys.orig_argv[1:]
    main = sys.modules.get("__main__")
    has_code = getattr(main, "__file__", None) is not None or "-c" in arguments
    if not has_code or not arguments or "-i" in arguments or hasattr(sys, "ps1"):
        return None
    return [sys.executable, *arguments]
