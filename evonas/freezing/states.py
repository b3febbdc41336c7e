"""What of a block a recipe trains: the states that a block may have."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

from evonas.arguments import check_number
from evonas.freezing._structure import is_bias, norm_parameters
from evonas.freezing.adapters import (
    adapter_layers,
    check_rank,
    lora_rank,
    lora_state,
    n_adapter_weights,
)
from evonas.freezing.blocks import Block

__all__ = [
    "BIASES",
    "FROZEN",
    "NORMS",
    "State",
    "check_state",
    "is_trained",
    "n_trained",
    "state_in_words",
    "states_of",
]

FROZEN = "frozen"
NORMS = "norms"
BIASES = "biases"

State = float | str
"""Of a block: `frozen`; only its `norms`, its `biases` or adapters of its linear layers (`lora 8`,
or `lora 8 attention` for those of its attention) trained, at the recipe's rate; or all of it, at
this multiple of the rate."""


def check_state(name: str, state: Any) -> None:
    """Refuses what is no state.

    Raises:
        TypeError, ValueError: Names the block.
    """
    if state in (FROZEN, NORMS, BIASES) or (isinstance(state, str) and lora_rank(state)):
        return
    if isinstance(state, bool) or not isinstance(state, (int, float)):
        raise TypeError(
            f"the state of {name} must be a multiple of the rate, {FROZEN!r}, {NORMS!r}, "
            f"{BIASES!r} or adapters such as {lora_state(8)!r}, got {state!r}"
        )
    if state == 0:
        raise ValueError(f"the state of {name} is a multiple of 0: say {FROZEN!r}")
    check_number(f"the state of {name}", state, above=0)


def state_in_words(state: State) -> str:
    """Returns `frozen`, `norms`, `biases`, `all` or `all x0.3`."""
    if isinstance(state, str):
        return state
    return "all" if state == 1 else f"all x{state:g}"


def is_trained(name: str, state: State, norms: set[str]) -> bool:
    """Whether a state trains a parameter itself, no adapter beside it; `norms` names the norms'."""
    if state == NORMS:
        return name in norms
    if lora_rank(state):
        return False
    return is_bias(name) if state == BIASES else state != FROZEN


def n_trained(model: nn.Module, block: Block, state: State, frozen: Collection[str]) -> int:
    """Returns how many numbers of a block a state trains, or of its adapters.

    Args:
        model: As the block knows it.
        block: Of this model.
        state: Of the block.
        frozen: Names of parameters that are frozen in every state.
    """
    if rank := lora_rank(state):
        return n_adapter_weights(adapter_layers(model, block, str(state)).values(), rank)
    norms = norm_parameters(model)
    names = [n for n in block.parameters if n not in frozen and is_trained(n, state, norms)]
    return sum(model.get_parameter(name).numel() for name in names)


def states_of(
    model: nn.Module,
    block: Block,
    multiples: Sequence[float],
    ranks: Sequence[int] = (),
    frozen: Collection[str] = (),
) -> list[State]:
    """Returns the states that differ for a block: one without norms has no state `norms`."""
    norms = norm_parameters(model)
    names = [name for name in block.parameters if name not in frozen]
    n_norms = sum(name in norms for name in names)
    n_biases = sum(map(is_bias, names))
    found: list[State] = [FROZEN]
    if 0 < n_norms < len(names):
        found.append(NORMS)
    if 0 < n_biases < len(names):
        found.append(BIASES)
    found += _adapted(model, block, ranks)
    return [*found, *multiples]


def _adapted(model: nn.Module, block: Block, ranks: Sequence[int]) -> list[State]:
    """Returns the states with adapters of those ranks that a block is large enough for."""
    everywhere = adapter_layers(model, block)
    found: list[State] = []
    for rank in ranks if everywhere else ():
        for attention in (False, True):
            state = lora_state(rank, attention=attention)
            layers = adapter_layers(model, block, state)
            if layers and not (attention and len(layers) == len(everywhere)):
                try:
                    check_rank(layers, rank)
                except ValueError:
                    continue
                found.append(state)
    return found
