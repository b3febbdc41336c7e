"""The runs of a folder, found and told in a line each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import evonas as en
from evonas.cli import main
from evonas.report.listing import find_runs, listed


def search(run_dir: Path, **more: object) -> en.Result:
    return en.evolve(
        {"x": en.Float(0.0, 1.0)}, lambda genes, trial: genes["x"], max_evaluations=5, seed=3,
        run_dir=run_dir, progress=False, **more,
    )  # type: ignore[arg-type]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "deep/er/b"):
        search(tmp_path / name)
        (tmp_path / name / "stats" / "run.db").parent.mkdir()
        (tmp_path / name / "stats" / "run.db").write_text("not looked into")
    (tmp_path / "1/2/3/4/5").mkdir(parents=True)
    search(tmp_path / "1/2/3/4/5/too deep")
    os.symlink(tmp_path / "a", tmp_path / "link")
    os.utime(tmp_path / "a" / "run.db", (1e9, 1e9))
    return tmp_path


def test_runs_are_found_the_last_written_first(folder: Path) -> None:
    assert find_runs(folder) == [folder / "deep/er/b", folder / "a"]
    assert find_runs(folder / "a") == [folder / "a"]


def test_a_run_is_told_in_a_line(folder: Path) -> None:
    found = listed(folder / "a")
    result = en.open_run(folder / "a")
    assert found.best == (("fitness", result.champion.fitness),)
    assert (found.trained, found.seed, found.is_running) == (5, 3, False)
    assert found.state == "finished: max_evaluations 5 is used up"
    assert found.changed_at == 1e9


def test_what_cannot_be_read_says_why(folder: Path) -> None:
    (folder / "a" / "run.db").write_text("not a database, but as long as one may well be")
    assert "damaged" in listed(folder / "a").state


def test_the_command_lists_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["trained", "time", "best", "strategy", "state", "run"]
    assert [Path(line.split()[-1]).name for line in lines[1:]] == ["b", "a"]
    assert all("max_evaluations 5 is used up" in line for line in lines[1:])


def test_a_folder_without_runs_and_none_at_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", str(tmp_path)]) == 0
    assert "no runs in" in capsys.readouterr().out
    assert main(["list", str(tmp_path / "missing")]) == 1
    assert "is no folder" in capsys.readouterr().err


def test_the_command_gives_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert main(["list", str(folder), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)[0]
    assert first["run_dir"] == str(folder / "deep/er/b")
    assert first["trained"] == 5
