"""Image classifiers as a problem: a point is a network and how to train it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from evonas.arguments import check_bool, check_choice, check_file_label, check_function, check_int
from evonas.exceptions import DataError
from evonas.nas.champion import champion_source
from evonas.nas.network_problem import NetworkFunction, NetworkProblem
from evonas.nas.source import generate_source, hyperparameters_in
from evonas.nas.split_data import Source, SplitData
from evonas.objectives import Objective
from evonas.records import Genes
from evonas.space import SearchSpace
from evonas.space.naming import name_of, readable_name
from evonas.training import Augment, FlipCrop
from evonas.training.cost import measure_latency
from evonas.training.problem import N_TRIED
from evonas.training.recipe import Schedule, Training

if TYPE_CHECKING:
    from evonas.execution.trial import Trial

__all__ = ["DEFAULT_PRM", "GRAD_CLIP", "ImageClassificationProblem"]

Metric = Callable[[Tensor, Tensor], float]

GRAD_CLIP = 3.0
"""Greatest gradient norm, in our loop as in the generated `learn`."""

DEFAULT_PRM: Mapping[str, float] = {"lr": 0.01, "momentum": 0.9}
"""What `prm` holds where the space has no such gene."""


class ImageClassificationProblem(NetworkProblem):
    """Trains the network of a point for a few epochs and returns its validation accuracy.

    The images are divided once, by `split_seed`, into a training and a validation part, and
    normalised by the training part's mean and standard deviation. Each trial trains with SGD and
    cross entropy, its gradient clipped at norm 3, by default exactly as the generated source's
    `learn` does (in float32; in bfloat16 the same up to rounding).

    A run that measures `latency` or `train_seconds` is not exact: they change from one time to the
    next. Measure them with one worker, so that trials do not disturb each other.

    Genes named in `HYPERPARAMETERS` (`lr`, `momentum`, `weight_decay`, `dropout`,
    `label_smoothing`) are how to train, and so is `n_epochs`; all others are for `network`.

    Args:
        space: The search space.
        network: `(genes, n_classes)` to a `Network`; importable, so that workers can load it.
        data: The training images, or a function without arguments that opens them. With a
            function the images do not travel to workers: each opens them anew.
        val: Images to validate on, likewise. None: a share of `data`, stratified by class.
        n_epochs: Epochs a trial.
        batch_size: Images a step.
        val_fraction: Share of the images that is validated on, where `n_val` is None.
        n_train: Images to train on. None: all that are not validated on.
        n_val: Images to validate on.
        split_seed: Decides which images these are.
        optimizer: `"sgd"` or `"nesterov"`.
        schedule: Of the learning rate, see `Training`. The generated source trains an epoch at a
            time, and so at a constant rate.
        ema: Decay of averaged weights, see `Training`; 0: none.
        metric: `(outputs (N, classes), labels (N,))` to a float that is maximised (an error,
            `mse`, needs `objectives`). None: accuracy, which is reported beside any other.
        augment: True: random flips and crops of the training images; or a function
            `(images, generator) -> images`, whose `repr` enters the fingerprint.
        test_time_flip: Whether outputs are averaged over each image and its mirror image, on
            validation images as in the champion's `predict`.
        device: For which the precision is chosen. Where trials run is the executor's business.
        threads: With how many threads a trial computes, for the same choice.
        precision: `"float32"` or `"bfloat16"`. None: the faster one here, found out at a run's
            first start and kept in the run.
        continue_trainings: Whether points that differ in the gene `n_epochs` alone are one
            training: the longer goes on from the checkpoint of the shorter (see `Hyperband`).
        inherit_weights: Whether a child begins with what its weights have in common with its
            parent's; off, since a value then depends on the lineage.
        objectives: None: the metric, maximised. Others, to be minimised: `params`, `macs`
            (multiply-adds of one image), `latency` (milliseconds of a forward pass on the trial's
            device, measured after the training) and `train_seconds` (validation left out).
        record: Which of `latency` and `train_seconds` to put on record where they are no
            objectives (for a limit of `NSGA2`); `params` and `macs` always are.
        latency_batch: Images in the pass whose latency is measured.
        name: In the names of the run's files: `ga-<name>-0.py`.
        dataset: In the names of the run's files: `img-classification_<dataset>_acc_…`.

    Raises:
        TypeError: `data` or `network` has another type.
        ValueError: A number is out of range, an objective is unknown, or the data are not images.

    Example:
        >>> import torch
        >>> from evonas.nas import alexnet_small_space, plain_network
        >>> from evonas.training import Examples
        >>> images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8)
        >>> data = Examples(images, torch.arange(40) % 2, ("cat", "dog"))
        >>> problem = ImageClassificationProblem(
        ...     alexnet_small_space(), plain_network, data, n_epochs=1, precision="float32"
        ... )
        >>> from evonas.execution.trial import Trial
        >>> import random
        >>> genes = problem.space.sample(random.Random(0))
        >>> 0 <= problem.evaluate(genes, Trial()) <= 1
        True
    """

    task = "img-classification"
    default_prm = DEFAULT_PRM

    def __init__(
        self,
        space: SearchSpace,
        network: NetworkFunction,
        data: Source,
        *,
        val: Source | None = None,
        n_epochs: int = 5,
        batch_size: int = 128,
        val_fraction: float = 0.2,
        n_train: int | None = None,
        n_val: int | None = None,
        split_seed: int = 0,
        optimizer: Literal["sgd", "nesterov"] = "sgd",
        schedule: Schedule = "constant",
        ema: float = 0.0,
        metric: Metric | None = None,
        augment: bool | Augment = False,
        test_time_flip: bool = False,
        device: str = "cpu",
        threads: int = 1,
        precision: str | None = None,
        continue_trainings: bool = False,
        inherit_weights: bool = False,
        objectives: Objective | Sequence[Objective] | None = None,
        record: Sequence[str] = (),
        latency_batch: int = 1,
        name: str = "alexnet",
        dataset: str = "images",
    ) -> None:
        if metric is not None:
            check_function("metric", metric)
        metric_name = "accuracy" if metric is None else readable_name(metric, "metric")
        check_file_label("metric's name", metric_name)
        self._describe(network, name, dataset)
        check_int("latency_batch", latency_batch, minimum=1)
        check_int("split_seed", split_seed, minimum=0)
        if not isinstance(augment, bool):
            check_function("augment", augment)
        check_bool("test_time_flip", test_time_flip)
        self.latency_batch, self.test_time_flip = latency_batch, test_time_flip
        check_choice("optimizer", optimizer, ("sgd", "nesterov"))
        training = Training(
            n_epochs, batch_size, optimizer, weight_decay=0.0, schedule=schedule, ema=ema,
            grad_clip=GRAD_CLIP,
        ).with_genes(DEFAULT_PRM)  # fmt: skip
        super().__init__(
            space,
            SplitData(data, val, val_fraction, n_train, n_val, split_seed),
            training=training,
            metric=metric,
            metric_name=metric_name,
            objectives=objectives,
            record=record,
            augment=FlipCrop() if augment is True else augment or None,
            device=device,
            threads=threads,
            precision=precision,
            continue_trainings=continue_trainings,
            inherit_weights=inherit_weights,
        )

    @property
    def transform(self) -> str:
        """What happens to an image before the network sees it, in words."""
        data, steps = self.data, []
        if self.augment is not None:
            steps.append(name_of(self.augment))
        if data.mean and data.std:
            mean, std = (
                "(" + ", ".join(f"{value:.4f}" for value in values) + ")"
                for values in (data.mean, data.std)
            )
            steps.append(f"normalize(mean={mean}, std={std})")
        if data.transform is not None:
            steps.append(readable_name(data.transform, "transform"))
        size = "x".join(str(side) for side in self.in_shape[1:])
        return " + ".join([size, *steps])

    def configure(self, stored: Mapping[str, Any] | None) -> dict[str, Any]:
        """Returns `{"precision": …}`: the stored one, the one asked for, or the faster one here.

        Raises:
            DataError: No network of the space can take the images.
        """
        if self.sample_point() is None:
            size = "x".join(map(str, self.in_shape))
            reason = self.invalid_reason(self.space.sample(random.Random(0)))
            raise DataError(
                f"none of {N_TRIED} networks of the space takes images of {size}; the first one: "
                f"{reason}: give larger images, or a space that is made for small ones"
            )
        return super().configure(stored)

    def fingerprint(self) -> dict[str, Any]:
        """Returns what makes two trainings comparable: data, split, training, precision."""
        batch = {"latency_batch": self.latency_batch} if "latency" in self._costs else {}
        return {
            "problem": "image-classification",
            **batch,
            **super().fingerprint(),
            "test_time_flip": self.test_time_flip,
        }

    def champion_source(self, genes: Genes, title: str) -> str:
        """Returns the source of a module that classifies image files."""
        data = self.data
        return champion_source(
            generate_source(
                self.network(genes, self.n_classes),
                self.in_shape,
                hyperparameters=hyperparameters_in(genes),
            ),
            genes=genes,
            prm=self.prm(genes),
            in_shape=self.in_shape,
            classes=data.classes,
            mean=data.mean or (),
            std=data.std or (),
            test_time_flip=self.test_time_flip,
            is_uint8=not data.inputs.is_floating_point(),
            title=title,
        )

    def latency_of(self, model: nn.Module, trial: Trial) -> float:
        """Returns the milliseconds of a pass of `latency_batch` images on the trial's device."""
        return measure_latency(
            model, self.in_shape, batch_size=self.latency_batch, precision=self.precision_in(trial)
        )
