"""What a script of a user's meets: `__main__`, Ctrl-C, kills, and what is left over afterwards."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

import evonas as en

SLOW = """
    import os, sys, time
    from pathlib import Path
    import evonas as en

    def fitness(genes, trial):
        Path(f"began{trial.number}").touch()
        %s
        return 1.0

    if __name__ == "__main__":
        en.evolve({"x": en.Integer(0, 99)}, fitness, population=4, generations=2, seed=0,
                  workers=2, run_dir="run", lost_retries=1000)
"""


def test_functions_of_main_lambdas_and_closures_work(script: Any) -> None:
    process = script.start("""
        import evonas as en
        from evonas.execution import ProcessExecutor, Task, TrialSettings

        SCALE = 10

        class Shift:
            def __init__(self, by):
                self.by = by

        def of_main(genes, trial):
            return SCALE * genes["x"] + Shift(1).by

        def closure(by):
            return lambda genes, trial: by.by + genes["x"]

        if __name__ == "__main__":
            def under_the_guard(genes, trial):
                return 7 * genes["x"]

            functions = [of_main, under_the_guard, lambda genes, trial: 3, closure(Shift(5))]

            def each(genes, trial):
                return functions[genes["x"]]({"x": 2}, trial)

            problem = en.FunctionProblem(en.SearchSpace({"x": [0, 1, 2, 3]}), each)
            executor = ProcessExecutor(1)
            executor.start(problem)
            for x in range(4):
                outcome = executor.submit(Task({"x": x}, TrialSettings())).result()
                print(outcome.values, outcome.error)
            executor.shutdown()
    """)
    out, err = process.communicate(timeout=60)
    assert out.splitlines() == ["(21.0,) None", "(14.0,) None", "(3.0,) None", "(7.0,) None"], err


def test_a_script_without_a_guard_is_told_so_at_once(script: Any) -> None:
    process = script.start("""
        import evonas as en
        en.evolve({"x": [1, 2]}, lambda genes, trial: 1.0, population=2, workers=2, run_dir="run")
    """)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.count("Traceback") == 1, err
    assert 'put the call under `if __name__ == "__main__":`' in err.splitlines()[-1]
    assert script.alive() == []


def test_a_script_that_fails_in_workers_only_is_told_so(script: Any) -> None:
    process = script.start("""
        import evonas as en
        if __name__ == "__mp_main__":
            raise OSError("not twice")
        if __name__ == "__main__":
            en.evolve({"x": [1, 2]}, lambda genes, trial: 1.0, population=2, workers=2)
    """)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "OSError: not twice" in err
    assert "ended before it was ready, with exit status 1" in err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("group", [False, True])
def test_a_signal_stops_everything_and_the_run_goes_on(
    script: Any, number: signal.Signals, group: bool
) -> None:
    quick = 'time.sleep(0.01 if trial.number < 2 or Path("go").exists() else 60)'
    process = script.start(SLOW % quick)
    script.await_files("began2", "began3")
    began = time.monotonic()
    if group:  # as a terminal does, or a batch system
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert process.returncode in (-signal.SIGINT, 130)  # as any script stopped by Ctrl-C
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert f"stopped by {name}: 2 evaluations are saved in run" in err.splitlines()[-1]
    assert err.count("Traceback") <= 2, err  # of the driver alone
    script.await_end_of_all(2)
    (script.folder / "go").touch()
    process = script.start(SLOW % quick)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    statuses = [entry.status for entry in en.open_run(script.folder / "run").evaluations]
    assert statuses == [en.Status.OK] * len(statuses)


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once(script: Any) -> None:
    # Workers that take their time to end: the first Ctrl-C waits for them.
    process = script.start(
        SLOW.replace("import evonas as en", "import evonas as en, atexit")
        % "atexit.register(time.sleep, 60); time.sleep(0.01 if trial.number < 2 else 60)"
    )
    script.await_files("began2", "began3")
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    process.communicate(timeout=30)
    assert time.monotonic() - began < 2
    script.await_end_of_all(2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "action",
    ["time.sleep(60)", "time.sleep(60) if os.fork() else time.sleep(61)", "3 ** 3 ** 18"],
    ids=["asleep", "with a child", "with the interpreter's lock"],
)
def test_workers_end_with_a_killed_driver(script: Any, action: str) -> None:
    process = script.start(SLOW % action)
    script.await_files("began0", "began1")
    time.sleep(0.3)
    process.kill()
    process.wait()
    script.await_end_of_all(3)
