"""Trials on a Ray cluster."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from evonas.arguments import check_int, check_mapping, check_number, check_string
from evonas.exceptions import MissingDependencyError, WorkerError
from evonas.execution.futures import FuturesExecutor
from evonas.problem import Problem

__all__ = ["RayExecutor"]

_CONNECT_SECONDS = 5.0
_MOST_OF_A_NODE = 1e6  # cores or GPUs: no machine has as many
_LOOK_SECONDS = 5.0  # between two looks at how large the cluster is

# The first bytes of HTTP/2, with an empty SETTINGS frame (RFC 9113, sections 3.4 and 6.5): any gRPC
# server answers them with a SETTINGS frame of its own.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)


class RayExecutor(FuturesExecutor):
    """Runs each trial as a task of a Ray cluster; the run's directory stays with the driver.

    The nodes need evonas and what the fitness function imports, but no common disk. A trial whose
    node is lost runs again on another one; nodes that join are used. What a trial prints comes back
    with its outcome.

    Args:
        address: `"host:port"`; `"auto"` for the cluster that this machine belongs to; `"local"` for
            one made of this machine alone. None: the one that this process is connected to, else
            that of `RAY_ADDRESS`, else as `"auto"`, else as `"local"`. The driver must run on a
            machine of the cluster.
        cpus_per_trial: Cores that a trial takes, and the threads that it computes with.
        gpus_per_trial: GPUs that a trial takes; with 0.25 four trials share one.
        slots: How many trials to run at once; say it where the cluster grows on demand. None: as
            many as the cluster has room for.
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
        if address is not None:
            check_string("address", address)
        check_number("cpus_per_trial", cpus_per_trial, above=0, maximum=_MOST_OF_A_NODE)
        check_number("gpus_per_trial", gpus_per_trial, minimum=0, maximum=_MOST_OF_A_NODE)
        if slots is not None:
            check_int("slots", slots, minimum=1)
        if init is not None:
            check_mapping("init", init)
        if gpus_per_trial > 1 and gpus_per_trial % 1:
            raise ValueError(
                f"gpus_per_trial above 1 must be a whole number, got {gpus_per_trial}: only one "
                "GPU can be shared"
            )
        self._ray = _import_ray()
        self._address = address
        self._demand = {"CPU": cpus_per_trial}
        if gpus_per_trial:
            self._demand["GPU"] = gpus_per_trial
        self._fixed_slots = slots
        self._looked_at = -_LOOK_SECONDS
        self._init = dict(init or {})
        self._connected = False  # by this executor
        device = "cuda:0" if gpus_per_trial else "cpu"  # of those that Ray shows the task
        at_first = 1 if slots is None else slots
        super().__init__(
            _Tasks(self._ray, self._demand),
            slots=at_first,
            device=device,
            lost_retries=lost_retries,
        )

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
        super().start(problem)
        try:
            if self._ray.is_initialized():
                self._check_address()
            else:
                self._connect()
            if self._fixed_slots is None:
                self._check_room()
        except BaseException:
            self.shutdown()
            raise

    def shutdown(self) -> None:
        """Cancels all tasks, and disconnects if this executor has connected."""
        super().shutdown()
        self._pool.forget()
        if self._connected:
            self._ray.shutdown()
            self._connected = False

    def _connect(self) -> None:
        shown = self._address or "this machine"
        # Its warnings and what trials print would else be mixed into the driver's output.
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            server = _server_of(self._address)
            if server is not None:
                _check_answer(server)
            with _kept_signals():
                self._ray.init(address=self._address, **{**quiet, **self._init})
            self._connected = True
        except (OSError, RuntimeError, ValueError) as error:
            raise WorkerError(
                f"no Ray cluster answers at {shown} ({error}): start one with `ray start --head`, "
                'pass the address that it names, or "local" for this machine alone; one that asks '
                "for a token needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here as on its machines"
            ) from error

    def _check_address(self) -> None:
        if self._connected or self._address is None:
            return
        server = _server_of(self._address)
        found = self._ray.get_runtime_context().gcs_address
        # By port alone: a host has several names.
        if server is not None and str(server[1]) != found.rpartition(":")[2]:
            raise WorkerError(
                f"this process is connected to the Ray cluster at {found}, not to {self._address}: "
                "call ray.shutdown() first, or leave the address out"
            )

    def _nodes(self) -> list[dict[str, float]]:
        """Returns what each node has."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _check_room(self) -> None:
        if self._room() < 1:
            found = [{name: has.get(name, 0.0) for name in self._demand} for has in self._nodes()]
            raise WorkerError(
                f"the Ray cluster has nodes with {found}, none of which has room for a trial of "
                f"{self._demand}: pass smaller cpus_per_trial or gpus_per_trial, or add nodes"
            )

    def _room(self) -> int:
        """Returns how many trials fit into the cluster; none spans two nodes, or two GPUs."""
        return sum(
            min(_n_fitting(name, has.get(name, 0.0), self._demand[name]) for name in self._demand)
            for has in self._nodes()
        )


def _n_fitting(name: str, has: float, amount: float) -> int:
    """Returns how many times a node that has so much of a resource can give an amount of it."""

    def floor(quotient: float) -> int:
        return int(quotient + 1e-6)  # 1 // 0.2 is 4

    return floor(has) * floor(1 / amount) if name == "GPU" and amount < 1 else floor(has / amount)


def _server_of(address: str | None) -> tuple[str, int] | None:
    """Returns whom `ray.init` will ask; None where it starts a cluster, or finds one itself.

    Raises:
        ConnectionError: There is none.
        ValueError: The address is not one.
        WorkerError: It is one of another kind.
    """
    if address in (None, "auto"):
        address = os.environ.get("RAY_ADDRESS") or address
    if address is not None and address.startswith("ray://"):
        # Tried with Ray 2.60: its client waited for ever, and took no signal.
        raise WorkerError(
            f"{address} is an address for drivers outside the cluster, which evonas does not "
            "support: run it on a machine of the cluster, with address 'auto' or 'host:port'"
        )
    # It knows the cluster that was started on this machine, and is left out where it moved.
    services = importlib.import_module("ray._private.services")
    find = getattr(services, "canonicalize_bootstrap_address", lambda address: address)
    address = find(address)
    if address in (None, "auto", "local"):
        return None
    host, _, port = str(address).rpartition(":")
    return host.strip("[]") or "127.0.0.1", int(port)


def _check_answer(server: tuple[str, int]) -> None:
    """Asks for a sign of life, within seconds: `ray.init` itself would wait for minutes.

    Raises:
        OSError: Nobody answers.
        ConnectionError: It is no server that Ray could talk to.
    """
    with socket.create_connection(server, timeout=_CONNECT_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0") == "1":
            return  # it would want to see a certificate first
        connection.sendall(_HELLO)
        answer = connection.recv(9)
    if answer[3:4] != _HELLO[-6:-5]:
        raise ConnectionError("what listens there is not Ray")


@contextmanager
def _kept_signals() -> Iterator[None]:
    """Keeps the handler of SIGTERM, in place of which Ray puts one that ends the process."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


class _Tasks:
    """Ray's tasks with the `submit` of a pool."""

    def __init__(self, ray: Any, demand: Mapping[str, float]) -> None:
        self._ray = ray
        self._options = {"num_cpus": demand["CPU"], "num_gpus": demand.get("GPU", 0)}
        self._options["max_retries"] = 0  # of ours, which know the reason
        self._problems: dict[str, Any] = {}  # by digest, where Ray keeps it for all its nodes
        # One for each function, kept: Ray hands every new one to all its processes for good.
        self._remote: dict[Callable[..., Any], Any] = {}

    def submit(
        self, function: Callable[..., Any], digest: str, problem: bytes | None, task: bytes
    ) -> _Call:
        reference = None
        if problem is not None:
            if digest not in self._problems:
                self._problems[digest] = self._ray.put(problem)
            reference = self._problems[digest]
        if function not in self._remote:
            self._remote[function] = self._ray.remote(**self._options)(function)
        return _Call(self._ray, self._remote[function].remote(digest, reference, task))

    def forget(self) -> None:
        self._problems.clear()
        self._remote.clear()


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
        raise MissingDependencyError.of(
            "RayExecutor", "Ray", error, "pip install 'evonas[ray]'"
        ) from error
