"""Those who come from other libraries are told the word, or understood."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.run.settings import Settings, with_defaults
from evonas.strategies.auto import BY_NAME
from evonas.testing import onemax, onemax_space


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"population_size": 5}, "evolve() has no argument 'population_size': write population="),
        ({"n_trials": 5}, "evolve() has no argument 'n_trials': write max_evaluations="),
        ({"direction": "minimize"}, 'write objectives=en.Objective("loss", "min")'),
        ({"n_jobs": 2}, "write workers="),
        ({"max_evaluation": 2}, "write max_evaluations="),
        ({"zzz": 2}, "evolve() has no argument 'zzz'; it has callbacks, deterministic, "),
    ],
)
def test_an_unknown_argument_is_refused_with_the_one_that_is_meant(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError) as refused:
        en.evolve(onemax_space(), onemax, **given)
    assert message in str(refused.value)


def test_the_signature_is_short_and_every_argument_is_known() -> None:
    assert len(inspect.signature(en.evolve).parameters) <= 16
    assert set(with_defaults({})) == set(Settings.__annotations__)


def test_an_unknown_name_too() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Choice': it is called Categorical"):
        en.Choice([1, 2])
    with pytest.raises(AttributeError, match="module 'evonas' has no attribute 'zzz'$"):
        _ = en.zzz
    assert not hasattr(en, "__wrapped__")


@pytest.mark.parametrize(
    ("room", "name", "meant"),
    [
        ("freezing", "FreezeProblem", "FreezingProblem"),
        ("training", "load_imagefolder", "load_image_folder"),
        ("nas", "resnet_spac", "resnet_space"),
        ("strategies", "NSGA", "NSGA2"),
    ],
)
def test_names_of_the_rooms_have_hints(room: str, name: str, meant: str) -> None:
    module = importlib.import_module(f"evonas.{room}")
    with pytest.raises(AttributeError, match=rf"no attribute '{name}' \(did you mean '{meant}'"):
        getattr(module, name)


def test_names_of_results_have_hints() -> None:
    def fitness(genes: dict[str, Any], trial: en.Trial) -> dict[str, float]:
        return {"fitness": genes["a"], "size": 3.0}

    result: Any = en.evolve({"a": [1, 2]}, fitness, max_evaluations=2, progress=False)
    for owner, name, meant in (
        (result, "best", ": it is called champion"),
        (result, "champon", " (did you mean 'champion'?)"),
        (result.champion, "model", ": it is called load_model()"),
        (result.champion, "params", ": it is called genes"),
        (result.champion, "size", ": it is called metrics['size']"),
        (result.champion, "zzz", ""),
    ):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'{re.escape(meant)}$"):
            getattr(owner, name)
    again = pickle.loads(pickle.dumps(copy.copy(result.champion)))
    assert again == result.champion


def test_minutes_are_seconds_here() -> None:
    with pytest.raises(TypeError, match=r"no argument 'minutes': write max_seconds=60 \* minutes"):
        en.evolve(onemax_space(), onemax, minutes=2)  # type: ignore[call-arg]


def test_what_is_unambiguous_is_accepted() -> None:
    assert en.Objective("loss", "minimize") == en.Objective("loss", "min")
    assert en.Objective("f", "maximise").direction == "max"
    assert en.Float(1e-4, 1e-1, "log") == en.Float(1e-4, 1e-1, log=True)
    result = en.evolve(onemax_space(), onemax, strategy="random", max_evaluations=3, seed=0)
    assert result.record.strategy_name == "RandomSearch"
    assert {type(make()).__name__ for make in BY_NAME.values()} <= set(en.__all__)
    with pytest.raises(ValueError, match="or 'auto', 'genetic', .*, got 'annealing'"):
        en.evolve(onemax_space(), onemax, strategy="annealing")


def test_the_missing_guard_is_said_below_a_short_traceback(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import evonas as en\ndef f(g, t): return g['x']\n"
        "en.evolve({'x': [1, 2]}, f, workers=2, max_evaluations=2, progress=False)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    lines = done.stderr.splitlines()
    assert 'put the call under `if __name__ == "__main__":`' in lines[-1]
    assert len(lines) < 14, done.stderr
