"""Trials on a Ray cluster."""

from __future__ import annotations

import importlib
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from evonas.exceptions import MissingDependencyError, WorkerError
from evonas.execution.futures import FuturesExecutor
from evonas.problem import Problem

__all__ = ["RayExecutor"]

_CONNECT_SECONDS = 5.0
_LOOK_SECONDS = 5.0  # between two looks at how large the cluster is


class RayExecutor(FuturesExecutor):
    """Runs each trial as a task of a Ray cluster; the run's directory stays with the driver.

    The nodes need evonas and what the fitness function imports, but no common disk. A trial whose
    node is lost runs again on another one; nodes that join are used.

    Args:
        address: `"host:port"`, `"ray://host:port"`, or `"auto"` for the cluster that this machine
            belongs to. None: the one that this process is connected to, else one made of this
            machine alone.
        cpus_per_trial: Cores that a trial takes, and the threads that it computes with.
        gpus_per_trial: GPUs that a trial takes; with 0.25 four trials share one.
        slots: How many trials to run at once. None: as many as the cluster has room for.
        lost_retries: How often a trial whose process or node was lost is run again.
        init: More arguments of `ray.init`: `{"runtime_env": {"pip": ["evonas"]}}`.

    Raises:
        MissingDependencyError: Ray is not installed.
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        cpus_per_trial: float = 1,
        gpus_per_trial: float = 0,
        slots: int | None = None,
        lost_retries: int = 2,
        init: Mapping[str, Any] | None = None,
    ) -> None:
        if cpus_per_trial <= 0 or gpus_per_trial < 0:
            raise ValueError(
                "cpus_per_trial must be above 0 and gpus_per_trial at least 0, got "
                f"{cpus_per_trial} and {gpus_per_trial}"
            )
        self._ray = _import_ray()
        self._address = address
        self._demand = {"CPU": cpus_per_trial, "GPU": gpus_per_trial}
        self._fixed_slots = slots
        self._looked_at = -_LOOK_SECONDS
        self._init = dict(init or {})
        self._connected = False  # by this executor
        device = "cuda:0" if gpus_per_trial else "cpu"  # of those that Ray shows the task
        pool = _Tasks(self._ray, self._demand)
        super().__init__(pool, slots=slots or 1, device=device, lost_retries=lost_retries)

    @property
    def threads_per_trial(self) -> int:
        """The cores that a trial takes."""
        return max(1, int(self._demand["CPU"]))

    @property
    def slots(self) -> int:
        """How many trials the cluster has room for, looked up every few seconds."""
        due = self._fixed_slots is None and time.monotonic() - self._looked_at >= _LOOK_SECONDS
        if due and self._ray.is_initialized():
            self._looked_at = time.monotonic()
            self._slots = max(1, self._room())
        return self._slots

    def start(self, problem: Problem) -> None:
        """Connects to the cluster and packs the problem.

        Raises:
            WorkerError: No cluster answers, or it has no room for a single trial.
            TypeError: The problem cannot be pickled.
        """
        if not self._ray.is_initialized():
            self._connect()
            self._connected = True
        if self._fixed_slots is None and self._room() < 1:
            found = {name: self._ray.cluster_resources().get(name, 0) for name in self._demand}
            self.shutdown()
            raise WorkerError(
                f"the Ray cluster has {found}, which is no room for a trial of {self._demand}: "
                "pass smaller cpus_per_trial or gpus_per_trial, or add nodes"
            )
        super().start(problem)

    def shutdown(self) -> None:
        """Cancels all tasks, and disconnects if this executor has connected."""
        super().shutdown()
        self._pool.forget()
        if self._connected:
            self._ray.shutdown()
            self._connected = False

    def _connect(self) -> None:
        address = self._address
        if address is not None and ":" in address.removeprefix("ray://"):
            host, _, port = address.removeprefix("ray://").rpartition(":")
            try:  # ray.init itself would try for minutes
                socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
            except (OSError, ValueError) as error:
                raise WorkerError(
                    f"no Ray cluster answers at {address} ({error}): start one with `ray start "
                    "--head`, or pass the address that it names"
                ) from error
        # Its warnings and what trials print would else be mixed into the driver's output.
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            self._ray.init(address=address, **{**quiet, **self._init})
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise WorkerError(
                f"no Ray cluster could be reached at {address or 'this machine'} ({error})"
            ) from error

    def _room(self) -> int:
        resources = self._ray.cluster_resources()
        return min(
            int(resources.get(name, 0) // amount) for name, amount in self._demand.items() if amount
        )


class _Tasks:
    """Ray's tasks with the `submit` of a pool."""

    def __init__(self, ray: Any, demand: Mapping[str, float]) -> None:
        self._ray = ray
        self._options = {"num_cpus": demand["CPU"], "num_gpus": demand["GPU"], "max_retries": 0}
        self._problems: dict[str, Any] = {}  # by digest, where Ray keeps it for all its nodes

    def submit(
        self, function: Callable[..., Any], digest: str, problem: bytes | None, task: bytes
    ) -> _Call:
        reference = None
        if problem is not None:
            if digest not in self._problems:
                self._problems[digest] = self._ray.put(problem)
            reference = self._problems[digest]
        remote = self._ray.remote(**self._options)(function)
        return _Call(self._ray, remote.remote(digest, reference, task))

    def forget(self) -> None:
        self._problems.clear()


class _Call:
    """The future of a Ray task, which can be cancelled while it runs."""

    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray = ray
        self._reference = reference
        self._future = reference.future()
        self.exception, self.result = self._future.exception, self._future.result

    def add_done_callback(self, call: Callable[[Any], None]) -> None:
        self._future.add_done_callback(lambda future: call(self))

    def cancel(self) -> None:
        self._ray.cancel(self._reference, force=True)


def _import_ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingDependencyError(
            f"RayExecutor needs Ray, which does not import ({error}): pip install 'evonas[ray]'"
        ) from error
