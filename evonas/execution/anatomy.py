"""What a model is made of: its layers with shapes and costs, and the inputs it takes, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evonas.execution.model_calls import call_model, modes_kept

if TYPE_CHECKING:
    from torch import nn

__all__ = ["anatomy", "example_of", "inputs_as_json"]


def anatomy(model: nn.Module, inputs: Any) -> dict[str, Any]:
    """Returns `{"inputs": …, "layers": […]}` of a model, from one pass in evaluation mode.

    A layer is a module without parts of its own that was called, in the order of the calls: `name`,
    `type`, `shape` of its output without the batch (None where it returns no tensor), `params`,
    and `macs`, the multiply-adds of one example.

    Args:
        model: Its modes and gradients are left as they are.
        inputs: A batch as the model is called with: a tensor, a mapping or a tuple.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    layers: list[dict[str, Any]] = []
    seen: set[int] = set()
    handles = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            own = [p for p in module.parameters() if id(p) not in seen]
            seen.update(id(p) for p in own)
            shape = list(output.shape[1:]) if isinstance(output, torch.Tensor) else None
            layers.append(
                {
                    "name": name,
                    "type": type(module).__name__,
                    "shape": shape,
                    "params": sum(p.numel() for p in own),
                }
            )

        return hook

    counter = FlopCounterMode(display=False)
    try:
        for name, module in model.named_modules():
            if next(module.children(), None) is None:
                handles.append(module.register_forward_hook(note(name)))
        with modes_kept(model), torch.no_grad(), counter:
            call_model(model.eval(), inputs)
    finally:
        for handle in handles:
            handle.remove()
    root, n_examples = type(model).__name__, _n_examples(inputs)
    counts = {
        name.removeprefix(root).removeprefix("."): sum(by_operator.values())
        for name, by_operator in counter.get_flop_counts().items()
    }
    for layer in layers:
        calls = sum(other["name"] == layer["name"] for other in layers)
        layer["macs"] = counts.get(layer["name"], 0) // (2 * calls * n_examples)
    return {"inputs": inputs_as_json(inputs), "layers": layers}


def inputs_as_json(inputs: Any) -> Any:
    """Returns dtype and shape, without the batch, of each tensor of a batch; None for others."""
    import torch

    if isinstance(inputs, torch.Tensor):
        name = str(inputs.dtype).removeprefix("torch.")
        return {"dtype": name, "shape": list(inputs.shape[1:])}
    if isinstance(inputs, Mapping):
        return {"named": {str(name): inputs_as_json(value) for name, value in inputs.items()}}
    if isinstance(inputs, (tuple, list)):
        return {"several": [inputs_as_json(value) for value in inputs]}
    return None


def example_of(described: Any, batch_size: int = 2, seed: int = 0) -> Any:
    """Returns a random batch of inputs that `inputs_as_json` described.

    Floating ones are normal; whole numbers are 0 or 1, which every vocabulary has.

    Raises:
        ValueError: It describes something else than tensors.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)

    def make(entry: Any) -> Any:
        if isinstance(entry, Mapping) and "named" in entry:
            return {name: make(value) for name, value in entry["named"].items()}
        if isinstance(entry, Mapping) and "several" in entry:
            return tuple(make(value) for value in entry["several"])
        dtype = getattr(torch, str((entry or {}).get("dtype")), None)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"{entry} describes no tensor")
        shape = (batch_size, *map(int, entry["shape"]))
        if dtype.is_floating_point:
            return torch.randn(shape, generator=generator).to(dtype)
        return torch.randint(0, 2, shape, generator=generator).to(dtype)

    return make(described)


def _n_examples(inputs: Any) -> int:
    if isinstance(inputs, Mapping):
        inputs = tuple(inputs.values())
    if isinstance(inputs, (tuple, list)):
        inputs = inputs[0]
    return max(1, len(inputs))
