"""LoRA adapters in recipes: what they train, what is left once merged, and their search."""

from __future__ import annotations

import builtins
import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import evonas as en
from evonas.exceptions import MissingDependencyError
from evonas.execution.trial import Trial, TrialSettings
from evonas.freezing import Recipe, RecipeProblem, applied_mask, find_blocks, load_recipe
from evonas.freezing.adapters import adapter_layers, lora_rank

peft = pytest.importorskip("peft", reason="pip install 'evonas[lora]'")

torch.manual_seed(0)
X = torch.randn(90, 6)
Y = (X[:, 0] * X[:, 1] > 0).long()
DATA, VAL = (X[:60], Y[:60]), (X[60:], Y[60:])


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"query": nn.Linear(6, 6), "value": nn.Linear(6, 6)})
        self.dense, self.norm = nn.Linear(6, 4), nn.LayerNorm(6)
        self.back = nn.Linear(4, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        attended = self.attention["query"](x).sigmoid() * self.attention["value"](x)
        return self.norm(x + self.back(self.dense(attended).relu()))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(3))
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def pretrained() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Net()


def problem(**arguments: Any) -> RecipeProblem:
    settings: dict[str, Any] = {"lr": [1e-3, 1e-2], "n_epochs": 2, "precision": "float32"}
    return RecipeProblem(pretrained, DATA, VAL, **{**settings, "ranks": [2], **arguments})


RECIPE = Recipe(
    {"layers.0": "frozen", "layers.1": "lora 2", "layers.2": "lora 3 attention"}, lr=1e-2
)


def trained(model: nn.Module, groups: Any, steps: int = 5) -> None:
    optimizer = torch.optim.AdamW(groups)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X), Y).backward()
        optimizer.step()


def test_only_the_adapters_and_the_head_are_trained() -> None:
    model, before = pretrained(), pretrained()
    groups = RECIPE.apply(model)
    assert torch.equal(model(X), before(X))  # nothing is different before the first step
    # layers.1: four layers of 6 + 6, 6 + 6, 6 + 4 and 4 + 6 at rank 2; layers.2: two at rank 3.
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 88 + 72 + 14
    assert sum(p.numel() for group in groups for p in group["params"]) == 88 + 72 + 14
    assert {group["lr"] for group in groups} == {1e-2}
    trained(model, groups)
    for name, parameter in before.named_parameters():
        path, _, kind = name.rpartition(".")
        module: Any = model.get_submodule(path)
        now = getattr(getattr(module, "base_layer", module), kind)
        assert torch.equal(now, parameter) == (path != "head"), name


def test_undo_merges_them_into_the_weights() -> None:
    model, before = pretrained(), pretrained()
    trained(model, RECIPE.apply(model))
    found = model(X)
    applied: Any = applied_mask(model)
    applied.check_gradients()
    applied.undo()
    assert list(model.state_dict()) == list(before.state_dict())
    assert torch.allclose(model(X), found, atol=1e-6)
    assert not torch.allclose(found, before(X), atol=1e-3)
    changed = {
        n for n, p in model.named_parameters() if not torch.equal(p, before.get_parameter(n))
    }
    assert changed == {
        *(f"layers.1.{name}.weight" for name in ("attention.query", "attention.value", "dense")),
        "layers.1.back.weight", "layers.2.attention.query.weight",
        "layers.2.attention.value.weight", "head.weight", "head.bias",
    }  # fmt: skip
    assert all(p.requires_grad for p in model.parameters())


def test_the_table_counts_them() -> None:
    lines = RECIPE.table(pretrained()).splitlines()
    assert lines[2].split() == ["layers.1", "lora", "2", "88", "154", "0.01"]
    assert lines[3].split() == ["layers.2", "lora", "3", "attention", "72", "154", "0.01"]


def test_peft_trains_the_same_number_with_its_own_config() -> None:
    model = peft.get_peft_model(pretrained(), RECIPE.peft_config(pretrained()))
    n_trained, _ = model.get_nb_trainable_parameters()
    assert n_trained == 88 + 72 + 14


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ({"layers.0": "frozen"}, "no adapters"),
        ({"layers.0": "lora 2", "layers.1": 0.3}, r"layers.1 is trained as 'all x0.3'"),
        ({"layers.0": "lora 2", "layers.1": "norms"}, r"layers.1 is trained as 'norms'"),
    ],
)
def test_what_peft_cannot_say_is_refused(states: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(states, lr=1e-3).peft_config(pretrained())


def test_layers_of_torch_that_would_ignore_them_get_none() -> None:
    """In eval mode torch's own layer multiplies by the weights without calling its linears."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(
                nn.TransformerEncoderLayer(6, 2, 8, batch_first=True) for _ in range(2)
            )
            self.head = nn.Linear(6, 2)

    model = Mixed()
    block = find_blocks(model)[0]
    assert adapter_layers(model, block) == {}
    with pytest.raises(
        ValueError, match=r"blocks.0 has no linear layer or convolution for 'lora 2'"
    ):
        Recipe({block.name: "lora 2"}, lr=1e-3).apply(model)
    assert applied_mask(model) is None  # left as it was
    assert all(p.requires_grad for p in model.parameters())


def test_tied_weights_get_none() -> None:
    model = pretrained()
    model.layers[1].attention["value"].weight = model.layers[1].attention["query"].weight  # type: ignore[index, union-attr]
    block = next(b for b in find_blocks(model) if b.name == "layers.1")
    assert set(adapter_layers(model, block)) == {"layers.1.dense", "layers.1.back"}


def test_a_rank_above_a_layers_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rank 5 is above the size of layers.1.dense \(6 to 4\)"):
        Recipe({"layers.1": "lora 5"}, lr=1e-3).apply(pretrained())


def test_of_a_gpt_too() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_embd=8, n_layer=2, n_head=2, vocab_size=20, n_positions=8)
    torch.manual_seed(0)
    model = transformers.GPT2ForSequenceClassification(config).eval()
    model.config.pad_token_id = 0
    tokens = torch.randint(1, 20, (3, 5))
    before = model(tokens).logits
    recipe = Recipe({"transformer.h.1": "lora 2 attention", "transformer.h.0": "frozen"}, lr=1e-2)
    groups = recipe.apply(model)
    optimizer = torch.optim.SGD(groups)
    for _ in range(3):
        nn.functional.cross_entropy(model(tokens).logits, torch.tensor([0, 1, 1])).backward()
        optimizer.step()
    found = model(tokens).logits
    applied: Any = applied_mask(model)
    applied.undo()
    assert torch.allclose(model(tokens).logits, found, atol=1e-6)
    assert not torch.allclose(found, before, atol=1e-5)


def test_the_genes_and_the_rivals() -> None:
    made = problem(ranks=[5, 2])
    states = ["frozen", "norms", "biases", "lora 2", "lora 2 attention", "lora 5 attention",
              0.1, 0.3, 1.0]  # fmt: skip
    assert made.space["layers.0"] == en.Categorical(states)  # its linear layers are 6 to 4
    rivals = made.rivals()
    assert {"LoRA 2", "LoRA 2 on attention", "LoRA 5 on attention"} < set(rivals)
    assert "LoRA 5" not in rivals
    (point, _) = rivals["LoRA 2"]
    assert {point[f"layers.{i}"] for i in range(3)} == {"lora 2"}
    assert made.label_of(point) == "LoRA 2"
    assert "lora 2" not in problem(ranks=[]).states["layers.0"]


def evaluated(made: RecipeProblem, genes: Any) -> Trial:
    settings = made.configure(None)
    trial = Trial(TrialSettings(number=0, key="k", seed=3, threads=1, problem=settings))
    trial.record(value=made.evaluate(genes, trial))  # type: ignore[arg-type]
    return trial


def test_the_frozen_prefix_is_reused_before_them() -> None:
    genes = {"layers.0": "frozen", "layers.1": "lora 2", "layers.2": "frozen", "lr": 1e-2}
    plain, reused = problem(reuse_prefix=False), problem()
    whole, after = evaluated(plain, genes), evaluated(reused, genes)
    assert (whole.metrics["prefix_depth"], after.metrics["prefix_depth"]) == (0, 1)
    assert after.metrics["trainable_params"] == 88 + 14
    same = ("value", "trainable_params", "trainable_share")
    assert [whole.metrics[name] for name in same] == [after.metrics[name] for name in same]
    losses = [[row.metrics["train_loss"] for row in trial.history] for trial in (whole, after)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_search_keeps_weights_of_the_model_as_it_was(tmp_path: Path) -> None:
    made = problem(lr=1e-2, blocks=None, gradual=False)
    point = dict.fromkeys(made.space, "lora 2")
    result = en.evolve(
        made, initial=[point], strategy="random", max_evaluations=1, seed=0, run_dir=tmp_path
    )
    model: Any = result.champion.load_model()
    assert list(model.state_dict()) == list(pretrained().state_dict())
    model.eval()
    accuracy = (model(VAL[0]).argmax(1) == VAL[1]).float().mean().item()
    assert accuracy == pytest.approx(result.champion.fitness)
    assert not torch.equal(model.layers[0].dense.weight, Net().layers[0].dense.weight)  # type: ignore[index, union-attr]
    recipe = load_recipe(tmp_path)
    assert set(recipe.states.values()) == {"lora 2"}
    recipe.apply(copy.deepcopy(pretrained()))


@pytest.mark.parametrize("state", ["lora", "lora 0", "lora x", "lora 2 mlp", "lora -1", "LoRA 2"])
def test_what_is_no_rank_is_refused(state: str) -> None:
    assert lora_rank(state) is None
    with pytest.raises(TypeError, match=r"adapters such as 'lora 8', got"):
        Recipe({"layers.0": state}, lr=1e-3)


def test_ranks_that_fit_no_block_are_refused() -> None:
    with pytest.raises(ValueError, match="no block of Net has layers for .* rank 7"):
        problem(ranks=[2, 7])


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "peft":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"pip install 'evonas\[lora\]'"):
        problem()
    model = pretrained()
    with pytest.raises(MissingDependencyError, match="needs peft, which does not import"):
        RECIPE.apply(model)
    assert applied_mask(model) is None
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("kind", [ImportError, RuntimeError])
def test_a_peft_that_is_there_and_does_not_import_shows_the_cause(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def broken(name: str, *rest: Any, **more: Any) -> Any:
        if name == "peft":
            raise kind("Could not import module 'PreTrainedModel'") from RuntimeError(
                "operator torchvision::nms does not exist"
            )
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(MissingDependencyError) as caught:
        problem()
    said = str(caught.value)
    assert "a LoRA adapter needs peft, which does not import (Could not import module" in said
    assert "because of RuntimeError: operator torchvision::nms does not exist): pip" in said


class Stage(nn.Module):
    def __init__(self, n: int, conv: Any) -> None:
        super().__init__()
        self.wide = conv(n, 6, 3, stride=2, padding=1)
        self.apart = conv(6, 6, 3, padding=1, groups=6)
        self.holed = conv(6, 6, 3, padding=2, dilation=2)
        self.point = conv(6, 6, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.point(self.holed(self.apart(self.wide(x)))).relu()


@pytest.mark.parametrize(("conv", "dims"), [(nn.Conv1d, 1), (nn.Conv2d, 2)])
def test_convolutions_of_one_group_have_adapters_that_are_trained_and_merged(
    conv: Any, dims: int
) -> None:
    torch.manual_seed(0)
    n_in, seen = 6 * 4**dims, 6 * 3**dims
    model = nn.Sequential(Stage(3, conv), Stage(6, conv), nn.Flatten(), nn.Linear(n_in, 2))
    x = torch.rand(4, 3, *[16] * dims)
    blocks = find_blocks(model, x, blocks=["0", "1"])
    assert list(adapter_layers(model, blocks[0])) == ["0.wide", "0.point"]
    recipe = Recipe({"0": "frozen", "1": "lora 2"}, lr=0.1, contents={"0": ["0"], "1": ["1"]})
    before = copy.deepcopy(model.state_dict())
    table = recipe.table(model)
    groups = recipe.apply(model)
    assert recipe.table(model) == table
    n_trained = sum(p.numel() for group in groups for p in group["params"])
    n_adapters = 2 * (seen + 6) + 2 * (6 + 6)
    assert n_trained == n_adapters + 2 * n_in + 2
    assert table.splitlines()[2].split()[:4] == ["1", "lora", "2", str(n_adapters)]
    optimizer = torch.optim.SGD(groups)
    for _ in range(3):
        nn.functional.cross_entropy(model(x), torch.arange(4) % 2).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    outputs = model(x)
    applied = applied_mask(model)
    assert applied is not None
    applied.undo()
    assert torch.allclose(model.eval()(x), outputs, atol=1e-5)
    after = model.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == {"1.wide.weight", "1.point.weight", "3.weight", "3.bias"}


@pytest.mark.parametrize(
    "norm", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm]
)
def test_a_layer_whose_weight_is_computed_takes_none(norm: Any) -> None:
    model = nn.Sequential(norm(nn.Linear(6, 6)), nn.Linear(6, 6), nn.Linear(6, 2))
    made = RecipeProblem(
        lambda: copy.deepcopy(model), DATA, VAL, ranks=[2], n_epochs=1, precision="float32"
    )
    assert made.states == {
        "0": ["frozen", "biases", 0.1, 0.3, 1.0], "1": ["frozen", "biases", "lora 2", 0.1, 0.3, 1.0]
    }  # fmt: skip
    with pytest.raises(ValueError, match="0 has no linear layer .* none with a tied or a normed w"):
        Recipe({"0": "lora 2", "1": "frozen"}, lr=1e-3).table(model)


def test_a_schedule_of_no_steps_is_refused() -> None:
    recipe = Recipe({"layers.0": "frozen"}, lr=1e-3)
    for gradual in (recipe, replace(recipe, unfreezing="gradual")):
        optimizer = gradual.make_optimizer(pretrained())
        wrong: list[tuple[Any, Any]] = [(0, ValueError), (-3, ValueError), (10.5, TypeError)]
        for n_steps, error in wrong:
            with pytest.raises(error, match="n_steps must be"):
                gradual.make_scheduler(optimizer, n_steps)
