"""Points that say what is done to each block of a model, drawn as a strip of coloured squares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from evonas.records import Evaluation, Genes
from evonas.report.page import Strip
from evonas.report.style import MAIN, PALETTE

if TYPE_CHECKING:
    from evonas.run.result import Result

__all__ = ["Blocks", "Square", "blocks_of"]

_FROZEN = "#b9c1c9"
_SHADES = (MAIN, "#4292c6", "#6baed6", "#9ecae1", "#c6dbef")
_OTHERS = (PALETTE[1], PALETTE[2], PALETTE[3], PALETTE[5], PALETTE[7], PALETTE[6])


@dataclass(frozen=True, slots=True)
class Square:
    """A block in a strip.

    Attributes:
        colour: Of its state.
        words: Its name and its state.
    """

    colour: str
    words: str


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of a run's points as the problem describes them: see `Problem.strip`.

    Attributes:
        names: The gene of each block, from the input on.
        values: The states that a block may have, as genes hold them; the first trains nothing.
        words: What each state is called.
        labels: What people call some points, with the state of each block.
    """

    names: tuple[str, ...]
    values: tuple[Any, ...]
    words: tuple[str, ...]
    labels: Mapping[str, Sequence[Any]]

    @property
    def colours(self) -> list[str]:
        """Of each state: grey for the first, shades for the multiples of the rate, others apart."""
        rates = [at for at, value in enumerate(self.values) if at and not isinstance(value, str)]
        others = [at for at in range(1, len(self.values)) if at not in rates]
        found = [_FROZEN] * len(self.values)
        for place, at in enumerate(others):
            found[at] = _OTHERS[place % len(_OTHERS)]
        for place, at in enumerate(reversed(rates)):  # the full rate is the darkest
            found[at] = _SHADES[round(place * (len(_SHADES) - 1) / max(1, len(rates) - 1))]
        return found

    def places(self, genes: Genes) -> list[int]:
        """Returns the place of each block's state; that of none is -1."""
        return [
            next((at for at, known in enumerate(self.values) if _same(known, genes.get(name))), -1)
            for name in self.names
        ]

    def label(self, evaluation: Evaluation) -> str:
        """Returns what people call a point, else the states of its blocks, neighbours together."""
        states = [evaluation.genes.get(name) for name in self.names]
        for name, known in self.labels.items():
            if len(known) == len(states) and all(map(_same, known, states)):
                return name
        return self.in_words(evaluation.genes)

    def in_words(self, genes: Genes) -> str:
        """Returns the states from the input on, those of neighbours together."""
        parts = []
        pairs = zip(self.places(genes), self.names, strict=True)
        for place, group in groupby(pairs, key=lambda pair: pair[0]):
            names = [name for _, name in group]
            span = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
            parts.append(f"{span} {self.words[place] if place >= 0 else '?'}")
        return ", ".join(parts)

    def strip(self, genes: Genes, label: str = "") -> Strip:
        """Returns a point drawn."""
        colours = self.colours
        squares = [
            Square(
                colours[place] if place >= 0 else "#ffffff",
                f"{name}: {self.words[place] if place >= 0 else '?'}",
            )
            for name, place in zip(self.names, self.places(genes), strict=True)
        ]
        return Strip(squares, label)

    def large_strip(self, evaluation: Evaluation) -> Strip:
        """Returns a point drawn, with its name, its states in words and what the colours mean."""
        label, words = self.label(evaluation), self.in_words(evaluation.genes)
        legend = [Square(*pair) for pair in zip(self.colours, self.words, strict=True)]
        squares = self.strip(evaluation.genes).squares
        return Strip(squares, label if label == words else f"{label}: {words}", legend)


def blocks_of(result: Result) -> Blocks | None:
    """Returns the blocks of a run's points; None: its points are no strips.

    What a run holds may be anybody's: a description of the wrong form is none.
    """
    told = result.record.strip
    if not told:
        return None
    names, states, labels = (told.get(key) for key in ("blocks", "states", "labels"))
    if not (isinstance(names, list) and names and isinstance(states, list) and states):
        return None
    if not all(isinstance(state, list) and len(state) == 2 for state in states):
        return None
    known = {str(name): row for name, row in labels.items() if isinstance(row, list)} if (
        isinstance(labels, dict)
    ) else {}  # fmt: skip
    return Blocks(
        tuple(map(str, names)),
        tuple(state[0] for state in states),
        tuple(str(state[1]) for state in states),
        known,
    )


def _same(first: Any, second: Any) -> bool:
    """Whether two states are one; `True == 1` in Python, but not here."""
    return bool(first == second) and isinstance(first, bool) == isinstance(second, bool)
