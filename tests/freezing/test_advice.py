from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evonas.freezing.advice import FULL, HEAD_ONLY, mask_label, strip_of, usual_masks


@pytest.mark.parametrize(
    ("mask", "label", "with_head"),
    [
        ([0, 0, 0], FULL, FULL),
        ([1, 0, 0], "first 1 frozen", "first 1 frozen"),
        ([1, 1, 0], "first 2 frozen", HEAD_ONLY),
        ([1, 1, 1], HEAD_ONLY, "first 3 frozen"),
        ([0, 1, 1], "mask", "mask"),
        ([1, 0, 1], "mask", "mask"),
    ],
)
def test_what_a_mask_is_called(mask: Any, label: str, with_head: str) -> None:
    assert mask_label(mask) == label
    assert mask_label(mask, head_is_a_gene=True) == with_head


def test_all_of_the_advice() -> None:
    assert usual_masks(2) == [(0, 0), (1, 1), (1, 0)]
    assert usual_masks(3, head_is_a_gene=True) == [(0, 0, 0), (1, 1, 0), (1, 0, 0)]
    assert [sum(mask) for mask in usual_masks(6)] == [0, 6, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("n", "depths"), [(1, [0]), (2, [0, 12]), (3, [0, 12, 6]), (5, [0, 12, 3, 6, 9])]
)
def test_where_there_is_less_room_the_depths_are_spread_evenly(n: int, depths: list[int]) -> None:
    assert [sum(mask) for mask in usual_masks(12, n)] == depths


@given(st.integers(1, 40), st.integers(1, 50), st.booleans())
def test_as_many_masks_as_there_is_room_for_each_once(n_blocks: int, n: int, head: bool) -> None:
    masks = usual_masks(n_blocks, n, head_is_a_gene=head)
    deepest = n_blocks - head
    assert len(masks) == len(set(masks)) == min(n, deepest + 1)
    for mask in masks:
        assert len(mask) == n_blocks
        assert sorted(mask, reverse=True) == list(mask)
        assert sum(mask) <= deepest
    labels = [mask_label(mask, head_is_a_gene=head) for mask in masks]
    assert labels[:2] == [FULL, HEAD_ONLY][: len(masks)]
    assert set(masks) <= set(usual_masks(n_blocks, head_is_a_gene=head))


def test_a_strip_names_the_points_that_people_try() -> None:
    states = [[True, "frozen"], [False, "trained"]]
    rivals = {"head only": [{"a": True, "b": True, "lr": 0.1}, {"a": True, "b": True, "lr": 0.2}]}
    assert strip_of(["a", "b"], states, rivals) == {
        "blocks": ["a", "b"],
        "states": states,
        "labels": {"head only": [True, True]},
    }
