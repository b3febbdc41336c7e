from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.exceptions import RunInUseError, RunMismatchError
from evonas.storage import Store
from evonas.testing import noisy, onemax, onemax_space, quadratic_space


class Noisy(en.FunctionProblem):
    """Noisy, with weights and files, and the trials that ran."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(quadratic_space(), noisy, problem_id="noisy", **settings)
        self.trials: list[en.Trial] = []

    def evaluate(self, genes: Any, trial: en.Trial) -> Any:
        self.trials.append(trial)
        trial.attach("weights", lambda path: path.write_text(str(trial.seed)))
        return super().evaluate(genes, trial)

    def run_files(self, run_dir: Path) -> Any:
        return Files(run_dir)


class Files:
    def __init__(self, run_dir: Path) -> None:
        self.champion = run_dir / "champion"

    def on_evaluation(self, evaluation: en.Evaluation) -> None:
        pass

    def on_champion(self, evaluation: en.Evaluation, attachments: Path | None) -> None:
        weights = (attachments / "weights").read_text() if attachments else "none"
        self.champion.write_text(f"{evaluation.number} {weights}")


def search(run_dir: Path, problem: Any = None, generations: int = 3) -> en.Result:
    return en.evolve(
        problem or Noisy(), population=8, generations=generations, elite=1, seed=2, run_dir=run_dir
    )


def test_the_best_are_repeated_on_fresh_seeds_and_the_best_mean_is_champion(tmp_path: Path) -> None:
    before = search(tmp_path)
    problem = Noisy()
    heard = []
    confirmed = en.confirm(
        problem, tmp_path, top=4, repeats=3, on_repeat=lambda *pair: heard.append(pair)
    )
    assert len(problem.trials) == len(heard) == 12
    seeds = {trial.seed for trial in problem.trials}
    assert len(seeds) == 12
    assert not seeds & {entry.seed for entry in before.evaluations}
    assert {entry.evaluation.key for entry in confirmed} == {
        entry.key for entry in before.hall_of_fame[:4]
    }
    for entry in confirmed:
        assert len(entry.values) == len(entry.repeats) == 3
        assert entry.mean == pytest.approx(statistics.fmean(entry.values))
        assert entry.std == pytest.approx(statistics.stdev(entry.values))
        assert [record.number for record in entry.repeats] == [0, 1, 2]
    means = [entry.mean for entry in confirmed]
    assert means == sorted(means, reverse=True)
    result = en.open_run(tmp_path)
    assert result.champion == confirmed[0].evaluation
    assert result.confirmed == confirmed
    assert result.champion != before.champion  # of this seed: the best single score was luck
    assert result.hall_of_fame == before.hall_of_fame
    assert result.counts == before.counts
    number = result.champion.number
    first = confirmed[0].repeats[0].seed
    assert (tmp_path / "champion").read_text() == f"{number} {first}"


def test_it_minimises_what_is_minimised(tmp_path: Path) -> None:
    problem = Noisy(objectives=en.Objective("loss", "min"))
    search(tmp_path, problem)
    means = [entry.mean for entry in en.confirm(problem, tmp_path, top=3, repeats=2)]
    assert means == sorted(means)


def test_finished_repeats_are_not_repeated(tmp_path: Path) -> None:
    search(tmp_path)
    problem = Noisy()

    def stop(evaluation: Any, record: Any) -> None:
        if len(problem.trials) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="stopped by Ctrl-C while confirming: run the same"):
        en.confirm(problem, tmp_path, top=3, repeats=2, on_repeat=stop)
    assert en.open_run(tmp_path).settings.get("confirmed_champion") is None
    confirmed = en.confirm(problem, tmp_path, top=3, repeats=2)
    assert len(problem.trials) == 6
    again = en.confirm(problem, tmp_path, top=3, repeats=2)
    assert len(problem.trials) == 6
    assert again == confirmed
    more = en.confirm(problem, tmp_path, top=3, repeats=3)
    assert len(problem.trials) == 9
    assert [len(entry.values) for entry in more] == [3, 3, 3]


def test_new_results_take_the_crown_back(tmp_path: Path) -> None:
    """Which point is the best is then open again, and the files say the same."""
    search(tmp_path)
    confirmed = en.confirm(Noisy(), tmp_path, top=4, repeats=3)
    same = search(tmp_path)
    assert same.champion == confirmed[0].evaluation
    assert (tmp_path / "champion").read_text().startswith(f"{same.champion.number} ")
    longer = search(tmp_path, generations=4)
    assert longer.champion == longer.hall_of_fame[0]
    assert (tmp_path / "champion").read_text().startswith(f"{longer.champion.number} ")
    assert [path.name for path in (tmp_path / "attachments").iterdir()] == [
        str(longer.champion.number)
    ]


def test_failed_repeats_do_not_count(tmp_path: Path) -> None:
    class Fails(Noisy):
        fails = False

        def evaluate(self, genes: Any, trial: en.Trial) -> Any:
            value = super().evaluate(genes, trial)
            if self.fails and len(self.trials) % 3:
                raise RuntimeError("not today")
            return value

    problem = Fails()
    search(tmp_path, problem)
    problem.trials.clear()
    problem.fails = True
    confirmed = en.confirm(problem, tmp_path, top=2, repeats=2)  # one of four ends well
    assert [len(entry.values) for entry in confirmed] == [1, 0]
    assert "RuntimeError: not today" in str(confirmed[1].repeats[0].error)
    assert confirmed[1].mean != confirmed[1].mean  # NaN
    assert confirmed[0].std != confirmed[0].std
    assert en.open_run(tmp_path).champion == confirmed[0].evaluation


def test_no_repeat_that_ends_well_crowns_nobody(tmp_path: Path) -> None:
    before = search(tmp_path)

    class Fails(Noisy):
        def evaluate(self, genes: Any, trial: en.Trial) -> Any:
            raise RuntimeError("never")

    confirmed = en.confirm(Fails(), tmp_path, top=2, repeats=1)
    assert [entry.values for entry in confirmed] == [(), ()]
    assert en.open_run(tmp_path).champion == before.champion


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"top": 0}, ValueError, "top must be at least 1, got 0"),
        ({"repeats": 0}, ValueError, "repeats must be at least 1, got 0"),
        ({"repeats": 2.5}, TypeError, r"repeats must be an int, got 2.5 \(float\)"),
    ],
)
def test_wrong_arguments(arguments: Any, error: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        en.confirm(Noisy(), tmp_path, **arguments)


def test_where_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no run: there is no run.db in it"):
        en.confirm(Noisy(), tmp_path / "typo")
    assert not (tmp_path / "typo").exists()
    Store.create(tmp_path).close()
    with pytest.raises(FileNotFoundError, match="holds a run that has not begun yet"):
        en.confirm(Noisy(), tmp_path)


def test_a_run_of_another_problem(tmp_path: Path) -> None:
    search(tmp_path)
    with pytest.raises(RunMismatchError, match="another search space"):
        en.confirm(en.FunctionProblem(onemax_space(), onemax), tmp_path)
    other = en.FunctionProblem(quadratic_space(), noisy, problem_id="other data")
    with pytest.raises(RunMismatchError, match="problem_id: noisy in the run, other data here"):
        en.confirm(other, tmp_path)


def test_a_run_that_is_being_driven(tmp_path: Path) -> None:
    search(tmp_path)
    with Store.create(tmp_path), pytest.raises(RunInUseError, match="is in use by this process"):
        en.confirm(Noisy(), tmp_path)
