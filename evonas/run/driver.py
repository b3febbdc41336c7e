"""The loop of a search: ask -> reuse or execute -> record -> tell -> checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evonas.callbacks.base import Counts, Observers
from evonas.evolution.random_state import derive_seed
from evonas.execution.base import Executor, Outcome, Task
from evonas.execution.trial import TrialSettings
from evonas.problem import Problem
from evonas.pruning import Curves, Pruner
from evonas.records import Evaluation, Status
from evonas.run.artifacts import Artifacts
from evonas.run.budget import Budget, Spent
from evonas.run.champion import Champion
from evonas.run.history import FailureStreak, History
from evonas.run.identity import settled
from evonas.run.in_flight import InFlight, Planned
from evonas.run.interrupts import Interrupts
from evonas.run.keeping import Keeper
from evonas.run.result import DEFAULT_HALL_OF_FAME, best_evaluations, confirmed_champion
from evonas.run.store import KnownPoint, PlannedProposal, RunRecord, Store
from evonas.strategies.base import Proposal, Strategy

__all__ = ["Driver"]


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
        record: RunRecord,
        budget: Budget,
        history: History,
        pruner: Pruner | None,
        keeper: Keeper,
    ) -> None:
        self._problem = problem
        self._strategy = strategy
        self._store = store
        self._executor = executor
        self._observers = observers
        self._run = record
        self._budget = budget
        self._history = history
        self._objective = problem.objectives[0]
        by_status = store.counts()
        self.counts = Counts(
            reused=by_status.pop("reused"), by_status=by_status, copied=record.n_copied
        )
        hall_of_fame = record.strategy.get("hall_of_fame", DEFAULT_HALL_OF_FAME)
        keeper.begin(store.files, problem.objectives, record.limits, hall_of_fame)
        self._keeper = keeper
        self._artifacts = Artifacts(problem, store.run_dir, store.files, keeper)
        self._champion = Champion(
            next(iter(best_evaluations(store, 1)), None),
            confirmed_champion(store),
            problem.objectives,
            record.limits,
            self._artifacts,
        )
        self.counts.unmet = self._champion.unmet
        self._spent = Spent(
            budget,
            problem.objectives,
            record.limits,
            problem.space.cardinality,
            seconds_before=store.seconds(),
            reused_in_a_row=store.reused_in_a_row(),
        )
        self._in_flight = InFlight(in_ask_order=not strategy.asynchronous)
        self._curves = Curves(pruner, self._objective, store.evaluations())
        self._thresholds: dict[int, float] = {}
        self._next_number = store.next_number()
        self._first_new_id = store.next_proposal_id()
        self._n_rows = len(strategy.logbook)
        self._seconds_noted = 0.0

    @property
    def best(self) -> Evaluation | None:
        """The best evaluation so far."""
        return self._champion.best

    @property
    def slots(self) -> int:
        """Trials at once."""
        return self._executor.slots

    @property
    def failures(self) -> FailureStreak:
        """The failures of this start."""
        return self._streak

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of this start."""
        return self._spent.seconds

    def run(self, interrupts: Interrupts) -> str:
        """Returns why the search stopped, once it has.

        Raises:
            TooManyFailures: Too many evaluations failed in a row.
            KeyboardInterrupt: A signal came.
        """
        self._interrupts = interrupts
        choice = self._problem.choice
        if choice is not None and not self.counts.evaluated:
            self._observers.notify(lambda observer: observer.on_choice(choice))
        running = self._in_flight.running
        self._champion.restore_files(list(self._store.evaluations()))
        self._executor.start(self._problem)
        try:
            self._catch_up()
            while True:
                interrupts.check()
                self._tell_answered()
                reason = self._stop_reason()
                if reason is None:
                    asked = self._ask()
                    self._submit()
                    if not running and not asked and not self._in_flight.has_answered:
                        reason = self._exhausted() or "the strategy has nothing more to propose"
                if running:  # trials already running are allowed to finish
                    self._collect()
                elif reason is not None:
                    if len(self._strategy.logbook) > self._n_rows:
                        self._checkpoint([], [])
                    return reason
        finally:
            self._executor.shutdown()
            self._artifacts.remove_empty_output()

    def _catch_up(self) -> None:
        """Tells what is on record of a generation under way, before anything is judged."""
        asked = self._strategy.is_under_way and self._ask()
        first = self._in_flight.first
        first_open = self._first_new_id if first is None else first.proposal.id
        n_failed = self._store.failures_in_a_row(first_open, self._history.retryable)
        self._streak = FailureStreak(self._budget.max_consecutive_failures, n_failed)
        self._tell_answered()
        while asked and self._strategy.is_under_way and not self._spent.target_met:
            asked = self._ask()
            self._tell_answered()
        self._spent.judge(self.best)

    # -- stopping ----------------------------------------------------------------------------

    def _stop_reason(self) -> str | None:
        """Returns why nothing more may be asked; all but time is judged where all runs agree."""
        if self._spent.target_met:
            return f"target_fitness {self._budget.target_fitness} is reached"
        if self._strategy.is_under_way:
            return None  # a generation under way is finished, as far as `_exhausted` lets it
        n_known = len(self._history.known)
        return self._spent.stop_reason(self._strategy.logbook, n_known, self._n_begun())

    def _exhausted(self) -> str | None:
        """Returns why no further trial may begin."""
        return self._spent.exhausted(self._n_begun())

    def _n_begun(self) -> int:
        # What failed before the user fixed the cause does not count.
        n_retryable = len(self._history.retryable)
        return self.counts.evaluated - n_retryable + len(self._in_flight.running)

    # -- asking and submitting ---------------------------------------------------------------

    def _ask(self) -> bool:
        strategy, in_flight = self._strategy, self._in_flight
        n_free = self._executor.slots - in_flight.n_unfinished
        if n_free <= 0 or (in_flight and not strategy.asynchronous):
            return False
        proposals = strategy.ask(n_free)
        committed = self._store.planned([p.id for p in proposals if p.id < self._first_new_id])
        invalid = self._take_invalid()
        rows = [self._plan(proposal, committed.get(proposal.id)) for proposal in proposals]
        if proposals or invalid or len(strategy.logbook) > self._n_rows:
            self._checkpoint([row for row in rows if row is not None], invalid)
        # Fixed for a whole batch, from what was on record before it was first asked for.
        numbers = in_flight.numbers({proposal.id for proposal in proposals})
        self._thresholds = self._curves.thresholds(min(numbers, default=None))
        return bool(proposals)

    def _plan(
        self, proposal: Proposal, committed: PlannedProposal | None
    ) -> PlannedProposal | None:
        """Finds the evaluation that answers a proposal; returns the row to commit, if new."""
        if committed is not None:
            recorded = self._store.evaluation(committed.evaluation)
            if recorded is None or recorded.number not in self._history.retryable:
                number, reused = committed.evaluation, committed.reused
                self._in_flight.add(Planned(proposal, number, reused, recorded))
                return None
        point = self._history.known.get(proposal.key)
        pending = self._in_flight.number_of(proposal.key)
        if point is not None:
            planned = Planned(proposal, point.number, True, self._store.evaluation(point.number))
        elif pending is not None:
            planned = Planned(proposal, pending, True)
        else:
            planned = Planned(proposal, self._take_number(), False)
        self._spent.reused_in_a_row = self._spent.reused_in_a_row + 1 if planned.reused else 0
        # What is tried again may have been counted as reused before.
        self.counts.reused += planned.reused - (committed is not None and committed.reused)
        self._in_flight.add(planned)
        return PlannedProposal(
            proposal.id, planned.number, planned.reused, proposal.generation, proposal.parents
        )

    def _take_number(self) -> int:
        self._next_number += 1
        return self._next_number - 1

    def _take_invalid(self) -> list[Evaluation]:
        """Returns the points found invalid since the last checkpoint, as evaluations."""
        found = self._history.found_invalid
        invalid = [
            Evaluation(self._take_number(), key, genes, Status.INVALID, error=reason)
            for key, (genes, reason) in found.items()
        ]
        found.clear()
        for evaluation in invalid:
            self._count(evaluation)
        return invalid

    def _submit(self) -> None:
        running = self._in_flight.running
        while len(running) < self._executor.slots and self._exhausted() is None:
            planned = self._in_flight.next_to_submit()
            if planned is None:
                return
            genes, key = planned.proposal.genes, planned.proposal.key
            planned.seed = derive_seed(self._run.seed, self._problem.seed_key(genes, key))
            self._run = settled(
                self._problem, genes, self._run, self._store, self._interrupts, self._say
            )
            task = Task(genes, self._trial_settings(planned))
            with self._interrupts.raising():
                future = self._executor.submit(task)
            running[future] = planned
            if future.done():
                return  # serial: record it before the next begins

    def _say(self, what: str) -> None:
        self._observers.notify(lambda observer: observer.on_prepare(what))

    def _trial_settings(self, planned: Planned) -> TrialSettings:
        return TrialSettings(
            number=planned.number,
            key=planned.proposal.key,
            parents=planned.proposal.parents,
            seed=planned.seed,
            device=self._executor.device,
            threads=self._run.threads,
            problem=self._run.problem_settings,
            best=self._champion.to_beat(),
            keep_above=self._keeper.to_enter(),
            maximise=self._objective.direction == "max",
            attachments=self._artifacts.folder(planned.number),
            checkpoints=self._artifacts.checkpoints,
            deterministic=self._run.deterministic,
            process=self._run.process,
            output=self._artifacts.output_file(planned.number),
            metric=self._objective.name,
            thresholds=tuple(self._thresholds.items()),
        )

    # -- recording and telling ---------------------------------------------------------------

    def _collect(self) -> None:
        """Records the trials that have ended; waits for one where none has."""
        finished: list[Evaluation] = []
        run_waiting = getattr(self._executor, "run_waiting", None)
        if run_waiting is not None:
            with self._interrupts.raising():
                run_waiting()
        try:
            for planned, future in self._in_flight.collect(self._interrupts):
                finished.append(self._evaluation(planned, future.result()))
        finally:
            # One commit for all that have come: with 64 slots it is what the driver does most.
            if finished:
                self._store.add_evaluations(finished, session_seconds=self._seconds_to_note())
            for evaluation in finished:
                self._publish(evaluation)

    def _evaluation(self, planned: Planned, outcome: Outcome) -> Evaluation:
        if outcome.attached:
            self._keeper.expect(planned.number)
        return outcome.evaluation(
            planned.number,
            planned.proposal.key,
            planned.proposal.genes,
            planned.seed,
            output=self._artifacts.relative(outcome.output),
            kept=self._store.files,
        )

    def _publish(self, evaluation: Evaluation) -> None:
        """Publishes a committed evaluation to history, files, observers and proposals."""
        self._count(evaluation)
        self._curves.add(evaluation)
        if self._champion.confirmed is not None:
            # New results: the repeats of `confirm` no longer tell which point is the best.
            self._run = replace(self._run, confirmed_champion=None)
            self._store.write_record(self._run)
        self._champion.observe(evaluation)
        self.counts.unmet = self._champion.unmet
        self._notify([evaluation])
        self._in_flight.record(evaluation)

    def _seconds_to_note(self) -> float | None:
        """Returns the seconds of this start when a second has passed since they were noted."""
        now = self.seconds
        if now - self._seconds_noted < 1.0:
            return None
        self._seconds_noted = now
        return now

    def _count(self, evaluation: Evaluation) -> None:
        self._history.known[evaluation.key] = KnownPoint(evaluation.number, evaluation.status)
        self.counts.by_status[evaluation.status.value] += 1

    def _notify(self, evaluations: Sequence[Evaluation]) -> None:
        for entry in evaluations:
            self._observers.notify(
                lambda observer, entry=entry: observer.on_evaluation(entry, self.best)  # type: ignore[misc]
            )

    def _tell_answered(self) -> None:
        while self._in_flight.has_answered and not self._spent.target_met:
            planned, evaluation = self._in_flight.pop_answered()
            self._strategy.tell(planned.proposal, evaluation, reused=planned.reused)
            self._spent.judge(evaluation)
            if not planned.reused:
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
        self._notify(invalid)
        for row in rows:
            self._observers.notify(lambda observer, row=row: observer.on_row(row))  # type: ignore[misc]
