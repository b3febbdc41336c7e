"""Weights through kill -9: what the best predict in another process is what they predicted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import evonas as en

SCRIPT = """
import json, sys
import torch
from torch import nn
import evonas as en

X = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] * X[:, 1] > 0).long()
PROBE = X[200:]
SPACE = {"width": en.Integer(2, 40), "lr": en.Float(0.001, 0.1, log=True)}
OBJECTIVES = [en.Objective("accuracy")] + [en.Objective("params", "min")] * (sys.argv[2] == "two")


def model(genes):
    return nn.Sequential(nn.Linear(6, genes["width"]), nn.ReLU(), nn.Linear(genes["width"], 2))


def fitness(genes, trial):
    net = model(genes)
    optimizer = torch.optim.Adam(net.parameters(), lr=genes["lr"])
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(X[:200]), Y[:200]).backward()
        optimizer.step()
    trial.save(net)
    with torch.no_grad():
        outputs = net(PROBE)
    trial.record(outputs=outputs.flatten().tolist())
    accuracy = (outputs.argmax(1) == Y[200:]).float().mean().item()
    params = sum(p.numel() for p in net.parameters())
    return (accuracy, params) if sys.argv[2] == "two" else accuracy


if __name__ == "__main__":
    if sys.argv[3] == "search":
        strategy = en.NSGA2(8) if sys.argv[2] == "two" else en.Generational(8)
        en.evolve(
            SPACE, fitness, objectives=OBJECTIVES, strategy=strategy, max_evaluations=24, seed=3,
            run_dir=sys.argv[1], threads_per_trial=1, progress=False,
            workers=int(sys.argv[4]) or None,
        )
    else:
        result = en.open_run(sys.argv[1])
        kept = {e.number: e for e in [*result.hall_of_fame, *result.pareto_front]}
        for entry in kept.values():
            with torch.no_grad():
                found = entry.load_model(model)(PROBE).flatten().tolist()
            print(json.dumps([entry.number, found, entry.metrics["outputs"]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("objectives", ["one", "two"])
def test_the_best_predict_in_another_process_what_they_predicted(
    tmp_path: Path, objectives: str, workers: int
) -> None:
    script, run = tmp_path / "search.py", tmp_path / "run"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(run), objectives, "search", str(workers)]
    searching = subprocess.Popen(command, start_new_session=True)
    while True:
        assert searching.poll() is None, "it ended before it could be killed"
        try:
            if en.open_run(run).counts.evaluated >= 12:
                break
        except (FileNotFoundError, en.EvonasError):
            pass
        time.sleep(0.02)
    os.killpg(searching.pid, signal.SIGKILL)
    searching.wait()
    before = en.open_run(run).counts.evaluated
    assert 12 <= before < 24
    subprocess.run(command, check=True)
    result = en.open_run(run)
    assert result.counts.evaluated == 24

    reader = subprocess.run(
        [sys.executable, str(script), str(run), objectives, "read"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    rows = [json.loads(line) for line in reader.stdout.splitlines()]
    kept = {e.number for e in [*result.hall_of_fame, *result.pareto_front]}
    assert {number for number, _, _ in rows} == kept
    assert result.champion.number in kept
    for number, found, predicted in rows:
        assert found == predicted, f"evaluation {number}"
    folders = {int(folder.name) for folder in (run / "attachments").iterdir()}
    assert folders == kept, "and nothing else is kept"
