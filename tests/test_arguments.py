from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from evonas.arguments import (
    check_bool,
    check_callable,
    check_choice,
    check_file_label,
    check_int,
    check_number,
)


@pytest.mark.parametrize("value", [True, 2.5, 3.0, "3", None, math.nan])
def test_what_is_not_an_int_is_refused_by_name(value: Any) -> None:
    with pytest.raises(TypeError, match=r"n must be an int, got .* \(\w+\)"):
        check_int("n", value, minimum=0)


def test_ints_from_the_minimum_on_pass_numpys_too() -> None:
    check_int("n", 1, minimum=1)
    check_int("n", np.int64(7), minimum=1)
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        check_int("n", 0, minimum=1)


@pytest.mark.parametrize(
    ("value", "limits", "message"),
    [
        (math.nan, {}, "a finite number, got nan"),
        (-1, {"minimum": 0}, "at least 0, got -1"),
        (0.0, {"above": 0.0}, r"above 0\.0, got 0\.0"),
        (1.5, {"maximum": 1}, "at most 1, got 1.5"),
    ],
)
def test_numbers_out_of_range_are_refused(value: Any, limits: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"rate must be {message}"):
        check_number("rate", value, **limits)


@pytest.mark.parametrize("value", [True, "1", None, 1j])
def test_what_is_not_a_number_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="rate must be a number, got"):
        check_number("rate", value)


def test_numbers_in_range_pass() -> None:
    for value in (0, 0.5, np.float32(0.25), 1):
        check_number("rate", value, minimum=0, maximum=1)
    for endless in (math.inf, -math.inf, math.nan, 10**400):
        with pytest.raises(ValueError, match="rate must be a finite number, got"):
            check_number("rate", endless)


def test_the_other_kinds_say_what_they_expect() -> None:
    check_bool("flag", False)
    check_choice("mode", "a", ("a", "b"))
    check_callable("metric", len)
    with pytest.raises(TypeError, match="flag must be True or False, got 1"):
        check_bool("flag", 1)
    with pytest.raises(ValueError, match="mode must be 'a', 'b' or 'c', got 'd'"):
        check_choice("mode", "d", ("a", "b", "c"))
    with pytest.raises(TypeError, match="metric must be callable, got 3"):
        check_callable("metric", 3)


@pytest.mark.parametrize("value", ["alexnet", "cifar-10", "My Flowers 2", "größe_1.5+", "_"])
def test_a_label_of_files(value: str) -> None:
    check_file_label("name", value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "../evil",
        "a/b",
        "a\\b",
        ".hidden",
        "-o",
        "a\nimport os",
        "a\0b",
        "a#",
        '"',
        "n" * 65,
        "ü" * 33,
    ],
)
def test_what_no_file_may_be_called_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"name is a part of file names: it must"):
        check_file_label("name", value)
    with pytest.raises(TypeError, match="name must be a string, got 3"):
        check_file_label("name", 3)
