"""Recipes: what of a model is trained, at which rates, and their search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import evonas as en
from evonas.execution.trial import Trial, TrialSettings
from evonas.freezing import (
    FreezingProblem,
    Recipe,
    RecipeProblem,
    applied_mask,
    compare_masks,
    load_recipe,
)

torch.manual_seed(0)
X = torch.randn(120, 6)
Y = (X[:, 0] * X[:, 1] > 0).long()
DATA, VAL, TEST = (X[:60], Y[:60]), (X[60:90], Y[60:90]), (X[90:], Y[90:])


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(6, 6), nn.LayerNorm(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.linear(x)).relu()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(4))
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)


def pretrained() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Net()


def problem(**arguments: Any) -> RecipeProblem:
    settings = {"lr": [1e-3, 1e-2], "n_epochs": 2, "precision": "float32", **arguments}
    return RecipeProblem(pretrained, DATA, VAL, **settings)


STATES: dict[str, Any] = {
    "layers.0": "frozen", "layers.1": "norms", "layers.2": "biases", "layers.3": 0.1,
}  # fmt: skip


def changed(before: nn.Module, after: nn.Module) -> set[str]:
    old = before.state_dict()
    return {name for name, value in after.state_dict().items() if not torch.equal(value, old[name])}


TRAINED = {
    "layers.1.norm.weight", "layers.1.norm.bias", "layers.2.linear.bias", "layers.2.norm.bias",
    "layers.3.linear.weight", "layers.3.linear.bias", "layers.3.norm.weight", "layers.3.norm.bias",
    "head.weight", "head.bias",
}  # fmt: skip


def test_each_block_is_trained_as_its_state_says() -> None:
    model = pretrained()
    groups = Recipe(STATES, lr=0.01, weight_decay=0.1).apply(model)
    names = {id(p): name for name, p in model.named_parameters()}
    found = {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in groups
        for p in group["params"]
    }
    assert set(found) == TRAINED == {n for n, p in model.named_parameters() if p.requires_grad}
    assert found["layers.1.norm.weight"] == (0.01, 0.0)
    assert found["layers.2.linear.bias"] == (0.01, 0.0)
    assert found["layers.3.linear.weight"] == (pytest.approx(0.001), 0.1)
    assert found["layers.3.norm.weight"] == (pytest.approx(0.001), 0.0)
    assert found["head.weight"] == (0.01, 0.1)
    assert not model.train().layers[0].training
    assert model.layers[1].training
    applied = applied_mask(model)
    assert applied is not None
    applied.undo()
    assert all(p.requires_grad for p in model.parameters())


def test_a_whole_multiple_is_a_multiple() -> None:
    groups = Recipe({"layers.0": 3}, lr=0.1).apply(pretrained())
    assert groups[0]["lr"] == pytest.approx(0.3)


def test_to_build_one_leaves_the_global_generator() -> None:
    before = torch.get_rng_state()
    RecipeProblem(Net, DATA, VAL, n_epochs=1, precision="float32")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_trial_changes_what_the_recipe_trains_and_nothing_else(tmp_path: Path) -> None:
    made = problem()
    genes = {**STATES, "lr": 0.01}
    trial = Trial(TrialSettings(seed=2, attachments=str(tmp_path)))
    made.evaluate(genes, trial)
    after = pretrained()
    after.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert changed(pretrained(), after) == TRAINED
    sizes = {name: p.numel() for name, p in pretrained().named_parameters()}
    assert trial.metrics["trainable_params"] == sum(sizes[name] for name in TRAINED)
    assert trial.metrics["prefix_depth"] == 1


@pytest.mark.parametrize("mask", [[0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]])
def test_a_recipe_of_a_mask_is_the_training_of_that_mask(mask: list[int]) -> None:
    masks = FreezingProblem(pretrained, DATA, VAL, lr=1e-2, n_epochs=2, precision="float32")
    made = problem(lr=1e-2)
    ours, theirs = (Trial(TrialSettings(seed=3)) for _ in range(2))
    assert made.evaluate(made.genes_of(mask), ours) == masks.evaluate(masks.genes_of(mask), theirs)
    assert [r.metrics["train_loss"] for r in ours.history] == [
        r.metrics["train_loss"] for r in theirs.history
    ]


def test_prefixes_change_nothing() -> None:
    genes = {**STATES, "layers.1": "frozen", "lr": 0.01}
    found = []
    for reuse in (True, False):
        trial = Trial(TrialSettings(seed=4))
        problem(reuse_prefix=reuse).evaluate(genes, trial)
        found.append([row.metrics["train_loss"] for row in trial.history])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_the_strip_has_the_blocks_and_the_states_and_the_rivals() -> None:
    strip = problem().strip()
    assert strip["blocks"] == ["layers.0", "layers.1", "layers.2", "layers.3"]
    assert strip["states"] == [
        ["frozen", "frozen"], ["norms", "norms"], ["biases", "biases"], [0.1, "all x0.1"],
        [0.3, "all x0.3"], [1.0, "all"],
    ]  # fmt: skip
    assert strip["labels"]["first 2 frozen"] == ["frozen", "frozen", 1.0, 1.0]


def test_the_table_says_what_is_trained() -> None:
    model = pretrained()
    recipe = Recipe(STATES, lr=0.01)
    lines = recipe.table(model).splitlines()
    assert [line.split() for line in lines] == [
        ["block", "state", "trained", "of", "lr"],
        ["layers.0", "frozen", "0", "54"],
        ["layers.1", "norms", "12", "54", "0.01"],
        ["layers.2", "biases", "12", "54", "0.01"],
        ["layers.3", "all", "x0.1", "54", "54", "0.001"],
        ["head", "all", "14", "14", "0.01"],
    ]
    recipe.apply(model)
    assert recipe.table(model).splitlines() == lines


def test_rivals_are_in_the_first_population_at_each_rate() -> None:
    made = problem()
    rivals = made.rivals()
    assert list(rivals) == [
        "full fine-tuning", "head only", "norms only", "biases only", "layer-wise decay",
        "gradual unfreezing", "signal to noise", "first 1 frozen", "first 2 frozen",
        "first 3 frozen",
    ]  # fmt: skip
    assert [genes["lr"] for genes in rivals["head only"]] == [1e-3, 1e-2]
    decay = rivals["layer-wise decay"][0]
    assert [decay[f"layers.{n}"] for n in range(4)] == [0.1, 0.1, 0.3, 1.0]
    assert set(rivals["norms only"][0].values()) == {"norms", 1e-3, "at once"}
    gradual = rivals["gradual unfreezing"][0]
    assert gradual == {**rivals["full fine-tuning"][0], "unfreezing": "gradual"}
    points = made.initial_points(24)
    assert len(points) == 18
    assert all(any(genes in variants for variants in rivals.values()) for genes in points)
    first = made.initial_points(18)  # all at the middle rate, and some at another
    assert [made.label_of(genes) for genes in first] == [*rivals, *list(rivals)[:3]]
    assert [genes["lr"] for genes in first] == 10 * [1e-2] + 3 * [1e-3]
    assert made.words({**STATES, "lr": 1e-3}) == (
        "layers.0 frozen, layers.1 norms, layers.2 biases, layers.3 all x0.1"
    )


def strategy_of(n_initial: int) -> en.Strategy:
    return en.SurrogateEvolution(n_initial=n_initial)


def test_a_search_ends_with_a_table_and_a_file(tmp_path: Path) -> None:
    made = problem()
    result = en.evolve(
        made, strategy=strategy_of(27), max_evaluations=30, seed=0, run_dir=tmp_path, workers=1
    )
    assert result.counts.failed == 0
    table = compare_masks(made, tmp_path, TEST, top=1, n_random=1, repeats=2)
    labels = [label for row in table.rows for label in row.label.split(", ")]
    for name in ("full fine-tuning", "head only", "norms only", "biases only", "layer-wise decay"):
        assert name in labels
        row = table.row(name)
        assert row is not None
        tried = [
            e.values[0]
            for e in result.evaluations
            if made.without_rate(e.genes) == made.without_rate(made.rivals()[name][0])
        ]
        assert row.searched == max(tried)
    text = str(table)
    assert "norms" in text
    assert text.splitlines()[0].endswith("lr  blocks")
    assert "not tried at every learning rate" not in text
    assert "against full fine-tuning" in text or table.champion.label.startswith("full")
    record = json.loads((tmp_path / "recipe.json").read_text())
    assert record["label"] == table.champion.label
    assert record["on_fresh_seeds"]["seeds"] == 2

    en.evolve(made, strategy=strategy_of(27), max_evaluations=30, run_dir=tmp_path, workers=1)
    assert json.loads((tmp_path / "recipe.json").read_text()) == record, "a start lost the scores"

    recipe = load_recipe(tmp_path)
    assert made.words({**recipe.states, "lr": 0}) == table.champion.words
    assert recipe.lr == table.champion.lr
    model = pretrained()
    optimizer = torch.optim.AdamW(recipe.apply(model), lr=recipe.lr)
    before = pretrained()
    nn.functional.cross_entropy(model(X), Y).backward()
    optimizer.step()
    wanted = {n for n, p in model.named_parameters() if p.requires_grad}
    assert changed(before, model) <= wanted


def test_a_resumed_search_is_the_same(tmp_path: Path) -> None:
    def search(folder: Path, n: int) -> en.Result:
        return en.evolve(problem(), max_evaluations=n, seed=5, run_dir=folder, workers=1)

    whole = search(tmp_path / "whole", 20)
    search(tmp_path / "parts", 11)
    parts = search(tmp_path / "parts", 20)
    assert [e.values for e in whole.evaluations] == [e.values for e in parts.evaluations]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Recipe({"a": 0}, lr=1), ValueError, "state of a is a multiple of 0: say 'frozen'"),
        (lambda: Recipe({"a": "thawed"}, lr=1), TypeError, "state of a must be a multiple"),
        (lambda: Recipe({"a": True}, lr=1), TypeError, "state of a must be"),
        (lambda: Recipe({"a": -1.0}, lr=1), ValueError, "state of a must be above 0"),
        (lambda: Recipe({"a": 1.0}, lr=0), ValueError, "lr must be above 0"),
        (lambda: Recipe({"nowhere": "frozen"}, lr=1).apply(pretrained()), ValueError, "nowhere"),
        (lambda: problem(multiples=[0.0]), ValueError, "entry of multiples must be above 0"),
        (lambda: problem(optimizer="sgd"), TypeError, "optimizer must be callable"),
        (lambda: problem(epochs=3), TypeError, r"has no argument 'epochs': write n_epochs="),
        (lambda: Recipe.from_json({"lr": 1}), ValueError, "got one without states, weight_decay"),
    ],
)
def test_a_wrong_recipe_is_refused(make: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_recipe_of_a_point_without_a_block_is_refused() -> None:
    genes = {name: value for name, value in STATES.items() if name != next(iter(STATES))}
    with pytest.raises(ValueError, match=f"got none for {next(iter(STATES))}: pass the genes of"):
        problem().recipe(genes)
    with pytest.raises(TypeError, match="genes must be a dict"):
        problem().recipe((0, 1))  # type: ignore[arg-type]


def test_a_recipe_of_another_model_is_refused() -> None:
    made = problem()
    recipe = made.recipe({**STATES, "lr": 1e-2})
    with pytest.raises(ValueError, match=r"lacks 'layers.0'"):
        recipe.apply(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))


def test_what_is_no_recipe_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_recipe(tmp_path)
    for text in ("{", "[]", '{"states": {"a": 0}, "lr": 1, "weight_decay": 0}', '{"lr": 1}'):
        (tmp_path / "recipe.json").write_text(text)
        with pytest.raises(ValueError, match="must hold a recipe"):
            load_recipe(tmp_path)


def test_biases_are_those_of_torchs_attention_and_recurrent_layers_too() -> None:
    model = nn.Sequential(
        nn.TransformerEncoderLayer(8, 2, 16), nn.LSTM(8, 8, bidirectional=True), nn.GRUCell(8, 8),
        nn.MultiheadAttention(8, 2, add_bias_kv=True), nn.Linear(8, 2),
    )  # fmt: skip
    names = {name for name, _ in model.named_parameters()}
    recipe = Recipe(dict.fromkeys("0123", "biases"), lr=0.1)
    table = recipe.table(model).splitlines()
    recipe.apply(model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name in names if "bias" in name} | {"4.weight"}
    assert {
        "0.self_attn.in_proj_bias",
        "1.bias_ih_l0",
        "1.bias_hh_l0_reverse",
        "3.bias_k",
    } < trained
    assert [line.split()[-3] for line in table[1:]] == ["72", "128", "48", "48", "18"]


def test_a_state_that_would_train_nothing_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4), nn.Linear(4, 2))
    for state, block in (("biases", "0"), ("norms", "1")):
        recipe = Recipe({"0": "frozen", "1": "frozen", block: state}, lr=0.1)
        for use in (recipe.table, recipe.apply):
            with pytest.raises(ValueError, match=f"{block} has no {state} to train: say 'frozen'"):
                use(model)
    assert applied_mask(model) is None
    model[1].bias.requires_grad_(False)
    with pytest.raises(ValueError, match="1 has no biases to train"):
        Recipe({"0": "frozen", "1": "biases"}, lr=0.1).apply(model)
