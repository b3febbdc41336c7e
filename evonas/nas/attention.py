"""Layers of transformers: blocks of attention, the encoder of a text, stochastic depth."""

from __future__ import annotations

from dataclasses import dataclass

from evonas.exceptions import InvalidPoint
from evonas.nas.layers import Activation, Call, Dropout, Layer, Shape

__all__ = ["StochasticDepth", "TextEncoder", "TransformerBlock"]


@dataclass(frozen=True, slots=True)
class StochasticDepth(Layer):
    """Drops all of an example with probability `p` while training: the last layer of a body.

    Args:
        p: Probability, in [0, 1).

    Raises:
        ValueError: `p` is something else.

    Source:
        Huang, Sun, Liu, Sedra and Weinberger (2016), "Deep networks with stochastic depth".
    """

    p: float

    def __post_init__(self) -> None:
        if not 0 <= self.p < 1:
            raise ValueError(f"p must be in [0, 1), got {self.p!r}")

    def call(self, shape: Shape) -> Call:
        """Returns `StochasticDepth(p)`."""
        return Call("StochasticDepth", (self.p,))


@dataclass(frozen=True, slots=True)
class TransformerBlock(Layer):
    """Self-attention and two linear layers, for a sequence `(length, width)`.

    Args:
        heads: Of the attention; must divide the width.
        ratio: Width of the layer between, in widths.
        activation: By name, see `Activation`.
        norm_first: Whether a branch begins with its layer norm, or the norm follows the sum.
        drop: Probability with which a branch is left out, see `StochasticDepth`.

    Source:
        Vaswani et al. (2017), "Attention is all you need"; the norm first as in Xiong et al.
        (2020), "On layer normalization in the transformer architecture".
    """

    heads: int = 4
    ratio: int = 4
    activation: str = "gelu"
    norm_first: bool = True
    drop: float = 0.0

    @property
    def parts(self) -> tuple[Layer, ...]:
        """Activation, stochastic depth and dropout."""
        return Activation(self.activation), StochasticDepth(self.drop), Dropout()

    def out_shape(self, shape: Shape) -> Shape:
        """Returns the shape as it is."""
        if len(shape) != 2:
            raise InvalidPoint(f"it needs a sequence (length, width), got shape {shape}")
        if shape[1] % self.heads:
            raise InvalidPoint(f"{self.heads} heads do not divide a width of {shape[1]}")
        return shape

    def call(self, shape: Shape) -> Call:
        """Returns `TransformerBlock(width, heads, hidden, norm_first, p, …)`."""
        _, width = self.out_shape(shape)
        activation, depth, dropout = (part.call(shape) for part in self.parts)
        sizes = (width, self.heads, self.ratio * width)
        return Call("TransformerBlock", (*sizes, self.norm_first, *dropout.args, activation, depth))

    def macs(self, shape: Shape) -> int:
        """Returns one per weight and token, and two per pair of tokens and channel."""
        length, width = self.out_shape(shape)
        return length * (4 + 2 * self.ratio) * width**2 + 2 * length**2 * width

    def params(self, shape: Shape) -> int:
        """Returns those of four linear layers and two norms."""
        _, width = self.out_shape(shape)
        return (4 + 2 * self.ratio) * width**2 + (9 + self.ratio) * width


@dataclass(frozen=True, slots=True)
class TextEncoder(Layer):
    """Embeddings, blocks, and the mean over the tokens: `(length,)` token numbers to `(width,)`.

    Args:
        vocabulary: Numbers of tokens, 0, which is padding, included.
        width: Of the embeddings.
        blocks: In their order.

    Raises:
        ValueError: A size is below 1.
    """

    vocabulary: int
    width: int
    blocks: tuple[TransformerBlock, ...]

    def __post_init__(self) -> None:
        if min(self.vocabulary, self.width) < 1:
            raise ValueError(
                f"vocabulary and width must be at least 1, got {self.vocabulary} and {self.width}"
            )

    @property
    def parts(self) -> tuple[Layer, ...]:
        """The blocks."""
        return self.blocks

    def out_shape(self, shape: Shape) -> Shape:
        """Returns `(width,)`."""
        inner = self._inner(shape)
        for block in self.blocks:
            block.out_shape(inner)
        return (self.width,)

    def call(self, shape: Shape) -> Call:
        """Returns `TextEncoder(length, vocabulary, width, TransformerBlock(…), …)`."""
        inner = self._inner(shape)
        blocks = [block.call(inner) for block in self.blocks]
        return Call("TextEncoder", (shape[0], self.vocabulary, self.width, *blocks))

    def macs(self, shape: Shape) -> int:
        """Returns those of the blocks."""
        return sum(block.macs(self._inner(shape)) for block in self.blocks)

    def params(self, shape: Shape) -> int:
        """Returns those of the blocks, of both embeddings and of the last norm."""
        blocks = sum(block.params(self._inner(shape)) for block in self.blocks)
        return blocks + (self.vocabulary + shape[0] + 2) * self.width

    def _inner(self, shape: Shape) -> Shape:
        if len(shape) != 1:
            raise InvalidPoint(f"it needs a text (length,), got shape {shape}")
        return shape[0], self.width
