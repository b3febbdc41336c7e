"""On a real Ray cluster of two nodes on this machine."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.exceptions import MissingDependencyError, WorkerError
from evonas.execution.ray import RayExecutor
from evonas.testing import ExecutorConformance, RoughProblem, trace

ROOT = str(Path(en.__file__).resolve().parents[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="pip install 'evonas[ray]'")
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = ROOT
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("cluster")
class TestRay(ExecutorConformance):
    def make_executor(self) -> RayExecutor:
        return RayExecutor()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_node_that_is_lost_in_mid_search_changes_nothing(cluster: Any, tmp_path: Path) -> None:
    class Slow(RoughProblem):
        def evaluate(self, genes: Any, trial: en.Trial) -> Any:
            (tmp_path / f"{trial.number}").touch()
            time.sleep(0.3)
            return super().evaluate(genes, trial)

    arguments: dict[str, Any] = {"population": 8, "generations": 3, "seed": 2}
    arguments |= {"max_consecutive_failures": 1000, "run_dir": None}
    node = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()

    class Removes(en.Observer):
        n_seen = 0

        def on_evaluation(self, evaluation: en.Evaluation, best: en.Evaluation | None) -> None:
            self.n_seen += 1
            if self.n_seen == 6:
                cluster.remove_node(node, allow_graceful=False)

    removes = Removes()
    executor = RayExecutor()
    result = en.evolve(Slow(), executor=executor, callbacks=[removes], **arguments)
    assert removes.n_seen > 6
    alone = en.evolve(RoughProblem(), **arguments)
    assert trace(result) == trace(alone)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_too_large_a_demand_is_refused(cluster: Any) -> None:
    with pytest.raises(WorkerError, match="no room for a trial of .*'CPU': 99"):
        en.evolve(RoughProblem(), executor=RayExecutor(cpus_per_trial=99), population=4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_address_that_does_not_answer_is_said_within_seconds() -> None:
    ray = pytest.importorskip("ray", reason="pip install 'evonas[ray]'")
    if ray.is_initialized():
        ray.shutdown()
    began = time.monotonic()
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        with pytest.raises(WorkerError, match=f"no Ray cluster answers at {address}"):
            en.evolve(RoughProblem(), executor=RayExecutor(address), population=4)
    assert time.monotonic() - began < 15


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'evonas\[ray\]'"):
        RayExecutor()
