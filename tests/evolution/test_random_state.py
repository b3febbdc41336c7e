"""Derived seeds, RNG states as JSON, and the guard around the global generators."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evonas.evolution.random_state import (
    borrowed_global_rng,
    derive_seed,
    restore_rng_state,
    rng_state_from_json,
    rng_state_to_json,
)


def global_draws(n: int = 3) -> list[float]:
    """What the global generators give next; gauss and normal keep half of their last pair."""
    drawn: list[float] = []
    for _ in range(n):
        drawn += [random.random(), random.gauss(0, 1), np.random.random(), np.random.normal()]  # noqa: NPY002
    return drawn


def seed_globals(seed: int = 1) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    global_draws(1)  # leaves one gauss of a pair over on each side


class TestDeriveSeed:
    @given(st.integers(), st.lists(st.text() | st.integers(), max_size=4))
    def test_lies_in_32_bits_and_repeats(self, root: int, parts: list[str | int]) -> None:
        seed = derive_seed(root, *parts)
        assert 0 <= seed < 2**32
        assert derive_seed(root, *parts) == seed

    def test_every_part_counts(self) -> None:
        seeds = {
            derive_seed(*parts)
            for parts in [
                (0,), (1,), (0, 0), (0, "0"), (0, ""), (0, "a", "b"), (0, "ab"), (0, "b", "a"),
                (0, "a,b"), (0, "a', 'b"), (0, "é"), (0, "\\xe9"), (-1,), (2**64,),
            ]
        }  # fmt: skip
        assert len(seeds) == 14

    def test_is_spread_evenly(self) -> None:
        seeds = [derive_seed(7, "trial", number) for number in range(4000)]
        assert len(set(seeds)) == 4000
        assert abs(np.mean(seeds) / 2**32 - 0.5) < 0.02

    def test_is_the_same_in_another_process(self) -> None:
        code = (
            "from evonas.evolution.random_state import derive_seed;"
            "print(derive_seed(3, 'trial', 'é', 5))"
        )
        environment = {
            **os.environ,
            "PYTHONHASHSEED": "77",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        printed = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        assert int(printed) == derive_seed(3, "trial", "é", 5)

    def test_is_what_it_was(self) -> None:
        # Written down once: a resumed run must derive the seeds that it began with.
        assert derive_seed(0, "trial", "key") == 3_039_184_192

    @pytest.mark.parametrize("part", [1.0, None, True, b"x", np.int64(3), ("a",)])
    def test_refuses_other_parts(self, part: Any) -> None:
        with pytest.raises(TypeError, match=r"derive_seed takes strings and ints, got .* \("):
            derive_seed(0, part)
        with pytest.raises(TypeError, match="derive_seed takes strings and ints"):
            derive_seed(part)


class TestStateAsJson:
    @given(st.integers(0, 2**32), st.integers(0, 700), st.booleans())
    def test_round_trip(self, seed: int, n_drawn: int, odd: bool) -> None:
        rng = random.Random(seed)
        for _ in range(n_drawn):
            rng.random()
        if odd:
            rng.gauss(0, 1)  # keeps the second of a pair
        data = json.loads(json.dumps(rng_state_to_json(rng)))
        again = random.Random(0)
        restore_rng_state(again, data)
        assert again.getstate() == rng.getstate() == rng_state_from_json(data)
        assert again.gauss(0, 1) == rng.gauss(0, 1)

    @pytest.mark.parametrize(
        "change",
        [
            {"version": 7},
            {"words": []},
            {"words": ["x"] * 625},
            {"words": [2**40] * 625},
            {"words": [-1] * 625},
            {"words": [0] * 624 + [9999]},
            {"words": None},
        ],
        ids=str,
    )
    def test_refuses_damaged_states(self, change: dict[str, Any]) -> None:
        rng = random.Random(3)
        before = rng.getstate()
        with pytest.raises(ValueError, match=r"not the state of a random\.Random"):
            restore_rng_state(rng, rng_state_to_json(rng) | change)
        assert rng.getstate() == before

    @pytest.mark.parametrize("data", [None, {}, [], 3, "x"])
    def test_refuses_other_data(self, data: Any) -> None:
        with pytest.raises(ValueError, match=r"not the state of a random\.Random"):
            rng_state_from_json(data)


class TestBorrowedGlobalRng:
    def test_the_globals_are_as_before(self) -> None:
        seed_globals()
        expected = global_draws()
        seed_globals()
        with borrowed_global_rng(random.Random(5)):
            global_draws(7)
        assert global_draws() == expected

    def test_the_globals_are_as_before_after_an_exception(self) -> None:
        seed_globals()
        expected = global_draws()
        seed_globals()
        rng = random.Random(5)

        def fail() -> None:
            random.random()
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), borrowed_global_rng(rng):
            fail()
        assert global_draws() == expected
        same = random.Random(5)
        same.getrandbits(32)
        same.random()
        assert rng.getstate() == same.getstate()

    def test_inside_the_stream_depends_on_the_rng_alone(self) -> None:
        drawn = []
        for global_seed in (1, 2):
            seed_globals(global_seed)
            rng = random.Random(5)
            with borrowed_global_rng(rng):
                first = global_draws()
            with borrowed_global_rng(rng):
                drawn.append(first + global_draws())
        assert drawn[0] == drawn[1]
        assert len(set(drawn[0])) == len(drawn[0])

    def test_the_rng_continues_where_the_global_stream_ended(self) -> None:
        rng = random.Random(5)
        with borrowed_global_rng(rng):
            random.random()
            random.gauss(0, 1)
            state = random.getstate()
        assert rng.getstate() == state

    def test_nests(self) -> None:
        seed_globals()
        expected = global_draws()
        seed_globals()
        outer, inner = random.Random(5), random.Random(6)
        with borrowed_global_rng(outer):
            before = random.getstate()
            with borrowed_global_rng(inner):
                random.random()
            assert random.getstate() == before
        assert global_draws() == expected

    def test_another_bit_generator_of_the_users_is_kept(self) -> None:
        ours = np.random.get_bit_generator()  # type: ignore[attr-defined]
        theirs = np.random.PCG64(3)
        try:
            np.random.set_bit_generator(theirs)  # type: ignore[attr-defined]
            state = theirs.state
            with borrowed_global_rng(random.Random(5)):
                inside = np.random.random()  # noqa: NPY002
            assert np.random.get_bit_generator() is theirs  # type: ignore[attr-defined]
            assert theirs.state == state
        finally:
            np.random.set_bit_generator(ours)  # type: ignore[attr-defined]
        with borrowed_global_rng(random.Random(5)):
            assert np.random.random() == inside  # noqa: NPY002
