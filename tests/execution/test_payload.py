from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from torch import nn

import evonas as en
from evonas.execution import ProcessExecutor, Task, Trial, TrialSettings
from evonas.execution.payload import Payload, unpack


def test_what_is_unpacked_equals_what_was_packed() -> None:
    base = torch.arange(60_000).float().reshape(6, -1)
    things = {
        "tensor": base,
        "view": base[1:3],
        "channels last": torch.rand(50, 16, 16, 3).movedim(-1, 1),
        "bytes": torch.randint(0, 256, (100_000,), dtype=torch.uint8),
        "bfloat16": torch.rand(70_000).bfloat16(),
        "array": np.random.default_rng(0).random((300, 100)),
        "transposed": np.random.default_rng(0).random((300, 100)).T,
        "small": torch.ones(3),
        "parameter": nn.Parameter(torch.rand(200, 200)),
    }
    payload = Payload(things)
    found = unpack(payload)
    for name, thing in things.items():
        assert type(found[name]) is type(thing)
        if isinstance(thing, np.ndarray):
            np.testing.assert_array_equal(found[name], thing)
        else:
            assert torch.equal(found[name], thing), name
            assert found[name].stride() == thing.stride()
            assert found[name].requires_grad == thing.requires_grad
    found["tensor"][1, 0] = -1.0
    assert found["view"][0, 0] == -1.0, "tensors no longer share their memory"
    payload.close()


def test_modules_frames_and_closures_keep_their_arrays_out_of_the_pickle() -> None:
    weights = torch.rand(300, 300)
    module = nn.Linear(300, 300)
    frame = pandas.DataFrame(np.ones((20_000, 4)))
    payload = Payload((module, frame, lambda: weights.sum()))
    assert [size for _, size in payload._spans][1:] == [360_000, 640_000, 360_000]
    assert payload._spans[0][1] < 20_000
    found_module, found_frame, function = unpack(payload)
    assert torch.equal(found_module.weight, module.weight)
    assert found_frame.equals(frame)
    assert function() == weights.sum()
    payload.close()


def test_what_one_process_writes_no_other_sees() -> None:
    payload = Payload({"array": np.zeros(20_000), "tensor": torch.zeros(20_000)})
    first, second = unpack(payload), unpack(payload)
    payload.close()  # what is mapped stays
    first["array"][5] = first["tensor"][5] = 1.0
    assert second["array"][5] == second["tensor"][5] == 0.0
    assert first["array"].sum() == first["tensor"].sum() == 1.0


def test_what_cannot_be_pickled_is_named() -> None:
    with pytest.raises(TypeError, match="generator"):
        Payload({"a": (number for number in range(3))})


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc")
def test_workers_share_the_pages_of_large_arrays(tmp_path: Path) -> None:
    images = np.ones(16 << 20, dtype=np.uint8)

    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        total = int(images.sum(dtype=np.int64))  # touches every page
        (tmp_path / str(os.getpid())).touch()
        while len(list(tmp_path.iterdir())) < 2:  # until the other has done so too
            time.sleep(0.01)
        mapping = re.search(r"memfd:evonas.*?(?=^\w+-\w+ )", _smaps(), re.DOTALL | re.MULTILINE)
        found = dict(re.findall(r"^(\w+): +(\d+) kB", mapping.group(), re.MULTILINE))
        trial.record(**{name: int(found[name]) for name in ("Rss", "Pss", "Private_Dirty")})
        return total

    def _smaps() -> str:
        return Path("/proc/self/smaps").read_text()

    executor = ProcessExecutor(2)
    executor.start(en.FunctionProblem(en.SearchSpace({"x": [0, 1]}), fitness))
    futures = [executor.submit(Task({"x": x}, TrialSettings())) for x in (0, 1)]
    outcomes = [future.result(60) for future in futures]
    executor.shutdown()
    for outcome in outcomes:
        assert outcome.values == (16 << 20,), outcome.error
        assert outcome.metrics["Rss"] >= 16 << 10
        assert outcome.metrics["Pss"] <= 9 << 10
        assert outcome.metrics["Private_Dirty"] < 100
