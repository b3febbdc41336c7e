from __future__ import annotations

import copy
import pickle
import random
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from evonas.freezing import (
    applied_mask,
    apply_mask,
    as_mask,
    find_blocks,
    frozen_prefix,
    trainable_parameter_groups,
    trainable_share,
)
from evonas.training.passes import call_model


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 8),
        nn.BatchNorm1d(8), nn.Linear(8, 2),
    )  # fmt: skip


def train_steps(model: nn.Module, inputs: Any, n_steps: int = 2) -> None:
    model.train()
    optimizer = torch.optim.SGD(trainable_parameter_groups(model), lr=0.1, momentum=0.9)
    for step in range(n_steps):
        optimizer.zero_grad()
        outputs = call_model(model, inputs)
        outputs = getattr(outputs, "logits", outputs).float()
        weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(step))
        (outputs * weights).sum().backward()
        optimizer.step()


def test_frozen_blocks_do_not_change_by_a_bit(architecture: Any) -> None:
    torch.manual_seed(0)
    model, sample = architecture.build(), architecture.sample()
    blocks = find_blocks(model, sample)
    rng = random.Random(architecture.name)
    mask = [rng.randint(0, 1) for _ in blocks]
    mask[0], mask[rng.randrange(1, len(mask))] = rng.sample([0, 1], 2)
    before = copy.deepcopy(model.state_dict())
    with apply_mask(model, mask, blocks=blocks) as applied:
        train_steps(model, sample)
        applied.check_gradients()
    frozen = {name for block in applied.frozen for name in block.parameters}
    tops = [path for block in applied.frozen for path in block.modules]
    frozen_buffers = {
        f"{path}.{name}" for path in tops for name, _ in model.get_submodule(path).named_buffers()
    }
    after = model.state_dict()
    assert frozen
    for name in frozen | frozen_buffers & after.keys():
        assert torch.equal(before[name], after[name]), name
    moved = [
        name
        for name, parameter in model.named_parameters()
        if name not in frozen and not torch.equal(before[name], after[name])
    ]
    # A LayerNorm over one pixel and the key biases of attention have no gradient.
    trainable = [name for name, _ in model.named_parameters() if name not in frozen]
    assert len(moved) >= 0.9 * len(trainable)
    statistics = [name for name in after if name.endswith("running_mean")]
    trained = [name for name in statistics if name not in frozen_buffers]
    assert all(not torch.equal(before[name], after[name]) for name in trained)


def test_undo_restores_everything() -> None:
    model = net()
    model[4].weight.requires_grad_(False)
    model[5].eval()
    model(torch.randn(3, 4)).sum().backward()
    gradients = [p.grad for p in model.parameters()]
    flags = [p.requires_grad for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    attributes = [set(module.__dict__) for module in model.modules()]
    applied = apply_mask(model, [1, 1])
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        "6.weight",
        "6.bias",
    ]
    assert model[0].weight.grad is None
    applied.undo()
    assert [p.requires_grad for p in model.parameters()] == flags
    assert [module.training for module in model.modules()] == modes
    assert [set(module.__dict__) for module in model.modules()] == attributes
    assert all(a is b for a, b in zip(gradients, [p.grad for p in model.parameters()], strict=True))
    applied.undo()
    assert applied_mask(model) is None


def test_undo_keeps_the_mode_asked_for_meanwhile() -> None:
    model = net()
    applied = apply_mask(model, [1, 0])
    model.eval()
    applied.undo()
    assert not any(module.training for module in model.modules())
    applied = apply_mask(model, [1, 0])
    model.train()
    assert [model[i].training for i in range(7)] == [False] * 4 + [True] * 3
    applied.undo()
    assert all(module.training for module in model.modules())


def test_frozen_batch_norm_and_dropout_stay_in_eval_mode() -> None:
    model = net()
    with apply_mask(model, [1, 0]):
        for mode in (True, False, True):
            model.train(mode)
            assert not model[1].training
            assert not model[3].training
            assert model[5].training == mode
        model.apply(lambda module: module.train())
        assert not model[1].training
        hidden = [model[:4](torch.ones(2, 4)) for _ in range(2)]
    assert torch.equal(*hidden)


def test_a_module_that_holds_only_frozen_blocks_is_in_eval_mode_too(build: Any) -> None:
    bert = build("bert")
    with apply_mask(bert, [1, 1, 1, 1, 0]):
        bert.train()
        assert not bert.bert.encoder.training
        assert bert.bert.training
    with apply_mask(bert, [1, 1, 0, 1, 0]):
        bert.train()
        assert bert.bert.encoder.training


def test_the_gradients_of_trainable_blocks_are_those_without_a_mask(build: Any) -> None:
    model = build("vit").eval()
    inputs = torch.randn(2, 3, 32, 32)
    model(inputs).square().sum().backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    with apply_mask(model, [0, 1, 0, 1, 0]):
        model(inputs).square().sum().backward()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                torch.testing.assert_close(parameter.grad, expected[name])


def test_an_optimizer_over_everything_cannot_move_frozen_weights() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1, momentum=0.9)
    model(torch.randn(3, 4)).sum().backward()
    before = model[0].weight.detach().clone()
    with apply_mask(model, [1, 0]):
        optimizer.step()
    assert torch.equal(model[0].weight, before)


def test_a_masked_model_can_be_copied_and_pickled() -> None:
    model = net()
    apply_mask(model, [1, 0])
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other.train()
        assert not other[1].training
        applied_mask(other).undo()
        assert other[1].training
        assert other[0].weight.requires_grad
        assert not model[1].training
        assert not model[0].weight.requires_grad


def test_masks_by_name(build: Any) -> None:
    resnet = build("resnet")
    with apply_mask(resnet, {"stem": 1, "layer2.0": 1}) as applied:
        assert applied.mask == (1, 0, 0, 1, 0, 0)
        assert [block.name for block in applied.frozen] == ["stem", "layer2.0"]
    with apply_mask(resnet, {"layer1": 1, "layer2": 0}) as applied:
        assert applied.mask == (0, 1, 0, 0, 0)
    with apply_mask(resnet, {"fc": 1}) as applied:
        assert applied.mask == (0,) * 6 + (1,)
    with apply_mask(resnet, {"layer1.0.conv1": 1, "layer2": 1}) as applied:
        assert applied.mask == (1, 1)


def test_bad_masks() -> None:
    model = net()
    blocks = find_blocks(model)
    with pytest.raises(ValueError, match="must have 2 values, one for each block, got 3; .*: 0, 4"):
        apply_mask(model, [1, 0, 1])
    with pytest.raises(ValueError, match=r"1 \(frozen\) or 0 \(trainable\), got 2 for '4'"):
        apply_mask(model, [1, 2])
    with pytest.raises(ValueError, match=r"got 0\.5 for '0'"):
        as_mask([0.5, 1], blocks)  # type: ignore[list-item]
    with pytest.raises(
        ValueError, match="names 'nine', which is not a block; the blocks are: 0, 4"
    ):
        apply_mask(model, {"nine": 1}, blocks=blocks)
    with pytest.raises(ValueError, match="'nine' matches no block of Sequential"):
        apply_mask(model, {"nine": 1})
    with pytest.raises(TypeError, match="got str"):
        apply_mask(model, "10")
    with pytest.raises(TypeError, match="got int"):
        apply_mask(model, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"torch\.nn\.Module, got int"):
        apply_mask(1, [1])  # type: ignore[arg-type]
    assert applied_mask(model) is None
    assert all(p.requires_grad for p in model.parameters())


def test_nothing_left_to_train() -> None:
    model = net()
    with pytest.raises(ValueError, match=r"\[1, 1, 1\] leaves nothing of Sequential to train"):
        apply_mask(model, [1, 1, 1], blocks=find_blocks(model, include_head=True))
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing of Sequential is trainable"):
        trainable_parameter_groups(model)


def test_a_second_mask_is_refused() -> None:
    model = net()
    expected = r"already \(\[1, 0\]\): call .*undo\(\) first"
    with apply_mask(model, [1, 0]), pytest.raises(RuntimeError, match=expected):
        apply_mask(model, [0, 1])
    apply_mask(model, [0, 1]).undo()


def test_blocks_of_another_model_are_refused(build: Any) -> None:
    with pytest.raises(ValueError, match=r"name 'stem\.0\.weight'|which Sequential does not have"):
        apply_mask(net(), [1] * 5, blocks=find_blocks(build("vit")))


def test_an_error_inside_undoes_the_mask() -> None:
    model = net()
    with pytest.raises(KeyError), apply_mask(model, [1, 0]):
        raise KeyError
    assert model[0].weight.requires_grad


def gradients(model: nn.Module, inputs: Any) -> dict[str, Tensor | None]:
    model.zero_grad()
    model.train()
    torch.manual_seed(0)
    functional.cross_entropy(model(**inputs).logits, torch.tensor([0, 1, 0])).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def enable_checkpointing(model: Any, **options: Any) -> None:
    name = "activation_checkpointing_enable"
    enable = getattr(model, name, None) or model.gradient_checkpointing_enable
    enable(options)


@pytest.mark.parametrize("name", ["bert", "gpt2", "qwen2"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_behind_frozen_blocks(
    name: str, reentrant: bool, build: Any
) -> None:
    model = build(name)
    ids = torch.randint(5, 50, (3, 6))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    if name == "bert":
        del inputs["use_cache"]
    mask = [1, 1, 0, 1, 0]
    with apply_mask(model, mask):
        expected = gradients(model, inputs)
    enable_checkpointing(model, use_reentrant=reentrant)
    # On the model itself in newer releases of transformers, on its encoder in older ones.
    name = "_gradient_checkpointing_func"
    keeper = next(module for module in model.base_model.modules() if hasattr(module, name))
    function = getattr(keeper, name)
    hooks = [len(module._forward_hooks) for module in model.modules()]
    with apply_mask(model, mask) as applied:
        found = gradients(model, inputs)
        applied.check_gradients()
        hidden = model.base_model.get_input_embeddings()(ids)
        assert not hidden.requires_grad, "the backward pass goes through the frozen blocks"
    assert found.keys() == expected.keys()
    for parameter, gradient in found.items():
        torch.testing.assert_close(gradient, expected[parameter], msg=parameter)
    assert getattr(keeper, name) is function
    assert [len(module._forward_hooks) for module in model.modules()] == hooks


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)) for _ in range(3)
        )
        self.head = nn.Linear(4, 2)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.head(x)


def test_a_reentrant_checkpoint_of_the_users_own_is_found_out() -> None:
    model = Checkpointed(reentrant=True)
    blocks = find_blocks(model, blocks=["blocks.*"])
    with apply_mask(model, [1, 0, 0], blocks=blocks) as applied:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that gradients will be None
            model(torch.ones(2, 4)).sum().backward()
        with pytest.raises(
            RuntimeError, match=r"reached blocks\.1, blocks\.2 .*use_reentrant=False"
        ):
            applied.check_gradients()
    model.reentrant = False
    with apply_mask(model, [1, 0, 0], blocks=blocks) as applied:
        model(torch.ones(2, 4)).sum().backward()
        applied.check_gradients()


def test_parameter_groups(build: Any) -> None:
    model = build("bert")
    with apply_mask(model, [1, 1, 1, 1, 0]):
        decayed, plain = trainable_parameter_groups(model, weight_decay=0.1)
        names = {id(p): name for name, p in model.named_parameters()}
        assert [names[id(p)] for p in decayed["params"]] == [
            "bert.pooler.dense.weight",
            "classifier.weight",
        ]
        assert [names[id(p)] for p in plain["params"]] == [
            "bert.pooler.dense.bias",
            "classifier.bias",
        ]
        assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    everything = trainable_parameter_groups(model)
    assert sum(len(group["params"]) for group in everything) == len(list(model.parameters()))
    norms = {id(p) for name, p in model.named_parameters() if "LayerNorm" in name}
    assert not norms & {id(p) for p in everything[0]["params"]}
    with pytest.raises(ValueError, match="weight_decay must be at least 0, got -1"):
        trainable_parameter_groups(model, weight_decay=-1)


def test_trainable_share_counts_tied_weights_once(build: Any) -> None:
    model = build("gpt2-lm")
    blocks = find_blocks(model)
    total = sum(p.numel() for p in model.parameters())
    assert trainable_share(model) == 1.0
    with apply_mask(model, [1, 0, 0, 0, 0], blocks=blocks):
        assert trainable_share(model) == 1 - blocks[0].n_parameters / total
        assert not model.lm_head.weight.requires_grad
    with pytest.raises(ValueError, match="ReLU has no parameters"):
        trainable_share(nn.ReLU())


def test_frozen_prefix() -> None:
    assert [frozen_prefix(mask) for mask in ([0, 1], [1, 0, 1], [1, 1], [])] == [0, 1, 2, 0]


def test_an_encoder_with_a_padding_mask_under_a_mask_can_be_copied() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2)
    model = nn.Sequential(encoder, nn.Linear(4, 2))
    blocks = find_blocks(model, blocks=["0.layers.*"])
    for mask in ([0, 0], [1, 0], [1, 1]):
        apply_mask(model, mask, blocks=blocks)
        assert not encoder.use_nested_tensor, "all masks are trained and evaluated alike"
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            applied_mask(other).undo()
            assert other[0].use_nested_tensor
        applied_mask(model).undo()
        assert encoder.use_nested_tensor
