"""The two example scripts of the architecture search, as their users run them."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import evonas as en
from evonas.callbacks import Counts, RunInfo
from evonas.nas.datasets import dataset_label, open_dataset
from evonas.nas.final_training import FinalTraining
from evonas.training.resumable import Progress

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cifar10_alexnet = load("cifar10_alexnet")
train_champion = load("train_champion")


def options_of(*argv: str) -> Any:
    return cifar10_alexnet.parse(cifar10_alexnet.make_parser(), list(argv))


def test_the_defaults_are_the_published_run() -> None:
    options = vars(options_of())
    expected = {
        "dataset": "cifar10",
        "space": "alexnet",
        "population": 50,
        "generations": 25,
        "elite": 5,
        "selection": "tournament",
        "tournament": 3,
        "crossover": "one_point",
        "crossover_prob": 1.0,
        "mutation_prob": 0.15,
        "epochs": 5,
        "batch_size": 128,
        "train_samples": None,
        "val_samples": None,
        "augment": False,
        "run_dir": Path("runs/cifar10-alexnet"),
    }
    assert {name: options[name] for name in expected} == expected


def test_what_is_given_overrides_the_preset() -> None:
    quick = options_of("--preset", "quick")
    assert (quick.dataset, quick.space) == ("digits", "alexnet-small")
    assert quick.run_dir == Path("runs/cifar10-alexnet-quick")
    mixed = options_of("--preset", "quick", "--epochs", "7", "--run-dir", "here")
    assert (mixed.epochs, mixed.population, mixed.run_dir) == (7, quick.population, Path("here"))
    # A preset's value that is given again is still given.
    assert options_of("--preset", "quick", "--population", "50").population == 50
    other = options_of("--dataset", "imagefolder", "--data-root", "x", "--space", "alexnet-small")
    assert other.run_dir == Path("runs/imagefolder-alexnet-small")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--preset", "quick", "--elite", "10"], "elite must be less than population"),
        (["--dataset", "imagefolder"], "--dataset imagefolder needs --data-root"),
        (
            ["--preset", "quick", "--mutation-prob", "1.5"],
            r"gene_mutation_prob must be at",
        ),
        (["--preset", "quick", "--train-samples", "9000"], "at most the 1437 examples"),
        (["--population", "1"], "must be at least 2, got 1"),
        (["--device", "cuda:77"], "device 'cuda:77' is not on this machine"),
        (["--max-params", "1000"], "--max-macs and --max-params need --minutes"),
        (
            ["--minutes", "1", "--dataset", "digits", "--space", "alexnet"],
            "--minutes needs --space resnet, mobilenet, cell",
        ),
        (["--minutes", "1", "--epochs", "3"], "--epochs cannot be given with --minutes"),
        (["--minutes", "1", "--strategy", "auto"], "--strategy cannot be given with"),
        (["--minutes", "0", "--dataset", "digits"], "seconds must be above 0, got 0.0"),
        (["--minutes", "0.001", "--dataset", "digits"], "minutes are too short: .* give at least"),
        (
            ["--minutes", "1", "--dataset", "digits", "--max-params", "10"],
            "at most 10 weights.* too small",
        ),
    ],
)
def test_wrong_options(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        cifar10_alexnet.main([*argv, "--run-dir", str(tmp_path / "run")])
    assert ended.value.code == 2
    text = capsys.readouterr().err
    assert re.search(message, text), text
    assert not (tmp_path / "run").exists()


def test_missing_images_are_an_error_without_a_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    argv = ["--dataset", "imagefolder", "--data-root", str(tmp_path / "none")]
    assert cifar10_alexnet.main([*argv, "--run-dir", str(tmp_path / "run")]) == 1
    text = capsys.readouterr().err
    assert text.startswith("\nerror: ")
    assert "none must be a folder" in text
    assert "Traceback" not in text


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two classes of images, dark and bright, for training and for testing."""
    pil = pytest.importorskip("PIL.Image")
    root = tmp_path_factory.mktemp("Two Kinds")
    generator = torch.Generator().manual_seed(0)
    for part, n in [("train", 20), ("test", 6)]:
        for label, offset in [("bright", 150), ("dark", 0)]:
            folder = root / part / label
            folder.mkdir(parents=True)
            for number in range(n):
                pixels = torch.randint(0, 100, (32, 32, 3), generator=generator) + offset
                pil.fromarray(pixels.to(torch.uint8).numpy()).save(folder / f"{number}.png")
    return root


@pytest.fixture
def arguments(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("EVONAS_CACHE", str(tmp_path / "cache"))
    text = (
        "--dataset imagefolder --space alexnet-small --train-samples 24 --val-samples 8"
        " --population 3 --generations 2 --elite 1 --epochs 1 --batch-size 8 --threads 1"
        " --precision float32 --device cpu --seed 1"
    )
    return [*text.split(), "--data-root", str(images), "--run-dir", str(tmp_path / "run")]


def test_from_search_to_tested_champion(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert cifar10_alexnet.main(arguments) == 0
    text = capsys.readouterr().out
    assert "24 training and 8 validation images of 3x32x32, 2 classes" in text
    assert "one training takes about" in text
    assert "gen evaluated reused failed" in text
    assert "2 generations are done: 5 networks trained, 0 duplicates reused" in text
    assert f"train_champion.py {run} --epochs 50" in text
    label = dataset_label("imagefolder", open_root(arguments))
    assert label.startswith("two-kinds")
    for number in range(5):
        assert (run / "ga_architecture" / f"ga-alexnet-{number}.py").is_file()
        folder = run / "stats" / f"img-classification_{label}_acc_ga-alexnet-{number}"
        assert [path.name for path in folder.iterdir()] == ["0.json"]

    # The same command again: nothing is left to do. Confirmation is a further step of the run.
    assert cifar10_alexnet.main([*arguments, "--confirm-seeds", "1"]) == 0
    text = capsys.readouterr().out
    assert "5 networks trained" in text
    assert "mean of 1 fresh seeds" in text
    assert "one training takes about" not in text
    assert "going on after 5 trainings" in text

    # Another search in the same directory is refused.
    assert cifar10_alexnet.main([*arguments, "--epochs", "2"]) == 1
    text = capsys.readouterr().err
    assert "another problem (n_epochs: 1 in the run, 2 here): pass a new run_dir" in text

    assert train_champion.main([str(run), "--epochs", "2", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert "40 training and 12 test images, 2 epochs, 32x32 + FlipCrop" in text
    assert ", float32 on cpu" in text
    accuracy = float(text.split("test accuracy ")[-1].split()[0])
    champion: dict[str, Any] = {"__name__": "champion", "__file__": str(run / "champion.py")}
    exec((run / "ga-champ-alexnet.py").read_text(), champion)
    net = champion["load"](run / "ga-champ-alexnet-trained.pt")
    test = open_dataset("imagefolder", open_root(arguments), part="test")
    found = champion["predict"](net, test.inputs).argmax(1)
    assert float((found == test.targets).float().mean()) == pytest.approx(accuracy, abs=1e-4)


def test_without_test_images_the_champion_is_held_against_the_validation_images(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    flat = f"{open_root(arguments)}/train"
    arguments[arguments.index("--data-root") + 1] = flat
    assert cifar10_alexnet.main([*arguments, "--max-evaluations", "2"]) == 0
    assert train_champion.main([str(tmp_path / "run"), "--epochs", "1", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert f"{flat} has no test/: trained without the validation images" in text
    assert "24 training and 8 validation images, 1 epochs" in text
    assert "validation accuracy" in text.splitlines()[-2]


def test_the_champion_is_tested_on_images_normalised_as_in_the_search(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    cifar10_alexnet.main([*arguments, "--quiet", "--generations", "1"])
    champion: dict[str, Any] = {"__name__": "champion"}
    exec((run / "ga-champ-alexnet.py").read_text(), champion)
    seen: list[torch.Tensor] = []

    def train_final(problem: Any, genes: Any, train: Any, test: Any, **_: Any) -> FinalTraining:
        seen.append(next(test.batches(100))[0])
        return FinalTraining(0.5, 0.5, Progress(), torch.nn.Identity())

    monkeypatch.setattr(train_champion, "train_final", train_final)
    assert train_champion.main([str(run)]) == 0
    images = open_dataset("imagefolder", open_root(arguments), part="test").inputs / 255
    mean, std = (torch.tensor(champion[name]).view(-1, 1, 1) for name in ("MEAN", "STD"))
    torch.testing.assert_close(seen[0], (images - mean) / std)


def open_root(arguments: list[str]) -> str:
    return arguments[arguments.index("--data-root") + 1]


def test_an_interrupted_search_says_how_to_go_on(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise en.SearchInterrupted("stopped by Ctrl-C: 3 evaluations are saved")

    monkeypatch.setattr(en, "evolve", interrupted)
    assert cifar10_alexnet.main(arguments) == 130
    assert "stopped by Ctrl-C: 3 evaluations are saved" in capsys.readouterr().err


def test_a_run_of_something_else_has_no_champion_to_train(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    en.evolve(
        {"x": [1, 2]}, lambda genes, trial: genes["x"], population=2, run_dir=tmp_path / "other"
    )
    assert train_champion.main([str(tmp_path / "other")]) == 1
    assert "must be a run of examples/cifar10_alexnet.py" in capsys.readouterr().err
    assert train_champion.main([str(tmp_path / "none")]) == 1
    assert "error: " in capsys.readouterr().err


@pytest.fixture
def forecast(capsys: pytest.CaptureFixture[str]) -> Callable[[float, str], str]:
    """What is said after a first training of so many seconds on a device."""

    def said(seconds: float, device: str) -> str:
        counts = Counts(by_status={"ok": 1})
        info = RunInfo(None, "generational", (), 1130, 25, False, counts, None)
        observer = cifar10_alexnet.Forecast(device, False)
        observer.on_start(info)
        epochs = tuple(
            en.EpochMetrics(epoch, 60.0 + seconds / 5 * (epoch + 1), {}) for epoch in range(5)
        )
        evaluation = en.Evaluation(0, "", {}, en.Status.OK, (0.5,), {}, epochs, seconds + 60)
        observer.on_evaluation(evaluation, evaluation)
        observer.on_evaluation(evaluation, evaluation)
        return capsys.readouterr().out

    return said


def test_a_long_search_on_a_cpu_is_announced(forecast: Callable[[float, str], str]) -> None:
    text = forecast(1000.0, "cpu")
    # Without the minute in which torch warmed up; and said once.
    assert "one training takes about 16 min;" in text
    assert text.count("about 13 d 1 h to go") == 1
    assert "--preset quick" in text
    assert "on this CPU" not in forecast(1000.0, "cuda:0")
    assert "on this CPU" not in forecast(1.0, "cpu")


def test_digits_keep_a_test_set_apart() -> None:
    train, test = open_dataset("digits"), open_dataset("digits", part="test")
    assert (len(train), len(test)) == (1437, 360)
    seen = {image.numpy().tobytes() for image in train.inputs}
    repeated = sum(image.numpy().tobytes() in seen for image in test.inputs)
    assert repeated == 0


def test_datasets_by_name(images: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EVONAS_CACHE", str(tmp_path))
    assert len(open_dataset("imagefolder", images)) == 40
    assert len(open_dataset("imagefolder", images, part="test")) == 12
    assert open_dataset("imagefolder", images, size=16).shape == (3, 16, 16)
    with pytest.raises(en.EvonasError, match=r"found no test/"):
        open_dataset("imagefolder", images / "train", part="test")
    with pytest.raises(ValueError, match="dataset must be one of cifar10, imagefolder, digits"):
        open_dataset("mnist")
    with pytest.raises(ValueError, match="needs the root of its images"):
        open_dataset("imagefolder")


@pytest.mark.slow
def test_the_quick_preset(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "cifar10_alexnet.py"), "--preset", "quick"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = en.open_run(tmp_path / "runs" / "cifar10-alexnet-quick")
    assert result.champion.values[0] > result.logbook[0]["mean"] + 0.2
    found = re.findall(r"(searched|by hand).*:  (0\.\d+|1\.0+)", done.stdout)
    assert [what for what, _ in found] == ["searched", "by hand"]
    assert all(float(value) > 0.9 for _, value in found)
    assert result.counts.failed == 0


@pytest.mark.slow
def test_a_search_in_minutes_goes_on_after_kills_and_ends_with_the_test_accuracy(
    tmp_path: Path,
) -> None:
    pytest.importorskip("sklearn", reason="pip install -e '.[examples]'")
    command = [sys.executable, str(EXAMPLES / "cifar10_alexnet.py"), "--minutes", "0.6"]
    command += ["--dataset", "digits", "--max-params", "4000", "--batch-size", "32"]
    command += ["--run-dir", str(tmp_path / "run")]
    for seconds in (9, 15, 25):  # in the measurement, the search, the final training
        started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(seconds)
        started.kill()
        started.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    found = re.fullmatch(r"test accuracy (\d\.\d{4})", lines[-1])
    assert found, done.stdout
    assert float(found[1]) > 0.85
    assert (tmp_path / "run" / "finalists" / "ga-champ-resnet-trained.pt").is_file()
