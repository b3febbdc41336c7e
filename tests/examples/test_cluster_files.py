"""examples/cluster: the script for Slurm, the cluster file of Ray, the Dockerfile."""

from __future__ import annotations

import contextlib
import copy
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "examples" / "cluster"

# Slurm's commands as far as slurm.sh uses them: two machines, which are both this one.
SCONTROL = "#!/bin/bash\nprintf '%s\\n' 127.0.0.1 127.0.0.1\n"
SRUN = """#!/bin/bash
while [[ $1 != ray ]]; do shift; done
echo "$@" >>"$STARTED"
exec "$@"
"""


def instructions() -> list[tuple[str, str]]:
    lines = (CLUSTER / "Dockerfile").read_text().splitlines()
    return [
        (word, rest)
        for word, _, rest in (line.partition(" ") for line in lines if line)
        if word != "#"
    ]


def test_the_dockerfile_copies_what_is_there_and_reaches_the_builder() -> None:
    let_in = (CLUSTER / "Dockerfile.dockerignore").read_text().split()
    copied = [name for word, rest in instructions() if word == "COPY" for name in rest.split()[:-1]]
    assert {"evonas", "examples", "setup.cfg", "pyproject.toml", "README.md"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in let_in, name


def test_the_dockerfiles_command_is_the_quick_search() -> None:
    (command,) = [rest for word, rest in instructions() if word == "CMD"]
    assert command == '["python", "examples/cifar10_alexnet.py", "--preset", "quick"]'


def test_the_slurm_script_is_bash() -> None:
    subprocess.run(["bash", "-n", CLUSTER / "slurm.sh"], check=True, timeout=20)
    assert os.access(CLUSTER / "slurm.sh", os.X_OK)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_accepts_its_cluster_file() -> None:
    pytest.importorskip("ray", reason="pip install 'evonas[ray]'")
    import yaml
    from ray.autoscaler._private.util import prepare_config, validate_config

    text = (CLUSTER / "ray.yaml").read_text()
    config = yaml.safe_load(text)
    validate_config(prepare_config(copy.deepcopy(config)))
    local = shlex.split(text.partition("#     provider: ")[2].partition("\n")[0])
    config["provider"] = yaml.safe_load(" ".join(local))
    for name in ("available_node_types", "head_node_type", "max_workers"):
        del config[name]
    validate_config(prepare_config(copy.deepcopy(config)))
    config["setup_command"] = ["true"]
    with pytest.raises(Exception, match="setup_command"):
        validate_config(prepare_config(config))


def run_slurm_script(folder: Path, srun: str, *options: str, limit: float) -> tuple[int, str]:
    """Returns the exit status of slurm.sh and what it printed: to a file, as Ray's processes hold
    it open."""
    commands = folder / "bin"
    commands.mkdir()
    for name, text in (("srun", srun), ("scontrol", SCONTROL)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "here",
        "SLURM_CPUS_PER_TASK": "1",
        "STARTED": str(folder / "started.txt"),
        "RAY_TMPDIR": "/tmp",  # a socket's path must be short
    }
    printed = folder / "printed.txt"
    with printed.open("w") as out:
        job = subprocess.Popen(
            ["bash", str(CLUSTER / "slurm.sh"), *options], cwd=ROOT, env=environment,
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            status = job.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            pytest.fail(f"after {limit} s: {printed.read_text()}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, 15)  # as Slurm ends what a job leaves behind
    return status, printed.read_text()


@pytest.mark.slow
def test_the_slurm_script_searches_on_the_machines_it_is_given(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="pip install 'evonas[ray]'")
    options = ["--population", "4", "--generations", "2", "--run-dir", str(tmp_path / "run")]
    status, printed = run_slurm_script(tmp_path, SRUN, *options, limit=240)
    assert status == 0, printed
    assert "6 trained, the best: 0." in printed
    started = (tmp_path / "started.txt").read_text().splitlines()
    assert [line.split()[2].startswith("--head") for line in started] == [True, False]


@pytest.mark.slow
def test_the_slurm_script_says_that_its_cluster_does_not_start(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="pip install 'evonas[ray]'")
    status, printed = run_slurm_script(tmp_path, "#!/bin/bash\nexit 1\n", limit=240)
    assert status == 1
    assert "the head of the Ray cluster, 127.0.0.1:" in printed
    assert "does not answer" in printed
