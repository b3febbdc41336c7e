"""What is exported is read back by the program that it is for."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.cli import main
from evonas.cli.export.nn_dataset import uid

Search = Callable[..., en.Result]


def exported(run_dir: Path | None, form: str, path: Path) -> Path:
    assert main(["export", str(run_dir), "--format", form, "-o", str(path)]) == 0
    return path


def test_csv_has_a_row_for_each_evaluation(ended: en.Result, tmp_path: Path) -> None:
    path = exported(ended.run_dir, "csv", tmp_path / "run.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(ended.evaluations)
    for row, entry in zip(rows, ended.evaluations, strict=True):
        assert (int(row["number"]), row["status"], row["key"]) == (
            entry.number, entry.status.value, entry.key,
        )  # fmt: skip
        assert row["fitness"] == ("" if entry.fitness is None else str(entry.fitness))
        genes = {name[5:]: value for name, value in row.items() if name.startswith("gene.")}
        assert {name: value for name, value in genes.items() if value} == {
            name: str(value) for name, value in entry.genes.items() if value is not None
        }
        assert row["error"] == ((entry.error or "").strip().splitlines() or [""])[-1]
    assert {row["generation"] for row in rows if row["status"] != "invalid"} >= {"0", "1", "2"}


def test_json_has_everything(ended: en.Result, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(ended.run_dir), "--format", "json"]) == 0
    data = json.loads(
        capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"not JSON: {name}")
    )
    assert data["settings"]["seed"] == 1
    assert len(data["evaluations"]) == len(ended.evaluations)
    for found, entry in zip(data["evaluations"], ended.evaluations, strict=True):
        assert found["genes"] == entry.genes
        assert found["values"] == list(entry.values)
        assert [each["epoch"] for each in found["epochs"]] == [e.epoch for e in entry.epochs]
        assert found["error"] == entry.error
    parents = {p.evaluation: list(p.parents) for p in ended.proposals if not p.reused}
    assert {e["number"]: e["parents"] for e in data["evaluations"] if e["parents"]} == {
        number: found for number, found in parents.items() if found
    }


def test_nan_is_null_in_json_and_a_word_in_csv(tmp_path: Path) -> None:
    def fitness(genes: Any, trial: en.Trial) -> float:
        trial.record(loss=math.nan, shape=[1, 2])
        return genes["x"]

    en.evolve({"x": [1.0, 2.0]}, fitness, population=2, generations=1, run_dir=tmp_path / "run")
    data = json.loads(exported(tmp_path / "run", "json", tmp_path / "a.json").read_text())
    assert data["evaluations"][0]["metrics"] == {"loss": None, "shape": [1, 2]}
    lines = exported(tmp_path / "run", "csv", tmp_path / "a.csv").read_text().splitlines()
    rows = csv.DictReader(lines)
    assert [(row["metric.loss"], row["metric.shape"]) for row in rows] == [("nan", "[1, 2]")] * 2


@pytest.mark.parametrize("form", ["optuna", "nn-dataset"])
def test_what_is_there_is_not_overwritten(
    form: str, classified: en.Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "there"
    if form == "optuna":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine").touch()
    assert main(["export", str(classified.run_dir), "--format", form, "-o", str(target)]) == 1
    assert "exists" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.rglob("*") if entry.is_file()] in (["there"], ["mine"])


def test_optuna_that_is_missing_is_named_with_its_extra(
    ended: en.Result,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert (
        main(["export", str(ended.run_dir), "--format", "optuna", "-o", str(tmp_path / "o")]) == 1
    )
    assert "pip install 'evonas[export]'" in capsys.readouterr().err


def test_uid_is_the_one_that_the_project_itself_computes() -> None:
    # Three records of img-classification_cifar-10_acc_AlexNet/1.json of nn-dataset.
    record = {"batch": 4, "transform": "norm_299", "accuracy": 0.6038, "duration": 69935059891}
    record |= {"dropout": 0.3234668619290789, "lr": 0.02487720458587122}
    record |= {"momentum": 0.3867297180491852, "uid": "of another"}
    assert uid(record) == "b434ec3c199583d55f1345795243c03a"
    record |= {"dropout": 0.5, "lr": 0.0061, "momentum": 0.7549}
    assert uid(record) == "3cb173d35a780eafb1f1a9fa4dd955d6"
    record |= {"batch": 16, "dropout": 0.24364563885676893, "lr": 0.152531046556256}
    assert uid(record | {"momentum": 0.025583551834322593}) == "e443d50796d2f7695a92290e0e6e7828"


def test_nn_dataset_has_that_project_s_layout(
    classified: en.Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = exported(classified.run_dir, "nn-dataset", tmp_path / "lemur")
    ok = [entry for entry in classified.evaluations if entry.status is en.Status.OK]
    assert f"{3 * len(ok)} records of {len(ok)} trainings" in capsys.readouterr().out
    models = {path.stem for path in (root / "nn").iterdir()}
    folders = {path.name for path in (root / "stat" / "train").iterdir()}
    # The project splits these names at each underscore, and wants four parts.
    assert folders == {f"img-classification_my-pets_acc_{model}" for model in models}
    assert "ga-alexnet-0" in models
    assert "ga-alexnet-1" not in models  # the network of 0 with another learning rate
    twice = root / "stat" / "train" / "img-classification_my-pets_acc_ga-alexnet-0"
    assert sorted(path.name for path in twice.iterdir()) == ["1.json", "2.json", "3.json"]
    records = json.loads((twice / "3.json").read_text())
    assert len(records) >= 2
    accuracies = [record["accuracy"] for record in records]
    assert accuracies == sorted(accuracies, reverse=True)
    first = next(r for r in records if r["lr"] == classified.evaluations[0].genes["lr"])
    epoch = classified.evaluations[0].epochs[2]
    assert first["accuracy"] == epoch.metrics["accuracy"]
    assert first["duration"] == round(epoch.seconds * 1e9)
    assert first["batch"] == 8
    without = {k: v for k, v in first.items() if k not in ("uid", "accuracy", "duration")}
    text = re.sub(r"\s", "", str(without))
    assert first["uid"] == hashlib.md5(text.encode()).hexdigest()
    assert len({record["uid"] for record in records}) == len(records)


def test_nn_dataset_s_modules_do_what_the_records_say(
    classified: en.Result, tmp_path: Path
) -> None:
    import torch
    from PIL import Image

    root = exported(classified.run_dir, "nn-dataset", tmp_path / "lemur")
    stat = next((root / "stat" / "train").rglob("1.json"))
    record = json.loads(stat.read_text())[0]
    transform = load(root / "transform" / f"{record['transform']}.py").transform(((0,), (1,)))
    made = transform(Image.new("RGB", (50, 60), (255, 255, 255)))
    assert made.shape == (3, 32, 32)
    assert 1.5 < float(made.mean()) < 2  # (1 - 1/2) / 0.29: uniform noise was normalised
    net = load(root / "nn" / f"{stat.parent.name.split('_')[3]}.py")
    names = net.supported_hyperparameters()
    prm = {name: record[name] for name in names}
    model = net.Net((1, 3, 32, 32), (2,), prm, torch.device("cpu"))
    assert model.eval()(made[None]).shape == (1, 2)


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("exported", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_run_without_networks_is_refused(
    ended: en.Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x"
    assert main(["export", str(ended.run_dir), "--format", "nn-dataset", "-o", str(path)]) == 1
    assert "has no networks and statistics to export" in capsys.readouterr().err
    assert not path.exists()
