"""Decoded images on disk, so that a folder of files is decoded once on a machine."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from evonas.exceptions import DataError
from evonas.training.data import ImageData

__all__ = ["cache_folder", "load", "source_key", "store"]

_FORMAT = 1  # part of every key: a change of decoding or layout makes new entries


def cache_folder() -> Path:
    """Returns the folder of the cache: `EVONAS_CACHE`, else `evonas` in the XDG cache folder."""
    chosen = os.environ.get("EVONAS_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evonas"


def source_key(kind: str, files: Iterable[tuple[str, Path]]) -> str:
    """Returns the SHA-256 of a listing: each file's name in the source, size and modification time.

    Args:
        kind: Source and settings (`folder 32`): other settings are another entry.
        files: `(name, path)`, in any order.
    """
    digest = hashlib.sha256(f"{_FORMAT} {kind}\n".encode())
    for name, path in sorted(files):
        status = path.stat()
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def load(key: str) -> ImageData | None:
    """Returns the entry, its images mapped from disk, or None where it is missing or damaged.

    Mapped copy-on-write: processes share the pages, and a write reaches no file.
    """
    images_file, about_file = _files(key)
    try:
        about = json.loads(about_file.read_text())
        stored = np.load(images_file, mmap_mode="c", allow_pickle=False)  # (N, H, W, C)
        data = ImageData(
            torch.from_numpy(stored).movedim(-1, 1),
            torch.tensor(about["labels"], dtype=torch.int64),
            tuple(about["classes"]),
            mean=tuple(about["mean"]),
            std=tuple(about["std"]),
        )
    except (OSError, ValueError, TypeError, KeyError, EOFError):
        return None
    # The identity was computed just now from what was read, so a damaged file cannot pass.
    return data if data.identity == about["identity"] else None


def store(key: str, data: ImageData) -> None:
    """Writes the entry; each of its two files appears whole or not at all.

    Raises:
        DataError: The cache cannot be written.
    """
    images_file, about_file = _files(key)
    about = {
        "classes": data.classes,
        "identity": data.identity,
        "labels": data.labels.tolist(),
        "mean": data.mean,
        "std": data.std,
    }
    try:
        images_file.parent.mkdir(parents=True, exist_ok=True)
        _replace(images_file, lambda file: np.save(file, _channels_last(data)))
        _replace(about_file, lambda file: file.write(json.dumps(about).encode()))
    except OSError as error:
        raise DataError(
            f"the image cache {images_file.parent} cannot be written ({error}): set EVONAS_CACHE "
            f"to a folder on a disk with {data.images.numel() >> 20} MiB free, or pass cache=False"
        ) from error


def _files(key: str) -> tuple[Path, Path]:
    folder = cache_folder()
    return folder / f"{key}.npy", folder / f"{key}.json"


def _channels_last(data: ImageData) -> np.ndarray[Any, Any]:
    return data.images.movedim(1, -1).contiguous().numpy()


def _replace(path: Path, write: Any) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            _write(file, write)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _write(file: IO[bytes], write: Any) -> None:
    write(file)
    file.flush()
