"""What candidates must have in common to be trained at once: modules, settings of them, shapes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from evonas.exceptions import FusionError

__all__ = ["NoiseModules", "digest_of", "refuse_unlike"]

NoiseModules = tuple[type[nn.Module], ...]
"""Modules that multiply what they get by random numbers; each candidate has its own probability."""

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_PLAIN = (int, float, str, bytes, bool, complex, type(None), torch.dtype, torch.device, torch.Size)


def digest_of(model: nn.Module, noise: NoiseModules) -> str:
    """Returns a digest that models of one shape share; it holds within this process only.

    Example:
        >>> noise = (nn.Dropout,)
        >>> digests = [digest_of(nn.Dropout(p), noise) for p in (0.1, 0.2)]
        >>> digests[0] == digests[1], digests[0] == digest_of(nn.Linear(2, 2), noise)
        (True, False)
    """
    return hashlib.sha256(repr(_parts(model, noise)).encode()).hexdigest()


def refuse_unlike(models: Sequence[nn.Module], noise: NoiseModules) -> None:
    """Refuses models that one sequence of operations does not serve.

    Raises:
        FusionError: Two of them differ; says in what.
    """
    first = _parts(models[0], noise)
    for number, model in enumerate(models[1:], 1):
        other = _parts(model, noise)
        if other == first:
            continue
        for name in dict.fromkeys([*first, *other]):
            ours, theirs = first.get(name), other.get(name)
            if ours != theirs:
                raise FusionError(
                    f"candidates 0 and {number} cannot be trained at once: {name} is "
                    f"{_shown(ours)} in the one and {_shown(theirs)} in the other; only "
                    "candidates of the same modules and shapes can"
                )


def _parts(model: nn.Module, noise: NoiseModules) -> dict[str, tuple[str, str]]:
    """Returns for each module and tensor, by name, how it is shown, and all that must be equal."""
    found = {}
    for name, module in model.named_modules(remove_duplicate=False):
        is_noise = isinstance(module, noise)
        settings = {
            key: _comparable(value)
            for key, value in vars(module).items()
            if key not in _OF_EVERY_MODULE and not (is_noise and key == "p")
        }
        settings |= {key: _comparable(vars(module)[key]) for key in _HOOKS if vars(module)[key]}
        kind = type(module)
        shown = kind.__name__ if is_noise else f"{kind.__name__}({module.extra_repr()})"
        found[f"module {name}" if name else "the model"] = (
            shown, f"{kind.__module__}.{kind.__qualname__} {settings}",
        )  # fmt: skip
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        kind_of = f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
        shown = kind_of if tensor.requires_grad else f"{kind_of}, not trained"
        found[name] = (shown, f"{shown} {isinstance(tensor, nn.Parameter)}")
    return found


def _comparable(value: Any) -> Any:
    """Returns what is equal for equal settings, and for unknown things in the same model only."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(key): _comparable(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list, set, frozenset)):
        return [type(value).__name__, *map(_comparable, value)]
    name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '<')}"
    if isinstance(value, Callable) and not isinstance(value, Tensor) and "<" not in name:  # type: ignore[arg-type]
        return name
    return f"{type(value).__qualname__} at {id(value)}"


def _shown(part: tuple[str, str] | None) -> str:
    return "missing" if part is None else part[0]
