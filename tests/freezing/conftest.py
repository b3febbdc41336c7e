"""Small models of many architectures, with random weights, and a batch for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evonas.execution import Trial
from evonas.freezing import FreezingProblem
from evonas.freezing.prefix.check import CutCheck
from evonas.freezing.prefix.cut import Cut
from evonas.records import Genes
from evonas.training import seeded

BERT_EXTRA = 'transformers is missing: pip install "evonas[bert]"'


@dataclass(frozen=True)
class Architecture:
    """How to build one model, and what is expected of it."""

    name: str
    build: Callable[[], nn.Module]
    sample: Callable[[], Any]
    blocks: list[str] = field(default_factory=list)
    head: list[str] = field(default_factory=list)


def sentences() -> dict[str, Tensor]:
    ids = torch.randint(5, 50, (3, 7), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def images(size: int = 32) -> Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))


def transformer(name: str, **options: Any) -> Callable[[], nn.Module]:
    """A model of transformers, named by its class, from a tiny config."""

    def build() -> nn.Module:
        transformers = pytest.importorskip("transformers", reason=BERT_EXTRA)
        model_class = getattr(transformers, name)
        special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        config = model_class.config_class(**special | {"num_labels": 2} | options)
        return model_class(config)

    return build


COMMON = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24,
    "vocab_size": 60, "max_position_embeddings": 32,
}  # fmt: skip
DECODER = COMMON | {"num_key_value_heads": 1}
GPT2 = {"n_embd": 16, "n_layer": 3, "n_head": 2, "vocab_size": 60, "n_positions": 32}
DISTIL = {
    "dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 24, "vocab_size": 60,
    "max_position_embeddings": 32,
}  # fmt: skip


def resnet() -> nn.Module:
    from torchvision.models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, [2, 1, 1, 1], num_classes=3)


def vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(
        image_size=32, patch_size=8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=24,
        num_classes=3, dropout=0.1,
    )  # fmt: skip


def convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    setting = [CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 1)]
    return ConvNeXt(setting, stochastic_depth_prob=0.1, num_classes=3)


def mobilenet() -> nn.Module:
    from torchvision.models import MobileNetV2

    setting = [[1, 8, 1, 1], [6, 16, 2, 2]]
    return MobileNetV2(num_classes=3, width_mult=0.25, inverted_residual_setting=setting)


def densenet() -> nn.Module:
    from torchvision.models import DenseNet

    return DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, num_classes=3)


def swin() -> nn.Module:
    from torchvision.models import SwinTransformer

    return SwinTransformer(
        patch_size=[2, 2], embed_dim=8, depths=[2, 1], num_heads=[1, 2], window_size=[4, 4],
        num_classes=3,
    )  # fmt: skip


class Vgg(nn.Module):
    """As torchvision's VGG, whose constructor makes 120 million weights."""

    def __init__(self) -> None:
        from torchvision.models.vgg import make_layers

        super().__init__()
        self.features = make_layers([8, "M", 8, "M"], batch_norm=True)
        self.avgpool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(
            nn.Linear(32, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def layers(prefix: str, count: int = 3) -> list[str]:
    return [f"{prefix}.{i}" for i in range(count)]


ARCHITECTURES = [
    Architecture(
        "bert", transformer("BertForSequenceClassification", **COMMON), sentences,
        ["bert.embeddings", *layers("bert.encoder.layer"), "bert.pooler"], ["classifier"],
    ),
    Architecture(
        "distilbert", transformer("DistilBertForSequenceClassification", **DISTIL), sentences,
        ["distilbert.embeddings", *layers("distilbert.transformer.layer")],
        ["pre_classifier", "classifier"],
    ),
    Architecture(
        "albert", transformer("AlbertForSequenceClassification", embedding_size=8, **COMMON),
        sentences,
        ["albert.embeddings", "albert.encoder.embedding_hidden_mapping_in",
         "albert.encoder.albert_layer_groups.0", "albert.pooler"], ["classifier"],
    ),
    Architecture(
        "gpt2", transformer("GPT2ForSequenceClassification", **GPT2), sentences,
        ["embeddings", *layers("transformer.h"), "transformer.ln_f"], ["score"],
    ),
    Architecture(
        "gpt2-lm", transformer("GPT2LMHeadModel", **GPT2), sentences,
        ["embeddings", *layers("transformer.h"), "transformer.ln_f"],
    ),
    Architecture(
        "qwen2", transformer("Qwen2ForSequenceClassification", **DECODER), sentences,
        ["model.embed_tokens", *layers("model.layers"), "model.norm"], ["score"],
    ),
    Architecture(
        "gemma2", transformer("Gemma2ForSequenceClassification", head_dim=8, **DECODER), sentences,
        ["model.embed_tokens", *layers("model.layers"), "model.norm"], ["score"],
    ),
    Architecture(
        "modernbert",
        transformer(
            "ModernBertForSequenceClassification", cls_token_id=1, sep_token_id=2, **COMMON
        ),
        sentences,
        ["model.embeddings", *layers("model.layers"), "model.final_norm"], ["head", "classifier"],
    ),
    Architecture(
        "t5",
        transformer(
            "T5ForConditionalGeneration", d_model=16, num_layers=2, num_decoder_layers=2,
            num_heads=2, d_kv=8, d_ff=24, vocab_size=60, decoder_start_token_id=0,
        ),
        lambda: sentences() | {"decoder_input_ids": sentences()["input_ids"]},
        ["shared", *layers("encoder.block", 2), "encoder.final_layer_norm",
         *layers("decoder.block", 2), "decoder.final_layer_norm"],
    ),
    Architecture(
        "hf-resnet",
        transformer(
            "ResNetForImageClassification", embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2],
            layer_type="basic",
        ),
        lambda: {"pixel_values": images()},
        ["resnet.embedder", *layers("resnet.encoder.stages.0.layers", 2),
         *layers("resnet.encoder.stages.1.layers", 2)], ["classifier"],
    ),
    Architecture(
        "mixtral",
        transformer("MixtralForSequenceClassification", num_local_experts=2, **DECODER), sentences,
        ["model.embed_tokens", *layers("model.layers"), "model.norm"], ["score"],
    ),
    Architecture(
        "resnet", resnet, images,
        ["stem", "layer1.0", "layer1.1", "layer2.0", "layer3.0", "layer4.0"], ["fc"],
    ),
    Architecture(
        "vit", vit, images, ["conv_proj", *layers("encoder.layers.encoder_layer", 0),
                             *(f"encoder.layers.encoder_layer_{i}" for i in range(3)),
                             "encoder.ln"], ["heads"],
    ),
    Architecture(
        "convnext", convnext, images,
        ["features.0", "features.1.0", "features.1.1", "features.2", "features.3.0",
         "classifier.0"], ["classifier.2"],
    ),
    Architecture(
        "mobilenet", mobilenet, images, layers("features", 5), ["classifier"],
    ),
    Architecture(
        "densenet", densenet, images,
        ["stem", *(f"features.denseblock1.denselayer{i}" for i in (1, 2)), "features.transition1",
         *(f"features.denseblock2.denselayer{i}" for i in (1, 2)), "features.norm5"],
        ["classifier"],
    ),
    Architecture(
        "swin", swin, images,
        ["features.0", *layers("features.1", 2), "features.2", "features.3.0", "norm"], ["head"],
    ),
    Architecture(
        "vgg", Vgg, images, ["features.0", "features.4", "classifier.0"], ["classifier.3"],
    ),
    Architecture(
        "sequential",
        lambda: nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 8),
            nn.ReLU(), nn.Linear(8, 2),
        ),
        lambda: torch.randn(3, 4, generator=torch.Generator().manual_seed(1)),
        ["0", "4"], ["6"],
    ),
]  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "architecture" in metafunc.fixturenames:
        metafunc.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.name)


@pytest.fixture
def build() -> Callable[[str], nn.Module]:
    """Builds an architecture by its name, with the same weights each time."""

    def by_name(name: str) -> nn.Module:
        torch.manual_seed(0)
        return next(a for a in ARCHITECTURES if a.name == name).build()

    return by_name


def pretrained() -> nn.Sequential:
    """Four blocks (0, 2, 4, 7) with the same weights each time, and a new head (9)."""
    with seeded(7):
        body = [
            nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(),
            nn.Dropout(0.2), nn.Linear(8, 6), nn.Tanh(),
        ]  # fmt: skip
    return nn.Sequential(*body, nn.Linear(6, 2))


def points(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two classes that overlap, so that no mask is always right."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator)
    noise = torch.randn(n, generator=generator)
    return x, (x[:, 0] * x[:, 1] + x[:, 2] + 0.5 * noise > 0).long()


class Watched(FreezingProblem):
    """Remembers what was trained here; can be stopped, and made to like or to fail a mask."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.trained: list[tuple[int, ...]] = []
        self.seeds: list[int] = []
        self.stop_after: int | None = None
        self.rigged: dict[tuple[int, ...], float] = {}
        self.broken: set[tuple[int, ...]] = set()

    def evaluate(self, genes: Genes, trial: Trial) -> float | dict[str, float]:
        if len(self.trained) == self.stop_after:
            raise KeyboardInterrupt
        self.trained.append(self.mask_of(genes))
        self.seeds.append(trial.seed)
        value = super().evaluate(genes, trial)
        if self.trained[-1] in self.broken:
            raise RuntimeError("this mask is broken")
        return self.rigged.get(self.trained[-1], value)


MakeProblem = Callable[..., Watched]


@pytest.fixture
def make_problem() -> MakeProblem:
    """Builds a problem of four blocks that trains a mask in milliseconds."""

    def make(factory: Callable[[], nn.Module] = pretrained, **options: Any) -> Watched:
        data = {"train": points(40, 1), "val": points(30, 2)}
        defaults = {"n_epochs": 2, "batch_size": 8, "lr": 0.02, "precision": "float32"}
        return Watched(factory, **data | defaults | options)

    return make


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Small models are fastest on one thread, and others share the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The depths that were tried in this process, in order."""
    found: list[int] = []
    run = CutCheck.run

    def counted(self: CutCheck, cut: Cut) -> str | None:
        found.append(cut.depth)
        return run(self, cut)

    monkeypatch.setattr(CutCheck, "run", counted)
    return found
