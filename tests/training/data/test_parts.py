"""Validation and test examples are labelled and normalised like the training examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import evonas as en
from evonas.cli import main
from evonas.exceptions import DataError
from evonas.freezing import FreezingProblem, RecipeProblem
from evonas.nas import FAMILIES, ImageClassificationProblem
from evonas.training import Examples, ModelProblem
from evonas.training.data.parts import matched

CLASSES = ("bird", "cat", "dog")


def images(classes: tuple[str, ...] = CLASSES, n: int = 24, bright: int = 100) -> Examples:
    """Images whose first pixel says which of the classes of the tree they are of."""
    labels = torch.arange(n) % len(classes)
    pixels = torch.full((n, 3, 16, 16), bright, dtype=torch.uint8)
    pixels[:, :, 1:] += (torch.arange(n) % 7).to(torch.uint8)[:, None, None, None]
    pixels[:, 0, 0, 0] = torch.tensor([CLASSES.index(classes[i]) for i in labels.tolist()])
    return Examples(pixels, labels, classes)


def test_labels_follow_the_names_of_the_classes() -> None:
    part = matched(images(("cat", "dog")), images(), "val")
    assert part.classes == CLASSES
    assert torch.equal(part.targets, part.inputs[:, 0, 0, 0].long())
    other = matched(images(("dog", "bird", "cat")), images(), "val")
    assert torch.equal(other.targets, other.inputs[:, 0, 0, 0].long())
    assert other.identity != images(("dog", "bird", "cat")).identity


def test_an_unknown_class_is_refused() -> None:
    train = images(("bird", "cat"))
    with pytest.raises(DataError, match="val has classes that train has not: dog; .* bird, cat"):
        matched(images(), train, "val")


def test_images_are_normalised_like_those_to_train_on() -> None:
    train, dark = images(), images(bright=20)
    assert dark.mean != train.mean
    part = matched(dark, train, "val")
    assert (part.mean, part.std) == (train.mean, train.std)
    assert float(part.gather(torch.arange(4)).mean()) < float(dark.gather(torch.arange(4)).mean())
    assert matched(train, train, "val") is train


def test_pixels_and_floats_are_not_mixed() -> None:
    train = images()
    floats = Examples(train.inputs / 255, train.targets, CLASSES)
    with pytest.raises(ValueError, match=r"val .*dtype of train, torch.uint8, got torch.float32"):
        matched(floats, train, "val")
    assert matched(floats, floats, "val") is floats


def test_images_of_another_size_or_with_other_channels_are_refused() -> None:
    train, labels = images(), torch.arange(8) % 3
    for shape in ((3, 32, 32), (1, 16, 16)):
        part = Examples(torch.ones(8, *shape, dtype=torch.uint8), labels, CLASSES)
        said = rf"val must have images .* of train, \(3, 16, 16\), got \({shape[0]}, {shape[1]}, "
        for problem in PROBLEMS.values():
            with pytest.raises(DataError, match=said):
                problem(train, part)
        with pytest.raises(DataError, match="test must have images"):
            matched(part, train, "test")
    small = Examples(torch.rand(8, 3, 16, 16), labels)
    halved = Examples(torch.rand(8, 3, 32, 32), labels, transform=lambda x: x[:, :, ::2, ::2])
    assert matched(small, halved, "val") is small, "what counts is what the model takes"


def test_data_sets_of_images_are_compared_too() -> None:
    def items(*shapes: tuple[int, ...]) -> list[tuple[torch.Tensor, int]]:
        return [(torch.rand(shapes[i % len(shapes)]), i % 3) for i in range(12)]

    def problem(train: Any, val: Any) -> ModelProblem:
        return ModelProblem({"lr": [0.1]}, model, train=train, val=val)

    plain = DataLoader(items((3, 16, 16)), 4)  # type: ignore[arg-type]
    other = DataLoader(items((3, 32, 32)), 4)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"train, \(3, 16, 16\), got \(3, 32, 32\): .*size=16"):
        problem(plain, other)
    with pytest.raises(DataError, match=r"train, \(3, 16, 16\), got \(3, 32, 32\)"):
        problem((torch.rand(12, 3, 16, 16), torch.arange(12) % 3), other)
    one_by_one = DataLoader(items((3, 16, 16), (3, 32, 32)), 1)  # type: ignore[arg-type]
    assert problem(plain, one_by_one).space


def test_a_model_that_cannot_take_the_validation_examples_is_refused() -> None:
    x, y = torch.rand(12, 4), torch.arange(12) % 3
    with pytest.raises(ValueError, match=r"cannot be validated on .* inputs float32 \(2, 5\)"):
        ModelProblem({"lr": [0.1]}, lambda g: nn.Linear(4, 3), (x, y), (torch.rand(12, 5), y))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.body(x).flatten(1))


def model(genes: Any) -> nn.Module:
    return Net()


PROBLEMS: dict[str, Any] = {
    "model": lambda train, val: ModelProblem({"lr": [0.1]}, model, train=train, val=val),
    "opened": lambda train, val: ModelProblem(
        {"lr": [0.1]}, model, train=lambda: train, val=lambda: val
    ),
    "mask": lambda train, val: FreezingProblem(Net, train, val, n_epochs=1),
    "recipe": lambda train, val: RecipeProblem(Net, train, val, n_epochs=1),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_match_their_parts(name: str) -> None:
    train = images(n=48)
    problem = PROBLEMS[name](train, images(("cat", "dog"), bright=20))
    _, val = problem.sources(en.Trial())
    assert (val.mean, val.std) == (train.mean, train.std)
    assert torch.equal(val.targets, val.inputs[:, 0, 0, 0].long())
    with pytest.raises(DataError, match="val has classes that train has not: dog"):
        PROBLEMS[name](images(("bird", "cat")), images())


def test_test_examples_of_a_mask_are_matched_too() -> None:
    train = images(n=48)
    problem = FreezingProblem(Net, train, images(bright=90), n_epochs=1)
    tested = problem.with_test(images(("dog", "bird"), bright=20))
    assert tested._test is not None
    assert tested._test.classes == CLASSES
    assert tested._test.mean == train.mean
    with pytest.raises(DataError, match="test has classes that train has not: fox"):
        problem.with_test(Examples(images().inputs, images().targets, ("bird", "cat", "fox")))


def test_images_to_validate_networks_on_may_lack_a_class() -> None:
    family = FAMILIES["resnet"]
    problem = ImageClassificationProblem(
        family.space(in_shape=(3, 16, 16)), family.network, images(n=48),
        val=images(("cat", "dog")),
    )  # fmt: skip
    _, val = problem.splits
    data = problem.data
    assert torch.equal(data.targets[val], data.inputs[val][:, 0, 0, 0].long())


def test_what_is_done_to_inputs_is_on_record_with_the_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = images(n=48)
    problem = ModelProblem(
        {"lr": [0.1]}, model, train=train, val=images(("cat", "dog")), n_epochs=1,
        precision="float32",
    )  # fmt: skip
    en.evolve(problem, max_evaluations=1, seed=0, run_dir=tmp_path / "run", progress=False)
    champion = en.open_run(tmp_path / "run").champion
    assert champion.preprocessing == {
        "scale": 255, "mean": list(train.mean), "std": list(train.std), "size": [16, 16],
        "classes": list(CLASSES),
    }  # fmt: skip
    steps = champion.preprocessing
    mean, std = (torch.tensor(steps[name]).view(-1, 1, 1) for name in ("mean", "std"))
    by_hand = (train.inputs[:4] / steps["scale"] - mean) / std
    assert torch.allclose(by_hand, train.gather(torch.arange(4)), atol=1e-5)
    exact = [tuple(steps[name]) for name in ("mean", "std")]
    said = f"images 16 × 16, (input / 255 - mean) / std, with mean {exact[0]} and std {exact[1]}"
    classes = ", ".join(f"{place} {name}" for place, name in enumerate(CLASSES))
    run = str(tmp_path / "run")
    main(["show", run])
    shown = " ".join(capsys.readouterr().out.split())
    assert said in shown
    assert f"its classes {classes}" in shown
    main(["show", run, "--json"])
    assert json.loads(capsys.readouterr().out)["champion"]["preprocessing"] == steps
    main(["export", run, "--format", "safetensors", "-o", str(tmp_path / "model.safetensors")])
    exported = capsys.readouterr().out
    assert f"its inputs: {said}\nits classes: {classes}\n" in exported
    safe_open = pytest.importorskip("safetensors").safe_open
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        about = file.metadata()
    assert json.loads(about["preprocessing"]) == steps
    assert about["precision"] == "float32"


def tenth(x: torch.Tensor) -> torch.Tensor:
    return x * 0.1


def test_a_transform_of_the_users_belongs_to_what_is_on_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, train: Examples) -> Any:
        problem = ModelProblem({"lr": [0.1]}, model, train, train, n_epochs=1, precision="float32")
        en.evolve(problem, max_evaluations=1, seed=0, run_dir=tmp_path / name, progress=False)
        return en.open_run(tmp_path / name).champion.preprocessing

    plain = images()
    pixels = Examples(plain.inputs, plain.targets, CLASSES, transform=tenth)
    steps = run("pixels", pixels)
    mean, std = (torch.tensor(steps[name]).view(-1, 1, 1) for name in ("mean", "std"))
    by_hand = {"tenth": tenth}[steps["transform"]]((pixels.inputs / steps["scale"] - mean) / std)
    assert torch.allclose(by_hand, pixels.gather(torch.arange(len(pixels))), atol=1e-6)
    main(["show", str(tmp_path / "pixels")])
    assert ", then your transform tenth" in " ".join(capsys.readouterr().out.split())
    main([
        "export", str(tmp_path / "pixels"), "--format", "safetensors",
        "-o", str(tmp_path / "model.safetensors"),
    ])  # fmt: skip
    assert ", then your transform tenth\n" in capsys.readouterr().out
    safe_open = pytest.importorskip("safetensors").safe_open
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["preprocessing"]) == steps
    floats = Examples(torch.rand(24, 3, 16, 16), plain.targets, transform=lambda x: x * 0.1)
    assert run("floats", floats) == {"transform": "lambda"}
    main(["show", str(tmp_path / "floats")])
    assert "its inputs  your transform lambda" in capsys.readouterr().out


def test_joined_parts_keep_their_transform() -> None:
    plain = images()
    part = Examples(plain.inputs, plain.targets, CLASSES, transform=tenth)
    joined = part.joined(part)
    first = torch.arange(4)
    assert torch.equal(joined.gather(first), part.gather(first))
    with pytest.raises(DataError, match="must have one transform, got <function tenth .* and None"):
        part.joined(plain)


def test_nothing_is_said_of_inputs_that_are_taken_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = torch.randn(40, 3, 16, 16)
    problem = ModelProblem(
        {"lr": [0.1]}, model, train=(x, torch.arange(40) % 3), val=(x, torch.arange(40) % 3),
        n_epochs=1, precision="float32",
    )  # fmt: skip
    en.evolve(problem, max_evaluations=1, seed=0, run_dir=tmp_path / "run", progress=False)
    assert en.open_run(tmp_path / "run").champion.preprocessing == {}
    main(["show", str(tmp_path / "run")])
    assert "its inputs" not in capsys.readouterr().out


def test_frozen_and_searched_networks_have_it_on_record_too(tmp_path: Path) -> None:
    train = images(n=48)
    frozen = FreezingProblem(Net, train, images(n=24, bright=90), n_epochs=1)
    family = FAMILIES["resnet"]
    space = family.space(max_macs=300_000, in_shape=(3, 16, 16))
    searched = ImageClassificationProblem(
        space, family.network, train, n_epochs=1, n_val=12, precision="float32"
    )
    start: Any = family.start
    for name, problem in (("frozen", frozen), ("searched", searched)):
        points = [] if name == "frozen" else [start(max_macs=300_000, in_shape=(3, 16, 16))]
        result = en.evolve(
            problem, initial=points, strategy="random", max_evaluations=1, seed=0, progress=False,
            run_dir=tmp_path / name,
        )  # fmt: skip
        data = train if name == "frozen" else searched.data
        assert result.champion.preprocessing["mean"] == list(data.mean)
