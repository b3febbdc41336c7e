"""`RunRecord`: what a run is, as its database keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from evonas.objectives import Limits, Objective
from evonas.records import Genes

__all__ = ["RunRecord"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RunRecord:
    """What a run is: fixed at its first start, except for the last four attributes.

    Attributes:
        space: The search space (`SearchSpace.to_json`).
        fingerprint: What names the problem: its data, its settings (`Problem.fingerprint`).
        objectives: What is optimised.
        strategy: Name and settings of the strategy.
        initial: Points of the first population that the user or the problem gave.
        deterministic: Whether torch may use deterministic algorithms only.
        pruner: Name and settings of the pruner; None: no pruning.
        problem_settings: What `Problem.configure` chose.
        seed: Root of all randomness.
        threads: Threads per trial.
        workers: Trials at once, where a measurement chose them; None: the user did, or one.
        device: Kind of the device on which trials computed first, `"cpu"` or `"cuda"`; None: they
            do not use torch.
        process: What was set for the whole process when the run began (`changed_state`).
        tie_breaker: The recorded metric of which less is better among equals, if there is one.
        chosen_for: Why `"auto"` chose this strategy; None: the user chose it.
        strip: How points are drawn as a strip of blocks (`Problem.strip`); empty: they are not.
        n_copied: How many evaluations `warm_start` copied in; they have the first numbers.
        copied_from: The directories of those runs, each with the numbers that its evaluations have
            there, in the order of the copies.
        metadata: What the user noted at the latest start.
        retryable: Numbers of evaluations that failed before the user fixed the cause; their
            points may be tried again.
        confirmed_champion: Key of the point that `confirm` found best; None: it has not finished,
            or the search went on after it.
        baselines: Genes by key of the points that only `confirm` evaluated, in the order in which
            it met them.
    """

    space: dict[str, Any]
    fingerprint: dict[str, Any]
    objectives: tuple[Objective, ...]
    strategy: dict[str, Any]
    initial: tuple[Genes, ...]
    deterministic: bool
    pruner: dict[str, Any] | None
    problem_settings: dict[str, Any]
    seed: int
    threads: int
    workers: int | None = None
    device: str | None = None
    process: dict[str, Any] = field(default_factory=dict)
    tie_breaker: str | None = None
    chosen_for: str | None = None
    strip: dict[str, Any] = field(default_factory=dict)
    n_copied: int = 0
    copied_from: tuple[tuple[str, list[int]], ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    retryable: tuple[int, ...] = ()
    confirmed_champion: str | None = None
    baselines: dict[str, Genes] = field(default_factory=dict)

    def __repr__(self) -> str:
        wanted = ", ".join(f"{each.name} ({each.direction})" for each in self.objectives)
        return (
            f"<RunRecord: {self.strategy_name}, {len(self.gene_specs)} genes, {wanted}, "
            f"seed {self.seed}, {self.threads} threads>"
        )

    @property
    def gene_specs(self) -> list[dict[str, Any]]:
        """The genes' JSON, in the order of the space."""
        return list(self.space["genes"])

    @property
    def gene_names(self) -> list[str]:
        """The genes' names, in the order of the space."""
        return [str(spec["name"]) for spec in self.gene_specs]

    @property
    def strategy_name(self) -> str:
        """The name of the strategy's class."""
        return str(self.strategy["name"])

    @property
    def precision(self) -> str | None:
        """The arithmetic in which trials train and score; None: of a problem without one."""
        found = self.problem_settings.get("precision")
        return found if isinstance(found, str) else None

    @property
    def origins(self) -> dict[int, tuple[str, int]]:
        """Number of a copy to its run's directory and its number there, where that is on record."""
        came = [(run, number) for run, numbers in self.copied_from for number in numbers]
        return dict(enumerate(came))

    @property
    def limits(self) -> Limits:
        """The limits that the strategy keeps to, and what is better among equals."""
        return replace(Limits.of(self.strategy), tie_breaker=self.tie_breaker)

    def to_json(self) -> dict[str, Any]:
        """Returns each attribute by name, as JSON values."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)} | {
            "objectives": [[entry.name, entry.direction] for entry in self.objectives],
            "initial": list(self.initial),
            "retryable": list(self.retryable),
            "copied_from": [list(entry) for entry in self.copied_from],
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> RunRecord:
        """Returns the record of which `to_json` is given.

        Raises:
            TypeError, ValueError: It is not one.
        """
        types = {
            "space": dict, "fingerprint": dict, "objectives": list, "strategy": dict,
            "initial": list, "deterministic": bool, "problem_settings": dict, "seed": int,
            "threads": int, "n_copied": int, "metadata": dict, "retryable": list,
            "baselines": dict, "strip": dict, "copied_from": list,
        }  # fmt: skip
        # A run that was begun before there were any has none.
        found = {"strip": {}, "copied_from": [], **found}
        for name, kind in types.items():
            if not isinstance(found.get(name), kind):
                raise TypeError(f"{name} of the run must be a {kind.__name__}")
        return cls(
            **{
                **found,
                "objectives": tuple(Objective(*entry) for entry in found["objectives"]),
                "initial": tuple(found["initial"]),
                "retryable": tuple(found["retryable"]),
                "copied_from": tuple(
                    (str(run), list(numbers)) for run, numbers in found["copied_from"]
                ),
            }
        )
