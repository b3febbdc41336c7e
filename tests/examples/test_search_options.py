"""The options that all examples share: what they refuse, and what they hand to `evolve`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cifar10_alexnet
import custom_freezing
import freezing_options
import pytest
import search_options

import evonas as en


def cifar(*argv: str) -> argparse.Namespace:
    parsed = cifar10_alexnet.parse(cifar10_alexnet.make_parser(), ["--preset", "quick", *argv])
    assert isinstance(parsed, argparse.Namespace)
    return parsed


def masks(*argv: str) -> argparse.Namespace:
    parser = custom_freezing.make_parser()
    return freezing_options.parse(parser, custom_freezing.PRESETS, list(argv))


def made(*argv: str) -> Any:
    return search_options.make_strategy(cifar("--strategy", *argv))


def test_the_default_is_the_published_ga() -> None:
    for options in (cifar(), masks()):
        strategy = search_options.make_strategy(options)
        assert isinstance(strategy, en.Generational)
        assert not isinstance(strategy, en.NSGA2)
        assert search_options.budget(options)["generations"] == options.generations
        assert search_options.budget(options)["max_evaluations"] is None
        assert search_options.make_pruner(options) is None
        assert search_options.make_objectives(options) == [en.Objective("accuracy")]
    published: Any = {"selection": "tournament", "tournament_size": 3, "crossover": "one_point",
                      "crossover_prob": 1.0}  # fmt: skip
    ga = en.Generational(10, elite=2, gene_mutation_prob=0.15, **published)
    assert search_options.make_strategy(cifar()).settings() == ga.settings()  # type: ignore[union-attr]
    ga = en.Generational(12, elite=2, gene_mutation_prob=0.2, **published)
    assert search_options.make_strategy(masks()).settings() == ga.settings()  # type: ignore[union-attr]


def test_each_strategy_by_name() -> None:
    assert made("auto") == "auto"
    assert made("surrogate").settings() == en.SurrogateEvolution(row_every=10).settings()
    assert made("local").settings() == en.LocalSearch(row_every=10).settings()
    assert made("random").settings() == en.RandomSearch(row_every=10).settings()
    aging = made("aging", "--population", "30").settings()
    assert (aging["population"], aging["sample"]) == (30, 15)
    nsga2 = made("nsga2", "--population", "8", "--mutation-prob", "0.3", "--crossover", "uniform")
    assert made("nsga2").settings() == en.NSGA2(10).settings()
    assert nsga2.settings() == en.NSGA2(8, crossover="uniform", gene_mutation_prob=0.3).settings()


def test_budgets() -> None:
    # Of the preset, also where something else is given.
    assert search_options.budget(cifar("--strategy", "surrogate", "--max-seconds", "9")) == {
        "generations": None, "max_evaluations": 50, "max_seconds": 9.0,
    }  # fmt: skip
    aging = cifar("--strategy", "aging", "--population", "30", "--max-evaluations", "24")
    assert search_options.budget(aging)["max_evaluations"] == 24
    assert search_options.budget(masks("--strategy", "random"))["max_evaluations"] == 48
    nsga2 = search_options.budget(cifar("--strategy", "nsga2", "--generations", "4"))
    assert (nsga2["generations"], nsga2["max_evaluations"]) == (4, None)


def test_objectives_and_pruners() -> None:
    options = cifar("--strategy", "nsga2", "--objectives", "accuracy", "params")
    accuracy, params = en.Objective("accuracy"), en.Objective("params", "min")
    assert search_options.make_objectives(options) == [accuracy, params]
    assert isinstance(search_options.make_pruner(cifar("--pruner", "median")), en.MedianPruner)
    halving = search_options.make_pruner(masks("--pruner", "halving"))
    assert isinstance(halving, en.SuccessiveHalving)


@pytest.mark.parametrize(
    ("parse", "argv", "message"),
    [
        (cifar, "--strategy surrogate --elite 3 --selection best",
         "--elite, --selection cannot be given with --strategy surrogate: it takes none of the GA's"
         " options, and --max-evaluations"),
        (cifar, "--strategy auto --generations 5", "--generations cannot be given with --strategy"),
        (cifar, "--strategy aging --mutation-prob 0.1",
         "--mutation-prob cannot be given with --strategy aging: it takes --population, and"),
        (cifar, "--strategy nsga2 --tournament 2",
         "it takes --population, --generations, --crossover, --crossover-prob, --mutation-prob"),
        (masks, "--strategy local --population 4", "--population cannot be given with --strategy"),
        (cifar, "--objectives accuracy macs",
         "--strategy published optimises one objective, got 2 (accuracy, macs): auto, surrogate,"),
        (cifar, "--objectives speed", "invalid choice: 'speed'"),
        (cifar, "--strategy nsga2 --objectives accuracy accuracy", "--objectives names one twice"),
        (cifar, "--strategy nsga2 --objectives accuracy params --pruner median",
         "--pruner judges by one objective"),
        (cifar, "--objectives params --pruner median", "--pruner judges by accuracy"),
        (masks, "--strategy nsga2 --objectives trainable_share accuracy",
         "--objectives must begin with accuracy"),
    ],
)  # fmt: skip
def test_what_is_refused(
    parse: Any, argv: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(*argv.split())
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_front_as_a_table() -> None:
    sizes = {1: 900, 2: 1500, 3: 40_000, 4: 30_000}
    result = en.evolve(
        {"x": list(sizes)},
        lambda genes, trial: (min(genes["x"], 3) / 10, sizes[genes["x"]]),
        objectives=[en.Objective("accuracy"), en.Objective("params", "min")],
        strategy=en.RandomSearch(),
        max_evaluations=4,
        seed=0,
    )
    lines = search_options.front_table(result, "network").splitlines()
    assert lines[0] == "Pareto front: 3 of 4 networks, none of which is better in all"
    assert lines[1].split() == ["network", "accuracy", "params"]
    rows = [line.split()[1:] for line in lines[2:]]
    assert rows == [["0.3000", "30,000"], ["0.2000", "1,500"], ["0.1000", "900"]]


TINY = (
    "--dataset digits --space alexnet-small --train-samples 32 --val-samples 16 --epochs 2"
    " --batch-size 16 --threads 1 --precision float32 --device cpu --seed 1"
).split()


def test_nsga2_ends_with_a_front(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    text = "--strategy nsga2 --objectives accuracy params --population 3 --generations 2"
    argv = [*TINY, *text.split(), "--run-dir", str(run)]
    assert cifar10_alexnet.main(argv) == 0
    printed = capsys.readouterr().out
    front = en.open_run(run).pareto_front
    assert "strategy nsga2, for accuracy and params" in printed
    assert f"Pareto front: {len(front)} of 6 networks" in printed
    assert f"{front[0].values[1]:,.0f}\n" in printed


def test_a_search_with_pruner_and_a_warm_start_of_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Early(en.MedianPruner):
        def __init__(self) -> None:
            super().__init__(min_curves=2)

    monkeypatch.setitem(search_options.PRUNERS, "median", Early)
    first, second = tmp_path / "first", tmp_path / "second"
    argv = [*TINY, "--strategy", "auto", "--max-evaluations", "8", "--pruner", "median"]
    assert cifar10_alexnet.main([*argv, "--run-dir", str(first)]) == 0
    printed = capsys.readouterr().out
    pruned = en.open_run(first).counts.by_status["pruned"]
    assert pruned > 0
    assert "evonas: SurrogateEvolution, chosen for" in printed
    assert f"8 networks trained ({pruned} of them pruned)" in printed

    argv = [*TINY, "--strategy", "local", "--max-evaluations", "1", "--warm-start", str(first)]
    assert cifar10_alexnet.main([*argv, "--run-dir", str(second)]) == 0
    assert "1 networks trained" in capsys.readouterr().out
    assert len(en.open_run(second).evaluations) == 8 - pruned + 1
    argv[-1] = str(tmp_path / "nowhere")
    assert cifar10_alexnet.main([*argv, "--run-dir", str(tmp_path / "third")]) == 1
    assert "nowhere holds no run" in capsys.readouterr().err


@pytest.mark.slow
def test_masks_of_each_size(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = (
        "--train-samples 30 --val-samples 30 --epochs 1 --population 4 --generations 2"
        " --confirm-seeds 1 --random-masks 1 --strategy nsga2 --objectives accuracy trainable_share"
    )
    options = masks(*text.split(), "--run-dir", str(tmp_path / "run"))
    assert freezing_options.run_script(custom_freezing.main, options) == 0
    printed = capsys.readouterr().out
    assert "trainable_share\n" in printed
    assert "full fine-tuning" in printed


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (["--preset", "quik"], "did you mean 'quick'?"),
        (["--poplation", "3"], "did you mean '--population'?"),
        (["--strategy=surogate"], "did you mean 'surrogate'?"),
    ],
)
def test_a_typo_gets_the_nearest_word(
    argv: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cifar(*argv)
    assert meant in capsys.readouterr().err
