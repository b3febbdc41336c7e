"""Seeds derived from a root seed, RNG states as JSON, and the guard around DEAP's global RNGs."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = [
    "borrowed_global_rng",
    "derive_seed",
    "restore_rng_state",
    "rng_state_from_json",
    "rng_state_to_json",
]


def derive_seed(root_seed: int, *parts: str | int) -> int:
    """Returns a seed in [0, 2**32), the same on every machine and in every Python.

    Args:
        root_seed: The run's seed.
        *parts: What the seed is for: a purpose, a key, a number. `1` and `"1"` are two.

    Raises:
        TypeError: A part is neither a string nor an int.

    Example:
        >>> derive_seed(0, "trial", 7) == derive_seed(0, "trial", 7)
        True
    """
    for part in (root_seed, *parts):
        if isinstance(part, bool) or not isinstance(part, (str, int)):
            raise TypeError(
                f"derive_seed takes strings and ints, got {part!r} ({type(part).__name__})"
            )
    # One text per tuple of ints and strings, and cheaper than JSON. Not repr: what that escapes
    # depends on the Unicode tables of the Python at hand.
    digest = hashlib.sha256(ascii((root_seed, *parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def rng_state_to_json(rng: random.Random) -> dict[str, Any]:
    """Returns the whole state of a `random.Random` as JSON (about 7 kB of text)."""
    version, words, gauss = rng.getstate()
    return {"version": version, "words": list(words), "gauss": gauss}


def rng_state_from_json(data: Any) -> tuple[Any, ...]:
    """Returns the state that `random.Random.setstate` takes.

    Raises:
        ValueError: The data is not what `rng_state_to_json` returned.
    """
    try:
        state = (data["version"], tuple(data["words"]), data["gauss"])
        random.Random().setstate(state)  # the check: it refuses a wrong version, length or word
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"this is not the state of a random.Random ({error!r})") from None
    return state


def restore_rng_state(rng: random.Random, data: Any) -> None:
    """Sets a `random.Random` to a state that `rng_state_to_json` returned.

    Raises:
        ValueError: The data is not such a state; the rng is as before.
    """
    rng.setstate(rng_state_from_json(data))


@contextmanager
def borrowed_global_rng(rng: random.Random) -> Iterator[None]:
    """Lends an rng to code that draws from the global `random` and `numpy.random`, as DEAP does.

    Inside, `random` continues the stream of `rng` and `numpy.random` is seeded from it (which
    takes 32 bits of the stream); afterwards, also after an exception, `rng` stands where the global
    stream ended and both global generators are as they were before. So the caller's own draws are
    neither disturbed by what runs inside nor disturb it.

    Thread safety: none, the generators are the process's; other threads must not draw meanwhile.

    Args:
        rng: The generator whose stream is used; not the global one itself.

    Example:
        >>> rng = random.Random(3)
        >>> with borrowed_global_rng(rng):
        ...     drawn = random.random()
    """
    ours = random.getstate()
    numpys = np.random.get_state(legacy=False)  # noqa: NPY002 (the global one is the point)
    bit_generator = np.random.get_bit_generator()  # type: ignore[attr-defined]
    if not isinstance(bit_generator, np.random.MT19937):  # the user's own; `seed` would refuse it
        np.random.set_bit_generator(np.random.MT19937())  # type: ignore[attr-defined]
    np.random.seed(rng.getrandbits(32))  # noqa: NPY002
    random.setstate(rng.getstate())
    try:
        yield
    finally:
        rng.setstate(random.getstate())
        random.setstate(ours)
        np.random.set_bit_generator(bit_generator)  # type: ignore[attr-defined]
        np.random.set_state(numpys)  # noqa: NPY002
