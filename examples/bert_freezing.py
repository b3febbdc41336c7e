"""Finds which layers of a pretrained BERT to freeze when it is fine-tuned to classify sentences.

    python examples/bert_freezing.py --preset quick      # no download: under 2 minutes, two cores
    python examples/bert_freezing.py                     # bert-base-uncased on SST-2, from the hub
    python examples/bert_freezing.py --model FOLDER --data FOLDER --train-samples 2048

`--data` is a data set of the hub, a table (tab-separated, with the columns `sentence` and `label`),
or a folder with the tables `train.tsv` and `test.tsv`. Masks are scored on sentences held out of
the training file; the test file is used once, for the table at the end. Stop it as you like: the
same command goes on where it stopped. `--strategy surrogate` searches with fewer trainings in mind,
`--strategy nsga2 --objectives accuracy trainable_share` for the best mask of each size.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from docstrings import installed_docstrings
from freezing_options import (
    add_search_options,
    compute_options,
    kind_of_problem,
    parse,
    run_script,
    search,
)
from search_options import count

from evonas.freezing.text import MINILM, TextClassifier, tokenise
from evonas.training.data.corpora import (
    Sentences,
    hold_out,
    hub_sentences,
    read_tsv,
)

DOCSTRINGS = "docstrings"
PRESETS: dict[str, dict[str, Any]] = {
    "full": {
        "model": "bert-base-uncased",
        "data": "stanfordnlp/sst2",
        "train_samples": 2048,
        "val_samples": 872,
        "test_samples": None,
        "population": 20,
        "generations": 10,
        "elite": 2,
        "mutation_prob": 0.15,
        "epochs": 2,
        "batch_size": 32,
        "lr": 5e-5,
        "granularity": "block",
        "confirm_seeds": 3,
        "random_masks": 3,
        "seed": None,
        "workers": None,
        "threads": None,
        "run_dir": "runs/bert-freezing",
    }
}
PRESETS["quick"] = {
    **PRESETS["full"],
    "model": MINILM,
    "data": DOCSTRINGS,
    "train_samples": 128,
    "val_samples": 128,
    "test_samples": 128,
    "population": 6,
    "generations": 3,
    "epochs": 1,
    "batch_size": 16,
    "lr": 2e-4,
    "confirm_seeds": 3,
    "random_masks": 1,
    "seed": 0,
    # Trainings this small lose more by waiting for a second thread than it computes.
    "workers": 2,
    "threads": 1,
    "run_dir": "runs/bert-freezing-quick",
}


def main(options: argparse.Namespace) -> None:
    """Reads sentences and model, searches, and prints the table."""
    rest, val, test = read(options)
    factory = TextClassifier(options.model, len(rest.classes))
    tokenizer = factory.tokenizer()

    def examples(sentences: Sentences) -> Any:
        texts, labels = sentences.texts, sentences.labels
        return tokenise(tokenizer, texts, labels, max_length=options.max_length)

    problem = kind_of_problem(options)(
        factory, examples(rest), examples(val), **compute_options(options)
    )
    print(f"classes: {', '.join(rest.classes)}")
    search(
        problem,
        examples(test) if test is not None else None,
        options,
        metadata={
            "example": Path(sys.argv[0]).stem,
            "model": options.model,
            "data": str(options.data),
        },
    )


def read(options: argparse.Namespace) -> tuple[Sentences, Sentences, Sentences | None]:
    """Returns the sentences to train on, to score masks on, and to test the end with."""
    columns = {"text_column": options.text_column, "label_column": options.label_column}
    folder = Path(options.data)
    test: Sentences | None
    if options.data == DOCSTRINGS:
        train, test = installed_docstrings()
    elif folder.exists():
        file = folder / "train.tsv" if folder.is_dir() else folder
        train, test = read_tsv(file, **columns), None
        test_file = options.test_data or file.with_name("test.tsv")
        if options.test_data is not None or test_file.exists():
            test = read_tsv(test_file, **columns, classes=train.classes)
    else:
        train = hub_sentences(options.data, "train", **columns)
        test = hub_sentences(options.data, options.test_split, **columns, classes=train.classes)
    rest, val = hold_out(train, options.val_samples, options.split_seed)
    rest = rest.sample(options.train_samples, options.split_seed)
    return rest, val, test and test.sample(options.test_samples, options.split_seed)


def make_parser(
    presets: dict[str, dict[str, Any]] = PRESETS, description: str | None = __doc__
) -> argparse.ArgumentParser:
    """Returns the parser; options that a preset sets have no default of their own."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    preset: dict[str, Any] = {"default": argparse.SUPPRESS}
    model = presets["full"]["model"]
    add = parser.add_argument
    add("--preset", choices=presets, default="full", help="defaults of all other options")
    add("--model", **preset, help=f"hub name, folder, or {MINILM} (default {model})")
    add("--data", **preset, help=f"hub name, folder, or {DOCSTRINGS} (default stanfordnlp/sst2)")
    add("--test-data", type=Path, help="the test's table (default: test.tsv beside the other)")
    add("--text-column", default="sentence")
    add("--label-column", default="label")
    add("--test-split", default="validation", help="of a hub data set (default validation)")
    add("--max-length", type=count(1), default=128, help="tokens; longer sentences are cut")
    add("--split-seed", type=count(0), default=0, help="which sentences are drawn and held out")
    add_search_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_script(main, parse(make_parser(), PRESETS, None)))
