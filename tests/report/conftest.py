from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

import evonas as en
from evonas.records import EpochMetrics, Evaluation, Status
from evonas.run.store import PlannedProposal, RunRecord, Store
from evonas.strategies import RandomSearch

SPACE = en.SearchSpace(
    {
        "lr": en.Float(1e-4, 1e-1, log=True),
        "width": en.Categorical([16, 32, 64]),
        "deep": en.Boolean(),
        "layers": en.Integer(1, 40),
        "dropout": en.Float(0.0, 0.5),
    },
    conditions={"dropout": {"deep": [True]}},
)
TRACEBACK = (
    'Traceback (most recent call last):\n  File "model.py", line 3, in build\n    raise X\n'
    "RuntimeError: layer too wide\nsecond line\n"
)


def score(genes: en.Genes) -> float:
    return -abs(math.log10(genes["lr"]) + 2) + genes["width"] / 64 + genes.get("dropout", 0.0)


def train(genes: en.Genes, trial: en.Trial) -> float:
    if genes["layers"] > 28:
        raise RuntimeError(f"{genes['layers']} layers do not fit")
    for epoch in range(4):
        trial.report(fitness=score(genes) * (epoch + 1) / 4, train_loss=1.0 / (epoch + 1))
    return score(genes)


def masked(genes: en.Genes, trial: en.Trial) -> float:
    return sum(place * value for place, value in enumerate(genes.values())) + trial.seed % 7 / 70


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> en.Result:
    """Real: 5 generations of a space with conditions; some evaluations fail."""
    return en.evolve(
        SPACE, train, population=12, generations=5, elite=2, seed=5, progress=False,
        run_dir=tmp_path_factory.mktemp("small"), max_consecutive_failures=100,
    )  # fmt: skip


class Masked(en.FunctionProblem):
    """Blocks that are frozen or trained; two masks have a name."""

    def strip(self) -> dict[str, Any]:
        names = list(self.space)
        labels = {"all trained": [False] * 6, "first 2 frozen": [True] * 2 + [False] * 4}
        return {"blocks": names, "states": [[True, "frozen"], [False, "trained"]], "labels": labels}


@pytest.fixture(scope="session")
def masks(tmp_path_factory: pytest.TempPathFactory) -> en.Result:
    """Real, like a freezing search: a strip of blocks, the best confirmed on fresh seeds."""
    run_dir = tmp_path_factory.mktemp("masks")
    problem = Masked(en.SearchSpace({f"block{place}": en.Boolean() for place in range(6)}), masked)
    en.evolve(
        problem, population=8, generations=4, elite=1, seed=0, run_dir=run_dir, progress=False
    )
    en.confirm(problem, run_dir, top=3, repeats=3, also=[{f"block{p}": False for p in range(6)}])
    return en.open_run(run_dir)


@pytest.fixture(scope="session")
def two_objectives(tmp_path_factory: pytest.TempPathFactory) -> en.Result:
    problem = en.FunctionProblem(
        SPACE,
        lambda genes, trial: (score(genes), genes["layers"] * genes["width"]),
        objectives=[en.Objective("accuracy", "max"), en.Objective("size", "min")],
    )
    return en.evolve(
        problem, strategy=RandomSearch(), max_evaluations=40, seed=1, progress=False,
        run_dir=tmp_path_factory.mktemp("two"),
    )  # fmt: skip


Write = Callable[..., en.Result]


@pytest.fixture(scope="session")
def write_run(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Returns a function that writes a run of any size straight into a database."""

    def write(
        n: int,
        *,
        space: en.SearchSpace = SPACE,
        epochs: int = 3,
        per_generation: int = 50,
        failed: float = 0.05,
        edit: Callable[[Evaluation], Evaluation] = lambda entry: entry,
        **settings: Any,
    ) -> en.Result:
        run_dir = tmp_path_factory.mktemp(f"written{n}")
        rng = random.Random(n)
        entries = [edit(entry) for entry in _entries(n, space, epochs, failed, rng)]
        plans, rows = [], []
        for entry in entries:
            generation = entry.number // per_generation
            low = max(0, (generation - 1) * per_generation)
            ok = [x for x in range(low, generation * per_generation) if entries[x].values]
            parents = tuple(rng.sample(ok, 2)) if generation and len(ok) > 1 else ()
            plans.append(PlannedProposal(entry.number, entry.number, False, generation, parents))
        for generation in range(n // per_generation):
            part = entries[generation * per_generation : (generation + 1) * per_generation]
            values = [entry.values[0] for entry in part if entry.values] or [0.0]
            mean = sum(values) / len(values)
            rows.append(
                {"gen": generation, "nevals": len(part), "reused": 0, "failed": 0,
                 "best": max(values), "mean": mean, "std": 0.1, "min": min(values),
                 "max": max(values)}
            )  # fmt: skip
        with Store.create(run_dir) as store:
            store.write_record(
                replace(
                    RunRecord(
                        space=space.to_json(), fingerprint={},
                        objectives=(en.Objective("accuracy"),),
                        strategy={"name": "Generational", "hall_of_fame": 10}, initial=(),
                        deterministic=False, pruner=None, problem_settings={}, seed=0, threads=1,
                    ),
                    **settings,
                )
            )  # fmt: skip
            store.begin_session({"command": ["python", "search.py"], "python": "3.11"})
            store.checkpoint({}, proposals=plans, invalid=entries, rows=rows)
            store.close_session(12.0, "finished", "all is done")
        return en.open_run(run_dir)

    return write


def _entries(
    n: int, space: en.SearchSpace, epochs: int, failed: float, rng: random.Random
) -> Iterator[Evaluation]:
    for number in range(n):
        genes = space.sample(rng)
        value = rng.random() * (1 - math.exp(-(number + 1) / n))
        bad = rng.random() < failed
        yield Evaluation(
            number=number, key=f"{number:064x}", genes=genes,
            status=Status.FAILED if bad else Status.OK,
            values=() if bad else (value,), metrics={"params": number},
            epochs=tuple(
                EpochMetrics(epoch, 1.0 * epoch, {"accuracy": value * (epoch + 1) / epochs})
                for epoch in range(epochs)
            ),
            seconds=1.0, seed=number, started_at=1.0 + number,
            error=TRACEBACK.replace("wide", f"wide: {number}") if bad else None,
        )  # fmt: skip


@pytest.fixture(scope="session")
def large(write_run: Write) -> en.Result:
    """10,000 evaluations of 40 genes: what a report has to be thinned for."""
    genes: dict[str, Any] = {f"float{place}": en.Float(1e-5, 1.0, log=True) for place in range(10)}
    genes |= {f"choice{place}": en.Categorical(list(range(4))) for place in range(20)}
    genes |= {f"flag{place}": en.Boolean() for place in range(10)}
    return write_run(10_000, space=en.SearchSpace(genes), epochs=5)
