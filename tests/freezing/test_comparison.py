from __future__ import annotations

import itertools
import json
import statistics
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import evonas as en
from evonas.exceptions import EvonasError, RunMismatchError
from evonas.freezing import Examples, MaskTable, compare_masks, load_mask
from evonas.freezing.comparison import candidate_count
from evonas.testing import onemax, onemax_space


@pytest.fixture
def problem(make_problem: Any) -> Any:
    return make_problem(n_epochs=1)


def search(problem: Any, run_dir: Path, **options: Any) -> en.Result:
    """Five masks of the usual advice and three others."""
    defaults = {"population": 8, "generations": 1, "seed": 1}
    return en.evolve(problem, run_dir=run_dir, threads_per_trial=1, **defaults | options)


def opposite(problem: Any) -> tuple[Tensor, Tensor]:
    """A test set that says the opposite of the validation set: each score is 1 - the other."""
    return problem.val.gather(torch.arange(30)), 1 - problem.val.targets


def compare(problem: Any, run_dir: Path, test: Any = None, **options: Any) -> MaskTable:
    problem.trained.clear()
    problem.seeds.clear()
    return compare_masks(problem, run_dir, test, **{"repeats": 2} | options)


def test_the_best_and_the_usual_masks_on_fresh_seeds(problem: Any, tmp_path: Path) -> None:
    problem.rigged = {
        (1, 0, 0, 0): 0.7, (1, 1, 0, 0): 0.6, (0, 0, 0, 0): 0.9, (1, 1, 1, 1): 0.2,
        (1, 1, 1, 0): 0.1,
    }  # fmt: skip
    result = search(problem, tmp_path)
    tried = {problem.mask_of(entry.genes) for entry in result.evaluations}
    others = sorted(tried - set(problem.rigged))
    assert len(others) >= 2
    problem.rigged |= dict.fromkeys(others, 0.3) | {others[0]: 0.8}
    run_dir = tmp_path / "rigged"
    result = search(problem, run_dir)
    table = compare(problem, run_dir, top=3, n_random=2)
    rows = {row.label: row for row in table.rows}
    assert set(rows) == {
        "full fine-tuning, search 1", "search 2", "first 1 frozen, search 3", "head only",
        "random 1", "random 2",
    }  # fmt: skip
    assert rows["search 2"].mask == others[0]
    assert rows["search 2"].searched == 0.8
    assert not {rows["random 1"].mask, rows["random 2"].mask} & tried
    assert rows["random 1"].searched is None
    assert len(problem.trained) == 2 * len(rows) == 2 * candidate_count(problem, result, 3, 2)
    assert len(set(problem.seeds)) == len(problem.seeds)
    assert not set(problem.seeds) & {entry.seed for entry in result.evaluations}
    # The best of the first-k masks is compared though it is none of the search's best; and what
    # was compared before.
    second = next(e for e in result.evaluations if problem.mask_of(e.genes) == others[0])
    fewer = compare(problem, run_dir, top=1, n_random=0)
    assert {row.label for row in fewer.rows} == {
        "full fine-tuning, search 1", "head only", "first 1 frozen",
        f"evaluation {second.number}", "random, before",
    }  # fmt: skip
    assert table.blocks == ("0", "2", "4", "7")
    assert (table.metric, table.repeats) == ("accuracy", 2)
    head = rows["head only"]
    assert head.trainable_share == pytest.approx(14 / 252)
    assert len(head.val) == len(head.seconds) == 2
    assert head.test == ()
    assert min(head.seconds) > 0


def test_the_champion_is_chosen_by_validation_not_by_test(problem: Any, tmp_path: Path) -> None:
    search(problem, tmp_path)
    table = compare(problem, tmp_path, opposite(problem), repeats=3)
    means = [statistics.fmean(row.val) for row in table.rows]
    assert means == sorted(means, reverse=True)
    assert means[0] > means[-1]
    for row in table.rows:
        assert row.test == pytest.approx([1 - score for score in row.val])
    assert table.champion is table.rows[0]
    champion = en.open_run(tmp_path).champion
    assert problem.mask_of(champion.genes) == table.champion.mask
    saved = json.loads((tmp_path / "mask.json").read_text())
    assert tuple(saved["mask"].values()) == table.champion.mask
    for name in ("smallest", "fastest"):
        row = getattr(table, name)
        file = tmp_path / f"mask.{name}.json"
        assert tuple(load_mask(file).values()) == row.mask == problem.mask_of(row.genes)
        said = json.loads(file.read_text())
        assert said["label"] == row.label
        assert said["on_fresh_seeds"]["validation_mean"] == pytest.approx(row.mean)


def test_the_rows_of_the_verdicts_are_kept_as_the_champion_is(
    problem: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MaskTable, "smallest", property(lambda table: table.rows[-1]))
    search(problem, tmp_path)
    table = compare(problem, tmp_path, repeats=2)
    last = table.rows[-1]
    assert last.mask != table.champion.mask
    assert problem.mask_of(last.genes) == last.mask
    assert tuple(load_mask(tmp_path / "mask.smallest.json").values()) == last.mask
    assert tuple(load_mask(tmp_path).values()) == table.champion.mask


def test_each_training_sees_the_test_examples_once(make_problem: Any, tmp_path: Path) -> None:
    problem = make_problem(n_epochs=3, reuse_prefix=False)
    search(problem, tmp_path)
    seen = []

    def watch(inputs: Tensor) -> Tensor:
        seen.extend(inputs[:, 0].tolist())
        return inputs

    inputs = torch.randn(15, 4, generator=torch.Generator().manual_seed(9))
    compare(problem, tmp_path, Examples(inputs, torch.arange(15) % 2, transform=watch), top=1)
    n = len(problem.trained)
    assert n >= 10
    assert sorted(seen) == sorted(n * inputs[:, 0].tolist())
    for entry in en.open_run(tmp_path).evaluations:
        assert not [name for name in entry.metrics if name == "test_accuracy"]
    assert problem.with_test(opposite(problem)) is not problem
    assert problem.fingerprint() == problem.with_test(opposite(problem)).fingerprint()


def test_no_repeat_is_made_twice(problem: Any, tmp_path: Path) -> None:
    search(problem, tmp_path)
    heard: list[Any] = []
    test = opposite(problem)
    first = compare(problem, tmp_path, test, on_repeat=lambda *pair: heard.append(pair))
    assert len(heard) == len(problem.trained) == 2 * len(first.rows)
    assert [record.number for _, record in heard[:2]] == [0, 1]
    again = compare(problem, tmp_path, test)
    assert problem.trained == []
    assert again == first
    assert compare(problem, tmp_path, test, repeats=1) == first
    assert problem.trained == []
    compare(problem, tmp_path)  # without a test set there is nothing new to score
    assert problem.trained == []
    compare(problem, tmp_path, test, repeats=3)
    assert sorted(problem.trained) == sorted(row.mask for row in first.rows)


def test_another_test_set_makes_the_repeats_again(problem: Any, tmp_path: Path) -> None:
    search(problem, tmp_path)
    plain = compare(problem, tmp_path)
    n = len(problem.trained)
    inputs, targets = opposite(problem)
    first = compare(problem, tmp_path, (inputs, targets))
    assert len(problem.trained) == n
    second = compare(problem, tmp_path, (inputs.flip(0), 1 - targets.flip(0)))
    assert len(problem.trained) == n
    for rows in zip(plain.rows, first.rows, second.rows, strict=True):
        assert rows[0].val == rows[1].val == rows[2].val  # the seeds are the same
        assert rows[0].test == ()
        assert rows[2].test == rows[2].val
        assert rows[1].test != rows[2].test


def test_the_examples_of_the_search_are_no_test(problem: Any, tmp_path: Path) -> None:
    search(problem, tmp_path, population=2)
    for name, part in (("validation", problem.val), ("training", problem.train)):
        with pytest.raises(ValueError, match=f"test must be examples .* got the {name} examples"):
            compare(problem, tmp_path, part)
    assert problem.trained == []


def test_masks_that_failed_in_the_search_are_told(problem: Any, tmp_path: Path) -> None:
    problem.broken = {(1, 1, 0, 0), (1, 0, 0, 0)}
    search(problem, tmp_path)
    problem.broken.clear()
    table = compare(problem, tmp_path, top=1, n_random=1)
    assert table.note.startswith("2 masks of the search failed; evaluation ")
    assert table.note.endswith(": RuntimeError: this mask is broken")
    assert str(table).splitlines()[-1] == table.note
    assert table.to_json()["note"] == table.note


def test_the_comparison_is_in_the_mask_file(problem: Any, tmp_path: Path) -> None:
    result = search(problem, tmp_path)
    table = compare(problem, tmp_path, opposite(problem), repeats=3)
    best, path = table.champion, tmp_path / "mask.json"
    saved = json.loads(path.read_text())
    assert saved["label"] == best.label
    assert saved["on_fresh_seeds"] == {
        "metric": "accuracy", "seeds": 3,
        "validation_mean": statistics.fmean(best.val), "validation_std": statistics.stdev(best.val),
        "test_mean": statistics.fmean(best.test), "test_std": statistics.stdev(best.test),
    }  # fmt: skip
    expected = {"metric": "accuracy", "value": best.searched, "seeds": 1}
    assert saved["score_in_the_search"] == (None if best.searched is None else expected)
    before = path.read_text()
    search(problem, tmp_path)  # has nothing left to do
    champion = en.open_run(tmp_path).champion
    problem.run_files(tmp_path).on_champion(champion, None)
    assert path.read_text() == before
    other = next(e for e in result.evaluations if e.key != champion.key)
    problem.run_files(tmp_path).on_champion(other, None)
    assert json.loads(path.read_text())["on_fresh_seeds"] is None


def test_interrupted_and_resumed(problem: Any, tmp_path: Path) -> None:
    search(problem, tmp_path / "a")
    search(problem, tmp_path / "b")
    test = opposite(problem)
    whole = compare(problem, tmp_path / "b", test)
    order = list(problem.trained)
    problem.stop_after = 5
    with pytest.raises(en.SearchInterrupted, match="while confirming: run the same command again"):
        compare(problem, tmp_path / "a", test)
    assert problem.trained == order[:5]
    assert en.open_run(tmp_path / "a").record.confirmed_champion is None
    problem.stop_after = None
    table = compare(problem, tmp_path / "a", test)
    assert problem.trained == order[5:]
    scores = [[(row.label, row.mask, row.val, row.test) for row in t.rows] for t in (whole, table)]
    assert scores[0] == scores[1]


def test_a_mask_that_the_search_never_tried_may_win(problem: Any, tmp_path: Path) -> None:
    search(problem, tmp_path / "a")
    random = compare(problem, tmp_path / "a").row("random 2")
    assert random is not None
    problem.rigged = {random.mask: 0.999}
    run_dir = tmp_path / "b"
    before = search(problem, run_dir)
    assert before.champion.values[0] < 0.999
    table = compare(problem, run_dir)
    assert table.champion.label == "random 2"
    assert table.champion.mask == random.mask
    assert not any("random masks" in line for line in table.verdicts())

    def crowned() -> None:
        champion = en.open_run(run_dir).champion
        assert problem.mask_of(champion.genes) == random.mask
        assert champion.number < 0
        assert champion.values == (0.999,)
        saved = json.loads((run_dir / "mask.json").read_text())
        assert tuple(saved["mask"].values()) == random.mask
        assert saved["evaluation"] == champion.number
        assert saved["score_in_the_search"] is None
        assert saved["trainable_share"] == random.trainable_share

    crowned()
    (run_dir / "mask.json").unlink()
    assert search(problem, run_dir).champion.number < 0  # the search has nothing left to do
    crowned()


def test_failed_trainings_are_counted_and_not_repeated(problem: Any, tmp_path: Path) -> None:
    search(problem, tmp_path)
    problem.broken = {(1, 1, 1, 1)}
    problem.rigged = {(0, 0, 0, 0): float("nan")}
    test = opposite(problem)
    table = compare(problem, tmp_path, test)
    for label in ("head only", "full fine-tuning"):
        row = table.row(label)
        assert row is not None
        assert (row.val, row.test, row.n_failed) == ((), (), 2)
        assert row in table.rows[-2:]
        assert f"against {label}: no score to compare with" in list(table.verdicts())
    assert str(table).count("2 failed") == 2
    assert table.champion.n_failed == 0
    problem.broken.clear()
    problem.rigged.clear()
    compare(problem, tmp_path, test)
    assert problem.trained == []


def test_nothing_to_compare(problem: Any, tmp_path: Path) -> None:
    search(problem, tmp_path / "a")
    problem.broken = set(itertools.product((0, 1), repeat=4))
    with pytest.raises(EvonasError, match=r"(?s)no training of the comparison has a score.*broken"):
        compare(problem, tmp_path / "a")
    with pytest.raises(en.TooManyFailures):
        search(problem, tmp_path / "b", max_consecutive_failures=2)
    with pytest.raises(EvonasError, match="no mask of .* has a fitness: there is nothing to comp"):
        compare(problem, tmp_path / "b")


def test_a_space_with_fewer_masks_than_asked_for(make_problem: Any, tmp_path: Path) -> None:
    problem = make_problem(n_epochs=1, blocks={"body": ["0", "2", "4", "7"], "top": "9"})
    search(problem, tmp_path)
    table = compare(problem, tmp_path, top=5, n_random=5)
    assert sorted(row.mask for row in table.rows) == [(0, 0), (0, 1), (1, 0)]
    assert {label for row in table.rows for label in row.label.split(", ")} >= {
        "full fine-tuning", "head only",
    }  # fmt: skip


def test_random_masks_may_be_tried_ones_where_no_others_are_left(
    make_problem: Any, tmp_path: Path
) -> None:
    problem = make_problem(n_epochs=1, blocks=["0", "2", "4"])
    problem.rigged = {(0, 0, 0): 0.9, (1, 1, 1): 0.8, (1, 0, 0): 0.7}
    result = search(problem, tmp_path, population=12, generations=9)
    assert len(result.evaluations) == 8
    table = compare(problem, tmp_path, top=1, n_random=9)
    assert len(table.rows) == 8
    assert [row.searched is None for row in table.rows] == [False] * 8


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"top": 0}, ValueError, "top must be at least 1, got 0"),
        ({"n_random": -1}, ValueError, "n_random must be at least 0, got -1"),
        ({"repeats": 0}, ValueError, "repeats must be at least 1, got 0"),
        ({"test": [1, 2]}, TypeError, "test must be Examples or a tuple"),
        ({"test": (torch.zeros(2, 4), torch.tensor([0, 2]))}, ValueError,
         "labels of test must be from 0 to 1, since the model has 2 outputs; got 2"),
    ],
)  # fmt: skip
def test_wrong_arguments(
    problem: Any, tmp_path: Path, options: Any, error: Any, message: str
) -> None:
    search(problem, tmp_path, population=2)
    with pytest.raises(error, match=message):
        compare(problem, tmp_path, **options)
    assert problem.trained == []


def test_another_run(problem: Any, make_problem: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no run"):
        compare(problem, tmp_path)
    en.evolve(onemax_space(), onemax, population=4, generations=1, seed=0, run_dir=tmp_path / "a")
    with pytest.raises(RunMismatchError, match="another search space"):
        compare(problem, tmp_path / "a")
    search(problem, tmp_path / "b", population=2)
    with pytest.raises(RunMismatchError, match="another problem .n_epochs: 1 in the run, 2 here"):
        compare(make_problem(), tmp_path / "b")


def test_to_json(problem: Any, tmp_path: Path) -> None:
    search(problem, tmp_path, population=4)
    table = compare(problem, tmp_path, opposite(problem), top=1, n_random=1)
    data = table.to_json()
    assert json.loads(json.dumps(data)) == data
    assert data["blocks"] == ["0", "2", "4", "7"]
    assert (data["metric"], data["repeats"]) == ("accuracy", 2)
    best = table.champion
    assert data["rows"][0] == {
        "label": best.label, "mask": list(best.mask), "searched": best.searched,
        "val": list(best.val), "test": list(best.test), "trainable_share": best.trainable_share,
        "seconds": list(best.seconds), "trainable_params": best.trainable_params,
        "memory_bytes": list(best.memory_bytes), "failed": 0, "lr": None,
    }  # fmt: skip
    assert len(data["rows"]) == len(table.rows)
    full = table.row("full fine-tuning")
    assert full is not None
    assert full.trainable_params == sum(p.numel() for p in problem.build({}).parameters())
    assert all(each.memory_bytes[0] > 1e6 for each in table.rows)


def test_another_first_objective_is_refused(make_problem: Any, tmp_path: Path) -> None:
    objectives = [en.Objective("trainable_share", "min"), en.Objective("accuracy")]
    with pytest.raises(ValueError, match="compared by accuracy, but the first .* is trainable"):
        compare_masks(make_problem(objectives=objectives), tmp_path)


def test_of_equal_masks_the_cheapest_is_the_champion(make_problem: Any, tmp_path: Path) -> None:
    """Of the search, of what follows it, and of the comparison."""
    problem = make_problem(n_epochs=1, metric=lambda outputs, targets: 0.5)
    result = en.evolve(problem, max_evaluations=8, seed=0, run_dir=tmp_path, threads_per_trial=1)
    cheapest = min(entry.metrics["trainable_share"] for entry in result.evaluations)
    assert result.champion.metrics["trainable_share"] == cheapest
    assert en.open_run(tmp_path).champion == result.champion
    again = en.evolve(problem, max_evaluations=8, run_dir=tmp_path, threads_per_trial=1)
    assert again.champion == result.champion
    table = compare_masks(problem, tmp_path, repeats=2, n_random=1)
    assert table.champion.trainable_share == min(row.trainable_share for row in table.rows)
    assert "all masks scored the same: nothing was learned" in str(table)
    assert en.open_run(tmp_path).champion.genes == problem.genes_of(table.champion.mask)


def test_the_direction_of_the_table_is_that_of_the_problem(
    make_problem: Any, tmp_path: Path
) -> None:
    problem = make_problem(
        n_epochs=1, metric=lambda outputs, targets: float(outputs.var()),
        objectives=en.Objective("metric", "min"),
    )  # fmt: skip
    search(problem, tmp_path)
    table = compare_masks(problem, tmp_path, repeats=2, n_random=0)
    means = [each.mean for each in table.rows]
    assert means == sorted(means)
    assert table.direction == "min"
    assert table.smallest.mean - means[0] <= table.noise


def test_what_was_confirmed_before_is_in_the_table(problem: Any, tmp_path: Path) -> None:
    """Else the table would call another row the best than the run does."""
    problem.rigged = dict.fromkeys(product((0, 1), repeat=4), 0.3) | {
        (0, 0, 0, 0): 0.9, (1, 0, 0, 0): 0.8, (0, 1, 0, 0): 0.7,
    }  # fmt: skip
    masks = ((0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0))
    result = search(problem, tmp_path, initial=map(problem.genes_of, masks))
    third = next(e for e in result.evaluations if problem.mask_of(e.genes) == (0, 1, 0, 0))
    problem.rigged |= {(0, 0, 0, 0): 0.2, (1, 0, 0, 0): 0.2}  # they had been lucky
    en.confirm(problem, tmp_path, top=3, repeats=2)
    table = compare(problem, tmp_path, top=1, n_random=0)
    assert table.champion.label == f"evaluation {third.number}"
    assert (table.champion.mask, table.champion.val) == ((0, 1, 0, 0), (0.7, 0.7))
    assert en.open_run(tmp_path).champion.key == third.key
    assert json.loads((tmp_path / "mask.json").read_text())["evaluation"] == third.number
    longer = en.confirm(problem, tmp_path, top=1, repeats=4)
    assert len(longer[0].repeats) == 2
    assert "over 2 to 4 fresh seeds each" in str(compare(problem, tmp_path, top=1, n_random=0))
