"""A run as an Optuna study in an SQLite file."""

from __future__ import annotations

import datetime
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from evonas.cli.export.rows import reason
from evonas.exceptions import EvonasError, MissingDependencyError
from evonas.files import replace_file
from evonas.records import Evaluation, Status
from evonas.report.formats import plain
from evonas.run.result import Result
from evonas.space import SearchSpace
from evonas.space.canonical import canonical_json
from evonas.space.genes import Boolean, Categorical, Float, Gene, Integer

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

__all__ = ["write_study"]


def write_study(result: Result, path: Path) -> tuple[Path, str]:
    """Writes a new SQLite file with one study and returns where, and the study's name.

    A trial is an evaluation of the same number: COMPLETE for `ok`, PRUNED for `pruned`, FAIL for
    all others (the attribute `status` says which). Genes are parameters with their distributions;
    intermediate values are what was reported of the first objective, epoch by epoch.

    Raises:
        MissingDependencyError: Optuna is not installed.
        EvonasError: The file exists.
        RunStorageError: It cannot be written.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingDependencyError.of(
            "export --format optuna", "optuna", error, "pip install 'evonas[export]'"
        ) from error
    if path.exists():
        raise EvonasError(f"{path} exists, and may hold other studies: pass another -o")
    name = "/".join(result.run_dir.resolve().parts[-2:]) if result.run_dir else "evonas"
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        replace_file(path, lambda part: _write_study(part, name, result), way_out="pass another -o")
    finally:
        optuna.logging.set_verbosity(verbosity)
    return path, name


def _write_study(part: Path, name: str, result: Result) -> None:
    import optuna

    storage = optuna.storages.RDBStorage(f"sqlite:///{part}")
    _hurry(storage)
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=[
            "maximize" if entry.direction == "max" else "minimize" for entry in result.objectives
        ],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental, says Optuna
        study.set_metric_names([objective.name for objective in result.objectives])
    study.set_user_attr("evonas", plain(_about(result)))
    # Optuna takes some 20 ms for each: a large run takes minutes, and says so on a terminal.
    for trial in tqdm(_trials(result), desc="trials", unit="", file=sys.stderr, disable=None):
        study.add_trial(trial)
    storage.remove_session()
    storage.engine.dispose()


def _hurry(storage: RDBStorage) -> None:
    """Lets SQLite write without waiting for the disk: the file gets its name when it is whole."""
    from sqlalchemy import event

    def relax(connection: Any, record: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = MEMORY")

    storage.engine.dispose()
    event.listen(storage.engine, "connect", relax)


def _about(result: Result) -> dict[str, Any]:
    names = ("strategy", "seed", "fingerprint", "metadata")
    return {
        "run_dir": str(result.run_dir),
        **{name: getattr(result.record, name) for name in names},
    }


def _trials(result: Result) -> list[FrozenTrial]:
    names = result.record.space.get("constraints") or ()
    # The predicates cannot be stored, and nothing is drawn here.
    space = SearchSpace.from_json(
        result.record.space, constraints=dict.fromkeys(names, lambda genes: True)
    )
    parameters = {name: _Parameter(gene) for name, gene in space.items()}
    return [
        _trial(place, entry, parameters, result) for place, entry in enumerate(result.evaluations)
    ]


class _Parameter:
    """A gene as a distribution of Optuna's."""

    def __init__(self, gene: Gene) -> None:
        self._texts: dict[str, str] | None = None
        self.distribution = self._distribution(gene)

    def value(self, value: Any) -> Any:
        """Returns a gene's value as the distribution knows it."""
        return value if self._texts is None else self._texts[canonical_json(value)]

    def _distribution(self, gene: Gene) -> BaseDistribution:
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        if isinstance(gene, Float):
            return FloatDistribution(gene.low, gene.high, log=gene.log, step=gene.step)
        if isinstance(gene, Integer):
            last = gene.low + (gene.cardinality - 1) * gene.step
            # Optuna has no logarithmic grid of larger steps.
            log = gene.log and gene.step == 1
            return IntDistribution(gene.low, last, step=gene.step, log=log)
        if isinstance(gene, Boolean):
            return CategoricalDistribution((False, True))
        if not isinstance(gene, Categorical):
            raise EvonasError(f"a {type(gene).__name__} gene has no like among Optuna's")
        choices = tuple(gene.all_values())
        simple = all(each is None or isinstance(each, (bool, int, float, str)) for each in choices)
        # To Python (and Optuna) True is 1 and 1 is 1.0; to a gene they are three choices.
        if not simple or len(set(choices)) < len(choices):
            self._texts = {canonical_json(each): canonical_json(each) for each in choices}
            choices = tuple(self._texts)
        return CategoricalDistribution(choices)


def _trial(
    number: int, entry: Evaluation, parameters: Mapping[str, _Parameter], result: Result
) -> FrozenTrial:
    from optuna.trial import FrozenTrial, TrialState

    state = {Status.OK: TrialState.COMPLETE, Status.PRUNED: TrialState.PRUNED}.get(
        entry.status, TrialState.FAIL
    )
    values = list(entry.values) if state is not TrialState.FAIL and entry.values else None
    if state is TrialState.PRUNED and len(result.objectives) > 1:
        values = None
    began = datetime.datetime.fromtimestamp(entry.started_at)
    attributes = {
        "status": entry.status.value,
        "key": entry.key,
        "seed": entry.seed,
        **({"error": reason(entry)} if entry.error else {}),
        **({"metrics": dict(entry.metrics)} if entry.metrics else {}),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns of values that are not on its own grid
        return FrozenTrial(
            number=number,
            trial_id=number,
            state=state,
            value=None,
            values=values,
            datetime_start=began,
            datetime_complete=began + datetime.timedelta(seconds=entry.seconds),
            params={name: parameters[name].value(value) for name, value in entry.genes.items()},
            distributions={name: parameters[name].distribution for name in entry.genes},
            user_attrs=plain(attributes),
            system_attrs={},
            intermediate_values=_curve(entry, result.objectives[0].name),
        )


def _curve(entry: Evaluation, objective: str) -> dict[int, float]:
    """Returns what was reported of the objective, or else of the first thing reported."""
    if not entry.epochs:
        return {}
    first = entry.epochs[0].metrics
    name = objective if objective in first else next(iter(first), objective)
    return {
        epoch.epoch: float(epoch.metrics[name]) for epoch in entry.epochs if name in epoch.metrics
    }
