"""What the model factory froze by itself: in the counts, in the files, and in other trainings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import evonas as en
from evonas.freezing import (
    FreezingProblem,
    Recipe,
    RecipeProblem,
    SavedMask,
    apply_mask,
    load_mask,
    load_recipe,
)
from evonas.integrations.ultralytics import freeze_argument

X = torch.randn(150, 8, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
DATA, VAL = (X[:50], Y[:50]), (X[50:], Y[50:])
SETTINGS: dict[str, Any] = {"lr": 1e-2, "n_epochs": 1, "precision": "float32"}
FROZEN = ["0.bias", "0.weight", "2.bias"]


def plain() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(),
            nn.Linear(8, 2),
        )  # fmt: skip


def partly_frozen() -> nn.Module:
    model = plain()
    model[0].requires_grad_(False)  # type: ignore[operator]
    model[2].bias.requires_grad_(False)  # type: ignore[operator, union-attr]
    return model


def trained(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def recipe_of(states: dict[str, Any], **more: Any) -> Recipe:
    """As a search leaves it."""
    problem = RecipeProblem(partly_frozen, DATA, VAL, **SETTINGS, **more)
    return problem.recipe({**states, "unfreezing": "at once"})


def test_a_recipe_trains_and_counts_the_same_in_any_process(tmp_path: Path) -> None:
    problem = RecipeProblem(partly_frozen, DATA, VAL, **SETTINGS)
    result = en.evolve(problem, max_evaluations=1, seed=0, run_dir=tmp_path, workers=1)
    first = result.evaluations[0]
    assert problem.label_of(first.genes) == "full fine-tuning"
    recipe = load_recipe(tmp_path)
    assert recipe == problem.recipe(first.genes)
    assert list(recipe.frozen_before) == FROZEN
    assert recipe.parameters == {"2": (64, 72), "4": (72, 72), "head": (18, 90)}
    assert first.metrics["trainable_params"] == 64 + 72 + 18
    for model in (plain(), partly_frozen()):
        table = recipe.table(model)
        assert str(recipe).startswith(table)
        assert [line.split()[-3] for line in table.splitlines()[1:]] == ["64", "72", "18"]
        recipe.apply(model)
        assert trained(model) == {"2.weight", "4.weight", "4.bias", "6.weight", "6.bias"}
        assert recipe.table(model) == table


def test_a_mask_trains_the_same_in_any_process(tmp_path: Path) -> None:
    problem = FreezingProblem(partly_frozen, DATA, VAL, **SETTINGS)
    en.evolve(problem, max_evaluations=1, seed=0, run_dir=tmp_path, workers=1)
    assert json.loads((tmp_path / "mask.json").read_text())["frozen_before"] == FROZEN
    model = plain()
    applied = apply_mask(model, load_mask(tmp_path))
    assert trained(model) == {"2.weight", "4.weight", "4.bias", "6.weight", "6.bias"}
    applied.undo()
    assert trained(model) == trained(plain())
    held = nn.ModuleDict({"net": plain()})
    apply_mask(held, load_mask(tmp_path).for_model(held))
    assert {name.removeprefix("net.") for name in trained(held)} == trained(partly_frozen())
    recipe = recipe_of({"2": 1.0, "4": "frozen"}).for_model(held)
    assert list(recipe.frozen_before) == [f"net.{name}" for name in FROZEN]


def test_a_state_that_would_train_nothing_is_no_choice() -> None:
    problem = RecipeProblem(partly_frozen, DATA, VAL, **SETTINGS)
    assert problem.states["2"] == ["frozen", 0.1, 0.3, 1.0]  # its bias is frozen
    assert "biases" in problem.states["4"]


def test_two_searches_that_freeze_others_beforehand_differ() -> None:
    found = [FreezingProblem(partly_frozen, DATA, VAL, **SETTINGS) for _ in range(2)]
    assert found[0].fingerprint() == found[1].fingerprint()
    found[1].frozen_before = ("2.bias",)
    assert found[0].fingerprint()["blocks"] != found[1].fingerprint()["blocks"]


def test_peft_trains_what_the_recipe_does() -> None:
    peft = pytest.importorskip("peft")
    recipe = recipe_of({"2": "lora 4", "4": 1.0}, ranks=[4])
    assert recipe.parameters["2"] == (64, 72)
    for make in (plain, partly_frozen):
        ours, theirs = make(), make()
        recipe.apply(ours)
        config = recipe.peft_config(theirs)
        assert config.modules_to_save == ["4", "6"]
        made = peft.get_peft_model(theirs, config)
        sizes = [sum(p.numel() for p in m.parameters() if p.requires_grad) for m in (ours, made)]
        assert sizes[0] == sizes[1] == 64 + 72 + 18


def test_what_peft_would_train_besides_is_refused() -> None:
    pytest.importorskip("peft")
    half = recipe_of({"2": 1.0, "4": "lora 4"}, ranks=[4])
    with pytest.raises(ValueError, match=r"with '2' also 2\.bias, which the recipe does not: take"):
        half.peft_config(plain())
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(12)))
    states = {str(n): "frozen" for n in range(12)}
    of_many = Recipe({**states, "0": 1.0, "3": "lora 2"}, lr=1e-3)
    with pytest.raises(ValueError, match=r"with '0' also 10\.weight"):  # peft compares ends
        of_many.peft_config(model)


def test_ultralytics_freezes_what_was_frozen() -> None:
    held = {"a": ["model.1"], "b": ["model.2"]}
    beside = ["model.0.conv.weight", "model.3.dfl.conv.weight", "model.3.cv.weight"]
    mask = SavedMask({"a": 1, "b": 0}, "", held, beside, frozen_before=beside[:2])
    assert freeze_argument(mask) == [0, 1]
    states: dict[str, Any] = {"a": 1.0, "b": 1.0}
    recipe = Recipe(states, 0.1, contents=held, beside=beside, frozen_before=beside[:2])
    assert freeze_argument(recipe) == [0]
    for name in ("model.2.bias", "model.3.cv2.weight"):
        half = SavedMask({"a": 1, "b": 0}, "", held, beside, frozen_before=[name])
        with pytest.raises(ValueError, match=f"{name} was frozen before the search, the rest"):
            freeze_argument(half)
