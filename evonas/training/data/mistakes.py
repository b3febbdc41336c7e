"""What people pass in place of examples, and how to pass it: the ends of errors about data."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

__all__ = ["SEVERAL", "refuse_parts", "way_out_of_data", "way_out_of_inputs", "words_for"]

SEVERAL = 'Examples({"ids": ids, "mask": mask}, targets)'
"""How examples of several inputs are made."""


def refuse_parts(pair: tuple[Any, Any], name: str) -> None:
    """Refuses two parts of a data set, or what `split` returns, where inputs and targets belong.

    Raises:
        TypeError: They are these.
    """
    wanted = f"{name} must be Examples or a tuple (inputs, targets), got"
    if all(isinstance(part, (Dataset, DataLoader)) or hasattr(part, "batches") for part in pair):
        kind = type(pair[0]).__name__
        raise TypeError(
            f"{wanted} a tuple of two {kind}: pass the first part as train=, the other as val="
        )
    first, second = pair
    if all(isinstance(part, Tensor) and part.dtype == torch.int64 for part in pair) and (
        first.ndim == second.ndim == 1 and len(first) != len(second)
    ):
        raise TypeError(
            f"{wanted} two lists of {len(first)} and {len(second)} numbers, as split returns: pass "
            "data.subset(numbers) of the Examples that were split"
        )


def words_for(data: Any) -> str:
    """Returns what data is, for an error: its type, and of a tuple how long it is."""
    return f"a tuple of {len(data)}" if isinstance(data, tuple) else type(data).__name__


def way_out_of_data(data: Any) -> str:
    """Returns how to pass what people have instead of examples, if that is known."""
    if isinstance(data, (str, os.PathLike)):
        return (
            f": for a folder of images pass load_image_folder({str(data)!r}), for a table of "
            f"sentences see read_tsv, both of evonas.training"
        )
    if isinstance(data, list) and data and isinstance(data[0], (tuple, list)):
        return (
            ": pass the pairs as (torch.stack([x for x, _ in pairs]), "
            "torch.tensor([y for _, y in pairs]))"
        )
    if isinstance(data, tuple) and len(data) > 2:
        return f": for a model of several inputs pass {SEVERAL}"
    if isinstance(data, TensorDataset):
        if len(data.tensors) > 2:
            return f": pass {SEVERAL}, of its .tensors"
        return ": pass its .tensors"
    if isinstance(data, DataLoader):
        return (
            ": batches are made here; pass what the loader reads, as tensors (inputs, targets), "
            f"or for several inputs {SEVERAL}"
        )
    if isinstance(data, Dataset):
        return (
            ": stack its examples into tensors, (torch.stack([x for x, _ in data]), "
            "torch.tensor([y for _, y in data]))"
        )
    return ""


def way_out_of_inputs(inputs: Any) -> str:
    """Returns how to pass inputs that are neither a tensor nor a mapping."""
    if isinstance(inputs, (tuple, list)) and inputs and isinstance(inputs[0], Tensor):
        return f": for several inputs pass {SEVERAL}, by the names in the model's forward"
    values = "inputs.to_numpy()" if hasattr(inputs, "to_numpy") else "inputs"
    kind = getattr(getattr(inputs, "dtype", None), "kind", "f")  # of numpy: i, u, b are no floats
    # numpy's floats are float64, which layers of torch do not take.
    dtype = ", dtype=torch.float32" if kind not in "iub" else ""
    return f": pass torch.as_tensor({values}{dtype})"
