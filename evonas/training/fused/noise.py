"""Dropout of candidates that are trained at once: each one's draws are those of training alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from evonas.execution.accelerator import generator_state, set_generator_state

__all__ = ["CandidateNoise", "RandomStates"]


class RandomStates:
    """The state of torch's random generator for each candidate, as it is when trained alone.

    Args:
        device: Whose generator its modules draw from.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._states: list[Tensor] = []

    def append_current(self) -> None:
        """Adds a candidate: its generator goes on from where torch's is now."""
        self._states.append(generator_state(self._device))

    def keep(self, rows: Sequence[int]) -> None:
        """Forgets all but these candidates."""
        self._states = [self._states[row] for row in rows]

    @contextmanager
    def lent(self, row: int) -> Iterator[None]:
        """Runs a block that draws from a candidate's generator; torch's own is as before."""
        before = generator_state(self._device)
        set_generator_state(self._states[row], self._device)
        try:
            yield
        finally:
            self._states[row] = generator_state(self._device)
            set_generator_state(before, self._device)


class CandidateNoise(nn.Module):
    """Stands for one dropout module of each candidate, within `torch.func.vmap` over them.

    The factors are what each candidate's own module makes of ones, with the candidate's generator:
    the same numbers in the same order as when it is trained alone.

    Args:
        modules: Of each candidate; they multiply by random numbers.
        states: Of each candidate.
    """

    def __init__(self, modules: Sequence[nn.Module], states: RandomStates) -> None:
        super().__init__()
        # Not as submodules: their modes are those of the candidates' own models.
        self._of = list(modules)
        self._states = states

    def keep(self, rows: Sequence[int]) -> None:
        """Forgets all but these candidates; `states` are not changed."""
        self._of = [self._of[row] for row in rows]

    def forward(self, x: Tensor) -> Tensor:
        """Returns `x` times random factors while training."""
        if not self.training or all(getattr(module, "p", None) == 0 for module in self._of):
            return x
        return _Multiplied.apply(x, self)  # type: ignore[no-any-return]

    def factors(self, like: Tensor) -> Tensor:
        """Returns the factors `(K, B, ...)` for what all candidates' modules get."""
        found = []
        with torch.no_grad():
            for row, module in enumerate(self._of):
                with self._states.lent(row):
                    found.append(module.train()(torch.ones_like(like[row])))
        return torch.stack(found)


class _Multiplied(torch.autograd.Function):
    """Multiplies by `CandidateNoise.factors`, which needs all candidates: hence its own `vmap`."""

    @staticmethod
    def forward(x: Tensor, noise: CandidateNoise) -> Tensor:
        """Is for candidates one by one, which have modules of their own."""
        raise RuntimeError("CandidateNoise must be called within vmap over the candidates")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept: the product within `vmap` is known to autograd."""

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int, None], x: Tensor, noise: CandidateNoise
    ) -> tuple[Tensor, int]:
        """Returns the product, candidates first."""
        x = x.movedim(in_dims[0], 0)
        return x * noise.factors(x), 0
