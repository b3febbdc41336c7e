"""When a search finds out where frozen prefixes may be reused, and what it keeps of that."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from torch import Tensor, nn

import evonas as en
from evonas.callbacks import Observer, ProgressBar, RunInfo
from evonas.execution import Trial
from evonas.freezing import FreezingProblem, GenerationLog
from evonas.records import Evaluation, Genes
from evonas.training import seeded

# A worker could not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

evolve = functools.partial(en.evolve, threads_per_trial=1, progress=False)

PLAIN, ONE, TWO, THREE = [0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]
NOT_FIRST = [0, 1, 0]
OF_ONE, OF_TWO, OF_THREE = (
    f"checking whether the output of {which} may be computed once"
    for which in ("the first block", "the first 2 blocks", "the first 3 blocks")
)


class Skip(nn.Module):
    """The output of the first block is used again behind the second: it may not be cut there."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.out = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        early = self.one(x).tanh()
        return self.out(self.three(self.two(early).tanh() + early).tanh())


def skip() -> nn.Module:
    with seeded(3):
        return Skip()


class Told(FreezingProblem):
    """Records whether a trial had to find out itself how it starts; stops where it is told to."""

    stop_at: Sequence[int] | None = None
    n_decided = 0

    def settings_for(
        self, genes: Genes, settings: Mapping[str, Any], say: Callable[[str], None]
    ) -> Mapping[str, Any]:
        found = super().settings_for(genes, settings, say)
        self.n_decided += found is not settings
        return found

    def evaluate(self, genes: Genes, trial: Trial) -> float | dict[str, float]:
        if list(self.mask_of(genes)) == self.stop_at:
            raise KeyboardInterrupt
        before = self.n_decided
        value = super().evaluate(genes, trial)
        trial.record(decided_in_trial=self.n_decided - before)
        return value


def make_problem(**options: Any) -> Told:
    generator = torch.Generator().manual_seed(1)
    train, val = ((torch.randn(40, 4, generator=generator), torch.arange(40) % 2) for _ in range(2))
    defaults = {"blocks": ["one", "two", "three"], "lr": 0.02, "precision": "float32"}
    return Told(skip, train, val, **defaults | options)


def search(problem: Told, masks: Sequence[Sequence[int]], **options: Any) -> en.Result:
    """Trains these masks, in this order."""
    points = [problem.genes_of(mask) for mask in masks]
    return evolve(problem, population=len(masks), generations=1, seed=3, initial=points, **options)


def told(result: en.Result) -> list[Any]:
    return [
        (
            entry.key,
            entry.seed,
            entry.metrics["prefix_depth"],
            [row.metrics for row in entry.epochs],
        )
        for entry in result.evaluations
    ]


def depths(result: en.Result) -> tuple[list[str], list[str]]:
    """Those that were found equal, and those that were not."""
    reuse = result.record.problem_settings["reuse"]
    return sorted(reuse["cuts"]), sorted(reuse["refused"])


class Heard(Observer):
    """What is said and trained, in its order."""

    def __init__(self, problem: Told) -> None:
        self.problem, self.heard = problem, list[Any]()

    def on_prepare(self, what: str) -> None:
        self.heard.append(what)

    def on_start(self, info: RunInfo) -> None:
        self.heard.clear()  # of what comes before the first trial

    def on_evaluation(self, evaluation: Evaluation, best: Evaluation | None) -> None:
        self.heard.append(list(self.problem.mask_of(evaluation.genes)))


def test_a_depth_is_tried_before_the_first_mask_that_needs_it(checked: list[int]) -> None:
    problem = make_problem()
    heard = Heard(problem)
    masks = [PLAIN, ONE, NOT_FIRST, [1, 0, 1], TWO, THREE]
    result = search(problem, masks, callbacks=[heard])
    assert heard.heard == [PLAIN, OF_ONE, ONE, NOT_FIRST, [1, 0, 1], OF_TWO, TWO, OF_THREE, THREE]
    assert sorted(checked) == [1, 2, 3]
    assert depths(result) == (["1", "3"], ["2"])
    assert [entry.metrics["prefix_depth"] for entry in result.evaluations] == [0, 1, 0, 1, 1, 3]
    plain = search(make_problem(reuse_prefix=False), masks)
    for ours, theirs in zip(result.evaluations, plain.evaluations, strict=True):
        assert ours.values == theirs.values
        for row, other in zip(ours.epochs, theirs.epochs, strict=True):
            assert row.metrics["train_loss"] == pytest.approx(other.metrics["train_loss"], rel=1e-5)


def test_what_no_mask_needs_is_not_tried(checked: list[int]) -> None:
    result = search(make_problem(), [PLAIN, NOT_FIRST])
    assert (depths(result), checked) == (([], []), [])


@pytest.mark.parametrize("workers", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_the_driver_tries_each_depth_once_for_all_workers(
    workers: int | None, checked: list[int]
) -> None:
    masks = [PLAIN, ONE, TWO, [1, 1, 1], [1, 0, 1], NOT_FIRST]
    result = search(make_problem(), masks, workers=workers)
    assert len(checked) == 3
    assert {entry.metrics["decided_in_trial"] for entry in result.evaluations} == {0}
    assert told(result) == told(search(make_problem(), masks))


def test_a_resumed_search_takes_the_same_decision(
    checked: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a depth that was tried for the trial in which it was killed."""
    masks = [PLAIN, ONE, TWO, THREE]
    expected = told(search(make_problem(), masks))
    killed = make_problem()
    killed.stop_at = TWO
    with pytest.raises(en.SearchInterrupted):
        search(killed, masks, run_dir=tmp_path)
    assert depths(en.open_run(tmp_path)) == (["1"], ["2"]), "kept before the trial began"
    checked.clear()
    result = search(make_problem(), masks, run_dir=tmp_path)
    assert set(checked) == {3}, "what is settled is not tried again"
    assert told(result) == expected


def test_a_refusal_for_its_time_is_kept_with_the_run(
    checked: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = [PLAIN, THREE, TWO]
    killed = make_problem()
    killed.stop_at = TWO
    with monkeypatch.context() as patched:
        patched.setattr("evonas.freezing.prefix.decision._LEAST_SECONDS", 0.0)
        with pytest.raises(en.SearchInterrupted):
            search(killed, masks, run_dir=tmp_path)
        assert checked == []
        expected = told(search(make_problem(), masks))
    result = search(make_problem(), masks, run_dir=tmp_path)
    assert (checked, told(result)) == ([], expected), "though there would be time now"
    assert [entry.metrics["prefix_depth"] for entry in result.evaluations] == [0, 0, 0]
    assert depths(result) == ([], ["2", "3"])


def test_a_confirmation_tries_what_the_search_did_not_need(
    checked: list[int], tmp_path: Path
) -> None:
    problem = make_problem()
    search(problem, [PLAIN, ONE], run_dir=tmp_path)
    checked.clear()
    also = [problem.genes_of(THREE)]
    en.confirm(problem, tmp_path, top=1, also=also, repeats=2)
    assert checked == [3], "once for all its seeds"
    run = en.open_run(tmp_path)
    assert depths(run) == (["1", "3"], [])
    assert len(run.record.baselines) == 1, "what else is on record stays"
    confirmed = next(entry for entry in run.confirmed if entry.evaluation.number < 0)
    assert [each.metrics["prefix_depth"] for each in confirmed.repeats] == [3, 3]
    checked.clear()
    en.confirm(make_problem(), tmp_path, top=1, also=also, repeats=3)
    assert checked == []


def test_a_trial_without_a_driver_finds_out_itself(checked: list[int]) -> None:
    problem, trial = make_problem(), Trial()
    problem.evaluate(problem.genes_of(ONE), trial)
    assert trial.metrics["prefix_depth"] == 1
    problem.evaluate(problem.genes_of(ONE), Trial())
    assert checked == [1]


def test_a_check_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    problem, lines = make_problem(), io.StringIO()
    search(problem, [PLAIN, ONE], callbacks=[GenerationLog(problem, lines)])
    assert f"preparing: {OF_ONE}" in lines.getvalue().splitlines()
    search(make_problem(), [PLAIN, ONE], callbacks=[ProgressBar(bar=False, lines=True)])
    assert f"evonas: preparing: {OF_ONE}" in capsys.readouterr().err.splitlines()
