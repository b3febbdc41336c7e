"""Whatever a trial can report is stored and read back, or refused in the trial."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import evonas as en
from evonas.run.store.encoding import from_json, to_json

TEXTS = st.sampled_from(["$number", "NaN", "Infinity", "a", "\ud800", "é", ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=8,
)


@given(VALUES)
def test_every_value_comes_back(value: Any) -> None:
    assert from_json(to_json(value)) == value
    json.loads(to_json(value))  # for any other reader


REPORTED: dict[str, Any] = {
    "a dict like one of ours": {"$number": "foo"},
    "one of ours": {"$number": "NaN"},
    "a list in it": {"$number": ["NaN"]},
    "infinity": math.inf,
    "a large float": 1e308,
    "a large int": 10**300,
    "numpy": np.float32(0.5),
    "a tensor": torch.tensor(3),
    "a tuple": (1, (2, "x")),
    "a lone surrogate": "\ud800",
}
REFUSED: dict[str, Any] = {
    "an int beyond floats": 10**400,
    "a deep list": eval("[" * 90 + "]" * 90),
    "an array": np.zeros(3),
    "an object": object(),
}


def run(value: Any, run_dir: Path, how: str) -> en.Result:
    def fitness(genes: en.Genes, trial: en.Trial) -> Any:
        if how == "recorded":
            trial.record(m=value)
        return {"fitness": genes["x"], "m": value} if how == "returned" else float(genes["x"])

    return en.evolve({"x": [1, 2]}, fitness, max_evaluations=2, seed=0, run_dir=run_dir)


@pytest.mark.parametrize("how", ["recorded", "returned"])
@pytest.mark.parametrize("name", REPORTED)
def test_what_a_trial_records_is_read_back(name: str, how: str, tmp_path: Path) -> None:
    value = REPORTED[name]
    expected = [1, [2, "x"]] if name == "a tuple" else value
    for _ in range(2):
        found = run(value, tmp_path, how)
    for result in (found, en.open_run(tmp_path)):
        assert [entry.metrics["m"] for entry in result.evaluations] == [expected] * 2


@pytest.mark.parametrize("how", ["recorded", "returned"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_nobody_could_read_back_fails_the_trial(name: str, how: str, tmp_path: Path) -> None:
    with pytest.raises(en.TooManyFailures, match="the metric 'm'"):
        run(REFUSED[name], tmp_path, how)
    found = en.open_run(tmp_path)
    assert found.counts.by_status["failed"] == 2
    assert "the metric 'm'" in (found.evaluations[0].error or "")
    assert len(en.open_run(tmp_path).evaluations) == 2


@pytest.mark.parametrize(
    "strategy",
    [en.Generational(4, elite=1), en.SurrogateEvolution(n_initial=5), en.LocalSearch(),
     en.AgingEvolution(population=4, sample=2), en.RandomSearch(), None],
)  # fmt: skip
def test_values_that_a_search_cannot_compute_with_diverge(strategy: Any, tmp_path: Path) -> None:
    values = [1e308, -1e308, 1e99, -1e99, 5e-324, 0.0]

    def fitness(genes: en.Genes, trial: en.Trial) -> float:
        trial.report(loss=values[genes["x"] % 6])
        return values[genes["x"] % 6]

    result = en.evolve(
        {"x": list(range(60)), "y": en.Float(0, 1)}, fitness, strategy=strategy, seed=0,
        max_evaluations=25, run_dir=tmp_path,
    )  # fmt: skip
    ok = [entry.values[0] for entry in result.evaluations if entry.status is en.Status.OK]
    assert result.champion.values == (max(ok),)
    assert max(map(abs, ok)) <= 1e99
    assert result.counts.by_status["diverged"] > 0
    with pytest.raises(ValueError, match="is an int that no float can hold"):
        en.Trial().report(loss=10**400)


def test_a_lie_about_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="is no number"):
        from_json('{"$number":"foo"}')
