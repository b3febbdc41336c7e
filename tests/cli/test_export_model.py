"""A trained model leaves the run as a file, and computes the same there."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import evonas as en
from evonas.callbacks import ProgressBar
from evonas.cli import main
from evonas.execution.anatomy import example_of
from evonas.training import ModelProblem

X = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
LABELS = (X[:, 0] > 0).long()


class Two(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, width), nn.Linear(width, 2)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.body(torch.cat([left, right], 1)).relu())}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    (folder / "mine.py").write_text(
        "from torch import nn\n\n\ndef make(genes):\n"
        "    return nn.Sequential(nn.Linear(6, genes['width']), nn.ReLU(), "
        "nn.Linear(genes['width'], 2))\n\n\ndef other(genes):\n    return nn.Linear(6, 2)\n"
    )
    problem = ModelProblem(
        {"width": [4, 8, 16]},
        lambda genes: nn.Sequential(
            nn.Linear(6, genes["width"]), nn.ReLU(), nn.Linear(genes["width"], 2)
        ),
        (X, LABELS), (X, LABELS), n_epochs=2, precision="float32",
    )  # fmt: skip
    en.evolve(problem, max_evaluations=3, seed=0, run_dir=folder / "run", progress=False)
    return folder / "run"


def champion(run: Path) -> nn.Module:
    genes = en.open_run(run).champion.genes
    return en.open_run(run).champion.load_model(
        lambda _: nn.Sequential(
            nn.Linear(6, genes["width"]), nn.ReLU(), nn.Linear(genes["width"], 2)
        )
    )


def difference(text: str) -> float:
    return float(text.splitlines()[0].rsplit(" ", 1)[1])


@pytest.mark.parametrize("form", ["onnx", "torch-export"])
@pytest.mark.parametrize("options", [[], ["--half"], ["--batch", "5"]], ids=str)
def test_a_program_computes_what_the_module_computes(
    run: Path, form: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ("model.onnx" if form == "onnx" else "model.pt2")
    build = ["--build", f"{run.parent / 'mine.py'}:make"]
    assert main(["export", str(run), "--format", form, "-o", str(path), *build, *options]) == 0
    printed = capsys.readouterr().out
    is_half = "--half" in options
    assert difference(printed) < (5e-3 if is_half else 1e-5)
    assert (difference(printed) > 0) or not is_half
    inputs = X[:5].half() if is_half else X[:5]
    with torch.no_grad():
        wanted = champion(run)(X[:5])
    if form == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(str(path))
        (found,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
        about = session.get_modelmeta().custom_metadata_map
    else:
        notes = {"evonas.json": ""}
        torch.export.load(path, extra_files=notes)
        about = json.loads(notes["evonas.json"])
        found = torch.export.load(path).module()(inputs).detach().numpy()
    assert about["precision"] == "float32"
    assert about["dtype"] == ("float16" if is_half else "float32")
    assert json.loads(about["genes"]) == en.open_run(run).champion.genes
    assert np.abs(found.astype(np.float64) - wanted.numpy()).max() < (5e-3 if is_half else 1e-5)


@pytest.mark.parametrize("form", ["safetensors", "state-dict"])
def test_weights_alone_need_no_builder(
    run: Path, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    number = en.open_run(run).hall_of_fame[1].number
    assert main(["export", str(run), "--format", form, "-e", str(number)]) == 0
    told = capsys.readouterr().out
    assert "4 tensors, equal to the weights kept; the module that they fit has the genes" in told
    genes = json.loads(told.partition("has the genes ")[2].splitlines()[0])
    assert genes == en.open_run(run).hall_of_fame[1].genes
    if form == "safetensors":
        safetensors = pytest.importorskip("safetensors.torch")
        path = tmp_path / f"{number}.safetensors"
        found = safetensors.load_file(path)
        with pytest.importorskip("safetensors").safe_open(path, "pt") as file:
            genes = json.loads(file.metadata()["genes"])
        assert genes == en.open_run(run).hall_of_fame[1].genes
    else:
        found = torch.load(tmp_path / f"{number}.pt", weights_only=True)
    model = nn.Sequential(
        nn.Linear(6, en.open_run(run).hall_of_fame[1].genes["width"]), nn.ReLU(),
        nn.Linear(en.open_run(run).hall_of_fame[1].genes["width"], 2),
    )  # fmt: skip
    model.load_state_dict(found)
    accuracy = float((model(X).argmax(1) == LABELS).float().mean())
    assert accuracy == pytest.approx(en.open_run(run).hall_of_fame[1].fitness)


def test_a_model_of_named_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {"left": X[:, :3], "right": X[:, 3:]}, LABELS
    problem = ModelProblem(
        {"width": [4]}, lambda genes: Two(genes["width"]), data, data, n_epochs=1,
        precision="float32",
    )  # fmt: skip
    en.evolve(problem, max_evaluations=1, seed=0, run_dir=tmp_path / "run", progress=False)
    (tmp_path / "two.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Two(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.body, self.head = nn.Linear(6, 4), nn.Linear(4, 2)\n\n"
        "    def forward(self, left, right):\n"
        "        x = torch.cat([left, right], 1)\n"
        "        return {'logits': self.head(self.body(x).relu())}\n\n\n"
        "def make(genes):\n    return Two()\n"
    )
    for form in ("onnx", "torch-export"):
        path, build = tmp_path / f"out.{form}", f"{tmp_path / 'two.py'}:make"
        command = ["export", str(tmp_path / "run"), "--format", form, "-o", str(path)]
        assert main([*command, "--build", build]) == 0
        assert difference(capsys.readouterr().out) < 1e-5


def test_what_cannot_be_exported_says_why(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str, run: Path = run) -> str:
        path = str(tmp_path / "model")
        assert main(["export", str(run), "-o", path, *arguments]) != 0
        assert not Path(path).exists()
        return " ".join(capsys.readouterr().err.split())

    mine = run.parent / "mine.py"
    assert "only your code knows the module" in refused("--format", "onnx")
    text = refused("--format", "onnx", "--build", f"{mine}:other")
    assert "0.bias is not in the module" in text
    assert "cannot be used: " in refused("--format", "onnx", "--build", f"{mine}:none")
    assert "has no 'none'" in refused("--format", "onnx", "--build", f"{mine}:none")
    assert "must be FILE.py:FUNCTION" in refused("--format", "onnx", "--build", "mine")
    assert "No module named" in refused("--format", "onnx", "--build", "no_such_module:make")
    assert "--half is for models" in refused("--format", "csv", "--half")
    assert "has no evaluation '99'" in refused("--format", "onnx", "-e", "99")

    other = tmp_path / "plain"
    en.evolve(
        {"x": [1, 2]}, lambda genes, trial: float(trial.save(nn.Linear(6, 2))), max_evaluations=1,
        run_dir=other, progress=False, seed=0,
    )  # fmt: skip
    build = f"{mine}:other"
    text = refused("--format", "onnx", "--build", build, run=other)
    assert "pass an example in the fitness function, trial.save(model, example)" in text
    none = tmp_path / "none"
    en.evolve({"x": [1, 2]}, lambda g, t: 1.0, max_evaluations=1, run_dir=none, progress=False)
    assert "call trial.save(model)" in refused("--format", "safetensors", run=none)


class Eigen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvals(self.layer(x).unsqueeze(-1) @ x.unsqueeze(1)).real


def test_an_operator_that_onnx_lacks_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fitness(genes: Any, trial: en.Trial) -> float:
        trial.save(Eigen(), X[:2])
        return 1.0

    en.evolve({"x": [1]}, fitness, max_evaluations=1, run_dir=tmp_path / "run", progress=False)
    (tmp_path / "eigen.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Eigen(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.layer = nn.Linear(6, 6)\n\n"
        "    def forward(self, x):\n"
        "        product = self.layer(x).unsqueeze(-1) @ x.unsqueeze(1)\n"
        "        return torch.linalg.eigvals(product).real\n\n\n"
        "def make(genes):\n    return Eigen()\n"
    )
    command = ["export", str(tmp_path / "run"), "--build", f"{tmp_path / 'eigen.py'}:make"]
    assert main([*command, "--format", "onnx", "-o", str(tmp_path / "a.onnx")]) == 1
    text = capsys.readouterr().err
    assert "linalg_eig" in text
    assert "--format torch-export" in text
    assert not (tmp_path / "a.onnx").exists()


def test_examples_are_made_as_inputs_were() -> None:
    described = {
        "named": {
            "ids": {"dtype": "int64", "shape": [5]},
            "mask": {"dtype": "float16", "shape": []},
        }
    }
    found = example_of(described, 3)
    assert (found["ids"].dtype, tuple(found["ids"].shape)) == (torch.int64, (3, 5))
    assert (found["mask"].dtype, tuple(found["mask"].shape)) == (torch.float16, (3,))
    for wrong in (None, {"dtype": "os", "shape": []}, {"several": [3]}):
        with pytest.raises((ValueError, AttributeError)):
            example_of(wrong)


@pytest.mark.parametrize("chosen", ["bfloat16", "float32"])
def test_a_precision_that_nobody_named_is_said(
    chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A score in bfloat16 is not that of the exported weights in a script in float32."""
    monkeypatch.setattr("evonas.training.problem.choose_precision", lambda *where: chosen)
    run = str(tmp_path / "run")

    def search(n: int, **more: Any) -> str:
        problem = ModelProblem(
            {"width": [4, 8]},
            lambda genes: nn.Sequential(nn.Linear(6, genes["width"]), nn.Linear(genes["width"], 2)),
            (X, LABELS), (X, LABELS), n_epochs=1, **more,
        )  # fmt: skip
        callbacks = [ProgressBar(bar=False, lines=True)]
        en.evolve(problem, max_evaluations=n, seed=0, callbacks=callbacks,
                  run_dir=None if more else run, progress=False)  # fmt: skip
        return capsys.readouterr().err

    assert f"evonas: trains and scores in {chosen}" in search(1)
    assert f"scores in {chosen}" not in search(2), "said at the first start alone"
    assert "trains and scores in" not in search(1, precision="float32")
    main(["show", run])
    warns = "in float32 the same weights may score slightly otherwise"
    shown = capsys.readouterr().out
    assert re.search(rf"^precision +{chosen}", shown, re.M)
    assert (warns in shown) == (chosen == "bfloat16")
    main(["show", run, "--json"])
    assert json.loads(capsys.readouterr().out)["precision"] == chosen
    main(["export", run, "--format", "state-dict", "-o", str(tmp_path / "model.pt")])
    exported = capsys.readouterr().out
    assert f"\nits precision in the search: {chosen}" in exported
    assert (warns in exported) == (chosen == "bfloat16")


def test_a_script_without_a_guard_searches_on_in_no_export(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        f"import evonas as en\n\ndef make(genes):\n    pass\n\n"
        f"en.evolve({{'x': [1]}}, lambda genes, trial: 1.0, run_dir={str(tmp_path / 'new')!r},\n"
        "          max_evaluations=1)\n"
    )
    command = ["export", str(run), "--format", "onnx", "--build", f"{script}:make"]
    assert main([*command, "-o", str(tmp_path / "a.onnx")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"evonas: --build {script}:make cannot be used: importing {script} raised RuntimeError: "
        f"evolve must not run while evonas imports {script} to find a function in it, which "
        'changes no run: put the call under if __name__ == "__main__":'
    )
    assert not (tmp_path / "new").exists()


MISTAKES = {
    "Net": (
        "Net in FILE is a class, which does not take the genes as one dict: name\n"
        "  def build(genes): return Net(width=genes['width'])"
    ),
    "net": "net in FILE is a module itself (Linear)",
    "NUMBER": "NUMBER in FILE is 3 (int)",
    "raises": "raises in FILE raised KeyError: 'depth'\n  wrong.py, line 16: return genes['depth']",
    "nothing": "nothing in FILE returned NoneType",
    "two": "two in FILE raised TypeError: two() missing 1 required positional argument: 'classes'",
    "main": "main in FILE raised TypeError: main() takes 0 positional arguments but 1 was given",
    "leaves": (
        "leaves in FILE raised SystemExit: usage\n  wrong.py, line 32: raise SystemExit('usage')"
    ),
    "searches": (
        "searches in FILE raised RuntimeError: evolve must not run while evonas imports FILE to "
        "find a function in it, which changes no run: put the call under if __name__ == "
        '"__main__":\n  wrong.py, line 36: return en.evolve({"x": [1]}, lambda genes, trial: 1.0, '
        "max_evaluations=1)"
    ),
}

WRONG = """import evonas as en
from torch import nn

net = nn.Linear(6, 2)
NUMBER = 3


class Net(nn.Module):
    def __init__(self, width, dropout=0.0):
        super().__init__()
        self.body = nn.Linear(6, width)


def raises(genes):
    width = genes["width"]
    return genes['depth']


def nothing(genes):
    pass


def two(genes, classes):
    return net


def main():
    raise AssertionError("never runs")


def leaves(genes):
    raise SystemExit('usage')


def searches(genes):
    return en.evolve({"x": [1]}, lambda genes, trial: 1.0, max_evaluations=1)
"""


@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_no_builder_is_refused_in_a_line_or_two(
    name: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(WRONG)
    command = ["export", str(run), "--format", "onnx", "-o", str(tmp_path / "a.onnx")]
    assert main([*command, "--build", f"{file}:{name}"]) == 1
    told = MISTAKES[name].replace("FILE", str(file))
    wanted = "evonas: --build must name a function of the genes to the untrained module; "
    assert capsys.readouterr().err == f"{wanted}{told}\n"


def test_the_command_says_its_own_option_and_not_pythons(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run), "--format", "onnx", "-o", str(tmp_path / "a.onnx")]) == 1
    said = capsys.readouterr().err
    assert "only your code knows the module that they belong to: pass --build FILE.py:FUNC" in said
    assert "load_model" not in said


@pytest.mark.parametrize("form", ["safetensors", "state-dict"])
def test_what_half_rounds_is_said(
    form: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "half"
    command = ["export", str(run), "--format", form, "-o", str(path)]
    assert main([*command, "--half"]) == 0
    told = capsys.readouterr().out
    if form == "safetensors":
        safetensors = pytest.importorskip("safetensors")
        with safetensors.safe_open(path, "pt") as file:
            assert file.metadata()["dtype"] == "float16"
            assert file.metadata()["precision"] == "float32"
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert main(command) == 0
        with safetensors.safe_open(path, "pt") as file:
            assert file.metadata()["dtype"] == "float32"
    else:
        found = torch.load(path, weights_only=True)
    kept = torch.load(en.open_run(run).champion.files["weights.pt"], weights_only=True)
    assert {each.dtype for each in found.values()} == {torch.float16}
    largest = max(float((kept[name] - found[name].float()).abs().max()) for name in kept)
    assert largest > 0
    wanted = "4 tensors, 4 of them rounded to float16, largest difference to the weights kept"
    assert f"{wanted} {largest:.2g};" in told
    assert "equal to the weights" not in told


def test_numbers_that_float16_cannot_hold_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fitness(genes: Any, trial: en.Trial) -> float:
        model = nn.Linear(6, 2)
        nn.init.constant_(model.weight, 1e5)
        trial.save(model)
        return 1.0

    run = tmp_path / "run"
    en.evolve({"x": [1]}, fitness, max_evaluations=1, run_dir=run, progress=False)
    command = ["export", str(run), "--format", "safetensors", "-o", str(tmp_path / "a"), "--half"]
    assert main(command) == 1
    assert "weight holds numbers too large for float16: leave out" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_weights_that_were_removed_by_hand_are_gone_and_not_unkept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fitness(genes: Any, trial: en.Trial) -> float:
        trial.save(nn.Linear(6, 2))
        return float(genes["x"])

    run = tmp_path / "run"
    en.evolve({"x": [1, 2]}, fitness, max_evaluations=2, run_dir=run, progress=False)
    (number, other) = (entry.number for entry in en.open_run(run).hall_of_fame)
    shutil.rmtree(run / "attachments" / str(number))
    command = ["export", str(run), "--format", "safetensors", "-o", str(tmp_path / "a")]
    for chosen in ("champion", str(number)):
        assert main([*command, "-e", chosen]) == 1
        said = capsys.readouterr().err
        assert f"weights of evaluation {number} are gone: it is one of the best, whose" in said
        assert "keep_files" not in said
    assert main([*command, "-e", str(other)]) == 0
