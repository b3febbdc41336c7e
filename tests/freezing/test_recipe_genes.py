"""What recipes have beside states: unfreezing in turn, compact genes, genes of the user's own."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import evonas as en
from evonas.execution.trial import Trial, TrialSettings
from evonas.freezing import Recipe, RecipeProblem, compare_masks, load_recipe
from evonas.freezing.recipe_genes import takes_genes
from evonas.space.genes import Boolean, Categorical, Float, Integer
from evonas.training.recipe import Training

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
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Layer() for _ in range(4))
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.dropout(x)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)


STATES = tuple(f"layers.{n}" for n in range(4))


def pretrained(dropout: float = 0.0) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Net(dropout)


def by_genes(genes: Any) -> nn.Module:
    assert set(genes) in ({"dropout"}, {"dropout", *STATES, "unfreezing"})
    return pretrained(genes["dropout"])


def problem(**arguments: Any) -> RecipeProblem:
    settings = {"lr": [1e-3, 1e-2], "n_epochs": 2, "precision": "float32", **arguments}
    return RecipeProblem(lambda: pretrained(), DATA, VAL, **settings)


def changed(before: nn.Module, after: nn.Module) -> set[str]:
    old = before.state_dict()
    return {name for name, value in after.state_dict().items() if not torch.equal(value, old[name])}


def evaluated(made: Any, genes: Any, folder: Path | None = None) -> Trial:
    trial = Trial(TrialSettings(seed=3, attachments=None if folder is None else str(folder)))
    made.evaluate(genes, trial)
    return trial


# Gradual unfreezing.


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "one_cycle"])
def test_blocks_move_when_their_turn_comes_and_then_at_the_rate_of_the_schedule(
    schedule: str,
) -> None:
    states: dict[str, Any] = {
        "layers.0": "frozen", "layers.1": 0.1, "layers.2": 1.0, "layers.3": "norms",
    }  # fmt: skip
    recipe = Recipe(states, lr=0.1, settings={"schedule": schedule}, unfreezing="gradual")
    model = pretrained()
    optimizer = recipe.make_optimizer(model)
    scheduler = recipe.make_scheduler(optimizer, 8)
    assert scheduler is not None
    names = {id(p): n for n, p in model.named_parameters()}
    of_block = {
        group["start"]: (group, {names[id(p)].rpartition(".")[0][:8] for p in group["params"]})
        for group in optimizer.param_groups
    }
    assert {start: blocks for start, (_, blocks) in of_block.items()} == {
        0.0: {"head"}, 0.25: {"layers.3"}, 0.5: {"layers.2"}, 0.75: {"layers.1"},
    }  # fmt: skip
    alone = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=0.1)
    plain = Training(schedule=schedule).make_scheduler(alone, 8)
    moved: dict[float, int] = {}
    before = copy.deepcopy(model)
    for step in range(8):
        rate = alone.param_groups[0]["lr"]
        for start, (group, _) in of_block.items():
            wanted = 0.0 if step < 8 * start else rate * (0.1 if start == 0.75 else 1.0)
            assert group["lr"] == pytest.approx(wanted)
        nn.functional.cross_entropy(model(DATA[0]), DATA[1]).backward()
        optimizer.step()
        scheduler.step()
        alone.step()
        if plain is not None:
            plain.step()
        for start, (_, blocks) in of_block.items():
            if start not in moved and any(
                name.startswith(block) for block in blocks for name in changed(before, model)
            ):
                moved[start] = step
    if schedule != "linear":  # whose last steps are as small as rounding
        assert moved == {0.0: 0, 0.25: 2, 0.5: 4, 0.75: 6}
    assert not any(name.startswith("layers.0") for name in changed(before, model))


def test_where_the_head_is_a_block_it_is_the_first_to_move() -> None:
    groups = Recipe({str(n): 1.0 for n in (0, 2, 4)}, lr=1.0, unfreezing="gradual").apply(
        nn.Sequential(
            nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2, bias=False)
        )
    )
    assert [(g["start"], len(g["params"])) for g in groups] == [
        (2 / 3, 1), (2 / 3, 1), (1 / 3, 1), (1 / 3, 1), (0.0, 1),
    ]  # fmt: skip


def test_a_gradual_trial_differs_from_one_at_once_only_where_turns_matter() -> None:
    made = problem(lr=1e-2, n_epochs=3)
    full = made.genes_of([0, 0, 0, 0])
    head = made.genes_of([1, 1, 1, 1])
    losses = {
        (name, when): [
            row.metrics["train_loss"]
            for row in evaluated(made, {**genes, "unfreezing": when}).history
        ]
        for name, genes in (("full", full), ("head", head))
        for when in ("at once", "gradual")
    }
    assert losses["full", "at once"] != losses["full", "gradual"]
    assert losses["head", "at once"] == losses["head", "gradual"], "a head alone has no turns"


def test_without_gradual_there_is_no_such_gene_and_no_such_rival() -> None:
    made = problem(gradual=False)
    assert "unfreezing" not in dict(made.space.items())
    assert "gradual unfreezing" not in made.rivals()
    assert made.label_of({**made.genes_of([0, 0, 0, 0])}) == "full fine-tuning"


# Compact genes.


def test_compact_genes_say_the_same_recipes() -> None:
    made = problem(compact=True, decays=[0.5])
    assert list(dict(made.space.items())) == ["n_frozen", "trained", "decay", "unfreezing", "lr"]
    at = {"unfreezing": "at once", "lr": 1e-2}
    genes = {"n_frozen": 1, "trained": "all", "decay": 0.5, **at}
    assert made.recipe(genes).states == {
        "layers.0": "frozen", "layers.1": 0.25, "layers.2": 0.5, "layers.3": 1.0,
    }  # fmt: skip
    norms = {"n_frozen": 2, "trained": "norms", **at}
    assert list(made.recipe(norms).states.values()) == ["frozen", "frozen", "norms", "norms"]
    assert made.space.validate(norms) == norms
    rivals = made.rivals()
    assert list(rivals) == [
        "full fine-tuning", "head only", "norms only", "biases only", "layer-wise decay 0.5",
        "gradual unfreezing", "first 1 frozen", "first 2 frozen", "first 3 frozen",
    ]  # fmt: skip
    for name, variants in rivals.items():
        assert [made.label_of(point) for point in variants] == [name] * 2
        assert [made.space.validate(point) for point in variants] == variants
    same = problem().recipe(problem().genes_of([1, 1, 0, 0], lr=1e-2))
    assert made.recipe(made.genes_of([1, 1, 0, 0], lr=1e-2)).states == same.states
    with pytest.raises(ValueError, match="compact genes freeze the first blocks only"):
        made.genes_of([0, 1, 0, 0])
    assert made.strip() == {}


def test_a_compact_search_ends_with_a_table_and_a_recipe(tmp_path: Path) -> None:
    made = problem(compact=True)
    result = en.evolve(made, max_evaluations=16, seed=0, run_dir=tmp_path, workers=1)
    assert result.counts.failed == 0
    table = compare_masks(made, tmp_path, TEST, top=1, n_random=1, repeats=2)
    assert table.row("full fine-tuning") is not None
    assert load_recipe(tmp_path).apply(pretrained())


# Genes of one's own.


def test_genes_named_like_settings_replace_them(tmp_path: Path) -> None:
    genes = {
        "n_epochs": Integer(1, 3),
        "weight_decay": Categorical([0.0, 0.5]),
        "schedule": Categorical(["constant", "one_cycle"]),
        "optimizer": Categorical(["sgd", "adamw"]),
        "batch_size": Categorical([16, 32]),
        "label_smoothing": Float(0.0, 0.2),
    }
    made = problem(genes=genes)
    usual = made.rivals()["full fine-tuning"][0]
    assert {name: usual[name] for name in genes} == {
        "n_epochs": 2, "weight_decay": 0.0, "schedule": "constant", "optimizer": "adamw",
        "batch_size": 32, "label_smoothing": 0.0,
    }  # fmt: skip
    point = {
        **usual, "n_epochs": 3, "weight_decay": 0.5, "schedule": "one_cycle", "optimizer": "sgd",
        "batch_size": 16, "label_smoothing": 0.1, "lr": 1e-2,
    }  # fmt: skip
    other = problem(
        lr=1e-2, n_epochs=3, weight_decay=0.5, schedule="one_cycle", batch_size=16,
        genes={"optimizer": Categorical(["sgd"]), "label_smoothing": Float(0.1, 0.2)},
    )  # fmt: skip
    same = {**other.genes_of([0, 0, 0, 0]), "label_smoothing": 0.1}
    ours, theirs = evaluated(made, point), evaluated(other, same)
    assert [row.metrics for row in ours.history] == [row.metrics for row in theirs.history]
    assert len(ours.history) == 3
    assert "weight_decay 0.5" in made.words(point)
    (tmp_path / "recipe.json").write_text(json.dumps(made.recipe(point).to_json()))
    recipe = load_recipe(tmp_path)
    assert recipe == made.recipe(point)
    assert (recipe.training.n_epochs, recipe.training.optimizer) == (3, "sgd")
    optimizer = recipe.make_optimizer(pretrained())
    assert type(optimizer) is torch.optim.SGD
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.5}


def test_other_genes_reach_the_model_and_the_optimizer() -> None:
    seen = []

    def optimizer(groups: Any, genes: Any) -> torch.optim.Optimizer:
        seen.append((genes["dropout"], [group["lr"] for group in groups]))
        return torch.optim.SGD(groups)

    made = RecipeProblem(
        by_genes, DATA, VAL, lr=0.1, n_epochs=1, precision="float32",
        genes={"dropout": Categorical([0.0, 0.9])}, optimizer=optimizer,
    )  # fmt: skip
    seen.clear()  # it was tried
    points = [{**made.genes_of([0, 0, 0, 1]), "dropout": share} for share in (0.0, 0.9)]
    losses = [evaluated(made, point).history[0].metrics["train_loss"] for point in points]
    assert losses[0] != losses[1]
    assert [share for share, _ in seen] == [0.0, 0.9]
    assert set(seen[0][1]) == {0.1}
    reason = "model_factory makes another model for other genes"
    assert made.configure(None)["reuse"] == {"cuts": {}, "refused": {"0": reason}}
    assert made.recipe(points[1]).genes == {"dropout": 0.9}
    assert isinstance(made.build(points[1]).dropout, nn.Dropout)
    assert made.build(points[1]).dropout.p == 0.9


def test_a_search_over_the_whole_recipe_resumes_bit_for_bit(tmp_path: Path) -> None:
    def search(folder: Path, n: int) -> en.Result:
        made = problem(genes={"n_epochs": Integer(1, 2), "weight_decay": Float(1e-3, 1, log=True)})
        return en.evolve(made, max_evaluations=n, seed=5, run_dir=folder, workers=1)

    whole = search(tmp_path / "whole", 18)
    search(tmp_path / "parts", 11)
    parts = search(tmp_path / "parts", 18)
    assert [e.values for e in whole.evaluations] == [e.values for e in parts.evaluations]
    assert [e.genes for e in whole.evaluations] == [e.genes for e in parts.evaluations]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"genes": {"lr": Categorical([1, 2])}}, ValueError, "'lr'.*lr= takes several rates"),
        ({"genes": {"layers.0": Boolean()}}, ValueError, "has already: choose another name"),
        ({"genes": {"unfreezing": Boolean()}}, ValueError, "has already"),
        ({"genes": {"dropout": Boolean()}}, ValueError, "would do nothing.*weight_decay"),
        ({"genes": {"n_epochs": Integer(0, 2)}}, ValueError, r"genes\['n_epochs'\]: n_epochs must"),
        ({"genes": {"schedule": Categorical(["up"])}}, ValueError, r"genes\['schedule'\]"),
        ({"genes": {"n_epochs": 3}}, TypeError, r"genes\['n_epochs'\] must be a gene, got int"),
        ({"genes": [1]}, TypeError, "genes must be a dict"),
        ({"decays": [0.0]}, ValueError, "entry of decays must be above 0"),
        ({"decays": [1.5]}, ValueError, "entry of decays must be"),
        ({"compact": 1}, TypeError, "compact must be"),
    ],
)
def test_wrong_genes_are_refused(arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        problem(**arguments)


def test_a_printed_recipe_says_what_is_trained_and_how(tmp_path: Path) -> None:
    made = problem(genes={"n_epochs": Categorical([2, 5])})
    genes = {
        "layers.0": "frozen", "layers.1": "norms", "layers.2": 0.1, "layers.3": 1.0,
        "unfreezing": "gradual", "lr": 0.01, "n_epochs": 5,
    }  # fmt: skip
    recipe = made.recipe(genes)
    lines = str(recipe).splitlines()
    assert [line.split() for line in lines[:-1]] == [
        ["block", "state", "trained", "of", "lr"], ["layers.0", "frozen", "0", "54"],
        ["layers.1", "norms", "12", "54", "0.01"], ["layers.2", "all", "x0.1", "54", "54", "0.001"],
        ["layers.3", "all", "54", "54", "0.01"], ["head", "all", "14", "14", "0.01"],
    ]  # fmt: skip
    assert recipe.table(pretrained()).splitlines() == lines[:-1]
    assert lines[-1].startswith("unfrozen gradually, n_epochs 5, batch_size 32, optimizer adamw")
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_json()))
    assert str(load_recipe(tmp_path)) == str(recipe)
    by_hand = str(Recipe({"a": "frozen", "b": 0.5}, lr=0.1))
    assert [line.split() for line in by_hand.splitlines()] == [
        ["block", "state", "lr"], ["a", "frozen"], ["b", "all", "x0.5", "0.05"],
    ]  # fmt: skip


def test_a_first_argument_called_genes_takes_them_with_a_default_too() -> None:
    """So that the function can be called without any, where the model is looked at by hand."""
    heard: list[Any] = []

    def optional(genes: Any = None) -> nn.Module:
        heard.append(genes)
        return pretrained()

    own = {"drop": Float(0.0, 0.5)}
    made = RecipeProblem(
        optional, DATA, VAL, lr=0.1, genes=own, n_epochs=1, precision="float32", gradual=False
    )
    genes = made.space.sample(random.Random(0))
    heard.clear()
    made.build(genes)
    assert heard == [genes]


@pytest.mark.parametrize("factory", [lambda width=6: pretrained(), lambda width=6, genes=None: 0])
def test_other_arguments_with_defaults_stay_theirs(factory: Any) -> None:
    assert not takes_genes(factory, are_given=True)


def test_a_factory_that_takes_genes_without_any_is_refused() -> None:
    with pytest.raises(TypeError, match="model_factory takes an argument.* genes= is missing"):
        RecipeProblem(by_genes, DATA, VAL)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"settings": {"epochs": 3}}, "a key of settings"),
        ({"settings": {"lr": 3}}, "a key of settings"),
        ({"settings": {"n_epochs": 0}}, "n_epochs must be"),
        ({"unfreezing": "slowly"}, "unfreezing must be 'at once' or 'gradual'"),
    ],
)
def test_wrong_settings_of_a_recipe_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe({"layers.0": "frozen"}, lr=1e-2, **arguments)


def test_a_block_without_what_compact_genes_train_is_frozen() -> None:
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 6, bias=False), Layer(), nn.Linear(6, 2))

    made = RecipeProblem(
        model, DATA, VAL, blocks=["0", "1"], compact=True, lr=1e-2, precision="float32"
    )
    at = {"n_frozen": 0, "trained": "norms", "unfreezing": "at once"}
    assert made.recipe(at).states == {"0": "frozen", "1": "norms"}


def test_recipes_that_differ_in_own_genes_are_rows_of_their_own(tmp_path: Path) -> None:
    """All that is trained is in the table, and its best is the run's champion."""
    made = problem(
        lr=[1e-2],
        multiples=[1.0],
        gradual=False,
        genes={"weight_decay": Float(1e-4, 1.0, log=True)},
    )
    full = dict.fromkeys(STATES, 1.0)
    decays = (1e-3, 1e-2, 1e-1)
    result = en.evolve(
        made, strategy="random", initial=[{**full, "weight_decay": w} for w in decays],
        max_evaluations=3, seed=0, run_dir=tmp_path, workers=1, threads_per_trial=1,
    )  # fmt: skip
    ranked = sorted(result.evaluations, key=lambda e: (-e.values[0], e.number))
    table = compare_masks(made, tmp_path, TEST, top=3, n_random=0, repeats=2)
    for place, entry in enumerate(ranked, 1):
        row = table.row(f"search {place}")
        assert row is not None
        assert row.genes == entry.genes
    confirmed = en.open_run(tmp_path).confirmed
    assert [row.genes for row in table.rows] == [entry.evaluation.genes for entry in confirmed]
    assert en.open_run(tmp_path).champion.genes == table.champion.genes
    record = json.loads((tmp_path / "recipe.json").read_text())
    assert record["on_fresh_seeds"]["seeds"] == 2


def test_a_factory_whose_genes_have_a_default_needs_none() -> None:
    def model(genes: Any = None) -> nn.Module:
        return pretrained(0.0 if genes is None else genes["dropout"])

    assert not RecipeProblem(model, DATA, VAL, lr=1e-2).builder_takes_genes
    own = {"dropout": Float(0.0, 0.5)}
    assert RecipeProblem(model, DATA, VAL, lr=1e-2, genes=own).builder_takes_genes
