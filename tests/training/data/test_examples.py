from __future__ import annotations

from typing import Any

import pytest
import torch

from evonas.training import Examples, FlipCrop

ROWS = [[5, 6, 7], [8], [9, 10, 11, 12], [13, 14]]


def ragged(n: int = 100, **options: Any) -> Examples:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 12, (n,), generator=generator).tolist()
    rows = [torch.randint(1, 50, (length,), generator=generator) for length in lengths]
    ones = [torch.ones_like(row) for row in rows]
    inputs = {"input_ids": rows, "attention_mask": ones}
    return Examples(inputs, torch.arange(n), **options)


def test_sequences_are_padded_to_the_longest_of_their_batch() -> None:
    data = Examples({"x": ROWS, "mask": [[1] * len(row) for row in ROWS]}, [0, 1, 0, 1],
                    padding={"x": 99})  # fmt: skip
    batch = data.gather(torch.tensor([3, 0]))
    assert batch["x"].tolist() == [[13, 14, 99], [5, 6, 7]]
    assert batch["mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert data.width(torch.tensor([3, 1])) == 2
    left = Examples({"x": ROWS}, [0, 1, 0, 1], padding_side="left")
    assert left.gather(torch.tensor([1, 3]))["x"].tolist() == [[0, 8], [13, 14]]


def test_fixed_and_ragged_columns_mix() -> None:
    data = Examples({"x": ROWS, "age": torch.arange(4.0)}, torch.zeros(4))
    batch = data.gather(torch.tensor([2, 1]))
    assert batch["age"].tolist() == [2.0, 1.0]
    assert batch["x"].shape == (2, 4)


def test_every_example_comes_once_whatever_the_order() -> None:
    data = ragged()
    for options in ({}, {"seed": 3, "shuffle": True}):
        targets = [t for _, batch in data.batches(8, **options) for t in batch.tolist()]
        assert sorted(targets) == list(range(100))
    plain = Examples(torch.zeros(10, 2), torch.arange(10))
    assert torch.cat(plain.batches_of_ids(3)).tolist() == list(range(10))


def test_batches_hold_sequences_of_similar_length() -> None:
    data = ragged(1000)
    padded = sum(batch["input_ids"].numel() for batch, _ in data.batches(8, seed=0, shuffle=True))
    tokens = int(data.layout.lengths.sum())
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0)).split(8)
    unsorted = sum(len(ids) * data.width(ids) for ids in order)
    assert tokens <= padded < 1.1 * tokens
    assert unsorted > 1.6 * tokens


def test_the_order_comes_from_the_seed_alone() -> None:
    data = ragged()

    def order(seed: int) -> list[int]:
        torch.rand(3)
        return torch.cat(data.batches_of_ids(8, seed=seed, shuffle=True)).tolist()

    assert order(1) == order(1) != order(2)
    state = torch.get_rng_state()
    list(data.batches(8, seed=1, shuffle=True))
    assert torch.equal(state, torch.get_rng_state())


def test_drop_last_leaves_out_small_batches() -> None:
    data = ragged(100)
    sizes = [len(ids) for ids in data.batches_of_ids(8, seed=0, shuffle=True, drop_last=True)]
    assert sizes == [8] * 12


def test_augmentation_comes_before_normalisation() -> None:
    pixels = torch.randint(0, 256, (8, 3, 4, 4), dtype=torch.uint8)
    data = Examples(pixels, torch.tensor([0, 1] * 4), ("a", "b"))
    plain, _ = next(data.batches(8))
    flipped, _ = next(data.batches(8, seed=0, augment=FlipCrop(pad=0)))
    same = (flipped == plain).flatten(1).all(1)
    mirrored = (flipped == plain.flip(3)).flatten(1).all(1)
    assert bool((same | mirrored).all())
    assert bool(mirrored.any())
    with pytest.raises(ValueError, match="augment needs a seed"):
        next(data.batches(8, augment=FlipCrop()))
    with pytest.raises(ValueError, match="inputs that are one tensor"):
        next(ragged().batches(8, seed=0, augment=FlipCrop()))


def test_the_identity_tells_data_apart() -> None:
    base = Examples({"x": ROWS}, [0, 1, 0, 1])
    assert base.identity == Examples({"x": ROWS}, [0, 1, 0, 1]).identity
    others = [
        Examples({"x": ROWS}, [0, 1, 1, 1]),
        Examples({"y": ROWS}, [0, 1, 0, 1]),
        Examples({"x": ROWS}, [0, 1, 0, 1], padding_side="left"),
        Examples({"x": ROWS}, [0, 1, 0, 1], padding={"x": 1}),
        Examples({"x": [[5, 6], [7, 8], [9, 10, 11, 12], [13, 14]]}, [0, 1, 0, 1]),
    ]
    assert base.identity not in {other.identity for other in others}


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (torch.zeros(3, 2), [0, 1], "as many, got 3 and 2"),
        ({"x": ROWS}, [0], "got 4 and 1 for 'x'"),
        ({"x": ROWS, "y": [[1]] * 4}, [0] * 4, "'y' must be as long"),
        ({"x": [[1], []]}, [0, 1], "'x' must hold something"),
        (torch.zeros(0, 2), [], "at least one, got none"),
        ({}, [1], "at least one entry, got none"),
    ],
)
def test_bad_examples(inputs: Any, targets: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Examples(inputs, targets)


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match="got list: pass torch.as_tensor"):
        Examples([1, 2], [0, 1])  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match=r'several inputs pass Examples\(\{"ids": ids, "mask": mask'
    ):
        Examples((torch.zeros(2, 3), torch.ones(2, 3)), [0, 1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        ragged().batches_of_ids(0)
    with pytest.raises(ValueError, match="seed must be given"):
        ragged().batches_of_ids(2, shuffle=True)


def test_other_normalisation_is_other_data() -> None:
    pixels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    labels = torch.tensor([0, 1, 0, 1])

    def identity(mean: float) -> str:
        return Examples(pixels, labels, ("a", "b"), mean=(mean,), std=(1.0,)).identity

    assert identity(0.0) == identity(0.0) != identity(0.5)
