"""A recipe as a table for people: block, state, how many parameters are trained, at which rate."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["HEAD", "recipe_table"]

HEAD = "head"
"""What is in no block is called so in the table."""


def recipe_table(
    states: Mapping[str, str],
    rates: Mapping[str, float],
    parameters: Mapping[str, tuple[int, int]],
) -> str:
    """Returns the table, a line for each block.

    Args:
        states: Block name to its state in words.
        rates: Block name to its learning rate; 0 where nothing is trained.
        parameters: Block name to how many numbers are trained, of how many; empty: not known.

    Example:
        >>> print(recipe_table({"a": "all"}, {"a": 0.01}, {"a": (1500, 1500)}))
        block  state         trained     of        lr
        a      all             1,500  1,500      0.01
    """
    rows = [("block", "state", *(("trained", "of") if parameters else ()), "lr")]
    for name, state in states.items():
        counts = tuple(f"{n:,}" for n in parameters[name]) if parameters else ()
        rows.append((name, state, *counts, f"{rates[name]:.3g}" if rates[name] else ""))
    width = max(len(row[0]) for row in rows)
    second = max(9, *(len(row[1]) for row in rows))
    lines = []
    for name, state, *numbers in rows:
        widths = (11, 6, 9) if parameters else (9,)
        cells = [f"{number:>{size}}" for number, size in zip(numbers, widths, strict=True)]
        lines.append(f"{name:<{width}}  {state:<{second}} {' '.join(cells)}".rstrip())
    return "\n".join(lines)
