"""What must hold on a GPU, each by a body that the fast tier runs on the CPU.

`pytest -m gpu` runs the bodies on the first CUDA device, and what only a GPU can show. Where there
is none, all of them are skipped.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import evonas as en
from evonas.execution import ProcessExecutor, SerialExecutor
from evonas.execution.torch_env import free_memory, torch_environment, visible_devices
from evonas.execution.trial import Trial, TrialSettings
from evonas.freezing import FreezingProblem
from evonas.nas import FAMILIES, ImageClassificationProblem
from evonas.nas.recipes import recipe
from evonas.training import Examples, choose_precision, evaluate, place
from evonas.training.cost import latency_of_pass
from evonas.training.memory import PeakMemory

GPU = "cuda:0"
FAMILY = FAMILIES["resnet"]
START: Any = FAMILY.start(max_params=3_000, max_macs=200_000, in_shape=(3, 16, 16))  # type: ignore[misc]
SPACE = FAMILY.space(max_params=3_000, max_macs=200_000, in_shape=(3, 16, 16))


@pytest.fixture
def gpu() -> Iterator[str]:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device on this machine")
    yield GPU
    free_memory(GPU)


def images(n: int = 96, seed: int = 0) -> Examples:
    """Two classes, dark and bright."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    pixels = torch.randint(0, 120, (n, 3, 16, 16), generator=generator)
    pixels += 110 * labels.view(-1, 1, 1, 1)
    return Examples(pixels.to(torch.uint8), labels, ("dark", "bright"))


def problem(device: str, **options: Any) -> ImageClassificationProblem:
    return ImageClassificationProblem(
        SPACE, FAMILY.network, images(),
        **{"device": device, "n_epochs": 3, "batch_size": 16, "precision": "float32", **options},
    )  # fmt: skip


def evaluated(made: Any, genes: Any, device: str, folder: Path, **settings: Any) -> Trial:
    folder.mkdir(exist_ok=True)
    usual = {"seed": 5, "device": device, "attachments": str(folder), **settings}
    trial = Trial(TrialSettings(**usual))
    with torch_environment(trial.settings):
        trial.record(value=made.evaluate(genes, trial))
    return trial


def curve(trial: Trial) -> list[float]:
    return [row.metrics["train_loss"] for row in trial.history]


# Training and evaluation.


def test_a_training_is_that_of_the_cpu(device: str, tmp_path: Path) -> None:
    ours = evaluated(problem(device), START, device, tmp_path / "ours")
    theirs = evaluated(problem("cpu"), START, "cpu", tmp_path / "cpu")
    assert curve(ours) == pytest.approx(curve(theirs), rel=5e-3)
    assert ours.metrics["value"] == pytest.approx(theirs.metrics["value"], abs=0.11)


def test_an_evaluation_is_that_of_the_cpu(device: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(1568, 2))
    found: list[Tensor] = []

    def metric(outputs: Tensor, targets: Tensor) -> float:
        found.append(outputs.cpu())
        return 0.0

    for where in ("cpu", device):
        evaluate(place(copy.deepcopy(model), where), images().to(where).batches(32), metric=metric)
    assert torch.allclose(*found, atol=1e-4)


def test_a_deterministic_training_is_the_same_bit_for_bit(device: str, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    made = problem(device, **{k: v for k, v in recipe("one-cycle", flips=True, side=16).items()
                              if k in ("augment", "schedule")})  # fmt: skip
    trials = [
        evaluated(made, START, device, tmp_path / str(n), deterministic=True) for n in range(2)
    ]
    other = evaluated(made, START, device, tmp_path / "other", deterministic=True, seed=6)
    weights = [torch.load(tmp_path / str(n) / "weights.pt", weights_only=True) for n in range(2)]
    assert curve(trials[0]) == curve(trials[1]) != curve(other)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
def test_the_callers_generator_of_the_device_is_left_as_it_was(gpu: str) -> None:
    torch.cuda.manual_seed(3)
    before = torch.cuda.get_rng_state(gpu)
    with torch_environment(TrialSettings(seed=9, device=gpu)):
        first = torch.rand(4, device="cuda")
    with torch_environment(TrialSettings(seed=9, device=gpu)):
        second = torch.rand(4, device="cuda")
    assert torch.equal(first, second)
    assert torch.equal(torch.cuda.get_rng_state(gpu), before)


# Memory.


def too_much(genes: en.Genes, trial: en.Trial) -> float:
    torch.ones(genes["n"], device=trial.device)
    return 1.0


def test_a_trial_that_needs_too_much_memory_is_named_and_the_others_go_on(device: str) -> None:
    result = en.evolve(
        {"n": en.Categorical([10, 1 << 50])}, too_much, strategy="random", max_evaluations=2,
        initial=[{"n": 1 << 50}, {"n": 10}], seed=0, executor=SerialExecutor(device=device),
        progress=False,
    )  # fmt: skip
    by_size = {entry.genes["n"]: entry for entry in result.evaluations}
    assert by_size[1 << 50].status is en.Status.OUT_OF_MEMORY
    assert by_size[10].status is en.Status.OK


def most_of_it(genes: en.Genes, trial: en.Trial) -> float:
    free, _ = torch.cuda.mem_get_info(trial.device)
    held = torch.empty(int(0.6 * free), dtype=torch.uint8, device=trial.device)
    held[:1].cpu()
    time.sleep(2)  # while the neighbour tries the same
    also = torch.empty(int(0.3 * free), dtype=torch.uint8, device=trial.device)
    also[:1].cpu()
    return float(genes["n"])


@pytest.mark.gpu
def test_a_trial_that_fails_among_neighbours_is_run_again_alone(gpu: str) -> None:
    result = en.evolve(
        {"n": en.Integer(0, 3)}, most_of_it, strategy="random", max_evaluations=4, seed=0,
        initial=[{"n": n} for n in range(4)], executor=ProcessExecutor(2, devices=[gpu]),
        progress=False,
    )  # fmt: skip
    assert [entry.status for entry in result.evaluations] == [en.Status.OK] * 4
    free, whole = torch.cuda.mem_get_info(gpu)
    assert free > 0.8 * whole, "given back when the search ends"


def test_the_peak_is_that_of_the_work(device: str) -> None:
    with PeakMemory(device) as small:
        torch.ones(1 << 20, device=device).sum().item()
    with PeakMemory(device) as large:
        torch.ones(1 << 26, device=device).sum().item()
    assert large.memory_bytes - small.memory_bytes > 0.9 * 4 * ((1 << 26) - (1 << 20))


# Several workers, one device; which devices there are.


def on_device(genes: en.Genes, trial: en.Trial) -> dict[str, float]:
    x = torch.ones(64, 64, device=trial.device)
    assert x.device == torch.device(trial.device)
    return {"fitness": float((x @ x).sum()) * genes["x"]}


def test_two_workers_share_a_device(device: str, tmp_path: Path) -> None:
    result = en.evolve(
        {"x": en.Integer(0, 9)}, on_device, max_evaluations=6, workers=2, devices=device, seed=0,
        run_dir=tmp_path, progress=False,
    )  # fmt: skip
    assert result.counts.failed == 0
    assert {entry.values[0] / 64**3 for entry in result.evaluations} <= set(range(10))


@pytest.mark.gpu
@pytest.mark.parametrize(("visible", "wanted"), [("", "['cpu']"), ("0", "['cuda:0']")])
def test_cuda_visible_devices_is_respected(gpu: str, visible: str, wanted: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c",
         "from evonas.execution.torch_env import visible_devices; print(visible_devices())"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": visible}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.strip() == wanted
    assert gpu in visible_devices()


def broken_device(genes: en.Genes, trial: en.Trial) -> float:
    if genes["n"] == 0:  # an assertion on the device: its context in this process is lost
        table = torch.ones(4, device=trial.device)
        table[torch.tensor([99], device=trial.device)].sum().item()
    return float(torch.ones(3, device=trial.device).sum()) * genes["n"]


def test_a_trial_that_breaks_the_device_fails_alone(device: str) -> None:
    result = en.evolve(
        {"n": en.Integer(0, 3)}, broken_device, strategy="random", max_evaluations=4, seed=0,
        initial=[{"n": n} for n in range(4)], progress=False,
        executor=ProcessExecutor(1, devices=[device]),
    )  # fmt: skip
    status = {entry.genes["n"]: entry.status for entry in result.evaluations}
    assert status == {0: en.Status.FAILED, **dict.fromkeys((1, 2, 3), en.Status.OK)}
    (failed,) = (entry for entry in result.evaluations if entry.status is en.Status.FAILED)
    assert "index" in (failed.error or "").lower() or "CUDA" in (failed.error or "")


# What is kept on a device.


def test_the_images_are_copied_to_a_device_once_a_process(device: str, tmp_path: Path) -> None:
    made = problem(device, n_epochs=1)
    evaluated(made, START, device, tmp_path / "a")
    first = made._data.on(device)
    evaluated(made, START, device, tmp_path / "b")
    second = made._data.on(device)
    assert all(ours is theirs for ours, theirs in zip(first, second, strict=True))
    assert all(part.inputs.device == torch.device(device) for part in first)


def pretrained() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, 2))


@pytest.mark.parametrize("memory", [1 << 30, 4096], ids=["in memory", "spilled"])
def test_stored_prefixes_change_nothing(device: str, memory: int, tmp_path: Path) -> None:
    x = torch.randn(120, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    found = []
    for reuse in (True, False):
        made = FreezingProblem(
            pretrained, (x[:80], y[:80]), (x[80:], y[80:]), lr=1e-2, n_epochs=3, device=device,
            reuse_prefix=reuse, prefix_memory_bytes=memory, precision="float32",
        )  # fmt: skip
        trial = evaluated(made, made.genes_of([1, 0]), device, tmp_path / str(reuse))
        assert trial.metrics["prefix_depth"] == int(reuse)
        found.append(curve(trial))
    assert found[0] == pytest.approx(found[1], rel=1e-4)


# Speed.


def test_the_chosen_precision_is_one_that_the_device_computes_in(device: str) -> None:
    chosen = choose_precision(device)
    if device != "cpu":
        able = torch.cuda.get_device_capability(device) >= (8, 0)
        assert able or chosen == "float32"
    made = nn.Linear(8, 8).to(device)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[chosen]
    with torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype != torch.float32):
        assert made(torch.ones(2, 8, device=device)).dtype == dtype


@pytest.mark.gpu
def test_a_latency_waits_for_the_device(gpu: str) -> None:
    model = nn.Sequential(*(nn.Linear(4096, 4096) for _ in range(8))).to(gpu).eval()
    x = torch.rand(512, 4096, device=gpu)
    measured = latency_of_pass(model, x, precision="float32")
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.no_grad():
        start.record()
        model(x)
        end.record()
    torch.cuda.synchronize(gpu)
    assert measured > 0.7 * start.elapsed_time(end)
