from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.cli import main
from evonas.report.state import read_state
from evonas.testing import (
    ProcessKilled,
    dies_at_commit,
    noisy,
    onemax,
    onemax_space,
    quadratic_space,
)

Search = Callable[..., en.Result]


def pair(shown: str, name: str) -> str:
    """The value beside a name."""
    return re.search(rf"^ *{name} +(.*)$", shown, re.M)[1]


def test_state_counts_champion_and_hall(
    ended: en.Result, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["show", str(ended.run_dir)]) == 0
    shown, errors = capsys.readouterr()
    assert errors == ""
    counts = ended.counts
    assert pair(shown, "run") == str(ended.run_dir)
    assert pair(shown, "state") == "finished: 3 generations are done"
    assert pair(shown, "strategy") == "Generational, seed 1"
    assert pair(shown, "objective") == "fitness (max)"
    assert pair(shown, "generations") == "3"
    assert pair(shown, "trained") == (
        f"{counts.evaluated}  (reused {counts.reused}, invalid {counts.by_status['invalid']}, "
        f"failed {counts.failed})"
    )
    assert pair(shown, "failed") == str(counts.by_status["failed"])
    assert pair(shown, "diverged") == str(counts.by_status["diverged"])
    assert pair(shown, "next") == "nothing"
    assert "\nto go on, run the same command with a larger budget\n" in shown
    assert "evonas resume" not in shown
    champion = ended.champion
    assert f"champion    number {champion.number}, fitness {champion.fitness:.4g}" in shown
    for name, value in champion.genes.items():
        assert pair(shown, name) == (f"{value:.6g}" if isinstance(value, float) else str(value))
    hall = shown.split("hall of fame\n")[1].splitlines()[1:]
    assert [line.split()[-1] for line in hall] == [e.key[:12] for e in ended.hall_of_fame]
    assert [int(line.split()[0]) for line in hall] == [e.number for e in ended.hall_of_fame]


@pytest.mark.parametrize("columns", [20, 160])
def test_a_pipe_gets_no_colours_no_blanks_and_nothing_in_two(
    columns: int,
    ended: en.Result,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["show", str(ended.run_dir)]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert all(line == line.rstrip() for line in shown.splitlines())
    assert pair(shown, "run") == str(ended.run_dir)
    assert pair(shown, "state") == "finished: 3 generations are done"
    assert all(entry.key[:12] in shown for entry in ended.hall_of_fame)


def test_json_is_for_programs(ended: en.Result, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "--json", str(ended.run_dir)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["counts"] == {**ended.counts.by_status, "reused": ended.counts.reused, "copied": 0}
    assert shown["champion"]["genes"] == ended.champion.genes
    assert [entry["key"] for entry in shown["hall_of_fame"]] == [e.key for e in ended.hall_of_fame]
    assert (shown["outcome"], shown["seed"], shown["rows"]) == ("finished", 1, 3)
    assert (shown["confirmed"], shown["starts"], shown["running"]) == ([], 1, False)
    assert shown["next"]["asked"] == []
    assert shown["next"]["command"] == ended.sessions[-1]["environment"]["command"]


def test_a_confirmed_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def sometimes(genes: Any, trial: en.Trial) -> float:
        if trial.seed % 2 == 0 and breaks:
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


def test_two_objectives_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objectives = [en.Objective("value"), en.Objective("cost", "min")]
    en.evolve(
        {"x": [1, 2, 3, 4, 5, 6], "y": [1, 2, 3, 4]},
        lambda genes, trial: (genes["x"] / 7, genes["y"] * 1.5),
        objectives=objectives, strategy=en.NSGA2(8), generations=2, seed=0, run_dir=tmp_path,
    )  # fmt: skip
    assert main(["show", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert pair(shown, "objectives") == "value (max), cost (min)"
    assert re.search(r"champion    number \d+, value 0\.8571, cost [\d.]+\n", shown)
    assert re.search(r"number +value +cost +seconds +key", shown)
    assert "hall of fame" not in shown
    front = en.open_run(tmp_path).pareto_front
    title, heads, *rows = shown[shown.index("Pareto front, ") :].splitlines()
    words = "that no other beats in one objective without losing in another"
    assert title == f"Pareto front, {len(front)} {words}"
    assert heads.split() == ["number", "value", "cost", "seconds", "key"]
    assert [int(row.split()[0]) for row in rows] == [entry.number for entry in front]
    assert main(["show", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [entry["number"] for entry in told["pareto_front"]] == [e.number for e in front]


def test_a_run_that_was_killed_says_what_is_open(
    tmp_path: Path, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ProcessKilled), dies_at_commit(9):
        search(tmp_path)
    result = en.open_run(tmp_path)
    done = {entry.number for entry in result.evaluations}
    asked = sorted({p.evaluation for p in result.proposals} - done)
    assert asked
    assert main(["show", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert pair(shown, "state") == "killed"
    assert pair(shown, "generations") == "0"
    assert pair(shown, "trained").startswith(f"{result.counts.evaluated} of at most 34  (reused ")
    assert pair(shown, "left") == "3 generations"
    listed = ", ".join(map(str, asked[:12]))
    expected = f"number {listed} of generation 0, asked for and not finished"
    assert pair(shown, "next") == expected
    recipe = f"\nto go on, run the same command again, or\n  evonas resume {tmp_path}\n"
    assert recipe in shown
    assert main(["show", "--json", str(tmp_path)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["running"], data["next"]["asked"]) == (False, asked)


def test_a_run_that_is_running(tmp_path: Path, search: Search) -> None:
    show = [sys.executable, "-c", "from evonas.cli import main; main()", "show", str(tmp_path)]
    seen = []

    class Shows(en.Observer):
        def on_evaluation(self, evaluation: en.Evaluation, best: en.Evaluation | None) -> None:
            if evaluation.number == 3:
                main(["show", str(tmp_path)])  # in the driver's own process: the lock must hold
                done = subprocess.run(show, capture_output=True, text=True, timeout=60, check=True)
                seen.append(done.stdout)

    search(tmp_path, callbacks=[Shows()], max_evaluations=20, generations=None)
    assert pair(seen[0], "state") == "running"
    assert re.match(r"\d+ of 20  ", pair(seen[0], "trained"))
    assert re.match(r"1\d evaluations, about [\d.]+ s at this pace", pair(seen[0], "left"))
    assert "to go on" not in seen[0]


def test_where_the_system_does_not_tell(
    tmp_path: Path,
    search: Search,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ProcessKilled), dies_at_commit(9):
        search(tmp_path)
    monkeypatch.setattr("evonas.report.state.is_held", lambda path: None)
    assert main(["show", str(tmp_path)]) == 0
    assert pair(capsys.readouterr().out, "state") == "running, or killed"


def test_a_run_without_a_fitness(
    tmp_path: Path, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ProcessKilled), dies_at_commit(3):
        search(tmp_path)
    assert main(["show", str(tmp_path)]) == 0
    assert "no evaluation has a fitness yet" in capsys.readouterr().out
    assert main(["show", "--json", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["champion"] is None


def test_watch_shows_each_change_and_ends_with_the_search(
    tmp_path: Path,
    search: Search,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The search goes on while the command sleeps; without it, it would watch for ever."""
    with pytest.raises(ProcessKilled), dies_at_commit(9):
        search(tmp_path)
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            search(tmp_path)

    monkeypatch.setattr("evonas.cli.show.time.sleep", nap)
    # The run of another process, which goes on until the second nap.
    monkeypatch.setattr("evonas.report.state.is_held", lambda path: len(naps) < 2)
    assert main(["show", str(tmp_path), "--watch", "--every", "7", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert naps == [7.0, 7.0]
    assert [line["outcome"] for line in lines] == [None, "finished"]  # nothing new in between
    assert [line["running"] for line in lines] == [True, False]


def test_watch_on_a_terminal_leaves_the_last_state(
    ended: en.Result, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert main(["show", str(ended.run_dir), "--watch"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" in shown
    assert shown.count("hall of fame") >= 1


def test_the_budget_that_is_left_is_shown_where_it_is_on_record(
    ended: en.Result, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended.run_dir is not None
    state = read_state(ended.run_dir)
    environment = state.result.sessions[-1]["environment"]
    environment["budget"] = {"generations": 10, "max_evaluations": 25, "max_seconds": None}
    left = {"generations": 7, "max_evaluations": max(0, 25 - ended.counts.evaluated)}
    assert state.budget_left() == left
    del environment["budget"]
    assert state.budget_left() == {}


def test_a_run_that_prepares_itself_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []
    errors: list[str] = []

    class Slow(en.FunctionProblem):
        preparation = "measuring something"

        def configure(self, stored: Any) -> dict[str, Any]:
            if stored is None:
                for options in ([], ["--json"]):
                    assert main(["show", str(tmp_path), *options]) == 0
                    shown, said = capsys.readouterr()
                    seen.append(shown)
                    errors.append(said)
            return {}

    problem = Slow(onemax_space(), onemax)
    en.evolve(problem, max_evaluations=2, seed=0, run_dir=tmp_path)
    assert errors[0] == "evonas: preparing: measuring something\n"
    capsys.readouterr()
    text, as_json = seen
    assert text.startswith(f"{tmp_path}: preparing (measuring, checking")
    assert json.loads(as_json)["state"].startswith("preparing")
    assert main(["show", str(tmp_path)]) == 0
    en.evolve(problem, max_evaluations=3, run_dir=tmp_path)
    assert "preparing" not in capsys.readouterr().err, "only a run that begins"
