from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.cli import main
from evonas.testing import ProcessKilled, RoughProblem, dies_at_commit, noisy, quadratic_space


def search(run_dir: Path, **changes: Any) -> en.Result:
    arguments: dict[str, Any] = {"population": 12, "generations": 3, "elite": 1, "seed": 1}
    arguments |= {"max_consecutive_failures": 1000, "run_dir": run_dir}
    return en.evolve(RoughProblem(), **(arguments | changes))


def test_show_prints_state_counts_champion_and_hall(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = search(tmp_path)
    before = sorted((path.name, path.read_bytes()) for path in tmp_path.glob("run.db"))
    assert main(["show", str(tmp_path)]) == 0
    shown, errors = capsys.readouterr()
    assert errors == ""
    lines = shown.splitlines()
    counts = result.counts
    assert f"run         {tmp_path}" in lines
    assert "state       finished: 3 generations are done" in lines
    assert "strategy    Generational, seed 1" in lines
    assert "generations 3" in lines
    assert (
        f"trained     {counts.evaluated}  (reused {counts.reused}, invalid "
        f"{counts.by_status['invalid']}, failed {counts.failed})"
    ) in lines
    assert f"  failed        {counts.by_status['failed']}" in lines
    assert f"  diverged      {counts.by_status['diverged']}" in lines
    champion = result.champion
    assert f"champion    number {champion.number}, fitness {champion.fitness:.4g}" in lines
    for name, value in champion.genes.items():
        assert any(line.split() == [name, str(value)] for line in lines)
    assert len(lines) - lines.index("hall of fame") - 2 == len(result.hall_of_fame)
    assert sorted((path.name, path.read_bytes()) for path in tmp_path.glob("run.db")) == before


def test_show_json_is_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = search(tmp_path)
    assert main(["show", "--json", str(tmp_path)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["counts"] == {**result.counts.by_status, "reused": result.counts.reused}
    assert shown["champion"]["genes"] == result.champion.genes
    assert [entry["key"] for entry in shown["hall_of_fame"]] == [
        entry.key for entry in result.hall_of_fame
    ]
    assert (shown["outcome"], shown["seed"], shown["rows"]) == ("finished", 1, 3)
    assert shown["confirmed"] == []


def test_show_a_confirmed_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def sometimes(genes: Any, trial: en.Trial) -> float:
        if trial.seed % 3 == 0 and breaks:
            raise RuntimeError("breaks")
        return noisy(genes, trial)

    breaks: list[int] = []
    problem = en.FunctionProblem(quadratic_space(), sometimes)
    en.evolve(problem, population=6, generations=2, elite=1, seed=0, run_dir=tmp_path)
    breaks.append(1)
    confirmed = en.confirm(problem, tmp_path, top=6, repeats=1)
    assert any(not entry.values for entry in confirmed)
    assert main(["show", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "repeated on fresh seeds" in shown
    assert f"champion    number {confirmed[0].evaluation.number}," in shown
    assert main(["show", "--json", str(tmp_path)]) == 0
    data = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert [entry["mean"] for entry in data["confirmed"]] == [
        entry.mean if entry.values else None for entry in confirmed
    ]


def test_show_a_run_that_was_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ProcessKilled), dies_at_commit(9):
        search(tmp_path)
    assert main(["show", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "state       killed (the same command goes on)" in shown
    assert "generations 0" in shown
    assert main(["show", "--json", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["running"] is False


def test_show_a_run_that_is_running(tmp_path: Path) -> None:
    show = [sys.executable, "-c", "from evonas.cli import main; main()", "show", str(tmp_path)]
    seen = []

    class Shows(en.Observer):
        def on_evaluation(self, evaluation: en.Evaluation, best: en.Evaluation | None) -> None:
            if evaluation.number == 3:
                main(["show", str(tmp_path)])  # in the driver's own process: the lock must hold
                done = subprocess.run(show, capture_output=True, text=True, timeout=60, check=True)
                seen.append(done.stdout)

    search(tmp_path, callbacks=[Shows()])
    assert "state       running\n" in seen[0]


def test_show_where_the_system_does_not_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProcessKilled), dies_at_commit(9):
        search(tmp_path)
    monkeypatch.setattr("evonas.cli.is_held", lambda path: None)
    assert main(["show", str(tmp_path)]) == 0
    assert "state       running, or killed (the same command" in capsys.readouterr().out


def test_show_a_run_without_a_fitness(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ProcessKilled), dies_at_commit(3):
        search(tmp_path)
    assert main(["show", str(tmp_path)]) == 0
    assert "no evaluation has a fitness yet" in capsys.readouterr().out
    assert main(["show", "--json", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["champion"] is None


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: None, "evonas: .* holds no run: there is no run.db in it"),
        (lambda path: (path / "run.db").write_text("x" * 5000), "evonas: .*run.db is damaged"),
        (lambda path: (path / "run.db").touch(), "evonas: .*run.db is not an evonas run database"),
    ],
)
def test_show_says_what_is_wrong(
    prepare: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    prepare(tmp_path)
    assert main(["show", str(tmp_path)]) == 1
    shown, errors = capsys.readouterr()
    assert shown == ""
    assert re.match(message, errors)
    assert errors.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["show"], ["tell", "x"], ["show", "x", "--yaml"]])
def test_wrong_arguments_end_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: evonas" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["-h"], ["show", "-h"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    assert "usage: evonas" in capsys.readouterr().out


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    search(tmp_path)
    code = f"import sys; from evonas.cli import main; sys.exit(main(['show', {str(tmp_path)!r}]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()  # as `| head` does
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


def test_report_writes_a_page_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search(tmp_path / "run")
    assert main(["report", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'run' / 'report.html'}\n"
    page = tmp_path / "mine.html"
    assert main(["report", str(tmp_path / "run"), "-o", str(page)]) == 0
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert main(["report", str(tmp_path)]) == 1
    assert "holds no run" in capsys.readouterr().err
