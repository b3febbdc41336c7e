"""Finds how to fine-tune a pretrained model on your data, in a given time.

    pip install -e ".[vision,lora]"                                 # for sentences ".[bert,lora]"
    python examples/finetune.py --data IMAGES --minutes 20          # folders of images, by class
    python examples/finetune.py --data FOLDER_OR_TSV --minutes 20   # sentences with labels
    python examples/finetune.py --model resnet18 --data IMAGES --minutes 30

Images: a folder with `train/` (and `val/`, `test/`), in each a folder for each class; models
`efficientnet-lite0` (no download) or any of timm. Sentences: a table `sentence<tab>label`, or a
folder with `train.tsv` and `test.tsv`; models `minilm` (no download), a name on the hub, a folder.

From the time alone follow image size, number of examples and epochs. The search varies what of each
block is trained and how fast, and the learning rate, and begins with what people try by hand. The
table at the end compares its best with those, on fresh seeds. Stop it as you like: the same command
goes on where it stopped.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from finetune_data import BATCH_SIZE, Task, open_task
from freezing_options import N_TOP, compare, run_script
from search_options import count
from torch import nn

import evonas as en
from evonas.callbacks import format_duration
from evonas.exceptions import DataError
from evonas.execution.choice import available_cores
from evonas.execution.torch_env import resolve_device, torch_threads
from evonas.files import write_text
from evonas.freezing import GenerationLog, RecipeProblem
from evonas.freezing.comparison import candidate_count
from evonas.freezing.time_plan import FineTuningPlan, plan_fine_tuning
from evonas.report.network import preprocessing_text
from evonas.run.repeats import weights_text
from evonas.training.passes import forward

N_RIVALS = 12  # that people try by hand and the first population holds, about
N_RANDOM = 1
PLAN = "plan.json"
RANK = 8


def main(options: argparse.Namespace) -> None:
    """Measures, plans, searches, and prints the table."""
    folder = Path(options.run_dir)
    device = resolve_device(options.device)
    workers = options.workers or (min(4, available_cores()) if device == "cpu" else 1)
    threads = max(1, available_cores() // workers)
    plan = kept_plan(options, folder)
    task = open_task(options.model, options.data)
    plan = plan or planned(task, options, folder, workers=workers, threads=threads, device=device)
    train, val, test = task.parts(plan, options.seed)
    problem = RecipeProblem(
        task.factory(plan.size), train, val, lr=task.rates, granularity=task.granularity,
        ranks=[RANK] if importlib.util.find_spec("peft") else [], n_epochs=plan.n_epochs,
        batch_size=BATCH_SIZE, device=device, threads=threads,
    )  # fmt: skip
    describe(problem, plan, test, options)
    result = en.evolve(
        problem,
        strategy=en.SurrogateEvolution(n_initial=plan.n_initial, row_every=10),
        max_seconds=plan.search_seconds,
        run_dir=folder,
        workers=workers,
        devices=device,
        threads_per_trial=threads,
        seed=options.seed,
        progress=False,
        callbacks=[] if options.quiet else [GenerationLog(problem)],
        metadata={"example": "finetune", "model": options.model, "data": str(options.data)},
    )
    print(f"{result.counts.evaluated} recipes trained in {format_duration(result.seconds)}")
    seconds = [entry.seconds for entry in result.evaluations if entry.status is en.Status.OK]
    n_rows = candidate_count(problem, result, N_TOP, N_RANDOM)
    compare(
        problem, folder, test, n_random=N_RANDOM, workers=workers, device=device,
        repeats=plan.n_seeds(n_rows * statistics.fmean(seconds or [0.0]), workers),
        quiet=options.quiet,
    )  # fmt: skip
    champion = en.open_run(folder).champion
    if "weights.pt" in champion.files:
        print(f"\nits weights: {champion.files['weights.pt']}")
        print(f"they are {weights_text(champion, result.objectives)}")
        if said := preprocessing_text(champion):
            classes = champion.preprocessing.get("classes", [])
            print(f"its inputs: {said}; its classes: {', '.join(classes)}")


def asked(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what a run is made for, as JSON."""
    return {"minutes": options.minutes, "data": str(options.data), "model": options.model}


def kept_plan(options: argparse.Namespace, folder: Path) -> FineTuningPlan | None:
    """Returns the plan of a run that goes on; None: it is new.

    Raises:
        DataError: The run was made for another time or other data; its plan is damaged.
    """
    file = folder / PLAN
    if not file.exists():
        return None
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        plan, before = FineTuningPlan(**record["plan"]), record["asked"]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{file} is damaged ({error}): pass another --run-dir") from error
    if before != asked(options):
        raise DataError(
            f"{folder} holds a search for {before}, not for {asked(options)}: give the same "
            "options to go on with it, or another --run-dir"
        )
    return plan


def planned(
    task: Task,
    options: argparse.Namespace,
    folder: Path,
    *,
    workers: int,
    threads: int,
    device: str,
) -> FineTuningPlan:
    """Returns the plan of a new run, by the seconds of a training step, and keeps it."""
    with torch_threads(threads):
        costs = {}
        for size in task.sizes:
            seconds = step_seconds(task, size, device)
            costs[size] = seconds / BATCH_SIZE
            if 1_000 * seconds > 60 * options.minutes:  # larger ones are out of the question
                break
    plan = plan_fine_tuning(
        60 * options.minutes, costs, n_train=task.n_train, n_val=task.n_val, n_test=task.n_test,
        n_rivals=N_RIVALS, n_rates=len(task.rates), n_workers=workers,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    kept = {"asked": asked(options), "plan": plan.to_json()}
    write_text(folder / PLAN, json.dumps(kept, indent=2) + "\n")
    return plan


def step_seconds(task: Task, size: int, device: str) -> float:
    """Returns the seconds of a step of full fine-tuning; the first of two is not counted."""
    model = task.factory(size)().to(device).train()
    inputs, targets = task.batch(size)
    inputs = (
        {name: value.to(device) for name, value in inputs.items()}
        if isinstance(inputs, dict)
        else inputs.to(device)
    )
    optimizer = torch.optim.AdamW(model.parameters())
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        loss = nn.functional.cross_entropy(forward(model, inputs).float(), targets.to(device))
        loss.backward()
        optimizer.step()
        loss.item()
        seconds = time.perf_counter() - began
    return seconds


def describe(
    problem: RecipeProblem, plan: FineTuningPlan, test: Any, options: argparse.Namespace
) -> None:
    """Prints what is about to be searched."""
    size = f" of {plan.size}x{plan.size} pixels" if plan.size else ""
    search = format_duration(plan.search_seconds)
    print(
        f"{problem.model_name}: {len(problem.blocks)} blocks,"
        f" {', '.join(block.name for block in problem.blocks)}\n"
        f"{len(problem.train):,} training, {len(problem.val):,} validation,"
        f" {'no' if test is None else f'{len(test):,}'} test examples{size};"
        f" {plan.n_epochs} epochs, learning rates {', '.join(f'{r:g}' for r in problem.rates)}\n"
        f"{search} of search, then the table; a full fine-tuning takes about"
        f" {format_duration(plan.training_seconds)}\nrun {options.run_dir}",
        flush=True,
    )


def make_parser(description: str | None = __doc__) -> argparse.ArgumentParser:
    """Returns the parser."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of images, or table of sentences")
    add("--model", help="default: efficientnet-lite0 for images, minilm for sentences")
    add("--minutes", type=float, default=20.0, help="of everything (default 20)")
    add("--run-dir", default="runs/finetune", help="where everything is kept")
    add("--seed", type=count(0), default=0, help="of everything random (default 0)")
    add("--device", default="auto", help="cpu, cuda, … (default: a GPU if there is one)")
    add("--workers", type=count(1), help="trainings at once (default: a core each, at most 4)")
    add("--quiet", action="store_true", help="no bar, no line per ten trainings")
    parser.set_defaults(threads=None)
    return parser


if __name__ == "__main__":
    sys.exit(run_script(main, make_parser().parse_args()))
