"""Layers as plain data: each says once how torch is to be called to make it.

`evonas.nas.network.build` carries that call out and `evonas.nas.source` prints it, so module and
source cannot differ. Shapes, weights and multiply-adds are counted in plain Python: torch is
imported only when a call is carried out.
"""

from __future__ import annotations

import keyword
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from evonas.exceptions import InvalidPoint

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "OWN_MODULES",
    "Activation",
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d",
    "AvgPool2d",
    "BatchNorm2d",
    "Call",
    "Conv2d",
    "Dropout",
    "Flatten",
    "GroupNorm",
    "Layer",
    "Linear",
    "MaxPool2d",
    "Ref",
    "Shape",
    "image_shape",
    "literal",
]

OWN_MODULES = (
    "Graph", "Parallel", "Residual", "SqueezeExcite", "StochasticDepth", "TransformerBlock",
    "TextEncoder",
)  # fmt: skip
"""Names of the classes in `evonas.nas.modules`, which a `Call` may make beside those of torch."""

Shape = tuple[int, ...]
"""Without the batch: `(channels, height, width)` of images, `(features,)` of vectors."""


@dataclass(frozen=True, slots=True)
class Ref:
    """A value that the network gets when it is built: `prm["dropout"]`, `out_shape[0]`.

    Args:
        name: An argument of `Net.__init__`.
        index: What it is subscripted with.

    Example:
        >>> Ref("prm", "dropout").code
        'prm["dropout"]'
        >>> Ref("out_shape", 0).value({"out_shape": (10,)})
        10
    """

    name: Literal["in_shape", "out_shape", "prm"]
    index: str | int

    @property
    def code(self) -> str:
        """The expression in the source."""
        return f"{self.name}[{literal(self.index)}]"

    def value(self, arguments: Mapping[str, Any]) -> Any:
        """The expression's value where `Net.__init__` was called with these arguments."""
        return arguments[self.name][self.index]


@dataclass(frozen=True, slots=True)
class Call:
    """`nn.<name>(*args, **kwargs)`, before it is either carried out or printed.

    Args:
        name: A class of `torch.nn`, or one of `OWN_MODULES`.
        args: Numbers, texts, True, False, None, tuples and lists of them, a `Ref`, or calls of the
            modules within, which come last: so they stand in the source.
        kwargs: `(name, value)` likewise.

    Raises:
        ValueError: A name is not an identifier, or a call stands before something else.

    Example:
        >>> Call("Linear", (256, Ref("out_shape", 0))).code
        'nn.Linear(256, out_shape[0])'
    """

    name: str
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        # They stand in the source as they are.
        for name in (self.name, *(name for name, _ in self.kwargs)):
            if not name.isidentifier() or keyword.iskeyword(name):
                raise ValueError(f"a Call's names must be Python identifiers, got {name!r}")
        if self.inner and (self.kwargs or self.args[-len(self.inner) :] != self.inner):
            raise ValueError(f"the calls among the arguments of {self.name} must come last")

    @property
    def code(self) -> str:
        """The call as it stands in the source."""
        return f"{self.class_code}({', '.join(code for _, code in self.arguments())})"

    @property
    def class_code(self) -> str:
        """The class as it stands in the source: `nn.Linear`, `Residual`."""
        return self.name if self.name in OWN_MODULES else f"nn.{self.name}"

    @property
    def inner(self) -> tuple[Call, ...]:
        """The calls among the arguments."""
        return tuple(value for value in self.args if isinstance(value, Call))

    def names(self) -> set[str]:
        """Returns the names of this call's class and of those within."""
        return {self.name}.union(*(call.names() for call in self.inner))

    def arguments(self) -> list[tuple[Any, str]]:
        """Returns each argument's value, and how it stands in the source."""
        parts = [(value, _code(value)) for value in self.args]
        return parts + [(value, f"{name}={_code(value)}") for name, value in self.kwargs]

    def make(self, arguments: Mapping[str, Any]) -> nn.Module:
        """Carries the call out."""
        from torch import nn

        from evonas.nas import modules

        args = [_value(value, arguments) for value in self.args]
        kwargs = {name: _value(value, arguments) for name, value in self.kwargs}
        place = modules if self.name in OWN_MODULES else nn
        module: nn.Module = getattr(place, self.name)(*args, **kwargs)
        return module


class Layer:
    """One layer: its output's shape, its cost, and the call that makes it.

    Subclasses are frozen dataclasses. Sizes that follow from the input (input channels, input
    features) are not among their fields: they come from the shape.
    """

    __slots__ = ()

    @property
    def parts(self) -> tuple[Layer, ...]:
        """The layers within."""
        return ()

    def out_shape(self, shape: Shape) -> Shape:
        """Returns the shape that leaves the layer.

        Raises:
            InvalidPoint: The layer cannot take this shape.
        """
        return shape

    def call(self, shape: Shape) -> Call:
        """Returns the call that makes the layer for this input."""
        raise NotImplementedError(f"{type(self).__name__} must define call(shape)")

    def macs(self, shape: Shape) -> int:
        """Returns the multiply-adds of one image: 0 but for the layers that do nearly all of them.

        In plain Python, so that a space can bound them while it samples; what goes on record is
        counted by torch (see `evonas.training.cost`).
        """
        return 0

    def params(self, shape: Shape) -> int:
        """Returns the trainable weights, in plain Python for the same reason."""
        return 0


@dataclass(frozen=True, slots=True)
class Conv2d(Layer):
    """A convolution of square kernels.

    Args:
        filters: Output channels.
        kernel_size: Side of the kernel.
        stride: Step of the kernel.
        padding: Zeros on each side.
        bias: False before a batch norm, which has its own.
        groups: Groups of channels that do not see each other; must divide input and output
            channels.
    """

    filters: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    bias: bool = True
    groups: int = 1

    def out_shape(self, shape: Shape) -> Shape:
        """Returns `(filters, height, width)`."""
        channels, height, width = image_shape(shape)
        if channels % self.groups or self.filters % self.groups:
            raise InvalidPoint(
                f"{self.groups} groups divide neither {channels} nor {self.filters} channels evenly"
            )
        sides = [self._side(height), self._side(width)]
        if min(sides) < 1:
            raise InvalidPoint(
                f"a {self.kernel_size}x{self.kernel_size} kernel with padding {self.padding} does"
                f" not fit into {height}x{width}"
            )
        return (self.filters, *sides)

    def call(self, shape: Shape) -> Call:
        """Returns `nn.Conv2d(channels, filters, kernel_size=…)`, defaults left out."""
        kwargs: list[tuple[str, Any]] = [("kernel_size", self.kernel_size)]
        if self.stride != 1:
            kwargs.append(("stride", self.stride))
        if self.padding != 0:
            kwargs.append(("padding", self.padding))
        if self.groups != 1:
            kwargs.append(("groups", self.groups))
        if not self.bias:
            kwargs.append(("bias", False))
        return Call("Conv2d", (shape[0], self.filters), tuple(kwargs))

    def macs(self, shape: Shape) -> int:
        """Returns one per kernel weight and output pixel."""
        _, height, width = self.out_shape(shape)
        return self.filters * (shape[0] // self.groups) * self.kernel_size**2 * height * width

    def params(self, shape: Shape) -> int:
        """Returns those of the kernels, and one a filter with `bias`."""
        kernels = self.filters * (shape[0] // self.groups) * self.kernel_size**2
        return kernels + (self.filters if self.bias else 0)

    def _side(self, side: int) -> int:
        return (side + 2 * self.padding - self.kernel_size) // self.stride + 1


@dataclass(frozen=True, slots=True)
class BatchNorm2d(Layer):
    """Batch normalisation of each channel."""

    def out_shape(self, shape: Shape) -> Shape:
        """Returns the shape as it is."""
        image_shape(shape)
        return shape

    def call(self, shape: Shape) -> Call:
        """Returns `nn.BatchNorm2d(channels)`."""
        return Call("BatchNorm2d", (shape[0],))

    def params(self, shape: Shape) -> int:
        """Returns two a channel."""
        return 2 * shape[0]


@dataclass(frozen=True, slots=True)
class GroupNorm(Layer):
    """Normalisation of groups of channels within each image (Wu and He 2018).

    Args:
        channels: Channels of a group; must divide the input's.
    """

    channels: int = 8

    def out_shape(self, shape: Shape) -> Shape:
        """Returns the shape as it is."""
        if image_shape(shape)[0] % self.channels:
            raise InvalidPoint(f"groups of {self.channels} do not divide {shape[0]} channels")
        return shape

    def call(self, shape: Shape) -> Call:
        """Returns `nn.GroupNorm(groups, channels)`."""
        return Call("GroupNorm", (shape[0] // self.channels, shape[0]))

    def params(self, shape: Shape) -> int:
        """Returns two a channel."""
        return 2 * shape[0]


_ACTIVATIONS: dict[str, Call] = {
    "relu": Call("ReLU", (), (("inplace", True),)),
    "leaky_relu": Call("LeakyReLU", (0.1,), (("inplace", True),)),
    "silu": Call("SiLU", (), (("inplace", True),)),
    "gelu": Call("GELU"),
}


@dataclass(frozen=True, slots=True)
class Activation(Layer):
    """An activation by name: `relu`, `leaky_relu`, `silu` or `gelu`.

    Raises:
        ValueError: The name is none of these.
    """

    name: str = "relu"

    def __post_init__(self) -> None:
        if self.name not in _ACTIVATIONS:
            known = ", ".join(_ACTIVATIONS)
            raise ValueError(f"activation must be one of {known}, got {self.name!r}")

    def call(self, shape: Shape) -> Call:
        """Returns `nn.ReLU(inplace=True)` or its like."""
        return _ACTIVATIONS[self.name]


@dataclass(frozen=True, slots=True)
class MaxPool2d(Layer):
    """The maximum of each square window; windows do not overlap."""

    kernel_size: int = 2

    def out_shape(self, shape: Shape) -> Shape:
        """Returns `(channels, height // kernel_size, width // kernel_size)`."""
        channels, height, width = image_shape(shape)
        if min(height, width) < self.kernel_size:
            raise InvalidPoint(
                f"a {self.kernel_size}x{self.kernel_size} window does not fit into {height}x{width}"
            )
        return (channels, height // self.kernel_size, width // self.kernel_size)

    def call(self, shape: Shape) -> Call:
        """Returns `nn.MaxPool2d(kernel_size=…)`."""
        return Call("MaxPool2d", (), (("kernel_size", self.kernel_size),))


@dataclass(frozen=True, slots=True)
class AvgPool2d(Layer):
    """The mean of each square window; what lies beyond the image does not count.

    Args:
        kernel_size: Side of the window.
        stride: Step of the window.
        padding: Pixels beyond each side that windows may reach.
    """

    kernel_size: int = 2
    stride: int = 2
    padding: int = 0

    def out_shape(self, shape: Shape) -> Shape:
        """Returns `(channels, height, width)`."""
        channels, *sides = image_shape(shape)
        found = [(side + 2 * self.padding - self.kernel_size) // self.stride + 1 for side in sides]
        if min(found) < 1:
            raise InvalidPoint(
                f"a {self.kernel_size}x{self.kernel_size} window does not fit into "
                f"{sides[0]}x{sides[1]}"
            )
        return (channels, *found)

    def call(self, shape: Shape) -> Call:
        """Returns `nn.AvgPool2d(kernel_size, stride, …)`."""
        kwargs: tuple[tuple[str, Any], ...] = ()
        if self.padding:
            kwargs = (("padding", self.padding), ("count_include_pad", False))
        return Call("AvgPool2d", (self.kernel_size, self.stride), kwargs)


@dataclass(frozen=True, slots=True)
class AdaptiveAvgPool2d(Layer):
    """Averages to a fixed side, whatever the image's size is; 1 is global average pooling."""

    size: int = 1

    def out_shape(self, shape: Shape) -> Shape:
        """Returns `(channels, size, size)`."""
        return (image_shape(shape)[0], self.size, self.size)

    def call(self, shape: Shape) -> Call:
        """Returns `nn.AdaptiveAvgPool2d(size)`."""
        return Call("AdaptiveAvgPool2d", (self.size,))


@dataclass(frozen=True, slots=True)
class AdaptiveMaxPool2d(Layer):
    """The maxima of a fixed number of windows; 1 is global max pooling."""

    size: int = 1

    def out_shape(self, shape: Shape) -> Shape:
        """Returns `(channels, size, size)`."""
        return (image_shape(shape)[0], self.size, self.size)

    def call(self, shape: Shape) -> Call:
        """Returns `nn.AdaptiveMaxPool2d(size)`."""
        return Call("AdaptiveMaxPool2d", (self.size,))


@dataclass(frozen=True, slots=True)
class Flatten(Layer):
    """Lays an image out as a vector."""

    def out_shape(self, shape: Shape) -> Shape:
        """Returns `(channels * height * width,)`."""
        return (math.prod(shape),)

    def call(self, shape: Shape) -> Call:
        """Returns `nn.Flatten()`."""
        return Call("Flatten")


@dataclass(frozen=True, slots=True)
class Dropout(Layer):
    """Drops each value with probability `p` while training; by default `prm["dropout"]`."""

    p: float | Ref = Ref("prm", "dropout")

    def call(self, shape: Shape) -> Call:
        """Returns `nn.Dropout(p)`."""
        return Call("Dropout", (self.p,))


@dataclass(frozen=True, slots=True)
class Linear(Layer):
    """A fully connected layer.

    Args:
        neurons: Output features.
    """

    neurons: int

    def out_shape(self, shape: Shape) -> Shape:
        """Returns `(neurons,)`."""
        if len(shape) != 1:
            raise InvalidPoint(f"it needs a vector (put Flatten() before it), got shape {shape}")
        return (self.neurons,)

    def call(self, shape: Shape) -> Call:
        """Returns `nn.Linear(features, neurons)`."""
        return Call("Linear", (shape[0], self.neurons))

    def macs(self, shape: Shape) -> int:
        """Returns one per weight."""
        return shape[0] * self.neurons

    def params(self, shape: Shape) -> int:
        """Returns one per weight and bias."""
        return (shape[0] + 1) * self.neurons


def image_shape(shape: Shape) -> Shape:
    """Returns a shape that is an image's.

    Raises:
        InvalidPoint: It is another.
    """
    if len(shape) != 3:
        raise InvalidPoint(f"it needs an image (channels, height, width), got shape {shape}")
    return shape


def literal(value: Any) -> str:
    """Returns the Python source of a plain value: what `ast.literal_eval` turns back into it.

    Raises:
        TypeError: It, or something in it, is not a finite number, text, bool, None, tuple, list or
            dict.

    Example:
        >>> print(literal("relu"), literal((1, None)))
        "relu" (1, None)
    """
    is_plain = isinstance(value, str) and value.isprintable() and not set(value) & {'"', "\\"}
    if is_plain:
        return f'"{value}"'
    if not _is_literal(value):
        raise TypeError(f"generated source cannot hold {value!r} ({type(value).__name__})")
    return repr(value)


def _is_literal(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if type(value) in (list, tuple):
        return all(map(_is_literal, value))
    if type(value) is dict:
        return all(map(_is_literal, [*value, *value.values()]))
    return value is None or type(value) in (bool, int, str)


def _code(value: Any) -> str:
    return value.code if isinstance(value, (Ref, Call)) else literal(value)


def _value(value: Any, arguments: Mapping[str, Any]) -> Any:
    if isinstance(value, Call):
        return value.make(arguments)
    return value.value(arguments) if isinstance(value, Ref) else value
