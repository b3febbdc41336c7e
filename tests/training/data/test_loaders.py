"""Data sets and loaders as sources of batches: structure, order, and what they are known by."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset

from evonas.exceptions import DataError
from evonas.training.data.loaders import GivenData, LoaderSource, as_source
from evonas.training.data.structure import join, map_tensors, n_examples, shapes_of

X, Y = torch.arange(40.0).reshape(20, 2), torch.arange(20)


class Items(Dataset[Any]):
    """Items made of a row's number."""

    def __init__(self, make: Any, n: int = 20) -> None:
        self.make, self.n = make, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


STRUCTURES: list[tuple[Any, Any]] = [
    (lambda i: (X[i], Y[i]), (4, 2)),
    (lambda i: [X[i], int(Y[i])], (4, 2)),
    (lambda i: (X[i], X[i] + 1, Y[i]), ((4, 2), (4, 2))),
    (lambda i: {"a": X[i], "labels": Y[i]}, {"a": (4, 2)}),
    (lambda i: {"a": X[i], "b": X[i], "target": Y[i]}, {"a": (4, 2), "b": (4, 2)}),
    (lambda i: (X[i].numpy(), np.int64(i)), (4, 2)),
]


@pytest.mark.parametrize(("make", "expected"), STRUCTURES)
def test_a_batch_is_inputs_and_targets(make: Any, expected: Any) -> None:
    source = as_source(Items(make), "train")
    inputs, targets = next(iter(source.batches(4)))
    assert torch.equal(targets, Y[:4])
    assert n_examples(inputs) == 4

    def shapes(value: Any) -> Any:
        if isinstance(value, Tensor):
            return tuple(value.shape)
        if isinstance(value, dict):
            return {name: shapes(entry) for name, entry in value.items()}
        return tuple(map(shapes, value))

    assert shapes(inputs) == expected


def test_a_seed_decides_the_order_and_nothing_global_is_drawn() -> None:
    def order(source: Any, seed: int) -> list[int]:
        return torch.cat([y for _, y in source.batches(3, seed=seed, shuffle=True)]).tolist()

    torch.manual_seed(5)
    state = torch.get_rng_state()
    for data in (
        Items(lambda i: (X[i], Y[i])),
        DataLoader(TensorDataset(X, Y), 3, shuffle=True, generator=torch.Generator()),
        DataLoader(
            TensorDataset(X, Y), 3,
            sampler=RandomSampler(TensorDataset(X, Y), generator=torch.Generator()),
            generator=torch.Generator(),
        ),
    ):  # fmt: skip
        source = LoaderSource(data)
        first = order(source, 1)
        assert sorted(first) == Y.tolist()
        assert order(source, 2) != first
        assert order(source, 1) == first
        assert torch.equal(torch.get_rng_state(), state)


def test_a_dataset_is_known_by_some_of_its_examples() -> None:
    def identity(make: Any, n: int = 20) -> str:
        return LoaderSource(Items(make, n)).identity

    plain = identity(lambda i: (X[i], Y[i]))
    assert identity(lambda i: (X[i], Y[i])) == plain
    assert identity(lambda i: (X[i], Y[i]), 10) != plain
    assert identity(lambda i: (X[i] + 1, Y[i])) != plain
    assert identity(lambda i: (X[i].numpy(), f"{i}")) != plain
    draws = [
        lambda i: (X[i] + torch.rand(2), Y[i]),
        lambda i: (X[i] + random.random(), Y[i]),
        lambda i: (X[i] + np.random.rand(), Y[i]),  # noqa: NPY002
    ]
    before = random.getstate(), torch.get_rng_state()
    for draw in draws:
        random.seed(len(draws))
        assert identity(draw) == identity(draw), "what is drawn at random does not count"
    random.setstate(before[0])
    assert len({identity(draw) for draw in draws}) == 3, "how it is drawn does"
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_what_a_function_opens_must_stay_what_it_was() -> None:
    shift = [0.0]

    def open_it() -> TensorDataset:
        return TensorDataset(X + shift[0], Y)

    data = GivenData(open_it, (X, Y))
    assert len(data.on("cpu")[0]) == 20
    travelled = GivenData.__new__(GivenData)
    travelled.__dict__.update(data.__getstate__())
    assert len(travelled.on("cpu")[0]) == 20
    shift[0] = 1.0
    travelled.__dict__.update(data.__getstate__())
    with pytest.raises(DataError, match="train opens are not those that the search began with"):
        travelled.on("cpu")


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        yield from ((X[i], Y[i]) for i in range(20))


def test_what_has_no_length_is_refused_with_the_way_out() -> None:
    with pytest.raises(TypeError, match=r"train: data must have a length, got Endless: wrap it"):
        as_source(Endless(), "train")
    with pytest.raises(ValueError, match="an empty TensorDataset"):
        LoaderSource(TensorDataset(X[:0], Y[:0]))
    with pytest.raises(ValueError, match="give the dataset a transform"):
        list(LoaderSource(TensorDataset(X, Y)).batches(2, augment=lambda x, g: x))


def test_structures() -> None:
    value = {"a": X, "b": [Y, "text"], "c": (X, None)}
    doubled = map_tensors(lambda tensor: tensor * 2, value)
    assert torch.equal(doubled["b"][0], Y * 2)
    assert doubled["b"][1] == "text"
    assert shapes_of(value) == (
        "{'a': float32 (20, 2), 'b': [int64 (20,), str], 'c': (float32 (20, 2), NoneType)}"
    )
    joined = join([{"a": X, "b": (Y,)}, {"a": X, "b": (Y,)}])
    assert joined["a"].shape == (40, 2)
    with pytest.raises(ValueError, match="cannot be joined for the metric: pass one with update"):
        join([torch.ones(2, 3), torch.ones(2, 4)])
    with pytest.raises(ValueError, match="must hold tensors"):
        n_examples({"a": "text"})


def test_a_loader_says_how_many_batches_it_makes() -> None:
    data = TensorDataset(X, Y)
    some = torch.utils.data.SubsetRandomSampler(range(6))
    batches = torch.utils.data.BatchSampler(torch.utils.data.SequentialSampler(data), 3, True)
    for loader, n_examples_, n_batches in (
        (DataLoader(data, 8), 20, 3),
        (DataLoader(data, 8, drop_last=True), 20, 2),
        (DataLoader(data, 4, sampler=some), 6, 2),
        (DataLoader(data, batch_sampler=batches), 20, 6),
    ):
        source = LoaderSource(loader)
        assert (len(source), source.n_batches(32)) == (n_examples_, n_batches)
        assert len(list(source.batches(32))) == n_batches
    assert LoaderSource(Items(lambda i: (X[i], Y[i]))).n_batches(8) == 3


def test_a_mapping_with_targets_and_datasets_of_other_libraries() -> None:
    source = as_source({"a": X, "labels": Y}, "train")
    inputs, targets = next(iter(source.batches(4)))
    assert torch.equal(inputs["a"], X[:4])
    assert torch.equal(targets, Y[:4])

    class Foreign:  # as of Hugging Face: no subclass of torch's
        def __len__(self) -> int:
            return 20

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"a": X[index], "label": Y[index]}

    inputs, targets = next(iter(as_source(Foreign(), "train").batches(4)))
    assert torch.equal(inputs["a"], X[:4])
    with pytest.raises(TypeError, match="train must be"):
        as_source(np.zeros(3), "train")
    with pytest.raises(TypeError, match="train must be"):
        as_source({"a": X}, "train")
