"""The masks that people try by hand, and what a mask is called among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["FULL", "HEAD_ONLY", "frozen_in_words", "mask_label", "strip_of", "usual_masks"]

FULL = "full fine-tuning"
HEAD_ONLY = "head only"


def mask_label(mask: Sequence[int], *, head_is_a_gene: bool = False) -> str:
    """Returns what people call a mask: full fine-tuning, head only, first k frozen, or `mask`.

    Args:
        mask: 1 (frozen) or 0 for each block, in forward order.
        head_is_a_gene: Whether the last block is the head; else the head is trained anyway.

    Example:
        >>> [mask_label(mask) for mask in ([0, 0, 0], [1, 1, 0], [1, 1, 1], [0, 1, 0])]
        ['full fine-tuning', 'first 2 frozen', 'head only', 'mask']
    """
    n_frozen = sum(mask)
    if not n_frozen:
        return FULL
    if not all(mask[:n_frozen]):
        return "mask"
    return HEAD_ONLY if n_frozen == len(mask) - head_is_a_gene else f"first {n_frozen} frozen"


def frozen_in_words(names: Sequence[str], mask: Sequence[int]) -> str:
    """Returns the names of the frozen blocks, of three or more in a row only the ends.

    Example:
        >>> frozen_in_words(["stem", "layer1", "layer2", "layer3", "norm"], [1, 1, 1, 0, 1])
        'stem to layer2, norm'
        >>> frozen_in_words(["stem", "layer1"], [0, 0])
        'nothing'
    """
    rows: list[list[str]] = [[]]
    for name, bit in zip(names, mask, strict=True):
        if bit:
            rows[-1].append(name)
        elif rows[-1]:
            rows.append([])
    parts = []
    for row in rows:
        parts += [f"{row[0]} to {row[-1]}"] if len(row) > 2 else row
    return ", ".join(parts) or "nothing"


def usual_masks(
    n_blocks: int, n: int | None = None, *, head_is_a_gene: bool = False
) -> list[tuple[int, ...]]:
    """Returns the masks of the usual advice: full, head only, and the first k frozen.

    Args:
        n_blocks: How many blocks there are.
        n: How many masks at most: fewer depths k are then taken, evenly spread. None: all.
        head_is_a_gene: Whether the last block is the head.

    Example:
        >>> usual_masks(3)
        [(0, 0, 0), (1, 1, 1), (1, 0, 0), (1, 1, 0)]
        >>> usual_masks(9, 4)
        [(0, 0, 0, 0, 0, 0, 0, 0, 0), (1, 1, 1, 1, 1, 1, 1, 1, 1), \
(1, 1, 1, 0, 0, 0, 0, 0, 0), (1, 1, 1, 1, 1, 1, 0, 0, 0)]
    """
    deepest = n_blocks - head_is_a_gene
    depths = list(range(1, deepest))
    if n is not None and len(depths) > n - 2:
        wanted = max(0, n - 2)
        depths = [round(deepest * (i + 1) / (wanted + 1)) for i in range(wanted)]
    masks = [tuple(int(i < depth) for i in range(n_blocks)) for depth in (0, deepest, *depths)]
    return list(dict.fromkeys(masks))[:n]


def strip_of(
    names: Sequence[str], states: list[list[Any]], rivals: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """Returns what `Problem.strip` does, of points that people have names for.

    Args:
        names: Of the blocks, which are their genes.
        states: Pairs of a value and what it is called.
        rivals: Name to points that differ in other genes alone.
    """
    labels = {name: [points[0][block] for block in names] for name, points in rivals.items()}
    return {"blocks": list(names), "states": states, "labels": labels}
