"""The generated source: the contract, and that it is the module that the search trains."""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from evonas.exceptions import InvalidPoint
from evonas.nas import FAMILIES, Network, build, generate_source
from evonas.nas.layers import Conv2d, Flatten, Linear
from evonas.nas.problem import ImageClassificationProblem
from evonas.nas.source import HYPERPARAMETERS
from evonas.training import place, train_epoch

IMAGE = (3, 32, 32)
Make = Callable[..., ImageClassificationProblem]
Draw = Callable[..., list[dict[str, Any]]]
SHARED = [name for name in FAMILIES if name != "alexnet"]


def run(source: str) -> SimpleNamespace:
    """The generated module, from its text alone."""
    names: dict[str, Any] = {"__name__": "generated"}
    exec(compile(source, "generated.py", "exec"), names)
    return SimpleNamespace(**names)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_contract(name: str, make_problem: Make, valid_points: Draw) -> None:
    problem = make_problem(name, n_images=20)
    for genes in valid_points(problem, 5):
        source = problem.source(genes)
        tree = ast.parse(source)
        imported = [
            alias.name if isinstance(node, ast.Import) else node.module
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        ]
        assert set(imported) == {"torch"}
        (returned,) = [
            node.body[-1].value
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and node.name == "supported_hyperparameters"
        ]
        assert ast.literal_eval(returned) == set(problem.training_genes(genes))
        module = run(source)
        signature = inspect.signature(module.Net.__init__)
        assert list(signature.parameters) == ["self", "in_shape", "out_shape", "prm", "device"]
        assert issubclass(module.Net, nn.Module)
        assert list(inspect.signature(module.Net.train_setup).parameters) == ["self", "prm"]
        assert list(inspect.signature(module.Net.learn).parameters) == ["self", "train_data"]
        assert max(map(len, source.splitlines())) <= 100


@pytest.mark.parametrize("name", FAMILIES)
def test_the_chromosome_is_the_comment_at_the_end(
    name: str, make_problem: Make, valid_points: Draw
) -> None:
    problem = make_problem(name, n_images=20)
    for genes in valid_points(problem, 3):
        _, _, comment = problem.source(genes).rpartition("\n# Chromosome:\n")
        lines = comment.splitlines()
        assert all(line.startswith("# ") for line in lines)
        assert ast.literal_eval("\n".join(line[2:] for line in lines)) == genes


@pytest.mark.parametrize("name", SHARED)
def test_source_and_module_are_the_same_network(
    name: str, make_problem: Make, valid_points: Draw
) -> None:
    problem = make_problem(name, n_images=20)
    images = torch.randn(4, *IMAGE, generator=torch.Generator().manual_seed(0))
    for genes in valid_points(problem, 12):
        _check_same_network(problem, genes, images)


def test_source_and_module_are_the_same_published_network(
    make_problem: Make, valid_points: Draw
) -> None:
    problem = make_problem("alexnet")
    images = torch.randn(2, *IMAGE, generator=torch.Generator().manual_seed(0))
    for genes in valid_points(problem, 1):  # tens of millions of weights each
        _check_same_network(problem, genes, images)


@pytest.mark.parametrize("name", SHARED)
def test_learn_trains_as_our_loop_does(name: str, make_problem: Make, valid_points: Draw) -> None:
    problem = make_problem(name, n_images=20)
    for genes in valid_points(problem, 4):
        _check_same_training(problem, genes)


def test_learn_trains_the_published_network_as_our_loop_does(
    make_problem: Make, valid_points: Draw
) -> None:
    problem = make_problem("alexnet", n_images=20)
    _check_same_training(problem, valid_points(problem, 1)[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_more_points_are_the_same_network_and_training(
    name: str, make_problem: Make, valid_points: Draw
) -> None:
    problem = make_problem(name, n_images=20)
    images = torch.randn(4, *IMAGE, generator=torch.Generator().manual_seed(0))
    for genes in valid_points(problem, 15 if name == "alexnet" else 120):
        _check_same_network(problem, genes, images)
        _check_same_training(problem, genes)


def test_training_genes_and_comments_do_not_change_the_code(
    make_problem: Make, valid_points: Draw
) -> None:
    problem = make_problem()
    (genes,) = valid_points(problem, 1)
    other = {**genes, "lr": 0.0123, "dropout": 0.25}
    wider = {**genes, "conv1_filters": 8 if genes["conv1_filters"] != 8 else 12}
    assert _code(problem.source(genes)) == _code(problem.source(other))
    assert _code(problem.source(genes)) != _code(problem.source(wider))
    # Not in the code, so they must count for the key by themselves.
    assert len({problem.key(genes), problem.key(other), problem.key(wider)}) == 3
    assert problem.key(genes) == problem.key(dict(reversed(genes.items())))


def test_the_source_asks_for_what_the_space_has() -> None:
    network = Network((Conv2d(2, 3),), (Flatten(), Linear(4)))
    source = generate_source(network, IMAGE)
    assert run(source).supported_hyperparameters() == {"lr", "momentum"}
    assert "CrossEntropyLoss()" in source
    assert "weight_decay" not in source
    assert "Chromosome" not in source
    # `dropout` is a matter of the layers: this network has none.
    source = generate_source(network, IMAGE, hyperparameters=HYPERPARAMETERS)
    assert run(source).supported_hyperparameters() == set(HYPERPARAMETERS) - {"dropout"}
    with pytest.raises(ValueError, match=r"must be among lr, .*, got epochs"):
        generate_source(network, IMAGE, hyperparameters=["lr", "epochs"])


def test_no_source_without_a_valid_shape(make_problem: Make) -> None:
    problem = make_problem("alexnet")
    genes = {name: gene.first for name, gene in problem.space.items()}
    genes |= {"conv1_kernel": 11, "conv1_stride": 4, "conv2_kernel": 5}
    assert problem.source(genes) is None
    assert problem.key(genes) != problem.key({**genes, "lr": 0.01})
    with pytest.raises(InvalidPoint, match=r"layer 12, MaxPool2d.*\(192, 1, 1\)"):
        generate_source(problem.network(genes, 4), IMAGE)


def test_the_source_is_pinned(make_problem: Make) -> None:
    # Keys are hashes of this text: when it changes on purpose, raise GENERATOR_VERSION if it
    # trains differently, and put the new hash here.
    problem = make_problem("alexnet")
    genes = {name: gene.first for name, gene in problem.space.items()}
    digest = hashlib.sha256(problem.source(genes).encode()).hexdigest()
    assert digest[:16] == "61b5567a643d4a20"


def _check_same_network(
    problem: ImageClassificationProblem, genes: dict[str, Any], images: torch.Tensor
) -> None:
    module, prm = run(problem.source(genes)), problem.prm(genes)
    torch.manual_seed(11)
    ours = problem.build(genes)
    torch.manual_seed(11)
    theirs = module.Net((16, *IMAGE), (4,), prm, torch.device("cpu"))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    _check_same_weights(ours, theirs)
    for mode in (True, False):
        ours.train(mode)
        theirs.train(mode)
        torch.manual_seed(5)  # dropout
        found = ours(images)
        torch.manual_seed(5)
        assert torch.equal(found, theirs(images)), genes
    theirs.load_state_dict(build(problem.network(genes, 4), IMAGE, prm=prm).state_dict())


def _check_same_training(problem: ImageClassificationProblem, genes: dict[str, Any]) -> None:
    module, prm = run(problem.source(genes)), problem.prm(genes)
    data = problem.data.subset(problem.splits[0])
    batches = list(data.batches(problem.batch_size, seed=1, shuffle=True))
    torch.manual_seed(11)
    ours = place(problem.build(genes), "cpu")
    torch.manual_seed(11)
    theirs = module.Net((16, *IMAGE), (4,), prm, torch.device("cpu"))
    before = {name: value.clone() for name, value in theirs.state_dict().items()}
    place(theirs, "cpu")  # the same memory layout, so the same kernels and the same sums
    torch.manual_seed(5)
    train_epoch(
        ours,
        batches,
        problem.optimizer(ours, genes),
        problem.loss_function(genes),
        grad_clip=3.0,
    )
    torch.manual_seed(5)
    theirs.train_setup(prm)
    theirs.learn(batches)
    _check_same_weights(ours, theirs)
    after = theirs.state_dict()
    assert any(not torch.equal(after[name], value) for name, value in before.items())


def _check_same_weights(ours: nn.Module, theirs: nn.Module) -> None:
    expected = theirs.state_dict()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name, equal_nan=True)


def _code(source: str) -> str:
    return ast.dump(ast.parse(source))
