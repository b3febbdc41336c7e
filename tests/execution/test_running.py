"""The file of a trial under way: only long trials have one, and it goes when they end."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import evonas as en
from evonas.execution.running import RunningFile, read_running
from evonas.execution.trial import TrialSettings
from evonas.records import EpochMetrics


def reported(run_dir: Path, *seconds: float, output: bool = True) -> RunningFile:
    text = str(run_dir / "output" / "7.txt") if output else None
    running = RunningFile({"x": 1}, TrialSettings(number=7, device="cpu", output=text))
    for epoch, at in enumerate(seconds):
        running(EpochMetrics(epoch, at, {"loss": at}))
    return running


def test_a_short_trial_leaves_no_file(tmp_path: Path) -> None:
    reported(tmp_path, 0.1, 0.5, 0.99)
    assert list(tmp_path.iterdir()) == []


def test_a_long_trial_writes_what_it_reported_once_a_second(tmp_path: Path) -> None:
    running = reported(tmp_path, 0.5, 1.2, 1.7)
    (told,) = read_running(tmp_path)
    assert (told["number"], told["genes"], told["device"]) == (7, {"x": 1}, "cpu")
    assert told["epochs"] == [[0, 0.5, {"loss": 0.5}], [1, 1.2, {"loss": 1.2}]]
    running(EpochMetrics(3, 2.3, {"loss": 0.0}))
    assert len(read_running(tmp_path)[0]["epochs"]) == 4
    running.remove()
    assert list((tmp_path / "output").iterdir()) == []


def test_thousands_of_reports_stay_a_small_file(tmp_path: Path) -> None:
    reported(tmp_path, *(float(at) for at in range(3_000)))
    (told,) = read_running(tmp_path)
    assert 150 < len(told["epochs"]) <= 401
    assert told["epochs"][-1][0] == 2_999


def test_without_a_directory_nothing_is_kept(tmp_path: Path) -> None:
    heard: list[int] = []
    running = RunningFile({}, TrialSettings(), lambda row: heard.append(row.epoch))
    running(EpochMetrics(0, 5.0, {}))
    assert (heard, list(tmp_path.iterdir())) == ([0], [])


def test_a_disk_that_takes_nothing_costs_no_training(tmp_path: Path) -> None:
    (tmp_path / "output").write_text("a file where the folder should be")
    reported(tmp_path, 2.0).remove()
    assert read_running(tmp_path) == []


@pytest.mark.parametrize("text", ["", "[]", '{"number": true}'])
def test_what_is_none_of_ours_is_left_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "1.running.json").write_text(text)
    assert read_running(tmp_path) == []


def reports_and_dies(genes: object, trial: en.Trial) -> float:
    trial.report(accuracy=0.5)
    time.sleep(1.1)
    trial.report(accuracy=0.6)
    (file,) = Path(str(trial.settings.output)).parent.glob("*.running.json")
    assert file.is_file()
    os._exit(3)


def test_of_a_trial_whose_worker_died_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(en.TooManyFailures):
        en.evolve(
            {"x": [1]}, reports_and_dies, max_evaluations=1, run_dir=tmp_path, workers=2,
            lost_retries=0,
        )  # fmt: skip
    (entry,) = en.open_run(tmp_path).evaluations
    assert entry.status is en.Status.LOST
    assert [row.metrics["accuracy"] for row in entry.epochs] == [0.5, 0.6]
    assert not list((tmp_path / "output").glob("*.running.json"))
