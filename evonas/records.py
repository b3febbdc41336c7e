"""The records of a search: frozen, plain data, JSON in and out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from evonas.arguments import no_attribute
from evonas.exceptions import WeightsError

__all__ = ["EpochMetrics", "Evaluation", "Genes", "Status", "as_metric"]

Genes = dict[str, Any]
"""One point of a search space as plain data: `{"lr": 0.01, "conv1_filters": 64}`."""


class Status(StrEnum):
    """How an evaluation ended. Only `OK` has a fitness; only `OK` and `INVALID` are final."""

    OK = "ok"
    PRUNED = "pruned"
    INVALID = "invalid"
    FAILED = "failed"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    LOST = "lost"

    @property
    def is_final(self) -> bool:
        """Whether the same point would end the same way: it is never evaluated again."""
        return self in (Status.OK, Status.INVALID)

    @property
    def is_failure(self) -> bool:
        """Whether it counts towards the failures in a row that stop a search."""
        return self not in (Status.OK, Status.INVALID, Status.PRUNED)


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """One `trial.report(...)`: the metrics of one epoch.

    Attributes:
        epoch: From 0.
        seconds: Since the trial began.
        metrics: Name to value.
    """

    epoch: int
    seconds: float
    metrics: Mapping[str, float]


_OTHER_WORDS = {
    "model": "load_model()", "module": "load_model()", "network": "load_model()",
    "weights": 'files["weights.pt"]', "params": "genes", "parameters": "genes", "config": "genes",
    "hyperparameters": "genes", "value": "fitness", "score": "fitness", "state": "status",
    "duration": "seconds", "index": "number", "id": "number",
}  # fmt: skip


class KeptFiles(Protocol):
    """Where the files of a run's trials are."""

    def of(self, number: int) -> dict[str, Path]:
        """Returns the files of an evaluation by name."""

    def is_repeats(self, number: int) -> bool:
        """Whether those are of its first repeat in `confirm`."""

    def network(self, number: int) -> dict[str, Any]:
        """Returns what is known of an evaluation's model, as JSON."""

    def can_build(self, number: int) -> bool:
        """Whether another process needs no function of the user's to build the module."""

    def load_model(self, evaluation: Evaluation, build: Any) -> Any:
        """Returns the module of an evaluation with its trained weights."""


@dataclass(frozen=True, slots=True, repr=False)
class Evaluation:
    """The record of one finished trial; printed, number, status, fitness and genes of it.

    Attributes:
        number: Place in the order in which the search asked for it, from 0. The files of a run
            carry this number. Reused duplicates take none.
        key: What the point builds, as a SHA-256 (see `Problem.key`).
        genes: The active genes.
        status: How it ended.
        values: One value per objective, in the order of the objectives; empty unless `ok`
            (or `pruned`: the last values reported).
        metrics: Whatever else the fitness function put on record.
        epochs: One entry per `trial.report(...)`.
        seconds: Wall-clock seconds of the trial.
        seed: The trial's seed, derived from the run's seed and the key.
        error: Reason and traceback where there is no fitness.
        started_at: Seconds since 1970 (UTC) at which the trial began.
        output: File with what the trial printed, relative to the run's directory; None where it
            printed nothing, or to the terminal.
        kept: The files of the run's trials; None for an evaluation of no run.
        repeats: The records of its trainings on fresh seeds by `confirm`; `number` is the repeat.
    """

    number: int
    key: str
    genes: Genes
    status: Status
    values: tuple[float, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    epochs: tuple[EpochMetrics, ...] = ()
    seconds: float = 0.0
    seed: int = 0
    error: str | None = None
    started_at: float = 0.0
    output: str | None = None
    kept: KeptFiles | None = field(default=None, compare=False)
    repeats: tuple[Evaluation, ...] = field(default=(), compare=False)

    if not TYPE_CHECKING:  # a type checker would find every name

        def __getattr__(self, name: str) -> Any:
            """Refuses a name that there is not, with the one that is meant."""
            if hasattr(type(self), name):  # a property of it raised: its own error counts
                return object.__getattribute__(self, name)
            metrics = self.metrics if name != "metrics" else {}
            words = {**_OTHER_WORDS, **{metric: f"metrics[{metric!r}]" for metric in metrics}}
            raise no_attribute(
                "an Evaluation", name, [each for each in dir(type(self)) if each[0] != "_"], words
            )

    @property
    def files(self) -> dict[str, Path]:
        """What the trial attached, by name: for the champion, the hall of fame, the Pareto front.

        Empty where the trial attached nothing or its files were not kept; see `evolve`.
        """
        return {} if self.kept is None else self.kept.of(self.number)

    @property
    def weights_of(self) -> Evaluation | None:
        """The training that left `files`: its score is that of `load_model()`; None: no files.

        This evaluation itself; after `confirm`, for the champion, the first of its `repeats`: it
        has another seed and another score than the search's evaluation.
        """
        if self.kept is None or not self.files:
            return None
        if not self.kept.is_repeats(self.number):
            return self
        return next((repeat for repeat in self.repeats if repeat.number == 0), None)

    def load_model(self, build: Callable[[Genes], Any] | Any | None = None) -> Any:
        """Returns the trained `torch.nn.Module` of this evaluation, in evaluation mode, on the CPU.

        No code of the run is executed: weights are tensors, and a network that is known as data
        (those of `evonas.nas`) is built of it. Any other module only your code can build: the
        function of a `ModelProblem` or `FreezingProblem` is found again by its file and name where
        you made the run, on this machine (its place is signed), in a file with a `__main__` guard.

        Args:
            build: `genes -> module`, as in the search; the model factory of a `FreezingProblem`,
                also where it takes no argument; or the `Problem`. None: the problem of this
                process's `evolve`, the network that the run describes, or that function.

        Raises:
            WeightsError: There are no weights (says why), nothing to build the module with, or
                the module does not fit them (names the layers).
        """
        if self.kept is None:
            raise WeightsError(f"evaluation {self.number} belongs to no run, so it has no weights")
        return self.kept.load_model(self, build)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How examples became what the trained model takes, where the problem knows it.

        With `scale`, `mean` and `std`: `(input / scale - mean) / std` for each channel, which
        whoever calls the model must do, too. `size`: height and width of the images. `transform`:
        the name of the function that `Examples(transform=...)` got, to be called on a batch after
        that. `classes`: the names of the model's outputs, in their order.

        Raises:
            WeightsError: The file that describes the model is damaged.
        """
        found = {} if self.kept is None else self.kept.network(self.number).get("preprocessing")
        return dict(found) if isinstance(found, Mapping) else {}

    @property
    def fitness(self) -> float | tuple[float, ...] | None:
        """The value (a tuple with several objectives), or None where there is none."""
        if self.status is not Status.OK:
            return None
        return self.values[0] if len(self.values) == 1 else self.values

    def __repr__(self) -> str:
        found = self.status.value
        if self.values:
            found = f"fitness {', '.join(f'{value:.4g}' for value in self.values)}"
        return f"<Evaluation {self.number}: {found}, genes {self.genes}>"


def as_metric(name: str, value: Any) -> Any:
    """Returns a copy of a metric's value as plain JSON, which every reader of a run can take.

    Numbers of NumPy and tensors of one number become Python's, tuples lists, keys strings.

    Args:
        name: The metric's, for the error.
        value: A number, string, None, list, tuple or dict of them.

    Raises:
        TypeError: It, or something in it, is something else.
        ValueError: It is nested deeper than 50, or an int is larger than floats go.
    """
    return _plain(name, value, _MAX_DEPTH)


_MAX_DEPTH = 50


def _plain(name: str, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Real):
        try:
            as_float = float(value)
        except OverflowError:
            raise ValueError(f"the metric {name!r} is an int that no float can hold") from None
        return int(value) if isinstance(value, Integral) else as_float
    if not depth:
        raise ValueError(f"the metric {name!r} is nested deeper than {_MAX_DEPTH}")
    if isinstance(value, (list, tuple)):
        return [_plain(name, entry, depth - 1) for entry in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(name, entry, depth - 1) for key, entry in value.items()}
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return _plain(name, value.item(), depth - 1)
    hint = "; for a tensor or array: .item() or .tolist()" if hasattr(value, "item") else ""
    raise TypeError(
        f"the metric {name!r} must be JSON (numbers, strings, lists, dicts), got "
        f"{type(value).__name__}{hint}"
    )
