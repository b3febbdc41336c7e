"""The models of several candidates as one: their weights stacked, their outputs by one pass."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from evonas.exceptions import FusionError
from evonas.training.fused.noise import CandidateNoise, RandomStates
from evonas.training.fused.signature import NoiseModules, refuse_unlike
from evonas.training.passes import outputs_of

__all__ = ["StackedModels", "StackedWeights"]


@dataclass(slots=True)
class StackedWeights:
    """What K models consist of.

    Attributes:
        trained: All parameters that are trained, `(K, P)`, those of a model in one row.
        buffers: By name, `(K, ...)`; running statistics change in place.
    """

    trained: Tensor
    buffers: dict[str, Tensor]

    def rows(self, index: Tensor) -> StackedWeights:
        """Returns some rows, as copies."""
        return StackedWeights(
            self.trained[index], {name: buffer[index] for name, buffer in self.buffers.items()}
        )

    def clone(self) -> StackedWeights:
        """Returns a copy."""
        copies = {name: buffer.clone() for name, buffer in self.buffers.items()}
        return StackedWeights(self.trained.clone(), copies)


class StackedModels:
    """K models of one shape, called as one.

    Args:
        models: On their device. What is trained goes on in stacked copies; see `write_back`.
        noise: Modules that draw for each candidate from its own generator.
        states: Those generators.

    Attributes:
        weights: Of all models.
        device: Where they are.

    Raises:
        FusionError: The models differ in more than the probabilities of their `noise` modules, or
            their parameters have several dtypes.
    """

    def __init__(
        self, models: Sequence[nn.Module], noise: NoiseModules, states: RandomStates
    ) -> None:
        refuse_unlike(models, noise)
        self._states = states
        named = [dict(model.named_parameters()) for model in models]
        self._shapes = {
            name: tuple(parameter.shape)
            for name, parameter in named[0].items()
            if parameter.requires_grad
        }
        if not self._shapes:
            raise FusionError("the model of a candidate has no parameter that is trained")
        kinds = {named[0][name].dtype for name in self._shapes}
        if len(kinds) > 1:
            found = ", ".join(sorted(map(str, kinds)))
            raise FusionError(f"trained parameters must have one dtype, got {found}")
        self.device = next(iter(named[0].values())).device
        trained = torch.stack(
            [
                torch.cat([each[name].detach().reshape(-1) for name in self._shapes])
                for each in named
            ]
        )
        self._fixed = {
            name: torch.stack([each[name].detach() for each in named])
            for name in named[0]
            if name not in self._shapes
        }
        of_buffers = [dict(model.named_buffers()) for model in models]
        buffers = {n: torch.stack([each[n].detach() for each in of_buffers]) for n in of_buffers[0]}
        self._template = _Outputs(copy.deepcopy(models[0]))
        _replace_means(self._template)
        self._noise = _replace_noise(self._template.model, models, noise, states)
        self._set(StackedWeights(trained, buffers))

    def __len__(self) -> int:
        return len(self.weights.trained)

    def _set(self, weights: StackedWeights) -> None:
        self.weights = weights
        self._parameters = {n: p.requires_grad_() for n, p in self._views(weights.trained).items()}

    def _views(self, trained: Tensor) -> dict[str, Tensor]:
        sizes = [torch.Size(shape).numel() for shape in self._shapes.values()]
        parts = torch.split(trained.detach(), sizes, dim=1)
        named = zip(self._shapes.items(), parts, strict=True)
        return {name: part.view(len(trained), *shape) for (name, shape), part in named}

    def keep(self, rows: Sequence[int]) -> None:
        """Forgets all models but these."""
        index = torch.tensor(rows, device=self.device)
        self._fixed = {name: tensor[index] for name, tensor in self._fixed.items()}
        for module in self._noise:
            module.keep(rows)
        self._states.keep(rows)
        self._set(self.weights.rows(index))

    def train_outputs(self, inputs: Any) -> Any:
        """Returns the outputs `(K, B, ...)` for each model's own batch, inputs `(K, B, ...)`."""
        self._template.train()
        return self._call(self._parameters, self.weights.buffers, inputs, 0)

    def gradients(self, losses: Tensor) -> Tensor:
        """Returns the gradient `(K, P)` of each model's loss `(K,)` in its own weights.

        A loss that is NaN spoils its own row only.
        """
        found = torch.autograd.grad(losses.sum(), list(self._parameters.values()))
        return torch.cat([gradient.flatten(1) for gradient in found], 1)

    def eval_outputs(self, inputs: Any, weights: StackedWeights | None = None) -> Any:
        """Returns the outputs `(K, B, ...)` of all models for one batch `(B, ...)`."""
        weights = weights or self.weights
        self._template.eval()
        with torch.no_grad():
            return self._call(self._views(weights.trained), weights.buffers, inputs, None)

    def write_back(self, row: int, model: nn.Module, weights: StackedWeights | None = None) -> None:
        """Copies the weights and buffers of a row into a model of the same shape."""
        weights = weights or self.weights
        views = self._views(weights.trained)
        parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
        with torch.no_grad():
            for name, view in views.items():
                parameters[name].copy_(view[row])
            for name, buffer in weights.buffers.items():
                buffers[name].copy_(buffer[row])

    def _call(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        inputs: Any,
        dim: int | None,
    ) -> Any:
        def one(own: dict[str, Tensor], state: dict[str, Tensor], batch: Any) -> Any:
            named = {f"model.{name}": tensor for name, tensor in {**own, **state}.items()}
            return functional_call(self._template, named, (batch,))

        run = vmap(one, in_dims=(0, 0, dim), randomness="error")
        # Of a CPU's fused attention torch knows no form for several models.
        attention = sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()
        try:
            with attention, _TorchsBatchNorm():
                return run({**parameters, **self._fixed}, dict(buffers), inputs)
        except RuntimeError as error:
            if not str(error).lstrip().startswith("vmap"):
                raise
            raise FusionError(
                "this model cannot be trained with others: "
                f"{str(error).strip().partition(chr(10))[0]}"
            ) from error


class _Outputs(nn.Module):
    """A model that takes a batch's inputs, of whatever structure, as one argument."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Any) -> Any:
        """Returns what `outputs_of` returns."""
        return outputs_of(self.model, inputs)


class _TorchsBatchNorm(TorchFunctionMode):
    """Has a batch norm computed by torch itself: that of cuDNN asks for a layout within `vmap`."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Calls the function; a batch norm without cuDNN."""
        if func is not functional.batch_norm:
            return func(*args, **(kwargs or {}))
        given = _BATCH_NORM.bind(*args, **(kwargs or {}))
        given.apply_defaults()
        x, mean, variance, weight, bias, training, momentum, eps = given.args
        return torch.batch_norm(x, weight, bias, mean, variance, training, momentum, eps, False)


_BATCH_NORM = inspect.signature(functional.batch_norm)


class _Mean(nn.Module):
    """The mean over all pixels, of which `AdaptiveAvgPool2d(1)` is another way of writing.

    That one changes strides in place where images are channels last, for which `vmap` would call
    it for each candidate.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Returns `(B, C, 1, 1)`."""
        return x.mean((-2, -1), keepdim=True)


def _replace_means(template: nn.Module) -> None:
    for name, module in [*template.named_modules(remove_duplicate=False)]:
        if type(module) is nn.AdaptiveAvgPool2d and module.output_size in (1, (1, 1)):
            template.set_submodule(name, _Mean())


def _replace_noise(
    template: nn.Module, models: Sequence[nn.Module], noise: NoiseModules, states: RandomStates
) -> list[CandidateNoise]:
    names = [
        name
        for name, module in template.named_modules(remove_duplicate=False)
        if name and isinstance(module, noise)
    ]
    found = []
    for name in names:
        found.append(CandidateNoise([model.get_submodule(name) for model in models], states))
        template.set_submodule(name, found[-1])
    return found
