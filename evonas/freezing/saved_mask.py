"""A mask as `mask.json` keeps it: by block name, with what each block holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from torch import nn

from evonas.freezing.blocks import Block
from evonas.freezing.transfer import renaming

__all__ = ["SavedMask"]


class SavedMask(dict[str, int]):
    """Block name to 1 (frozen) or 0, which knows its blocks; made by `load_mask`.

    Attributes:
        model_name: Class of the model that was searched, "" where the file does not say.
        contents: Block name to the paths of its modules and the names of its loose parameters;
            empty where the file does not say.
        beside: Names of the model's parameters that are in no block.
        lr: Learning rate with which the mask was found, None where the file does not say.
        frozen_before: Names of the parameters that the model factory of the search had frozen:
            `apply_mask` freezes them too, whatever the mask says.

    Example:
        >>> mask = SavedMask({"0": 1, "1": 0}, "Sequential", {"0": ["0"], "1": ["1"]}, ["2.weight"])
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
        >>> mask.blocks_of(net)
        (Block('0', 6 parameters), Block('1', 6 parameters))
    """

    def __init__(
        self,
        mask: Mapping[str, int],
        model_name: str = "",
        contents: Mapping[str, Sequence[str]] | None = None,
        beside: Iterable[str] = (),
        lr: float | None = None,
        frozen_before: Iterable[str] = (),
    ) -> None:
        super().__init__(mask)
        self.model_name = model_name
        self.contents = {name: tuple(paths) for name, paths in (contents or {}).items()}
        self.beside = frozenset(beside)
        self.lr = lr
        self.frozen_before = frozenset(frozen_before)

    @classmethod
    def from_json(cls, record: Any) -> Self:
        """Returns the mask of a `mask.json`.

        Raises:
            ValueError: It holds no mask.
        """
        mask = record.get("mask") if isinstance(record, dict) else None
        if not isinstance(mask, dict) or not all(value in (0, 1) for value in mask.values()):
            raise ValueError("no mask by block name")
        contents, beside, lr = record.get("blocks"), record.get("beside"), record.get("lr")
        lr = lr if isinstance(lr, float) else None
        frozen = record.get("frozen_before") or ()
        if contents is None:  # written by hand, or before the blocks were in the file
            return cls(mask, lr=lr, frozen_before=frozen)
        if not isinstance(contents, dict) or set(contents) != set(mask):
            raise ValueError("its blocks are not those of its mask")
        return cls(mask, str(record.get("model", "")), contents, beside or (), lr, frozen)

    def for_model(self, model: nn.Module) -> SavedMask:
        """Returns the same mask with the names of a model that holds the searched one.

        Raises:
            ValueError: It holds no such model, or several.
        """
        rename = renaming(self.contents, model)
        contents, beside = rename.contents(self.contents), map(rename, self.beside)
        frozen = map(rename, self.frozen_before)
        return SavedMask(self, self.model_name, contents, beside, self.lr, frozen)

    def blocks_of(self, model: nn.Module) -> tuple[Block, ...]:
        """Returns the blocks in `model` that the mask was searched for.

        Raises:
            ValueError: The model lacks some of them, or has more blocks of their kind (a mask of
                three layers says nothing about the fourth).
        """
        parameters = dict(model.named_parameters())
        modules = {path for path, _ in model.named_modules()}
        held: set[str] = set()
        blocks = []
        for name, paths in self.contents.items():
            if missing := [p for p in paths if p not in modules and p not in parameters]:
                raise ValueError(self._refusal(model, f"lacks {missing[0]!r} of block {name!r}"))
            own = [n for n in parameters if any(n == p or n.startswith(f"{p}.") for p in paths)]
            held.update(own)
            blocks.append(
                Block(
                    name,
                    modules=tuple(path for path in paths if path in modules),
                    parameters=tuple(own),
                    loose_parameters=tuple(path for path in paths if path in parameters),
                    n_parameters=sum(parameters[n].numel() for n in own),
                )
            )
        kinds = {_kind(name) for name in held}
        for name in parameters:
            # Anything else beside the blocks is a head, which everybody makes anew.
            if name not in held and name not in self.beside and _kind(name) in kinds:
                raise ValueError(self._refusal(model, f"has {name!r} too, which is in no block"))
        return tuple(blocks)

    def _refusal(self, model: nn.Module, reason: str) -> str:
        return (
            f"the mask is for the blocks {', '.join(self)} of {self.model_name or 'a model'}, but "
            f"this {type(model).__name__} {reason}: apply it to the architecture that was "
            f"searched, or pass blocks= to say which blocks of this model are meant"
        )


def _kind(name: str) -> str:
    return re.sub(r"\d+", "#", name)
