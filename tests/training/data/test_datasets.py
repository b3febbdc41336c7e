"""What data sets of torch say of themselves: classes that train and val must number alike."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from evonas.exceptions import DataError
from evonas.training import Examples, ModelProblem
from evonas.training.data.datasets import class_labels
from evonas.training.data.loaders import GivenData, LoaderSource

CLASSES = ("bird", "cat", "dog")


class Pictures(Dataset[Any]):
    """Images of classes, which it names and numbers from 0."""

    def __init__(
        self, *classes: str, target_transform: Any = None, side: int = 8, channels: int = 3
    ) -> None:
        self.classes = list(classes)
        self.target_transform = target_transform
        self.shape = channels, side, side

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        label = index % len(self.classes)
        change = self.target_transform
        return torch.full(self.shape, label / 3), label if change is None else change(label)


class Wrapper(Dataset[Any]):
    """A data set that changes the examples of another."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        return self.inner[index]


def model(genes: Any) -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    )  # fmt: skip


WRAPPED = [
    lambda data: data,
    lambda data: DataLoader(data, 4),
    lambda data: Subset(data, range(6)),
    lambda data: DataLoader(Subset(Subset(data, range(8)), range(6)), 4),
    lambda data: DataLoader(Wrapper(Subset(data, range(6))), 4),
    lambda data: ConcatDataset([data, data]),
]


@pytest.mark.parametrize("wrap", WRAPPED)
def test_a_val_set_that_lacks_the_first_class_is_refused(wrap: Any) -> None:
    said = "the class 'cat' has the label 0 in val and is 1 in train: .* load_image_folder"
    with pytest.raises(DataError, match=said):
        ModelProblem({"lr": [0.1]}, model, wrap(Pictures(*CLASSES)), wrap(Pictures("cat", "dog")))
    with pytest.raises(DataError, match="'dog' has the label 2 in val and is unknown to train"):
        GivenData(wrap(Pictures("bird", "cat")), wrap(Pictures(*CLASSES)))
    last_is_missing = wrap(Pictures("bird", "cat"))
    assert GivenData(wrap(Pictures(*CLASSES)), last_is_missing).on("cpu")


def test_a_target_transform_that_makes_labels_the_same_is_taken() -> None:
    train = Pictures(*CLASSES)
    shifted = Pictures("cat", "dog", target_transform=lambda label: label + 1)
    _, val = GivenData(train, DataLoader(shifted, 12)).on("cpu")
    _, labels = next(iter(val.batches(12)))
    assert labels[:4].tolist() == [1, 2, 1, 2]
    wrong = Pictures("cat", "dog", target_transform=torch.tensor)
    with pytest.raises(DataError, match="'cat' has the label 0 in val"):
        GivenData(train, wrong)
    one_hot = Pictures("cat", target_transform=lambda label: [float(label == i) for i in range(3)])
    assert class_labels(one_hot) == {}


def test_folders_of_images_are_compared_by_their_names(tmp_path: Path) -> None:
    folders = pytest.importorskip("torchvision.datasets").ImageFolder
    image = pytest.importorskip("PIL.Image")
    for part, classes in (("train", CLASSES), ("val", CLASSES[1:])):
        for name in classes:
            (tmp_path / part / name).mkdir(parents=True)
            image.new("RGB", (8, 8)).save(tmp_path / part / name / "0.png")
    train, val = (folders(tmp_path / part) for part in ("train", "val"))
    assert class_labels(val) == {"cat": 0, "dog": 1}
    with pytest.raises(DataError, match="'cat' has the label 0 in val and is 1 in train"):
        GivenData(train, val, unpack=lambda batch: batch)


def test_examples_in_memory_are_compared_with_a_data_set() -> None:
    pixels, labels = torch.rand(6, 3, 8, 8), torch.arange(6) % 3
    with pytest.raises(DataError, match="'cat' has the label 0 in val and is 1 in train"):
        GivenData(Examples(pixels, labels, CLASSES), Pictures("cat", "dog"))
    numbers = Examples(pixels, labels, ("0", "1", "2"))  # as from_tensors names classes
    assert GivenData(numbers, Pictures("cat", "dog")).on("cpu")


def test_the_names_are_found_where_data_sets_have_them() -> None:
    label = SimpleNamespace(names=["cat", "dog"])  # as of Hugging Face
    assert class_labels(SimpleNamespace(features={"label": label})) == {"cat": 0, "dog": 1}
    data = Pictures()
    data.classes = [3, 7]  # type: ignore[list-item]
    assert class_labels(data) == {}
    named = Subset(Pictures(*CLASSES), [0])
    named.classes = ["own"]  # type: ignore[attr-defined]
    assert LoaderSource(named).class_labels == {"own": 0}, "of a data set that changes the labels"
    loop = Wrapper(None)
    loop.inner = loop
    assert class_labels(loop) == {}
