from __future__ import annotations

import pytest
import torch
from torch import Tensor

from evonas.training import Examples, FlipCrop, split


def numbers(batch: Tensor, data: Examples) -> list[int]:
    """The numbers of the images of a batch, which are their pixel (0, 0) of channel 0."""
    assert data.mean is not None
    assert data.std is not None
    pixels = batch[:, 0, 0, 0].float() * data.std[0] + data.mean[0]
    return (pixels * 255).round().int().tolist()


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_covers_every_example_once(data: Examples, shuffle: bool) -> None:
    batches = list(data.batches(16, seed=0, shuffle=shuffle))
    assert [len(labels) for _, labels in batches] == [16, 16, 16, 12]
    seen = [number for inputs, _ in batches for number in numbers(inputs, data)]
    assert sorted(seen) == list(range(60))
    assert (seen == list(range(60))) is not shuffle
    assert torch.cat([labels for _, labels in batches]).tolist() == [n % 3 for n in seen]


def test_batches_are_normalised_as_torchvision_does(data: Examples) -> None:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (data.mean, data.std))
    expected = (data.inputs.float() / 255 - mean) / std
    ((inputs, _),) = data.batches(60)
    assert inputs.dtype == torch.float32
    torch.testing.assert_close(inputs, expected, rtol=0, atol=1e-5)
    assert inputs.is_contiguous(memory_format=torch.channels_last)


def test_indices_choose_the_examples_without_copying_them(data: Examples) -> None:
    data = Examples(data.inputs.to(memory_format=torch.channels_last), data.targets, data.classes)
    train, val = split(data, seed=0)
    resident = data.subset(val)
    assert resident._fixed[""].data_ptr() == data.inputs.data_ptr()
    ((inputs, labels),) = resident.batches(60)
    assert numbers(inputs, data) == val.tolist()
    assert torch.equal(labels, data.targets[val])
    assert torch.equal(resident.targets, labels)
    assert len(resident) == len(val) < len(train)


def test_order_and_augmentation_are_decided_by_the_seed_alone(data: Examples) -> None:
    resident = data

    def epoch(seed: int) -> Tensor:
        batches = resident.batches(16, seed=seed, shuffle=True, augment=FlipCrop(pad=2))
        return torch.cat([inputs for inputs, _ in batches])

    before = torch.get_rng_state()
    first = epoch(5)
    torch.rand(3)
    assert torch.equal(epoch(5), first)
    assert not torch.equal(epoch(6), first)
    torch.set_rng_state(before)
    epoch(5)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_crop_is_a_shift_of_its_image_mirrored_or_not(
    data: Examples, layout: torch.memory_format
) -> None:
    images = data.inputs.to(memory_format=layout)
    out = FlipCrop(pad=2)(images, torch.Generator().manual_seed(1))
    assert out.shape == images.shape
    assert out.dtype == torch.uint8
    padded = torch.nn.functional.pad(data.inputs, (2, 2, 2, 2))
    places = set()
    for before, after in zip(padded, out, strict=True):
        matches = [
            (y, x, mirrored)
            for y in range(5)
            for x in range(5)
            for mirrored in (False, True)
            if torch.equal(
                before[:, y : y + 8, x : x + 8].flip(2)
                if mirrored
                else before[:, y : y + 8, x : x + 8],
                after,
            )
        ]
        assert matches
        places.update(matches)
    assert {y for y, _, _ in places} == {x for _, x, _ in places} == set(range(5))
    for kind in (False, True):  # mirroring does not depend on the shift
        assert {0, 4} <= {x for _, x, mirrored in places if mirrored is kind}
        assert {0, 4} <= {y for y, _, mirrored in places if mirrored is kind}


def test_flip_and_crop_can_be_left_out(data: Examples) -> None:
    generator = torch.Generator()
    assert torch.equal(FlipCrop(flip=False, pad=0)(data.inputs, generator), data.inputs)
    with pytest.raises(ValueError, match="pad must be at least 0, got -1"):
        FlipCrop(pad=-1)


def test_an_augmentation_sees_images_before_normalisation(data: Examples) -> None:
    seen: list[Tensor] = []

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(images)
        return torch.full_like(images, 255)

    ((inputs, _),) = data.batches(60, seed=0, augment=augment)
    assert torch.equal(seen[0], data.inputs)
    assert data.mean is not None
    assert data.std is not None
    assert inputs[0, 1, 0, 0].item() == pytest.approx((1 - data.mean[1]) / data.std[1], abs=1e-5)


def test_features_are_given_out_as_they_are() -> None:
    features = torch.randn(10, 5, generator=torch.Generator().manual_seed(0))
    data = Examples(features, torch.zeros(10, dtype=torch.int64), ("only",))
    assert data.mean == ()
    ((inputs, _),) = data.batches(10)
    assert torch.equal(inputs, features)


def test_drop_last_leaves_out_the_smaller_batch(data: Examples) -> None:
    resident = data
    assert [len(y) for _, y in resident.batches(16, drop_last=True)] == [16, 16, 16]
    assert [len(y) for _, y in resident.batches(20, drop_last=True)] == [20, 20, 20]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 4, "shuffle": True}, "seed must be given"),
        ({"batch_size": 4, "augment": FlipCrop()}, "augment needs a seed"),
        ({"batch_size": 61, "drop_last": True}, "drop_last leaves no batch: batch_size is 61"),
    ],
)
def test_batches_that_cannot_be_are_refused_at_once(
    data: Examples, arguments: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        data.batches(**arguments)  # type: ignore[arg-type]


def test_cutout_blackens_one_square_of_each_image_at_a_random_place() -> None:
    images = torch.full((32, 3, 12, 10), 9, dtype=torch.uint8)
    out = FlipCrop(flip=False, pad=0, cutout=4)(images, torch.Generator().manual_seed(0))
    places = set()
    for image in out:
        rows, columns = (image == 0).all(0).nonzero().unbind(1)
        top, left = int(rows.min()), int(columns.min())
        assert len(rows) == 16
        assert (int(rows.max()), int(columns.max())) == (top + 3, left + 3)
        assert int((image != 0).sum()) == 3 * (12 * 10 - 16)
        places.add((top, left))
    assert len(places) > 10
    whole = FlipCrop(flip=False, pad=0, cutout=20)(images, torch.Generator().manual_seed(0))
    assert not whole.any(), "a square larger than the image covers all of it"
