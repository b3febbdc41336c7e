"""The example on texts, with tables that the test makes."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

import evonas as en

EXAMPLE = Path(__file__).parents[2] / "examples" / "sst2_transformer.py"
SIZES = ["--evaluations", "3", "--epochs", "2", "--final-epochs", "6", "--workers", "1"]


def write_table(path: Path, n: int, seed: int) -> None:
    rng = random.Random(seed)
    rows = ["sentence\tlabel"]
    for _ in range(n):
        label = rng.randrange(2)
        words = [f"w{rng.randrange(500)}" for _ in range(rng.randint(2, 8))]
        words.insert(rng.randrange(len(words)), ["dull", "fine"][label])
        rows.append(" ".join(words) + f"\t{label}")
    path.write_text("\n".join(rows) + "\n")


def test_it_searches_trains_and_says_what_no_search_reaches(tmp_path: Path) -> None:
    write_table(tmp_path / "train.tsv", 400, 0)
    write_table(tmp_path / "test.tsv", 80, 1)
    run = tmp_path / "run"
    command = [sys.executable, str(EXAMPLE), "--data", str(tmp_path), "--run-dir", str(run), *SIZES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"(hand-made|champion), .*: test accuracy (0\.\d+|1\.0+)", done.stdout))
    assert float(found["hand-made"]) > 0.75
    assert 0 <= float(found["champion"]) <= 1
    assert en.open_run(run).counts.evaluated == 3
    assert (run / "ga-champ-transformer-champion.pt").is_file()


@pytest.mark.parametrize(
    ("broken", "message"),
    [(None, "train.tsv cannot be read as a table"), ("text\tlabel\na\t1\n", "column 'sentence'")],
)
def test_what_is_no_table_is_said(broken: str | None, message: str, tmp_path: Path) -> None:
    if broken is not None:
        (tmp_path / "train.tsv").write_text(broken)
    command = [sys.executable, str(EXAMPLE), "--data", str(tmp_path), "--run-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
