"""The page "From Optuna to evonas": its Optuna script runs, and searches what ours does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "from_optuna.md"


@pytest.mark.slow
def test_the_optuna_script_of_the_page_runs(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="pip install -e '.[export]'")
    parts = PAGE.read_text().split("```optuna\n")
    assert len(parts) == 2
    (tmp_path / "page.py").write_text(parts[1].split("```")[0])
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "'n_layers':" in done.stdout
    assert (tmp_path / "demo.db").is_file()
