"""The files of a run: their names, their content, and that they are whole."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from evonas.exceptions import RunStorageError
from evonas.execution.trial import Trial, TrialSettings
from evonas.nas import FAMILIES
from evonas.nas.champion import champion_source
from evonas.nas.export import NasRunFiles
from evonas.nas.layers import Call
from evonas.nas.problem import ImageClassificationProblem
from evonas.objectives import Objective
from evonas.records import EpochMetrics, Evaluation, Status
from evonas.space import SearchSpace
from evonas.training import Examples

Make = Callable[..., ImageClassificationProblem]
Draw = Callable[..., list[dict[str, Any]]]


def evaluation_of(problem: ImageClassificationProblem, genes: dict[str, Any]) -> Evaluation:
    return Evaluation(
        number=7,
        key=problem.key(genes),
        genes=genes,
        status=Status.OK,
        values=(0.75,),
        epochs=(
            EpochMetrics(0, 1.5, {"accuracy": 0.5, "loss": 1.25, "train_loss": 1.5}),
            EpochMetrics(1, 3.0, {"accuracy": 0.75, "loss": 1.0, "train_loss": 1.125}),
        ),
    )


@pytest.fixture
def evaluated(
    make_problem: Make, valid_points: Draw, tmp_path: Path
) -> tuple[NasRunFiles, Evaluation, ImageClassificationProblem]:
    problem = make_problem("alexnet", dataset="cifar-10", batch_size=128)
    evaluation = evaluation_of(problem, valid_points(problem, 1)[0])
    return NasRunFiles(tmp_path, problem), evaluation, problem


Evaluated = tuple[NasRunFiles, Evaluation, ImageClassificationProblem]


def test_names_and_records_are_those_of_the_published_job(
    evaluated: Evaluated, tmp_path: Path
) -> None:
    files, evaluation, problem = evaluated
    files.on_evaluation(evaluation)
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    assert written == [
        "ga_architecture/ga-alexnet-7.py",
        "stats/img-classification_cifar-10_acc_ga-alexnet-7/0.json",
        "stats/img-classification_cifar-10_acc_ga-alexnet-7/1.json",
    ]
    source = (tmp_path / written[0]).read_text()
    assert source == problem.source(evaluation.genes)
    records = json.loads((tmp_path / written[2]).read_text())
    assert isinstance(records, list)
    (record,) = records
    assert record.pop("transform").startswith("32x32 + normalize(mean=(0.")
    assert record == {
        "accuracy": 0.75,
        "batch": 128,
        "dropout": evaluation.genes["dropout"],
        "duration": 3_000_000_000,
        "lr": evaluation.genes["lr"],
        "momentum": evaluation.genes["momentum"],
        "uid": evaluation.key,
    }


def test_other_data_and_metrics_follow_the_pattern(make_problem: Make, tmp_path: Path) -> None:
    def top5(outputs: torch.Tensor, labels: torch.Tensor) -> float:
        return 1.0

    files = NasRunFiles(tmp_path, make_problem(dataset="digits"))
    assert files.statistics(3).name == "img-classification_digits_acc_ga-alexnet-3"
    problem = make_problem(dataset="digits", metric=top5)
    problem.name = "plain"
    files = NasRunFiles(tmp_path, problem)
    assert files.statistics(3).name == "img-classification_digits_top5_ga-plain-3"
    assert files.architecture(3).name == "ga-plain-3.py"
    assert files.champion.name == "ga-champ-plain.py"


def test_files_are_left_alone_and_rebuilt_when_missing_or_damaged(
    evaluated: Evaluated, tmp_path: Path
) -> None:
    files, evaluation, _ = evaluated
    files.on_evaluation(evaluation)
    before = _state(tmp_path)
    files.on_evaluation(evaluation)
    assert _state(tmp_path) == before
    files.architecture(7).unlink()
    (files.statistics(7) / "1.json").write_text('[{"accuracy"')
    files.on_evaluation(evaluation)
    assert {name: digest for name, (digest, _) in _state(tmp_path).items()} == {
        name: digest for name, (digest, _) in before.items()
    }


def test_invalid_points_get_no_files(evaluated: Evaluated, tmp_path: Path) -> None:
    files, evaluation, _ = evaluated
    genes = {**evaluation.genes, "conv1_kernel": 11, "conv1_stride": 4, "conv2_kernel": 5}
    files.on_evaluation(replace(evaluation, status=Status.INVALID, genes=genes))
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_never_half_written(
    evaluated: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, evaluation, _ = evaluated

    def disk_full(self: Path, text: str, encoding: str) -> None:
        with open(self, "w", encoding=encoding) as part:
            part.write(text[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", disk_full)
        with pytest.raises(RunStorageError, match=r"ga-alexnet-7.py cannot be written.*No space"):
            files.on_evaluation(evaluation)
    assert list((tmp_path / "ga_architecture").iterdir()) == []
    files.on_evaluation(evaluation)
    assert files.architecture(7).is_file()


def test_the_champion_runs_alone(
    make_problem: Make,
    valid_points: Draw,
    make_data: Callable[..., Examples],
    tmp_path: Path,
) -> None:
    pil = pytest.importorskip("PIL.Image")
    problem = make_problem(n_images=80)
    (genes,) = valid_points(problem, 1)
    attachments = tmp_path / "attachments"
    trial = Trial(TrialSettings(seed=1, attachments=str(attachments)))
    value = problem.evaluate(genes, trial)
    assert isinstance(value, float)
    evaluation = replace(evaluation_of(problem, genes), values=(value,))
    files = NasRunFiles(tmp_path, problem)
    files.on_champion(evaluation, attachments)

    # Alone: in another folder, by a Python that cannot see evonas.
    alone = tmp_path / "alone"
    alone.mkdir()
    for path in (files.champion, files.champion_weights):
        path.rename(alone / path.name)
    image = problem.data.inputs[1].permute(1, 2, 0).contiguous()
    pil.fromarray(image.numpy()).resize((50, 40)).save(alone / "photo.png")
    done = subprocess.run(
        [sys.executable, "-I", files.champion.name, "photo.png"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=alone,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    name, _, rest = done.stdout.rstrip("\n").rpartition(": ")
    assert name == "photo.png"
    assert rest.split()[0] in problem.data.classes


HOSTILE = 'x\nimport os\nos.remove("bait")\n#"""\\\u2028{}'


def test_no_name_becomes_code(
    make_data: Callable[..., Examples], valid_points: Draw, tmp_path: Path
) -> None:
    data = make_data()
    family = FAMILIES["alexnet-small"]
    space = SearchSpace({**dict(family.space().items()), HOSTILE: ["a\nimport os", HOSTILE]})
    objectives = [Objective("accuracy"), Objective("params", "min")]
    problem = ImageClassificationProblem(
        space,
        family.network,
        Examples(data.inputs, data.targets, ("a", "b", HOSTILE, '"')),
        precision="float32",
        objectives=objectives,
    )
    (genes,) = valid_points(problem, 1)
    files = NasRunFiles(tmp_path, problem)
    evaluation = replace(evaluation_of(problem, genes), values=(0.5, 7.0))
    files.on_evaluation(evaluation)
    files.on_champion(evaluation, None)
    for path in (files.champion, files.architecture(7)):
        found: dict[str, Any] = {"__name__": "champion"}
        source = path.read_text(encoding="utf-8")
        imported = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import)]
        assert {name.name for node in imported for name in node.names} <= {"torch", "sys"}
        exec(source, found)
        if path == files.champion:
            assert found["CHROMOSOME"] == genes
            assert found["CLASSES"] == ("a", "b", HOSTILE, '"')


@pytest.mark.parametrize("word", ["name", "dataset"])
def test_names_that_no_file_can_have_are_refused_at_construction(
    make_problem: Make, word: str
) -> None:
    for value in ("../../../evil", HOSTILE, "n" * 300, ""):
        with pytest.raises(ValueError, match=f"{word} is a part of file names"):
            ImageClassificationProblem(
                make_problem().space, make_problem().network, make_problem().data, **{word: value}
            )


def test_a_title_stays_a_comment() -> None:
    source = champion_source(
        "x = 1", genes={}, prm={}, in_shape=(3, 8, 8), classes=("a", "b"), mean=(), std=(),
        is_uint8=True, test_time_flip=False, title=f"a search on {HOSTILE}\nmore",
    )  # fmt: skip
    found: dict[str, Any] = {"__name__": "champion"}
    exec(source.replace("torch", "dict"), found)
    assert "os" not in found


def test_the_champion_predicts_as_the_search_did(
    make_problem: Make,
    valid_points: Draw,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    problem = make_problem(n_images=80)
    (genes,) = valid_points(problem, 1)
    folder = tmp_path / "attachments"
    value = problem.evaluate(genes, Trial(TrialSettings(seed=1, attachments=str(folder))))
    files = NasRunFiles(tmp_path, problem)
    files.on_champion(replace(evaluation_of(problem, genes), values=(value,)), folder)  # type: ignore[arg-type]
    champion: dict[str, Any] = {"__name__": "champion", "__file__": str(files.champion)}
    exec(files.champion.read_text(), champion)
    _, val = problem.splits
    probabilities = champion["predict"](champion["load"](), problem.data.inputs[val])
    found = (probabilities.argmax(1) == problem.data.targets[val]).float().mean()
    assert float(found) == pytest.approx(value)
    model = problem.build(genes)
    model.load_state_dict(torch.load(files.champion_weights, weights_only=True))
    images, _ = next(problem.data.subset(val).batches(len(val)))
    with torch.no_grad():
        expected = model.eval()(images).softmax(1)
    torch.testing.assert_close(probabilities, expected)
    monkeypatch.setattr(sys, "argv", ["champion.py"])
    champion["main"]()
    usage, guess = capsys.readouterr().out.splitlines()
    assert usage == "usage: python champion.py IMAGE...; without one, here is noise:"
    assert guess.startswith("noise: ")
    monkeypatch.setattr(sys, "argv", ["champion.py", "--help"])
    champion["main"]()
    assert capsys.readouterr().out.startswith("usage: python champion.py IMAGE...; the weights")
    pytest.importorskip("PIL.Image")
    monkeypatch.setattr(sys, "argv", ["champion.py", "no.png"])
    with pytest.raises(SystemExit, match="champion.py: .* No such file or directory: 'no.png'"):
        champion["main"]()
    files.champion_weights.unlink()
    monkeypatch.setattr(sys, "argv", ["champion.py"])
    with pytest.raises(SystemExit, match=r"champion.py: .* No such file .*\.pt'"):
        champion["main"]()
    assert champion["CHROMOSOME"] == genes
    assert champion["CLASSES"] == problem.data.classes
    tree = ast.parse(files.champion.read_text())
    imported = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert [ast.unparse(node) for node in imported] == ["import torch", "from torch import nn"]


def test_a_champion_never_stands_beside_anothers_weights(
    evaluated: Evaluated, tmp_path: Path
) -> None:
    files, evaluation, _ = evaluated
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "weights.pt").write_bytes(b"first")
    files.on_champion(evaluation, folder)
    assert files.champion_weights.read_bytes() == b"first"
    files.on_champion(evaluation, None)  # the same champion: its weights stay
    assert files.champion_weights.read_bytes() == b"first"
    files.on_champion(replace(evaluation, number=8), None)
    assert not files.champion_weights.exists()
    (folder / "weights.pt").write_bytes(b"second")
    files.on_champion(replace(evaluation, number=9), folder)
    assert files.champion_weights.read_bytes() == b"second"
    assert "trial 9" in files.champion.read_text()


def test_float_images_cannot_be_read_from_files(
    make_problem: Make, valid_points: Draw, tmp_path: Path
) -> None:
    images = torch.randn(40, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    data = Examples(images, torch.arange(40) % 2, ('say "ah"', "b\\"))
    problem = make_problem(data=data)
    (genes,) = valid_points(problem, 1)
    folder = tmp_path / "kept"
    value = problem.evaluate(genes, Trial(TrialSettings(attachments=str(folder))))
    files = NasRunFiles(tmp_path, problem)
    files.on_champion(replace(evaluation_of(problem, genes), values=(value,)), folder)  # type: ignore[arg-type]
    champion: dict[str, Any] = {"__name__": "champion", "__file__": str(files.champion)}
    exec(files.champion.read_text(), champion)
    assert champion["CLASSES"] == data.classes
    assert champion["SCALE"] == 1
    assert champion["predict"](champion["load"](), images[:2]).shape == (2, 2)
    with pytest.raises(ValueError, match=r"photo\.png: the network was trained on float images"):
        champion["read_image"]("photo.png")


def _state(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            os.stat(path).st_mtime_ns,
        )
        for path in folder.rglob("*.*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", ["Linear(1); import os", "", "class", "Linear\nx"])
def test_a_call_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must be Python identifiers"):
        Call(name)
    with pytest.raises(ValueError, match="must be Python identifiers"):
        Call("Linear", kwargs=((name, 1),))


@pytest.mark.parametrize("value", [object(), float("nan"), (1, float("inf")), b"x"])
def test_a_value_that_source_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="generated source cannot hold"):
        _ = Call("Linear", (value,)).code


@pytest.mark.parametrize("flip", [True, False])
def test_a_champion_predicts_as_it_was_validated(flip: bool) -> None:
    source = champion_source(
        "import torch", genes={}, prm={}, in_shape=(1, 2, 2), classes=("a", "b"), mean=(), std=(),
        is_uint8=False, test_time_flip=flip, title="",
    )  # fmt: skip
    found: dict[str, Any] = {"__name__": "champion"}
    exec(source, found)

    class Net:
        device = torch.device("cpu")

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            return images[:, 0, 0]  # the first row is the outputs

    image = torch.tensor([[[[1.0, 4.0], [0.0, 0.0]]]])
    wanted = [0.5, 0.5] if flip else torch.tensor([1.0, 4.0]).softmax(0).tolist()
    assert found["predict"](Net(), image)[0].tolist() == pytest.approx(wanted)
