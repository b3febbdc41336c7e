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


NET = """
def helper(x):
    return x + 1
def build(x):
    return helper(x) * FACTOR
FACTOR = 2
unused = 5
"""
WAYS = {
    "attribute": "import net\ndef fitness(g): return net.build(g)",
    "another name": "import net as m\nfitness = lambda g: m.build(g)",
    "in a package": "import package.net\ndef fitness(g): return package.net.build(g)",
    "in the function": "def fitness(g):\n    from net import build\n    return build(g)",
    "in a package, in the function":
        "def fitness(g):\n    import package.net\n    return package.net.build(g)",
    "in a method": "import net\nclass Fitness:\n    def __call__(self, g): return net.build(g)\n"
                   "fitness = Fitness()",
    "closed over": "def make():\n    import net\n    return lambda g: net.build(g)\n"
                   "fitness = make()",
}  # fmt: skip
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from evonas.space.naming import fingerprint_of
{way}
print(fingerprint_of(fitness))
fitness(1)
print(fingerprint_of(fitness))
"""


def printed_by(way: str, folder: Path) -> str:
    script = folder / "script.py"
    script.write_text(PROGRAM.format(way=way))
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"}
    output = subprocess.check_output(
        [sys.executable, str(script), str(folder)], text=True, env=environment
    )
    first, second = output.split("\n")[:2]
    assert first == second, "a call of it makes it no other code"
    return first


@pytest.mark.parametrize("way", WAYS)
def test_code_that_is_reached_through_a_module_counts(way: str, tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    files = [tmp_path / "net.py", tmp_path / "package" / "net.py"]

    def printed(source: str) -> str:
        for file in files:
            file.write_text(source)
        return printed_by(WAYS[way], tmp_path)

    before = printed(NET)
    assert printed(NET + "# a comment\n") == before
    edits = [("x + 1", "x + 2"), ("* FACTOR", "/ FACTOR"), ("FACTOR = 2", "FACTOR = 3")]
    assert len({before, *(printed(NET.replace(*edit)) for edit in edits)}) == 4


def test_what_a_function_does_not_use_of_a_module_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    before = printed_by(WAYS["attribute"], tmp_path)
    (tmp_path / "net.py").write_text(NET.replace("unused = 5", "unused = 6"))
    assert printed_by(WAYS["attribute"], tmp_path) == before


def test_the_weights_of_a_loss_count() -> None:
    def loss(*weights: float) -> torch.nn.Module:
        return torch.nn.CrossEntropyLoss(weight=torch.tensor(weights) if weights else None)

    found = [fingerprint_of(loss(*weights)) for weights in ((), (1.0, 1.0), (1.0, 300.0))]
    assert len(set(found)) == 3
    assert fingerprint_of(loss(1.0, 300.0)) == found[2]
    inner = [fingerprint_of(torch.nn.Sequential(loss(1.0, x))) for x in (1.0, 2.0, 2.0)]
    assert inner[0] != inner[1] == inner[2]
