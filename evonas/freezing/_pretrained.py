"""What a pretrained model is known by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from evonas.exceptions import DataError
from evonas.training import seeded
from evonas.training.data.examples import as_bytes

__all__ = ["Pretrained"]


@dataclass(frozen=True)
class Pretrained:
    """What a model factory's models have in common, found by building two under two seeds.

    Attributes:
        identity: SHA-256 of the names and shapes of all parameters and buffers, and of the values
            of those that are the same in both.
        fresh: Names of the parameters that are not: freshly initialised ones.
    """

    identity: str
    fresh: frozenset[str]

    @classmethod
    def of(cls, factory: Callable[[], nn.Module]) -> tuple[Pretrained, nn.Module]:
        """Returns what is known of the factory's models, and one of them.

        Raises:
            TypeError: It returns no module.
            ValueError: It returns the same model twice.
            DataError: It returns models of different parameters.
        """
        models = []
        for seed in (0, 1):
            with seeded(seed):
                models.append(factory())
            if not isinstance(models[-1], nn.Module):
                raise TypeError(
                    f"model_factory must return a torch.nn.Module, got {type(models[-1]).__name__}"
                )
        first, second = (dict(model.state_dict(keep_vars=True)) for model in models)
        shared = {tensor.data_ptr() for tensor in first.values() if tensor.numel()}
        if any(tensor.data_ptr() in shared for tensor in second.values() if tensor.numel()):
            raise ValueError(
                "model_factory must return a new model with the pretrained weights at each call, "
                "but two calls share weights, so each training would begin where another ended: "
                "return copy.deepcopy(model), or load it in the factory"
            )
        shapes = [
            [(name, tuple(tensor.shape)) for name, tensor in entries.items()]
            for entries in (first, second)
        ]
        if shapes[0] != shapes[1]:
            raise DataError("model_factory returned two models of different parameters")
        digest = hashlib.sha256(repr(shapes[0]).encode())
        fresh = []
        for name, tensor in first.items():
            if torch.equal(tensor, second[name]):
                digest.update(as_bytes(tensor))
            else:
                fresh.append(name)
        return cls(digest.hexdigest(), frozenset(fresh)), models[0]
