"""Layers with layers inside: residual sums, parallel branches, channels weighed by all channels."""

from __future__ import annotations

from dataclasses import dataclass, replace

from evonas.exceptions import InvalidPoint
from evonas.nas.layers import BatchNorm2d, Call, Conv2d, Layer, Shape, image_shape

__all__ = ["Parallel", "Residual", "SqueezeExcite", "branch_calls"]


@dataclass(frozen=True, slots=True)
class Residual(Layer):
    """The sum of some layers and of what they get.

    Where the shapes differ, what they get goes through a convolution of 1x1 and a batch norm, with
    the stride that the sides ask for.

    Args:
        body: The layers; their output is an image whose sides are a whole part of the input's.

    Raises:
        ValueError: There are no layers.

    Example:
        >>> layer = Residual((Conv2d(16, 3, stride=2, padding=1, bias=False), BatchNorm2d()))
        >>> layer.out_shape((8, 32, 32))
        (16, 16, 16)
        >>> [part.code for part in layer.shortcut((8, 32, 32))]
        ['nn.Conv2d(8, 16, kernel_size=1, stride=2, bias=False)', 'nn.BatchNorm2d(16)']
    """

    body: tuple[Layer, ...]

    def __post_init__(self) -> None:
        if not self.body:
            raise ValueError("a Residual must have layers, got none")

    @property
    def parts(self) -> tuple[Layer, ...]:
        """The layers of the body."""
        return self.body

    def out_shape(self, shape: Shape) -> Shape:
        """Returns the shape of the sum.

        Raises:
            InvalidPoint: A layer cannot take its input, or the shortcut cannot reach the shape.
        """
        found = _leaving(self.body, shape)[-1]
        for layer, before in zip(self._projection(shape, found), (shape, found), strict=False):
            reached = layer.out_shape(before)
            if reached != found:
                raise InvalidPoint(
                    f"the branches do not add up: the body makes {found} of {shape}, the shortcut "
                    f"{reached}"
                )
        return found

    def call(self, shape: Shape) -> Call:
        """Returns `Residual(nn.Sequential(…), …)`, with `nn.Identity()` to add the input itself."""
        shortcut = tuple(self.shortcut(shape))
        around = Call("Sequential", shortcut) if shortcut else Call("Identity")
        return Call("Residual", (Call("Sequential", branch_calls(self.body, shape)), around))

    def shortcut(self, shape: Shape) -> list[Call]:
        """Returns the calls of the projection; none where the input is added as it is."""
        found = _leaving(self.body, shape)[-1]
        return list(branch_calls(self._projection(shape, found), shape))

    def macs(self, shape: Shape) -> int:
        """Returns those of the body and of the projection."""
        found = _leaving(self.body, shape)[-1]
        return _macs(self.body, shape) + _macs(self._projection(shape, found), shape)

    def params(self, shape: Shape) -> int:
        """Returns those of the body and of the projection."""
        found = _leaving(self.body, shape)[-1]
        return _params(self.body, shape) + _params(self._projection(shape, found), shape)

    def _projection(self, shape: Shape, found: Shape) -> tuple[Layer, ...]:
        if found == shape:
            return ()
        if len(image_shape(found)) != len(image_shape(shape)) or found[1] > shape[1]:
            raise InvalidPoint(f"the branches do not add up: {shape} becomes {found}")
        stride = -(-shape[1] // found[1])
        return Conv2d(found[0], 1, stride, bias=False), BatchNorm2d()


@dataclass(frozen=True, slots=True)
class Parallel(Layer):
    """Branches that get the same image; their channels are put behind one another.

    The order of the branches does not matter: networks that differ in nothing else are one.

    Args:
        branches: Layers each; `()` passes the image on. Their sides must be the same.

    Raises:
        ValueError: There are fewer than two branches.

    Example:
        >>> layer = Parallel(((Conv2d(8, 1),), (Conv2d(16, 3, padding=1),), ()))
        >>> layer.out_shape((4, 10, 10))
        (28, 10, 10)
    """

    branches: tuple[tuple[Layer, ...], ...]

    def __post_init__(self) -> None:
        if len(self.branches) < 2:
            raise ValueError(f"a Parallel must have two branches or more, got {self.branches}")

    @property
    def parts(self) -> tuple[Layer, ...]:
        """The layers of all branches."""
        return tuple(layer for branch in self.branches for layer in branch)

    def out_shape(self, shape: Shape) -> Shape:
        """Returns `(sum of channels, height, width)`.

        Raises:
            InvalidPoint: A layer cannot take its input, or the sides of two branches differ.
        """
        found = [image_shape(_leaving(branch, image_shape(shape))[-1]) for branch in self.branches]
        if len({entry[1:] for entry in found}) > 1:
            raise InvalidPoint(f"the branches do not fit together: their shapes are {found}")
        return (sum(entry[0] for entry in found), *found[0][1:])

    def call(self, shape: Shape) -> Call:
        """Returns `Parallel(nn.Sequential(…), nn.Sequential(…))`, the branches in order of code."""
        branches = [Call("Sequential", branch_calls(branch, shape)) for branch in self.branches]
        return Call("Parallel", tuple(sorted(branches, key=lambda call: call.code)))

    def macs(self, shape: Shape) -> int:
        """Returns those of all branches."""
        return sum(_macs(branch, shape) for branch in self.branches)

    def params(self, shape: Shape) -> int:
        """Returns those of all branches."""
        return sum(_params(branch, shape) for branch in self.branches)


def _leaving(layers: tuple[Layer, ...], shape: Shape) -> list[Shape]:
    """Returns the shape that enters the first layer, and those that leave each."""
    shapes = [shape]
    for layer in layers:
        shapes.append(layer.out_shape(shapes[-1]))
    return shapes


def branch_calls(layers: tuple[Layer, ...], shape: Shape) -> tuple[Call, ...]:
    """Returns the calls of a branch: its first module leaves what other branches get as it is."""
    entering = _leaving(layers, shape)[:-1]
    calls = [layer.call(before) for layer, before in zip(layers, entering, strict=True)]
    if calls:
        kept = tuple(entry for entry in calls[0].kwargs if entry != ("inplace", True))
        calls[0] = replace(calls[0], kwargs=kept)
    return tuple(calls)


def _macs(layers: tuple[Layer, ...], shape: Shape) -> int:
    entering = _leaving(layers, shape)[:-1]
    return sum(layer.macs(before) for layer, before in zip(layers, entering, strict=True))


def _params(layers: tuple[Layer, ...], shape: Shape) -> int:
    entering = _leaving(layers, shape)[:-1]
    return sum(layer.params(before) for layer, before in zip(layers, entering, strict=True))


@dataclass(frozen=True, slots=True)
class SqueezeExcite(Layer):
    """Weighs each channel by what all channels are on average.

    Args:
        ratio: Channels to one of the layer between.
    """

    ratio: int = 8

    def out_shape(self, shape: Shape) -> Shape:
        """Returns the shape as it is."""
        return image_shape(shape)

    def call(self, shape: Shape) -> Call:
        """Returns `SqueezeExcite(channels, hidden)`."""
        return Call("SqueezeExcite", (shape[0], self._hidden(shape)))

    def macs(self, shape: Shape) -> int:
        """Returns one per weight of both linear layers."""
        return 2 * shape[0] * self._hidden(shape)

    def params(self, shape: Shape) -> int:
        """Returns one per weight and bias of both linear layers."""
        return self.macs(shape) + shape[0] + self._hidden(shape)

    def _hidden(self, shape: Shape) -> int:
        return max(4, shape[0] // self.ratio)
