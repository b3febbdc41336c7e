"""The space of transformers, the problem of texts, and the champion that takes texts."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import evonas as en
from evonas.execution.trial import Trial, TrialSettings
from evonas.nas import TextClassificationProblem, generate_source, transformer_space
from evonas.nas.attention import StochasticDepth, TextEncoder, TransformerBlock
from evonas.nas.described import description, from_description
from evonas.nas.layers import Conv2d
from evonas.nas.modules import StochasticDepth as StochasticDepthModule
from evonas.nas.network import Network, build
from evonas.nas.transformer import hand_made_transformer, transformer_network
from evonas.training import Examples, Sentences, Vocabulary
from evonas.training.cost import count_params, macs_of_pass

VOCABULARY = 50
LENGTH = 12
PRM = {"dropout": 0.1, "lr": 1e-3, "momentum": 0.9}


def network(genes: Any) -> Network:
    return transformer_network(genes, 3, vocabulary=VOCABULARY)


def tokens() -> torch.Tensor:
    ids = torch.randint(1, VOCABULARY, (4, LENGTH), generator=torch.Generator().manual_seed(0))
    ids[1, 5:] = 0
    return ids


def points(n: int) -> list[Any]:
    space, rng = transformer_space(), random.Random(1)
    return [space.sample(rng) for _ in range(n)]


@pytest.mark.parametrize("place", range(20))
def test_module_source_and_data_are_one_network(place: int) -> None:
    genes = points(20)[place]
    described = network(genes)
    torch.manual_seed(3)
    module = build(described, (LENGTH,), prm=PRM)
    source = generate_source(
        described, (LENGTH,), hyperparameters=["lr", "dropout", "weight_decay"], optimizer="AdamW"
    )
    namespace: dict[str, Any] = {}
    exec(compile(source, "net.py", "exec"), namespace)
    torch.manual_seed(3)
    net = namespace["Net"]((1, LENGTH), (3,), PRM, torch.device("cpu"))
    assert list(net.state_dict()) == list(module.state_dict())
    assert all(map(torch.equal, net.state_dict().values(), module.state_dict().values()))
    again = from_description(description(described, (LENGTH,), PRM))
    again.load_state_dict(module.state_dict())
    outputs = [model.eval()(tokens()) for model in (module, net, again)]
    assert outputs[0].shape == (4, 3)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
    assert described.params((LENGTH,)) == count_params(module)
    assert described.macs((LENGTH,)) == macs_of_pass(module, tokens()[:1])


def test_the_source_trains_with_adamw() -> None:
    source = generate_source(network(hand_made_transformer()), (LENGTH,), optimizer="AdamW")
    namespace: dict[str, Any] = {}
    exec(compile(source, "net.py", "exec"), namespace)
    net = namespace["Net"]((1, LENGTH), (3,), PRM, torch.device("cpu"))
    net.train_setup({**PRM, "momentum": 0.85})
    assert type(net.optimizer) is torch.optim.AdamW
    assert net.optimizer.defaults["betas"] == (0.85, 0.999)
    before = net.classifier[1].weight.clone()
    net.learn([(tokens(), torch.tensor([0, 1, 2, 0]))])
    assert not torch.equal(before, net.classifier[1].weight)
    assert "(batch, length)" in source
    assert "images" not in source


def test_padding_changes_nothing() -> None:
    module = build(network(hand_made_transformer()), (LENGTH,), prm=PRM).eval()
    ids = tokens()
    short = module(ids[1:2, :5])
    assert torch.allclose(module(ids)[1:2], short, atol=1e-6)


def test_an_empty_text_has_finite_scores() -> None:
    module = build(network(hand_made_transformer()), (LENGTH,), prm=PRM)
    outputs = module(torch.zeros(2, LENGTH, dtype=torch.int64))
    outputs.sum().backward()
    assert outputs.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


def test_stochastic_depth_drops_whole_examples() -> None:
    torch.manual_seed(0)
    layer = StochasticDepthModule(0.25)
    x = torch.ones(4000, 2, 3)
    rows = layer(x)
    values = rows.unique().tolist()
    assert values == pytest.approx([0, 4 / 3])
    assert rows.mean() == pytest.approx(1, abs=0.05)
    assert (rows.flatten(1).std(1) == 0).all()
    assert torch.equal(layer.eval()(x), x)


def test_a_residual_body_may_end_in_it() -> None:
    from evonas.nas.branches import Residual
    from evonas.nas.layers import AdaptiveAvgPool2d, Flatten, Linear

    body = (Conv2d(8, 3, padding=1), StochasticDepth(0.5))
    deep = Network((Conv2d(8, 3), Residual(body), AdaptiveAvgPool2d(1)), (Flatten(), Linear(2)))
    module = build(deep, (3, 8, 8))
    assert any(isinstance(part, StochasticDepthModule) for part in module.modules())
    assert "class StochasticDepth" in generate_source(deep, (3, 8, 8))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: TextEncoder(9, 10, (TransformerBlock(4),)).out_shape((5,)), en.InvalidPoint,
         "4 heads do not divide a width of 10"),
        (lambda: TextEncoder(9, 8, (TransformerBlock(4),)).out_shape((3, 8, 8)), en.InvalidPoint,
         r"needs a text \(length,\)"),
        (lambda: TransformerBlock(2).out_shape((8,)), en.InvalidPoint, "needs a sequence"),
        (lambda: TextEncoder(0, 8, ()), ValueError, "must be at least 1, got 0 and 8"),
        (lambda: StochasticDepth(1.0), ValueError, r"must be in \[0, 1\), got 1.0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_limit_counts_the_embeddings() -> None:
    space = transformer_space(max_params=400_000, vocabulary=10_000)
    assert space.violated(hand_made_transformer()) == ["at most 400,000 weights"]
    small = {**hand_made_transformer(), "width": 32}
    assert space.violated(small) == []


# -- texts ---------------------------------------------------------------------------------

WORDS = ["fine", "dull", "very", "film", "\\", '"', "'", "{", "é"]


def corpus(n: int = 160) -> Sentences:
    rng = random.Random(0)
    texts, labels = [], []
    for _ in range(n):
        label = rng.randrange(2)
        words = rng.choices(WORDS[2:], k=rng.randint(2, 7))
        words.insert(rng.randrange(len(words)), WORDS[1 - label])
        texts.append(" ".join(words))
        labels.append(label)
    return Sentences(tuple(texts), tuple(labels), ("poor", "good"))


def problem(**arguments: Any) -> TextClassificationProblem:
    texts = corpus()
    vocabulary = Vocabulary.of(texts.texts)
    settings = {"precision": "float32", "n_epochs": 4, "batch_size": 16, **arguments}
    return TextClassificationProblem(
        transformer_space(), vocabulary.examples(texts, LENGTH), vocabulary, **settings
    )


def test_it_learns_and_the_champion_takes_texts(tmp_path: Path) -> None:
    made = problem()
    easy = {**hand_made_transformer(), "width": 32, "lr": 5e-3}
    result = en.evolve(made, initial=[easy], max_evaluations=3, seed=0, run_dir=tmp_path, workers=1)
    assert result.champion.fitness == 1.0
    assert result.champion.metrics["macs"] > 0
    loaded = result.champion.load_model()
    texts = ["a fine film", "very dull", "", 'dull " film { \\', "FINE " * 40]
    wanted = loaded(made.vocabulary.encode(texts, LENGTH)).softmax(1)

    spec = importlib.util.spec_from_file_location("champ", tmp_path / "ga-champ-transformer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert tuple(module.WORDS) == made.vocabulary.words
    assert torch.equal(module.encode(texts), made.vocabulary.encode(texts, LENGTH))
    assert torch.allclose(module.predict(module.load(), texts), wanted, atol=1e-6)
    shown = subprocess.run(
        [sys.executable, str(tmp_path / "ga-champ-transformer.py"), "a fine film", "so dull"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert shown.startswith("a fine film: good (")
    assert "so dull: poor (" in shown
    folder = tmp_path / "stats" / "txt-classification_texts_acc_ga-transformer-0"
    assert len(list(folder.iterdir())) == 4
    assert "12 tokens + Vocabulary(9 words)" in (folder / "0.json").read_text()


def test_a_validation_part_of_its_own() -> None:
    texts = corpus()
    vocabulary = Vocabulary.of(texts.texts)
    encode = partial(vocabulary.examples, length=LENGTH)
    made = problem(val=encode(texts.subset(range(30))))
    train, val = made.splits
    assert (len(train), len(val)) == (160, 30)
    assert torch.equal(made.data.inputs[val], vocabulary.encode(texts.texts[:30], LENGTH))


def test_a_search_over_texts_goes_on_from_its_checkpoints() -> None:
    base = transformer_space()
    space = en.SearchSpace({**dict(base.items()), "n_epochs": en.Integer(1, 4)})
    texts = corpus()
    vocabulary = Vocabulary.of(texts.texts)
    made = TextClassificationProblem(
        space, vocabulary.examples(texts, LENGTH), vocabulary, precision="float32",
        continue_trainings=True,
    )  # fmt: skip
    genes = {**hand_made_transformer(), "width": 32, "stochastic_depth": 0.2}

    def trained(n_epochs: int, folder: str | None) -> float:
        settings = TrialSettings(key=str(n_epochs), seed=4, checkpoints=folder)
        return float(made.evaluate({**genes, "n_epochs": n_epochs}, Trial(settings)))

    whole = trained(4, None)
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        trained(2, folder)
        assert trained(4, folder) == whole


def test_what_is_no_text_is_refused() -> None:
    images = Examples(torch.zeros(8, 3, 8, 8, dtype=torch.uint8), torch.arange(8) % 2, ("a", "b"))
    vocabulary = Vocabulary(["a", "b"])
    with pytest.raises(ValueError, match=r"must be token numbers \(N, length\), int64"):
        TextClassificationProblem(transformer_space(), images, vocabulary)
    other = Vocabulary(["a"]).examples(Sentences(("a", "b"), (0, 1), ("x", "y")), 4)
    big = Vocabulary([str(n) for n in range(9)]).examples(
        Sentences(("8", "b") * 4, (0, 1) * 4, ("x", "y")), 4
    )
    assert other.is_tokens
    with pytest.raises(ValueError, match="vocabulary of 4 numbers, got a token number of 10"):
        TextClassificationProblem(transformer_space(), big, vocabulary)
    with pytest.raises(TypeError, match="vocabulary must be a Vocabulary"):
        TextClassificationProblem(transformer_space(), big, ["a"])  # type: ignore[arg-type]


def test_a_point_that_fits_no_width_is_invalid() -> None:
    made = problem()
    genes = {**hand_made_transformer(), "width": 33, "heads": 2}
    assert "2 heads do not divide a width of 33" in str(made.invalid_reason(genes))
    assert isinstance(made.build(hand_made_transformer()), nn.Module)


def test_points_of_one_shape_are_trained_at_once() -> None:
    made = problem(n_epochs=2)
    base = {**hand_made_transformer(), "width": 32}
    points = [
        {**base, "lr": 5e-3, "dropout": 0.1, "stochastic_depth": 0.2},
        {**base, "lr": 2e-3, "dropout": 0.0, "stochastic_depth": 0.2},
        {**base, "lr": 1e-3, "dropout": 0.3, "stochastic_depth": 0.0},
    ]
    assert len({made.fusion_key(point) for point in points}) == 1
    trials = [Trial(TrialSettings(seed=seed)) for seed in range(3)]
    values = made.evaluate_fused(points, trials)
    for seed, (point, value, trial) in enumerate(zip(points, values, trials, strict=True)):
        before = Trial(TrialSettings(seed=seed))
        assert value == pytest.approx(made.evaluate(point, before), abs=0.1)
        for row, other in zip(trial.history, before.history, strict=True):
            assert row.metrics["train_loss"] == pytest.approx(other.metrics["train_loss"], rel=1e-3)
