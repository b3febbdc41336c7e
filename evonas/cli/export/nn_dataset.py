"""The statistics and models of a run in the layout of the project nn-dataset.

The directory has the folders of that project's `ab/nn`, so that its content can be copied there:

* `stat/train/<task>_<data set>_<metric>_<model>/<epoch>.json`: a list with a record for each
  training of the model, best accuracy first; epochs from 1. The duration is in nanoseconds.
* `nn/<model>.py`: the models.
* `transform/<name>.py`: what happens to an image before the model sees it.

`uid` is the MD5 of the text of the hyperparameter dict (names in order, everything but accuracy,
duration and uid) without white space.

Source: `ab/nn/util` of nn-dataset (`Train.py`, `db/Calc.py`, `Util.py`).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import tempfile
import tokenize
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evonas.exceptions import EvonasError, RunStorageError
from evonas.records import Evaluation, Status
from evonas.run.files import ARCHITECTURES, STATISTICS, numbered
from evonas.run.result import Result

__all__ = ["uid", "write_dataset"]

_NO_PARAMETERS = {"accuracy", "duration", "uid", "epoch"}
_NORMALIZED = re.compile(
    r"(?P<height>\d+)x(?P<width>\d+)"
    r"(?: \+ normalize\(mean=\((?P<mean>[-\d., ]+)\), std=\((?P<std>[-\d., ]+)\)\))?"
)


def write_dataset(result: Result, folder: Path) -> str:
    """Writes the directory, whole or not at all, and returns what it holds in words.

    Only trainings that ended `ok` are written, as in that project.

    Raises:
        EvonasError: The run has no such statistics, or the folder exists and is not empty.
        RunStorageError: It cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise EvonasError(f"{folder} exists and is not empty: pass another -o")
    collected = _collect(result)
    part: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        collected.write(part)
        part.chmod(0o755)
        if folder.is_dir():
            folder.rmdir()
        part.replace(folder)
        part = None
    except OSError as error:
        raise RunStorageError(f"{folder} cannot be written: {error}") from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
    words = (
        f"{folder}: {collected.n_records} records of {collected.n_trainings} trainings of "
        f"{len(collected.models)} models"
    )
    if collected.n_missing:
        words += f"; {collected.n_missing} trainings have no files yet and are left out"
    return words


def uid(record: dict[str, Any]) -> str:
    """Returns the MD5 of a record's hyperparameters, as nn-dataset computes it.

    Example:
        >>> uid({"batch": 4, "dropout": 0.5, "lr": 0.0061, "momentum": 0.7549,
        ...      "transform": "norm_299", "accuracy": 0.5498, "duration": 72918519037})
        '3cb173d35a780eafb1f1a9fa4dd955d6'
    """
    chosen = {name: record[name] for name in sorted(record) if name not in _NO_PARAMETERS}
    return hashlib.md5(re.sub(r"\s", "", str(chosen)).encode(), usedforsecurity=False).hexdigest()


@dataclass(slots=True)
class _Dataset:
    """What is to be written.

    Attributes:
        records: Folder's name and epoch (from 1) to the records.
        models: Name to source.
        transforms: Name to source.
    """

    records: dict[tuple[str, int], list[dict[str, Any]]] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    transforms: dict[str, str] = field(default_factory=dict)
    n_trainings: int = 0
    n_missing: int = 0

    @property
    def n_records(self) -> int:
        return sum(map(len, self.records.values()))

    def write(self, folder: Path) -> None:
        for (name, epoch), records in self.records.items():
            target = folder / "stat" / "train" / name
            target.mkdir(parents=True, exist_ok=True)
            ordered = sorted(records, key=lambda record: -record["accuracy"])
            (target / f"{epoch}.json").write_text(json.dumps(ordered, indent=4) + "\n")
        for kind, sources in (("nn", self.models), ("transform", self.transforms)):
            if sources:
                (folder / kind).mkdir()
            for name, source in sources.items():
                (folder / kind / f"{name}.py").write_text(source)


def _collect(result: Result) -> _Dataset:
    if result.run_dir is None:
        raise EvonasError("a run in memory has no files to export")
    sources = numbered(result.run_dir / ARCHITECTURES)
    folders = numbered(result.run_dir / STATISTICS)
    if not sources or not folders:
        problem = result.record.fingerprint.get("problem") or "a function of yours"
        raise EvonasError(
            f"{result.location} has no networks and statistics to export: nn-dataset takes runs of "
            f"image classification, and this one's problem is {problem}"
        )
    metric = str(result.record.fingerprint.get("metric", "accuracy"))
    dataset = _Dataset()
    model_of: dict[str, str] = {}
    for entry in result.evaluations:
        if entry.status is not Status.OK:
            continue
        if entry.number not in sources or entry.number not in folders:
            dataset.n_missing += 1
            continue
        source = sources[entry.number].read_text()
        # Trainings of one network with other hyperparameters are records of one model.
        model = model_of.setdefault(_code(source), _model_name(sources[entry.number]))
        dataset.models.setdefault(model, source)
        _add(dataset, entry, folders[entry.number], model, metric)
    return dataset


def _add(dataset: _Dataset, entry: Evaluation, folder: Path, model: str, metric: str) -> None:
    # <task>_<data set>_<metric>_<model>: the project splits the name at each underscore.
    task, rest = folder.name.split("_", 1)
    rest, measure, _ = rest.rsplit("_", 2)
    name = "_".join([task, rest.replace("_", "-"), measure.replace("_", "-"), model])
    dataset.n_trainings += 1
    for epoch in entry.epochs:
        try:
            (record,) = json.loads((folder / f"{epoch.epoch}.json").read_text())
        except (OSError, ValueError) as error:
            raise RunStorageError(
                f"{folder / f'{epoch.epoch}.json'} cannot be read ({error}): run the search's own "
                "command again, which writes missing files"
            ) from error
        # Of whatever metric, it is called accuracy there.
        accuracy = record.pop(metric) if metric in record else record["accuracy"]
        record.pop("accuracy", None)
        record["transform"] = _transform(dataset, record["transform"])
        record["accuracy"] = accuracy
        record["uid"] = uid(record)
        ordered = {key: record[key] for key in sorted(record)}
        dataset.records.setdefault((name, epoch.epoch + 1), []).append(ordered)


def _model_name(path: Path) -> str:
    return path.stem.replace("_", "-")


def _code(source: str) -> str:
    """Returns the code without its comments, which name the genes."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    left_out = (tokenize.COMMENT, tokenize.NL)
    return "\0".join(token.string for token in tokens if token.type not in left_out)


def _transform(dataset: _Dataset, words: str) -> str:
    """Returns the name of the module that does what the words say.

    The project takes the name of a module; words it cannot take stay as they are (an augmentation
    of the user's own is code that the run does not have).
    """
    match = _NORMALIZED.fullmatch(words)
    if match is None:
        return words
    digest = hashlib.md5(words.encode(), usedforsecurity=False).hexdigest()[:8]
    name = f"evonas-{match['height']}-{digest}"
    steps = [
        f"transforms.Resize(({match['height']}, {match['width']}))",
        "transforms.ToTensor()",
    ]
    if match["mean"]:
        steps.append(f"transforms.Normalize(({match['mean']}), ({match['std']}))")
    body = ",\n        ".join(steps)
    dataset.transforms[name] = (
        f"# {words}: of the training images of the search, whatever `norm` is\n"
        "import torchvision.transforms as transforms\n\n\n"
        "def transform(norm):\n"
        f"    return transforms.Compose([\n        {body},\n    ])\n"
    )
    return name
