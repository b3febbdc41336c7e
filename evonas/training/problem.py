"""What all problems that train a module have in common: the loop, its settings, its costs."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol
from weakref import WeakValueDictionary

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from evonas.arguments import check_bool, check_function, check_int, check_list, check_string
from evonas.exceptions import FitnessError
from evonas.objectives import Objective
from evonas.problem import Problem
from evonas.records import Genes
from evonas.space import SearchSpace, canonical_json
from evonas.space.genes import Categorical, Integer
from evonas.space.naming import fingerprint_of
from evonas.training.checkpoint import EpochCheckpoint
from evonas.training.cost import (
    COUNTED,
    MEASURED,
    count_params,
    latency_of_pass,
    macs_of_pass,
)
from evonas.training.data.batches import Augment, BatchSource
from evonas.training.data.parts import preprocessing_of
from evonas.training.data.structure import map_tensors, tensors_in
from evonas.training.fused.evaluation import digest_for, evaluate_together, obstacle_of
from evonas.training.fused.loop import NOISE
from evonas.training.fused.signature import NoiseModules
from evonas.training.inheritance import inherit, leave
from evonas.training.loop import EVAL_BATCH_SIZE, Report, fit, place, train_epoch
from evonas.training.metrics import Metric, StreamingMetric, accuracy, objective_of
from evonas.training.passes import materialise
from evonas.training.precision import CHOICES, as_precision, choose_precision
from evonas.training.recipe import Training
from evonas.training.seeding import seeded
from evonas.training.step import LossFunction
from evonas.training.timed import Timed

if TYPE_CHECKING:
    from evonas.execution.trial import Trial

__all__ = ["N_TRIED", "TrainingData", "TrainingProblem", "refuse_trained"]

N_TRIED = 200
"""Points that are tried before a search: one that is not invalid is enough."""


class TrainingData(Protocol):
    """What a problem trains and validates on."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What two trainings must have in common, as flat JSON."""

    def on(self, device: str) -> tuple[BatchSource, BatchSource]:
        """Returns the training and the validation part, with batches on the device."""


class TrainingProblem(Problem):
    """What problems that train a module have in common: precision, loop, costs, weights.

    A subclass says what a point builds (`build`) and may change one step of its training:
    `optimizer`, `scheduler`, `loss_function`, `measure`, or the whole of it, `train_model`.

    Args:
        space: The search space.
        data: The examples.
        training: How to train; genes of the names of its settings replace them.
        metric: `(outputs, targets)` of all validation examples to a number, or an object with
            `update`, `compute` and `reset`.
        metric_name: Of the metric, in reports and objectives.
        direction: Of the metric. None: it is maximised, and refused where its name is an error's.
        objectives: None: the metric. Others, to be minimised, are in `COUNTED` and `MEASURED`.
        record: Which of `MEASURED` to put on record where they are no objectives.
        augment: Changes training images at random.
        device: For which the precision is chosen.
        threads: With how many threads a trial computes, for the same choice.
        precision: None: the faster one here.
        continue_trainings: Whether points that differ in the gene `n_epochs` alone are one
            training: a longer one goes on from the checkpoint of a shorter, with the same seed
            and the schedule of the longest, and ends with the same bits as one from the start.
        inherit_weights: Whether a child begins with what its weights have in common with its
            parent's (see `evonas.training.inheritance`); how much is on record. A value then
            depends on the lineage: what is found must be trained anew.
    """

    preparation = "measuring which precision trains faster"
    eval_batch_size = EVAL_BATCH_SIZE
    test_time_flip = False
    cuda_graphs: bool | None = None
    costs: tuple[str, ...] = (*COUNTED, *MEASURED)
    """What may be an objective beside the metric, to be minimised."""
    noise_modules: NoiseModules = NOISE
    """Modules that multiply what they get by random numbers, with a probability `p`."""

    def __init__(
        self,
        space: SearchSpace,
        data: TrainingData,
        *,
        training: Training,
        metric: Metric | StreamingMetric | None,
        metric_name: str,
        direction: Literal["max", "min"] | None = None,
        objectives: Objective | Sequence[Objective] | None = None,
        record: Sequence[str] = (),
        augment: Augment | None = None,
        device: str = "cpu",
        threads: int = 1,
        precision: str | None = None,
        continue_trainings: bool = False,
        inherit_weights: bool = False,
    ) -> None:
        self.metric, self.metric_name = metric, metric_name
        check_bool("continue_trainings", continue_trainings)
        check_bool("inherit_weights", inherit_weights)
        if continue_trainings and inherit_weights:
            raise ValueError(
                "inherit_weights and continue_trainings exclude each other: a training that goes "
                "on has its own weights"
            )
        self._inherits = inherit_weights
        super().__init__(
            space,
            objectives=objective_of(metric_name, direction) if objectives is None else objectives,
        )
        wanted = [objective.name for objective in self.objectives]
        record = check_list("record", record, f"names among {', '.join(MEASURED)}")
        for argument, names, known in (
            ("objectives", wanted, {*self.measured_names, *self.costs}),
            ("record", record, set(MEASURED)),
        ):
            for name in names:
                if name not in known:
                    raise ValueError(
                        f"{argument} must be among {', '.join(sorted(known))}, got {name!r}"
                    )
        self._longest = _longest(space) if continue_trainings else None
        self._costs = {*wanted, *record} & {*MEASURED, *COUNTED}
        check_int("threads", threads, minimum=1)
        check_string("device", device)
        if augment is not None:
            check_function("augment", augment)
        self._data, self.training, self.augment = data, training, augment
        self.device, self.threads = device, threads
        self.precision = None if precision is None else as_precision(precision)

    @property
    def uses_torch(self) -> bool:
        """True."""
        return True

    @property
    def measured_names(self) -> tuple[str, ...]:
        """What `measure` returns: the metric's name and those of others beside it."""
        return (self.metric_name,)

    def configure(self, stored: Mapping[str, Any] | None) -> dict[str, Any]:
        """Returns `{"precision": …}`: the stored one, the one asked for, or the faster one here."""
        if stored and "precision" in stored and self.precision is None:
            self.precision = as_precision(stored["precision"])
        if self.precision is None:
            self.precision = choose_precision(self.device, self.threads)
            self.choice = CHOICES[self.precision]
        return {"precision": self.precision}

    def fingerprint(self) -> dict[str, Any]:
        """Returns what makes two trainings comparable: data, training, metric, precision."""
        ways = {
            "continue_trainings": self._longest is not None,
            "inherit_weights": self._inherits,
        }
        return {
            **{name: True for name, is_used in ways.items() if is_used},
            **self._data.identity,
            **self.training.fingerprint(),
            "precision": self.precision,
            "augment": "none" if self.augment is None else fingerprint_of(self.augment),
            "metric": self.metric_name if self.metric is None else fingerprint_of(self.metric),
        }

    def seed_key(self, genes: Genes, key: str) -> str:
        """Returns the key; that of the longest training where shorter ones go on to it."""
        return key if self._longest is None else self.key({**genes, "n_epochs": self._longest})

    # The steps of a training.

    def training_of(self, genes: Genes) -> Training:
        """Returns how these genes train."""
        return self.training.with_genes(genes)

    def optimizer(self, model: nn.Module, genes: Genes) -> Optimizer:
        """Returns the optimizer of a model."""
        return self.training_of(genes).make_optimizer(model.parameters())

    def scheduler(self, optimizer: Optimizer, genes: Genes, n_steps: int) -> LRScheduler | None:
        """Returns what changes the learning rate after each of `n_steps` batches, or None."""
        return self.training_of(genes).make_scheduler(optimizer, n_steps)

    def loss_function(self, genes: Genes) -> LossFunction:
        """Returns `(outputs as float32, targets)` to a scalar tensor, the mean of a batch."""
        return nn.CrossEntropyLoss(label_smoothing=self.training_of(genes).label_smoothing)

    def measure(self, outputs: Any, targets: Any) -> Mapping[str, float]:
        """Returns the metric of all validation examples, and others to report beside it."""
        if isinstance(self.metric, StreamingMetric):
            raise TypeError("a metric with update and compute is not called: see train_model")
        return {self.metric_name: float((self.metric or accuracy)(outputs, targets))}

    def score(self, outputs: Any, targets: Any) -> Mapping[str, float]:
        """Returns what `measure` finds, whose NaN is its own fault where all outputs are numbers.

        Raises:
            FitnessError: The metric is not finite and the outputs are.
        """
        values = self.measure(outputs, targets)
        value = values[self.metric_name]
        if not math.isfinite(value) and all(
            bool(tensor.isfinite().all()) for tensor in tensors_in(outputs)
        ):
            raise FitnessError(f"the metric {self.metric_name} returned {value}")
        return values

    def sources(self, trial: Trial) -> tuple[BatchSource, BatchSource]:
        """Returns the training and the validation examples, with batches on the trial's device."""
        return self._data.on(trial.device)

    def train_model(
        self, model: nn.Module, genes: Genes, trial: Trial
    ) -> float | Mapping[str, float]:
        """Trains the model in place; reports each epoch.

        Override it for a loop of your own (two optimizers, a Trainer): call `trial.report` with
        the metric after each epoch, and pruning works too.

        Returns:
            The metric of the validation examples after the last epoch, or a mapping with it; NaN
            where the training diverged.
        """
        return self.fit(model, genes, trial, *self.sources(trial))

    def fit(
        self, model: nn.Module, genes: Genes, trial: Trial, train: BatchSource, images: BatchSource
    ) -> dict[str, float]:
        """Trains the model in place on one source and validates on the other, as the genes say.

        Returns:
            What `measure` found after the last epoch, and `train_seconds`, validation left out.

        Raises:
            FitnessError: The metric is NaN of outputs that are numbers.
        """
        training, val = self.training_of(genes), Timed(images)
        checkpoint = self._checkpoint(genes, trial)
        began = time.perf_counter()
        metric, report, seen = self.followed(trial, checkpoint)
        optimizer = self.optimizer(model, genes)
        value = fit(
            model,
            train,
            val,
            n_epochs=training.n_epochs,
            batch_size=training.batch_size,
            eval_batch_size=self.eval_batch_size,
            optimizer=optimizer,
            scheduler=self.scheduler(optimizer, genes, self.n_steps(training, train)),
            step_scheduler=True,
            seed=trial.seed,
            loss_function=self.loss_function(genes),
            metric=metric if isinstance(metric, StreamingMetric) else val.timed(metric),
            metric_name=self.metric_name,
            precision=self.precision_in(trial),
            augment=self.augment,
            grad_clip=training.grad_clip,
            ema=training.ema,
            test_time_flip=self.test_time_flip,
            checkpoint=checkpoint,
            cuda_graphs=self.cuda_graphs,
            report=report,
        )
        seconds = time.perf_counter() - began - val.seconds
        return {**seen, self.metric_name: value, "train_seconds": seconds}

    def n_steps(self, training: Training, train: BatchSource) -> int:
        """Returns over how many batches a schedule goes."""
        n_batches = getattr(train, "n_batches", None)  # a loader makes as many as it likes
        n_epochs = self._longest or training.n_epochs
        if n_batches is not None:
            return n_epochs * int(n_batches(training.batch_size))
        return replace(training, n_epochs=n_epochs).n_steps(len(train))

    def followed(
        self, trial: Trial, checkpoint: EpochCheckpoint | None = None
    ) -> tuple[Metric | StreamingMetric, Report, dict[str, float]]:
        """Returns metric and report of a training, and what the metric has found last, by name.

        Each epoch's row reaches the trial, and the checkpoint if there is one.
        """
        seen: dict[str, float] = {}

        def measured(outputs: Any, targets: Any) -> float:
            seen.update(self.score(outputs, targets))
            return seen[self.metric_name]

        def report(_: int, metrics: Mapping[str, float]) -> None:
            row = {**seen, **metrics}
            if checkpoint is not None:
                checkpoint.rows.append(row)
            trial.report(**row)

        metric = self.metric if isinstance(self.metric, StreamingMetric) else measured
        return metric, report, seen

    def _checkpoint(self, genes: Genes, trial: Trial) -> EpochCheckpoint | None:
        """Returns where a shorter training of these genes ended, and this one will."""
        folder = trial.settings.checkpoints
        if self._longest is None or folder is None:
            return None
        key = self.seed_key(genes, trial.key)
        identity = {"key": key, "seed": trial.seed, "problem": canonical_json(self.fingerprint())}
        return EpochCheckpoint(Path(folder) / f"{key[:16]}-{trial.seed}.pt", identity)

    def precision_in(self, trial: Trial) -> str:
        """Returns the precision of a trial's run."""
        return str(trial.settings.problem.get("precision") or self.configure(None)["precision"])

    def evaluate(self, genes: Genes, trial: Trial) -> float | dict[str, float]:
        """Trains the model of the genes and returns its validation metric after the last epoch.

        Records `params`. Everything random comes from `trial.seed`; torch's global generator is
        left as it was. The weights are kept where the trial is among the best.

        Raises:
            InvalidPoint: The genes stand for no model.
        """
        device = torch.device(trial.device)
        with seeded(trial.seed, device):
            model, counted = self.prepared(genes, trial)
            folder = trial.settings.checkpoints if self._inherits else None
            if folder is not None:
                trial.record(**inherit(model, Path(folder), trial.settings.parents))
            began = time.perf_counter()
            found = self.train_model(model, genes, trial)
            seconds = time.perf_counter() - began
            if folder is not None:
                leave(model, Path(folder), trial.number)
        reported = found if isinstance(found, Mapping) else {self.metric_name: found}
        return self.judged({"train_seconds": seconds, **reported}, model, counted, genes, trial)

    def prepared(self, genes: Genes, trial: Trial) -> tuple[nn.Module, dict[str, int]]:
        """Returns the untrained model on the trial's device, and its costs, which are recorded.

        Raises:
            InvalidPoint: The genes stand for no model.
        """
        counted = self.counted(genes)
        trial.record(**counted)
        model = self._built(genes, torch.device(trial.device))
        if not counted:
            counted = self.counted_of(model, trial)
            trial.record(**counted)
        _note_trained(model)
        return model, counted

    def judged(
        self,
        values: dict[str, float],
        model: nn.Module,
        counted: Mapping[str, int],
        genes: Genes,
        trial: Trial,
    ) -> float | dict[str, float]:
        """Returns the fitness of a trained model by its metrics; records what is measured of it."""
        if "latency" in self._costs:
            values["latency"] = self.latency_of(model, trial)
        trial.record(**{name: values[name] for name in MEASURED if name in self._costs})
        return self.fitness({**counted, **values}, model, genes, trial)

    # Several points at once.

    def fusion_obstacle(self) -> str | None:
        """Returns why points of this problem cannot be trained at once; None: they can."""
        ours = (TrainingProblem.evaluate, TrainingProblem.train_model, TrainingProblem.fit)
        if (type(self).evaluate, type(self).train_model, type(self).fit) != ours:
            return f"{type(self).__name__} trains in a way of its own"
        return obstacle_of(
            self._data.on("cpu")[0],
            goes_on=self._longest is not None or self._inherits,
            is_timed="train_seconds" in self._costs,
        )

    def fusion_key(self, genes: Genes) -> str:
        """Returns what points of the same modules, shapes and batch size share."""
        return digest_for(self.sample_model(genes), self.training_of(genes), self.noise_modules)

    def evaluate_fused(self, genes: Sequence[Genes], trials: Sequence[Trial]) -> list[Any]:
        """Returns for each point what `evaluate` returns, or the error that ended its trial."""
        return evaluate_together(self, genes, trials)

    def sample_model(self, genes: Genes) -> nn.Module:
        """Returns an untrained model of the genes, of which only the structure counts."""
        with seeded(0):
            return materialise(self.build(genes), lambda: self._example("cpu"))

    def fitness(
        self, values: Mapping[str, float], model: nn.Module, genes: Genes, trial: Trial
    ) -> float | dict[str, float]:
        """Returns the objectives among the values; keeps the model where it is among the best.

        Raises:
            ValueError: An objective is missing.
        """
        missing = [each.name for each in self.objectives if each.name not in values]
        if missing:
            raise ValueError(f"train_model must return {', '.join(missing)}, got {sorted(values)}")
        found = {each.name: values[each.name] for each in self.objectives}
        first = found[self.objectives[0].name]
        if all(map(math.isfinite, found.values())) and trial.would_be_kept(first):
            self.keep(model, genes, trial)
        return first if len(found) == 1 else found

    def keep(self, model: nn.Module, genes: Genes, trial: Trial) -> None:
        """Keeps what a trained model is loaded from: its weights, and what it is made of."""
        train = self.sources(trial)[0]
        known = {"preprocessing": preprocessing_of(train)}
        trial.save(model, self._example(trial.device), known=known)

    def counted(self, genes: Genes) -> dict[str, int]:
        """Returns costs that are known before the model is built; empty: see `counted_of`."""
        return {}

    def counted_of(self, model: nn.Module, trial: Trial) -> dict[str, int]:
        """Returns `params` of a model, and `macs` of one example where they are asked for."""
        found = {"params": count_params(model)}
        if "macs" in self._costs:
            found["macs"] = macs_of_pass(model, self._example(trial.device))
        return found

    def latency_of(self, model: nn.Module, trial: Trial) -> float:
        """Returns the milliseconds of a forward pass of one example on the trial's device."""
        return latency_of_pass(
            model, self._example(trial.device), precision=self.precision_in(trial)
        )

    def _built(self, genes: Genes, device: str | torch.device) -> nn.Module:
        model = materialise(self.build(genes), lambda: self._example("cpu"))
        return place(model, device)

    def _example(self, device: str) -> Any:
        inputs, _ = next(iter(self._data.on(device)[1].batches(1)))
        return map_tensors(lambda tensor: tensor[:1] if tensor.ndim else tensor, inputs)

    # Before a search.

    def sample_point(self) -> Genes | None:
        """Returns a point that is not invalid, always the same one; None where none was found."""
        rng = random.Random(0)
        points = (self.space.sample(rng) for _ in range(N_TRIED))
        return next((point for point in points if self.invalid_reason(point) is None), None)

    def sample_step(self) -> tuple[Callable[[], object], int] | None:
        """Returns a step of a model of the space, on the CPU."""
        genes = self.sample_point()
        if genes is None:
            return None
        with seeded(0):
            model = self._built(genes, "cpu")
        training, train = self.training_of(genes), self._data.on("cpu")[0]
        batch = next(iter(train.batches(training.batch_size)))
        step = partial(
            train_epoch, model, [batch], self.optimizer(model, genes), self.loss_function(genes),
            precision=self.precision or "float32",
        )  # fmt: skip
        return step, training.n_steps(len(train))


def _longest(space: SearchSpace) -> int:
    """Returns the greatest value of the gene `n_epochs`.

    Raises:
        ValueError: There is no such gene of numbers.
    """
    gene = dict(space.items()).get("n_epochs")
    if isinstance(gene, Integer):
        return gene.high
    if isinstance(gene, Categorical) and all(type(choice) is int for choice in gene.choices):
        return int(max(gene.choices))
    raise ValueError(
        "continue_trainings needs a gene n_epochs, whose longest training the shorter ones go on "
        f'to, got {"none" if gene is None else gene}: add "n_epochs": Integer(1, 27) to the space'
    )


_trained: WeakValueDictionary[int, nn.Parameter] = WeakValueDictionary()  # by id, in this process


def _note_trained(model: nn.Module) -> None:
    _trained.update({id(p): p for p in model.parameters() if p.requires_grad})


def refuse_trained(model: nn.Module) -> None:
    """Refuses a module with weights that a trial of this process has trained.

    Raises:
        ValueError: It has some; names one.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and _trained.get(id(parameter)) is parameter:
            raise ValueError(
                f"model(genes) returned a module whose {name} another trial has trained: build a "
                "new one at each call, or copy.deepcopy a pretrained one"
            )
