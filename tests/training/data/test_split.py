from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from evonas.training import Examples, split


def test_identity_is_a_sha256_of_content_whatever_the_memory_layout(data: Examples) -> None:
    same = Examples(
        data.inputs.to(memory_format=torch.channels_last), data.targets.clone(), data.classes
    )
    assert same.identity == data.identity
    assert len(data.identity) == len(hashlib.sha256().hexdigest())


@pytest.mark.parametrize("what", ["image", "label", "class", "dtype", "order"])
def test_identity_changes_with_any_content(data: Examples, what: str) -> None:
    images, labels, classes = data.inputs.clone(), data.targets.clone(), data.classes
    if what == "image":
        images[59, 2, 7, 7] ^= 1
    elif what == "label":
        labels[0] = 1
    elif what == "class":
        classes = ("a", "b", "d")
    elif what == "dtype":
        images = images.float()
    else:
        images, labels = images.flip(0), labels.flip(0)
    assert Examples(images, labels, classes).identity != data.identity


def test_mean_and_std_are_those_of_numpy(data: Examples) -> None:
    pixels = data.inputs.numpy() / 255
    assert data.mean == pytest.approx(pixels.mean((0, 2, 3)), abs=1e-6)
    assert data.std == pytest.approx(pixels.std((0, 2, 3)), abs=1e-6)


def test_mean_and_std_do_not_depend_on_threads(data: Examples) -> None:
    floats = Examples(data.inputs.float(), data.targets, data.classes)
    assert floats.mean == ()  # only uint8 is sure to be pixels
    one = floats.normalised_from(range(60))
    torch.set_num_threads(2)
    two = floats.normalised_from(range(60))
    assert (one.mean, one.std) == (two.mean, two.std)


def test_normalisation_can_come_from_a_part_and_from_another(data: Examples) -> None:
    part = data.normalised_from(range(10))
    assert part.mean == data.subset(range(10)).normalised_from(range(10)).mean != data.mean
    assert part.identity != data.identity  # what the network sees is another
    test = data.subset([50, 51]).normalised_like(part)
    assert (test.mean, test.std) == (part.mean, part.std)


def test_a_channel_that_never_varies_has_a_std_of_one() -> None:
    data = Examples(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 0]), ("a",))
    assert data.std == (1.0,)


def test_subset_holds_the_examples_in_the_order_asked_for(data: Examples) -> None:
    part = data.subset([5, 3])
    assert torch.equal(part.inputs, data.inputs[[5, 3]])
    assert part.targets.tolist() == [2, 0]
    assert part.mean == data.mean
    assert part.identity != data.identity
    last = Examples(
        data.inputs.to(memory_format=torch.channels_last), data.targets, data.classes
    ).subset([1, 2])
    assert last.inputs.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("images", "labels", "classes", "message"),
    [
        (torch.zeros(2, 1, 4, 4), [0, 1, 0], 2, "got 2 and 3"),
        (torch.zeros(2, 1, 4, 4), [0, 2], 2, r"in \[0, 2\) .* got 0 to 2"),
        (torch.zeros(2, 1, 4, 4), [-1, 1], 2, "got -1 to 1"),
        (torch.zeros(0, 1, 4, 4), [], 1, "must be at least one"),
    ],
)
def test_what_does_not_fit_is_refused(
    images: torch.Tensor, labels: list[int], classes: int, message: str
) -> None:
    names = tuple(str(number) for number in range(classes))
    with pytest.raises((TypeError, ValueError), match=message):
        Examples(images, torch.tensor(labels, dtype=torch.int64), names)


def test_float_labels_and_wrong_normalisation_are_refused(data: Examples) -> None:
    with pytest.raises(TypeError, match="labels must be int64"):
        Examples(data.inputs, data.targets.float(), data.classes)
    with pytest.raises(ValueError, match="one value for each of 3 channels, got 1 and 1"):
        Examples(data.inputs, data.targets, data.classes, mean=(0.5,), std=(0.5,))
    with pytest.raises(ValueError, match="std must be positive"):
        Examples(data.inputs, data.targets, data.classes, mean=(0.0,) * 3, std=(0.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="given together"):
        Examples(data.inputs, data.targets, data.classes, mean=(0.0,) * 3)


@pytest.mark.parametrize(
    ("indices", "message"),
    [([60], "to 60"), ([-1], "got -1"), ([], "got none"), ([0.5], "integers")],
)
def test_indices_outside_the_data_are_refused(
    data: Examples, indices: list[int], message: str
) -> None:
    for take in (data.subset, data.normalised_from, lambda i: data.subset(i)):
        with pytest.raises((TypeError, ValueError), match=message):
            take(indices)


def test_split_parts_are_disjoint_and_cover_the_data(data: Examples) -> None:
    train, val = split(data, seed=0)
    assert (len(train), len(val)) == (48, 12)
    assert sorted(train.tolist() + val.tolist()) == list(range(60))
    assert train.tolist() == sorted(train.tolist())


def test_split_is_decided_by_its_seed_alone(data: Examples) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = split(data, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = split(data, seed=7)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(split(data, seed=8)[1], first[1])


@pytest.mark.parametrize(("n_train", "n_val"), [(None, None), (900, 600), (7, 3), (1, 5999)])
def test_split_is_stratified(n_train: int | None, n_val: int | None) -> None:
    labels = torch.tensor([0] * 3000 + [1] * 2000 + [2] * 1000)
    data = Examples(torch.zeros(6000, 1), labels, ("a", "b", "c"))
    for part in split(data, seed=3, n_train=n_train, n_val=n_val):
        expected = np.array([3000, 2000, 1000]) / 6000 * len(part)
        assert np.abs(labels[part].bincount(minlength=3).numpy() - expected).max() < 2


def test_the_validation_part_does_not_depend_on_how_many_are_trained_on(data: Examples) -> None:
    few, many = split(data, seed=0, n_train=5, n_val=12), split(data, seed=0, n_val=12)
    assert torch.equal(few[1], many[1])
    assert len(few[0]) == 5


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"val_fraction": 0.0}, r"val_fraction must be in \(0, 1\), got 0.0"),
        ({"val_fraction": 1.0}, r"val_fraction must be in \(0, 1\)"),
        ({"val_fraction": 0.001}, "got 60 for training and 0 for validation"),
        ({"n_val": 60}, "got 0 for training"),
        ({"n_train": 0}, "n_train must be at least 1, got 0"),
        ({"n_train": 50, "n_val": 11}, r"at most the 60 examples there are, got 50 \+ 11"),
    ],
)
def test_empty_and_excessive_parts_are_refused(
    data: Examples, wanted: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        split(data, seed=0, **wanted)  # type: ignore[arg-type]
