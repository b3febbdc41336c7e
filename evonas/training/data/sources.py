"""Where `Examples` of images come from: CIFAR-10, folders of images, digits, datasets, tensors."""

from __future__ import annotations

import functools
import http.client
import logging
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from evonas.arguments import check_bool, check_choice, check_int, check_one_of
from evonas.exceptions import DataError, MissingDependencyError
from evonas.training.data import _cache
from evonas.training.data.examples import Examples
from evonas.training.data.normalisation import channel_statistics
from evonas.training.data.split import sample

__all__ = [
    "Part",
    "from_dataset",
    "from_tensors",
    "image_parts",
    "load_cifar10",
    "load_digits",
    "load_image_folder",
]

_log = logging.getLogger(__name__)


Part = Literal["train", "val", "test"]
_PART_NAMES: dict[str, Part] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_NO_PICTURES = {".eps", ".ps", ".pdf", ".mpg", ".mpeg"}  # Pillow needs other programs, or guesses
_MAX_NAMED = 3
_TIMEOUT_SECONDS = 30.0  # of each network operation: a dead network must not look like a slow one
_CIFAR10_FOLDER = "cifar-10-batches-py"


def load_cifar10(
    root: str | Path, *, train: bool = True, download: bool = True, cache: bool = True
) -> Examples:
    """Returns CIFAR-10 (50,000 training or 10,000 test images, 3×32×32) through torchvision.

    Args:
        root: Where torchvision keeps it, or shall.
        train: The training part, else the test part.
        download: Whether it may be downloaded (170 MB) where `root` does not have it.
        cache: Whether decoded images are kept in the cache folder and mapped from there.

    Raises:
        DataError: It is not there and could not be downloaded.
        MissingDependencyError: torchvision does not import.
    """
    part = "train" if train else "test"
    key = _cifar10_key(Path(root), part) if cache else None
    if key is not None and (cached := _cache.load(key)) is not None:
        return cached
    dataset = _cifar10(root, train, download)
    data = Examples(
        torch.from_numpy(np.ascontiguousarray(dataset.data)).movedim(-1, 1),
        torch.tensor(dataset.targets, dtype=torch.int64),
        tuple(dataset.classes),
    )
    key = _cifar10_key(Path(root), part) if cache else None
    return data if key is None else _kept(key, data)


def load_image_folder(
    root: str | Path,
    *,
    size: int = 32,
    split: Part | None = None,
    limit: int | None = None,
    seed: int = 0,
    cache: bool = True,
) -> Examples:
    """Returns the images of a tree with one folder for each class (torchvision's ImageFolder).

    Classes are the names of the folders that are not hidden, in order. Every kind of image that
    Pillow reads counts, at any depth below its class, in order of the names; other files are
    skipped, which is logged. Images are converted to RGB (16-bit grey to 8 bits) and, where they
    have another size, resized to `size` × `size` (bilinear, the aspect ratio is not kept).

    Args:
        root: The tree: a folder for each class, or a folder for each part of the data (`train` or
            `training`; `val`, `valid` or `validation`; `test` or `testing`; in any capitals) that
            holds a folder for each class.
        size: Height and width.
        split: Which part of `root` to read. None: the training part, or all of a tree without
            parts.
        limit: At most so many images, drawn stratified by class; others are not decoded.
        seed: Of the draw.
        cache: Whether decoded images are kept in the cache folder and mapped from there.

    Raises:
        DataError: The folder is missing, has fewer than two classes, one of them holds no image
            or only folders, or a file is damaged.
        MissingDependencyError: Pillow does not import.
        TypeError, ValueError: `size` is no int of at least 1, or another argument is wrong.
    """
    check_int("size", size, minimum=1)
    check_one_of("root", root, (str, PathLike), "the path of a folder")
    if not str(root):
        raise ValueError("root must be the path of a folder, got ''")
    if split is not None:
        check_choice("split", split, ("train", "val", "test"))
    check_bool("cache", cache)
    check_int("seed", seed, minimum=0, maximum=None)
    if limit is not None:
        check_int("limit", limit, minimum=1)
    folder = _split_folder(Path(root), split)
    classes, files = _listed(folder)
    if limit is not None and limit < len(files):
        check_int("limit", limit, minimum=len(classes))
        drawn = sample(torch.tensor([label for _, label in files]), limit, seed, "limit")
        files = [files[index] for index in drawn.tolist()]
    names = ((path.relative_to(folder).as_posix(), path) for path, _ in files)
    key = _cache.source_key(f"folder {size} {classes}", names) if cache else None
    if key is not None and (cached := _cache.load(key)) is not None:
        return cached
    images = np.empty((len(files), size, size, 3), dtype=np.uint8)
    # Shown where it takes more than two seconds, on a terminal.
    shown = tqdm(files, desc="decoding images", unit="", delay=2, leave=False, disable=None)
    for row, (path, _) in zip(images, shown, strict=True):
        row[...] = _decoded(path, size)
    labels = torch.tensor([label for _, label in files])
    data = Examples(torch.from_numpy(images).movedim(-1, 1), labels, classes)
    return data if key is None else _kept(key, data)


def image_files(
    root: str | Path, split: Part | None = None
) -> tuple[tuple[str, ...], list[tuple[Path, int]]]:
    """Returns the classes of a folder, and each of its images with its label; none is opened.

    Args:
        root: See `load_image_folder`.
        split: Likewise.

    Raises:
        DataError: See `load_image_folder`.
    """
    return _listed(_split_folder(Path(root), split))


def load_digits(size: int = 32) -> Examples:
    """Returns scikit-learn's 1,797 handwritten digits, grey, upscaled from 8×8 to `size` × `size`.

    Comes with scikit-learn: nothing is downloaded.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
        ValueError: `size` is below 1.
    """
    check_int("size", size, minimum=1)
    try:
        from sklearn import datasets
    except ImportError as error:
        raise MissingDependencyError.of(
            "load_digits", "scikit-learn", error, "pip install 'evonas[examples]'"
        ) from error
    bunch = datasets.load_digits()
    images = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16  # (N, 1, 8, 8) in [0, 1]
    images = functional.interpolate(images, (size, size), mode="bilinear", align_corners=False)
    return Examples(
        (images * 255).round().to(torch.uint8),
        torch.from_numpy(bunch.target).long(),
        tuple(str(name) for name in bunch.target_names),
    )


def from_dataset(dataset: Any) -> Examples:
    """Returns all examples of a map-style dataset of `(image, label)`, read once, in order.

    An image is a PIL image, a tensor `(C, H, W)` or an array `(H, W, C)` of uint8; float tensors
    are taken as by `from_tensors`. What the dataset's transform draws at random is drawn once:
    leave augmentation to `FlipCrop`. Classes are `dataset.classes` where it has them.

    Raises:
        DataError: An item cannot be read or is not `(image, label)`, or images differ in shape.
        TypeError: The dataset has no length.
    """
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise TypeError(
            f"dataset must be map-style (with __len__ and __getitem__), "
            f"got {type(dataset).__name__}: read an iterable one into tensors and use from_tensors"
        )
    images: list[Tensor] = []
    labels: list[int] = []
    for index in range(len(dataset)):
        image, label = _item(dataset, index)
        if images and (image.shape != images[0].shape or image.dtype != images[0].dtype):
            raise DataError(
                f"all images of the dataset must have one shape and dtype, got {images[0].dtype} "
                f"{tuple(images[0].shape)} at 0 and {image.dtype} {tuple(image.shape)} at {index}: "
                f"resize and convert them in the dataset's transform"
            )
        images.append(image)
        labels.append(label)
    if not images:
        raise DataError("the dataset must hold at least one example, found none")
    names = getattr(dataset, "classes", None)
    return from_tensors(torch.stack(images), torch.tensor(labels), classes=names)


def from_tensors(images: Any, labels: Any, *, classes: Any = None) -> Examples:
    """Returns `Examples` of a pair of tensors or arrays.

    Args:
        images: uint8 `(N, C, H, W)` or grey `(N, H, W)`, or numbers `(N, ...)`. Float images
            `(N, C, H, W)` that are exact multiples of 1/255 (what ToTensor makes) become uint8
            again, which is a quarter of the memory and the same values; all else is kept as
            float32.
        labels: Integers `(N,)`, from 0.
        classes: A name for each label. None: the numbers, up to the largest label.

    Raises:
        TypeError: Labels are not integers.
        ValueError: As `Examples`; a value is NaN or infinite; or channels seem to come last.
    """
    images, labels = torch.as_tensor(images), torch.as_tensor(labels)
    if images.dtype == torch.uint8 and images.ndim == 3:
        images = images.unsqueeze(1)
    if images.ndim == 4 and images.shape[1] > 4 and images.shape[3] in (1, 3, 4):
        raise ValueError(
            f"images must be (N, C, H, W), got {tuple(images.shape)}, which looks like "
            f"(N, H, W, C): pass images.movedim(-1, 1)"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integers from 0, got {labels.dtype}")
    if images.dtype != torch.uint8 or images.ndim != 4:
        images = _bytes_or_floats(images)
    if classes is None:
        classes = [str(label) for label in range(int(labels.max()) + 1 if labels.numel() else 0)]
    mean, std = channel_statistics(images.movedim(1, -1)) if images.ndim == 4 else ((), ())
    names = tuple(str(name) for name in classes)
    return Examples(images, labels.long(), names, mean=mean, std=std)


def _bytes_or_floats(images: Tensor) -> Tensor:
    images = images.to(torch.float32)
    if not bool(images.isfinite().all()):
        raise ValueError("images must be finite, got NaN or infinity: clean the data first")
    if images.ndim == 4 and float(images.min()) >= 0 and float(images.max()) <= 1:
        rounded = (images * 255).round()
        if bool((rounded / 255 == images).all()):
            return rounded.to(torch.uint8)
    return images


def _kept(key: str, data: Examples) -> Examples:
    _cache.store(key, data)
    # Mapped from the file from now on, as in every later process: its pages are shared.
    return _cache.load(key) or data


def _cifar10_key(root: Path, part: str) -> str | None:
    folder = root.expanduser() / _CIFAR10_FOLDER
    files = [(path.name, path) for path in folder.glob("*") if path.is_file()]
    return _cache.source_key(f"cifar10 {part}", files) if files else None


def _cifar10(root: str | Path, train: bool, download: bool) -> Any:
    datasets = _torchvision_datasets()
    try:
        with _network_timeout():
            return datasets.CIFAR10(str(root), train=train, download=download)
    except (OSError, RuntimeError, EOFError, ValueError, http.client.HTTPException) as error:
        # OSError: no network, no disk. RuntimeError: incomplete, or not there. The rest: damaged.
        verb = "be downloaded" if download else "be found"
        raise DataError(
            f"CIFAR-10 could not {verb} at {root} ({type(error).__name__}: {error}): put the "
            f"extracted {_CIFAR10_FOLDER} folder there, or use other data: --dataset imagefolder "
            f"--data-root with a local tree of images, or --dataset digits"
        ) from error


def _torchvision_datasets() -> Any:
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:
        # RuntimeError: "operator torchvision::nms does not exist", from builds that do not match.
        raise MissingDependencyError(
            f"torchvision does not import ({error}): install a torchvision that matches torch "
            f"{torch.__version__}, both from one source (pip install torch torchvision)"
        ) from error
    return datasets


@contextmanager
def _network_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)  # torchvision passes none of its own
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def image_parts(root: str | Path) -> dict[Part, Path]:
    """Returns the folders of the parts (training, validation, test) that a tree is divided into.

    Empty where its folders are classes. A folder is a part if it has the name of one and holds
    folders but no images itself.

    Raises:
        DataError: It is not a folder, or two folders are the same part.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DataError(
            f"{root} must be a folder that holds a folder of images for each class, found no folder"
        )
    parts: dict[Part, Path] = {}
    for folder in _folders(root):
        part = _PART_NAMES.get(folder.name.lower())
        if part is None or not _folders(folder) or any(map(_is_image, folder.iterdir())):
            continue
        if part in parts:
            raise DataError(
                f"{parts[part]} and {folder.name} are both the {part} part: rename one of them"
            )
        parts[part] = folder
    return parts


def _split_folder(root: Path, split: Part | None) -> Path:
    parts = image_parts(root)
    if split is None and not parts:
        return root.expanduser()
    folder = parts.get(split or "train")
    if folder is None:
        found = ", ".join(entry.name for entry in _folders(root.expanduser()))
        raise DataError(
            f"{root} has no folder {split or 'train'!r}; its folders are: {found or 'none'}"
        )
    return folder


def _folders(folder: Path) -> list[Path]:
    return sorted(e for e in folder.iterdir() if e.is_dir() and not e.name.startswith("."))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _suffixes() and not path.is_dir()


@functools.cache
def _suffixes() -> frozenset[str]:
    """Returns the endings of the files that Pillow opens."""
    image_module = _pillow()
    endings = image_module.registered_extensions()
    return frozenset(
        ending
        for ending, kind in endings.items()
        if kind in image_module.OPEN and ending not in _NO_PICTURES
    )


def _listed(folder: Path) -> tuple[tuple[str, ...], list[tuple[Path, int]]]:
    """Returns the classes, and each image file with its label."""
    classes = _folders(folder)
    files: list[tuple[Path, int]] = []
    skipped: list[Path] = []
    empty, nested = [], []
    for label, place in enumerate(classes):
        found = [path for path in sorted(place.rglob("*")) if not path.is_dir()]
        images = [path for path in found if _is_image(path)]
        skipped += [path for path in found if not _is_image(path) and path.name[0] != "."]
        if not images:
            empty.append(place.name)
        elif not any(path.parent == place for path in images):
            nested.append(place.name)
        files += [(path, label) for path in images]
    # Also where only some are empty: their labels would shift those of another split.
    if empty or not classes:
        raise DataError(
            f"{folder} must hold one folder of images for each class, "
            f"found {'none in ' + ', '.join(empty) if empty else 'no folder'}"
        )
    if nested:
        raise DataError(
            f"{folder} must hold one folder of images for each class, found only folders in "
            f"{', '.join(nested)}: pass the folder whose folders are the classes"
        )
    if len(classes) < 2:
        raise DataError(
            f"{folder} must hold at least two classes, found only {classes[0].name}: pass the "
            "folder whose folders are the classes"
        )
    if skipped:
        named = ", ".join(str(path.relative_to(folder)) for path in skipped[:_MAX_NAMED])
        more = ", …" if len(skipped) > _MAX_NAMED else ""
        _log.warning(
            "%s: %d files are no images that Pillow reads, and are skipped: %s%s",
            folder, len(skipped), named, more,
        )  # fmt: skip
    return tuple(place.name for place in classes), files


def _decoded(path: Path, size: int) -> np.ndarray[Any, Any]:
    """Returns one file as uint8 `(size, size, 3)`."""
    image_module = _pillow()
    try:
        with image_module.open(path) as image:
            image = _eight_bits(image, image_module).convert("RGB")
            if image.size != (size, size):
                image = image.resize((size, size), image_module.Resampling.BILINEAR)
            return np.asarray(image)
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        image_module.DecompressionBombError,
    ) as error:  # what Pillow raises for damaged files
        raise DataError(
            f"{path} cannot be read as an image ({error}): replace or remove the file"
        ) from error


def _eight_bits(image: Any, image_module: Any) -> Any:
    """Returns an image of 16-bit grey in 8 bits (Pillow's own conversion clips it to white)."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    levels = np.asarray(image, dtype=np.float64)
    if image.mode == "F" or levels.min() < 0 or levels.max() > 65535:
        raise ValueError(f"mode {image.mode} with values outside 0 to 65535 has no known range")
    return image_module.fromarray((levels / 257).round().astype(np.uint8))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError.of(
            "reading image files", "Pillow", error, "pip install pillow"
        ) from error
    return Image


def _item(dataset: Any, index: int) -> tuple[Tensor, int]:
    try:
        image, label = dataset[index]
    except (TypeError, ValueError) as error:
        raise DataError(
            f"item {index} of the dataset must be (image, label), could not read it: {error}"
        ) from error
    if isinstance(image, Tensor):
        return image, int(label)
    pixels = np.asarray(
        image if getattr(image, "mode", "RGB") in ("L", "RGB") else image.convert("RGB")
    )
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise DataError(
            f"image {index} of the dataset must be a PIL image, a tensor (C, H, W) or a uint8 "
            f"array (H, W, C), got {type(image).__name__} {pixels.dtype} {pixels.shape}"
        )
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    return torch.from_numpy(pixels.copy()).movedim(-1, 0), int(label)
