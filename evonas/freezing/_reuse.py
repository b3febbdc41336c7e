"""How trainings of a run start behind their frozen blocks: settled when a mask first needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from evonas.freezing.blocks import Block
from evonas.freezing.mask import frozen_prefix
from evonas.freezing.prefix.decision import ReuseDecision, decide_reuse, first_blocks
from evonas.training import seeded
from evonas.training.data.examples import Examples

__all__ = ["settings_with_reuse"]


def settings_with_reuse(
    settings: Mapping[str, Any],
    mask: Sequence[int],
    model_factory: Callable[[], nn.Module],
    blocks: Sequence[Block],
    train: Examples,
    n_epochs: int,
    say: Callable[[str], None],
) -> Mapping[str, Any]:
    """Returns the settings of a run, in which `reuse` tells how a training of the mask starts.

    Args:
        settings: Of the run so far; returned as they are where that is settled.
        mask: To be trained.
        model_factory: Returns the model as each training starts with it.
        blocks: Of that model.
        train: The training examples.
        n_epochs: Of a training, a tenth of which may be spent on trying.
        say: Is told what is tried.
    """
    depth, known = frozen_prefix(mask), ReuseDecision.from_json(settings["reuse"])
    if known.is_settled(depth):
        return settings
    say(f"checking whether the output of {first_blocks(depth)} may be computed once")
    with seeded(0):
        model = model_factory()
    found = decide_reuse(
        model,
        blocks,
        train,
        [depth],
        known=known,
        precision=settings["precision"],
        n_examples=n_epochs * len(train),
    )
    return {**settings, "reuse": found.to_json()}
