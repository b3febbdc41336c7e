from __future__ import annotations

import statistics
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.exceptions import RunInUseError, RunMismatchError
from evonas.execution import Outcome, ProcessExecutor, Task
from evonas.execution.base import run_trial
from evonas.run.store import Store
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
    strategy = en.Generational(8, elite=1, gene_mutation_prob=0.15)
    return en.evolve(
        problem or Noisy(), strategy=strategy, generations=generations, seed=2, run_dir=run_dir
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
    assert en.open_run(tmp_path).record.confirmed_champion is None
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
    kept = {path.name for path in (tmp_path / "attachments").iterdir()}
    assert kept == {str(entry.number) for entry in longer.hall_of_fame}


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


ORIGIN = {"x0": 0.0, "x1": 0.0}  # nothing is better on average
FAR = {"x0": 5.0, "x1": 5.0}


def test_points_beside_the_search_are_evaluated_too(tmp_path: Path) -> None:
    before = search(tmp_path)
    tried = before.evaluations[-1]
    assert tried not in before.hall_of_fame[:2]
    problem = Noisy()
    confirmed = en.confirm(
        problem, tmp_path, top=2, repeats=3, also=[ORIGIN, tried.genes, FAR, before.champion.genes]
    )
    found = {entry.evaluation.number: entry for entry in confirmed}
    assert set(found) == {-1, -2, tried.number, *(e.number for e in before.hall_of_fame[:2])}
    assert len(problem.trials) == 5 * 3
    assert found[tried.number].evaluation == tried
    for number, genes in ((-1, ORIGIN), (-2, FAR)):
        entry = found[number]
        assert entry.evaluation.genes == genes
        assert entry.evaluation.key == problem.key(genes)
        assert entry.evaluation.values == entry.repeats[0].values  # the search knows none
        assert len(entry.values) == 3
    assert [entry.evaluation.number for entry in confirmed][-1] == -2
    result = en.open_run(tmp_path)
    assert result.confirmed == confirmed
    assert result.evaluations == before.evaluations
    assert result.counts == before.counts
    again = en.confirm(problem, tmp_path, top=1, repeats=3, also=[FAR, {"x0": 1.0, "x1": 1.0}])
    assert {entry.evaluation.number for entry in again} == {*found, -3}
    assert len(problem.trials) == 6 * 3


def test_a_champion_from_beside_the_search_keeps_its_crown(tmp_path: Path) -> None:
    before = search(tmp_path)
    confirmed = en.confirm(Noisy(), tmp_path, top=1, repeats=3, also=[ORIGIN])
    first = next(entry for entry in confirmed if entry.evaluation.genes == ORIGIN)
    assert confirmed[0] is first

    def is_confirmed(result: en.Result) -> bool:
        file = (tmp_path / "champion").read_text()
        return (
            result.champion == first.evaluation and file == f"-1 {first.repeats[0].seed}"
            and result.champion.number == -1 and result.hall_of_fame == before.hall_of_fame
        )  # fmt: skip

    assert is_confirmed(en.open_run(tmp_path))
    (tmp_path / "champion").unlink()
    problem = Noisy()
    assert is_confirmed(search(tmp_path, problem))  # started again, with nothing left to do
    assert problem.trials == []
    longer = search(tmp_path, generations=4)
    assert longer.champion == longer.hall_of_fame[0]
    assert (tmp_path / "champion").read_text().startswith(f"{longer.champion.number} ")


def test_the_search_tries_later_what_was_beside_it(tmp_path: Path) -> None:
    search(tmp_path, generations=1)
    en.confirm(Noisy(), tmp_path, top=1, repeats=2, also=[ORIGIN])
    with Store.create(tmp_path) as store:
        number = store.next_number()
        key = Noisy().key(ORIGIN)
        store.add_evaluation(en.Evaluation(number, key, ORIGIN, en.Status.OK, (7.0,)))
    problem = Noisy()
    confirmed = en.confirm(problem, tmp_path, top=1, repeats=2, also=[ORIGIN])
    entry = next(entry for entry in confirmed if entry.evaluation.genes == ORIGIN)
    assert (entry.evaluation.number, entry.evaluation.values) == (number, (7.0,))
    assert problem.trials == []


def test_a_point_that_failed_in_the_search_gets_another_chance(tmp_path: Path) -> None:
    class Fails(Noisy):
        def evaluate(self, genes: Any, trial: en.Trial) -> Any:
            if trial.number == 3:
                raise RuntimeError("only in the search")
            return super().evaluate(genes, trial)

    failed = search(tmp_path, Fails()).evaluations[3]
    assert failed.status is en.Status.FAILED
    confirmed = en.confirm(Noisy(), tmp_path, top=1, repeats=2, also=[failed.genes])
    entry = next(entry for entry in confirmed if entry.evaluation.number == 3)
    assert entry.evaluation.status is en.Status.OK
    assert entry.evaluation.genes == failed.genes
    assert entry.evaluation.values == entry.repeats[0].values


@pytest.mark.parametrize(
    ("genes", "error", "message"),
    [
        ({"x0": 9.0, "x1": 0.0}, ValueError, "x0"),
        ({"x0": 0.0}, ValueError, "x1"),
        ({"x0": "a", "x1": 0.0}, (TypeError, ValueError), "x0"),
    ],
)
def test_a_point_of_another_space(genes: Any, error: Any, message: str, tmp_path: Path) -> None:
    search(tmp_path, generations=1)
    problem = Noisy()
    with pytest.raises(error, match=message):
        en.confirm(problem, tmp_path, also=[ORIGIN, genes])
    assert problem.trials == []
    assert en.open_run(tmp_path).confirmed == []


def test_repeats_that_do_not_count_are_made_again(tmp_path: Path) -> None:
    class Tagged(Noisy):
        tag = "old"

        def evaluate(self, genes: Any, trial: en.Trial) -> Any:
            trial.record(tag=self.tag)
            return super().evaluate(genes, trial)

    search(tmp_path, Tagged())
    problem = Tagged()
    first = en.confirm(problem, tmp_path, top=2, repeats=2)
    problem.tag = "new"
    seen: list[en.Evaluation] = []

    def counts(record: en.Evaluation) -> bool:
        seen.append(record)
        return record.metrics["tag"] == "new" or record.number == 1

    again = en.confirm(problem, tmp_path, top=2, repeats=2, counts=counts)
    assert len(problem.trials) == 4 + 2
    assert {(record.key, record.number) for record in seen} == {
        (entry.evaluation.key, repeat) for entry in first for repeat in (0, 1)
    }
    for entry in again:
        assert [record.metrics["tag"] for record in entry.repeats] == ["new", "old"]
    assert [entry.values for entry in again] == [entry.values for entry in first]
    en.confirm(problem, tmp_path, top=2, repeats=2, counts=counts)
    assert len(problem.trials) == 6


class Pairs:
    """An executor of two slots whose trials end in pairs, after a while, the later one first."""

    slots = 2
    device = "cpu"

    def __init__(self) -> None:
        self.begun: list[tuple[Task, Future[Outcome]]] = []
        self.most = 0

    def start(self, problem: Any) -> None:
        self.problem = problem

    def submit(self, task: Task) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        self.begun.append((task, future))
        self.most = max(self.most, sum(not future.done() for _, future in self.begun))
        if len(self.begun) % 2 == 0:
            threading.Timer(0.05, self.end, [self.begun[-2:]]).start()
        return future

    def end(self, pair: list[tuple[Task, Future[Outcome]]]) -> None:
        for task, future in reversed(pair):
            future.set_result(run_trial(self.problem, task))

    def shutdown(self) -> None:
        pass


def test_several_slots_at_once(tmp_path: Path) -> None:
    search(tmp_path / "a")
    search(tmp_path / "b")
    executor = Pairs()
    heard: list[Any] = []
    options: dict[str, Any] = {"top": 3, "repeats": 2, "also": [ORIGIN]}
    together = en.confirm(
        Noisy(),
        tmp_path / "a",
        executor=executor,
        on_repeat=lambda *pair: heard.append(pair),
        **options,
    )
    assert executor.most == 2
    assert len(heard) == 8
    for point, record in heard:
        assert record.key == point.key
    alone = en.confirm(Noisy(), tmp_path / "b", **options)
    assert together[0].repeats[0].seconds > 0
    assert [(entry.evaluation.key, entry.values) for entry in together] == [
        (entry.evaluation.key, entry.values) for entry in alone
    ]
    champions = [(tmp_path / name / "champion").read_text() for name in ("a", "b")]
    assert champions[0] == champions[1]


@pytest.mark.slow
def test_worker_processes(tmp_path: Path) -> None:
    def fitness(genes: Any, trial: en.Trial) -> float:
        return float(genes["x0"] + genes["x1"] + trial.seed % 10)

    def confirmed(run_dir: Path, executor: Any) -> list[Any]:
        problem = en.FunctionProblem(quadratic_space(), fitness)
        search(run_dir, problem)
        found = en.confirm(problem, run_dir, top=3, also=[ORIGIN], executor=executor)
        return [(entry.evaluation.key, entry.values) for entry in found]

    assert confirmed(tmp_path / "a", ProcessExecutor(2)) == confirmed(tmp_path / "b", None)


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
    with pytest.raises(FileNotFoundError, match="typo holds no run: there is no such directory"):
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


def test_only_what_may_be_the_champion_keeps_its_files_on_the_way(tmp_path: Path) -> None:
    """Else the repeats of twenty large models would lie on the disk until the end."""
    search(tmp_path)
    seen: list[set[str]] = []

    def look(point: en.Evaluation, repeat: en.Evaluation) -> None:
        seen.append({path.name for path in (tmp_path / "attachments").glob("confirmed*")})

    confirmed = en.confirm(Noisy(), tmp_path, top=4, repeats=2, on_repeat=look)
    assert len(seen) == 8
    assert max(map(len, seen)) == 2, "the best so far, and the one in hand"
    best = confirmed[0].evaluation.number
    (last,) = (tmp_path / "attachments").glob("confirmed*")
    assert last.name == f"confirmed{best}"
    text = (tmp_path / "champion").read_text()
    assert text.startswith(f"{best} ")
    assert not text.endswith("none")


def test_of_unequal_numbers_of_repeats_the_fewest_do_not_win_by_luck(tmp_path: Path) -> None:
    """A mean of two counts less one standard error; with equal numbers only the means count."""
    values = iter([0.7, 0.8, 0.7, 0.8, 0.7, 0.8, 0.6, 0.94])
    run = en.evolve(
        {"x": [1, 2]}, lambda genes, trial: float(genes["x"]), run_dir=tmp_path, seed=0,
        max_evaluations=2, problem_id="a", progress=False,
    )  # fmt: skip
    assert len(run.evaluations) == 2
    problem = en.FunctionProblem(
        en.SearchSpace({"x": [1, 2]}), lambda genes, trial: next(values), problem_id="a"
    )
    en.confirm(problem, tmp_path, top=1, repeats=6)  # x = 2: a mean of 0.75 of six
    found = en.confirm(problem, tmp_path, top=1, also=[{"x": 1}], repeats=2)  # 0.77 of two
    assert [(entry.evaluation.genes["x"], len(entry.values)) for entry in found] == [(2, 6), (1, 2)]
    assert found[1].mean > found[0].mean
    assert en.open_run(tmp_path).champion.genes == {"x": 2}


@pytest.mark.parametrize("minimised", [False, True])
def test_a_lucky_first_repeat_does_not_cost_the_champion_its_weights(
    minimised: bool, tmp_path: Path
) -> None:
    """The second point leads after one repeat of two; the first one is ahead in the end."""
    sign = -1.0 if minimised else 1.0
    objectives = en.Objective("score", "min" if minimised else "max")
    space = en.SearchSpace({"x": [1.0, 2.0]})
    told = {x: [sign * value for value in values]
            for x, values in {2.0: [0.7, 0.7], 1.0: [0.9, 0.1]}.items()}  # fmt: skip

    class Problem(en.FunctionProblem):
        def evaluate(self, genes: Any, trial: en.Trial) -> Any:
            trial.attach("weights", lambda path: path.write_text(str(genes["x"])))
            return super().evaluate(genes, trial)

    def problem(function: Any) -> en.Problem:
        return Problem(space, function, objectives=objectives, problem_id="lucky")

    en.evolve(
        problem(lambda genes, trial: sign * genes["x"]), max_evaluations=2, seed=0,
        run_dir=tmp_path, progress=False,
    )  # fmt: skip
    found = en.confirm(problem(lambda genes, trial: told[genes["x"]].pop(0)), tmp_path, repeats=2)
    assert [entry.evaluation.genes["x"] for entry in found] == [2.0, 1.0]
    champion = en.open_run(tmp_path).champion
    assert champion.genes == {"x": 2.0}
    kept = list((tmp_path / "attachments").glob("confirmed*/weights"))
    assert [path.read_text() for path in kept] == ["2.0"]
    assert champion.files["weights"] == kept[0]
