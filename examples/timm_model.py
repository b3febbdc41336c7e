"""A timm model: searches its architecture's settings, and how it is trained, on digits.

pip install timm
python examples/timm_model.py   # a minute on a laptop, no download
"""

from __future__ import annotations

import timm
from torch import nn

import evonas as en
from evonas.training import ModelProblem, load_digits, split

SPACE = {
    "model": ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"],
    "drop_rate": en.Float(0.0, 0.4, step=0.1),
    "lr": en.Float(1e-4, 1e-1, log=True),
    "weight_decay": en.Float(1e-4, 1e-1, log=True),
    "optimizer": ["nesterov", "adamw"],
    "label_smoothing": [0.0, 0.1],
}


def model(genes: en.Genes) -> nn.Module:
    """Returns a model of timm for grey images of 32x32 pixels and ten classes."""
    sized = {"img_size": 32} if "vit" in genes["model"] else {}
    return timm.create_model(
        genes["model"], num_classes=10, in_chans=1, drop_rate=genes["drop_rate"], **sized
    )


if __name__ == "__main__":
    digits = load_digits()
    train, val = (digits.subset(part) for part in split(digits, seed=0, n_train=1000, n_val=500))
    problem = ModelProblem(
        SPACE, model, train, val, n_epochs=2, batch_size=64, schedule="one_cycle"
    )
    result = en.evolve(problem, max_evaluations=12, seed=0, run_dir="runs/timm")
    champion = result.champion.load_model()
    print(f"{result.champion.fitness:.3f} with {result.champion.genes}")
    print(f"{type(champion).__name__}, trained, {result.champion.metrics['params']} parameters")
