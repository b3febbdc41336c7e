from __future__ import annotations

import importlib.abc
import json
import os
import re
import socket
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from evonas.exceptions import DataError, MissingDependencyError
from evonas.training import (
    Examples,
    from_dataset,
    from_tensors,
    load_cifar10,
    load_digits,
    load_image_folder,
)
from evonas.training.data import sources as module

# Python before 3.11.4 has no filters, later ones want one.
FILTER: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def picture(path: Path, level: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (level,) * 3 if mode == "RGB" else level).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for number, name in enumerate(("cat", "dog")):
        for index in range(3):
            picture(root / name / f"{index}.png", 100 * number + index)
    return root


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that have been decoded, in order."""
    files: list[Path] = []
    original = module._decoded

    def decode(path: Path, size: int) -> Any:
        files.append(path)
        return original(path, size)

    monkeypatch.setattr(module, "_decoded", decode)
    return files


# --- folders


def test_a_folder_is_read_in_order_of_its_names(tree: Path) -> None:
    data = load_image_folder(tree, size=8)
    assert data.classes == ("cat", "dog")
    assert data.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.inputs[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    assert data.shape == (3, 8, 8)


def test_other_sizes_modes_depths_and_suffixes_are_brought_to_one_shape(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "deep" / "x.JPG", 40, size=(20, 10))
    picture(tmp_path / "a" / "grey.png", 50, size=(4, 4), mode="L")
    picture(tmp_path / "b" / "z.bmp", 60)
    (tmp_path / ".hidden").mkdir()
    data = load_image_folder(tmp_path, size=16)
    assert data.shape == (3, 16, 16)
    assert data.classes == ("a", "b")
    assert data.inputs.float().mean((1, 2, 3)).tolist() == pytest.approx([40, 50, 60], abs=1)


@pytest.mark.parametrize("suffix", ["webp", "bmp", "tif", "gif", "ppm", "JPEG"])
def test_every_kind_that_pillow_reads_counts(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        picture(tmp_path / name / f"0.{suffix}", 100)
    data = load_image_folder(tmp_path, size=8)
    assert len(data) == 2
    assert data.inputs.float().mean().item() == pytest.approx(100, abs=2)


def test_what_is_skipped_is_said(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tree / "cat" / "notes.txt").write_text("no image")
    (tree / "dog" / "Thumbs.db").write_text("no image")
    (tree / "dog" / ".DS_Store").write_text("no image")
    assert len(load_image_folder(tree, size=8)) == 6
    assert (
        "2 files are no images that Pillow reads, and are skipped: cat/notes.txt, dog/Thumbs.db"
        in (caplog.text)
    )


def test_sixteen_bit_grey_keeps_its_levels(tmp_path: Path) -> None:
    for name, level in (("a", 1000), ("b", 32768), ("c", 65535)):
        (tmp_path / name).mkdir()
        levels = np.full((8, 8), level, dtype=np.uint16)
        Image.fromarray(levels).save(tmp_path / name / "0.png")
    data = load_image_folder(tmp_path, size=8)
    assert data.inputs[:, 0, 0, 0].tolist() == [round(1000 / 257), round(32768 / 257), 255]


def test_a_link_to_nowhere_is_named(tree: Path) -> None:
    (tree / "cat" / "9.png").symlink_to(tree / "gone.png")
    for cache in (True, False):
        with pytest.raises(DataError, match=r"cat/9\.png cannot be read as an image"):
            load_image_folder(tree, size=8, cache=cache)


@pytest.mark.parametrize(
    ("train", "val"),
    [("train", "valid"), ("Training", "VAL"), ("TRAIN", "validation"), ("train", None)],
)
def test_parts_are_known_by_their_usual_names(
    tree: Path, tmp_path: Path, train: str, val: str | None
) -> None:
    root = tmp_path / "parts"
    root.mkdir()
    tree.rename(root / train)
    if val is not None:
        for name in ("cat", "dog"):
            picture(root / val / name / "0.png", 9)
        assert load_image_folder(root, size=8, split="val").inputs.unique().tolist() == [9]
    data = load_image_folder(root, size=8)
    assert data.classes == ("cat", "dog")
    assert len(data) == 6


def test_a_class_may_have_the_name_of_a_part(tmp_path: Path) -> None:
    for name in ("train", "plane"):
        picture(tmp_path / name / "0.png", 9)
    assert load_image_folder(tmp_path, size=8).classes == ("plane", "train")


def test_folders_that_are_not_classes_are_refused(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "above"
    root.mkdir()
    tree.rename(root / "first")
    for name in ("cat", "dog"):
        picture(root / "second" / name / "0.png", 9)
    with pytest.raises(DataError, match="found only folders in first, second: pass the"):
        load_image_folder(root)
    picture(tmp_path / "one" / "cat" / "0.png", 9)
    with pytest.raises(DataError, match="at least two classes, found only cat"):
        load_image_folder(tmp_path / "one")


def test_a_root_with_train_and_test_is_understood(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "both"
    root.mkdir()
    tree.rename(root / "train")
    for name in ("cat", "dog"):
        picture(root / "test" / name / "0.png", 7)
    assert len(load_image_folder(root, size=8)) == len(
        load_image_folder(root, size=8, split="train")
    )
    assert load_image_folder(root, size=8, split="test").targets.tolist() == [0, 1]
    with pytest.raises(DataError, match="has no folder 'val'; its folders are: test, train"):
        load_image_folder(root, split="val")


@pytest.mark.parametrize("damage", ["text", "cut", "empty"])
def test_a_damaged_image_is_named(tree: Path, damage: str) -> None:
    path = tree / "dog" / "1.png"
    whole = path.read_bytes()
    path.write_bytes({"text": b"not an image", "cut": whole[:-30], "empty": b""}[damage])
    with pytest.raises(DataError, match=r"dog/1\.png cannot be read as an image .* remove the"):
        load_image_folder(tree, size=8)


def test_folders_without_images_are_refused(tmp_path: Path, tree: Path) -> None:
    with pytest.raises(DataError, match="found no folder"):
        load_image_folder(tmp_path / "nowhere")
    (tmp_path / "bare" / ".hidden").mkdir(parents=True)
    with pytest.raises(DataError, match="one folder of images for each class, found no folder"):
        load_image_folder(tmp_path / "bare")
    (tree / "emu").mkdir()
    with pytest.raises(DataError, match="found none in emu"):
        load_image_folder(tree)
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        load_image_folder(tree, size=0)


# --- the cache


def test_a_folder_is_decoded_once_and_mapped_afterwards(tree: Path, decoded: list[Path]) -> None:
    first = load_image_folder(tree, size=8)
    second = load_image_folder(tree, size=8)
    assert len(decoded) == 6
    assert torch.equal(first.inputs, second.inputs)
    assert second.identity == first.identity
    assert (second.mean, second.std, second.classes) == (first.mean, first.std, first.classes)
    load_image_folder(tree, size=4)
    assert len(decoded) == 12


def test_of_a_limit_only_so_many_images_are_decoded_of_all_classes(
    tree: Path, decoded: list[Path]
) -> None:
    some = load_image_folder(tree, size=8, limit=4, seed=1)
    assert len(decoded) == 4
    assert some.targets.tolist() == [0, 0, 1, 1]
    assert torch.equal(some.inputs, load_image_folder(tree, size=8, limit=4, seed=1).inputs)
    assert len(decoded) == 4, "it is kept like any other"
    drawn = {load_image_folder(tree, size=8, limit=2, seed=s).identity for s in range(9)}
    assert len(drawn) > 1
    assert len(load_image_folder(tree, size=8, limit=99).targets) == 6
    with pytest.raises(ValueError, match="limit must be"):
        load_image_folder(tree, size=8, limit=1)


def test_mapped_images_can_be_written_without_touching_the_cache(
    tree: Path, decoded: list[Path]
) -> None:
    load_image_folder(tree, size=8).inputs.zero_()
    assert load_image_folder(tree, size=8).inputs.any()
    assert len(decoded) == 6


def test_a_changed_file_is_decoded_anew(tree: Path, decoded: list[Path]) -> None:
    before = load_image_folder(tree, size=8)
    path = tree / "cat" / "0.png"
    os.utime(path, ns=(1, 1))  # a changed time alone is enough: contents may be as long as before
    assert load_image_folder(tree, size=8).identity == before.identity
    assert len(decoded) == 12
    picture(path, 200, size=(100, 100))
    os.utime(path, ns=(1, 1))  # and so is a changed size
    after = load_image_folder(tree, size=8)
    assert len(decoded) == 18
    assert after.inputs[0, 0, 0, 0] == 200
    assert after.identity != before.identity


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "nonsense"])
def test_a_damaged_cache_is_rebuilt(
    tree: Path, decoded: list[Path], suffix: str, damage: str
) -> None:
    before = load_image_folder(tree, size=8)
    (path,) = Path(os.environ["EVONAS_CACHE"]).glob(f"*{suffix}")
    whole = path.read_bytes()
    path.unlink()  # not written over: `before` is mapped from it
    if damage == "changed" and suffix == ".json":
        about = json.loads(whole)
        path.write_text(json.dumps({**about, "labels": about["labels"][::-1]}))
    elif damage != "missing":
        broken = {"cut": whole[:-1], "changed": whole[:-1] + b"\x07", "nonsense": b"\x00\xff[]"}
        path.write_bytes(broken[damage])
    again = load_image_folder(tree, size=8)
    assert torch.equal(again.inputs, before.inputs)
    assert again.identity == before.identity
    assert len(decoded) == 12
    assert torch.equal(load_image_folder(tree, size=8).inputs, before.inputs)
    assert len(decoded) == 12  # rebuilt, not merely gone around


def test_no_partial_file_is_left_in_the_cache(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Any, array: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(DataError, match=r"cannot be written .*No space left.* set EVONAS_CACHE"):
        load_image_folder(tree, size=8)
    assert list(Path(os.environ["EVONAS_CACHE"]).iterdir()) == []
    assert len(load_image_folder(tree, size=8, cache=False)) == 6


def test_the_cache_folder_follows_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    from evonas.training.data._cache import cache_folder

    monkeypatch.setenv("EVONAS_CACHE", "/chosen")
    assert cache_folder() == Path("/chosen")
    monkeypatch.delenv("EVONAS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/evonas")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "evonas"


# --- CIFAR-10


def test_cifar10_without_network_fails_at_once_and_says_what_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> Any:
        assert socket.getdefaulttimeout() == 30  # a silent network must end, too
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    with pytest.raises(
        DataError, match=r"could not be downloaded at .*--dataset imagefolder .*--dataset digits"
    ):
        load_cifar10(tmp_path / "data")
    assert socket.getdefaulttimeout() is None


def test_cifar10_that_is_not_there_and_may_not_be_downloaded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="could not be found at .*cifar-10-batches-py"):
        load_cifar10(tmp_path, download=False)


def test_cifar10_is_read_through_torchvision_and_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.arange(2 * 32 * 32 * 3, dtype=np.uint8).reshape(2, 32, 32, 3)
    reads = []

    def cifar10(root: str, *, train: bool, download: bool) -> Any:
        reads.append(train)
        folder = Path(root) / "cifar-10-batches-py"
        folder.mkdir(exist_ok=True)
        (folder / "batch").write_bytes(b"as downloaded")
        return SimpleNamespace(data=pixels, targets=[3, 1], classes=[str(n) for n in range(10)])

    monkeypatch.setattr(module, "_torchvision_datasets", lambda: SimpleNamespace(CIFAR10=cifar10))
    for _ in range(2):
        data = load_cifar10(tmp_path)
        assert torch.equal(data.inputs, torch.from_numpy(pixels).movedim(-1, 1))
        assert data.targets.tolist() == [3, 1]
        assert data.n_classes == 10
    assert reads == [True]
    load_cifar10(tmp_path, train=False)
    assert reads == [True, False]


@pytest.mark.parametrize(
    "error",
    [RuntimeError("operator torchvision::nms does not exist"), ImportError("no torchvision")],
)
def test_a_torchvision_that_does_not_match_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    class Broken(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, path: Any, target: Any = None) -> None:
            if name.partition(".")[0] == "torchvision":
                raise error

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(
        MissingDependencyError,
        match=rf"{error}\).*that matches torch {re.escape(torch.__version__)}",
    ):
        load_cifar10(tmp_path)


ARCHIVE = "cifar10-jpeg.tar.xz"


@pytest.mark.slow
def test_the_shared_cifar10_is_read(tmp_path: Path) -> None:
    folder = os.environ.get("EVONAS_DATA")
    if not folder or not (Path(folder) / ARCHIVE).is_file():
        pytest.skip(f"set EVONAS_DATA to the folder that holds {ARCHIVE}")
    with tarfile.open(Path(folder) / ARCHIVE) as archive:
        archive.extractall(tmp_path, **FILTER)
    data = load_image_folder(tmp_path, split="test")
    assert data.shape == (3, 32, 32)
    assert data.classes[:3] == ("airplane", "automobile", "bird")
    assert data.targets.bincount().tolist() == [1000] * 10
    assert data.mean == pytest.approx((0.494, 0.485, 0.45), abs=0.01)
    assert load_image_folder(tmp_path, split="test").identity == data.identity


# --- digits, datasets, tensors


def test_digits_are_upscaled_and_need_nothing() -> None:
    data = load_digits()
    assert data.inputs.shape == (1797, 1, 32, 32)
    assert data.classes == tuple("0123456789")
    assert data.inputs.max() == 255
    assert load_digits(8).identity != data.identity == load_digits().identity
    with pytest.raises(ValueError, match="size must be at least 1"):
        load_digits(0)


def test_digits_without_scikit_learn_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingDependencyError, match=r"evonas\[examples\]"):
        load_digits()


def test_a_dataset_of_pictures_or_tensors_gives_the_same_data() -> None:
    pixels = torch.randint(
        0, 256, (5, 8, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    pictures = [(Image.fromarray(image.numpy()), n % 2) for n, image in enumerate(pixels)]
    tensors = [(image.movedim(-1, 0).float() / 255, n % 2) for n, image in enumerate(pixels)]
    arrays = [(image.numpy(), n % 2) for n, image in enumerate(pixels)]
    first = from_dataset(pictures)
    assert torch.equal(first.inputs, pixels.movedim(-1, 1))
    assert from_dataset(tensors).identity == from_dataset(arrays).identity == first.identity
    assert first.classes == ("0", "1")


def test_a_dataset_may_be_grey_and_name_its_classes() -> None:
    class Grey(torch.utils.data.Dataset[Any]):
        classes = ("no", "yes")

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            return Image.new("L", (4, 4), index), torch.tensor(index)

    data = from_dataset(Grey())
    assert data.shape == (1, 4, 4)
    assert data.classes == ("no", "yes")


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [
        ([], DataError, "at least one example"),
        (iter([1]), TypeError, "must be map-style .* got list_iterator"),
        ([5], DataError, r"item 0 of the dataset must be \(image, label\)"),
        ([("picture", 0)], DataError, "image 0 of the dataset must be a PIL image"),
        (
            [(torch.zeros(1, 2, 2), 0), (torch.zeros(1, 3, 2), 0)],
            DataError,
            r"\(1, 2, 2\) at 0 and .*\(1, 3, 2\) at 1: resize",
        ),
    ],
)
def test_datasets_that_are_not_images_are_refused(
    dataset: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        from_dataset(dataset)


def test_tensors_become_bytes_only_where_nothing_is_lost() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    labels = torch.tensor([0])
    assert torch.equal(from_tensors(levels.float() / 255, labels).inputs, levels)
    between = torch.full((1, 1, 2, 2), 0.5)
    assert torch.equal(from_tensors(between, labels).inputs, between)
    assert from_tensors(between * 7, labels).inputs.dtype == torch.float32
    assert from_tensors(np.ones((1, 5)), [0]).shape == (5,)  # float64 features
    assert from_tensors(levels[0], labels).shape == (1, 16, 16)  # grey without a channel


def test_tensors_that_are_not_data_are_refused() -> None:
    with pytest.raises(TypeError, match=r"labels must be integers from 0, got torch\.float32"):
        from_tensors(torch.zeros(1, 1, 2, 2), torch.zeros(1))
    with pytest.raises(ValueError, match="got NaN or infinity"):
        from_tensors(torch.full((1, 3), float("nan")), [0])
    with pytest.raises(ValueError, match=r"looks like \(N, H, W, C\)"):
        from_tensors(torch.zeros(2, 32, 32, 3, dtype=torch.uint8), [0, 1])
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        from_tensors(torch.zeros(2, 3), [0, 1], classes=["only"])


def test_sources_yield_plain_image_data(tree: Path) -> None:
    assert isinstance(load_image_folder(tree, size=8), Examples)
