from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from evonas.freezing.prefix.store import PrefixStore, StoredLevel

SPEC = [((10, 25), torch.float32)]  # 1000 bytes, kept as 1024


def add(store: PrefixStore, key: str, value: float = 0.0) -> StoredLevel | None:
    level = store.create(key, SPEC)
    if level is not None:
        level.tensors[0].fill_(value)
        level.complete = True
    return level


def test_a_level_comes_back_once_it_is_complete() -> None:
    store = PrefixStore()
    level = store.create("a", [((4, 2), torch.bfloat16), ((4,), torch.int64)])
    assert [t.dtype for t in level.tensors] == [torch.bfloat16, torch.int64]
    assert store.get("a") is None
    level.complete = True
    assert store.get("a") is level
    assert store.get("b") is None


def test_the_least_recently_used_goes_to_a_file_then_away() -> None:
    store = PrefixStore(memory_bytes=2100, file_bytes=2100)
    levels = {key: add(store, key, i) for i, key in enumerate("abcd")}
    assert [levels[key].in_memory for key in "abcd"] == [False, False, True, True]
    assert (store.memory_used, store.file_used) == (2048, 2048)
    assert [float(levels[key].tensors[0].mean()) for key in "abcd"] == [0.0, 1.0, 2.0, 3.0]
    store.get("c")  # used after d
    store.get("a")  # used after b
    add(store, "e", 4.0)
    assert "b" not in store
    assert [store.get(key).in_memory for key in "acde"] == [False, True, False, True]
    assert [float(store.get(key).tensors[0].mean()) for key in "acde"] == [0.0, 2.0, 3.0, 4.0]


def test_what_is_too_large_for_memory_goes_to_a_file_at_once(tmp_path: Path) -> None:
    store = PrefixStore(memory_bytes=100, file_bytes=5000, folder=tmp_path)
    level = add(store, "a", 7.0)
    assert not level.in_memory
    assert float(level.tensors[0].sum()) == 7.0 * 250
    assert list(tmp_path.iterdir()) == [], "files have no name, so none is left behind"


def test_what_fits_nowhere_is_refused() -> None:
    store = PrefixStore(memory_bytes=100, file_bytes=100)
    assert add(store, "a") is None
    assert len(store) == 0


def test_a_pinned_level_is_not_dropped() -> None:
    store = PrefixStore(memory_bytes=1100, file_bytes=0)
    level = add(store, "a", 1.0)
    level.pins = 1
    assert add(store, "b") is None
    assert store.get("a") is level
    with pytest.raises(RuntimeError, match="'a' is in use"):
        store.remove("a")
    store.clear()
    assert "a" in store
    level.pins = 0
    assert add(store, "b") is not None
    assert "a" not in store


def test_a_pinned_level_may_move_to_a_file() -> None:
    store = PrefixStore(memory_bytes=1100, file_bytes=1100)
    level = add(store, "a", 1.0)
    level.pins = 1
    add(store, "b", 2.0)
    assert not level.in_memory
    assert float(level.tensors[0].mean()) == 1.0
    assert add(store, "c") is not None, "b is dropped, a stays"
    assert ("a" in store, "b" in store) == (True, False)


def test_it_shrinks_to_the_memory_there_is_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = PrefixStore(memory_bytes=1 << 60, file_bytes=5000)
    kept = add(store, "a", 1.0)
    huge = [((1 << 50,), torch.uint8)]
    with caplog.at_level(logging.WARNING, logger="evonas.freezing"):
        assert store.create("b", huge) is None
        assert store.create("c", huge) is None
    assert store.memory_bytes == 1024
    assert len(caplog.records) == 1
    assert "memory_bytes=1152921504606846976" in caplog.text
    assert store.get("a") is kept
    assert add(store, "d", 2.0) is not None


def test_a_full_disk_shrinks_the_file_budget(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_space(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = PrefixStore(memory_bytes=1100, file_bytes=9000)
    add(store, "a", 1.0)
    monkeypatch.setattr(os, "posix_fallocate", no_space)
    with caplog.at_level(logging.WARNING, logger="evonas.freezing"):
        assert add(store, "b", 2.0) is not None, "a is dropped for it"
    assert store.file_bytes == 0
    assert "a" not in store
    assert len(caplog.records) == 1


def test_other_disk_errors_are_not_hidden(tmp_path: Path) -> None:
    store = PrefixStore(memory_bytes=0, folder=tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        add(store, "a")


def test_a_key_used_again_takes_the_place_of_its_level() -> None:
    store = PrefixStore()
    add(store, "a", 1.0)
    add(store, "a", 2.0)
    assert (len(store), float(store.get("a").tensors[0].mean())) == (1, 2.0)


def test_negative_budgets() -> None:
    with pytest.raises(ValueError, match="memory_bytes must be at least 0, got -1"):
        PrefixStore(memory_bytes=-1)
