from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import evonas as en
from evonas.execution import Executor, SerialExecutor, Task, TrialSettings, run_trial
from evonas.testing import ExecutorConformance, onemax, onemax_space


class TestSerial(ExecutorConformance):
    def make_executor(self) -> Executor:
        return SerialExecutor()


def test_the_device_is_the_one_given() -> None:
    executor = SerialExecutor("cuda:1")
    assert (executor.device, executor.slots) == ("cuda:1", 1)


def test_ctrl_c_passes_and_the_callers_generators_are_restored() -> None:
    """The one thing that a fitness function raises and that leaves the executor."""

    def interrupts(genes: Any, trial: Any) -> float:
        random.random()
        raise KeyboardInterrupt

    before = random.getstate()
    with pytest.raises(KeyboardInterrupt):
        en.evolve(onemax_space(), interrupts, population=4)
    assert random.getstate() == before


def test_a_bit_generator_of_the_users_own_is_restored() -> None:
    """`numpy.random.seed` and `get_state` know the default one only."""
    own = np.random.PCG64(5)
    default = np.random.get_bit_generator()
    np.random.set_bit_generator(own)
    try:
        before = own.state
        result = en.evolve(onemax_space(), draws, population=4, generations=2, seed=1)
        assert np.random.get_bit_generator() is own
        assert own.state == before
    finally:
        np.random.set_bit_generator(default)
    again = en.evolve(onemax_space(), draws, population=4, generations=2, seed=1)
    assert [entry.values for entry in result.evaluations] == [
        entry.values for entry in again.evaluations
    ]


def draws(genes: Any, trial: Any) -> float:
    return float(np.random.random()) + random.random()  # noqa: NPY002 (as a user might)


def test_run_trial_needs_no_executor() -> None:
    problem = en.FunctionProblem(onemax_space(2), onemax)
    outcome = run_trial(problem, Task({"bit0": True, "bit1": True}, TrialSettings()))
    assert (outcome.status, outcome.values) == (en.Status.OK, (2.0,))


# -- the trial ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "stored"),
    [(1, 1), (0.5, 0.5), (np.float32(0.5), 0.5), (np.int64(3), 3.0), (True, True)],
)
def test_report_takes_any_number(value: Any, stored: Any) -> None:
    trial = en.Trial()
    trial.report(loss=value)
    assert trial.history[0].metrics == {"loss": stored}


@pytest.mark.parametrize("value", [None, "a word", [1], object()])
def test_report_takes_nothing_else(value: Any) -> None:
    trial = en.Trial()
    with pytest.raises(TypeError, match=r"trial.report\(loss=...\) must be a number, got"):
        trial.report(loss=value)
    assert trial.history == ()


def test_epochs_are_numbered_and_timed() -> None:
    heard = []
    trial = en.Trial(on_report=heard.append)
    for loss in (2.0, 1.0):
        trial.report(loss=loss)
    assert [row.epoch for row in trial.history] == [0, 1]
    assert 0.0 <= trial.history[0].seconds <= trial.history[1].seconds <= trial.seconds
    assert tuple(heard) == trial.history


@pytest.mark.parametrize(
    ("value", "stored"),
    [(3, 3), ("text", "text"), ([1, {"a": None}], [1, {"a": None}]), (np.float64(2.0), 2.0)],
)
def test_record_takes_json(value: Any, stored: Any) -> None:
    trial = en.Trial()
    trial.record(params="first")
    trial.record(params=value)
    assert trial.metrics == {"params": stored}


@pytest.mark.parametrize("value", [object(), {1, 2}, np.zeros(3), b"bytes"])
def test_record_takes_nothing_else(value: Any) -> None:
    with pytest.raises(TypeError, match="the metric 'params' must be JSON .* got "):
        en.Trial().record(params=value)


def test_would_be_best() -> None:
    assert en.Trial(TrialSettings(best=None)).would_be_best(-9.0)
    up = en.Trial(TrialSettings(best=0.5, maximise=True))
    assert (up.would_be_best(0.6), up.would_be_best(0.5), up.would_be_best(0.4)) == (
        True, False, False,
    )  # fmt: skip
    down = en.Trial(TrialSettings(best=0.5, maximise=False))
    assert (down.would_be_best(0.6), down.would_be_best(0.5), down.would_be_best(0.4)) == (
        False, False, True,
    )  # fmt: skip


def test_attach(tmp_path: Any) -> None:
    assert not en.Trial().attach("weights", lambda path: pytest.fail("nothing is kept"))
    trial = en.Trial(TrialSettings(attachments=str(tmp_path / "new")))
    assert trial.attach("weights", lambda path: path.write_text("w") and None)
    assert (tmp_path / "new" / "weights").read_text() == "w"
    for name in ("", "../up", "a/b", "/abs"):
        with pytest.raises(ValueError, match="attachment name must be a plain file name, got"):
            trial.attach(name, lambda path: pytest.fail("must not be called"))
