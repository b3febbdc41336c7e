"""The loop of a search: ask -> reuse or execute -> record -> tell -> checkpoint."""

from __future__ import annotations

import math
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

from evonas.callbacks.base import Counts, Observers
from evonas.evolution.random_state import derive_seed
from evonas.execution.base import Executor, Outcome, Task
from evonas.execution.trial import TrialSettings
from evonas.objectives import Limits
from evonas.problem import Problem
from evonas.pruning import Curves
from evonas.records import Evaluation, Status
from evonas.run.artifacts import Artifacts
from evonas.run.history import FailureStreak, History
from evonas.run.interrupts import Interrupts
from evonas.run.result import best_evaluations, confirmed_champion
from evonas.run.settings import RunSettings
from evonas.run.store import KnownPoint, PlannedProposal, Store
from evonas.strategies.base import Proposal, Strategy

__all__ = ["Driver"]

_MAX_REUSED_IN_A_ROW = 2_000


@dataclass(slots=True, eq=False)
class _Planned:
    """A proposal on its way from `ask` to `tell`."""

    proposal: Proposal
    number: int
    reused: bool
    evaluation: Evaluation | None = None
    seed: int = 0


class Driver:
    """Runs one start of a search to its end.

    Consistency:
        An evaluation is committed before strategy and observers hear of it. What a strategy
        proposed is committed with the strategy's state, each proposal with the number of the
        evaluation that answers it; after a crash the strategy proposes the same again, and what
        is on record already is told from the record. A synchronous strategy is told in ask order.
    """

    def __init__(
        self,
        problem: Problem,
        strategy: Strategy,
        store: Store,
        executor: Executor,
        observers: Observers,
        settings: RunSettings,
        history: History,
    ) -> None:
        self._problem = problem
        self._strategy = strategy
        self._store = store
        self._executor = executor
        self._observers = observers
        self._settings = settings
        self._history = history
        self.objectives = problem.objectives
        self._objective = problem.objectives[0]
        by_status = store.counts()
        self.counts = Counts(reused=by_status.pop("reused"), by_status=by_status)
        self._limits = Limits.of(strategy.settings())
        best = best_evaluations(store, 1)
        self.best: Evaluation | None = best[0] if best else None
        self._artifacts = Artifacts(problem, store.run_dir)
        self._confirmed_champion = confirmed_champion(store, self._objective)
        self._next_number = store.next_number()
        self._reused_in_a_row = store.reused_in_a_row()
        self._n_rows = len(strategy.logbook)
        self._began = time.monotonic()
        self._seconds_before = store.seconds()
        self._seconds_noted = 0.0
        self._target_met = False
        self._first_new_id = store.next_proposal_id()
        self._plan: deque[_Planned] = deque()  # asked, not told, in ask order
        self._ready: deque[_Planned] = deque()  # asynchronous: to tell, in the order of arrival
        self._queue: deque[_Planned] = deque()  # to submit
        self._flying: dict[Future[Outcome], _Planned] = {}
        self._waiting: dict[int, list[_Planned]] = {}  # by evaluation number, not yet recorded
        self._curves = Curves(settings.pruner, self._objective, store.evaluations())
        self._thresholds: dict[int, float] = {}
        self._pending: dict[str, int] = {}  # key to the number of an evaluation not yet recorded

    def run(self, interrupts: Interrupts) -> str:
        """Returns why the search stopped, once it has.

        Raises:
            TooManyFailures: Too many evaluations failed in a row.
            KeyboardInterrupt: A signal came.
        """
        self._interrupts = interrupts
        self._artifacts.restore(
            self._store.evaluations(), self.best, confirmed_champion=self._confirmed_champion
        )
        self._executor.start(self._problem)
        try:
            self._catch_up()
            while True:
                interrupts.check()
                self._tell_ready()
                reason = self._stop_reason()
                if reason is None:
                    asked = self._ask()
                    self._submit()
                    if self._flying:
                        self._collect()
                    elif not asked and not self._has_ready():
                        reason = self._over_budget() or "the strategy has nothing more to propose"
                elif self._flying:
                    self._collect()  # trials already running are allowed to finish
                    continue
                if reason is not None and not self._flying:
                    if len(self._strategy.logbook) > self._n_rows:
                        self._checkpoint([], [])
                    return reason
        finally:
            self._executor.shutdown()

    def _catch_up(self) -> None:
        """Tells what is on record of a generation under way, before anything is judged."""
        asked = self._strategy.is_under_way and self._ask()
        first_open = self._plan[0].proposal.id if self._plan else self._first_new_id
        n_failed = self._store.failures_in_a_row(first_open, self._history.retryable)
        self._streak = FailureStreak(self._settings.max_consecutive_failures, n_failed)
        self._tell_ready()
        while asked and self._strategy.is_under_way and not self._target_met:
            asked = self._ask()
            self._tell_ready()
        if self.best is not None and self._meets_target(self.best):
            self._target_met = True

    # -- stopping ----------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of this start."""
        return time.monotonic() - self._began

    def _stop_reason(self) -> str | None:
        """Why nothing more may be asked; all but time is judged at points all runs share."""
        budget = self._settings.budget
        if self._target_met:
            return f"target_fitness {budget.target_fitness} is reached"
        if self._strategy.is_under_way:
            return None  # a generation under way is finished, as far as `_over_budget` lets it
        n_rows = len(self._strategy.logbook)
        if budget.generations is not None and n_rows >= budget.generations:
            return f"{budget.generations} generations are done"
        if budget.patience is not None and self._rows_without_progress() >= budget.patience:
            return f"{budget.patience} generations without a better best"
        if len(self._history.known) >= self._problem.space.cardinality:
            return "every point of the space has been evaluated"
        if self._reused_in_a_row >= _MAX_REUSED_IN_A_ROW:
            return f"the last {_MAX_REUSED_IN_A_ROW} proposals were all evaluated before"
        return self._over_budget()

    def _over_budget(self) -> str | None:
        """Why no further trial may begin."""
        budget = self._settings.budget
        # What failed before the user fixed the cause was in vain.
        n_begun = self.counts.evaluated - len(self._history.retryable) + len(self._flying)
        if budget.max_evaluations is not None and n_begun >= budget.max_evaluations:
            return f"max_evaluations {budget.max_evaluations} is used up"
        spent = self._seconds_before + self.seconds
        if budget.max_seconds is not None and spent >= budget.max_seconds:
            return f"max_seconds {budget.max_seconds} are used up"
        return None

    def _rows_without_progress(self) -> int:
        best = [row["best"] for row in self._strategy.logbook]
        return len(best) - 1 - best.index(best[-1]) if best and best[-1] is not None else 0

    def _meets_target(self, evaluation: Evaluation) -> bool:
        target = self._settings.budget.target_fitness
        return target is not None and not self._objective.better(target, evaluation.values[0])

    # -- asking and submitting ---------------------------------------------------------------

    def _ask(self) -> bool:
        strategy = self._strategy
        n_free = self._executor.slots - len(self._flying) - len(self._queue)
        if n_free <= 0 or (self._plan and not strategy.asynchronous):
            return False
        proposals = strategy.ask(n_free)
        committed = self._store.planned([p.id for p in proposals if p.id < self._first_new_id])
        invalid = self._take_invalid()
        fresh = [plan for plan in (self._place(p, committed.get(p.id)) for p in proposals) if plan]
        if proposals or invalid or len(strategy.logbook) > self._n_rows:
            self._checkpoint(fresh, invalid)
        # Fixed for a whole batch, from what was on record before it was first asked for.
        asked = {proposal.id for proposal in proposals}
        numbers = [p.number for p in self._plan if p.proposal.id in asked and not p.reused]
        self._thresholds = self._curves.thresholds(min(numbers, default=None))
        return bool(proposals)

    def _place(
        self, proposal: Proposal, committed: PlannedProposal | None
    ) -> PlannedProposal | None:
        """Finds the evaluation that answers a proposal; returns the row to commit, if new."""
        if committed is not None:
            recorded = self._store.evaluation(committed.evaluation)
            if recorded is None or recorded.number not in self._history.retryable:
                planned = _Planned(proposal, committed.evaluation, committed.reused, recorded)
                self._enqueue(planned)
                return None
        point = self._history.known.get(proposal.key)
        pending = self._pending.get(proposal.key)
        if point is not None:
            planned = _Planned(proposal, point.number, True, self._store.evaluation(point.number))
        elif pending is not None:
            planned = _Planned(proposal, pending, True)
        else:
            planned = _Planned(proposal, self._take_number(), False)
        self._reused_in_a_row = self._reused_in_a_row + 1 if planned.reused else 0
        # What is tried again may have been counted as reused before.
        self.counts.reused += planned.reused - (committed is not None and committed.reused)
        self._enqueue(planned)
        return PlannedProposal(
            proposal.id, planned.number, planned.reused, proposal.generation, proposal.parents
        )

    def _enqueue(self, planned: _Planned) -> None:
        self._plan.append(planned)
        if planned.evaluation is not None:
            self._arrive(planned, planned.evaluation)
        elif planned.number in self._waiting:
            self._waiting[planned.number].append(planned)
        else:
            self._waiting[planned.number] = [planned]
            self._pending[planned.proposal.key] = planned.number
            self._queue.append(planned)

    def _arrive(self, planned: _Planned, evaluation: Evaluation) -> None:
        planned.evaluation = evaluation
        if self._strategy.asynchronous:
            self._ready.append(planned)

    def _take_number(self) -> int:
        self._next_number += 1
        return self._next_number - 1

    def _take_invalid(self) -> list[Evaluation]:
        found = self._history.found_invalid
        if not found:
            return []
        invalid = []
        for key, (genes, reason) in found.items():
            number = self._take_number()
            invalid.append(Evaluation(number, key, genes, Status.INVALID, error=reason))
            self._note(invalid[-1])
        found.clear()
        return invalid

    def _submit(self) -> None:
        while (
            self._queue and len(self._flying) < self._executor.slots and self._over_budget() is None
        ):
            planned = self._queue.popleft()
            planned.seed = derive_seed(self._settings.seed, planned.proposal.key)
            task = Task(planned.proposal.genes, self._trial_settings(planned))
            with self._interrupts.raising():
                future = self._executor.submit(task)
            self._flying[future] = planned
            if future.done():
                return  # serial: record it before the next begins

    def _trial_settings(self, planned: _Planned) -> TrialSettings:
        settings, key = self._settings, planned.proposal.key
        return TrialSettings(
            number=planned.number,
            key=key,
            seed=planned.seed,
            device=self._executor.device,
            threads=settings.threads,
            problem=settings.problem,
            best=self._to_beat(),
            maximise=self._objective.direction == "max",
            attachments=self._artifacts.folder(planned.number),
            deterministic=settings.deterministic,
            output=self._artifacts.output_file(planned.number),
            metric=self._objective.name,
            thresholds=tuple(self._thresholds.items()),
        )

    # -- recording and telling ---------------------------------------------------------------

    def _collect(self) -> None:
        done = [future for future in self._flying if future.done()]
        if not done:
            with self._interrupts.raising():
                done = list(wait(self._flying, return_when=FIRST_COMPLETED).done)
        done.sort(key=lambda future: self._flying[future].number)
        finished: list[tuple[_Planned, Evaluation]] = []
        try:
            for future in done:
                planned = self._flying.pop(future)
                finished.append((planned, self._evaluation(planned, future.result())))
        finally:
            # One commit for all that have come: with 64 slots it is what the driver does most.
            evaluations = [evaluation for _, evaluation in finished]
            if evaluations:
                seconds = self._seconds_to_note()
                self._store.add_evaluations(evaluations, session_seconds=seconds)
            for planned, evaluation in finished:
                self._record(planned, evaluation)

    def _evaluation(self, planned: _Planned, outcome: Outcome) -> Evaluation:
        return Evaluation(
            number=planned.number,
            key=planned.proposal.key,
            genes=planned.proposal.genes,
            status=outcome.status,
            values=outcome.values,
            metrics=outcome.metrics,
            epochs=outcome.epochs,
            seconds=outcome.seconds,
            seed=planned.seed,
            error=outcome.error,
            started_at=outcome.started_at,
            output=self._artifacts.relative(outcome.output),
        )

    def _record(self, planned: _Planned, evaluation: Evaluation) -> None:
        """Publishes a committed evaluation to history, files and observers."""
        self._note(evaluation)
        self._curves.add(evaluation)
        if self._confirmed_champion is not None:
            # New results: the repeats of `confirm` no longer tell which point is the best.
            self._store.write_settings({"confirmed_champion": None})
            self._artifacts.clear_confirmed_champion(self.best)
            self._confirmed_champion = None
        previous = self.best
        if evaluation.status is Status.OK and self._is_better(evaluation):
            self.best = evaluation
        self._artifacts.add(evaluation, best=self.best, previous=previous)
        self._observe_evaluation(evaluation)
        for waiting in self._waiting.pop(planned.number):
            self._arrive(waiting, evaluation)
        self._pending.pop(planned.proposal.key, None)

    def _seconds_to_note(self) -> float | None:
        """Returns the seconds of this start when a second has passed since they were noted."""
        now = self.seconds
        if now - self._seconds_noted < 1.0:
            return None
        self._seconds_noted = now
        return now

    def _note(self, evaluation: Evaluation) -> None:
        self._history.known[evaluation.key] = KnownPoint(evaluation.number, evaluation.status)
        self.counts.by_status[evaluation.status.value] += 1

    def _observe_evaluation(self, evaluation: Evaluation) -> None:
        best = self.best
        self._observers.notify(lambda observer: observer.on_evaluation(evaluation, best))

    def _has_ready(self) -> bool:
        if self._strategy.asynchronous:
            return bool(self._ready)
        return bool(self._plan) and self._plan[0].evaluation is not None

    def _tell_ready(self) -> None:
        while self._has_ready() and not self._target_met:
            if self._strategy.asynchronous:
                planned = self._ready.popleft()
                self._plan.remove(planned)
            else:
                planned = self._plan.popleft()
            evaluation = planned.evaluation
            if evaluation is None:
                raise RuntimeError(f"proposal {planned.proposal.id} is told without a result")
            self._strategy.tell(planned.proposal, evaluation, reused=planned.reused)
            self._judge(evaluation, reused=planned.reused)

    def _judge(self, evaluation: Evaluation, *, reused: bool) -> None:
        if evaluation.status is Status.OK and self._meets_target(evaluation):
            self._target_met = True
        if not reused:
            self._streak.judge(evaluation)

    def _checkpoint(self, fresh: list[PlannedProposal], invalid: list[Evaluation]) -> None:
        rows = [dict(row) for row in self._strategy.logbook[self._n_rows :]]
        self._store.checkpoint(
            self._strategy.state_dict(),
            proposals=fresh,
            invalid=invalid,
            rows=rows,
            first_row=self._n_rows,
        )
        self._n_rows += len(rows)
        for evaluation in invalid:
            self._observe_evaluation(evaluation)
        for row in rows:
            self._observers.notify(lambda observer, row=row: observer.on_row(row))  # type: ignore[misc]

    def _is_better(self, evaluation: Evaluation) -> bool:
        # Of equals the one asked for first, so that the champion does not depend on who was faster.
        rank = self._limits.rank
        return self.best is None or (
            rank(evaluation, self.objectives) < rank(self.best, self.objectives)
        )

    def _to_beat(self) -> float | None:
        """Returns the value that a trial must exceed to be the best, None: any may."""
        if self.best is None or self._limits.excess(self.best, self.objectives) > 0:
            return None
        value = self.best.values[0]
        if len(self.objectives) == 1:
            return value
        # One that equals it may be better in the next objective.
        return math.nextafter(value, -self._objective.weight * math.inf)
