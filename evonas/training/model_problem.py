"""A model of the user's as a problem: any module, any batches, its training named by genes."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from evonas.arguments import check_choice, check_function, check_mapping, check_string, nearest
from evonas.exceptions import InvalidPoint
from evonas.execution.torch_env import torch_threads
from evonas.execution.user_code import class_not_function
from evonas.objectives import Objective
from evonas.records import Genes
from evonas.space import SearchSpace
from evonas.space.naming import fingerprint_of, readable_name
from evonas.training.data.batches import Augment, BatchSource
from evonas.training.data.loaders import Data, GivenData, LoaderSource, Unpack
from evonas.training.data.parts import refuse_other_shapes
from evonas.training.data.structure import map_tensors, n_examples, shapes_of
from evonas.training.loop import place, train_epoch
from evonas.training.metrics import MeanLoss, Metric, StreamingMetric
from evonas.training.passes import evaluating, materialise, outputs_of
from evonas.training.problem import N_TRIED, TrainingProblem, refuse_trained
from evonas.training.recipe import TRAINING_GENES, Training
from evonas.training.seeding import seeded
from evonas.training.step import LossFunction, check_optimizer
from evonas.training.targets import check_targets
from evonas.training.unread_genes import ReadGenes, unread_genes

__all__ = ["ModelFunction", "ModelProblem"]

ModelFunction = Callable[[Genes], nn.Module]
"""`genes -> module`: a new, untrained one at each call."""

_MOST_FAILURES = 20  # of the model function, before a search


class ModelProblem(TrainingProblem):
    """Trains any module of yours and returns its validation metric.

    All genes reach `model(genes)`; those that are named like a setting of `Training` (`lr`,
    `weight_decay`, `momentum`, `optimizer`, `schedule`, `batch_size`, `n_epochs`,
    `label_smoothing`, `ema`, `grad_clip`) decide how it is trained. The weights of the best are
    kept: `result.champion.load_model()`.

    Args:
        space: The search space, or the dict of genes for one.
        model: `genes -> module`: a new, untrained one at each call. It may raise `InvalidPoint`.
        train: The training examples: `(inputs, targets)`, `Examples`, a `Dataset`, a `DataLoader`
            (see `LoaderSource` for the structure of its batches), or a function that opens one of
            them, which travels to workers in place of the data.
        val: The validation examples, likewise.
        loss: `(outputs as float32, targets)` to a scalar tensor, the mean of a batch. None: cross
            entropy. Where the model returns `logits` they are the outputs, else all it returns.
        metric: `(outputs, targets)` of all validation examples to a number, or an object with
            `update`, `compute` and `reset` (those of torchmetrics). None: accuracy, or the
            validation loss where `loss` is given.
        direction: `"max"` or `"min"`: needed with a metric.
        metric_name: In reports. None: the function's name.
        training: Settings where no gene gives them; the batch size of a loader is its own.
        optimizer: `(model, genes)` to an optimizer, instead of the settings.
        schedule: `(optimizer, n_steps, genes)` to a scheduler that steps after each batch.
        unpack: A batch of your data to `(inputs, targets)`.
        augment: `(images (B, C, H, W), generator)` to images, applied to training batches of
            tensors in memory.
        objectives: None: the metric. Others, to be minimised, may be `params`, `macs`
            (multiply-adds of one example), `latency` (milliseconds) and `train_seconds`.
        record: Which of `latency` and `train_seconds` to put on record as well.
        device: For which the precision is chosen. Where trials run is the executor's business.
        threads: With how many threads a trial computes, for the same choice.
        precision: `"float32"` or `"bfloat16"`. None: the faster one here, kept in the run.
        continue_trainings: Whether points that differ in the gene `n_epochs` alone are one
            training: the longer goes on from the checkpoint of the shorter (see `Hyperband`).
        inherit_weights: Whether a child begins with what its weights have in common with its
            parent's; off, since a value then depends on the lineage.
        problem_id: Names what is searched: a run goes on after the code behind it was moved or
            rewritten, so change it when old evaluations no longer compare with new ones. None: the
            model function's name, and a digest of its code.
        **settings: Settings of `Training` by name, instead of `training`: `n_epochs=10`.

    Raises:
        TypeError: An argument has another type, or is a class in place of an instance or a
            function; the model function returns no module.
        ValueError: The model function returns the same module twice; the model cannot take a
            batch, or loss or metric what it returns (shapes named); a metric has no direction;
            `optimizer` returns one of another model.

    Example:
        >>> x = torch.randn(64, 4)
        >>> data = x, (x.sum(1) > 0).long()
        >>> def model(genes):
        ...     return nn.Sequential(
        ...         nn.Linear(4, genes["width"]), nn.ReLU(), nn.Linear(genes["width"], 2)
        ...     )
        >>> problem = ModelProblem(
        ...     {"width": [4, 16], "lr": [0.01, 0.1]}, model, data, data, n_epochs=2,
        ...     precision="float32",
        ... )
        >>> from evonas.run.evolve import evolve
        >>> result = evolve(problem, max_evaluations=4, seed=0)
        >>> result.champion.load_model()(x).shape
        torch.Size([64, 2])
    """

    eval_batch_size = 256  # whatever the examples are: of large ones a thousand need much memory

    def __init__(
        self,
        space: SearchSpace | Mapping[str, Any],
        model: ModelFunction,
        train: Data | Callable[[], Data],
        val: Data | Callable[[], Data],
        *,
        loss: LossFunction | None = None,
        metric: Metric | StreamingMetric | None = None,
        direction: Literal["max", "min"] | None = None,
        metric_name: str | None = None,
        training: Training | None = None,
        optimizer: Callable[[nn.Module, Genes], Optimizer] | None = None,
        schedule: Callable[[Optimizer, int, Genes], LRScheduler] | str | None = None,
        unpack: Unpack | None = None,
        augment: Augment | None = None,
        objectives: Objective | Sequence[Objective] | None = None,
        record: Sequence[str] = (),
        device: str = "cpu",
        threads: int = 1,
        precision: str | None = None,
        continue_trainings: bool = False,
        inherit_weights: bool = False,
        problem_id: str | None = None,
        **settings: Any,
    ) -> None:
        if isinstance(model, nn.Module) or not callable(model):
            raise TypeError(
                f"model must be a function of the genes to a new module, got "
                f"{type(model).__name__}: pass lambda genes: MyModel(genes['width'])"
            )
        _check_functions({"loss": loss, "unpack": unpack}, optimizer, schedule)
        self.model, self.loss = model, loss
        if problem_id is not None:
            check_string("problem_id", problem_id)
        self._is_named = problem_id is not None
        self.problem_id = problem_id or readable_name(model, "model")
        self._own_optimizer = optimizer if callable(optimizer) else None
        self._own_schedule = schedule if callable(schedule) else None
        for name, value in (("optimizer", optimizer), ("schedule", schedule)):
            if value is not None and not callable(value):
                settings[name] = value
        if not isinstance(space, SearchSpace):
            check_mapping("space", space)
            space = SearchSpace(space)
        chosen = _metric(loss, metric, metric_name, direction, objectives)
        data = GivenData(train, val, unpack)
        super().__init__(
            space,
            data,
            training=_training(training, settings, data.on("cpu")[0]),
            metric=chosen[0],
            metric_name=chosen[1],
            direction=chosen[2],
            objectives=objectives,
            record=record,
            augment=augment,
            device=device,
            threads=threads,
            precision=precision,
            continue_trainings=continue_trainings,
            inherit_weights=inherit_weights,
        )
        self._check_genes()
        train_source, val_source = self._data.on("cpu")
        with torch_threads(threads), seeded(0):  # the caller's random numbers stay as they are
            refuse_other_shapes(val_source, train_source, "val")
            self._check_fit()
            self._warn_of_unread()

    def build(self, genes: Genes) -> nn.Module:
        """Returns the untrained module of the genes.

        Raises:
            InvalidPoint: The model function says that the point is invalid.
            TypeError: It returns no module.
            ValueError: It returns a module whose weights a trial of this process has trained.
        """
        try:
            model = self.model(genes if isinstance(genes, ReadGenes) else dict(genes))
        except InvalidPoint:
            raise
        except Exception as error:
            wrong = class_not_function("model", self.model, genes, error)
            if wrong is not None:
                raise wrong from error
            error.add_note(
                f"model(genes) raised this for the genes {genes}: fix it, or raise "
                "evonas.InvalidPoint where a point is invalid"
            )
            raise
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"model(genes) must return a torch.nn.Module, got {type(model).__name__} for "
                f"the genes {genes}"
            )
        refuse_trained(model)
        return model

    @property
    def builder(self) -> ModelFunction:
        """The model function."""
        return self.model

    def fingerprint(self) -> dict[str, Any]:
        """Returns what makes two trainings comparable: the model's code too."""
        own = {"optimizer": self._own_optimizer, "schedule": self._own_schedule}
        code = f"{fingerprint_of(self.model)}, {fingerprint_of(type(self))}"
        return {
            "problem": "model",
            "problem_id": self.problem_id,
            **self._trained_as(),
            **{name: fingerprint_of(found) for name, found in own.items() if found is not None},
            "loss": "cross_entropy" if self.loss is None else fingerprint_of(self.loss),
            **({} if self._is_named else {"code": code}),
        }

    def _trained_as(self) -> dict[str, Any]:
        """Returns data, training, metric and precision, without a batch size that is not known."""
        found, train = super().fingerprint(), self._data.on("cpu")[0]
        if isinstance(train, LoaderSource) and train.makes_batches and not train.batch_size:
            del found["batch_size"]
        return found

    def optimizer(self, model: nn.Module, genes: Genes) -> Optimizer:
        """Returns what the user's function makes, or that of the settings."""
        if self._own_optimizer is not None:
            made = self._own_optimizer(model, genes)
            way_out = "make it of model.parameters(), or some of them"
            check_optimizer(made, model.parameters(), way_out, may_lack_some=True)
            return made
        return super().optimizer(model, genes)

    def scheduler(self, optimizer: Optimizer, genes: Genes, n_steps: int) -> LRScheduler | None:
        """Returns what the user's function makes, or that of the settings."""
        if self._own_schedule is not None:
            return self._own_schedule(optimizer, n_steps, genes)
        return super().scheduler(optimizer, genes, n_steps)

    def loss_function(self, genes: Genes) -> LossFunction:
        """Returns the user's loss, or cross entropy."""
        return self.loss or super().loss_function(genes)

    def _check_genes(self) -> None:
        """Refuses genes that are named like a setting and would do nothing."""
        unused = {}
        if self.loss is not None:
            unused["label_smoothing"] = "it belongs to the cross entropy, and loss= is given"
        if self._own_schedule is not None:
            unused["schedule"] = "schedule= makes its own"
        if self._own_optimizer is not None:
            unused["optimizer"] = "optimizer= makes its own"
        elif self.training.optimizer == "adagrad" and "optimizer" not in self.space:
            unused["momentum"] = "adagrad has none"
        train = self._data.on("cpu")[0]
        if isinstance(train, LoaderSource) and train.makes_batches:
            unused["batch_size"] = "a DataLoader has its own: pass its .dataset as train"
        for name in TRAINING_GENES:
            if name in self.space:
                self.training.check_gene(f"the gene {name!r}", name, self.space[name])
        for name, why in unused.items():
            if name in self.space:
                raise ValueError(f"the gene {name!r} would do nothing: {why}")

    def _warn_of_unread(self) -> None:
        """Warns of genes that nothing reads, as far as that can be known."""
        takes_genes = (self._own_optimizer, self._own_schedule)
        if type(self) is not ModelProblem or any(takes_genes):
            return  # what these read of the genes, only a training would tell
        for name in unread_genes(self.space, self.build, set(TRAINING_GENES)):
            near = nearest(name, TRAINING_GENES)
            warnings.warn(
                f"the gene {name!r} would do nothing: model(genes) does not read it, and it is no "
                f"setting of the training{near}",
                RuntimeWarning,
                stacklevel=3,
            )

    def _check_fit(self) -> None:
        """Tries one batch on the CPU, before anything is searched.

        Raises:
            ValueError: See the class.
        """
        genes = self.sample_point()
        if genes is None:
            return
        model, other = self.build(genes), self.build(genes)
        _refuse_shared(model, other)
        train, val = self._data.on("cpu")
        batch, do = next(iter(train.batches(2))), "trained"
        try:
            sample = _first_two(batch)
            place(materialise(model, sample[0]), "cpu")
            self._check_batch(model, sample, {"train": train, "val": val})
            batch, do = next(iter(val.batches(2))), "validated"
            with evaluating(model):
                outputs_of(model, _first_two(batch)[0])
        except (RuntimeError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise ValueError(
                f"the model of the genes {genes} cannot be {do} on a batch of inputs "
                f"{shapes_of(batch[0])} and targets {shapes_of(batch[1])}: "
                f"{type(error).__name__}: {error}"
            ) from error
        with contextlib.suppress(InvalidPoint):
            self.optimizer(model, genes)  # refuses one of another model

    def _check_batch(
        self, model: nn.Module, batch: tuple[Any, Any], sources: Mapping[str, BatchSource]
    ) -> None:
        inputs, targets = batch
        if self.loss is None or self.metric is None:
            with evaluating(model):
                outputs = outputs_of(model, inputs)
            if not isinstance(outputs, Tensor):
                raise TypeError(
                    f"the model returns {type(outputs).__name__}, no tensor: pass loss= and "
                    "metric=, functions of (outputs, targets) that get all it returns"
                )
            labels = {
                name: found
                for name, source in sources.items()
                if isinstance(found := getattr(source, "targets", targets), Tensor)
            }
            if not labels:
                raise TypeError(
                    f"cross entropy and accuracy take class numbers as one tensor, got "
                    f"{shapes_of(targets)}: pass loss= and metric="
                )
            check_targets(
                model, inputs, labels, loss_function=self.loss, metric=self.metric,
                loss_argument="loss",
            )  # fmt: skip
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        if n_examples(targets) > 1:
            train_epoch(model, [batch], optimizer, self.loss or functional.cross_entropy)

    def sample_point(self) -> Genes | None:
        """Returns a point whose model can be built; one that fails is the search's to record.

        Raises:
            Exception: What the model function raised, where it does for all that were tried.
        """
        rng = random.Random(0)
        failure: Exception | None = None
        for n_tried in range(N_TRIED):
            genes = self.space.sample(rng)
            try:
                with seeded(0):
                    self.build(genes)
            except InvalidPoint:
                continue
            except Exception as error:  # noqa: BLE001 (whatever the user's function raises)
                failure = failure or error
                if n_tried >= _MOST_FAILURES:
                    break
                continue
            return genes
        if failure is not None:
            raise failure
        return None


def _first_two(batch: tuple[Any, Any]) -> Any:
    return map_tensors(lambda tensor: tensor[:2] if tensor.ndim else tensor, batch)


def _check_functions(functions: Mapping[str, Any], optimizer: Any, schedule: Any) -> None:
    for name, function in functions.items():
        if function is not None:
            check_function(name, function)
    if isinstance(optimizer, type):
        call = f"{optimizer.__name__}(model.parameters(), lr=genes['lr'])"
        check_function("optimizer", optimizer, f"lambda model, genes: {call}, or a name ('adamw')")
    if isinstance(schedule, type):
        call = f"{schedule.__name__}(optimizer, n_steps)"
        instead = f"lambda optimizer, n_steps, genes: {call}, or a name ('cosine')"
        check_function("schedule", schedule, instead)


def _training(
    training: Training | None, settings: Mapping[str, Any], train: BatchSource
) -> Training:
    """Returns how to train; the batch size is that of a loader.

    Raises:
        TypeError: A setting is unknown.
        ValueError: Another batch size is given than the loader's.
    """
    unknown = sorted(set(settings) - set(TRAINING_GENES))
    if unknown:
        raise TypeError(
            f"ModelProblem has no argument {', '.join(map(repr, unknown))}; the settings of a "
            f"training are {', '.join(TRAINING_GENES)}"
        )
    if training is not None and not isinstance(training, Training):
        raise TypeError(f"training must be a Training, got {type(training).__name__}")
    chosen = (training or Training()).with_genes(settings)
    if not (isinstance(train, LoaderSource) and train.makes_batches):
        return chosen
    size, usual = train.batch_size, Training().batch_size
    if chosen.batch_size != size and ("batch_size" in settings or chosen.batch_size != usual):
        raise ValueError(
            f"batch_size={chosen.batch_size} would do nothing: train is a DataLoader, which makes "
            f"batches of {size or 'its own'}: leave it out, or pass the loader's .dataset as train"
        )
    return chosen if size is None else replace(chosen, batch_size=size)


def _metric(
    loss: LossFunction | None,
    metric: Any,
    name: str | None,
    direction: Any,
    objectives: Any,
) -> tuple[Any, str, Literal["max", "min"]]:
    """Returns the metric, its name and its direction."""
    if metric is None:
        if loss is None:
            return None, "accuracy", "max"
        return MeanLoss(loss), "val_loss", "min"
    if isinstance(metric, type) or not isinstance(metric, StreamingMetric):
        check_function("metric", metric)
    if name is not None:
        check_string("metric_name", name)
    if direction is None and objectives is None:
        raise ValueError(
            'a metric needs a direction: pass direction="max" where larger is better, "min" where '
            "smaller is"
        )
    if direction is not None:
        check_choice("direction", direction, ("max", "min"))
    return metric, name or readable_name(metric, "metric"), direction or "max"


def _refuse_shared(first: nn.Module, second: nn.Module) -> None:
    own = {id(parameter) for parameter in first.parameters() if parameter.requires_grad}
    for name, parameter in second.named_parameters():
        if id(parameter) in own:
            raise ValueError(
                f"model(genes) must return a new module at each call, but two calls share {name}, "
                "so each training would begin where another ended: build a new one, or "
                "copy.deepcopy a pretrained one"
            )
