"""Every public argument, given wrong types and extremes: refused by its name, before any file.

A message is clear when it names the argument. What is accepted is listed, argument by argument.
"""

from __future__ import annotations

import copy
import functools
import math
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import evonas as en
from evonas.execution import (
    FusedExecutor,
    FuturesExecutor,
    ProcessExecutor,
    RayExecutor,
    SerialExecutor,
)
from evonas.freezing import FreezingProblem, apply_mask, compare_masks, find_blocks
from evonas.nas import (
    FAMILIES,
    ImageClassificationProblem,
    TextClassificationProblem,
    transformer_space,
)
from evonas.report import write_report
from evonas.run.hints import named_arguments
from evonas.run.settings import Settings
from evonas.training import (
    Examples,
    ModelProblem,
    Sentences,
    Training,
    Vocabulary,
    accuracy,
    load_digits,
    load_image_folder,
    split,
)

Call = Callable[..., Any]


class Thing:
    pass


def wrong() -> dict[str, Any]:
    return {
        "None": None, "True": True, "False": False, "0": 0, "-1": -1, "1": 1, "2.5": 2.5,
        "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "'abc'": "abc", "''": "", "'9'": "9",
        "b'x'": b"x", "[]": [], "[1]": [1], "['a']": ["a"], "()": (), "{}": {}, "{'a':1}": {"a": 1},
        "object": Thing(), "type": int, "lambda": lambda: None, "10**30": 10**30, "{1}": {1},
        "array": np.zeros(3), "generator": (x for x in []),
    }  # fmt: skip


# What is no mistake, by the kind of the argument.
KINDS = {
    "count": "1",
    "count or none": "None 1",
    "number of none or more": "0 1",
    "number of none or more, or none": "None 0 1",
    "bool": "True False",
    "text": "'abc' '9'",
    "function": "None lambda",
    "function or class": "None type lambda",
    "list": "[] () generator",
    "limits": "None {} {'a':1}",
    "nothing but its class": "None",
    "nothing": "",
}


def space() -> en.SearchSpace:
    return en.SearchSpace({"x": [1, 2, 3], "f": en.Float(0, 1)})


def fitness(genes: en.Genes, trial: en.Trial) -> float:
    return 1.0


def evolve(folder: Path, **given: Any) -> None:
    options = {"max_evaluations": 2, "run_dir": folder, "seed": 0, "progress": False, **given}
    problem, function = options.pop("problem", space()), options.pop("fitness", fitness)
    en.evolve(problem, function, **options)


def confirm(folder: Path, **given: Any) -> None:
    done = folder.with_name("done")
    if not done.exists():
        en.evolve(space(), fitness, max_evaluations=3, run_dir=done, progress=False)
    options = {"problem": en.FunctionProblem(space(), fitness), "run_dir": done, **given}
    options = {"top": 1, "repeats": 1, **options}
    en.confirm(options.pop("problem"), options.pop("run_dir"), **options)


def freezing(folder: Path, **given: Any) -> None:
    with torch.random.fork_rng():
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    data = torch.ones(12, 4), torch.arange(12) % 2
    options = {"model_factory": partial(copy.deepcopy, model), "train": data, "val": data, **given}
    FreezingProblem(
        options.pop("model_factory"), options.pop("train"), options.pop("val"),
        **{"precision": "float32", **options},
    )  # fmt: skip


def model_problem(folder: Path, **given: Any) -> None:
    data = torch.ones(12, 4), torch.arange(12) % 2
    options = {
        "space": {"width": [4, 8]}, "train": data, "val": data, "metric": accuracy,
        "model": lambda genes: nn.Linear(4, 2), "direction": "max", "precision": "float32",
    }  # fmt: skip
    ModelProblem(**{**options, **given})


def images(folder: Path, **given: Any) -> None:
    family = FAMILIES["alexnet-small"]
    data = Examples(torch.zeros(40, 3, 32, 32, dtype=torch.uint8), torch.arange(40) % 2, ("a", "b"))
    options = {"space": family.space(), "network": family.network, "data": data, **given}
    ImageClassificationProblem(
        options.pop("space"), options.pop("network"), options.pop("data"),
        **{"precision": "float32", **options},
    )  # fmt: skip


def texts(folder: Path, **given: Any) -> None:
    vocabulary = Vocabulary(["good", "bad"])
    data = vocabulary.examples(Sentences(("good", "bad") * 20, (0, 1) * 20, ("a", "b")), 4)
    options = {"space": transformer_space(), "data": data, "vocabulary": vocabulary, **given}
    TextClassificationProblem(**{"precision": "float32", **options})  # type: ignore[arg-type]


def made(kind: Any, **defaults: Any) -> Call:
    return lambda folder, **given: kind(**{**defaults, **given})


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))


def masked(folder: Path, **given: Any) -> None:
    apply_mask(**{"model": network(), "mask": [0, 1], **given})


def labelled() -> Examples:
    return Examples(torch.zeros(12, 4), torch.arange(12) % 2)


def folder_of_images(folder: Path, **given: Any) -> None:
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / name / "a.png")
    load_image_folder(**{"root": folder, **given})


def examples(folder: Path, **given: Any) -> None:
    pair = {name: () for name in ("mean", "std") if {"mean", "std"} & set(given)}
    Examples(**{"inputs": torch.zeros(3, 4), "targets": torch.arange(3), **pair, **given})


@functools.cache
def masks_searched(folder: Path) -> FreezingProblem:
    with torch.random.fork_rng():
        model = network()
    data = torch.ones(12, 4), torch.arange(12) % 2
    other = torch.zeros(12, 4), torch.arange(12) % 2
    problem = FreezingProblem(
        partial(copy.deepcopy, model), data, other, n_epochs=1, precision="float32"
    )
    en.evolve(problem, max_evaluations=3, run_dir=folder, seed=0, progress=False)
    return problem


def comparison(folder: Path, **given: Any) -> None:
    problem = masks_searched(folder.with_name("masks"))
    options = {"problem": problem, "run_dir": folder.with_name("masks"), **given}
    compare_masks(**{"top": 1, "repeats": 1, "n_random": 0, **options})


def report(folder: Path, **given: Any) -> None:
    done = folder.with_name("reported")
    if not done.exists():
        en.evolve(space(), fitness, max_evaluations=3, run_dir=done, progress=False)
    write_report(**{"run_dir": done, **given})


POOL = ThreadPoolExecutor(1)
STRATEGY = {
    "population": "nothing", "elite": "None 0 1", "crossover": "nothing",
    "crossover_prob": "number of none or more",
    "gene_mutation_prob": "number of none or more, or none",
    "selection": "nothing", "tournament_size": "count", "novelty_tries": "number of none or more",
    "hall_of_fame": "count", "toolbox": "nothing but its class", "row_every": "count",
}  # fmt: skip

TABLE: dict[str, tuple[Call, Any, dict[str, str]]] = {
    "evolve": (evolve, en.evolve, {
        "problem": "nothing", "fitness": "nothing", "strategy": "nothing but its class",
        "population": "nothing but its class", "generations": "count or none", "elite": "None 0 1",
        "toolbox": "nothing but its class", "objectives": "nothing but its class",
        "problem_id": "None 'abc' '9'", "max_evaluations": "count",
        "max_seconds": "None 0 1 2.5 10**30", "patience": "count or none",
        "target_fitness": "None 0 -1 1 2.5 10**30", "pruner": "nothing but its class",
        "initial": "list", "warm_start": "list", "run_dir": "None 'abc' '9'",
        "workers": "count or none", "executor": "nothing but its class",
        "devices": "nothing but its class", "workers_per_device": "count or none",
        "trial_timeout": "None 1 2.5", "lost_retries": "None 0 1",
        "fused": "None", "threads_per_trial": "count or none", "deterministic": "bool",
        "seed": "None 0 1 10**30",
        "max_consecutive_failures": "count", "durability": "nothing",
        "keep_files": "nothing", "keep_bytes": "None 0 1 10**30",
        "progress": "None True False", "callbacks": "list", "metadata": "limits",
    }),
    "confirm": (confirm, en.confirm, {
        "problem": "nothing", "run_dir": "nothing", "top": "count", "also": "list",
        "repeats": "count", "executor": "nothing but its class", "on_repeat": "function or class",
        "counts": "None",
    }),
    "open_run": (lambda folder, **given: en.open_run(**given), en.open_run, {
        "run_dir": "nothing",
    }),
    "Integer": (made(en.Integer, low=1, high=5), en.Integer, {
        "low": "0 -1 1", "high": "count", "step": "1 10**30", "log": "bool",
    }),
    "Float": (made(en.Float, low=1, high=5), en.Float, {
        "low": "0 -1 1 2.5", "high": "1 2.5 10**30", "log": "bool",
        "step": "None 1 2.5 10**30",
    }),
    "Range": (made(en.Range, low=1, high=10**31), en.Range, {
        "low": "None 0 -1 1 2.5 10**30", "high": "None 1 2.5 10**30",
    }),
    "Repeat": (made(en.Repeat, low=1, high=2, genes={"a": [1]}), en.Repeat, {
        "low": "0 1", "high": "1", "genes": "{'a':1}", "conditions": "None {} {'a':1}",
    }),
    "Training": (made(Training), Training, {
        "n_epochs": "count", "batch_size": "count", "optimizer": "nothing", "lr": "1 2.5 10**30",
        "momentum": "0 1", "weight_decay": "0 1 2.5 10**30", "schedule": "nothing",
        "label_smoothing": "0 1", "ema": "0 1", "grad_clip": "None 1 2.5 10**30",
    }),
    "ModelProblem": (model_problem, ModelProblem, {
        "space": "nothing", "model": "nothing", "train": "nothing", "val": "nothing",
        "loss": "None", "metric": "function", "direction": "nothing",
        "metric_name": "None 'abc' '9'", "training": "nothing but its class",
        "optimizer": "None", "schedule": "function", "unpack": "None", "augment": "function",
        "objectives": "nothing but its class", "record": "list", "device": "'abc' '9'",
        "threads": "count", "precision": "nothing but its class", "continue_trainings": "False",
        "inherit_weights": "bool", "problem_id": "None 'abc' '9'",
    }),
    "Categorical": (made(en.Categorical), en.Categorical, {"choices": "[1] ['a'] {'a':1}"}),
    "SearchSpace": (made(en.SearchSpace, genes={"x": [1, 2]}), en.SearchSpace, {
        "genes": "nothing", "conditions": "None {}", "constraints": "None [] () {} type lambda",
    }),
    "Objective": (made(en.Objective, name="a"), en.Objective, {
        "name": "text", "direction": "nothing",
    }),
    "FunctionProblem": (
        made(en.FunctionProblem, space=space(), fitness=fitness), en.FunctionProblem, {
            "space": "nothing", "fitness": "type", "objectives": "nothing but its class",
            "problem_id": "None 'abc' '9'",
        },
    ),
    "FreezingProblem": (freezing, FreezingProblem, {
        "model_factory": "nothing", "train": "nothing", "val": "nothing",
        "blocks": "nothing but its class", "granularity": "nothing", "include_head": "bool",
        "n_epochs": "count", "batch_size": "count", "lr": "1 2.5 10**30 [1] {1}",
        "weight_decay": "0 1 2.5 10**30", "optimizer": "None", "schedule": "nothing",
        "grad_clip": "None 1 2.5 10**30", "loss_function": "None", "metric": "function",
        "augment": "function", "reuse_prefix": "bool", "prefix_memory_bytes": "0 1 10**30",
        "prefix_file_bytes": "0 1 10**30", "device": "text", "threads": "count",
        "precision": "nothing but its class", "objectives": "nothing but its class",
    }),
    "ImageClassificationProblem": (images, ImageClassificationProblem, {
        "space": "nothing", "network": "type lambda", "data": "nothing", "val": "None",
        "n_epochs": "count", "batch_size": "count", "val_fraction": "nothing",
        "n_train": "count or none", "n_val": "count or none",
        "split_seed": "number of none or more", "metric": "function",
        "optimizer": "nothing", "schedule": "nothing", "ema": "0 1",
        "augment": "True False lambda", "test_time_flip": "bool", "device": "text",
        "threads": "count", "precision": "nothing but its class", "continue_trainings": "False",
        "inherit_weights": "bool",
        "objectives": "nothing but its class", "record": "list", "latency_batch": "count",
        "name": "text", "dataset": "text",
    }),
    "TextClassificationProblem": (texts, TextClassificationProblem, {
        "space": "nothing", "data": "nothing", "vocabulary": "nothing",
        "network": "None type lambda", "val": "None", "n_epochs": "count", "batch_size": "count",
        "val_fraction": "nothing", "n_train": "count or none", "n_val": "count or none",
        "split_seed": "number of none or more", "schedule": "nothing", "device": "text",
        "threads": "count", "precision": "nothing but its class", "continue_trainings": "False",
        "inherit_weights": "bool",
        "objectives": "nothing but its class", "record": "list", "name": "text",
        "dataset": "text",
    }),
    "ProcessExecutor": (made(ProcessExecutor, workers=1), ProcessExecutor, {
        "workers": "count", "devices": "['a']", "trial_timeout": "None 1 2.5",
        "lost_retries": "number of none or more",
    }),
    "SerialExecutor": (made(SerialExecutor), SerialExecutor, {"device": "text"}),
    "FusedExecutor": (made(FusedExecutor, most=2), FusedExecutor, {
        "most": "nothing", "device": "text", "threads": "count or none",
    }),
    "Generational": (made(en.Generational), en.Generational, STRATEGY),
    "NSGA2": (made(en.NSGA2), en.NSGA2, {**STRATEGY, "at_most": "limits", "at_least": "limits"}),
    "SurrogateEvolution": (made(en.SurrogateEvolution), en.SurrogateEvolution, {
        **STRATEGY, "n_initial": "nothing", "n_parents": "count", "warp": "bool",
    }),
    "AgingEvolution": (made(en.AgingEvolution), en.AgingEvolution, {
        **STRATEGY, "population": "count", "sample": "count", "row_every": "count or none",
    }),
    "Hyperband": (made(en.Hyperband), en.Hyperband, {
        **STRATEGY, "fidelity": "text", "reduction": "nothing", "n_brackets": "count or none",
    }),
    "LocalSearch": (made(en.LocalSearch), en.LocalSearch, {**STRATEGY, "n_starts": "count"}),
    "RandomSearch": (made(en.RandomSearch), en.RandomSearch, STRATEGY),
    "MedianPruner": (made(en.MedianPruner), en.MedianPruner, {
        "min_curves": "count", "warmup_epochs": "number of none or more",
    }),
    "make_toolbox": (made(en.make_toolbox, space=space()), en.make_toolbox, {
        "space": "nothing", "fitness": "function or class", "objectives": "nothing but its class",
        "individual_class": "None", "crossover": "nothing",
        "gene_mutation_prob": "number of none or more", "mutation_sigma": "0 1 2.5 10**30",
        "selection": "nothing", "tournament_size": "count", "rng": "nothing but its class",
        "seed": "0 1 10**30",
    }),
    "find_blocks": (made(find_blocks, model=network()), find_blocks, {
        "model": "nothing", "granularity": "nothing", "blocks": "nothing but its class",
        "include_head": "bool",
    }),
    "apply_mask": (masked, apply_mask, {
        "model": "nothing", "blocks": "nothing but its class",
    }),
    "load_digits": (made(load_digits), load_digits, {"size": "count"}),
    "split": (made(split, data=labelled(), seed=0), split, {
        "val_fraction": "nothing", "seed": "number of none or more", "n_train": "count or none",
        "n_val": "count or none",
    }),
    "load_image_folder": (folder_of_images, load_image_folder, {
        "root": "nothing", "size": "count", "split": "None", "cache": "bool",
        "limit": "None", "seed": "0 1 10**30",
    }),
    "Examples": (examples, Examples, {
        "inputs": "nothing", "targets": "array", "classes": "[] () generator",
        "mean": "[] () generator", "std": "[] () generator", "device": "nothing",
        "padding": "limits", "padding_side": "nothing", "transform": "function",
    }),
    "FuturesExecutor": (made(FuturesExecutor, pool=POOL), FuturesExecutor, {
        "pool": "nothing", "slots": "count or none", "device": "text",
        "lost_retries": "number of none or more", "new_processes": "bool",
    }),
    "RayExecutor": (made(RayExecutor), RayExecutor, {
        "address": "None 'abc' '9'", "cpus_per_trial": "1 2.5", "gpus_per_trial": "0 1",
        "slots": "count or none", "lost_retries": "number of none or more", "init": "limits",
    }),
    "compare_masks": (comparison, compare_masks, {
        "problem": "nothing", "run_dir": "nothing", "test": "None", "top": "count",
        "n_random": "number of none or more", "repeats": "count",
        "executor": "nothing but its class", "on_repeat": "function",
    }),
    "write_report": (report, write_report, {"run_dir": "nothing", "path": "None 'abc' '9'"}),
    "SuccessiveHalving": (made(en.SuccessiveHalving), en.SuccessiveHalving, {
        "min_epochs": "count", "reduction": "nothing",
    }),
}  # fmt: skip
# What only a model can judge.
NOT_IN_THE_TABLE = {
    ("find_blocks", "sample"),
    ("apply_mask", "mask"),
    ("split", "data"),
}
SETTINGS = {"evolve": Settings.__annotations__}  # arguments that a signature does not name
CASES = [
    (owner, argument)
    for owner, (_, signature, _) in TABLE.items()
    for argument in [*named_arguments(signature), *SETTINGS.get(owner, ())]
    if (owner, argument) not in NOT_IN_THE_TABLE
]
# A function of the user's fails by itself, and a dict of genes says which gene.
EXCUSED = {
    ("evolve", "fitness", "type"), ("confirm", "counts", "type"), ("confirm", "counts", "lambda"),
    ("FreezingProblem", "loss_function", "type"), ("FreezingProblem", "loss_function", "lambda"),
    ("FreezingProblem", "optimizer", "type"), ("FreezingProblem", "optimizer", "lambda"),
    ("ModelProblem", "optimizer", "lambda"),
    ("evolve", "problem", "{}"), ("evolve", "problem", "{'a':1}"),
    ("confirm", "run_dir", "'abc'"), ("confirm", "run_dir", "'9'"),
    ("open_run", "run_dir", "'abc'"), ("open_run", "run_dir", "'9'"),
    ("evolve", "warm_start", "'abc'"), ("evolve", "warm_start", "'9'"),
    ("make_toolbox", "individual_class", "type"), ("make_toolbox", "individual_class", "lambda"),
    ("Examples", "transform", "type"), ("Examples", "transform", "lambda"),
    ("compare_masks", "run_dir", "'abc'"), ("compare_masks", "run_dir", "'9'"),
    ("compare_masks", "on_repeat", "type"), ("compare_masks", "on_repeat", "lambda"),
    ("write_report", "run_dir", "'abc'"), ("write_report", "run_dir", "'9'"),
    ("load_image_folder", "root", "'abc'"), ("load_image_folder", "root", "'9'"),
    ("ModelProblem", "model", "type"), ("ModelProblem", "model", "lambda"),
    ("ModelProblem", "space", "{}"), ("ModelProblem", "space", "{'a':1}"),
    ("ImageClassificationProblem", "val", "lambda"), ("TextClassificationProblem", "val", "lambda"),
    ("evolve", "max_evaluations", "None"),
    # Allowed; but a machine may be so busy that no trial ends in time.
    ("evolve", "trial_timeout", "1"), ("evolve", "trial_timeout", "2.5"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def error_of(call: Call, folder: Path, given: dict[str, Any]) -> str | None:
    """What the refusal says, None where nothing was refused."""
    try:
        call(folder, **given)
    except (TypeError, ValueError, FileNotFoundError, en.EvonasError) as error:
        return str(error)
    return None


@pytest.mark.parametrize(("owner", "argument"), CASES)
def test_a_wrong_value_is_refused_by_name(owner: str, argument: str, tmp_path: Path) -> None:
    if owner == "RayExecutor":
        pytest.importorskip("ray")
    call, _, accepted = TABLE[owner]
    kind = accepted[argument]
    expected = set(KINDS.get(kind, kind).split())
    for number, (label, value) in enumerate(wrong().items()):
        if (owner, argument, label) in EXCUSED:
            continue
        folder = tmp_path / str(number)
        error = error_of(call, folder, {argument: value})
        if label in expected:
            assert error is None, label
        else:
            assert error is not None, f"{argument}={label} was accepted"
            assert argument.rstrip("s") in error, label
            assert not (folder / "run.db").exists(), f"{label} is refused too late"
