"""What no search would have reached: a network written down by hand, in the same time."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import evonas as en
from evonas.execution.trial import TrialSettings
from evonas.nas import ImageClassificationProblem, resnet_network, resnet_space
from evonas.nas.final_training import train_final
from evonas.nas.recipes import recipe
from evonas.nas.resnet import hand_made_resnet
from evonas.training import Examples
from evonas.training.data.parts import matched

__all__ = ["print_comparison"]

_EPOCHS = 20
_MAX_MACS = 6_500_000  # what the space alexnet-small allows


def print_comparison(
    problem: ImageClassificationProblem,
    result: en.Result,
    test: Examples,
    weights: Path,
    *,
    flips: bool,
    device: str,
    threads: int | None,
) -> None:
    """Trains the champion on all images and tests it; beside it, a residual network by hand.

    That network is trained for as long as the search and the champion's training took together.

    Args:
        problem: Whose images are trained on.
        result: Of its search.
        test: Images that decided nothing.
        weights: Where the champion's are written.
        flips: Whether a mirror image is an image of the same class.
        device: Where to train.
        threads: Of a training. None: one.
    """
    settings = TrialSettings(device=device, threads=threads or 1)
    data, test = problem.data, matched(test, problem.data, "test")
    began = time.monotonic()
    found = train_final(
        problem, result.champion.genes, data, test, weights=weights, n_epochs=_EPOCHS,
        settings=settings,
    )  # fmt: skip
    seconds = result.seconds + time.monotonic() - began
    by_hand = ImageClassificationProblem(
        resnet_space(_MAX_MACS, in_shape=problem.in_shape),
        resnet_network,
        data,
        batch_size=problem.batch_size,
        precision=problem.precision,
        **recipe("one-cycle", flips=flips, side=problem.in_shape[-1]),
    )
    genes = hand_made_resnet(_MAX_MACS, in_shape=problem.in_shape)
    with tempfile.TemporaryDirectory() as folder:
        rival = train_final(
            by_hand, genes, data, test, weights=Path(folder) / "weights.pt", seconds=seconds,
            settings=settings,
        )  # fmt: skip
    epochs = rival.progress.epoch
    print(
        f"\non {len(test):,} test images that decided nothing, after {seconds:.0f} s each:\n"
        f"  searched, then {_EPOCHS} epochs on all {len(data):,} images:  {found.score:.4f}"
        f"   ({weights})\n"
        f"  a residual network by hand, no search, {epochs} epochs:  {rival.score:.4f}\n"
        "  where a search pays, and where it does not: docs/howto/minutes.md"
    )
