"""A table: searches a network for columns of numbers, with scikit-learn's data and preprocessing.

python examples/table.py        # half a minute on a laptop; run it again: nothing is trained twice
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn

import evonas as en
from evonas.training import ModelProblem


def table() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Returns training, validation and test part, scaled by the training part."""
    rows, labels = load_breast_cancer(return_X_y=True)
    rest, test_x, rest_y, test_y = train_test_split(rows, labels, test_size=0.2, random_state=0)
    x, val_x, y, val_y = train_test_split(rest, rest_y, test_size=0.25, random_state=0)
    scaler = StandardScaler().fit(x)
    return [
        (torch.tensor(scaler.transform(part), dtype=torch.float32), torch.tensor(answers))
        for part, answers in ((x, y), (val_x, val_y), (test_x, test_y))
    ]


def model(genes: en.Genes) -> nn.Module:
    """Returns fully connected layers, as many and as wide as the genes say."""
    layers: list[nn.Module] = []
    for layer in en.Repeat.each(genes, "layer"):
        layers += [nn.LazyLinear(layer["width"]), nn.ReLU(), nn.Dropout(layer["dropout"])]
    return nn.Sequential(*layers, nn.LazyLinear(2))


SPACE = {
    "layer": en.Repeat(0, 3, {"width": [16, 32, 64], "dropout": en.Float(0.0, 0.5, step=0.1)}),
    "lr": en.Float(1e-4, 1e-1, log=True),
    "weight_decay": en.Float(1e-5, 1e-1, log=True),
    "batch_size": [16, 32, 64],
    "ema": [0.0, 0.9],
}

if __name__ == "__main__":
    train, val, (test_x, test_y) = table()
    problem = ModelProblem(SPACE, model, train, val, n_epochs=15, schedule="cosine")
    result = en.evolve(problem, max_evaluations=30, seed=0, run_dir="runs/table")
    champion = result.champion.load_model()
    accuracy = (champion(test_x).argmax(1) == test_y).float().mean().item()
    print(f"{result.champion.genes}\nvalidation {result.champion.fitness:.3f}, test {accuracy:.3f}")
