"""Weights as files: saved whole, loaded without pickles, and refused where they do not fit."""

from __future__ import annotations

import gc
import logging
import pickle
import resource
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import evonas as en
from evonas.exceptions import WeightsError
from evonas.execution.trial import TrialSettings
from evonas.execution.weights import NETWORK, WEIGHTS, TrialFiles, load_weights, save_weights
from evonas.records import Evaluation, Status


def model(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def evaluation(kept: TrialFiles | None, status: Status = Status.OK) -> Evaluation:
    values = (1.0,) if status is Status.OK else ()
    return Evaluation(7, "key", {"width": 3}, status, values, kept=kept)


@pytest.fixture
def files(tmp_path: Path) -> TrialFiles:
    return TrialFiles(tmp_path)


def test_what_is_saved_comes_back_in_evaluation_mode(files: TrialFiles) -> None:
    trained = model()
    trained(torch.randn(8, 4))  # moves the running statistics
    trial = en.Trial(TrialSettings(number=7, attachments=str(files.folder / "7")))
    assert trial.save(trained)
    found = evaluation(files)
    assert list(found.files) == [WEIGHTS]
    loaded = found.load_model(lambda genes: model(genes["width"]))
    assert not any(module.training for module in loaded.modules())
    inputs = torch.randn(5, 4)
    assert torch.equal(loaded(inputs), trained.eval()(inputs))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda genes: model(5), r"0\.bias is \(5,\) in the module and \(3,\) in the weights"),
        (lambda genes: nn.Sequential(nn.Linear(4, 3)), r"1\.bias is not in the module"),
        (
            lambda genes: nn.Sequential(*model(), nn.Linear(2, 2)),
            r"3\.bias is not in the weights",
        ),
    ],
)
def test_a_module_that_does_not_fit_is_refused_with_its_layers(
    files: TrialFiles, build: Any, message: str
) -> None:
    save_weights(model(), files.folder / "7" / WEIGHTS)
    with pytest.raises(WeightsError, match=message):
        evaluation(files).load_model(build)


class Net(nn.Sequential):
    def __init__(self, width: int = 3) -> None:
        super().__init__(*model(width))


def test_a_factory_without_an_argument_builds_it(files: TrialFiles) -> None:
    trained = model()
    save_weights(trained, files.folder / "7" / WEIGHTS)
    for factory in (lambda: model(), partial(model, 3)):
        loaded = evaluation(files).load_model(factory)
        assert torch.equal(loaded[0].weight, trained[0].weight)


def test_a_class_or_a_module_in_place_of_the_function_is_refused(files: TrialFiles) -> None:
    save_weights(model(), files.folder / "7" / WEIGHTS)
    found = evaluation(files)
    with pytest.raises(TypeError, match=r"got the class Net, .* pass lambda genes: Net\(width=gen"):
        found.load_model(Net)
    with pytest.raises(TypeError, match=r"takes a function of the genes .*, got a module \(Net\)"):
        found.load_model(Net())
    assert found.load_model(lambda genes: Net(width=genes["width"]))(torch.zeros(1, 4)).shape
    with pytest.raises(
        TypeError, match=r"build must be a function of the genes .*, got 'model' \("
    ):
        found.load_model("model")


def test_where_there_is_nothing_to_load_it_says_why(files: TrialFiles) -> None:
    with pytest.raises(WeightsError, match="belongs to no run"):
        evaluation(None).load_model()
    with pytest.raises(WeightsError, match=r"call trial\.save\(model\)"):
        evaluation(files).load_model(model)
    (files.folder / "1").mkdir()
    with pytest.raises(WeightsError, match=r"were not kept.*keep_files='all'"):
        evaluation(files).load_model(model)
    files = replace(files, best=frozenset({7}))
    with pytest.raises(WeightsError, match=r"weights of evaluation 7 are gone: .* was removed, by"):
        evaluation(files).load_model(model)
    with pytest.raises(WeightsError, match="ended failed"):
        evaluation(files, Status.FAILED).load_model(model)
    save_weights(model(), files.folder / "7" / WEIGHTS)
    with pytest.raises(WeightsError, match=r"pass load_model\(build\)"):
        evaluation(files).load_model()
    with pytest.raises(TypeError, match=r"must return a nn\.Module, got int"):
        evaluation(files).load_model(lambda genes: 3)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("touched"),)


def test_a_strangers_weights_run_no_code(
    files: TrialFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files.folder)
    path = files.folder / "7" / WEIGHTS
    path.parent.mkdir()
    for content in (pickle.dumps(Hostile(), protocol=2), b"", b"nonsense"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="cannot be read as weights"):
            load_weights(model(), path)
    torch.save([1], path)
    with pytest.raises(WeightsError, match="holds no state_dict, but a list"):
        load_weights(model(), path)
    assert not Path("touched").exists()
    save_weights(model(), path)
    (path.parent / NETWORK).write_text('{"kind": "os", "system": "touch touched"}')
    with pytest.raises(WeightsError, match="describes no network"):
        evaluation(files).load_model()
    assert not Path("touched").exists()


@pytest.fixture
def full_disk() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_costs_the_weights_and_not_the_training(
    files: TrialFiles, full_disk: None, caplog: pytest.LogCaptureFixture
) -> None:
    trial = en.Trial(TrialSettings(number=7, attachments=str(files.folder / "7")))
    with caplog.at_level(logging.WARNING):
        assert not trial.save(nn.Linear(100, 100))
    assert "the weights of evaluation 7 are not kept" in caplog.text
    assert list((files.folder / "7").iterdir()) == [], "nor half a file"


def test_save_takes_a_module(files: TrialFiles) -> None:
    trial = en.Trial(TrialSettings(attachments=str(files.folder / "7")))
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got OrderedDict"):
        trial.save(model().state_dict())


def test_the_files_of_a_run_in_memory_live_as_long_as_an_evaluation() -> None:
    def fitness(genes: dict[str, Any], trial: en.Trial) -> float:
        trial.save(nn.Linear(2, genes["width"]))
        return float(genes["width"])

    champion = en.evolve({"width": [1, 2, 3]}, fitness, max_evaluations=3, seed=0).champion
    gc.collect()
    folder = champion.files[WEIGHTS].parents[1]
    assert champion.load_model(lambda genes: nn.Linear(2, genes["width"])).out_features == 3
    pickled = pickle.loads(pickle.dumps(champion))
    assert pickled == champion
    assert pickled.files == champion.files
    del champion, pickled
    gc.collect()
    assert not folder.exists()
