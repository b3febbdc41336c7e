"""The recipes that people try by hand: their rules, and the rules that look at the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from evonas.freezing.adapters import lora_state
from evonas.freezing.advice import mask_label, usual_masks
from evonas.freezing.blocks import Block
from evonas.freezing.informed import relative_gradients, signal_to_noise
from evonas.freezing.states import BIASES, FROZEN, NORMS, State

__all__ = ["GRADUALLY", "by_hand", "by_looking", "first_frozen", "frozen_by", "spread"]

GRADUALLY = "gradual unfreezing"
RGN = "relative gradients"
SPECTRUM = "signal to noise"

States = dict[str, State]
T = TypeVar("T")


def by_hand(
    held: Mapping[str, Sequence[State]],
    ranks: Sequence[int],
    decayed: Mapping[str, States],
    *,
    head_is_a_gene: bool,
) -> dict[str, States]:
    """Returns what people try without looking at the model: full, head only, norms, LoRA, decay.

    Args:
        held: Block name to the states it may have.
        ranks: Of adapters.
        decayed: Rates that fall from the head to the input, see `StateGenes.decayed`.
        head_is_a_gene: Whether the last block is the head.
    """
    masks = usual_masks(len(held), head_is_a_gene=head_is_a_gene)[:2]
    found = _of_masks(held, masks, head_is_a_gene)
    for name, state in (("norms only", NORMS), ("biases only", BIASES)):
        found[name] = _everywhere(held, state)
    for rank in ranks:
        found[f"LoRA {rank} on attention"] = _everywhere(held, lora_state(rank, attention=True))
        found[f"LoRA {rank}"] = _everywhere(held, lora_state(rank))
    found |= decayed
    return {name: states for name, states in found.items() if states}


def first_frozen(held: Mapping[str, Sequence[State]], *, head_is_a_gene: bool) -> dict[str, States]:
    """Returns the first k blocks frozen, for each k."""
    masks = usual_masks(len(held), head_is_a_gene=head_is_a_gene)[2:]
    return _of_masks(held, masks, head_is_a_gene)


def by_looking(
    model: nn.Module,
    blocks: Sequence[Block],
    batch: tuple[Any, Tensor],
    loss_function: Callable[[Tensor, Tensor], Tensor],
    multiples: Sequence[float],
) -> dict[str, States]:
    """Returns what rules say that look at the pretrained model: Auto-RGN and Spectrum.

    Args:
        model: See `relative_gradients`.
        blocks: Of the model.
        batch: Of training examples.
        loss_function: Of outputs and targets.
        multiples: Of the rate, ascending, of which Auto-RGN takes the nearest.
    """
    model.train()
    gradients = relative_gradients(model, blocks, batch, loss_function)
    signals = signal_to_noise(model, blocks)
    steps = (multiples[0] / 3, *multiples)  # below a step's third of it: nothing
    nearest = [min(steps, key=lambda step: abs(math.log(step / max(share, 1e-12))))
               for share in gradients]  # fmt: skip
    names = [block.name for block in blocks]
    top = sorted(range(len(names)), key=lambda at: -signals[at])[: -(-len(names) // 2)]
    return {
        RGN: {name: FROZEN if step < multiples[0] else step
              for name, step in zip(names, nearest, strict=True)},
        SPECTRUM: {name: 1.0 if at in top else FROZEN for at, name in enumerate(names)},
    }  # fmt: skip


def spread(variants: Sequence[T], n: int) -> list[T]:
    """Returns the last of a sequence and others in equal distances before it, `n` at most.

    Example:
        >>> spread(["1", "2", "3", "4", "5", "6"], 3)
        ['2', '4', '6']
    """
    n = min(n, len(variants))
    return [variants[round(len(variants) * (at + 1) / n) - 1] for at in range(n)]


def frozen_by(names: Sequence[str], mask: Sequence[int]) -> States:
    """Returns the states of a mask: frozen, or all of a block at the rate itself."""
    return {name: FROZEN if bit else 1.0 for name, bit in zip(names, mask, strict=True)}


def _of_masks(
    held: Mapping[str, Any], masks: Sequence[Sequence[int]], head_is_a_gene: bool
) -> dict[str, States]:
    return {
        mask_label(mask, head_is_a_gene=head_is_a_gene): frozen_by(list(held), mask)
        for mask in masks
    }


def _everywhere(held: Mapping[str, Sequence[State]], state: State) -> States:
    """Returns the state in each block that may have it, the others frozen; empty if none may."""
    has: States = {name: state if state in own else FROZEN for name, own in held.items()}
    return has if state in has.values() else {}
