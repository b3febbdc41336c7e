from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import evonas as en
from evonas.exceptions import RunStorageError
from evonas.freezing import apply_mask, load_mask, load_recipe, trainable_parameter_groups
from evonas.training import seeded


@pytest.fixture
def run_dir(make_problem: Any, tmp_path: Path) -> Path:
    problem = make_problem(n_epochs=1)
    problem.rigged = {(1, 1, 0, 0): 0.999}
    en.evolve(problem, population=8, generations=1, seed=1, run_dir=tmp_path, threads_per_trial=1)
    return tmp_path


def test_the_champion_is_written_by_block_name(run_dir: Path) -> None:
    champion = en.open_run(run_dir).champion
    path = run_dir / "mask.json"
    assert json.loads(path.read_text()) == {
        "model": "Sequential",
        "mask": {"0": 1, "2": 1, "4": 0, "7": 0},
        "frozen": ["0", "2"],
        "label": "first 2 frozen",
        "evaluation": champion.number,
        "score_in_the_search": {"metric": "accuracy", "value": 0.999, "seeds": 1},
        "on_fresh_seeds": None,
        "trainable_share": pytest.approx(140 / 252),
        "blocks": {"0": ["0", "1"], "2": ["2", "3"], "4": ["4", "5", "6"], "7": ["7", "8"]},
        "beside": ["9.weight", "9.bias"],
        "frozen_before": [],
        "lr": 0.02,
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry.name for entry in run_dir.glob(".mask*")] == []


def test_the_mask_applies_to_another_model(run_dir: Path, make_problem: Any) -> None:
    model = make_problem().model_factory()
    with apply_mask(model, load_mask(run_dir / "mask.json")) as applied:
        assert applied.mask == (1, 1, 0, 0)
        frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
        assert frozen == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_three_lines_of_code_apply_it(run_dir: Path, make_problem: Any) -> None:
    """Those that docs and examples show."""
    model = make_problem().model_factory()
    apply_mask(model, load_mask(run_dir / "mask.json"))
    optimizer = torch.optim.AdamW(trainable_parameter_groups(model), lr=5e-5)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert sum(p.numel() for p in held) == 140


def test_a_file_that_says_the_same_is_left_alone(run_dir: Path, make_problem: Any) -> None:
    path = run_dir / "mask.json"
    before = path.stat().st_ino
    problem = make_problem(n_epochs=1)
    files = problem.run_files(run_dir)
    champion = en.open_run(run_dir).champion
    files.on_champion(champion, None)
    assert path.stat().st_ino == before
    path.write_text("")
    files.on_champion(champion, None)
    assert load_mask(path) == {"0": 1, "2": 1, "4": 0, "7": 0}


def test_a_failed_write_leaves_nothing(
    run_dir: Path, make_problem: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run_dir / "mask.json"
    path.write_text("before")

    def full(*arguments: Any, **options: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunStorageError, match="No space left"):
        make_problem().run_files(run_dir).on_champion(en.open_run(run_dir).champion, None)
    assert path.read_text() == "before"
    assert list(run_dir.glob(".mask*")) == []


@pytest.mark.parametrize(
    "text",
    [
        "[1, 0]", "{}", '{"mask": [1, 0]}', '{"mask": {"0": 2}}', '{"mask": {"0": [1]}}',
        "not JSON", "", '{"mask": {"0": 1}, "blocks": {"1": ["1"]}}',
    ],
)  # fmt: skip
def test_a_file_without_a_mask(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mask.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"mask.json must hold a mask by block name, as a freez"):
        load_mask(path)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ValueError, match="weights.pt must hold a mask by block name"):
        load_mask(tmp_path / "weights.pt")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"mask\.json"):
        load_mask(tmp_path / "mask.json")
    nowhere = tmp_path / "nothere"
    for load, name in ((load_mask, "mask.json"), (load_recipe, "recipe.json")):
        said = f"there is no {nowhere}: pass a run's directory, or the {name} of one"
        with pytest.raises(FileNotFoundError, match=re.escape(said)):
            load(nowhere)


@pytest.mark.parametrize(
    ("found", "load", "message"),
    [
        ("mask.json", load_recipe, "has no recipe.json: this run has a mask, which load_mask of"),
        ("recipe.json", load_mask, "has no mask.json: this run has a recipe, which load_recipe of"),
        ("run.db", load_mask, "has no mask.json: it is written where a search for masks"),
    ],
)
def test_a_run_of_the_other_kind(tmp_path: Path, found: str, load: Any, message: str) -> None:
    (tmp_path / found).write_text("{}")
    with pytest.raises(FileNotFoundError, match=message):
        load(tmp_path)


def test_a_mask_of_another_model(run_dir: Path) -> None:
    other = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    expected = "blocks 0, 2, 4, 7 of Sequential, but this Sequential lacks '3' of block '2': apply"
    with pytest.raises(ValueError, match=expected):
        apply_mask(other, load_mask(run_dir))


class Stack(nn.Module):
    """Layers whose order of registration is not that in which they run."""

    def __init__(self, n_layers: int = 3, head: str = "head") -> None:
        super().__init__()
        with seeded(0):
            layers = [nn.Linear(4, 4) for _ in range(n_layers)]
        self.late = layers.pop()
        self.layers = nn.ModuleList(layers)
        self.add_module(head, nn.Linear(4, 2))
        self.last = head

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).tanh()
        return self.get_submodule(self.last)(self.late(x).tanh())


def test_a_saved_mask_goes_by_name_where_a_list_would_not(
    make_problem: Any, tmp_path: Path
) -> None:
    problem = make_problem(Stack)
    assert [block.name for block in problem.blocks] == ["layers.0", "layers.1", "late"]
    best = en.Evaluation(0, "key", problem.genes_of([1, 0, 0]), en.Status.OK, (0.5,), {})
    problem.run_files(tmp_path).on_champion(best, None)
    with apply_mask(Stack(head="other"), load_mask(tmp_path)) as applied:
        assert [block.name for block in applied.frozen] == ["layers.0"]
        assert applied.blocks[0].n_parameters == 20
    with apply_mask(Stack(), [1, 0, 0]) as applied:
        assert repr(applied) == "AppliedMask([1, 0, 0] on Stack, frozen: late)"
    with pytest.raises(ValueError, match=r"this Stack has 'layers.2.weight' too, which is in no b"):
        apply_mask(Stack(4), load_mask(tmp_path))
    with pytest.raises(ValueError, match=r"this Stack lacks 'layers.1' of block 'layers.1'"):
        apply_mask(Stack(2), load_mask(tmp_path))


def test_own_groups_need_no_blocks(make_problem: Any, tmp_path: Path) -> None:
    groups = {"front": ["layers.0", "layers.1.bias"], "back": ["late"]}
    problem = make_problem(Stack, blocks=groups)
    best = en.Evaluation(0, "key", problem.genes_of({"front": 1}), en.Status.OK, (0.5,), {})
    problem.run_files(tmp_path).on_champion(best, None)
    mask = load_mask(tmp_path)
    assert mask == {"front": 1, "back": 0}
    model = Stack()
    with apply_mask(model, mask):
        frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"layers.0.weight", "layers.0.bias", "layers.1.bias"}
    with apply_mask(model, mask, blocks=problem.blocks) as applied:
        assert applied.mask == (1, 0)


def test_a_file_without_blocks_is_a_plain_mask(tmp_path: Path) -> None:
    (tmp_path / "mask.json").write_text('{"mask": {"layers.0": 1}}')
    with apply_mask(Stack(), load_mask(tmp_path)) as applied:
        assert [block.name for block in applied.frozen] == ["layers.0"]
