"""Modules that networks with branches are made of; their source stands in the generated modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = [
    "Graph",
    "Parallel",
    "Residual",
    "SqueezeExcite",
    "StochasticDepth",
    "TextEncoder",
    "TransformerBlock",
]


class Graph(nn.Module):
    """Nodes that are the sums of what their edges bring; the last one is the output."""

    def __init__(self, sources: list[int], targets: list[int], *edges: nn.Module) -> None:
        super().__init__()
        self.sources, self.targets = sources, targets
        self.edges = nn.ModuleList(edges)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the last node."""
        nodes = {0: x}
        for source, target, edge in zip(self.sources, self.targets, self.edges):  # noqa: B905
            found = edge(nodes[source])
            nodes[target] = nodes[target] + found if target in nodes else found
        return nodes[self.targets[-1]]


class Residual(nn.Module):
    """The sum of a body and of a shortcut around it."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Returns the sum."""
        return self.shortcut(x) + self.body(x)  # type: ignore[no-any-return]


class Parallel(nn.Module):
    """The channels of several branches, one behind the other."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """Returns all channels."""
        return torch.cat([branch(x) for branch in self.branches], 1)


class SqueezeExcite(nn.Module):
    """Weighs each channel by what all channels are on average (Hu et al. 2018)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the images, channel by channel times a weight in (0, 1)."""
        weights = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        return x * weights[:, :, None, None]  # type: ignore[no-any-return]


class StochasticDepth(nn.Module):
    """Drops all of an example with probability p while training (Huang et al. 2016)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Returns the examples, those that are kept divided by the share of them."""
        if not self.training or self.p == 0:
            return x
        kept = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) >= self.p
        return x * kept / (1 - self.p)


class TransformerBlock(nn.Module):
    """Self-attention and two linear layers, each around which the input goes on as it is."""

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        norm_first: bool,
        dropout: float,
        activation: nn.Module,
        depth: nn.Module,
    ) -> None:
        super().__init__()
        self.heads, self.norm_first = heads, norm_first
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), activation, nn.Linear(hidden, width))
        self.dropout, self.depth = nn.Dropout(dropout), depth

    def attend(self, x: Tensor, kept: Tensor) -> Tensor:
        """Returns the weighted means of the tokens that are kept."""
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        found = nn.functional.scaled_dot_product_attention(q, k, v, kept[:, None, None])
        return self.out(found.transpose(1, 2).reshape(batch, length, width))  # type: ignore[no-any-return]

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        """Returns the tokens, as many and as wide."""
        first, second = self.norms
        if self.norm_first:
            x = x + self.depth(self.dropout(self.attend(first(x), kept)))
            return x + self.depth(self.dropout(self.mlp(second(x))))  # type: ignore[no-any-return]
        x = first(x + self.depth(self.dropout(self.attend(x, kept))))
        return second(x + self.depth(self.dropout(self.mlp(x))))  # type: ignore[no-any-return]


class TextEncoder(nn.Module):
    """Embeddings of tokens and places, blocks, and the mean over the tokens that are no padding."""

    def __init__(self, length: int, vocabulary: int, width: int, *blocks: nn.Module) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width, padding_idx=0)
        self.places = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)

    def forward(self, ids: Tensor) -> Tensor:
        """Returns (batch, width) for (batch, length) token numbers, 0 of which is padding."""
        kept = ids != 0
        kept[:, 0] = True  # an empty text is one token
        x = self.tokens(ids) + self.places.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, kept)
        share = kept.to(x.dtype) / kept.sum(1, keepdim=True)
        return (self.norm(x) * share[:, :, None]).sum(1)  # type: ignore[no-any-return]
