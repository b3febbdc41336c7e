"""A trial in a process that evonas did not start: what is sent there, and what comes back."""

from __future__ import annotations

import hashlib
import random
import tempfile
import threading
import traceback
from dataclasses import replace
from pathlib import Path

import cloudpickle
import numpy as np

from evonas.execution.base import Outcome, Task
from evonas.execution.output import OutputFile
from evonas.execution.wire import decode_task, encode_outcome
from evonas.execution.worker import run_seeded_trial
from evonas.problem import Problem
from evonas.records import Status

__all__ = [
    "LOAD_ERROR",
    "NEEDS_PROBLEM",
    "OUTCOME",
    "PRINTED",
    "Reply",
    "packed",
    "run_remote_trial",
]

Reply = tuple[str, bytes, dict[str, bytes]]
"""What came of it, its text or JSON, and the files that the trial attached, by name."""

OUTCOME, NEEDS_PROBLEM, LOAD_ERROR = "outcome", "needs problem", "load error"
PRINTED = "printed by the trial"
"""Among the files: what the trial wrote to stdout and stderr."""

_problems: dict[str, Problem] = {}  # of this process: the last one, by digest
# Seeds, thread counts and the current device belong to the process: its threads take turns.
_turn = threading.Lock()


def packed(problem: Problem) -> tuple[str, bytes]:
    """Returns the digest and the pickle of a problem.

    Raises:
        TypeError: It cannot be pickled.
    """
    try:
        data: bytes = cloudpickle.dumps(problem)
    except Exception as error:  # whatever a class of the user's raises
        raise TypeError(
            f"the problem cannot be sent to other processes ({type(error).__name__}: {error}): "
            "make or open what cannot be pickled (locks, files, connections) inside the fitness "
            "function"
        ) from error
    return hashlib.sha256(data).hexdigest(), data


def run_remote_trial(digest: str, problem: bytes | None, task: bytes) -> Reply:
    """Returns what came of a trial, as plain data; nothing passes.

    Args:
        digest: Of the problem, which a process that ran a trial of it has still.
        problem: Its pickle. None: it is sent once this process says that it needs it.
        task: Of `encode_task`.
    """
    with _turn:
        if digest not in _problems:
            if problem is None:
                return NEEDS_PROBLEM, b"", {}
            try:
                loaded = cloudpickle.loads(problem)
            except BaseException:  # noqa: BLE001 (whatever it is, the driver must hear of it)
                text = traceback.format_exc()
                return LOAD_ERROR, text.encode(errors="backslashreplace"), {}
            _problems.clear()
            _problems[digest] = loaded
        return _run(_problems[digest], task)


def _run(problem: Problem, data: bytes) -> Reply:
    generators = random.getstate(), np.random.get_state()  # noqa: NPY002 (a trial moves them)
    try:
        task = decode_task(data)
        # A folder of the driver's machine need not be here: what is attached travels back.
        with tempfile.TemporaryDirectory(prefix="evonas-") as folder:
            attachments = None if task.settings.attachments is None else folder
            settings = replace(task.settings, attachments=attachments, output=None)
            with OutputFile(_output_in(folder, task)):
                outcome = run_seeded_trial(problem, replace(task, settings=settings))
            files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        return OUTCOME, encode_outcome(outcome), files
    except BaseException:  # noqa: BLE001 (a full disk, say)
        return OUTCOME, encode_outcome(Outcome(Status.FAILED, error=traceback.format_exc())), {}
    finally:  # in a thread they are the driver's too
        random.setstate(generators[0])
        np.random.set_state(generators[1])  # noqa: NPY002


def _output_in(folder: str, task: Task) -> str | None:
    # stdout belongs to the process: with several threads it would be that of other trials, too.
    is_alone = threading.current_thread() is threading.main_thread()
    return f"{folder}/{PRINTED}" if is_alone and task.settings.output is not None else None
