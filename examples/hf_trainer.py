"""A Hugging Face model that its own Trainer trains: sizes and learning rate of a small BERT.

python examples/hf_trainer.py needs transformers and accelerate; a minute on a laptop, no download.
"""

from __future__ import annotations

import random
import zlib

from docstrings import installed_docstrings
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import evonas as en
from evonas.integrations.huggingface import TrialCallback

WORDS, LENGTH = 4000, 16
SPACE = {"layers": [1, 2], "heads": [1, 2, 4], "lr": en.Float(1e-4, 1e-2, log=True)}


def model(genes: en.Genes) -> BertForSequenceClassification:
    """Returns an untrained BERT of 16 features a head."""
    config = BertConfig(
        vocab_size=WORDS, hidden_size=16 * genes["heads"], num_hidden_layers=genes["layers"],
        num_attention_heads=genes["heads"], intermediate_size=32 * genes["heads"], num_labels=3,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def read(n: int) -> list[dict[str, object]]:
    """Returns first sentences of docstrings, labelled with the package that each is from."""
    found, _ = installed_docstrings()
    pairs = random.Random(0).sample(list(zip(found.texts, found.labels, strict=True)), n)
    rows = [([zlib.crc32(word.encode()) % WORDS for word in text.split()], y) for text, y in pairs]
    return [{"input_ids": (ids + [0] * LENGTH)[:LENGTH], "labels": y} for ids, y in rows]


def fitness(genes: en.Genes, trial: en.Trial) -> float:
    """Trains with the Trainer of transformers; the callback reports each evaluation."""
    arguments = TrainingArguments(
        "runs/hf-trainer", num_train_epochs=3, learning_rate=genes["lr"], eval_strategy="epoch",
        per_device_train_batch_size=32, per_device_eval_batch_size=256, seed=trial.seed,
        use_cpu=trial.device == "cpu", report_to=[], save_strategy="no", log_level="error",
    )  # fmt: skip
    trainer = Trainer(
        model(genes), arguments, train_dataset=DATA[500:], eval_dataset=DATA[:500],
        compute_metrics=lambda p: {"accuracy": (p.predictions.argmax(1) == p.label_ids).mean()},
        callbacks=[TrialCallback(trial)],
    )  # fmt: skip
    trainer.train()
    trial.save(trainer.model)
    return trial.history[-1].metrics["accuracy"]


DATA, ACCURACY = read(2000), en.Objective("accuracy")
if __name__ == "__main__":
    result = en.evolve(SPACE, fitness, objectives=ACCURACY, pruner=en.MedianPruner(),
                       max_evaluations=10, seed=0, run_dir="runs/hf-trainer")  # fmt: skip
    print(f"{result.champion.fitness:.3f}: {type(result.champion.load_model(model)).__name__}")
