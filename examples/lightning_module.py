"""A LightningModule that Lightning trains: width, depth and learning rate, on digits.

python examples/lightning_module.py needs lightning; half a minute on a laptop, no download.
"""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

import evonas as en
from evonas.integrations.lightning import TrialCallback
from evonas.training import load_digits

SPACE = {"block": en.Repeat(1, 3, {"width": [8, 16, 32]}), "lr": en.Float(1e-3, 1e-1, log=True)}


class Classifier(pl.LightningModule):
    """A convolutional network of the genes, and how it is trained."""

    def __init__(self, genes: en.Genes) -> None:
        super().__init__()
        self.lr, self.body = genes["lr"], nn.Sequential()
        for block in en.Repeat.each(genes, "block"):
            self.body.append(nn.LazyConv2d(block["width"], 3, 2, 1)).append(nn.ReLU())
        self.body.extend([nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.LazyLinear(10)])

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:  # noqa: D102
        return nn.functional.cross_entropy(self.body(batch[0]), batch[1])

    def validation_step(self, batch: list[torch.Tensor]) -> None:  # noqa: D102
        self.log("accuracy", (self.body(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:  # noqa: D102
        return torch.optim.AdamW(self.parameters(), self.lr)


def fitness(genes: en.Genes, trial: en.Trial) -> float:
    """Trains with Lightning's Trainer; the callback reports each validation."""
    module = Classifier(genes)
    module.body(TRAIN[0][0].unsqueeze(0))  # gives the lazy layers their shapes
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[TrialCallback(trial)],
    )  # fmt: skip
    trainer.fit(module, DataLoader(TRAIN, 64, shuffle=True), DataLoader(VAL, 500))
    trial.save(module)
    return trial.history[-1].metrics["accuracy"]


DIGITS = load_digits(size=16)
DATA = TensorDataset(DIGITS.inputs / 255, DIGITS.targets)
TRAIN, VAL = random_split(DATA, [1297, 500], torch.Generator().manual_seed(0))
if __name__ == "__main__":
    result = en.evolve(SPACE, fitness, objectives=en.Objective("accuracy"), max_evaluations=10,
                       pruner=en.MedianPruner(), seed=0, run_dir="runs/lightning")  # fmt: skip
    print(f"{result.champion.fitness:.3f}: {result.champion.load_model(Classifier).body}")
