"""The number beside a champion's weights is the score of exactly those weights."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import evonas as en
from evonas.cli import main
from evonas.nas import FAMILIES, ImageClassificationProblem
from evonas.run.repeats import mean_of_repeats, repeats_text, weights_json, weights_text
from evonas.training import Examples

SEARCHED, REPEATS = 0.54, (0.52, 0.613, 0.66)


class Told(en.FunctionProblem):
    """Scores that a list tells; what a trial attaches is its own score."""

    def __init__(self, scores: Any) -> None:
        super().__init__(
            en.SearchSpace({"x": [1, 2]}), lambda genes, trial: scores[genes["x"]].pop(0),
            objectives=en.Objective("accuracy"), problem_id="told",
        )  # fmt: skip

    def evaluate(self, genes: Any, trial: en.Trial) -> Any:
        score = super().evaluate(genes, trial)
        trial.attach("weights.pt", lambda path: path.write_text(str(score)))
        return score


@pytest.fixture
def confirmed(tmp_path: Path) -> en.Result:
    """The search liked x = 2 best; the mean of the repeats is for x = 1."""
    run = tmp_path / "run"
    en.evolve(
        Told({1: [SEARCHED], 2: [0.6067]}), max_evaluations=2, seed=0, run_dir=run, progress=False
    )
    en.confirm(Told({1: list(REPEATS), 2: [0.5, 0.5, 0.5]}), run)
    return en.open_run(run)


def attached(evaluation: en.Evaluation) -> float:
    return float(evaluation.files["weights.pt"].read_text())


def test_an_evaluation_knows_which_training_its_weights_are_of(confirmed: en.Result) -> None:
    champion = confirmed.champion
    assert champion.genes == {"x": 1}
    assert champion.fitness == SEARCHED
    assert champion.weights_of is not None
    assert champion.weights_of.fitness == attached(champion) == REPEATS[0]
    assert champion.weights_of.seed == confirmed.confirmed[0].repeats[0].seed != champion.seed
    assert mean_of_repeats(champion) == pytest.approx(sum(REPEATS) / 3)
    for entry in confirmed.evaluations:  # the same, found by its number or in a list
        assert entry.weights_of is not None
        assert entry.weights_of.fitness == attached(entry)
    other = next(entry for entry in confirmed.evaluations if entry.key != champion.key)
    assert other.weights_of is other


def test_before_confirm_they_are_of_the_search(tmp_path: Path) -> None:
    result = en.evolve(Told({1: [0.5], 2: [0.6]}), max_evaluations=2, seed=0, progress=False)
    champion = result.champion
    assert champion.weights_of == champion
    assert repeats_text(champion) == ""
    assert weights_text(champion, result.objectives) == (
        f"of the search (seed {champion.seed}): accuracy 0.6"
    )
    none = en.evolve({"x": [1, 2]}, lambda genes, trial: 1.0, max_evaluations=2, seed=0).champion
    assert none.weights_of is None
    assert weights_text(none, result.objectives) == ""
    assert weights_json(none, result.objectives) is None


def test_a_champion_from_beside_the_search_has_its_weights(tmp_path: Path) -> None:
    problem = Told({1: [SEARCHED, 0.5, 0.5], 2: [0.7, 0.9]})
    en.evolve(
        problem, initial=[{"x": 1}], max_evaluations=1, seed=0, run_dir=tmp_path, progress=False
    )
    en.confirm(problem, tmp_path, top=1, also=[{"x": 2}], repeats=2)
    champion = en.open_run(tmp_path).champion
    assert champion.number == -1
    assert champion.weights_of is not None
    assert champion.weights_of.fitness == attached(champion) == 0.7
    assert repeats_text(champion) == " in one repeat, mean 0.8 of 2 repeats"


def test_weights_of_a_repeat_that_failed_say_so(tmp_path: Path) -> None:
    class Fails(Told):
        def evaluate(self, genes: Any, trial: en.Trial) -> Any:
            value = super().evaluate(genes, trial)
            if value == REPEATS[0]:
                raise RuntimeError("after its weights were written")
            return value

    problem = Fails({1: [SEARCHED, *REPEATS], 2: []})
    en.evolve(
        problem, initial=[{"x": 1}], max_evaluations=1, seed=0, run_dir=tmp_path, progress=False
    )
    en.confirm(problem, tmp_path, top=1)
    result = en.open_run(tmp_path)
    said = weights_text(result.champion, result.objectives)
    assert re.fullmatch(
        r"of the first of 3 repeats on fresh seeds \(seed \d+\), which ended failed", said
    )
    assert repeats_text(result.champion) == " in the search, mean 0.6365 of 2 repeats"


def test_the_champions_module_follows_the_folder_that_is_there(confirmed: en.Result) -> None:
    """A repeat's folder that is gone leaves the search's own weights, and their own score."""
    champion = confirmed.champion
    folder = champion.files["weights.pt"].parent
    folder.rename(folder.with_name("elsewhere"))
    assert attached(champion) == SEARCHED
    assert champion.weights_of is champion


MEAN = f"{sum(REPEATS) / 3:.4g}"


def test_every_output_says_the_score_of_the_weights(
    confirmed: en.Result, capsys: pytest.CaptureFixture[str]
) -> None:
    run, champion = str(confirmed.run_dir), confirmed.champion
    both = f"0.54 in the search, mean {MEAN} of 3 repeats"
    assert champion.weights_of is not None
    seed = champion.weights_of.seed
    weights = f"of the first of 3 repeats on fresh seeds (seed {seed}): accuracy 0.52"
    assert f"champion {both}, 2 evaluated" in repr(confirmed)
    assert f"accuracy {both}<br>its weights: {weights}" in confirmed._repr_html_()

    def printed(*command: str) -> str:
        assert main(list(command)) == 0
        return capsys.readouterr().out

    shown = printed("show", run)
    assert f"number {champion.number}, fitness {both}\nits weights {weights}\n" in shown
    told = json.loads(printed("show", run, "--json"))["champion"]["weights"]
    assert told == {
        "training": "first repeat", "seed": seed, "status": "ok", "scores": {"accuracy": 0.52},
        "mean_of_repeats": pytest.approx(sum(REPEATS) / 3), "repeats": 3,
    }  # fmt: skip
    folder = str(Path(run).parent)
    assert re.sub(r"\s+", " ", printed("list", folder)).count(f"accuracy {both}") == 1
    (line,) = json.loads(printed("list", folder, "--json"))
    assert line["best"] == {"accuracy": SEARCHED}
    assert line["mean_of_repeats"] == pytest.approx(sum(REPEATS) / 3)


def test_the_report_says_it(confirmed: en.Result, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    from evonas.report.answer import answer

    found = dict(answer(confirmed))
    assert f"has accuracy 0.54 in the search, mean {MEAN} of 3 repeats" in found["Found"]
    assert re.search(
        r"they are of the first of 3 repeats on fresh seeds \(seed \d+\): accuracy 0\.52",
        found["Next"],
    )


def test_the_champions_source_says_the_score_of_the_file_beside_it(tmp_path: Path) -> None:
    import torch

    class Quick(ImageClassificationProblem):
        scores = iter([SEARCHED, *REPEATS, 0.7])

        def evaluate(self, genes: Any, trial: en.Trial) -> float:
            score = next(self.scores)
            trial.attach("weights.pt", lambda path: path.write_text(str(score)))
            return score

    images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8)
    family = FAMILIES["alexnet-small"]
    problem = Quick(
        family.space(), family.network, Examples(images, torch.arange(40) % 2, ("a", "b")),
        n_epochs=1, batch_size=8, precision="float32",
    )  # fmt: skip
    arguments: dict[str, Any] = {"seed": 0, "run_dir": tmp_path, "progress": False}
    en.evolve(problem, max_evaluations=1, **arguments)
    module = next(tmp_path.glob("ga-champ-*.py"))
    weights = module.with_suffix(".pt")
    assert "\n# accuracy 0.5400 on validation after 1 epochs.\n" in module.read_text()
    assert float(weights.read_text()) == SEARCHED
    en.confirm(problem, tmp_path, top=1)
    text = module.read_text()
    assert "\n# accuracy 0.5200 on validation after 1 epochs.\n" in text
    assert "In the search it had accuracy 0.5400." in text
    assert float(weights.read_text()) == REPEATS[0]
    # Its attachments are removed by hand: the champion's own files stay, and stay together.
    for file in (tmp_path / "attachments").rglob("weights.pt"):
        file.unlink()
    for folder in (tmp_path / "attachments").iterdir():
        folder.rmdir()
    en.evolve(problem, max_evaluations=1, **arguments)
    assert float(weights.read_text()) == REPEATS[0]
    assert module.read_text() == text


def test_an_export_says_the_score_of_what_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    safetensors = pytest.importorskip("safetensors")
    import torch
    from torch import nn

    from evonas.training import ModelProblem

    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] + torch.randn(300, generator=torch.Generator().manual_seed(1)) > 0).long()
    problem = ModelProblem(
        {"width": [4]}, lambda genes: nn.Linear(6, 2), (x[:100], y[:100]), (x[100:], y[100:]),
        n_epochs=1, precision="float32", problem_id="linear",
    )  # fmt: skip
    run, file = tmp_path / "run", tmp_path / "out.safetensors"
    en.evolve(problem, max_evaluations=1, seed=0, run_dir=run, progress=False)
    (entry,) = en.confirm(problem, run, top=1, repeats=2)
    assert main(["export", str(run), "--format", "safetensors", "-o", str(file)]) == 0
    with safetensors.safe_open(file, "pt") as opened:
        about = json.loads(opened.metadata()["weights"])
        model = nn.Linear(6, 2)
        model.load_state_dict({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118
    accuracy = float((model(x[100:]).argmax(1) == y[100:]).float().mean())
    assert about["scores"] == {"accuracy": pytest.approx(accuracy)}
    assert about["training"] == "first repeat"
    assert entry.evaluation.fitness != pytest.approx(accuracy)  # the search had another one
    assert (
        f"its weights: of the first of 2 repeats on fresh seeds (seed {entry.repeats[0].seed}): "
        f"accuracy {accuracy:.4g}; the mean of the repeats is {entry.mean:.4g}\n"
    ) in capsys.readouterr().out
