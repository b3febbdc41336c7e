"""Searches a small transformer for a table of texts with classes, and trains the best on all of it.

    python examples/sst2_transformer.py --data SST2     # a folder with train.tsv and test.tsv
    python examples/sst2_transformer.py --data SST2 --evaluations 40 --train-samples 20000

Tables have a header and are tab-separated, without quoting: the columns sentence and label, or
those that --text-column and --label-column name. Texts that share no phrase with the training are
held out to validate on; the test table decides nothing. The network that one would write down is
the first of the search, and is trained and tested at the end beside what was found. Stopped at any
moment, the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from search_options import Parser, count

import evonas as en
from evonas.exceptions import EvonasError, MissingDependencyError
from evonas.execution.trial import TrialSettings
from evonas.nas import NasRunFiles, TextClassificationProblem, transformer_space
from evonas.nas.final_training import train_final
from evonas.nas.transformer import hand_made_transformer
from evonas.training import Examples, Vocabulary, hold_out, read_tsv


def main(argv: list[str] | None = None) -> int:
    """Runs the search that the command line asks for; returns the exit status."""
    options = make_parser().parse_args(argv)
    try:
        search(options)
    except KeyboardInterrupt:
        print("\nstopped: the same command goes on", file=sys.stderr)
        return 130
    except (EvonasError, MissingDependencyError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def search(options: argparse.Namespace) -> None:
    """Searches, trains the champion and the hand-made network, and prints what they reach."""
    read = partial(read_tsv, text_column=options.text_column, label_column=options.label_column)
    everything = read(options.data / "train.tsv")
    test_texts = read(options.data / "test.tsv", classes=everything.classes)
    rest, held_out = hold_out(everything, min(options.val_samples, len(everything) // 3), 0)
    vocabulary = Vocabulary.of(rest.texts, options.words)
    train = vocabulary.examples(rest, options.length)
    val = vocabulary.examples(held_out, options.length)
    test = vocabulary.examples(test_texts, options.length)
    print(
        f"{len(train):,} texts to train on, {len(val):,} to validate on, {len(test):,} to test, "
        f"{len(vocabulary.words):,} words"
    )
    problem = TextClassificationProblem(
        transformer_space(options.max_params, len(vocabulary)),
        train,
        vocabulary,
        val=val,
        n_train=min(options.train_samples, len(train)),
        n_epochs=options.epochs,
        dataset=options.data.name or "texts",
    )
    start = hand_made_transformer()
    result = en.evolve(
        problem,
        initial=[start] if not problem.space.violated(start) else None,
        max_evaluations=options.evaluations,
        workers=options.workers,
        seed=options.seed,
        run_dir=options.run_dir,
    )
    champion = result.champion
    print(
        f"\n{result.counts.evaluated} networks trained; the best, network {champion.number}: "
        f"validation accuracy {champion.fitness:.4f}, {champion.metrics['params']:,} weights"
    )
    for name, value in champion.genes.items():
        print(f"  {name:<17} {value:.4g}" if isinstance(value, float) else f"  {name:<17} {value}")
    code = NasRunFiles(options.run_dir, problem).champion
    networks = {"hand-made": start, "champion": champion.genes}
    for what, genes in networks.items():
        weights = code.with_name(f"{code.stem}-{what}.pt")
        score = final(problem, genes, train, test, weights, options.final_epochs)
        after = f"{what}, {options.final_epochs} epochs on all {len(train):,}"
        print(f"{after}: test accuracy {score:.4f}")
    print(f"\nits code: {code}   (python {code.name} TEXT; its weights: load({weights.name!r}))")


def final(
    problem: TextClassificationProblem,
    genes: en.Genes,
    train: Examples,
    test: Examples,
    weights: Path,
    n_epochs: int,
) -> float:
    """Trains a network on all texts and returns its test accuracy."""
    settings = TrialSettings(threads=problem.threads)
    return train_final(
        problem, genes, train, test, weights=weights, n_epochs=n_epochs, settings=settings
    ).score


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with train.tsv and test.tsv")
    add("--text-column", default="sentence", help="default: sentence")
    add("--label-column", default="label", help="default: label")
    add("--run-dir", type=Path, default=Path("runs/sst2-transformer"), help="what is kept")
    add("--evaluations", type=count(1), default=16, help="networks to train (default 16)")
    add("--epochs", type=count(1), default=3, help="of each (default 3)")
    add("--final-epochs", type=count(1), default=6, help="of the last training (default 6)")
    add("--train-samples", type=count(2), default=8000, help="in the search (default 8000)")
    add("--val-samples", type=count(2), default=1000, help="held out (default 1000)")
    add("--length", type=count(1), default=32, help="most tokens of a text (default 32)")
    add("--words", type=count(1), default=10_000, help="of the vocabulary (default 10,000)")
    add("--max-params", type=count(1), help="most weights, embeddings included")
    add("--workers", type=count(1), help="trainings at once (default: chosen)")
    add("--seed", type=count(0), default=0, help="of everything random (default 0)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
