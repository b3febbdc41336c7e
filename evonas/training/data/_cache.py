"""Decoded images on disk, so that a folder of files is decoded once on a machine."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from evonas.exceptions import DataError
from evonas.files import replace_file
from evonas.training.data.examples import Examples

__all__ = ["cache_folder", "load", "source_key", "store"]

_FORMAT = 2  # part of every key: a change of decoding or layout makes new entries


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

    Raises:
        DataError: A file cannot be read.
    """
    digest = hashlib.sha256(f"{_FORMAT} {kind}\n".encode())
    for name, path in sorted(files):
        try:
            status = path.stat()
        except OSError as error:  # a link to nowhere
            raise DataError(
                f"{path} cannot be read as an image ({error}): replace or remove the file"
            ) from error
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def load(key: str) -> Examples | None:
    """Returns the entry, its images mapped from disk, or None where it is missing or damaged.

    Mapped copy-on-write: processes share the pages, and a write reaches no file.
    """
    images_file, about_file = _files(key)
    try:
        about = json.loads(about_file.read_text())
        stored = np.load(images_file, mmap_mode="c", allow_pickle=False)  # (N, H, W, C)
        data = Examples(
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


def store(key: str, data: Examples) -> None:
    """Writes the entry; each of its two files appears whole or not at all.

    Raises:
        DataError: The cache cannot be written.
    """
    images_file, about_file = _files(key)
    about = {
        "classes": data.classes,
        "identity": data.identity,
        "labels": data.targets.tolist(),
        "mean": data.mean,
        "std": data.std,
    }
    channels_last = data.inputs.movedim(1, -1).contiguous().numpy()

    def save_images(part: Path) -> None:
        with part.open("wb") as file:  # np.save appends .npy to a path
            np.save(file, channels_last)

    writers = {images_file: save_images, about_file: lambda p: p.write_text(json.dumps(about))}
    for path, write in writers.items():
        replace_file(
            path,
            write,
            way_out="it belongs to the image cache: set EVONAS_CACHE to a folder on a disk with "
            f"{data.inputs.numel() >> 20} MiB free, or pass cache=False",
            error=DataError,
        )


def _files(key: str) -> tuple[Path, Path]:
    folder = cache_folder()
    return folder / f"{key}.npy", folder / f"{key}.json"
