"""Recipes in other people's trainings, each with the real package."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from evonas.freezing import Recipe, SavedMask, apply_mask, find_blocks

BERT: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
    "intermediate_size": 16, "max_position_embeddings": 16,
}  # fmt: skip
LAYERS = [f"bert.encoder.layer.{n}" for n in range(3)]
STATES: dict[str, Any] = {
    "bert.embeddings": "frozen", LAYERS[0]: "norms", LAYERS[1]: 0.1, LAYERS[2]: 1.0,
    "bert.pooler": 1.0,
}  # fmt: skip

slow = pytest.mark.slow


def moved(before: dict[str, Tensor], model: nn.Module) -> set[str]:
    now = model.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, now[name])}


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def bert(n_labels: int = 2) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(**BERT, num_labels=n_labels)
    return transformers.BertForSequenceClassification(config)


def recipe_of(model: nn.Module, states: dict[str, Any], **more: Any) -> Recipe:
    """As a search leaves it: with what its blocks hold."""
    blocks = {block.name: block for block in find_blocks(model, blocks=list(states))}
    held = {name: (*blocks[name].modules, *blocks[name].loose_parameters) for name in states}
    owned = {name for block in blocks.values() for name in block.parameters}
    beside = tuple(name for name, _ in model.named_parameters() if name not in owned)
    return Recipe(states, contents=held, beside=beside, **{"lr": 0.01, **more})


def of_bert(**more: Any) -> Recipe:
    return recipe_of(bert(), STATES, **more)


def sentences(n: int = 24) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {"input_ids": torch.randint(3, 40, (6,), generator=generator), "labels": k % 2}
        for k in range(n)
    ]


# Transformers.


def trainer_of(model: nn.Module, folder: Path, **more: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    args = transformers.TrainingArguments(
        str(folder), report_to=[], use_cpu=True, logging_strategy="no", save_strategy="no",
        disable_tqdm=True, dataloader_pin_memory=False, **more,
    )  # fmt: skip
    return transformers.Trainer(model=model, args=args, train_dataset=sentences())


@slow
@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_the_trainer_of_transformers_trains_by_the_recipe(tmp_path: Path, schedule: str) -> None:
    pytest.importorskip("transformers")
    huggingface = importlib.import_module("evonas.integrations.huggingface")
    settings = {"n_epochs": 2, "batch_size": 8, "schedule": schedule, "grad_clip": None}
    recipe = of_bert(settings=settings, weight_decay=0.1)
    model = bert()
    arguments = huggingface.training_arguments(recipe)
    assert arguments == {
        "learning_rate": 0.01, "weight_decay": 0.1, "num_train_epochs": 2,
        "per_device_train_batch_size": 8, "max_grad_norm": 0.0,
    }  # fmt: skip
    trainer = trainer_of(model, tmp_path, **arguments)
    huggingface.use_recipe(trainer, recipe)
    before = snapshot(model)
    trainer.train()
    rates = {
        (group["lr"] if schedule == "constant" else group["initial_lr"], group["weight_decay"])
        for group in trainer.optimizer.param_groups
    }
    assert rates == {(0.01, 0.0), (0.001, 0.1), (0.001, 0.0), (0.01, 0.1)}
    if schedule == "linear":
        assert trainer.lr_scheduler.get_last_lr() == pytest.approx([0.0] * 4, abs=1e-9)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert moved(before, model) == trained
    assert not any(name.startswith("bert.embeddings") for name in trained)
    assert {n for n in trained if n.startswith(LAYERS[0])} == {
        f"{LAYERS[0]}.{part}.LayerNorm.{kind}"
        for part in ("attention.output", "output")
        for kind in ("weight", "bias")
    }
    assert trainer.state.global_step == 6


@slow
def test_blocks_wait_for_their_turn_in_the_trainer_of_transformers(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    huggingface = importlib.import_module("evonas.integrations.huggingface")
    recipe = of_bert(unfreezing="gradual", settings={"n_epochs": 1, "batch_size": 8})
    model = bert()
    trainer = trainer_of(model, tmp_path, **huggingface.training_arguments(recipe))
    huggingface.use_recipe(trainer, recipe)
    before = snapshot(model)
    trainer.train()  # three steps: the last blocks' turns begin in the third, or later
    parts = {
        name.rpartition(".layer.")[2][:1] for name in moved(before, model) if ".layer." in name
    }
    assert parts == {"1", "2"}


def test_a_trainer_that_cannot_do_a_recipe_refuses_it(tmp_path: Path) -> None:
    model = bert()
    trainer = trainer_of(model, tmp_path)
    huggingface = importlib.import_module("evonas.integrations.huggingface")
    with pytest.raises(ValueError, match="averages the weights"):
        huggingface.use_recipe(trainer, of_bert(settings={"ema": 0.9}))
    trainer.optimizer = torch.optim.SGD(model.parameters())
    with pytest.raises(ValueError, match="has an optimizer already"):
        huggingface.use_recipe(trainer, of_bert())


# Sentence-transformers and setfit: the searched BERT inside another model, without its head.


@pytest.fixture
def sentence_model(tmp_path: Path) -> Any:
    library = pytest.importorskip("sentence_transformers")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "bert"
    bert().bert.save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return library.SentenceTransformer(str(folder), device="cpu")


@slow
@pytest.mark.filterwarnings("default")
def test_sentence_transformers_train_by_the_recipe_of_a_classifier(
    sentence_model: Any, tmp_path: Path
) -> None:
    library = pytest.importorskip("sentence_transformers")
    datasets = pytest.importorskip("datasets")
    huggingface = importlib.import_module("evonas.integrations.huggingface")
    losses = importlib.import_module("sentence_transformers.sentence_transformer.losses")
    loss = losses.SoftmaxLoss(sentence_model, 16, num_labels=2)
    rows = {"a": ["a b c", "d e f"] * 8, "b": ["b c d", "x y z"] * 8, "label": [0, 1] * 8}
    trainer = library.SentenceTransformerTrainer(
        sentence_model,
        library.SentenceTransformerTrainingArguments(
            str(tmp_path / "out"), num_train_epochs=1, per_device_train_batch_size=8, use_cpu=True,
            report_to=[], save_strategy="no", disable_tqdm=True,
        ),
        train_dataset=datasets.Dataset.from_dict(rows),
        loss=loss,
    )  # fmt: skip
    huggingface.use_recipe(trainer, of_bert())
    before, classifier = snapshot(sentence_model), loss.classifier.weight.detach().clone()
    trainer.train()
    names = moved(before, sentence_model)
    trained = {n for n, p in sentence_model.named_parameters() if p.requires_grad}
    assert {n for n in trained if ".layer." in n} <= names <= trained
    assert not any("embeddings" in name for name in names)
    assert not torch.equal(loss.classifier.weight, classifier), "the loss has weights too"


@slow
@pytest.mark.filterwarnings("default")
def test_setfit_trains_its_body_by_the_recipe(sentence_model: Any, tmp_path: Path) -> None:
    setfit = pytest.importorskip("setfit")
    datasets = pytest.importorskip("datasets")
    huggingface = importlib.import_module("evonas.integrations.huggingface")
    linear = importlib.import_module("sklearn.linear_model")
    model = setfit.SetFitModel(sentence_model, model_head=linear.LogisticRegression())
    rows = datasets.Dataset.from_dict({"text": ["a b c", "x y z"] * 4, "label": [0, 1] * 4})
    trainer = setfit.Trainer(
        model,
        setfit.TrainingArguments(
            str(tmp_path / "out"), batch_size=4, num_epochs=1, num_iterations=1, report_to="none",
            save_strategy="no",
        ),
        train_dataset=rows,
    )  # fmt: skip
    huggingface.use_recipe(trainer.st_trainer, of_bert())
    before = snapshot(sentence_model)
    trainer.train()
    names = moved(before, sentence_model)
    assert names
    assert names <= {n for n, p in sentence_model.named_parameters() if p.requires_grad}
    assert not any("embeddings" in name for name in names)
    assert model.predict(["a b c"]).shape == (1,)


# Images: timm, Lightning, fastai, ultralytics.


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(self._block(3 if n == 0 else 8) for n in range(3)))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))

    @staticmethod
    def _block(n: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(n, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x))


IMAGES = torch.rand(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(32) % 2
NET_STATES: dict[str, Any] = {"blocks.0": "frozen", "blocks.1": 0.1, "blocks.2": 1.0}


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def of_net(**more: Any) -> Recipe:
    return recipe_of(net(), NET_STATES, **more)


def check_net(before: dict[str, Tensor], model: nn.Module) -> None:
    """The frozen block has not moved, its batch norm's statistics included; all else has."""
    names = moved(before, model)
    assert names == {name for name in before if not name.startswith("blocks.0.")}


@slow
def test_timm_takes_the_groups_and_gives_each_its_rate() -> None:
    optim = pytest.importorskip("timm.optim")
    scheduler_module = pytest.importorskip("timm.scheduler")
    model = net()
    groups = of_net(weight_decay=0.05).apply(model)
    optimizer = optim.create_optimizer_v2(groups, opt="adamw", lr=0.01, weight_decay=0.05)
    schedule = scheduler_module.CosineLRScheduler(optimizer, t_initial=4)
    assert {(g["lr"], g["weight_decay"]) for g in optimizer.param_groups} == {
        (0.001, 0.05), (0.001, 0.0), (0.01, 0.05), (0.01, 0.0),
    }  # fmt: skip
    before = snapshot(model)
    for epoch in range(2):
        nn.functional.cross_entropy(model(IMAGES), LABELS).backward()
        optimizer.step()
        schedule.step(epoch + 1)
    check_net(before, model)
    rates = sorted({g["lr"] for g in optimizer.param_groups})
    assert rates == pytest.approx([0.0005, 0.005])


@pytest.fixture
def lightning_module() -> Any:
    pytest.importorskip("lightning")
    pl = importlib.import_module("lightning.pytorch")

    class Module(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def training_step(self, batch: Any, _: int) -> Tensor:
            assert not self.net.blocks[0].training, "the frozen block left its eval mode"
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            raise AssertionError("the recipe's optimizer was asked for")

    return Module()


@slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_lightning_trains_by_the_recipe(
    lightning_module: Any, tmp_path: Path, schedule: str
) -> None:
    pl = importlib.import_module("lightning.pytorch")
    integration = importlib.import_module("evonas.integrations.lightning")
    seen: list[list[float]] = []

    class Rates(pl.Callback):  # type: ignore[misc, name-defined]
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            seen.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    recipe = of_net(settings={"schedule": schedule})
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        callbacks=[integration.RecipeCallback(recipe), Rates()],
    )  # fmt: skip
    before = snapshot(lightning_module.net)
    trainer.fit(lightning_module, DataLoader(TensorDataset(IMAGES, LABELS), batch_size=8))
    check_net(before, lightning_module.net)
    assert len(seen) == 8
    assert len({tuple(rates) for rates in seen}) == (1 if schedule == "constant" else 8)
    assert all(p.requires_grad for p in lightning_module.parameters()), "given back as it was"
    with pytest.raises(AssertionError, match="was asked for"):
        lightning_module.configure_optimizers()


@slow
@pytest.mark.filterwarnings("default")
def test_fastai_trains_by_the_recipe(tmp_path: Path) -> None:
    data = pytest.importorskip("fastai.data.core")
    learner = pytest.importorskip("fastai.learner")
    integration = importlib.import_module("evonas.integrations.fastai")
    model = net()
    loader = importlib.import_module("fastai.data.load").DataLoader
    batches = loader(list(zip(IMAGES, LABELS, strict=True)), bs=8)
    learn = learner.Learner(
        data.DataLoaders(batches, batches), model, path=tmp_path,
        loss_func=nn.functional.cross_entropy, **integration.learner_arguments(of_net(), model),
    )  # fmt: skip
    for name in ("progress", "schedule"):  # which give learners `no_bar` and `fit_one_cycle`
        importlib.import_module(f"fastai.callback.{name}")
    before = snapshot(model)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    check_net(before, model)
    assert {group["lr"] for group in learn.opt.opt.param_groups} == {0.001, 0.01}
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, learn.lr)
    with pytest.raises(ValueError, match="unfreezes blocks in turn"):
        integration.learner_arguments(of_net(unfreezing="gradual"), net())


@slow
@pytest.mark.filterwarnings("default")
def test_ultralytics_freezes_the_layers_of_the_mask(tmp_path: Path) -> None:
    ultralytics = pytest.importorskip("ultralytics")
    integration = importlib.import_module("evonas.integrations.ultralytics")
    image = importlib.import_module("PIL.Image")
    for part in ("train", "val"):
        for kind in ("one", "two"):
            folder = tmp_path / "data" / part / kind
            folder.mkdir(parents=True)
            for n in range(4):
                pixels = torch.randint(0, 255, (32, 32, 3), dtype=torch.uint8).numpy()
                image.fromarray(pixels).save(folder / f"{n}.png")
    yolo = ultralytics.YOLO("yolov8n-cls.yaml")
    model: Any = yolo.model
    mask = SavedMask({f"model.{n}": int(n < 3) for n in range(9)}, contents={
        f"model.{n}": [f"model.{n}"] for n in range(9)
    })  # fmt: skip
    assert integration.freeze_argument(mask) == [0, 1, 2]
    seen: dict[str, bool] = {}
    yolo.add_callback(
        "on_train_batch_end",
        lambda trainer: seen.update(
            {n: p.requires_grad for n, p in trainer.model.named_parameters()}
        ),
    )
    yolo.train(
        data=str(tmp_path / "data"), epochs=1, imgsz=32, batch=4, device="cpu", workers=0,
        project=str(tmp_path), plots=False, val=False, save=False, verbose=False,
        freeze=integration.freeze_argument(mask),
    )  # fmt: skip
    frozen = {name for name, trains in seen.items() if not trains and "dfl" not in name}
    assert frozen == {n for n, _ in model.named_parameters() if n.split(".")[1] in ("0", "1", "2")}


def test_freeze_takes_numbers_of_whole_layers_and_nothing_else() -> None:
    integration = importlib.import_module("evonas.integrations.ultralytics")
    recipe = Recipe({"stem": "frozen", "rest": 1.0}, lr=1, contents={
        "stem": ["model.1", "model.0"], "rest": ["model.2"],
    })  # fmt: skip
    assert integration.freeze_argument(recipe) == [0, 1]
    inner = replace(recipe, contents={"stem": ["0", "1"], "rest": ["2"]})
    assert integration.freeze_argument(inner) == [0, 1]
    with pytest.raises(ValueError, match="rest is trained as 'all x0.1', which freeze="):
        integration.freeze_argument(replace(recipe, states={"stem": "frozen", "rest": 0.1}))
    with pytest.raises(ValueError, match="model.0.conv of block stem is no whole layer"):
        integration.freeze_argument(
            replace(recipe, contents={"stem": ["model.0.conv"], "rest": ["model.2"]})
        )


# The same model under other names.


class Wrapper(nn.Module):
    def __init__(self, model: nn.Module, copies: int = 1) -> None:
        super().__init__()
        self.inner = model
        for n in range(1, copies):
            setattr(self, f"inner{n}", copy.deepcopy(model))


@pytest.mark.parametrize("wrap", [
    lambda: Wrapper(bert()), lambda: bert().bert, lambda: nn.Sequential(bert().bert),
    lambda: nn.DataParallel(bert()), lambda: torch.compile(bert()), bert,
], ids=["wrapped", "without its head", "both", "parallel", "compiled", "itself"])  # fmt: skip
def test_a_recipe_and_a_mask_find_their_model_under_other_names(wrap: Any) -> None:
    model = wrap()
    recipe = of_bert()
    recipe.for_model(model).apply(model)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    whole = bert()
    recipe.apply(whole)
    wanted = {n for n, p in whole.named_parameters() if not p.requires_grad}
    short = "embeddings.LayerNorm.bias"
    assert {n[-len(short) :] for n in frozen} == {n[-len(short) :] for n in wanted}
    assert len(frozen) == len(wanted)
    mask = SavedMask(recipe.mask, contents=recipe.contents, beside=recipe.beside)
    model = wrap()
    apply_mask(model, mask.for_model(model))
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen
    assert all("embeddings" in name for name in frozen)


def test_a_model_that_is_not_there_or_there_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no model with the blocks bert.embeddings"):
        of_bert().for_model(net())
    with pytest.raises(ValueError, match="more than once, in 'inner' and 'inner1'"):
        of_bert().for_model(Wrapper(bert(), copies=2))
    numbered = recipe_of(net().blocks, {"0": "frozen", "1": 1.0})
    numbered = replace(numbered, contents={"0": ["a.0"], "1": ["a.1"]})
    with pytest.raises(ValueError, match="under any name"):
        numbered.for_model(net())  # whose `blocks` have numbers too
    without = Recipe({"a": "frozen"}, lr=1)
    assert without.for_model(net()) is without


@pytest.fixture
def no_fastai(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "fastai.optimizer", None)
    monkeypatch.delitem(sys.modules, "evonas.integrations.fastai", raising=False)
    yield
    sys.modules.pop("evonas.integrations.fastai", None)


@pytest.mark.usefixtures("no_fastai")
def test_without_fastai_the_error_says_what_to_install() -> None:
    with pytest.raises(ImportError, match="pip install fastai"):
        importlib.import_module("evonas.integrations.fastai")
