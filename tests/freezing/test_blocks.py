from __future__ import annotations

import copy
import itertools
import pickle
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evonas.freezing import Block, SavedMask, apply_mask, find_blocks


def names(blocks: tuple[Block, ...]) -> list[str]:
    return [block.name for block in blocks]


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.two = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(self.norm(self.one(x)).relu())


class Backwards(nn.Module):
    """Registers its modules in another order than it runs them, and ties its output."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(8, 30, bias=False)
        self.norm = nn.LayerNorm(8)
        self.blocks = nn.ModuleList(Residual(8) for _ in range(2))
        self.drop = nn.Dropout(0.1)
        self.positions = nn.Parameter(torch.zeros(5, 8))
        self.tokens = nn.Embedding(30, 8)
        self.out.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.drop(self.tokens(ids) + self.positions)
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x))


IDS = torch.arange(10).view(2, 5)


def test_blocks_of_every_architecture(architecture: Any) -> None:
    model, sample = architecture.build(), architecture.sample()
    assert names(find_blocks(model, sample)) == architecture.blocks
    with_head = find_blocks(model, sample, include_head=True)
    assert names(with_head) == architecture.blocks + architecture.head
    assert [block.name for block in with_head if block.is_head] == architecture.head
    assert names(find_blocks(model)) == architecture.blocks, "by registration"


@pytest.mark.parametrize("granularity", ["block", "stage", "layer"])
def test_everything_is_in_exactly_one_block(architecture: Any, granularity: Any) -> None:
    model = architecture.build()
    blocks = find_blocks(model, architecture.sample(), granularity=granularity, include_head=True)
    parameters = Counter(name for block in blocks for name in block.parameters)
    assert parameters == Counter(name for name, _ in model.named_parameters())
    assert sum(block.n_parameters for block in blocks) == sum(p.numel() for p in model.parameters())
    dropouts = Counter(path for block in blocks for path in block.dropouts)
    wanted = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Dropout) or type(module).__name__ == "StochasticDepth"
    ]
    assert dropouts == Counter(wanted)
    norms = Counter(path for block in blocks for path in block.batch_norms)
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
    assert norms == Counter(p for p, m in model.named_modules() if isinstance(m, kinds))
    tops = [path for block in blocks for path in block.modules]
    assert not [a for a in tops for b in tops if a != b and f"{a}.".startswith(f"{b}.")]


STAGES = {
    "resnet": ["stem", "layer1", "layer2", "layer3", "layer4"],
    "vit": ["conv_proj", "encoder"],
    "convnext": ["features.0", "features.1", "features.2", "features.3", "classifier.0"],
    "mobilenet": ["features.0", "features.1", "features.2", "features.3", "features.4"],
    "bert": ["bert.embeddings", "bert.encoder", "bert.pooler"],
    "gpt2": ["embeddings", "transformer.h", "transformer.ln_f"],
    "hf-resnet": ["resnet.embedder", "resnet.encoder.stages.0", "resnet.encoder.stages.1"],
    "vgg": ["features", "classifier.0"],
}


@pytest.mark.parametrize("name", STAGES)
def test_stages(name: str, build: Any) -> None:
    assert names(find_blocks(build(name), granularity="stage")) == STAGES[name]


def test_layers_of_a_vit(build: Any) -> None:
    found = names(find_blocks(build("vit"), granularity="layer"))
    assert found[:3] == [
        "conv_proj",
        "encoder.layers.encoder_layer_0.ln_1",
        "encoder.layers.encoder_layer_0.self_attention",
    ]


def test_loose_parameters_belong_to_the_stem_of_a_vit(build: Any) -> None:
    stem = find_blocks(build("vit"))[0]
    assert stem.loose_parameters == ("class_token", "encoder.pos_embedding")
    assert stem.dropouts == ("encoder.dropout",)
    assert "class_token" in repr(stem)


def test_gpt2_drops_its_embeddings_in_the_first_block(build: Any) -> None:
    embeddings = find_blocks(build("gpt2"))[0]
    assert embeddings.modules == ("transformer.wte", "transformer.wpe", "transformer.drop")


def test_a_dropout_right_before_the_head_belongs_to_the_head(build: Any) -> None:
    head = find_blocks(build("bert"), include_head=True)[-1]
    assert (head.dropouts, head.modules) == (("dropout",), ("dropout", "classifier"))


def test_a_tied_head_belongs_to_the_embeddings_and_says_so(build: Any) -> None:
    model = build("gpt2-lm")
    blocks = find_blocks(model, include_head=True)
    assert blocks[0].tied == ("lm_head.weight",)
    assert "tied=['lm_head.weight']" in repr(blocks[0])
    assert not any(block.is_head for block in blocks)


def test_a_sample_gives_the_order_in_which_modules_run() -> None:
    model = Backwards()
    assert names(find_blocks(model)) == ["stem", "blocks.0", "blocks.1"]
    ordered = find_blocks(model, IDS)
    assert names(ordered) == ["out", "blocks.0", "blocks.1", "norm"]
    assert ordered[0].tied == ("tokens.weight",)
    assert ordered[0].loose_parameters == ("positions",)
    assert ordered[0].dropouts == ("drop",)


def test_the_model_is_left_as_it_was(architecture: Any) -> None:
    model, sample = architecture.build(), architecture.sample()
    model.train()
    before = copy.deepcopy(model.state_dict())
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    random_state = torch.get_rng_state()
    find_blocks(model, sample)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(module.training for module in model.modules())
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert torch.equal(random_state, torch.get_rng_state())


def test_an_own_network_of_blocks_without_norms() -> None:
    class Block1(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.b(self.a(x).relu())

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Linear(4, 4)
            self.scale = nn.Parameter(torch.ones(4))
            self.body = nn.Sequential(*[Block1() for _ in range(3)])
            self.out = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.body(self.conv(x) * self.scale))

    blocks = find_blocks(Net(), torch.zeros(1, 4), include_head=True)
    assert names(blocks) == ["conv", "body.0", "body.1", "body.2", "out"]
    assert blocks[0].loose_parameters == ("scale",)


def test_convolutions_take_their_batch_norm_along() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4),
        nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
    blocks = find_blocks(net, include_head=True)
    assert [block.modules for block in blocks] == [("0", "1", "2"), ("3", "4", "5"), ("6",)]
    assert [block.batch_norms for block in blocks] == [("1",), ("4",), ()]


def test_a_wrapper_is_opened() -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Module()
            self.net.one, self.net.two = nn.Linear(2, 2), nn.Linear(2, 2)

    assert names(find_blocks(Wrapper(), include_head=True)) == ["net.one", "net.two"]


class Forwarding(nn.Module):
    """Hands every attribute that it lacks on to the model within, as several libraries do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


def test_a_wrapper_that_forwards_attributes_has_the_blocks_of_its_inner_model(
    architecture: Any,
) -> None:
    """All of them: BERT's base_model_prefix showed through, and made everything the head."""
    for with_sample in (True, False):
        sample = architecture.sample() if with_sample else None
        inner = architecture.build()
        expected = find_blocks(inner, sample, include_head=True)
        found = find_blocks(Forwarding(Forwarding(inner)), sample, include_head=True)
        ends = [name.removeprefix("inner.inner.") for name in names(found)]
        assert ends == names(expected)
        assert [b.is_head for b in found] == [b.is_head for b in expected]


def test_a_parametrized_module_behind_a_wrapper_is_no_leaf_of_it() -> None:
    class Shown(Forwarding):
        parametrizations = ()

    net = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    assert names(find_blocks(Shown(net))) == ["inner.0", "inner.1"]


def test_attention_heads_and_experts_are_not_blocks() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.key, self.value = nn.Linear(4, 2), nn.Linear(4, 2)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.ModuleList(Head() for _ in range(2))
            self.norm = nn.LayerNorm(4)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(5, 4)
            self.layers = nn.ModuleList(Layer() for _ in range(2))
            self.out = nn.Linear(4, 5)

    assert names(find_blocks(Net())) == ["tokens", "layers.0", "layers.1"]


def test_patterns(build: Any) -> None:
    bert, resnet = build("bert"), build("resnet")
    found = find_blocks(bert, blocks=["bert.encoder.layer.*"])
    assert names(found) == [f"bert.encoder.layer.{i}" for i in range(3)]
    assert names(find_blocks(bert, blocks=["encoder.layer.*", "classifier"])) == [
        *names(found),
        "classifier",
    ]
    assert names(find_blocks(resnet, blocks=["layer*", "stem"])) == [
        "stem", "layer1", "layer2", "layer3", "layer4",
    ]  # fmt: skip


def test_a_mapping_of_patterns_makes_blocks_of_several_modules(build: Any) -> None:
    vit = build("vit")
    blocks = find_blocks(
        vit,
        images(),
        blocks={"stem": ["conv_proj", "class_token"], "body": "encoder.layers.encoder_layer_*"},
    )
    assert names(blocks) == ["stem", "body"]
    assert blocks[0].parameters == ("class_token", "conv_proj.weight", "conv_proj.bias")
    assert len(blocks[1].modules) == 3


def images() -> Tensor:
    return torch.randn(2, 3, 32, 32)


def test_bad_patterns(build: Any) -> None:
    resnet = build("resnet")
    expected = r"'layer9\.\*' matches no block of ResNet; its blocks are: stem, layer1\.0, .*, fc"
    with pytest.raises(ValueError, match=expected):
        find_blocks(resnet, blocks=["layer9.*"])
    with pytest.raises(ValueError, match=r"'layer1\.0' of ResNet, and 'layer1' matches 'layer1'"):
        find_blocks(resnet, blocks=["layer1", "layer1.0"])
    with pytest.raises(ValueError, match="at least one pattern"):
        find_blocks(resnet, blocks=[])
    with pytest.raises(TypeError, match="blocks must be a list of patterns, .*, got 'layer1'"):
        find_blocks(resnet, blocks="layer1")
    with pytest.raises(TypeError, match="a pattern of blocks must be a string, got int"):
        find_blocks(resnet, blocks=[1])  # type: ignore[list-item]


def test_a_block_that_never_runs_is_named() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle, self.out = (nn.Linear(2, 2) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.used(x))

    assert names(find_blocks(Unused(), include_head=True)) == ["used", "idle", "out"]
    with pytest.raises(ValueError, match="Unused never ran idle"):
        find_blocks(Unused(), torch.zeros(1, 2))
    assert names(find_blocks(Unused(), torch.zeros(1, 2), blocks=["used", "out"])) == [
        "used",
        "out",
    ]


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU())])
def test_one_block_is_too_few(model: nn.Module) -> None:
    with pytest.raises(ValueError, match="at least two blocks, got one in"):
        find_blocks(model)


def test_other_bad_arguments() -> None:
    with pytest.raises(ValueError, match="Sequential has no parameters"):
        find_blocks(nn.Sequential(nn.ReLU(), nn.ReLU()))
    with pytest.raises(ValueError, match="must be 'block', 'stage' or 'layer', got 'row'"):
        find_blocks(nn.Sequential(nn.Linear(2, 2)), granularity="row")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"torch\.nn\.Module, got str"):
        find_blocks("bert")  # type: ignore[arg-type]
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(TypeError, match="a tensor, a mapping of keyword arguments"):
        find_blocks(net, 3)


def test_blocks_are_plain_data(build: Any) -> None:
    blocks = find_blocks(build("bert"))
    assert pickle.loads(pickle.dumps(blocks)) == blocks == find_blocks(build("bert"))
    assert repr(blocks[1]) == "Block('bert.encoder.layer.0', 1,960 parameters)"


class Flat(nn.Module):
    """As EfficientNets are: all blocks in one list, of which some halve the resolution."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 1)
        pairs = itertools.pairwise(widths)
        self.blocks = nn.ModuleList(self._block(n, m) for n, m in pairs)
        self.head = nn.Linear(widths[-1], 2)

    @staticmethod
    def _block(n: int, m: int) -> nn.Module:
        return Bottleneck(n, m)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Bottleneck(nn.Module):
    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(n, m, 3, stride=1 + (m > n), padding=1)
        self.norm = nn.BatchNorm2d(m)
        self.two = nn.Conv2d(m, m, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.norm(self.one(x)))


@pytest.mark.parametrize(
    ("widths", "stages"),
    [
        ([4, 4, 4, 8, 8, 8, 16], ["stem", "blocks.0-1", "blocks.2-4", "blocks.5"]),
        ([4, 4, 4, 4], ["stem", "blocks"]),  # all alike: nothing to divide
        ([4, 8, 16, 32], ["stem", "blocks"]),  # each another: these are blocks
    ],
)
def test_the_stages_of_a_flat_list_are_its_blocks_of_one_shape(
    widths: list[int], stages: list[str]
) -> None:
    model, sample = Flat(widths), torch.rand(2, 3, 16, 16)
    blocks = find_blocks(model, sample, granularity="stage")
    assert names(blocks) == stages
    owned = [name for block in blocks for name in block.parameters]
    assert sorted(owned) == sorted(n for n, _ in model.named_parameters() if "head" not in n)
    assert names(find_blocks(model, granularity="stage")) == ["stem", "blocks"], "no sample"


def test_a_mask_of_such_stages_freezes_their_blocks_and_is_found_again() -> None:
    model, sample = Flat([4, 4, 4, 8, 8]), torch.rand(2, 3, 16, 16)
    blocks = find_blocks(model, sample, granularity="stage")
    assert names(blocks) == ["stem", "blocks.0-1", "blocks.2-3"]
    mask = SavedMask(
        {"stem": 1, "blocks.0-1": 1, "blocks.2-3": 0}, "Flat",
        {block.name: [*block.modules, *block.loose_parameters] for block in blocks},
    )  # fmt: skip
    apply_mask(model, mask)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {
        n for n, _ in model.named_parameters() if n.startswith(("stem", "blocks.0.", "blocks.1."))
    }
