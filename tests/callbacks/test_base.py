from __future__ import annotations

import io
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.callbacks import Counts, ProgressBar, RunInfo, format_duration
from evonas.callbacks.progress import is_watched
from evonas.records import Evaluation, Status
from evonas.run.store import RunReader
from evonas.testing import Flaky, RoughProblem, onemax, onemax_space, trace

SMALL: dict[str, Any] = {"population": 5, "generations": 3, "elite": 1, "seed": 0}


class Notes(en.Observer):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def on_start(self, info: RunInfo) -> None:
        self.info = info
        self.heard.append(("start", info.resumed))

    def on_evaluation(self, evaluation: Evaluation, best: Evaluation | None) -> None:
        self.heard.append(("evaluation", (evaluation, best)))

    def on_row(self, row: Any) -> None:
        self.heard.append(("row", dict(row)))

    def on_end(self, reason: str) -> None:
        self.heard.append(("end", reason))

    def all(self, kind: str) -> list[Any]:
        return [what for name, what in self.heard if name == kind]


def test_an_observer_hears_everything_in_order() -> None:
    notes = Notes()
    result = en.evolve(RoughProblem(), callbacks=[notes], max_consecutive_failures=99, **SMALL)
    kinds = [kind for kind, _ in notes.heard]
    assert (kinds[0], kinds[-1]) == ("start", "end")
    assert kinds.count("start") == kinds.count("end") == 1
    heard = sorted((entry for entry, _ in notes.all("evaluation")), key=lambda entry: entry.number)
    assert heard == list(result.evaluations)
    assert notes.all("row") == [dict(row) for row in result.logbook]
    assert notes.all("end") == ["3 generations are done"]
    best = None
    for entry, told in notes.all("evaluation"):
        if entry.status is Status.OK and (best is None or entry.values[0] > best.values[0]):
            best = entry
        assert told == best
    assert best == result.champion


def test_what_it_hears_is_committed_already(tmp_path: Path) -> None:
    class Looks(en.Observer):
        n_looks = 0

        def on_evaluation(self, evaluation: Evaluation, best: Evaluation | None) -> None:
            with RunReader.open(tmp_path) as reader:
                assert reader.evaluation(evaluation.number) == evaluation
            self.n_looks += 1

        def on_row(self, row: Any) -> None:
            with RunReader.open(tmp_path) as reader:
                assert reader.logbook()[-1] == row
            self.n_looks += 1

    looks = Looks()
    result = en.evolve(onemax_space(), onemax, callbacks=[looks], run_dir=tmp_path, **SMALL)
    assert looks.n_looks == len(result.evaluations) + 3


def test_the_start_says_what_is_known(tmp_path: Path) -> None:
    first, second = Notes(), Notes()
    en.evolve(onemax_space(), onemax, callbacks=[first], run_dir=tmp_path, **SMALL)
    info = first.info
    assert (info.run_dir, info.strategy, info.generations) == (tmp_path, "Generational", 3)
    assert info.max_evaluations == 5 + 2 * 4
    assert info.objectives == (en.Objective("fitness"),)
    assert (info.resumed, info.best) == (False, None)
    longer = SMALL | {"generations": 5}
    result = en.evolve(
        onemax_space(), onemax, callbacks=[second], run_dir=tmp_path, max_evaluations=15, **longer
    )
    assert second.info.resumed
    assert second.info.max_evaluations == 15
    assert second.info.best is not None
    assert second.info.counts == result.counts  # kept up to date
    assert len(second.all("row")) == len(result.logbook) - 3


def test_the_counts_are_kept_while_failures_are_tried_again(tmp_path: Path) -> None:
    def fitness(genes: Any, trial: en.Trial) -> float:
        if broken:
            raise RuntimeError("broken")
        return onemax(genes, trial)

    def search() -> en.Result:
        return en.evolve(
            onemax_space(2), fitness, strategy=en.Generational(8, elite=1, novelty_tries=0),
            generations=4, seed=0, run_dir=tmp_path, callbacks=[notes], max_consecutive_failures=3,
        )  # fmt: skip

    notes, broken = Notes(), True
    with pytest.raises(en.TooManyFailures, match="broken"):
        search()
    assert notes.info.counts.reused > 0
    broken = False
    result = search()
    assert notes.info.counts == result.counts


@pytest.mark.parametrize("method", ["on_start", "on_evaluation", "on_row", "on_end"])
def test_an_observer_that_raises_is_switched_off(method: str) -> None:
    class Broken(Notes):
        n_raised = 0

    def breaks(self: Broken, *arguments: Any) -> None:
        self.n_raised += 1
        raise OSError("no space for my notes")

    setattr(Broken, method, breaks)
    broken, sound = Broken(), Notes()
    message = "observer Broken is switched off after an error: OSError: no space for my notes"
    with pytest.warns(RuntimeWarning, match=message):
        result = en.evolve(onemax_space(), onemax, callbacks=[broken, sound], **SMALL)
    assert broken.n_raised == 1
    assert sound.all("end") == ["3 generations are done"]
    assert len(sound.all("evaluation")) == len(result.evaluations)
    undisturbed = en.evolve(onemax_space(), onemax, **SMALL)
    assert trace(result) == trace(undisturbed)
    if method == "on_evaluation":
        assert broken.heard == [("start", False)]  # and nothing after


def test_ctrl_c_in_an_observer_stops_the_search(tmp_path: Path) -> None:
    class Stops(en.Observer):
        def on_evaluation(self, evaluation: Evaluation, best: Evaluation | None) -> None:
            if evaluation.number == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="stopped by Ctrl-C: 3 evaluations are saved"):
        en.evolve(onemax_space(), onemax, callbacks=[Stops()], run_dir=tmp_path, **SMALL)
    whole = en.evolve(onemax_space(), onemax, run_dir=tmp_path / "whole", **SMALL)
    again = en.evolve(onemax_space(), onemax, run_dir=tmp_path, **SMALL)
    assert trace(again) == trace(whole)


def test_the_end_is_told_whatever_the_end() -> None:
    notes = Notes()
    with pytest.raises(en.TooManyFailures, match="2 evaluations in a row failed"):
        en.evolve(
            onemax_space(), Flaky(rate=1.0), callbacks=[notes], max_consecutive_failures=2, **SMALL
        )
    assert notes.all("end") == ["too many failures in a row"]


def test_callbacks_must_be_observers() -> None:
    message = "callbacks must be evonas.Observer objects, got function"
    with pytest.raises(TypeError, match=message):
        en.evolve(onemax_space(), onemax, callbacks=[lambda record: None])  # type: ignore[list-item]


# -- progress ----------------------------------------------------------------------------------


def test_a_line_per_generation() -> None:
    rows = io.StringIO()
    en.evolve(
        onemax_space(12), Flaky(rate=0.1), callbacks=[ProgressBar(bar=False, rows=rows)], **SMALL
    )
    lines = rows.getvalue().splitlines()
    assert (
        lines[0]
        == "evonas: Generational; at most 13 evaluations; in memory only (run_dir= keeps it)"
    )
    lines = [line for line in lines[1:-1] if not line.startswith("evaluation ")]
    assert lines[0].split() == [
        "gen",
        "evaluated",
        "reused",
        "failed",
        "best",
        "mean",
        "time",
        "left",
    ]
    assert [line.split()[0] for line in lines[1:]] == ["0", "1", "2"]
    assert lines[-1].endswith("0 s")


def test_a_generation_without_a_fitness_has_a_line() -> None:
    rows = io.StringIO()

    def late(genes: Any, trial: en.Trial) -> float:
        if trial.number < 5:
            raise RuntimeError("not yet")
        return 1.0

    en.evolve(onemax_space(), late, callbacks=[ProgressBar(bar=False, rows=rows)], **SMALL)
    (first,) = (line for line in rows.getvalue().splitlines() if line.startswith("   0 "))
    assert first.split()[:6] == ["0", "5", "0", "5", "-", "-"]


def test_the_bar_counts_evaluations(capsys: pytest.CaptureFixture[str]) -> None:
    en.evolve(
        RoughProblem(), callbacks=[ProgressBar(bar=True)], max_consecutive_failures=99, **SMALL
    )
    shown = capsys.readouterr().err
    assert "evaluations" in shown
    assert re.search(r"\d+/13", shown)
    assert "best=" in shown
    assert "failed=" in shown


def test_a_log_gets_lines_at_growing_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    en.evolve(onemax_space(), onemax, progress=False, **SMALL)
    assert capsys.readouterr() == ("", "")
    result = en.evolve(
        {"x": en.Float(0, 1)}, lambda genes, trial: genes["x"], strategy=en.RandomSearch(),
        max_evaluations=50, seed=0,
    )  # fmt: skip
    shown, errors = capsys.readouterr()
    assert shown == ""
    first, *lines, last = errors.splitlines()
    assert first.startswith("evonas: RandomSearch; at most 50 evaluations; in memory only")
    numbers = [int(line.split()[1]) for line in lines]
    assert numbers == [1, 2, 4, 8, 16, 32]
    assert all(re.search(r" of 50 evaluated, best 0\.\d+, 0 s, 0 s left$", line) for line in lines)
    best = f"{result.champion.fitness:.4g}"
    assert last.startswith(
        f"evonas: max_evaluations 50 is used up: 50 of 50 evaluated, best {best}"
    )


def test_a_slow_search_says_something_each_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("evonas.callbacks.progress.time.monotonic", lambda: now[0])

    def slow(genes: Any, trial: en.Trial) -> float:
        now[0] += 25.0
        return 1.0

    en.evolve({"x": en.Float(0, 1)}, slow, strategy=en.RandomSearch(), max_evaluations=20, seed=0)
    numbers = [int(line.split()[1]) for line in capsys.readouterr().err.splitlines()[1:-1]]
    assert numbers == [1, 2, 4, 7, 8, 11, 14, 16, 19]


def test_the_first_failure_of_each_kind_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    def breaks(genes: Any, trial: en.Trial) -> float:
        if trial.number < 3:
            raise KeyError("b")
        return float("nan") if trial.number < 6 else 1.0

    en.evolve({"x": en.Float(0, 1)}, breaks, max_evaluations=12, seed=0)
    said = [line for line in capsys.readouterr().err.splitlines() if line[:11] == "evaluation "]
    assert len(said) == 2
    assert said[0].startswith("evaluation 0 failed: KeyError: 'b'; the whole text is in")
    assert said[1] == "evaluation 3 diverged: the fitness is nan"


def test_without_a_budget_the_default_one_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    en.evolve({"x": [1, 2, 3]}, lambda genes, trial: 1.0, seed=0)
    first = capsys.readouterr().err.splitlines()[0]
    assert (
        "(25 generations, the default: generations=, max_evaluations= or max_seconds= set" in first
    )


@pytest.mark.parametrize("stream", [None, "closed"])
def test_without_standard_error_a_search_runs_all_the_same(
    stream: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = None
    if stream:
        gone = io.StringIO()
        gone.close()
    monkeypatch.setattr("sys.stderr", gone)
    for progress in (None, True):
        en.evolve(onemax_space(), onemax, progress=progress, **SMALL)


def test_a_notebook_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class ZMQInteractiveShell:
        pass

    module = types.ModuleType("IPython")
    module.get_ipython = ZMQInteractiveShell  # type: ignore[attr-defined]
    assert not is_watched()
    monkeypatch.setitem(sys.modules, "IPython", module)
    assert is_watched()


def info(**changes: Any) -> RunInfo:
    fields: dict[str, Any] = {
        "run_dir": None, "strategy": "Generational", "objectives": (), "max_evaluations": 100,
        "generations": 5, "resumed": False, "counts": Counts({"ok": 0}), "best": None,
    }  # fmt: skip
    return RunInfo(**(fields | changes))


def test_the_time_left_follows_this_starts_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("evonas.callbacks.progress.time.monotonic", lambda: now[0])
    counts = Counts({"ok": 40})
    bar = ProgressBar(bar=False)
    bar.on_start(info(counts=counts, resumed=True))
    assert bar.seconds_left() is None  # nothing measured yet
    counts.by_status["ok"] = 50
    now[0] = 20.0
    assert bar.seconds_left() == pytest.approx(100.0)  # 50 to go, 2 s each
    counts.reused = 50  # of what is proposed half is reused: they take no time
    assert bar.seconds_left() == pytest.approx(0.0)
    unbounded = ProgressBar(bar=False)
    unbounded.on_start(info(max_evaluations=None))
    assert unbounded.seconds_left() is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (93, "1 min 33 s"), (600, "10 min"),
        (3600, "1 h 0 min"), (7300, "2 h 1 min"), (86_400, "1 d 0 h"), (1_209_600, "14 d 0 h"),
    ],
)  # fmt: skip
def test_durations_as_a_person_says_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
