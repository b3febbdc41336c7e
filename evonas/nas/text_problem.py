"""Text classifiers as a problem: a point is a transformer and how to train it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from evonas.arguments import check_int, check_one_of
from evonas.nas.champion import text_champion_source
from evonas.nas.network_problem import NetworkFunction, NetworkProblem
from evonas.nas.source import generate_source, hyperparameters_in
from evonas.nas.split_data import Source, SplitData
from evonas.nas.transformer import transformer_network
from evonas.objectives import Objective
from evonas.records import Genes
from evonas.space import SearchSpace
from evonas.training.data.vocabulary import Vocabulary
from evonas.training.recipe import Schedule, Training

__all__ = ["TextClassificationProblem"]

_GRAD_CLIP = 3.0  # as in the generated `learn`


class TextClassificationProblem(NetworkProblem):
    """Trains the text classifier of a point for a few epochs, and returns its validation accuracy.

    Texts are token numbers `(N, length)` of a `Vocabulary`, which goes into the champion's module:
    that takes texts. Trained with AdamW and cross entropy, the gradient clipped at norm 3; by
    default the rate rises for a tenth of the steps and falls to 0.

    Genes named `lr`, `momentum` (the first beta), `weight_decay`, `dropout`, `label_smoothing` and
    `n_epochs` are how to train; all others are for `network`.

    Args:
        space: The search space, see `transformer_space`.
        data: The training texts as `Vocabulary.examples` makes them, or a function that does.
        vocabulary: Of the token numbers.
        network: `(genes, n_classes)` to a `Network`. None: `transformer_network`.
        val: Texts to validate on, likewise. None: a share of `data`.
        n_epochs: Epochs a trial.
        batch_size: Texts a step.
        val_fraction: Share of the texts that is validated on, where `n_val` is None.
        n_train: Texts to train on. None: all that are not validated on.
        n_val: Texts to validate on.
        split_seed: Decides which texts these are.
        schedule: Of the learning rate, see `Training`.
        device: For which the precision is chosen.
        threads: With how many threads a trial computes, for the same choice.
        precision: `"float32"` or `"bfloat16"`. None: the faster one here, kept in the run.
        continue_trainings: See `ImageClassificationProblem`.
        inherit_weights: Likewise.
        objectives: None: accuracy. Others, to be minimised: `params`, `macs`, `latency`,
            `train_seconds`.
        record: Which of `latency` and `train_seconds` to put on record where they are no
            objectives.
        name: In the names of the run's files.
        dataset: In the names of the run's files.

    Raises:
        TypeError: `data`, `vocabulary` or `network` has another type.
        ValueError: A number is out of range, an objective is unknown, or the data are no texts.

    Example:
        >>> from evonas.nas.transformer import hand_made_transformer, transformer_space
        >>> from evonas.training.data.corpora import Sentences
        >>> texts = Sentences(("good", "bad", "very good", "so bad") * 9, (1, 0) * 18, ("-", "+"))
        >>> vocabulary = Vocabulary.of(texts.texts)
        >>> problem = TextClassificationProblem(
        ...     transformer_space(), vocabulary.examples(texts, 8), vocabulary, precision="float32"
        ... )
        >>> from evonas.execution.trial import Trial
        >>> 0 <= problem.evaluate(hand_made_transformer(), Trial()) <= 1
        True
    """

    task = "txt-classification"
    source_optimizer = "AdamW"
    default_prm = MappingProxyType({"lr": 1e-3, "momentum": 0.9})

    def __init__(
        self,
        space: SearchSpace,
        data: Source,
        vocabulary: Vocabulary,
        *,
        network: NetworkFunction | None = None,
        val: Source | None = None,
        n_epochs: int = 3,
        batch_size: int = 64,
        val_fraction: float = 0.2,
        n_train: int | None = None,
        n_val: int | None = None,
        split_seed: int = 0,
        schedule: Schedule = "linear",
        device: str = "cpu",
        threads: int = 1,
        precision: str | None = None,
        continue_trainings: bool = False,
        inherit_weights: bool = False,
        objectives: Objective | Sequence[Objective] | None = None,
        record: Sequence[str] = (),
        name: str = "transformer",
        dataset: str = "texts",
    ) -> None:
        check_one_of("vocabulary", vocabulary, Vocabulary, "a Vocabulary")
        check_int("split_seed", split_seed, minimum=0)
        self.vocabulary = vocabulary
        if network is None:
            network = partial(transformer_network, vocabulary=len(vocabulary))
        self._describe(network, name, dataset)
        training = Training(
            n_epochs, batch_size, "adamw", weight_decay=0.01, schedule=schedule,
            grad_clip=_GRAD_CLIP,
        ).with_genes(self.default_prm)  # fmt: skip
        super().__init__(
            space,
            SplitData(data, val, val_fraction, n_train, n_val, split_seed, texts=True),
            training=training,
            metric=None,
            metric_name="accuracy",
            objectives=objectives,
            record=record,
            device=device,
            threads=threads,
            precision=precision,
            continue_trainings=continue_trainings,
            inherit_weights=inherit_weights,
        )
        largest = int(self.data.inputs.max())
        if largest >= len(vocabulary):
            raise ValueError(
                f"data must be encoded with this vocabulary of {len(vocabulary)} numbers, got a "
                f"token number of {largest}"
            )

    @property
    def transform(self) -> str:
        """What happens to a text before the network sees it, in words."""
        return f"{self.in_shape[0]} tokens + {self.vocabulary!r}"

    def fingerprint(self) -> dict[str, Any]:
        """Returns what makes two trainings comparable: data, split, training, precision."""
        return {"problem": "text-classification", **super().fingerprint()}

    def empty_inputs(self) -> Tensor:
        """Returns a text of padding alone, on the default device."""
        return torch.zeros(1, *self.in_shape, dtype=torch.int64)

    def champion_source(self, genes: Genes, title: str) -> str:
        """Returns the source of a module that classifies texts."""
        return text_champion_source(
            generate_source(
                self.network(genes, self.n_classes),
                self.in_shape,
                hyperparameters=hyperparameters_in(genes),
                optimizer=self.source_optimizer,
            ),
            genes=genes,
            prm=self.prm(genes),
            in_shape=self.in_shape,
            classes=self.data.classes,
            words=self.vocabulary.words,
            title=title,
        )
