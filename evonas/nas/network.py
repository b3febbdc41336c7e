"""A network as a list of layers, from which both the `nn.Module` and its source are made.

Shape inference is plain Python: a point without a valid shape is found in microseconds, before
any training, and without torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from evonas.exceptions import InvalidPoint
from evonas.nas.attention import TextEncoder
from evonas.nas.layers import Call, Conv2d, Dropout, Layer, Linear, Ref, Shape

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Network", "build", "infer_shapes", "modules_of"]


@dataclass(frozen=True, slots=True)
class Network:
    """The layers of a classifier of images or texts.

    Args:
        features: From the image on; begins with a convolution, or is a `TextEncoder`.
        classifier: From the features to one score per class; ends in `Linear(n_classes)`.

    Raises:
        ValueError: The first layer is neither `Conv2d` nor `TextEncoder`, or the last one no
            `Linear`.

    Example:
        >>> from evonas.nas.layers import Activation, AdaptiveAvgPool2d, Flatten
        >>> network = Network(
        ...     features=(Conv2d(8, 3, padding=1), Activation("relu"), AdaptiveAvgPool2d(1)),
        ...     classifier=(Flatten(), Linear(10)),
        ... )
        >>> network.shapes((3, 32, 32))
        [(8, 32, 32), (8, 32, 32), (8, 1, 1), (8,), (10,)]
        >>> network.macs((3, 32, 32))
        221264
    """

    features: tuple[Layer, ...]
    classifier: tuple[Layer, ...]

    def __post_init__(self) -> None:
        if not self.features or not isinstance(self.features[0], (Conv2d, TextEncoder)):
            first = self.features[0] if self.features else "no layer"
            raise ValueError(f"features must begin with a Conv2d or a TextEncoder, got {first}")
        if not self.classifier or not isinstance(self.classifier[-1], Linear):
            last = self.classifier[-1] if self.classifier else "no layer"
            raise ValueError(f"classifier must end in Linear(n_classes), got {last}")

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Features, then classifier."""
        return self.features + self.classifier

    def shapes(self, in_shape: Shape) -> list[Shape]:
        """Returns the shape that leaves each layer; see `infer_shapes`."""
        return infer_shapes(self.layers, in_shape)

    def calls(self, in_shape: Shape) -> list[Call]:
        """Returns the call that makes each layer, for images of `in_shape` `(C, H, W)`.

        Channels of the image, or the length of a text, and the number of classes are references:
        the source asks for them.

        Raises:
            InvalidPoint: A layer cannot take what reaches it.
        """
        calls = [layer.call(shape) for layer, shape in self._entering(in_shape)]
        calls[0] = replace(calls[0], args=(Ref("in_shape", 1), *calls[0].args[1:]))
        calls[-1] = replace(calls[-1], args=(*calls[-1].args[:-1], Ref("out_shape", 0)))
        return calls

    def arguments(self, in_shape: Shape, prm: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what the references in `calls` stand for: see `Ref.value`.

        Raises:
            InvalidPoint: A layer cannot take what reaches it.
        """
        n_classes = self.shapes(in_shape)[-1][0]
        return {"in_shape": (1, *in_shape), "out_shape": (n_classes,), "prm": prm}

    def macs(self, in_shape: Shape) -> int:
        """Returns the multiply-adds of one image in convolutions and fully connected layers.

        For the constraints of a space, which are asked for thousands of points and without torch;
        `evonas.training.cost` counts a module's.
        """
        return sum(layer.macs(shape) for layer, shape in self._entering(in_shape))

    def params(self, in_shape: Shape) -> int:
        """Returns the trainable weights, as `macs` does without torch."""
        return sum(layer.params(shape) for layer, shape in self._entering(in_shape))

    def uses(self, hyperparameter: str) -> bool:
        """Whether a layer refers to `prm["<hyperparameter>"]`."""
        asked = Ref("prm", hyperparameter)
        return any(isinstance(layer, Dropout) and layer.p == asked for layer in _all(self.layers))

    def _entering(self, in_shape: Shape) -> list[tuple[Layer, Shape]]:
        return list(zip(self.layers, [in_shape, *self.shapes(in_shape)[:-1]], strict=True))


def _all(layers: Sequence[Layer]) -> Iterator[Layer]:
    for layer in layers:
        yield layer
        yield from _all(layer.parts)


def infer_shapes(layers: Sequence[Layer], in_shape: Shape) -> list[Shape]:
    """Returns the shape that leaves each layer, without torch and without memory.

    Args:
        layers: In the order in which they are applied.
        in_shape: Of one image, `(C, H, W)`.

    Raises:
        InvalidPoint: A layer cannot take what reaches it; names the layer, the shape and why.

    Example:
        >>> from evonas.nas.layers import MaxPool2d
        >>> infer_shapes([Conv2d(64, 11, stride=4, padding=2), MaxPool2d(2)], (3, 32, 32))
        [(64, 7, 7), (64, 3, 3)]
    """
    shapes: list[Shape] = []
    shape = in_shape
    for place, layer in enumerate(layers):
        try:
            shape = layer.out_shape(shape)
        except InvalidPoint as error:
            raise InvalidPoint(
                f"layer {place}, {layer}, cannot take its input {shape}: {error}"
                f" (the image is {in_shape})"
            ) from None
        shapes.append(shape)
    return shapes


def build(network: Network, in_shape: Shape, *, prm: Mapping[str, Any] | None = None) -> nn.Module:
    """Returns the network as a module on the CPU, initialised from torch's global generator.

    Its parameters have the names and, under the same seed, the values of those of the generated
    `Net`: both carry out the same calls in the same order.

    Args:
        network: The layers.
        in_shape: Of one image, `(C, H, W)`.
        prm: What the layers ask for: `{"dropout": 0.5}`.

    Raises:
        InvalidPoint: A layer cannot take what reaches it.
        KeyError: The network asks for a hyperparameter that `prm` lacks.
    """
    arguments = network.arguments(in_shape, prm or {})
    modules = [call.make(arguments) for call in network.calls(in_shape)]
    return modules_of(modules, len(network.features))


def modules_of(modules: Sequence[nn.Module], n_features: int) -> nn.Module:
    """Returns the layers of a network as one module; the first `n_features` are its features."""
    from torch import nn

    module = nn.Sequential()
    module.add_module("features", nn.Sequential(*modules[:n_features]))
    module.add_module("classifier", nn.Sequential(*modules[n_features:]))
    return module
