"""What a search found, read from its database."""

from __future__ import annotations

import math
import os
import statistics
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deap import tools

from evonas.arguments import no_attribute
from evonas.callbacks.base import Counts
from evonas.evolution.front import pareto_front
from evonas.exceptions import EvonasError, MissingDependencyError
from evonas.files import as_directory, display_path
from evonas.records import Evaluation, Genes, Status
from evonas.report.formats import number
from evonas.run.fitness_model import FitnessModel, Slice
from evonas.run.importance import Importance, importance_of
from evonas.run.notebook import as_html
from evonas.run.repeats import repeats_text
from evonas.run.store import PlannedProposal, RunReader, RunRecord
from evonas.space import SearchSpace

if TYPE_CHECKING:
    import pandas
    from plotly.graph_objects import Figure

__all__ = [
    "DEFAULT_HALL_OF_FAME",
    "Confirmed",
    "Result",
    "baseline_number",
    "best_evaluations",
    "confirmed_champion",
    "open_run",
    "read_confirmed",
]


DEFAULT_HALL_OF_FAME = 10
"""Its size where a strategy does not say."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """An evaluation that was repeated on fresh seeds, because a best single score is partly luck.

    Attributes:
        evaluation: What the search recorded; where it has no fitness for the point, the first
            repeat that has one (with a negative number if the search never tried the point).
        repeats: The records of the repeats; `number` is the repeat.
        values: The first objective of those repeats that ended `ok`.
    """

    evaluation: Evaluation
    repeats: tuple[Evaluation, ...]

    @property
    def values(self) -> tuple[float, ...]:
        """One value per repeat that ended `ok`."""
        return tuple(entry.values[0] for entry in self.repeats if entry.status is Status.OK)

    @property
    def mean(self) -> float:
        """Mean over the repeats (NaN where none ended `ok`)."""
        return statistics.fmean(self.values) if self.values else float("nan")

    @property
    def std(self) -> float:
        """Sample standard deviation over the repeats (NaN for fewer than two)."""
        return statistics.stdev(self.values) if len(self.values) > 1 else float("nan")


_OTHER_WORDS = {
    "best": "champion", "best_trial": "champion", "best_individual": "champion",
    "winner": "champion", "best_model": "champion.load_model()", "best_params": "champion.genes",
    "best_genes": "champion.genes", "best_config": "champion.genes",
    "best_value": "champion.fitness", "best_score": "champion.fitness",
    "best_fitness": "champion.fitness", "best_trials": "pareto_front", "front": "pareto_front",
    "trials": "evaluations", "history": "evaluations", "dataframe": "to_frame()",
    "df": "to_frame()", "path": "run_dir",
}  # fmt: skip


class Result:
    """What a search found: champion, hall of fame, logbook, evaluations.

    Made by `evolve` and `open_run`. The summary is read at once, `evaluations` when asked for.

    Where the strategy has limits (`NSGA2`), champion, hall of fame and Pareto front are within
    them; as long as no evaluation is, they are of those with the smallest violation, and
    `counts.unmet` says so.

    Attributes:
        run_dir: The run's directory, or None for a run in memory.
        record: What the run is: space, fingerprint, strategy, seed, metadata, …
        objectives: What was optimised.
        counts: How many proposals were trained, reused, and failed in which way.
        seconds: Wall-clock seconds of all starts.
        outcome: How the last start ended: `finished`, `interrupted`, `failures`, `error`, or None
            while it runs (or was killed).
        stop_reason: The same in words.
    """

    def __init__(self, reader: RunReader, *, keep_open: bool = False) -> None:
        self.run_dir = reader.run_dir
        self._reader = reader if keep_open else None
        if keep_open:
            weakref.finalize(self, reader.close)
        self.record = reader.begun_record()
        if reader.files is not None:
            reader.files = replace(reader.files, copied=self.record.origins)
        self._files = reader.files
        self.objectives = self.record.objectives
        by_status = reader.counts()
        self.counts = Counts(
            reused=by_status.pop("reused"), by_status=by_status, copied=self.record.n_copied
        )
        self.seconds = reader.seconds()
        sessions = reader.sessions()
        self.outcome: str | None = sessions[-1]["outcome"] if sessions else None
        self.stop_reason: str | None = sessions[-1]["reason"] if sessions else None
        self.logbook = _logbook(reader.logbook())
        n_best = self.record.strategy.get("hall_of_fame", DEFAULT_HALL_OF_FAME)
        self._hall = best_evaluations(reader, n_best)
        if reader.files is not None:  # what it keeps, it can say to be gone
            kept = frozenset(entry.number for entry in self._hall)
            self._files = reader.files = replace(reader.files, best=kept)
            self._hall = [replace(entry, kept=self._files) for entry in self._hall]
        best = next(iter(self._hall), None)
        self.counts.unmet = self.record.limits.unmet(best, self.objectives)
        self._confirmed = read_confirmed(reader)
        self._models: dict[int, FitnessModel] = {}  # by the objective's place
        self._importance: dict[FitnessModel, Importance] = {}

    if not TYPE_CHECKING:  # a type checker would find every name

        def __getattr__(self, name: str) -> Any:
            """Refuses a name that there is not, with the one that is meant."""
            if hasattr(type(self), name):  # a property of it raised: its own error counts
                return object.__getattribute__(self, name)
            raise no_attribute(
                "a Result", name, [each for each in dir(self) if each[0] != "_"], _OTHER_WORDS
            )

    @property
    def champion(self) -> Evaluation:
        """The best evaluation; where `confirm` ran, the one with the best mean.

        Its fitness is the search's single score; `confirmed` has the means, and `weights_of` the
        training whose weights `load_model()` returns.

        Raises:
            EvonasError: No evaluation ended with a fitness.
        """
        for entry in self._confirmed:
            if entry.evaluation.key == self.record.confirmed_champion:
                return entry.evaluation
        if not self._hall:
            counts = ", ".join(f"{n} {name}" for name, n in self.counts.by_status.items() if n)
            error = next((entry.error for entry in self.evaluations if entry.error), None)
            first = f"; the first error: {error.strip().splitlines()[-1]}" if error else ""
            raise EvonasError(
                f"no evaluation has a fitness ({counts or 'nothing evaluated'}){first}"
            )
        return self._hall[0]

    @property
    def hall_of_fame(self) -> list[Evaluation]:
        """The best evaluations, best first, the earlier one first among equals."""
        return list(self._hall)

    @property
    def confirmed(self) -> list[Confirmed]:
        """What `confirm` repeated on fresh seeds, best mean first; empty where it did not run."""
        return list(self._confirmed)

    @cached_property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """Every evaluation of every status, in ask order."""
        with self._open() as reader:
            return tuple(reader.evaluations())

    @cached_property
    def proposals(self) -> tuple[PlannedProposal, ...]:
        """Every proposal of the strategy with its parents, in the order in which it made them."""
        with self._open() as reader:
            return tuple(reader.proposals())

    @cached_property
    def sessions(self) -> list[dict[str, Any]]:
        """One dict per start: started_at, seconds, outcome, reason, environment."""
        with self._open() as reader:
            return reader.sessions()

    @property
    def pareto_front(self) -> list[Evaluation]:
        """The `ok` evaluations that no other dominates, sorted by the first objective."""
        return pareto_front(self.evaluations, self.objectives, self.record.limits)

    def plot(self) -> Figure:
        """Returns the main figure, with plotly: fitness by evaluation and the best so far.

        `evonas.report.plots` has the others, `evonas.report.write_report` all of them in a page.

        Raises:
            MissingDependencyError: plotly is not installed.
            EvonasError: No evaluation has a fitness.
        """
        from evonas.report.progress import progress

        return progress(self)

    def importance(self, objective: str | None = None) -> Importance:
        """Returns how much each gene matters for an objective, and with which others.

        Args:
            objective: Its name. None: the first.

        Raises:
            ValueError: There is no such objective, fewer than ten evaluations have a fitness, or
                all the same; or the space has genes of a class that is not at hand.

        Example:
            >>> from evonas import Float, evolve
            >>> result = evolve(
            ...     {"x": Float(0.0, 1.0), "y": Float(0.0, 1.0)},
            ...     lambda genes, trial: 3 * genes["x"] + genes["y"], max_evaluations=30, seed=0,
            ... )
            >>> {name: round(share, 1) for name, share in result.importance().alone.items()}
            {'x': 0.9, 'y': 0.1}
        """
        model = self._model(objective)
        if model not in self._importance:
            self._importance[model] = importance_of(model)
        return self._importance[model]

    def slice(
        self, gene: str, *, genes: Genes | None = None, objective: str | None = None
    ) -> Slice:
        """Returns what is expected of an objective when one gene changes, and how sure that is.

        By the model of `importance`: a Gaussian process of the evaluations.

        Args:
            gene: Its name.
            genes: Values of the others. None: the champion's.
            objective: Its name. None: the first.

        Raises:
            ValueError: There is no such gene or objective, or too little to learn from, as for
                `importance`.

        Example:
            >>> from evonas import Float, evolve
            >>> result = evolve(
            ...     {"x": Float(0.0, 1.0)}, lambda genes, trial: 1 + genes["x"] ** 2,
            ...     max_evaluations=20, seed=0,
            ... )
            >>> along = result.slice("x")
            >>> [round(mean, 2) for mean in along.mean[::30]]
            [1.0, 1.25, 2.0]
        """
        return self._model(objective).slice(gene, self.champion.genes if genes is None else genes)

    def _model(self, objective: str | None) -> FitnessModel:
        names = [each.name for each in self.objectives]
        if objective is not None and objective not in names:
            raise ValueError(f"there is no objective {objective!r}, only {', '.join(names)}")
        place = 0 if objective is None else names.index(objective)
        if place not in self._models:
            space = SearchSpace.from_json(self.record.space, constraints={})
            ok = [entry for entry in self.evaluations if entry.status is Status.OK]
            self._models[place] = FitnessModel(space, ok, place)
        return self._models[place]

    def to_frame(self) -> pandas.DataFrame:
        """Returns a pandas DataFrame with a row per evaluation.

        Columns: number, status, one per objective, `gene.<name>` in the order of the space,
        `metric.<name>`, seconds, key, error.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingDependencyError.of(
                "to_frame", "pandas", error, "pip install pandas"
            ) from error
        # Not in the order in which the rows bring them: a gene may be inactive in the first.
        columns = ["number", "status", *(objective.name for objective in self.objectives)]
        columns += [f"gene.{name}" for name in self.record.gene_names]
        columns += dict.fromkeys(f"metric.{name}" for e in self.evaluations for name in e.metrics)
        columns += ["seconds", "key", "error"]
        return pandas.DataFrame([self._row(entry) for entry in self.evaluations], columns=columns)

    def _row(self, entry: Evaluation) -> dict[str, Any]:
        row: dict[str, Any] = {"number": entry.number, "status": entry.status.value}
        ok = entry.status is Status.OK
        for index, objective in enumerate(self.objectives):
            row[objective.name] = entry.values[index] if ok else None
        row |= {f"gene.{name}": value for name, value in entry.genes.items()}
        row |= {f"metric.{name}": value for name, value in entry.metrics.items()}
        return row | {"seconds": entry.seconds, "key": entry.key, "error": entry.error}

    @contextmanager
    def _open(self) -> Iterator[RunReader]:
        if self._reader is not None:
            yield self._reader
        elif self.run_dir is not None:
            with RunReader.open(self.run_dir) as reader:
                reader.files = self._files
                yield reader

    @property
    def attachments(self) -> dict[str, Path]:
        """The files that the champion's trial attached (`Trial.attach`), by name."""
        return self.champion.files if self._hall or self._confirmed else {}

    @property
    def location(self) -> str:
        """Where the run is, for people."""
        return "in memory" if self.run_dir is None else display_path(self.run_dir)

    def __repr__(self) -> str:
        best = self.counts.unmet or "no champion"
        if self._hall and not self.counts.unmet:
            values = ", ".join(map(number, self.champion.values))
            best = f"champion {values}{repeats_text(self.champion)}"
        where = self.location if self.run_dir is None else f"of {self.location}"
        copied = f", {words}" if (words := self.counts.copied_words) else ""
        return (
            f"<Result {where}: {best}, {self.counts.evaluated} evaluated, "
            f"{self.counts.reused} reused, {self.counts.failed} failed{copied}>"
        )

    def _repr_html_(self) -> str:
        """Returns what a notebook shows."""
        return as_html(self)


def open_run(run_dir: str | os.PathLike[str]) -> Result:
    """Returns the result so far of a recorded run; works while it is being written.

    Raises:
        FileNotFoundError: There is no run in `run_dir`.
        RunCorruptError: Its database is damaged.
        SchemaVersionError: A newer evonas wrote it.
    """
    path = as_directory(run_dir)
    with RunReader.open(path) as reader:
        return Result(reader)


def best_evaluations(reader: RunReader, n: int) -> list[Evaluation]:
    """Returns the `n` best `ok` evaluations by the first objective.

    Of equals those better in the next objective, then those with less of the run's tie breaker,
    then the earliest. Those within the limits of the run's strategy; if none is, those with the
    smallest violation.
    """
    record = reader.record()
    if record is None:
        return []
    limits, objectives = record.limits, record.objectives
    if not limits and len(objectives) == 1 and limits.tie_breaker is None:
        return reader.best(n, maximise=objectives[0].direction == "max")
    ok = (entry for entry in reader.evaluations() if entry.status is Status.OK)
    return limits.ranked(ok, objectives)[:n]


def read_confirmed(reader: RunReader) -> list[Confirmed]:
    """Returns what `confirm` repeated on fresh seeds, best mean first, those without a value last.

    Of means from unequal numbers of repeats each counts less its standard error (of all points
    together): else the one with the fewest would win by luck. Where the run's strategy has limits,
    points that break them (as the search recorded them) come behind the others.
    """
    record = reader.begun_record()
    repeats = reader.repeats()
    known = reader.known() if repeats else {}
    found = []
    for key, records in repeats.items():
        evaluation = reader.evaluation(known[key].number) if key in known else None
        if evaluation is None or evaluation.status is not Status.OK:
            if evaluation is None:
                number, genes = baseline_number(record.baselines, key), record.baselines[key]
            else:
                number, genes = evaluation.number, evaluation.genes
            best = next((entry for entry in records if entry.status is Status.OK), records[0])
            evaluation = replace(best, number=number, genes=genes, repeats=records)
        found.append(Confirmed(evaluation, records))
    deviation = _pooled_deviation(found)
    unequal = len({len(entry.values) for entry in found if entry.values}) > 1

    def rank(entry: Confirmed) -> tuple[float, ...]:
        if not entry.values:
            return (1.0,)
        excess, cost, tie = _standing(entry, record)
        doubt = deviation / math.sqrt(len(entry.values)) if unequal else 0.0
        return (0.0, excess, cost + doubt, tie)

    return sorted(found, key=rank)


def beaten(reader: RunReader, repeats: int) -> set[int]:
    """Returns the numbers of the points that have all their repeats, and can no longer be the best.

    Another one that has all of its own, and as many values, is better by their mean: repeats that
    are still to come change neither, whatever they make of the others.
    """
    record = reader.begun_record()
    ended = [entry for entry in read_confirmed(reader) if len(entry.repeats) >= repeats]
    scored = [(_standing(entry, record), entry) for entry in ended if entry.values]

    def loses(entry: Confirmed) -> bool:
        return not entry.values or any(
            standing < _standing(entry, record) and len(other.values) >= len(entry.values)
            for standing, other in scored
        )

    return {entry.evaluation.number for entry in ended if scored and loses(entry)}


def _standing(entry: Confirmed, record: RunRecord) -> tuple[float, float, float]:
    """Returns the excess over the limits, the mean as a cost, and the rank among equals."""
    limits, objectives = record.limits, record.objectives
    excess = limits.excess(entry.evaluation, objectives) if limits else 0.0
    return excess, -objectives[0].weight * entry.mean, limits.tie_rank(entry.evaluation)


def _pooled_deviation(found: Sequence[Confirmed]) -> float:
    """Returns the standard deviation of single values about their point's mean; 0 of one each."""
    squares = sum(entry.std**2 * (len(entry.values) - 1) for entry in found if entry.std >= 0)
    freedom = sum(max(0, len(entry.values) - 1) for entry in found)
    return math.sqrt(squares / freedom) if freedom else 0.0


def confirmed_champion(reader: RunReader) -> Evaluation | None:
    """Returns the champion that `confirm` chose, if it did."""
    chosen = reader.begun_record().confirmed_champion
    confirmed = read_confirmed(reader) if chosen else []
    return next((entry.evaluation for entry in confirmed if entry.evaluation.key == chosen), None)


def baseline_number(baselines: Mapping[str, Genes], key: str) -> int:
    """Returns the number of a point that only `confirm` evaluated: -1 for the first one."""
    return -1 - list(baselines).index(key)


class _Logbook(tools.Logbook):  # type: ignore[misc]
    """DEAP's, which can also be printed before it has a row."""

    def __str__(self, startindex: int = 0) -> str:
        return str(super().__str__(startindex)) if len(self) else "no generation has ended yet"


def _logbook(rows: list[dict[str, Any]]) -> tools.Logbook:
    logbook = _Logbook()
    logbook.header = list(rows[0]) if rows else []
    for row in rows:
        logbook.record(**row)
    return logbook
