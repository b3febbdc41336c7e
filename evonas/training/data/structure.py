"""Tensors in mappings, tuples, lists and dataclasses: changed, counted, joined, named in errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["join", "map_tensors", "n_examples", "shapes_of", "tensors_in"]


def map_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Returns a structure with its tensors changed: mappings, tuples, lists, dataclasses."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        changed = {name: map_tensors(change, entry) for name, entry in value.items()}
        try:
            return type(value)(changed)  # type: ignore[call-arg]
        except TypeError:
            return changed
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(change, entry) for entry in value))
    if isinstance(value, (tuple, list)):
        return type(value)(map_tensors(change, entry) for entry in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        named = {name: map_tensors(change, getattr(value, name)) for name in fields}
        return dataclasses.replace(value, **named)
    return value


def tensors_in(value: Any) -> list[Tensor]:
    """Returns the tensors of a structure, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = tuple(value.values())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, field.name) for field in dataclasses.fields(value) if field.init]
    if isinstance(value, (tuple, list)):
        return [tensor for entry in value for tensor in tensors_in(entry)]
    return []


def n_examples(value: Any) -> int:
    """Returns how many examples a batch's inputs or targets are: the length of its first tensor.

    Raises:
        ValueError: There is no tensor with a length.
    """
    for tensor in tensors_in(value):
        if tensor.ndim:
            return len(tensor)
    raise ValueError(f"a batch must hold tensors (N, ...), got {shapes_of(value)}")


def shapes_of(value: Any) -> str:
    """Returns a structure with its tensors as dtype and shape, for errors."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name!r}: {shapes_of(v)}" for name, v in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        inner = ", ".join(map(shapes_of, value[:8])) + (", …" if len(value) > 8 else "")
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    return type(value).__name__


def join(batches: Sequence[Any]) -> Any:
    """Returns structures of the same kind as one, each tensor joined along its first dimension.

    Raises:
        ValueError: Their shapes differ in another dimension, or a tensor has none.
    """
    parts = [tensors_in(batch) for batch in batches]
    try:
        joined = iter([torch.cat(column) for column in zip(*parts, strict=True)])
    except (RuntimeError, ValueError) as error:
        shapes = ", ".join(dict.fromkeys(map(shapes_of, batches)))
        raise ValueError(
            f"batches of {shapes} cannot be joined for the metric: pass one with update, compute "
            "and reset, which takes them one by one"
        ) from error
    return map_tensors(lambda _: next(joined), batches[0])
