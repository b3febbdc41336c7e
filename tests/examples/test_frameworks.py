"""The examples of other frameworks, run as their users run them, with the real packages."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import evonas as en

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NEEDS = {
    "table": (["sklearn"], "runs/table"),
    "timm_model": (["timm"], "runs/timm"),
    "hf_trainer": (["transformers", "accelerate"], "runs/hf-trainer"),
    "lightning_module": (["lightning"], "runs/lightning"),
}


def run(name: str, folder: Path) -> str:
    ended = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")], cwd=folder, capture_output=True, text=True,
        check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDS)
def test_an_example_ends_with_a_trained_champion(name: str, tmp_path: Path) -> None:
    packages, run_dir = NEEDS[name]
    if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
        pytest.skip(f"{', '.join(missing)} is not installed: pip install -e '.[frameworks]'")
    first = run(name, tmp_path)
    result = en.open_run(tmp_path / run_dir)
    assert f"{result.champion.fitness:.3f}" in first
    assert result.champion.files
    assert result.champion.fitness > {"hf_trainer": 0.5}.get(name, 0.8)
    assert {entry.status.value for entry in result.evaluations} <= {"ok", "pruned"}
    n_trained = result.counts.evaluated
    assert run(name, tmp_path).splitlines()[-1] == first.splitlines()[-1]
    assert en.open_run(tmp_path / run_dir).counts.evaluated == n_trained, "nothing trained twice"


@pytest.mark.parametrize("name", NEEDS)
def test_an_example_fits_on_a_screen(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 60


def test_a_callback_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, package in (("huggingface", "transformers"), ("lightning", "lightning.pytorch")):
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(sys.modules, f"evonas.integrations.{name}", raising=False)
        with pytest.raises(
            en.exceptions.MissingDependencyError, match=f"pip install {package[:9]}"
        ):
            importlib.import_module(f"evonas.integrations.{name}")


class Control:
    log_history: tuple[dict[str, Any], ...] = ({"loss": 0.5}, {"loss": 0.25}, {"eval_loss": 1})


def test_an_evaluation_of_transformers_is_an_epoch_of_the_trial() -> None:
    pytest.importorskip("transformers")
    from evonas.integrations.huggingface import TrialCallback

    trial = en.Trial()
    TrialCallback(trial).on_evaluate(None, Control(), None, {"eval_accuracy": 0.75, "epoch": 1.0})
    assert trial.history[0].metrics == {"accuracy": 0.75, "epoch": 1.0, "train_loss": 0.25}
