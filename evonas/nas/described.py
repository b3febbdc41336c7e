"""A network as JSON beside its weights: built again in any process, without running code of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from evonas.exceptions import WeightsError
from evonas.nas.layers import OWN_MODULES, Call, Ref, Shape
from evonas.nas.network import Network, modules_of

__all__ = ["description", "from_description"]

_KIND = "torch.nn"


def description(network: Network, in_shape: Shape, prm: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the calls of `torch.nn` that make a network, as JSON.

    Args:
        network: The layers.
        in_shape: Of one image, `(C, H, W)`.
        prm: What the layers ask for: `{"dropout": 0.5}`.

    Raises:
        InvalidPoint: A layer cannot take what reaches it.
    """
    arguments = network.arguments(in_shape, prm)
    return {
        "kind": _KIND,
        "in_shape": list(in_shape),
        "n_features": len(network.features),
        "calls": [_as_json(call, arguments) for call in network.calls(in_shape)],
    }


def from_description(data: Mapping[str, Any]) -> nn.Module:
    """Returns the untrained network of a `description`; its initial weights mean nothing.

    Raises:
        WeightsError: It names something else than modules of `torch.nn`.
        KeyError, TypeError, ValueError: It is no description.
    """
    calls = [_call(entry) for entry in data["calls"]]
    return modules_of([call.make({}) for call in calls], int(data["n_features"]))


def _as_json(call: Call, arguments: Mapping[str, Any]) -> list[Any]:
    """Returns `[name, args, kwargs]`; a module within is `{"call": […]}`."""
    args = [
        {"call": _as_json(value, arguments)}
        if isinstance(value, Call)
        else _plain(value, arguments)
        for value in call.args
    ]
    return [call.name, args, {name: _plain(value, arguments) for name, value in call.kwargs}]


def _call(entry: Any) -> Call:
    name, args, kwargs = entry
    kind = getattr(nn, name, None)
    is_module = isinstance(kind, type) and issubclass(kind, nn.Module)
    if not is_module and name not in OWN_MODULES:
        raise WeightsError(f"{name!r} is no module of torch.nn")
    found = [_call(value["call"]) if isinstance(value, Mapping) else value for value in args]
    return Call(name, tuple(found), tuple(kwargs.items()))


def _plain(value: Any, arguments: Mapping[str, Any]) -> Any:
    if isinstance(value, Call):
        return {"call": _as_json(value, arguments)}
    if isinstance(value, Ref):
        return value.value(arguments)
    return [_plain(entry, arguments) for entry in value] if isinstance(value, tuple) else value
