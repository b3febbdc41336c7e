"""What the freezing examples share: the options of a search, one run, and its table."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from search_options import (
    add_strategy_options,
    budget,
    count,
    front_table,
    make_objectives,
    make_pruner,
    make_strategy,
    settle,
)
from tqdm import tqdm

import evonas as en
from evonas.callbacks import format_duration
from evonas.execution.choice import available_cores, choose_executor
from evonas.execution.torch_env import resolve_device
from evonas.files import write_text
from evonas.freezing import (
    FreezingProblem,
    GenerationLog,
    MaskTable,
    RecipeProblem,
    compare_masks,
)
from evonas.freezing.advice import frozen_in_words
from evonas.freezing.comparison import candidate_count

__all__ = [
    "N_TOP",
    "add_search_options",
    "compare",
    "compute_options",
    "parse",
    "run_script",
    "search",
]

N_TOP = 3


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that every freezing search has; presets set those without a default."""
    preset: dict[str, Any] = {"default": argparse.SUPPRESS}
    group = parser.add_argument_group("search")
    add = group.add_argument
    add("--run-dir", **preset, help="where everything is kept; the same command goes on there")
    add("--seed", type=count(0), **preset, help="of everything random (default: drawn, and kept)")
    add("--population", type=count(2), **preset, help="masks in a generation")
    add("--generations", type=count(1), **preset, help="a finished run goes on to it")
    add("--elite", type=count(0), **preset, help="masks carried over unchanged")
    add("--mutation-prob", type=float, **preset, help="of each block")
    add("--max-seconds", type=float, help="stop after so many seconds, over all starts")
    add("--granularity", choices=["block", "stage", "layer"], **preset, help="what a gene freezes")
    add("--recipe", action="store_true", help="search not only which blocks are frozen, but also"
        " norms or biases alone, and multiples of the learning rate")  # fmt: skip
    add("--lora-ranks", type=count(1), nargs="+", help="with --recipe: LoRA adapters of these ranks"
        " too (pip install 'evonas[lora]')")  # fmt: skip
    add("--include-head", action="store_true", help="let the mask freeze the new head too")
    add_strategy_options(parser, ("trainable_share", "trainable_params", "train_seconds"))

    group = parser.add_argument_group("the honest table")
    add = group.add_argument
    add("--confirm-seeds", type=count(1), **preset, metavar="N", help="fresh seeds for each mask")
    add("--random-masks", type=count(0), **preset, metavar="N", help="to compare with")

    group = parser.add_argument_group("training")
    add = group.add_argument
    add("--epochs", type=count(1), **preset, help="of each fine-tuning")
    add("--batch-size", type=count(1), **preset)
    add("--lr", type=float, nargs="+", **preset,
        help="highest learning rate of AdamW; several: each mask gets one of them")  # fmt: skip
    add("--train-samples", type=count(1), **preset, help="default: all")
    add("--val-samples", type=count(1), **preset, help="examples that the search scores masks on")
    add("--test-samples", type=count(1), **preset, help="default: all")
    add("--no-reuse", action="store_true", help="compute frozen prefixes in every epoch")
    add("--device", default="auto", help="cpu, cuda, cuda:1, … (default: a GPU if there is one)")
    add(
        "--workers",
        type=count(1),
        **preset,
        help="trainings at once, each in a process (default: one)",
    )
    add("--threads", type=count(1), **preset, help="of one training (default: cores / workers)")
    add("--precision", choices=["float32", "bfloat16"], help="default: the faster one here")
    add("--quiet", action="store_true", help="no bar, no line per generation")


def parse(
    parser: argparse.ArgumentParser,
    presets: dict[str, dict[str, Any]],
    argv: list[str] | None,
) -> argparse.Namespace:
    """Returns the options: those given, else the preset's."""
    options = parser.parse_args(argv)
    settle(parser, options, presets[options.preset])
    if isinstance(options.lr, list) and len(options.lr) == 1:
        options.lr = options.lr[0]
    if options.lora_ranks and not options.recipe:
        parser.error("--lora-ranks needs --recipe: a mask has no adapters")
    if options.objectives[0] != "accuracy":
        parser.error("--objectives must begin with accuracy: the table at the end compares it")
    return options


def kind_of_problem(options: argparse.Namespace) -> type[FreezingProblem]:
    """Returns the problem that the options ask for: masks, or recipes."""
    return RecipeProblem if options.recipe else FreezingProblem


def compute_options(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments of `FreezingProblem` that the shared options name."""
    return {
        "n_epochs": options.epochs,
        "batch_size": options.batch_size,
        "lr": options.lr,
        "granularity": options.granularity,
        "include_head": options.include_head,
        "reuse_prefix": not options.no_reuse,
        "device": resolve_device(options.device),
        "threads": options.threads or max(1, available_cores() // (options.workers or 1)),
        "precision": options.precision,
        "objectives": make_objectives(options),
        **({"ranks": options.lora_ranks} if options.lora_ranks else {}),
    }


def search(
    problem: FreezingProblem, test: Any, options: argparse.Namespace, *, metadata: dict[str, Any]
) -> None:
    """Searches, compares on fresh seeds, and prints which blocks to freeze."""
    describe(problem, test, options)
    result = en.evolve(
        problem,
        strategy=make_strategy(options),
        **budget(options),
        pruner=make_pruner(options),
        warm_start=options.warm_start,
        run_dir=options.run_dir,
        workers=options.workers,
        devices=resolve_device(options.device),
        threads_per_trial=options.threads,
        seed=options.seed,
        progress=False,
        callbacks=[] if options.quiet else [GenerationLog(problem)],
        metadata=metadata,
    )
    counts = result.counts
    pruned = counts.by_status.get("pruned", 0)
    print(
        f"\n{result.stop_reason}: {counts.evaluated} trained"
        + (f" ({pruned} of them pruned)" if pruned else "")
        + (f" ({counts.failed} of them failed)" if counts.failed else "")
        + f", {counts.reused} duplicates reused, in"
        f" {format_duration(result.seconds)}",
        flush=True,
    )
    if len(result.objectives) > 1:
        print(f"\n{front_table(result, problem.noun)}\n")
    compare(
        problem, options.run_dir, test, n_random=options.random_masks,
        repeats=options.confirm_seeds, workers=options.workers,
        device=resolve_device(options.device), quiet=options.quiet,
    )  # fmt: skip


def compare(
    problem: FreezingProblem,
    run_dir: str | Path,
    test: Any,
    *,
    n_random: int,
    repeats: int,
    workers: int | None,
    device: str,
    quiet: bool,
) -> None:
    """Trains the best and its rivals on fresh seeds; prints the table, keeps it, says what is."""
    folder = Path(run_dir)
    n_rows = candidate_count(problem, en.open_run(folder), N_TOP, n_random)
    print(f"{n_rows} {problem.noun}s again, each on {repeats} fresh seeds:", flush=True)
    with tqdm(total=n_rows * repeats, unit="", disable=quiet or None, leave=False) as bar:
        table = compare_masks(
            problem,
            folder,
            test,
            top=N_TOP,
            n_random=n_random,
            repeats=repeats,
            executor=choose_executor(workers=workers, devices=device, uses_torch=True),
            on_repeat=lambda evaluation, record: bar.update(),
        )
    print(f"\n{table}\n")
    write_text(folder / "comparison.json", json.dumps(table.to_json(), indent=2) + "\n")
    print_way_out(problem, table, folder)


def print_way_out(problem: FreezingProblem, table: MaskTable, folder: Path) -> None:
    """Prints what the best is, where it is kept, and how a script of one's own uses it."""
    champion = table.champion
    lr = champion.lr or problem.training.lr
    for verdict in ("smallest", "fastest") if table.repeats > 1 else ():
        if getattr(table, verdict) is not champion:
            file = folder / f"{problem.noun}.{verdict}.json"
            print(f"the {verdict} within the noise of the best is in {file}")
    if isinstance(problem, RecipeProblem):
        print(
            f"the best: {champion.words}, learning rate {lr:g}\n"
            f"the recipe is in {folder / 'recipe.json'}; in your own training script:\n\n"
            f"    from evonas.freezing import load_recipe\n"
            f"    recipe = load_recipe({str(folder / 'recipe.json')!r})\n"
            f"    optimizer = recipe.make_optimizer(model)  # freezes what is not trained\n"
            f"    scheduler = recipe.make_scheduler(optimizer, n_steps)"
        )
        return
    print(
        f"freeze: {frozen_in_words(table.blocks, champion.mask)}   {list(champion.mask)}\n"
        f"the mask is in {folder / 'mask.json'}; in your own training script:\n\n"
        f"    from evonas.freezing import apply_mask, load_mask, trainable_parameter_groups\n"
        f"    apply_mask(model, load_mask({str(folder / 'mask.json')!r}))\n"
        f"    optimizer = torch.optim.AdamW(trainable_parameter_groups(model), lr={lr:g})"
    )


def describe(problem: FreezingProblem, test: Any, options: argparse.Namespace) -> None:
    """Prints what is about to be searched."""
    n_points = problem.space.cardinality
    what = "recipes" if options.recipe else "masks"
    n_test = "none" if test is None else f"{len(test):,}"
    chosen = ""
    if options.strategy != "published":
        chosen = f"strategy {options.strategy}, for {' and '.join(options.objectives)}\n"
    print(
        f"{problem.model_name}: {len(problem.blocks)} blocks, {n_points:,} {what}\n"
        f"  {', '.join(block.name for block in problem.blocks)}\n"
        f"{len(problem.train):,} training, {len(problem.val):,} validation, {n_test} test examples,"
        f" epochs a mask: {problem.training.n_epochs}, on {problem.device}\n"
        f"{chosen}run {options.run_dir}",
        flush=True,
    )


def run_script(main: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> int:
    """Runs a script's `main`; returns its exit status."""
    if options.threads is not None:  # what is computed here (pretraining, what a run decides once)
        torch.set_num_threads(options.threads)
    logging.basicConfig(format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        main(options)
    except KeyboardInterrupt as stopped:  # SearchInterrupted says what is saved
        print(f"\n{str(stopped) or 'stopped before the search began'}", file=sys.stderr)
        return 130
    except (en.EvonasError, FileNotFoundError) as error:  # no run to start warm from
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except (TypeError, ValueError) as wrong:  # of options and data: each says what it expected
        print(f"\nerror: {wrong}", file=sys.stderr)
        return 2
    return 0
