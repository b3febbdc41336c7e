from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from evonas.space.naming import fingerprint_of, readable_name
from evonas.training import FlipCrop, accuracy

SCRIPT = """
from evonas.training import fingerprint_of

def score(outputs, targets, names=frozenset({"a", "b", "c", "d"})):
    return sum(x in {"p", "q", "r", "s"} for x in targets) * FACTOR

def calls_it(x):
    return score(x, [n for n in x])

for FACTOR in (2, 3):
    print(fingerprint_of(score), fingerprint_of(calls_it))
"""


def scaled(factor: float) -> Callable[[float], float]:
    def scale(x: float) -> float:
        return factor * x

    return scale


def counted(depth: int) -> Callable[[int], int]:
    def down(n: int) -> int:
        return depth if n == 0 else up(n - 1)

    def up(n: int) -> int:
        return down(n)

    return down


def test_lambdas_differ_by_what_they_do() -> None:
    def make(step: int) -> Any:
        return [lambda x: x + 1, lambda x: x + 2, lambda x: x.a, lambda x: x.b, lambda x, y=1: x,
                lambda x, y=2: x, lambda x: x + step]  # fmt: skip

    first, again, other = ([fingerprint_of(f) for f in make(n)] for n in (1, 1, 2))
    assert first == again
    assert len(set(first)) == len(first)
    assert first[:-1] == other[:-1]
    assert first[-1] != other[-1]


def test_closures_differ_by_what_they_close_over() -> None:
    assert fingerprint_of(scaled(2.0)) == fingerprint_of(scaled(2.0))
    assert fingerprint_of(scaled(2.0)) != fingerprint_of(scaled(3.0))
    assert fingerprint_of(counted(1)) == fingerprint_of(counted(1)) != fingerprint_of(counted(2))
    one, two = (functools.partial(scaled(2.0), x) for x in (1.0, 2.0))
    assert fingerprint_of(one) == fingerprint_of(functools.partial(scaled(2.0), 1.0))
    assert fingerprint_of(one) != fingerprint_of(two)


def test_what_is_installed_keeps_its_name() -> None:
    assert fingerprint_of(accuracy) == "accuracy"
    assert fingerprint_of(os.path.join) == "join"
    assert fingerprint_of(torch.optim.SGD) == "SGD"
    assert fingerprint_of(FlipCrop()) == repr(FlipCrop())
    assert fingerprint_of(scaled).startswith("scaled py")


class Loss:
    def __init__(self, power: float) -> None:
        self.power = power
        self.calls: list[float] = []

    def __call__(self, x: float) -> float:
        self.calls.append(x)
        return x**self.power


def test_objects_differ_by_their_settings_and_not_by_their_logs() -> None:
    used = Loss(2.0)
    used(3.0)
    assert fingerprint_of(used) == fingerprint_of(Loss(2.0)) != fingerprint_of(Loss(3.0))
    assert fingerprint_of(used.__call__) != fingerprint_of(Loss(3.0).__call__)
    smooth, plain = (torch.nn.CrossEntropyLoss(label_smoothing=x) for x in (0.1, 0.0))
    assert fingerprint_of(smooth) != fingerprint_of(plain)
    assert fingerprint_of(plain) == fingerprint_of(torch.nn.CrossEntropyLoss())


VERSIONS = {
    "as it was": "",
    "a comment": "# nothing changes",
    "another body": ("return net(genes)", "return -net(genes)"),
    "another function that it calls": ("return x + 1", "return x + 2"),
    "another class that it builds": ("return 2 * x", "return 3 * x"),
    "another constant": ("EPOCHS = 3", "EPOCHS = 4"),
    "another entry of a constant": ('"lr": 0.1', '"lr": 0.2'),
}
FITNESS = """
from evonas.space.naming import fingerprint_of
EPOCHS = 3
CONFIG = {"lr": 0.1}
calls = []
n_calls = 0
def helper(x):
    return x + 1
class Net:
    def __init__(self, epochs, lr):
        self.epochs = epochs
    def __call__(self, x):
        return 2 * x
def fitness(genes, trial):
    global n_calls
    n_calls += 1
    calls.append(genes)
    net = Net(EPOCHS, CONFIG["lr"])
    return net(genes) + helper(1)
"""


def fingerprint_in(module: str, change: Any) -> str:
    source = FITNESS
    if isinstance(change, tuple):
        assert change[0] in source
        source = source.replace(*change)
    names: dict[str, Any] = {"__name__": module}
    exec(compile(source + (change if isinstance(change, str) else ""), module, "exec"), names)
    first = fingerprint_of(names["fitness"])
    names["fitness"](1, None)
    assert fingerprint_of(names["fitness"]) == first, "a log or a counter is no other code"
    return first


@pytest.mark.parametrize("module", ["__main__", "a_file_of_the_users"])
def test_every_edit_of_code_is_another_fingerprint(module: str) -> None:
    found = {name: fingerprint_in(module, change) for name, change in VERSIONS.items()}
    assert found.pop("a comment") == found["as it was"]
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize("thing", [lambda x: x, functools.partial(lambda x, y: x, 1)])
def test_a_lambda_has_no_name(thing: Any) -> None:
    assert readable_name(thing, "metric") == "metric"
    assert readable_name(functools.partial(accuracy), "metric") == "accuracy"


def test_it_is_the_same_in_another_process_and_another_for_another_script(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    root = str(Path(__file__).resolve().parents[2])
    printed = []
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": root}
        done = subprocess.run(
            [sys.executable, str(path)], capture_output=True, text=True, env=environment, check=True
        )
        printed.append([line.split() for line in done.stdout.splitlines()])
    assert printed[0] == printed[1]
    first, second = printed[0]
    assert first[::2] == second[::2] == ["score", "calls_it"]
    assert first[1] != second[1], "the constant that it names is another"
    assert first[3] != second[3], "and so is the function that this one calls"
