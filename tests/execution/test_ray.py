"""On a real Ray cluster of two nodes on this machine."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import evonas as en
from evonas.exceptions import MissingDependencyError, WorkerError
from evonas.execution import Outcome, Task, Trial, TrialSettings
from evonas.execution.ray import RayExecutor
from evonas.testing import ExecutorConformance, RoughProblem, trace

# The cluster could not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROOT = str(Path(en.__file__).resolve().parents[1])
SMALL = {"num_cpus": 1, "object_store_memory": 80 << 20}
SPACE = en.SearchSpace({"x": en.Integer(0, 99)})


def on_ray(test: Any) -> Any:
    # Ray leaves files, sockets and processes for the garbage collector to close.
    return pytest.mark.slow(pytest.mark.filterwarnings("ignore")(test))


@pytest.fixture(scope="module")
def ray() -> Any:
    return pytest.importorskip("ray", reason="pip install 'evonas[ray]'")


@pytest.fixture(scope="module")
def nodes(ray: Any) -> Iterator[Any]:
    """Two nodes, to which this process is not connected."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", ROOT)
        patch.delenv("RAY_ADDRESS", raising=False)
        cluster = Cluster(initialize_head=True, head_node_args=SMALL)
        cluster.add_node(**SMALL)
        cluster.wait_for_nodes()
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def disconnected(ray: Any) -> Iterator[None]:
    if ray.is_initialized():
        ray.shutdown()
    yield
    if ray.is_initialized():
        ray.shutdown()


@pytest.fixture
def cluster(ray: Any, nodes: Any) -> Any:
    """Two nodes, to which this process is connected."""
    if not ray.is_initialized():
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    return nodes


@on_ray
@pytest.mark.usefixtures("cluster")
class TestRay(ExecutorConformance):
    def make_executor(self) -> RayExecutor:
        return RayExecutor()


def outcome_of(fitness: Callable[[dict[str, Any], Trial], Any], **options: Any) -> Outcome:
    executor = RayExecutor(**options)
    executor.start(en.FunctionProblem(SPACE, fitness))
    try:
        return executor.submit(Task({"x": 1}, TrialSettings())).result(60)
    finally:
        executor.shutdown()


ARGUMENTS: dict[str, Any] = {"population": 8, "seed": 2, "max_consecutive_failures": 1000}


@on_ray
@pytest.mark.usefixtures("cluster")
def test_a_run_is_the_same_as_in_this_process_and_goes_on_in_it(tmp_path: Path) -> None:
    def search(name: str, generations: int, **where: Any) -> en.Result:
        return en.evolve(
            RoughProblem(), run_dir=tmp_path / name, generations=generations, **ARGUMENTS, **where
        )

    alone = trace(search("alone", 5))
    assert trace(search("ray", 5, executor=RayExecutor())) == alone
    search("both", 3, executor=RayExecutor())
    assert trace(search("both", 5)) == alone


@on_ray
def test_a_node_that_is_lost_in_mid_search_changes_nothing(cluster: Any, tmp_path: Path) -> None:
    node = cluster.add_node(**{**SMALL, "num_cpus": 2})
    cluster.wait_for_nodes()
    began, lost = tmp_path / "began", node.node_id

    class Stuck(RoughProblem):
        def evaluate(self, genes: Any, trial: Trial) -> Any:
            import ray

            here = ray.get_runtime_context().get_node_id()
            with began.open("a") as file:
                file.write(f"{trial.number} {here}\n")
            deadline = time.monotonic() + (60 if here == lost else 30)
            while here == lost or lost not in began.read_text():  # so that it gets its share
                if time.monotonic() > deadline:
                    break
                time.sleep(0.05)
            return super().evaluate(genes, trial)

    class Removes(en.Observer):
        n_seen = 0

        def on_evaluation(self, evaluation: en.Evaluation, best: en.Evaluation | None) -> None:
            self.n_seen += 1
            if self.n_seen == 3:
                cluster.remove_node(node, allow_graceful=False)

    executor = RayExecutor()
    assert executor.slots == 4
    result = en.evolve(
        Stuck(), executor=executor, callbacks=[Removes()], generations=3, **ARGUMENTS
    )
    tries = [line.split() for line in began.read_text().splitlines()]
    stuck = {number for number, where in tries if where == lost}
    assert stuck, "no trial was on the node"
    assert stuck <= {number for number, where in tries if where != lost}
    assert trace(result) == trace(en.evolve(RoughProblem(), generations=3, **ARGUMENTS))
    deadline = time.monotonic() + 30  # until the cluster's head has noticed, too
    while RayExecutor().slots != 2:
        assert time.monotonic() < deadline, "the lost node still counts"
        time.sleep(0.2)


@on_ray
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("way", ["killed", "segmentation fault"])
def test_a_process_that_dies_is_tried_again_and_then_lost(way: str, tmp_path: Path) -> None:
    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        with (tmp_path / "tries").open("a") as file:
            file.write("x")
        if way == "killed" and (tmp_path / "tries").stat().st_size == 2:
            return 3.0
        return os.kill(os.getpid(), signal.SIGKILL) if way == "killed" else ctypes.string_at(0)

    outcome = outcome_of(fitness, lost_retries=1)
    assert (tmp_path / "tries").read_text() == "xx"
    if way == "killed":
        assert (outcome.status, outcome.values) == (en.Status.OK, (3.0,))
    else:
        assert outcome.status is en.Status.LOST
        assert "the process that ran the trial was lost (WorkerCrashedError" in outcome.error


@on_ray
@pytest.mark.usefixtures("cluster")
def test_what_a_trial_prints_and_attaches_comes_back(tmp_path: Path) -> None:
    def fitness(genes: dict[str, Any], trial: Trial) -> float:
        if trial.number == 1:
            print("trial", trial.number, tmp_path in Path(trial.settings.output or "/").parents)
            os.write(2, b"from C\n")
        return 1.0

    result = en.evolve(
        SPACE, fitness, population=2, generations=1, run_dir=tmp_path, executor=RayExecutor()
    )
    assert [entry.output for entry in result.evaluations] == [None, "output/1.txt"]
    printed = (tmp_path / "output" / "1.txt").read_text()
    assert sorted(printed.splitlines()) == ["from C", "trial 1 False"]
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["1.txt"]


@on_ray
def test_trials_share_a_gpu(ray: Any, cluster: Any) -> None:
    node = cluster.add_node(**{**SMALL, "num_cpus": 9, "num_gpus": 1})
    cluster.wait_for_nodes()
    try:
        executor = RayExecutor(gpus_per_trial=0.2)
        assert executor.slots == 5
        assert (RayExecutor(gpus_per_trial=0.4).slots, RayExecutor().slots) == (2, 11)
        executor.start(en.FunctionProblem(SPACE, _visible))
        assert executor.device == "cuda:0"
        task = Task({"x": 1}, TrialSettings(device=executor.device))
        outcome = executor.submit(task).result(60)
        assert outcome.metrics == {"visible": "0", "device": "cuda:0"}
        executor.shutdown()
    finally:
        cluster.remove_node(node)


def _visible(genes: dict[str, Any], trial: Trial) -> float:
    trial.record(visible=os.environ.get("CUDA_VISIBLE_DEVICES"), device=trial.device)
    return 1.0


@on_ray
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("demand", "shown"),
    [
        ({"cpus_per_trial": 99}, r"\{'CPU': 99\}"),
        ({"cpus_per_trial": 2}, r"\{'CPU': 2\}"),  # which two nodes have, but neither of them
        ({"gpus_per_trial": 0.5}, r"\{'CPU': 1, 'GPU': 0.5\}"),
    ],
)
def test_too_large_a_demand_is_refused(demand: dict[str, Any], shown: str) -> None:
    message = rf"nodes with \[.*'CPU': 1.0.*no.* room for a trial of {shown}: pass smaller"
    with pytest.raises(WorkerError, match=message):
        en.evolve(RoughProblem(), executor=RayExecutor(**demand), population=4)


# Addresses.


@on_ray
@pytest.mark.usefixtures("disconnected")
def test_an_address_connects_and_the_end_of_the_search_disconnects(ray: Any, nodes: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    result = en.evolve(
        RoughProblem(), executor=RayExecutor(nodes.address), generations=2, **ARGUMENTS
    )
    assert not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) is before
    assert trace(result) == trace(en.evolve(RoughProblem(), generations=2, **ARGUMENTS))


@on_ray
@pytest.mark.usefixtures("cluster")
def test_another_cluster_than_the_connected_one_is_refused() -> None:
    with pytest.raises(WorkerError, match="is connected to .*, not to 127.0.0.1:1: call ray.shut"):
        en.evolve(RoughProblem(), executor=RayExecutor("127.0.0.1:1"), population=4)


@pytest.fixture
def listener() -> Iterator[Callable[[bytes], str]]:
    """Makes a server that answers whatever it hears with the same."""
    server = socket.create_server(("", 0))  # Ray turns 127.0.0.1 into another address

    def answering(answer: bytes) -> str:
        def serve() -> None:
            connection, _ = server.accept()
            connection.recv(100)
            connection.sendall(answer)
            while connection.recv(100):
                pass

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield answering
    server.close()


@on_ray
@pytest.mark.usefixtures("disconnected")
@pytest.mark.parametrize("way", ["argument", "environment"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nobody", "refused"),
        ("silent", "timed out"),
        ("web server", "what listens there is not Ray"),
        ("no address", "Invalid address format|invalid literal"),
    ],
)
def test_an_address_that_does_not_answer_is_said_within_seconds(
    kind: str,
    message: str,
    way: str,
    listener: Callable[[bytes], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = {"silent": b"", "web server": b"HTTP/1.1 400 Bad Request\r\n\r\n"}
    address = {"nobody": "127.0.0.1:1", "no address": "a:b"}.get(kind, "")
    address = address or listener(answer[kind])
    monkeypatch.setenv("RAY_ADDRESS", address if way == "environment" else "")
    began = time.monotonic()
    shown = "this machine" if way == "environment" else address
    with pytest.raises(WorkerError, match=f"no Ray cluster answers at {shown} .*({message})"):
        en.evolve(
            RoughProblem(),
            executor=RayExecutor(None if way == "environment" else address),
            population=4,
        )
    assert time.monotonic() - began < 8


@on_ray
@pytest.mark.usefixtures("disconnected")
def test_an_address_for_outsiders_is_refused() -> None:
    with pytest.raises(WorkerError, match="ray://head:10001 .* does not support: run it on a mach"):
        en.evolve(RoughProblem(), executor=RayExecutor("ray://head:10001"), population=4)


# Whole processes.

SEARCH = """
    import os, sys, time
    from pathlib import Path
    import evonas as en
    from evonas.execution import RayExecutor

    def fitness(genes, trial):
        Path(sys.argv[1], f"began{trial.number}").touch()
        if trial.number >= 2 and not Path(sys.argv[1], "go").exists():
            time.sleep(60)
        return float(genes["x"])

    if __name__ == "__main__":
        small = {"num_cpus": 2, "object_store_memory": 80 << 20, "include_dashboard": False}
        en.evolve({"x": en.Integer(0, 99)}, fitness, population=4, generations=2, seed=0,
                  run_dir="run", executor=RayExecutor("local", init=small))
"""


@on_ray
@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_over_and_the_run_goes_on(script: Any, number: signal.Signals) -> None:
    source = SEARCH.replace("sys.argv[1]", repr(str(script.folder)))
    process = script.start(source)
    script.await_files("began2", "began3")
    time.sleep(1.0)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == -number or number == signal.SIGTERM, err
    if number != signal.SIGKILL:
        name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        assert f"stopped by {name}: 2 evaluations are saved in run" in err.splitlines()[-1]
    # Ray's own agents take a minute or two to notice that their cluster is gone.
    theirs = b"Agent" if number == signal.SIGKILL else None
    script.await_end_of_all(10, but=theirs)
    (script.folder / "go").touch()
    process = script.start(source)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    script.await_end_of_all(10, but=theirs)
    statuses = {entry.status for entry in en.open_run(script.folder / "run").evaluations}
    assert statuses == {en.Status.OK}


# Without Ray.


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'evonas\[ray\]'"):
        RayExecutor()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cpus_per_trial": 0}, "cpus_per_trial must be .*above 0.*, got 0"),
        ({"gpus_per_trial": -1}, "gpus_per_trial must be at least 0, got -1"),
        ({"gpus_per_trial": math.nan}, "gpus_per_trial must be a finite number, got nan"),
        ({"gpus_per_trial": 1.5}, "above 1 .* a whole number, got 1.5"),
        ({"slots": 0}, "slots must be at least 1"),
        ({"lost_retries": -1}, "lost_retries must be at least 0, got -1"),
    ],
)
def test_wrong_arguments(
    arguments: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", object())  # they are looked at before Ray is asked
    with pytest.raises(ValueError, match=message):
        RayExecutor(**arguments)
