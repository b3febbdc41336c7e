from __future__ import annotations

import json
from pathlib import Path

import pytest

import evonas as en
from evonas.cli import main


def test_code_by_number_key_and_word(
    classified: en.Result, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = classified.run_dir
    assert run is not None
    champion = classified.champion
    code = (run / "ga_architecture" / f"ga-alexnet-{champion.number}.py").read_text()
    for wanted in ("champion", str(champion.number), champion.key[:12], champion.key):
        assert main(["source", str(run), wanted]) == 0
        assert capsys.readouterr().out == code
    assert main(["source", str(run), "champion", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["source"], data["key"], data["genes"]) == (code, champion.key, champion.genes)
    assert main(["source", str(run), "champion", "-o", str(tmp_path / "net.py")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'net.py'}\n"
    assert (tmp_path / "net.py").read_text() == code


def test_what_failed_has_source_too(
    classified: en.Result, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = next(e for e in classified.evaluations if e.status is en.Status.FAILED)
    assert main(["source", str(classified.run_dir), str(failed.number)]) == 0
    assert "class Net" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            "zz",
            "has no evaluation 'zz': give a number (up to 14), the beginning of a key, or champ",
        ),
        ("Champ", "has no evaluation 'Champ' (did you mean champion?): give a number"),
        ("9999", "has no evaluation '9999': give a number"),
        ("", r"is the beginning of"),
    ],
)
def test_what_is_not_there_is_named(
    wanted: str, message: str, classified: en.Result, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["source", str(classified.run_dir), wanted]) == 1
    assert message in capsys.readouterr().err


def test_an_ambiguous_key_lists_its_candidates(
    classified: en.Result, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = sorted({entry.key for entry in classified.evaluations})
    assert main(["source", str(classified.run_dir), ""]) == 1
    error = capsys.readouterr().err
    assert f"{len(keys)} keys" in error
    assert f"and {len(keys) - 5} more; give more of it" in error


def test_a_problem_without_source_and_a_missing_file_are_told_apart(
    ended: en.Result,
    classified: en.Result,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert main(["source", str(ended.run_dir), "champion"]) == 1
    assert "has no source: its problem" in capsys.readouterr().err
    import shutil

    copy = shutil.copytree(str(classified.run_dir), tmp_path / "copy")
    (copy / "ga_architecture" / "ga-alexnet-0.py").unlink()
    assert main(["source", str(copy), "0"]) == 1
    assert f"`evonas resume {copy}` writes missing files again" in capsys.readouterr().err
