"""Words where the user is: errors that name the nearest word, objects that print well, `help`."""

from __future__ import annotations

import pydoc
from typing import Any

import pytest

import evonas as en
from evonas.arguments import nearest

SPACE = {"width": [8, 16], "lr": en.Float(1e-3, 1e-1, log=True)}


def fitness(genes: dict[str, Any], trial: en.Trial) -> float:
    return 0.25999999046325684 + 0 * genes["width"]


@pytest.fixture(scope="module")
def result() -> en.Result:
    return en.evolve(SPACE, fitness, max_evaluations=3, seed=0, progress=False)


@pytest.mark.parametrize(
    ("word", "meant"),
    [("surogate", "surrogate"), ("NSGA2", "nsga2"), ("xyz", None), (None, None), (3, None)],
)
def test_the_nearest_word(word: object, meant: str | None) -> None:
    found = nearest(word, ["surrogate", "nsga2", "random"])
    assert found == (f" (did you mean {meant!r}?)" if meant else "")


def test_a_typo_in_the_name_of_a_strategy() -> None:
    with pytest.raises(ValueError, match=r"got 'surogate' \(did you mean 'surrogate'\?\)"):
        en.evolve(SPACE, fitness, strategy="surogate")
    with pytest.raises(ValueError, match=r"got 'agin' \(did you mean 'aging'\?\)"):
        en.AskTell(SPACE, "agin")


def test_a_typo_in_an_option() -> None:
    with pytest.raises(TypeError, match="no argument 'max_evaluatons': write max_evaluations="):
        en.evolve(SPACE, fitness, max_evaluatons=3)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"got 'unifrom' \(did you mean 'uniform'\?\)"):
        en.Generational(crossover="unifrom")  # type: ignore[arg-type]


def test_a_typo_in_the_name_of_a_gene() -> None:
    meant = r"'widht'.* \(did you mean 'width'\?\); "
    with pytest.raises(ValueError, match=meant):
        en.evolve(SPACE, fitness, initial=[{"widht": 8, "lr": 0.01}])
    with pytest.raises(ValueError, match=meant):
        en.SearchSpace(SPACE, conditions={"widht": {"lr": [0.1]}})


def test_a_typo_in_a_public_name() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'SearchSpce' \(did you mean 'Search"):
        en.SearchSpce  # noqa: B018
    with pytest.raises(AttributeError, match="it is called NSGA2"):
        en.NSGAII  # noqa: B018


def test_what_objects_print(result: en.Result) -> None:
    problem = en.FunctionProblem(en.SearchSpace(SPACE), fitness)
    pareto = en.NSGA2(8, at_most={"params": 10})
    shown = {
        str(result): "<Result in memory: champion 0.26, 3 evaluated, 0 reused, 0 failed>",
        str(result.counts): "<Counts: 3 evaluated, 3 ok, 0 reused>",
        str(result.logbook): "no generation has ended yet",
        str(problem): "<FunctionProblem: 2 genes, fitness (max)>",
        str(en.Generational(10, elite=0)): "Generational(population=10, elite=0)",
        str(pareto): "NSGA2(population=8, at_most={'params': 10})",
        str(en.RandomSearch()): "RandomSearch()",
        str(en.MedianPruner(min_curves=9)): "MedianPruner(min_curves=9)",
        str(en.AskTell(SPACE)): "<AskTell: SurrogateEvolution, 0 told, 0 open>",
    }
    assert list(shown) == list(shown.values())
    assert str(result.champion).startswith("<Evaluation 0: fitness 0.26, genes {'width': ")
    assert str(result.record).startswith("<RunRecord: SurrogateEvolution, 2 genes, fitness (max)")


def test_a_logbook_with_rows_prints_them() -> None:
    run = en.evolve(SPACE, fitness, population=2, generations=1, elite=1, seed=0, progress=False)
    assert "gen" in str(run.logbook)


def test_help_teaches() -> None:
    page = pydoc.render_doc(en, renderer=pydoc.plaintext)
    beginning = page[: page.index("PACKAGE CONTENTS")]
    for word in ("evolve(", "run_dir=", "open_run", "evonas report", "ModelProblem", "workers="):
        assert word in beginning
