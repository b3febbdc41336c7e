"""The notebooks run from the first cell to the last, with one worker and with two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted(Path(__file__).parents[2].joinpath("examples", "notebooks").glob("*.ipynb"))


def run(path: Path, n_workers: int, folder: Path) -> Any:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(path, as_version=4)
    code = notebook.cells[1]
    assert code.source.count("WORKERS = 1") == 1
    code.source = code.source.replace("WORKERS = 1", f"WORKERS = {n_workers}")
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(folder)}}
    )
    return client.execute()


def outputs(notebook: Any, kind: str) -> list[str]:
    """What was shown in a format, in order; for "stdout" what was printed."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.get("name") == kind:
                found.append(output.text)
            elif kind in output.get("data", {}):
                found.append(output.data[kind])
    return found


def test_there_are_notebooks_and_they_are_committed_without_outputs() -> None:
    nbformat = pytest.importorskip("nbformat")
    assert [path.stem for path in NOTEBOOKS] == ["own_model", "quick_start", "recipe"]
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        assert not any(cell.get("outputs") for cell in notebook.cells)
        assert notebook.cells[0].cell_type == "markdown"


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [1, 2])
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, n_workers: int, tmp_path: Path) -> None:
    notebook = run(path, n_workers, tmp_path)
    (view,) = [text for text in outputs(notebook, "text/html") if "champion" in text]
    assert "<svg" in view
    printed = "".join(outputs(notebook, "stdout"))
    expected = {
        "quick_start": "which explains", "own_model": "0.", "recipe": "against full fine-tuning",
    }  # fmt: skip
    assert expected[path.stem] in printed or "* full fine-tuning" in printed
