"""A recipe in a model that holds the one it was found for: the same modules by other paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

__all__ = ["Renaming", "renaming"]


@dataclass(frozen=True)
class Renaming:
    """How a model calls what another one called `path`.

    Attributes:
        root: Path of the part that holds it, "" for the model itself.
        n_dropped: How many names at the beginning of a path it lacks.

    Example:
        >>> Renaming("0.auto_model", 1)("bert.encoder.layer.0")
        '0.auto_model.encoder.layer.0'
    """

    root: str = ""
    n_dropped: int = 0

    def __call__(self, path: str) -> str:
        """Returns the path in the model."""
        short = path.split(".", self.n_dropped)[-1]
        return f"{self.root}.{short}" if self.root else short

    def contents(self, contents: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
        """Returns the paths of blocks in the model."""
        return {name: tuple(map(self, own)) for name, own in contents.items()}


def renaming(contents: Mapping[str, Sequence[str]], model: nn.Module) -> Renaming:
    """Returns how a model calls the parts of blocks: it holds their model, or is held by it.

    A wrapper puts a name before each path (`net.layer1`); a body without its head lacks one
    (`encoder.layer.0` of what was `bert.encoder.layer.0`).

    Args:
        contents: Block name to paths of modules and names of parameters.
        model: Not changed.

    Raises:
        ValueError: The model has no such paths, or has them at several places.

    Example:
        >>> body = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> renaming({"a": ["0"], "b": ["1"]}, nn.ModuleDict({"net": body}))
        Renaming(root='net', n_dropped=0)
    """
    modules = [path for path, _ in model.named_modules()]
    known = {*modules, *(name for name, _ in model.named_parameters())}
    paths = [path for own in contents.values() for path in own]
    if known.issuperset(paths):
        return Renaming()
    found: list[Renaming] = []
    for n_dropped in range(_n_common(paths) + 1):
        tried = [Renaming(root, n_dropped) for root in modules]
        if n_dropped and any(Renaming("", n_dropped)(path).isdigit() for path in paths):
            break  # a number alone is a name of any sequence
        found = found or [each for each in tried if known.issuperset(map(each, paths))]
    name, blocks = type(model).__name__, ", ".join(contents)
    if not found:
        raise ValueError(
            f"{name} holds no model with the blocks {blocks} under any name: what was found fits "
            "the architecture that was searched"
        )
    if len(found) > 1:
        first, second = [repr(each.root) for each in found][:2]
        raise ValueError(
            f"{name} holds the blocks {blocks} more than once, in {first} and {second}: pass the "
            "part that is meant"
        )
    return found[0]


def _n_common(paths: Sequence[str]) -> int:
    """Returns how many names all paths begin with, the last of each aside."""
    n = 0
    for names in zip(*(path.split(".")[:-1] for path in paths), strict=False):
        if len(set(names)) > 1:
            break
        n += 1
    return n
