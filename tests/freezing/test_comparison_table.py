"""The table of a comparison: noise, verdicts, and what people read."""

from __future__ import annotations

import random
from typing import Any

import pytest

from evonas.freezing import MaskRow, MaskTable

HEADLINE = (
    "accuracy, mean ± standard deviation over 2 fresh seeds each; * is the best mean on "
    "validation; noise is one standard error, 0.0000"
)


def row(label: str, val: Any, test: Any = (), **options: Any) -> MaskRow:
    fields: dict[str, Any] = {"mask": (0, 1), "searched": None, "trainable_share": 0.5,
                              "seconds": (1.0, 2.0), "trainable_params": 1500,
                              "memory_bytes": (20e6, 40e6)}  # fmt: skip
    return MaskRow(label=label, val=val, test=test, **fields | options)


def test_the_table_for_people() -> None:
    table = MaskTable(
        (
            row("search 1", (0.9, 0.92), (0.8, 0.82), searched=0.95),
            row("first 2 frozen, search 2", (0.9, 0.9), (0.79, 0.81), searched=0.94),
            row("first 1 frozen", (0.8, 0.8), (0.99, 0.99)),
            row("full fine-tuning", (0.7, 0.7), (0.6, 0.6), mask=(0, 0), trainable_share=1.0),
            row("random 1", (0.6, 0.6), (0.5, 0.5)),
            row("random 2", (0.6,), (0.7,), seconds=(1.25,), n_failed=1),
            row("head only", (), (), seconds=(), n_failed=2, trainable_params=0, memory_bytes=()),
        ),
        ("stem", "layer1"), "accuracy", 2,
    )  # fmt: skip
    assert str(table).splitlines() == [
        "  mask                           validation             test  trainable   parameters"
        "      seconds  memory MB  in the search  frozen",
        "* search 1                  0.9100 ± 0.0141  0.8100 ± 0.0141      50.0%        1,500"
        "    1.5 ± 0.7         30         0.9500  [0, 1] layer1",
        "  first 2 frozen, search 2  0.9000 ± 0.0000  0.8000 ± 0.0141      50.0%        1,500"
        "    1.5 ± 0.7         30         0.9400  [0, 1] layer1",
        "  first 1 frozen            0.8000 ± 0.0000  0.9900 ± 0.0000      50.0%        1,500"
        "    1.5 ± 0.7         30                 [0, 1] layer1",
        "  full fine-tuning          0.7000 ± 0.0000  0.6000 ± 0.0000     100.0%        1,500"
        "    1.5 ± 0.7         30                 [0, 0] nothing",
        "  random 1                  0.6000 ± 0.0000  0.5000 ± 0.0000      50.0%        1,500"
        "    1.5 ± 0.7         30                 [0, 1] layer1",
        "  random 2                           0.6000           0.7000      50.0%        1,500"
        "          1.2         30                 [0, 1] layer1  1 failed",
        "  head only                               -                -      50.0%            -"
        "            -          -                 [0, 1] layer1  2 failed",
        "",
        HEADLINE,
        "best: search 1, validation 0.9100 ± 0.0141",
        "smallest within the noise of the best: search 1, 50.0% trainable",
        "fastest within the noise of the best: search 1, 1.5 ± 0.7 s",
        "against full fine-tuning: test +0.2100 ± 0.0100 (standard error of the difference)",
        "against head only: no score to compare with",
        "against first 2 frozen: test +0.0100 ± 0.0141 (standard error of the difference): "
        "within the noise of so few seeds",
        "against 2 random masks: test +0.2433",
    ]


def test_the_verdict_without_a_test_set_and_with_one_seed() -> None:
    table = MaskTable(
        (row("full fine-tuning, search 1", (0.9,)), row("head only", (0.7,)),
         row("random 1", (0.6,))),
        ("stem", "layer1"), "f1", 1,
    )  # fmt: skip
    assert list(table.verdicts()) == [
        "f1, on one fresh seed each; * is the best on validation",
        "best: full fine-tuning, search 1, validation 0.9000",
        "against head only: validation +0.2000 (one seed: no spread to judge it by)",
        "against 1 random mask: validation +0.3000",
    ]
    assert table.row("search 1") is table.rows[0]
    assert table.row("search") is None


def test_the_smallest_and_the_fastest_within_the_noise_are_named() -> None:
    def row(label: str, share: float, seconds: float, *val: float) -> MaskRow:
        return MaskRow(label, (0, 1), None, val, (), share, (seconds,))

    best = row("search 1", 0.9, 3.0, 0.90, 0.92)
    near, quick = row("first 1 frozen", 0.3, 2.0, 0.89, 0.91), row("norms", 0.4, 1.0, 0.88, 0.92)
    far = row("head only", 0.1, 0.5, 0.50, 0.51)
    table = MaskTable((best, near, quick, far), ("a", "b"), "accuracy", 2)
    assert (table.smallest, table.fastest) == (near, quick)
    assert {
        "best: search 1, validation 0.9100 ± 0.0141",
        "smallest within the noise of the best: first 1 frozen, 30.0% trainable, 0.0100 behind it "
        "on validation",
        "fastest within the noise of the best: norms, 1.0 s, 0.0100 behind it on validation",
    } <= set(table.verdicts())
    # The median of 0.0002, 0.0002, 0.0008 and 0.00005; of one degree of freedom it is at 0.47.
    assert table.noise == pytest.approx((0.0002 / (7 / 9) ** 3 / 2) ** 0.5)
    assert "noise is one standard error, 0.0146" in str(table)
    cheap = row("search 1", 0.2, 0.1, 0.90, 0.92)
    table = MaskTable((cheap, near, far), ("a", "b"), "accuracy", 2)
    assert table.smallest is table.fastest is cheap
    # A wide spread of its own makes no row as good: 0.05 behind, of which nobody knows the noise.
    wild = row("biases only", 0.01, 0.1, 0.78, 0.94)
    table = MaskTable((best, near, quick, far, wild), ("a", "b"), "accuracy", 2)
    assert wild not in (table.smallest, table.fastest)
    assert table.noise == pytest.approx(
        (0.0002 / (7 / 9) ** 3 / 2) ** 0.5
    )  # nor do the others gain
    once = MaskTable((cheap,), ("a", "b"), "accuracy", 1)
    assert not any("within the noise" in line for line in once.verdicts())


def test_the_noise_is_right_where_all_rows_are_alike() -> None:
    rng = random.Random(0)
    for n in (2, 3, 5):
        rows = [row("a", tuple(rng.gauss(0.8, 0.02) for _ in range(n))) for _ in range(2_000)]
        noise = MaskTable(tuple(rows), ("a", "b"), "accuracy", n).noise
        assert noise == pytest.approx(0.02 / n**0.5, rel=0.05)


def test_of_an_error_the_smaller_one_is_better() -> None:
    low, near = row("search 1", (0.30, 0.32)), row("first 1 frozen", (0.32, 0.31), seconds=(0.5,))
    high = row("head only", (0.9, 0.92), trainable_share=0.1, seconds=(0.1,))
    table = MaskTable((low, near, high), ("a", "b"), "mse", 2, direction="min")
    assert (table.smallest, table.fastest) == (low, near)
    assert table.to_json()["direction"] == "min"
    assert "mse (smaller is better), mean ± standard deviation over 2" in str(table)
    assert "first 1 frozen, 0.5 s, 0.0050 behind it on validation" in str(table)
