"""What data sets and loaders are known by: a run does not go on with others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

import evonas as en
from evonas.exceptions import RunMismatchError
from evonas.training import ModelProblem
from evonas.training.data.loaders import GivenData, LoaderSource

X, Y = torch.arange(40.0).reshape(20, 2), torch.arange(20) % 2
PLAIN = TensorDataset(X, Y)


class Noisy(Dataset[Any]):
    """Examples with noise, whose strength the examples that are read do not tell."""

    def __init__(self, noise: float, transform: Any = None) -> None:
        self.noise, self.transform = noise, transform
        self.n_read = 0

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Any:
        self.n_read += 1
        return X[index] + self.noise * torch.rand(2), int(Y[index])


class Jitter:
    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.strength * torch.rand_like(x)


class Several:
    """As `Compose` of torchvision: functions in a list."""

    def __init__(self, *transforms: Any) -> None:
        self.transforms = list(transforms)

    def __call__(self, x: Any) -> Any:
        for each in self.transforms:
            x = each(x)
        return x


def doubled(batch: Any) -> Any:
    x, y = default_collate(batch)
    return 2 * x, y


def known(data: Any) -> str:
    return LoaderSource(data).identity


def weighted(*weights: float) -> DataLoader[Any]:
    return DataLoader(PLAIN, 4, sampler=WeightedRandomSampler(weights, 20))


def bucketed(indices: Any, size: int = 4) -> DataLoader[Any]:
    return DataLoader(PLAIN, batch_sampler=BatchSampler(SubsetRandomSampler(indices), size, False))


DIFFERENT: dict[str, list[Any]] = {
    "drop_last, order, function": [
        lambda: DataLoader(PLAIN, 8),
        lambda: DataLoader(PLAIN, 4),
        lambda: DataLoader(PLAIN, 8, drop_last=True),
        lambda: DataLoader(PLAIN, 8, shuffle=True),
        lambda: DataLoader(PLAIN, 8, collate_fn=doubled),
        lambda: DataLoader(Subset(PLAIN, range(20)), 8),
    ],
    "weights": [lambda: weighted(*[1.0] * 20), lambda: weighted(*[1.0] * 19, 9.0)],
    "batch samplers": [
        lambda: bucketed([1, 2, 3, 4]), lambda: bucketed([1, 2, 3, 5]), lambda: bucketed([1, 2], 1)
    ],
    "lists": [
        lambda: DataLoader(PLAIN, batch_sampler=[[0, 1], [2]]),
        lambda: DataLoader(PLAIN, batch_sampler=[[0, 1], [3]]),
        lambda: DataLoader(PLAIN, 4, sampler=range(8)),
        lambda: DataLoader(PLAIN, 4, sampler=range(8, 16)),
    ],
    "attributes": [lambda: Noisy(0.1), lambda: Noisy(0.2)],
    "attributes of what is wrapped": [
        lambda: DataLoader(Subset(Noisy(0.1), range(9))),
        lambda: DataLoader(Subset(Noisy(0.2), range(9))),
        lambda: DataLoader(Subset(Noisy(0.1), range(1, 10))),
    ],
    "transforms": [
        lambda: Noisy(0.1, Jitter(0.1)),
        lambda: Noisy(0.1, Jitter(0.2)),
        lambda: Noisy(0.1, Several(Jitter(0.1))),
        lambda: Noisy(0.1, Several(Jitter(0.2))),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_makes_other_batches_is_another_identity(name: str) -> None:
    makes = DIFFERENT[name]
    assert [known(make()) for make in makes] == [known(make()) for make in makes]
    assert len({known(make()) for make in makes}) == len(makes)


def test_how_often_and_by_how_many_workers_it_is_read_does_not_count() -> None:
    data = Noisy(0.1)
    before = known(data)
    list(LoaderSource(data).batches(4))
    assert known(data) == before
    assert known(DataLoader(PLAIN, 4, num_workers=2)) == known(DataLoader(PLAIN, 4))


def test_a_transform_of_torchvision_counts_with_its_settings() -> None:
    transforms = pytest.importorskip("torchvision.transforms")

    def made(degrees: int) -> str:
        steps = [transforms.RandomRotation(degrees), transforms.ToTensor()]
        return known(Noisy(0.1, transforms.Compose(steps)))

    assert made(10) == made(10)
    assert made(10) != made(20)


def test_an_iterable_data_set_is_known_too() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            yield from ((X[i], Y[i]) for i in range(20))

        def __len__(self) -> int:
            return 20

    assert "20 examples" in known(DataLoader(Stream(), 4))
    with pytest.raises(ValueError, match="only 18 of 20 examples would be scored"):
        GivenData(PLAIN, DataLoader(Stream(), 6, drop_last=True))


def test_a_run_does_not_go_on_with_another_loader(tmp_path: Path) -> None:
    def search(train: Any) -> Any:
        problem = ModelProblem(
            {"lr": [0.01, 0.1]}, lambda genes: torch.nn.Linear(2, 2), train, PLAIN, n_epochs=1,
            precision="float32", problem_id="linear",
        )  # fmt: skip
        return en.evolve(
            problem, max_evaluations=2, seed=0, run_dir=tmp_path / "run", progress=False
        )

    assert search(DataLoader(PLAIN, 8, shuffle=True)).counts.evaluated == 2
    assert search(DataLoader(PLAIN, 8, shuffle=True)).counts.evaluated == 2
    for other in (DataLoader(PLAIN, 8), DataLoader(PLAIN, 8, shuffle=True, drop_last=True)):
        with pytest.raises(RunMismatchError, match="train"):
            search(other)


def test_a_loader_that_leaves_validation_examples_out_is_refused() -> None:
    said = r"val: its DataLoader has drop_last=True, so only 16 of 20 examples .* drop_last=False"
    with pytest.raises(ValueError, match=said):
        GivenData(PLAIN, DataLoader(PLAIN, 8, drop_last=True))
    own = BatchSampler(SequentialSampler(range(11)), 8, drop_last=True)
    with pytest.raises(ValueError, match="only 8 of 11 examples"):
        GivenData(PLAIN, DataLoader(PLAIN, batch_sampler=own))
    for complete in (DataLoader(PLAIN, 5, drop_last=True), DataLoader(PLAIN, 8)):
        _, val = GivenData(DataLoader(PLAIN, 8, drop_last=True), complete).on("cpu")
        assert sum(len(y) for _, y in val.batches(1)) == 20
    with pytest.raises(ValueError, match="train: a DataLoader must make at least one batch"):
        GivenData(DataLoader(PLAIN, 32, drop_last=True), PLAIN)
