"""Texts as numbers of tokens: a vocabulary of the words that training texts hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from evonas.arguments import check_int
from evonas.exceptions import DataError
from evonas.training.data.corpora import Sentences
from evonas.training.data.examples import Examples

__all__ = ["PATTERN", "Vocabulary"]

PATTERN = r"\w+|[^\w\s]"
"""A token: letters and digits in a row, or one other sign that is no space; in lower case."""

_N_SPECIAL = 2  # 0 is padding, 1 any other word


class Vocabulary:
    """The words that have a number; 0 is padding and 1 stands for all others.

    Args:
        words: Those of the numbers from 2, in lower case.

    Raises:
        ValueError: There are none, or one is there twice.

    Example:
        >>> vocabulary = Vocabulary.of(["a fine film", "a film !"], most=10)
        >>> vocabulary.words
        ('a', 'film', '!', 'fine')
        >>> vocabulary.encode(["A fine mess"], length=4)
        tensor([[2, 5, 1, 0]])
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._numbers = {word: number for number, word in enumerate(self.words, _N_SPECIAL)}
        if not self.words or len(self._numbers) < len(self.words):
            raise ValueError("words must be different ones, and at least one")

    @classmethod
    def of(cls, texts: Iterable[str], most: int = 10_000) -> Vocabulary:
        """Returns the vocabulary of the most frequent words.

        Args:
            texts: The training texts.
            most: Most words.

        Raises:
            DataError: No text holds a word.
        """
        check_int("most", most, minimum=1)
        counts = Counter(word for text in texts for word in _tokens(text))
        if not counts:
            raise DataError("no text holds a word: a vocabulary needs one")
        return cls(sorted(counts, key=lambda word: (-counts[word], word))[:most])

    def __len__(self) -> int:
        """Numbers of tokens, padding and unknown included."""
        return len(self.words) + _N_SPECIAL

    def __repr__(self) -> str:
        return f"Vocabulary({len(self.words):,} words)"

    def encode(self, texts: Sequence[str], length: int) -> Tensor:
        """Returns int64 `(N, length)`: longer texts are cut, shorter ones padded with 0."""
        check_int("length", length, minimum=1)
        ids = torch.zeros(len(texts), length, dtype=torch.int64)
        for row, text in enumerate(texts):
            numbers = [self._numbers.get(word, 1) for word in _tokens(text)[:length]]
            ids[row, : len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
        return ids

    def examples(self, sentences: Sentences, length: int) -> Examples:
        """Returns texts with classes as examples of token numbers."""
        return Examples(
            self.encode(sentences.texts, length),
            torch.tensor(sentences.labels),
            sentences.classes,
        )


def _tokens(text: str) -> list[str]:
    return re.findall(PATTERN, text.lower())
