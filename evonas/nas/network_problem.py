"""Classifiers described by networks as a problem: what images and texts have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from evonas.arguments import check_file_label
from evonas.exceptions import InvalidPoint
from evonas.nas.described import description
from evonas.nas.export import NasRunFiles
from evonas.nas.layers import Shape
from evonas.nas.modules import StochasticDepth
from evonas.nas.network import Network, build
from evonas.nas.source import (
    GENERATOR_VERSION,
    HYPERPARAMETERS,
    OptimizerInSource,
    generate_source,
    hyperparameters_in,
)
from evonas.nas.split_data import SplitData
from evonas.problem import RunFiles
from evonas.records import Genes
from evonas.training import Examples, accuracy
from evonas.training.cost import count_params, macs_of_pass
from evonas.training.data.parts import preprocessing_of
from evonas.training.fused.loop import NOISE
from evonas.training.problem import TrainingProblem
from evonas.training.recipe import Training

if TYPE_CHECKING:
    from evonas.execution.trial import Trial

__all__ = ["NetworkFunction", "NetworkProblem"]

NetworkFunction = Callable[[Genes, int], Network]
"""`(genes, n_classes)` to the network that they describe."""


class NetworkProblem(TrainingProblem):
    """Trains the network of a point for a few epochs and returns its validation accuracy.

    A subclass says what the examples are; it sets `network`, `name` and `dataset` and passes
    `SplitData` on.
    """

    task: ClassVar[str]
    """What the run's statistics are filed under: `img-classification`."""

    source_optimizer: ClassVar[OptimizerInSource] = "SGD"
    """What the generated `train_setup` makes."""

    default_prm: ClassVar[Mapping[str, float]]
    """What `prm` holds where the space has no such gene."""

    noise_modules = (*NOISE, StochasticDepth)
    network: NetworkFunction
    name: str
    dataset: str
    _data: SplitData

    def _describe(self, network: NetworkFunction, name: str, dataset: str) -> None:
        check_file_label("name", name)
        check_file_label("dataset", dataset)
        if not callable(network):
            raise TypeError(
                "network must be callable as network(genes, n_classes),"
                f" got {type(network).__name__}"
            )
        self.network, self.name, self.dataset = network, name, dataset

    @property
    def transform(self) -> str:
        """What happens to an example before the network sees it, in words."""
        raise NotImplementedError(f"{type(self).__name__} must define transform")

    def champion_source(self, genes: Genes, title: str) -> str:
        """Returns the source of a module that loads the weights of these genes and uses them."""
        raise NotImplementedError(f"{type(self).__name__} must define champion_source")

    def empty_inputs(self) -> Tensor:
        """Returns inputs of one example without content, on the default device."""
        return torch.empty(1, *self.in_shape)

    def fingerprint(self) -> dict[str, Any]:
        """Returns what makes two trainings comparable: data, split, training, precision."""
        return {**super().fingerprint(), "generator": GENERATOR_VERSION}

    @property
    def measured_names(self) -> tuple[str, ...]:
        """The metric, and accuracy beside any other."""
        return self.metric_name, "accuracy"

    @property
    def n_epochs(self) -> int:
        """Epochs a trial."""
        return self.training.n_epochs

    @property
    def batch_size(self) -> int:
        """Examples a step."""
        return self.training.batch_size

    @property
    def data(self) -> Examples:
        """The examples; opened when first asked for."""
        return self._data.opened

    @property
    def splits(self) -> tuple[Tensor, Tensor]:
        """The indices of the training and of the validation examples."""
        return self._data.train, self._data.val

    @property
    def in_shape(self) -> Shape:
        """The shape of one example: `(C, H, W)` of images, `(length,)` of texts."""
        return self.data.shape

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return self.data.n_classes

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
                network,
                self.in_shape,
                genes=genes,
                hyperparameters=hyperparameters_in(genes),
                optimizer=self.source_optimizer,
            )
        except InvalidPoint:
            return None

    def training_genes(self, genes: Genes) -> Genes:
        """Returns the genes that the source reads from `prm`, and `n_epochs`."""
        names = [*HYPERPARAMETERS, "n_epochs"]
        return {name: genes[name] for name in names if name in genes}

    def prm(self, genes: Genes) -> dict[str, Any]:
        """Returns the hyperparameters by name, as the generated `Net` wants them."""
        return {**self.default_prm, **hyperparameters_in(genes)}

    def build(self, genes: Genes) -> nn.Module:
        """Returns the untrained network, initialised from torch's global generator.

        Raises:
            InvalidPoint: A layer cannot take what reaches it.
        """
        network = self._network(genes)
        return build(network, self.in_shape, prm=self.prm(genes))

    def training_of(self, genes: Genes) -> Training:
        """Returns the settings of the generated `train_setup`, for the epochs of a gene if any."""
        return self.training.with_genes(self.training_genes(genes))

    def measure(self, outputs: Any, targets: Any) -> Mapping[str, float]:
        """Returns accuracy, the plain cross entropy and the metric of the validation examples."""
        values = {
            "loss": float(functional.cross_entropy(outputs, targets)),
            "accuracy": accuracy(outputs, targets),
        }
        return values if self.metric is None else {**values, **super().measure(outputs, targets)}

    def counted(self, genes: Genes) -> dict[str, int]:
        """Returns `params` and `macs`, without memory or arithmetic."""
        model = self.sample_model(genes)
        with torch.device("meta"):
            inputs = self.empty_inputs()
        return {"params": count_params(model), "macs": macs_of_pass(model, inputs)}

    def sample_model(self, genes: Genes) -> nn.Module:
        """Returns the network without memory: on the device `meta`."""
        self.data  # noqa: B018 (where the examples are opened only now, they are not meta)
        with torch.device("meta"):
            return self.build(genes)

    def keep(self, model: nn.Module, genes: Genes, trial: Trial) -> None:
        """Keeps the weights, and the network as data: it is built again without this script."""
        known = description(self._network(genes), self.in_shape, self.prm(genes))
        about = {"preprocessing": preprocessing_of(self.data)}
        trial.save(model, self._example(trial.device), known={**known, **about})

    def run_files(self, run_dir: Path) -> RunFiles:
        """Returns the writer of `ga_architecture/`, `stats/` and the champion's files."""
        return NasRunFiles(run_dir, self)
