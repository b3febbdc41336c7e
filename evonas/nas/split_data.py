"""The images of a problem: opened when needed, divided once, copied to each device once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evonas.arguments import check_one_of
from evonas.exceptions import DataError
from evonas.training import Examples, split
from evonas.training.data.finite import finite
from evonas.training.data.parts import matched
from evonas.training.data.split import sample

__all__ = ["Source", "SplitData"]

Source = Examples | Callable[[], Examples]


class SplitData:
    """Images, which of them are trained and which validated on, and their copies on devices.

    Pickling: where the images were given as a function that opens them, only that function
    travels, and what it opens must be what it opened before.

    Args:
        data: The images, or a function that opens them.
        val: Images to validate on, or a function that opens them. None: a share of `data`.
        val_fraction: Share that is validated on, where `n_val` is None.
        n_train: Images to train on. None: all that are not validated on.
        n_val: Images to validate on.
        split_seed: Decides which images these are.
        texts: Whether they are texts, as token numbers `(N, length)`, instead of images.

    Attributes:
        train: Indices of the training images.
        val: Indices of the validation images.
        split_seed: As given.

    Raises:
        TypeError: `data` is neither images nor a function.
        ValueError: The data are not images `(N, C, H, W)`, or too few for the split.
        DataError: The images opened are not those that were opened before.
    """

    def __init__(
        self,
        data: Source,
        val: Source | None,
        val_fraction: float,
        n_train: int | None,
        n_val: int | None,
        split_seed: int,
        *,
        texts: bool = False,
    ) -> None:
        for name, source in (("data", data), ("val", data if val is None else val)):
            if not isinstance(source, Examples) and not callable(source):
                raise TypeError(
                    f"{name} must be Examples or a function that opens them, "
                    f"got {type(source).__name__}"
                )
        self.split_seed, self._texts = split_seed, texts
        self._given = data
        self._given_val = val
        self._parts = (val_fraction, n_train, n_val)
        self._identity: str | None = None
        self._open()

    def _open(self) -> Examples:
        found = _opened(self._given)
        val = None if self._given_val is None else _opened(self._given_val)
        for name, part in (("data", found), ("val", found if val is None else val)):
            check_one_of(f"what {name} opens", part, Examples, "Examples")
            finite(part, name)
            if not (part.is_tokens if self._texts else part.is_images):
                wanted = (
                    "token numbers (N, length), int64" if self._texts else "images (N, C, H, W)"
                )
                raise ValueError(f"data must be {wanted}, got examples of shape {part.shape}")
        n_given = len(found)
        found = found if val is None else found.joined(matched(val, found, "val"))
        if found.n_classes < 2:
            raise ValueError(
                f"data must have at least two classes, got {', '.join(found.classes) or 'none'}"
            )
        if self._identity is not None and found.identity != self._identity:
            raise DataError(
                f"the images are not those that the search began with (identity"
                f" {found.identity[:8]}…, expected {self._identity[:8]}…): restore the data, or"
                " start another run"
            )
        val_fraction, n_train, n_val = self._parts
        seed = self.split_seed
        if val is None:
            self.train, self.val = split(
                found, val_fraction=val_fraction, seed=seed, n_train=n_train, n_val=n_val
            )
        else:
            self.train = sample(found.targets[:n_given], n_train, seed, "n_train")
            self.val = n_given + sample(val.targets, n_val, seed, "n_val")
        self._identity = found.identity
        # The validation images must not enter the normalisation of the training.
        opened = found if self._texts else found.normalised_from(self.train)
        self._opened: Examples | None = opened
        self._devices: dict[str, tuple[Examples, Examples]] = {}
        return opened

    @property
    def identity(self) -> dict[str, Any]:
        """What identifies the images as they were given, and their division."""
        return {
            "data": self._identity or "",
            "n_train": len(self.train),
            "n_val": len(self.val),
            "split_seed": self.split_seed,
        }

    @property
    def opened(self) -> Examples:
        """The images, normalised by the training part."""
        return self._open() if self._opened is None else self._opened

    def on(self, device: str) -> tuple[Examples, Examples]:
        """Returns the training and the validation part on the device, copied there once."""
        data = self.opened
        if device not in self._devices:
            self._devices[device] = (
                data.subset(self.train).to(device),
                data.subset(self.val).to(device),
            )
        return self._devices[device]

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_devices": {}}
        if not isinstance(self._given, Examples):
            state["_opened"] = None
        return state


def _opened(source: Source) -> Examples:
    return source if isinstance(source, Examples) else source()
