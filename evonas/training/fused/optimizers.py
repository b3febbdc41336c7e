"""Optimizers of many candidates as one: a row of weights each, with settings of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from evonas.exceptions import FusionError

__all__ = ["RowOptimizer", "Schedules", "rates_of", "row_optimizer"]


class RowOptimizer:
    """What torch's optimizers do, for weights `(K, P)` whose rows have settings of their own.

    Args:
        groups: The settings of each row, as torch's optimizer has them in its parameter group.
        weights: `(K, P)`.
    """

    slots: tuple[str, ...] = ()
    """The averages that are kept of each weight."""
    settings: tuple[str, ...] = ()
    """What each row has a value of its own for."""

    def __init__(self, groups: Sequence[Mapping[str, Any]], weights: Tensor) -> None:
        self._kept = {name: torch.zeros_like(weights) for name in self.slots}
        self._values = {
            name: weights.new_tensor([float(group[name]) for group in groups])[:, None]
            for name in self._columns(groups)
        }
        self._decays = any(group["weight_decay"] for group in groups)

    def _columns(self, groups: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        return (*self.settings, "weight_decay")

    @classmethod
    def tables(cls, rates: Tensor, groups: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Returns what changes with the steps, `(K, n_steps)` each, in float64 on the CPU."""
        return {"lr": rates}

    def step(self, weights: Tensor, gradient: Tensor, now: Mapping[str, Tensor]) -> None:
        """Changes the weights `(K, P)` in place.

        Args:
            weights: Of all rows.
            gradient: Likewise.
            now: The tables' columns of this step, `(K, 1)` each.
        """
        raise NotImplementedError

    def keep(self, index: Tensor) -> None:
        """Forgets all rows but these."""
        self._kept = {name: kept[index] for name, kept in self._kept.items()}
        self._values = {name: values[index] for name, values in self._values.items()}

    def _with_decay(self, weights: Tensor, gradient: Tensor) -> Tensor:
        if not self._decays:
            return gradient
        return gradient.addcmul(weights, self._values["weight_decay"])


class _Sgd(RowOptimizer):
    slots = ("momentum",)
    settings = ("momentum", "nesterov")

    def __init__(self, groups: Sequence[Mapping[str, Any]], weights: Tensor) -> None:
        super().__init__(groups, weights)
        self._any_nesterov = any(group["nesterov"] for group in groups)
        self._all_nesterov = all(group["nesterov"] for group in groups)

    def step(self, weights: Tensor, gradient: Tensor, now: Mapping[str, Tensor]) -> None:
        momentum = self._values["momentum"]
        gradient = self._with_decay(weights, gradient)
        # A row without momentum: 0 times what was, plus the gradient. So is every row's first step.
        average = self._kept["momentum"].mul_(momentum).add_(gradient)
        ahead = gradient.addcmul(average, momentum) if self._any_nesterov else average
        if self._any_nesterov and not self._all_nesterov:
            ahead = torch.where(self._values["nesterov"] > 0, ahead, average)
        weights.addcmul_(ahead, now["lr"], value=-1)


class _Adam(RowOptimizer):
    slots = ("average", "square")
    decoupled = False

    def __init__(self, groups: Sequence[Mapping[str, Any]], weights: Tensor) -> None:
        # 1 - beta in float64, as torch has it: float32 would lose five digits of 1 - 0.999.
        named = [
            {**group, "rest1": 1 - group["betas"][0], "beta2": group["betas"][1],
             "rest2": 1 - group["betas"][1]}
            for group in groups
        ]  # fmt: skip
        super().__init__(named, weights)

    def _columns(self, groups: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        return ("rest1", "beta2", "rest2", "eps", "weight_decay")

    @classmethod
    def tables(cls, rates: Tensor, groups: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Returns the steps' sizes and the corrections of averages that began at 0."""
        steps = torch.arange(1, rates.shape[1] + 1, dtype=torch.float64)
        beta1, beta2 = torch.tensor([group["betas"] for group in groups], dtype=torch.float64).T
        decay = torch.tensor([group["weight_decay"] for group in groups], dtype=torch.float64)
        return {
            "step_size": rates / (1 - beta1[:, None] ** steps),
            "correction": (1 - beta2[:, None] ** steps).sqrt(),
            "shrink": 1 - rates * decay[:, None],
        }

    def step(self, weights: Tensor, gradient: Tensor, now: Mapping[str, Tensor]) -> None:
        if self.decoupled:
            weights.mul_(now["shrink"])
        else:
            gradient = self._with_decay(weights, gradient)
        values = self._values
        average = self._kept["average"].lerp_(gradient, values["rest1"].expand_as(gradient))
        square = self._kept["square"].mul_(values["beta2"])
        square.addcmul_(gradient * values["rest2"], gradient)
        scale = square.sqrt().div_(now["correction"]).add_(self._values["eps"])
        weights.sub_(average / scale * now["step_size"])


class _AdamW(_Adam):
    decoupled = True


class _RmsProp(RowOptimizer):
    slots = ("square", "momentum")
    settings = ("alpha", "rest", "eps", "momentum")

    def __init__(self, groups: Sequence[Mapping[str, Any]], weights: Tensor) -> None:
        named = [{**group, "rest": 1 - group["alpha"]} for group in groups]
        super().__init__(named, weights)

    def step(self, weights: Tensor, gradient: Tensor, now: Mapping[str, Tensor]) -> None:
        gradient = self._with_decay(weights, gradient)
        square = self._kept["square"].mul_(self._values["alpha"])
        square.addcmul_(gradient * self._values["rest"], gradient)
        move = gradient / square.sqrt().add_(self._values["eps"])
        move = self._kept["momentum"].mul_(self._values["momentum"]).add_(move)
        weights.addcmul_(move, now["lr"], value=-1)


class _Adagrad(RowOptimizer):
    slots = ("sum",)
    settings = ("eps",)

    def __init__(self, groups: Sequence[Mapping[str, Any]], weights: Tensor) -> None:
        super().__init__(groups, weights)
        first = [float(group["initial_accumulator_value"]) for group in groups]
        self._kept["sum"] += weights.new_tensor(first)[:, None]

    @classmethod
    def tables(cls, rates: Tensor, groups: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Returns the rates, which also fall by `lr_decay`."""
        falls = torch.tensor([group["lr_decay"] for group in groups], dtype=torch.float64)
        return {"lr": rates / (1 + torch.arange(rates.shape[1]) * falls[:, None])}

    def step(self, weights: Tensor, gradient: Tensor, now: Mapping[str, Tensor]) -> None:
        gradient = self._with_decay(weights, gradient)
        total = self._kept["sum"].addcmul_(gradient, gradient)
        move = gradient / total.sqrt().add_(self._values["eps"])
        weights.addcmul_(move, now["lr"], value=-1)


_ROWS: dict[type[Optimizer], type[RowOptimizer]] = {
    torch.optim.SGD: _Sgd,
    torch.optim.Adam: _Adam,
    torch.optim.AdamW: _AdamW,
    torch.optim.RMSprop: _RmsProp,
    torch.optim.Adagrad: _Adagrad,
}
_REFUSED = ("maximize", "amsgrad", "centered", "dampening")


class Schedules:
    """Each candidate's rates, and what follows from them, for all steps: known beforehand.

    Args:
        optimizers: Of the candidates, of one class, as `row_optimizer` takes them.
        rates: Of each candidate `(n_steps,)`; a shorter one's last rate stands for the rest.
        weights: `(K, P)`: the tables lie beside them, so that no step waits for the CPU.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        rates: Sequence[Sequence[float]],
        weights: Tensor,
    ) -> None:
        longest = max(map(len, rates))
        self.rates = torch.tensor(
            [[*each, *[each[-1]] * (longest - len(each))] for each in rates], dtype=torch.float64
        )
        groups = [optimizer.param_groups[0] for optimizer in optimizers]
        tables = _ROWS[type(optimizers[0])].tables(self.rates, groups)
        self._tables = {name: table.to(weights)[:, :, None] for name, table in tables.items()}

    def at(self, step: int) -> dict[str, Tensor]:
        """Returns what `RowOptimizer.step` takes."""
        return {name: table[:, step] for name, table in self._tables.items()}

    def keep(self, index: Tensor) -> None:
        """Forgets all rows but these."""
        self.rates = self.rates[index.cpu()]
        self._tables = {name: table[index] for name, table in self._tables.items()}


def row_optimizer(optimizers: Sequence[Optimizer], weights: Tensor) -> RowOptimizer:
    """Returns what does for rows what these optimizers do for models.

    Raises:
        FusionError: They are not of one class, not among SGD, Adam, AdamW, RMSprop and Adagrad,
            have several parameter groups or have stepped, or have settings that are not known here.
    """
    kinds = {type(optimizer) for optimizer in optimizers}
    if len(kinds) > 1:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise FusionError(f"candidates trained at once must share one optimizer class, got {names}")
    kind = next(iter(kinds))
    if kind not in _ROWS:
        known = ", ".join(each.__name__ for each in _ROWS)
        raise FusionError(f"optimizer must be one of {known} for several candidates at once, "
                          f"got {kind.__name__}")  # fmt: skip
    for optimizer in optimizers:
        if len(optimizer.param_groups) != 1 or _has_stepped(optimizer):
            raise FusionError(
                "an optimizer of candidates trained at once must be new and have one parameter "
                f"group, got {len(optimizer.param_groups)}"
                + (" and steps that were made" if _has_stepped(optimizer) else "")
            )
        group = optimizer.param_groups[0]
        for name in _REFUSED:
            if group.get(name):
                raise FusionError(
                    f"{kind.__name__}({name}={group[name]!r}) is not known to training several "
                    "candidates at once"
                )
        if weights.shape[1] != sum(p.numel() for p in group["params"]):
            raise FusionError(
                "an optimizer of candidates trained at once must have all parameters that are "
                "trained"
            )
    return _ROWS[kind]([optimizer.param_groups[0] for optimizer in optimizers], weights)


def _has_stepped(optimizer: Optimizer) -> bool:
    # Adagrad has its sums from the beginning, SGD counts no steps.
    return any(float(state.get("step", 1)) > 0 for state in optimizer.state.values())


def rates_of(optimizer: Optimizer, scheduler: Any, n_steps: int) -> list[float]:
    """Returns the learning rate of each of `n_steps` steps; the scheduler is run through.

    Args:
        optimizer: New; its parameters must have no gradients.
        scheduler: Steps after each batch and changes the rate only. None: the rate is constant.
        n_steps: At least 1.

    Raises:
        FusionError: It changes something else too.
    """
    group = optimizer.param_groups[0]
    if scheduler is None:
        return [float(group["lr"])] * n_steps
    names = [name for name in group if name not in ("lr", "params")]
    first, rates = [group[name] for name in names], []
    optimizer.step()  # without gradients it does nothing; torch warns of schedulers that come first
    for _ in range(n_steps):
        rates.append(float(group["lr"]))
        scheduler.step()
        if [group[name] for name in names] != first:
            raise FusionError(
                f"{type(scheduler).__name__} changes more than the rate, which is not known to "
                "training several candidates at once"
            )
    return rates
