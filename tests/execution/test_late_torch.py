from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import evonas as en

SCRIPT = """
import evonas as en
from evonas.execution import SerialExecutor, Task, TrialSettings

def fitness(genes, trial):
    import torch  # the first trial is the first to do so
    return torch.rand(1).item(), float(torch.get_num_threads())

objectives = [en.Objective("draw"), en.Objective("threads")]
executor = SerialExecutor()
executor.start(en.FunctionProblem(en.SearchSpace({"x": [0, 1]}), fitness, objectives=objectives))
for seed, threads in ((3, 2), (3, 2), (4, 1)):
    outcome = executor.submit(Task({"x": 0}, TrialSettings(seed=seed, threads=threads))).result()
    print(*outcome.values)
executor.shutdown()
import sys, torch
print(torch.initial_seed() in (3, 4), torch.__spec__.loader.exec_module.__self__ is not None,
      [finder for finder in sys.meta_path if type(finder).__module__.startswith("evonas")])
"""


def test_the_trial_that_imports_torch_is_seeded_like_all_others() -> None:
    root = Path(en.__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, cwd=root,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, again, other, after = done.stdout.splitlines()
    assert first == again
    assert first.endswith(" 2.0")
    assert other.split()[0] != first.split()[0]
    assert other.endswith(" 1.0")
    # torch's own generator, the loader and the import system are as they would be.
    assert after == "False True []"
