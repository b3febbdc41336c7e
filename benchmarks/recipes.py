"""Fine-tuning recipes: a search against what people try by hand, each rival with its best rate.

    EVONAS_DATA=... python -m benchmarks.recipes digits minilm-256 efficientnet-400 [--seeds 5]

Both get the same number of trainings. By hand: every rival at every learning rate, once. The
search: as many points of the same space, of which the first are rivals at the middle rate. On both
sides the validation score chooses; then the chosen recipe, and each rival at its best rate, is
trained on fresh seeds, the same number for all, and scored on test examples that nothing has seen.
Of the rivals, and of the three best of the search, the one with the best mean on validation counts.

CIFAR-10 is read from `cifar10/train` and `cifar10/test` (folders of classes), SST-2 from `sst2/`,
under the folder that EVONAS_DATA names. What is trained is kept under `--run-dir`: a second start
goes on.
"""

from __future__ import annotations

import argparse
import math
import statistics
from dataclasses import replace
from pathlib import Path

import evonas as en
from benchmarks.hardware import describe
from benchmarks.recipe_stories import STORIES
from evonas.execution.choice import choose_executor
from evonas.freezing import MaskRow, MaskTable, RecipeProblem, compare_masks
from evonas.freezing.comparison import row_of
from evonas.run.confirm import confirm

SEED = 0
N_TOP = 3  # of the search, on fresh seeds
SEARCH = "found"  # label of the search's row


def main() -> None:
    """Runs the stories of the command line; prints a table of each, and one of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stories", nargs="*", metavar="STORY", help=", ".join(STORIES))
    parser.add_argument("--seeds", type=int, default=5, help="fresh ones of each row (default 5)")
    parser.add_argument("--workers", type=int, default=2, help="trainings at once (default 2)")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/recipes"))
    options = parser.parse_args()
    names = options.stories or list(STORIES)
    if unknown := [name for name in names if name not in STORIES]:
        parser.error(f"no such story: {', '.join(unknown)}; there are {', '.join(STORIES)}")
    print(describe(), flush=True)
    lines = []
    for name in names:
        folder = options.run_dir / name
        folder.mkdir(parents=True, exist_ok=True)
        table, n_trainings = story(name, folder, options.seeds, options.workers)
        print(f"\n{name}: {n_trainings} trainings on each side\n{table}", flush=True)
        lines.append(summary(name, table))
    print("\nfound against the best rival, test points; what is as good, and what it costs")
    print("\n".join(lines))


def story(name: str, folder: Path, n_seeds: int, workers: int) -> tuple[MaskTable, int]:
    """Returns the table of a story, and how many trainings each side had."""
    told = STORIES[name](folder)
    problem = RecipeProblem(told.factory, told.train, told.val, precision="float32",
                            **told.settings)  # fmt: skip
    by_hand = [point for variants in problem.rivals().values() for point in variants]
    n = len(by_hand)
    en.evolve(
        problem, strategy="random", initial=by_hand, max_evaluations=n, run_dir=folder / "by-hand",
        seed=SEED, workers=workers, threads_per_trial=1, progress=False,
    )  # fmt: skip
    n_first = math.ceil(len(problem.rivals()) * 4 / 3)
    en.evolve(
        problem, strategy=en.SurrogateEvolution(n_initial=n_first), max_evaluations=n,
        run_dir=folder / "search", seed=SEED, workers=workers, threads_per_trial=1, progress=False,
    )  # fmt: skip
    table = compare_masks(
        problem, folder / "by-hand", told.test, top=1, n_random=0, repeats=n_seeds,
        executor=choose_executor(workers=workers, uses_torch=True),
    )  # fmt: skip
    tested = problem.with_test(told.test)
    found = confirm(
        tested, folder / "search", top=N_TOP, repeats=n_seeds, counts=tested.has_tested,
        executor=choose_executor(workers=workers, uses_torch=True),
    )[0]  # fmt: skip
    rows = [*map(_by_hand, table.rows), row_of(problem, found, SEARCH)]
    rows.sort(key=lambda row: -row.mean)
    return replace(table, rows=tuple(rows), note=""), n


def _by_hand(row: MaskRow) -> MaskRow:
    """Returns a row of the hand-made run, whose best is no search's."""
    labels = [label for label in row.label.split(", ") if not label.startswith("search ")]
    return replace(row, label=", ".join(labels))


def summary(name: str, table: MaskTable) -> str:
    """Returns the line of a story: gain in points with its standard error, and the cheap one."""
    found = table.row(SEARCH)
    rivals = [row for row in table.rows if row is not found]
    if found is None or not rivals:
        return f"{name}: no row to compare"
    best = max(rivals, key=lambda row: row.mean)
    gain = statistics.fmean(found.test) - statistics.fmean(best.test)
    spread = [statistics.variance(row.test) / len(row.test) for row in (found, best)]
    fast = table.fastest
    cost = statistics.fmean(fast.seconds) / statistics.fmean(best.seconds)
    error = math.sqrt(sum(spread))
    return (
        f"  {name:<18} {100 * gain:+6.2f} ± {100 * error:.2f} against {best.label};"
        f" within noise: {fast.label} at {cost:.2f} of its seconds"
    )


if __name__ == "__main__":
    main()
