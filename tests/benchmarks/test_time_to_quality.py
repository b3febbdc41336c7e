"""The benchmark of what a search finds by when."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import evonas as en
from benchmarks import time_to_quality as benchmark
from benchmarks.time_to_quality import Outcome


def entry(number: int, began: float, seconds: float, value: float | None, **other: Any) -> Any:
    status = other.pop("status", en.Status.OK if value is not None else en.Status.FAILED)
    values = () if value is None else (value,)
    return en.Evaluation(number, str(number), {}, status, values, seconds=seconds, started_at=began)


def test_seconds_go_on_where_an_earlier_start_stopped() -> None:
    result: Any = SimpleNamespace(
        sessions=[{"started_at": 1000.0, "seconds": 20.0}, {"started_at": 5000.0, "seconds": 30.0}],
        evaluations=[
            entry(0, 1002.0, 8.0, 0.3),
            entry(1, 1002.0, 4.0, 0.2),
            entry(2, 1010.0, 9.0, 0.25),
            entry(3, 5001.0, 5.0, 0.5),
            entry(4, 5002.0, 3.0, 0.9, status=en.Status.PRUNED),
            entry(5, 5006.0, 2.0, None),
            entry(6, 5008.0, 0.0, None, status=en.Status.INVALID),
            entry(7, 5008.0, 30.0, 0.99),  # 58 seconds: after the budget
        ],
    )
    found = benchmark.outcome_of(result, 50.0)
    assert found == Outcome(((6.0, 0.2), (10.0, 0.3), (26.0, 0.5)), trained=6, pruned=1, failed=1)
    assert [found.best_at(moment) for moment in (6.0, 25.9, 50.0)] == [0.2, 0.3, 0.5]
    assert math.isnan(found.best_at(5.9))


def test_the_table() -> None:
    def run(*steps: tuple[float, float]) -> Outcome:
        return Outcome(steps, trained=len(steps), pruned=1, failed=0)

    runs = {
        "published": [run((5.0, 0.2), (90.0, 0.4)), run((30.0, 0.3))],
        "surrogate": [run((40.0, 0.5)), run((60.0, 0.2))],
        "surrogate + pruning": [run((25.0, 0.4)), run((10.0, 0.1), (100.0, 0.5))],
    }
    lines = benchmark.table(runs, 100.0).splitlines()
    cells = {line.split("  ")[0]: re.findall(r"\S+ ± \S+(?: \(n=1\))?", line) for line in lines}
    assert cells["published"][:4] == [
        "0.2000 ± nan (n=1)", "0.2500 ± 0.0707", "0.2500 ± 0.0707", "0.3500 ± 0.0707",
    ]  # fmt: skip
    assert re.search(r"^surrogate  +- ", lines[3])
    assert lines[-2].endswith("paired by seed: +0.0000 ± 0.1414; reaches its end after 40%,"
                              " more than 100% of the budget")  # fmt: skip
    assert lines[-1].endswith("after 25%, 100% of the budget")


def test_the_published_proportions() -> None:
    assert [benchmark.scaled_population(n) for n in (1250, 40, 2)] == [50, 9, 4]


@pytest.mark.slow
def test_a_tiny_benchmark_stops_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'evonas[bench]'")
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    text = (
        "--seconds 8 --seeds 1 --train-samples 100 --val-samples 50 --epochs 2 --batch-size 32"
        " --workers 1 --expected 8 --precision float32"
    )
    argv = [*text.split(), "--out", str(tmp_path / "runs"), "--plot", str(tmp_path / "curves.svg")]
    begin = benchmark._in_another_process
    calls = itertools.count()

    def stopped(*arguments: Any) -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt
        begin(*arguments)

    monkeypatch.setattr(benchmark, "_in_another_process", stopped)
    with pytest.raises(KeyboardInterrupt):
        benchmark.main(argv)
    assert len(list((tmp_path / "runs").glob("*/run.db"))) == 1
    capsys.readouterr()
    monkeypatch.setattr(benchmark, "_in_another_process", begin)
    benchmark.main(argv)
    printed = capsys.readouterr().out
    assert len(re.findall("^seed 0", printed, re.MULTILINE)) == 2  # the first is not run again
    assert "surrogate + pruning minus published at the end" in printed
    assert (tmp_path / "curves.svg").stat().st_size > 5_000
    with pytest.raises(SystemExit, match="was begun with --epochs 2, here 3: name another --out"):
        benchmark.main([*argv, "--epochs", "3"])
