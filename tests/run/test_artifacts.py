"""What a search leaves of the folders that its trials use."""

from __future__ import annotations

from pathlib import Path

import pytest

import evonas as en


@pytest.mark.parametrize("printed", ["", "a word"])
def test_the_folder_of_outputs_stays_only_where_something_was_printed(
    printed: str, tmp_path: Path
) -> None:
    def fitness(genes: en.Genes, trial: en.Trial) -> float:
        (tmp_path / "output").mkdir(exist_ok=True)  # as a long trial's file for watchers does
        if printed:
            (tmp_path / "output" / "0.txt").write_text(printed)
        return 1.0

    en.evolve({"x": [1, 2]}, fitness, max_evaluations=2, seed=0, run_dir=tmp_path, progress=False)
    assert (tmp_path / "output").exists() == bool(printed)
