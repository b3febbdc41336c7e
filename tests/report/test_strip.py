"""Points as strips of blocks: their colours, their names, and what a stranger's run may hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import evonas as en
from evonas.report.strip import Blocks, blocks_of

RECIPE = Blocks(
    ("stem", "body", "top"),
    ("frozen", "norms", 0.1, 0.3, 1.0),
    ("frozen", "norms", "all x0.1", "all x0.3", "all"),
    {"head only": ["frozen", "frozen", "frozen"]},
)


def test_each_state_has_a_colour_of_its_own() -> None:
    colours = RECIPE.colours
    assert len(set(colours)) == 5
    alone = Blocks(("a",), (True, False), ("frozen", "trained"), {})
    assert alone.colours == [colours[0], colours[4]], "frozen and fully trained, as in a recipe"


def test_a_strip_says_what_each_block_does() -> None:
    strip = RECIPE.strip({"stem": "frozen", "body": 0.3, "top": 1.0, "lr": 0.1}, "mine")
    assert [square.words for square in strip.squares] == [
        "stem: frozen", "body: all x0.3", "top: all",
    ]  # fmt: skip
    assert [square.colour for square in strip.squares] == [RECIPE.colours[at] for at in (0, 3, 4)]


def test_neighbours_stand_together_in_words() -> None:
    genes = {"stem": "norms", "body": "norms", "top": 0.1}
    assert RECIPE.in_words(genes) == "stem to body norms, top all x0.1"


def test_a_known_point_has_its_name(masks: en.Result) -> None:
    blocks = blocks_of(masks)
    assert blocks is not None
    trained = replace(masks.champion, genes=dict.fromkeys(blocks.names, False))
    assert blocks.label(trained) == "all trained"
    frozen = replace(trained, genes=dict.fromkeys(blocks.names, True))
    assert blocks.label(frozen) == "block0 to block5 frozen"


@pytest.mark.parametrize(
    "told",
    [{}, {"blocks": 3}, {"blocks": []}, {"blocks": ["a"], "states": []},
     {"blocks": ["a"], "states": [[1]]}, {"blocks": ["a"], "states": "ab"}],
)  # fmt: skip
def test_what_is_no_description_is_none(masks: en.Result, told: dict[str, Any]) -> None:
    masks = en.open_run(masks.run_dir)  # type: ignore[arg-type]
    masks.record = replace(masks.record, strip=told)
    assert blocks_of(masks) is None


def test_a_state_that_no_run_has_is_drawn_as_none() -> None:
    assert RECIPE.places({"stem": True, "body": 1, "top": "??"}) == [-1, 4, -1]
    assert RECIPE.strip({}).squares[0].words == "stem: ?"
