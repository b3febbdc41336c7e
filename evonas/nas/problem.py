"""Image classifiers as a problem: a point is a network and how to train it."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from evonas.arguments import (
    check_callable,
    check_file_label,
    check_int,
    check_list,
    check_string,
)
from evonas.exceptions import DataError, InvalidPoint
from evonas.execution.weights import NETWORK
from evonas.nas.cost import COUNTED, MEASURED, count_macs, count_params, measure_latency
from evonas.nas.described import description
from evonas.nas.export import NasRunFiles
from evonas.nas.layers import Shape
from evonas.nas.network import Network, build
from evonas.nas.source import GENERATOR_VERSION, HYPERPARAMETERS, generate_source
from evonas.nas.split_data import Source, SplitData
from evonas.objectives import Objective
from evonas.problem import Problem, RunFiles
from evonas.records import Genes
from evonas.space import SearchSpace
from evonas.training import (
    Augment,
    Examples,
    FlipCrop,
    Timed,
    accuracy,
    as_precision,
    choose_precision,
    fingerprint_of,
    fit,
    name_of,
    place,
    readable_name,
    seeded,
    train_epoch,
)

if TYPE_CHECKING:
    from evonas.execution.trial import Trial

__all__ = ["DEFAULT_PRM", "GRAD_CLIP", "ImageClassificationProblem", "NetworkFunction"]

NetworkFunction = Callable[[Genes, int], Network]
"""`(genes, n_classes)` to the network that they describe."""

_N_TRIED = 200  # networks, before a search: one that takes the images is enough

Metric = Callable[[Tensor, Tensor], float]

GRAD_CLIP = 3.0
"""Greatest gradient norm, in our loop as in the generated `learn`."""

DEFAULT_PRM: Mapping[str, float] = {"lr": 0.01, "momentum": 0.9}
"""What `prm` holds where the space has no such gene."""


class ImageClassificationProblem(Problem):
    """Trains the network of a point for a few epochs and returns its validation accuracy.

    The images are divided once, by `split_seed`, into a training and a validation part, and
    normalised by the training part's mean and standard deviation. Each trial trains with SGD and
    cross entropy, its gradient clipped at norm 3, exactly as the generated source's `learn` does
    (in float32; in bfloat16 the same up to rounding).

    A run that measures `latency` or `train_seconds` is not exact: they change from one time to the
    next. Measure them with one worker, so that trials do not disturb each other.

    Genes named in `HYPERPARAMETERS` (`lr`, `momentum`, `weight_decay`, `dropout`,
    `label_smoothing`) are how to train; all others are for `network`.

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
        metric: `(outputs (N, classes), labels (N,))` to a float that is maximised. None:
            accuracy, which is reported beside any other.
        augment: True: random flips and crops of the training images; or a function
            `(images, generator) -> images`, whose `repr` enters the fingerprint.
        device: For which the precision is chosen. Where trials run is the executor's business.
        threads: With how many threads a trial computes, for the same choice.
        precision: `"float32"` or `"bfloat16"`. None: the faster one here, found out at a run's
            first start and kept in the run.
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
        >>> from evonas.nas import alexnet_small_space, plain_network
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

    preparation = "measuring which precision trains faster"

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
        metric: Metric | None = None,
        augment: bool | Augment = False,
        device: str = "cpu",
        threads: int = 1,
        precision: str | None = None,
        objectives: Objective | Sequence[Objective] | None = None,
        record: Sequence[str] = (),
        latency_batch: int = 1,
        name: str = "alexnet",
        dataset: str = "images",
    ) -> None:
        if metric is not None:
            check_callable("metric", metric)
        check_file_label("name", name)
        check_file_label("dataset", dataset)
        self.metric = metric
        self.metric_name = "accuracy" if metric is None else readable_name(metric, "metric")
        check_file_label("metric's name", self.metric_name)
        if objectives is None:
            objectives = Objective(self.metric_name)
        super().__init__(space, objectives=objectives)
        wanted = [objective.name for objective in self.objectives]
        _check_names("objectives", wanted, {"accuracy", self.metric_name, *COUNTED, *MEASURED})
        record = check_list("record", record, f"names among {', '.join(MEASURED)}")
        _check_names("record", record, MEASURED)
        self._measured = {*wanted, *record} & set(MEASURED)
        if not callable(network):
            raise TypeError(
                "network must be callable as network(genes, n_classes),"
                f" got {type(network).__name__}"
            )
        check_int("n_epochs", n_epochs, minimum=1)
        check_int("batch_size", batch_size, minimum=1)
        check_int("latency_batch", latency_batch, minimum=1)
        check_int("split_seed", split_seed, minimum=0)
        check_int("threads", threads, minimum=1)
        check_string("device", device)
        if not isinstance(augment, bool):
            check_callable("augment", augment)
        self.network = network
        self.latency_batch = latency_batch
        self.n_epochs, self.batch_size = n_epochs, batch_size
        self.augment: Augment | None = FlipCrop() if augment is True else augment or None
        self.device, self.threads = device, threads
        self.precision = None if precision is None else as_precision(precision)
        self.name, self.dataset = name, dataset
        self._data = SplitData(data, val, val_fraction, n_train, n_val, split_seed)

    @property
    def uses_torch(self) -> bool:
        """True."""
        return True

    @property
    def data(self) -> Examples:
        """The images, normalised by the training part; opened when first asked for."""
        return self._data.opened

    @property
    def splits(self) -> tuple[Tensor, Tensor]:
        """The indices of the training and of the validation images."""
        return self._data.train, self._data.val

    @property
    def in_shape(self) -> Shape:
        """The shape of one image, `(C, H, W)`."""
        return self.data.shape

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return self.data.n_classes

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
        size = "x".join(str(side) for side in self.in_shape[1:])
        return " + ".join([size, *steps])

    def configure(self, stored: Mapping[str, Any] | None) -> dict[str, Any]:
        """Returns `{"precision": …}`: the stored one, the one asked for, or the faster one here.

        Raises:
            DataError: No network of the space can take the images.
        """
        self._check_fit()
        if stored and "precision" in stored and self.precision is None:
            self.precision = as_precision(stored["precision"])
        if self.precision is None:
            self.precision = choose_precision(self.device, self.threads)
        return {"precision": self.precision}

    def sample_step(self) -> tuple[Callable[[], object], int] | None:
        """Returns a step of a random network of the space, on the CPU."""
        rng = random.Random(0)
        points = (self.space.sample(rng) for _ in range(_N_TRIED))
        genes = next((point for point in points if self.invalid_reason(point) is None), None)
        if genes is None:
            return None
        n_train = len(self.splits[0])
        with seeded(0):
            model = place(self.build(genes), "cpu")
        images = self.data.subset(self.splits[0][: self.batch_size])
        batch = next(iter(images.batches(self.batch_size)))
        step = partial(
            train_epoch, model, [batch], self.optimizer(model, genes),
            precision=self.precision or "float32",
        )  # fmt: skip
        return step, self.n_epochs * -(-n_train // self.batch_size)

    def _check_fit(self) -> None:
        rng = random.Random(0)
        reason: str | None = None
        for _ in range(_N_TRIED):
            reason = self.invalid_reason(self.space.sample(rng))
            if reason is None:
                return
        size = "x".join(map(str, self.in_shape))
        raise DataError(
            f"none of {_N_TRIED} networks of the space takes images of {size}; the last one: "
            f"{reason}: give larger images, or a space that is made for small ones"
        )

    def fingerprint(self) -> dict[str, Any]:
        """Returns what makes two trainings comparable: data, split, training, precision."""
        train, val = self.splits
        batch = {"latency_batch": self.latency_batch} if "latency" in self._measured else {}
        return {
            **batch,
            "problem": "image-classification",
            "data": self._data.identity,
            "n_train": len(train),
            "n_val": len(val),
            "split_seed": self._data.split_seed,
            "n_epochs": self.n_epochs,
            "batch_size": self.batch_size,
            "precision": self.precision,
            "augment": "none" if self.augment is None else fingerprint_of(self.augment),
            "metric": self.metric_name if self.metric is None else fingerprint_of(self.metric),
            "generator": GENERATOR_VERSION,
        }

    def invalid_reason(self, genes: Genes) -> str | None:
        """Returns which layer cannot take what reaches it, or None."""
        try:
            self._network(genes).shapes(self.in_shape)
        except InvalidPoint as invalid:
            return str(invalid)
        return None

    def _network(self, genes: Genes) -> Network:
        """Returns the network of a point; an error of the user's function names the genes.

        Raises:
            InvalidPoint: The function says that the point is invalid.
        """
        try:
            return self.network(genes, self.n_classes)
        except InvalidPoint:
            raise
        except Exception as error:
            error.add_note(
                f"network() raised this for the genes {genes}: fix it, or raise "
                "evonas.InvalidPoint where a point is invalid"
            )
            raise

    def source(self, genes: Genes) -> str | None:
        """Returns the generated module, its genes in the comment at the end; None if invalid."""
        try:
            network = self._network(genes)
            return generate_source(
                network, self.in_shape, genes=genes, hyperparameters=self.training_genes(genes)
            )
        except InvalidPoint:
            return None

    def training_genes(self, genes: Genes) -> Genes:
        """Returns the genes that the source reads from `prm`."""
        return {name: genes[name] for name in HYPERPARAMETERS if name in genes}

    def prm(self, genes: Genes) -> dict[str, Any]:
        """Returns the hyperparameters by name, as the generated `Net` wants them."""
        return {**DEFAULT_PRM, **self.training_genes(genes)}

    def build(self, genes: Genes) -> nn.Module:
        """Returns the untrained network, initialised from torch's global generator.

        Raises:
            InvalidPoint: A layer cannot take what reaches it.
        """
        network = self._network(genes)
        return build(network, self.in_shape, prm=self.prm(genes))

    def optimizer(self, model: nn.Module, genes: Genes) -> torch.optim.Optimizer:
        """Returns the SGD of the generated `train_setup`."""
        prm = self.prm(genes)
        return torch.optim.SGD(
            model.parameters(),
            lr=prm["lr"],
            momentum=prm["momentum"],
            weight_decay=prm.get("weight_decay", 0.0),
        )

    def loss_function(self, genes: Genes) -> nn.Module:
        """Returns the cross entropy of the generated `train_setup`."""
        return nn.CrossEntropyLoss(label_smoothing=self.prm(genes).get("label_smoothing", 0.0))

    def evaluate(self, genes: Genes, trial: Trial) -> float | dict[str, float]:
        """Trains the network and returns its validation metric after the last epoch.

        Reports `accuracy`, `loss` (both on the validation images) and `train_loss` each epoch,
        and records `params` and `macs`. Everything random comes from `trial.seed`; torch's global
        generator is left as it was.

        Raises:
            InvalidPoint: A layer cannot take what reaches it.
        """
        precision = trial.settings.problem.get("precision") or self.configure(None)["precision"]
        counted = self._count(genes)
        trial.record(**counted)
        device = torch.device(trial.device)
        with seeded(trial.seed, device):
            model = place(self.build(genes), device)
            measured = self._train(model, genes, trial, precision)
        if "latency" in self._measured:
            measured["latency"] = measure_latency(
                model, self.in_shape, batch_size=self.latency_batch, precision=precision
            )
        trial.record(**{name: measured[name] for name in MEASURED if name in self._measured})
        values = {**counted, **measured}
        fitness = {objective.name: values[objective.name] for objective in self.objectives}
        first = fitness[self.objectives[0].name]
        if math.isfinite(first) and trial.would_be_kept(first) and trial.save(model):
            text = json.dumps(description(self._network(genes), self.in_shape, self.prm(genes)))
            trial.attach(NETWORK, lambda path: path.write_text(text, encoding="utf-8"))
        return first if len(fitness) == 1 else fitness

    def _count(self, genes: Genes) -> dict[str, int]:
        """Returns `params` and `macs`, without memory or arithmetic."""
        in_shape = self.in_shape  # first: the images, where they are opened only now, are not meta
        with torch.device("meta"):
            model = self.build(genes)
        return {"params": count_params(model), "macs": count_macs(model, in_shape)}

    def _train(
        self, model: nn.Module, genes: Genes, trial: Trial, precision: str
    ) -> dict[str, float]:
        """Returns the last epoch's measures; the metric is NaN where the training diverged."""
        train, images = self._data.on(trial.device)
        began, val = time.perf_counter(), Timed(images)
        seen: dict[str, float] = {}

        def measure(outputs: Tensor, labels: Tensor) -> float:
            seen["loss"] = float(nn.functional.cross_entropy(outputs, labels))
            seen["accuracy"] = accuracy(outputs, labels)
            return seen["accuracy"] if self.metric is None else float(self.metric(outputs, labels))

        def report(epoch: int, metrics: Mapping[str, float]) -> None:
            # The metric again: it may be another than accuracy.
            trial.report(**{**seen, **{name: metrics[name] for name in reported}})

        reported = (self.metric_name, "train_loss")
        value = fit(
            model,
            train,
            val,
            n_epochs=self.n_epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer(model, genes),
            seed=trial.seed,
            loss_function=self.loss_function(genes),
            metric=val.timed(measure),
            metric_name=self.metric_name,
            precision=precision,
            augment=self.augment,
            grad_clip=GRAD_CLIP,
            report=report,
        )
        seconds = time.perf_counter() - began - val.seconds
        return {"accuracy": math.nan, **seen, self.metric_name: value, "train_seconds": seconds}

    def run_files(self, run_dir: Path) -> RunFiles:
        """Returns the writer of `ga_architecture/`, `stats/` and the champion's files."""
        return NasRunFiles(run_dir, self)


def _check_names(argument: str, names: Sequence[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{argument} must be among {', '.join(sorted(known))}, got {name!r}")
