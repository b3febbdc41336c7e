"""Modules that networks with branches are made of; their source stands in the generated modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Graph", "Parallel", "Residual", "SqueezeExcite"]


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
