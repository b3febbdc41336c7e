from __future__ import annotations

from typing import Any

import pytest
import torch

from evonas.exceptions import DataError
from evonas.training import Sentences, Vocabulary


def test_the_most_frequent_words_have_numbers() -> None:
    vocabulary = Vocabulary.of(["B a, b c", "b A d"], most=3)
    assert vocabulary.words == ("b", "a", ",")
    assert len(vocabulary) == 5
    assert vocabulary.encode(["a b x", "", "b b b b b"], 4).tolist() == [
        [3, 2, 1, 0], [0, 0, 0, 0], [2, 2, 2, 2],
    ]  # fmt: skip


def test_examples_keep_classes_and_order() -> None:
    vocabulary = Vocabulary(["yes", "no"])
    data = vocabulary.examples(Sentences(("yes", "no", "no yes"), (1, 0, 1), ("-", "+")), 2)
    assert data.inputs.tolist() == [[2, 0], [3, 0], [3, 2]]
    assert data.targets.tolist() == [1, 0, 1]
    assert data.classes == ("-", "+")
    assert data.is_tokens
    assert data.inputs.dtype == torch.int64


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Vocabulary([]), ValueError),
        (lambda: Vocabulary(["a", "a"]), ValueError),
        (lambda: Vocabulary.of(["", "  "]), DataError),
        (lambda: Vocabulary.of(["a"], most=0), ValueError),
        (lambda: Vocabulary(["a"]).encode(["a"], 0), ValueError),
    ],
)
def test_what_makes_no_vocabulary_is_refused(make: Any, error: Any) -> None:
    with pytest.raises(error):
        make()
