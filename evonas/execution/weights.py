"""The files that trials leave, and the trained weights among them: saved and loaded, no pickles."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evonas.exceptions import WeightsError
from evonas.execution.user_code import ScriptError, class_not_function, import_from_file
from evonas.files import display_path, replace_file, write_text
from evonas.records import Evaluation, Genes
from evonas.run.signature import is_ours, sign

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "ATTACHMENTS",
    "CONFIRMED",
    "NETWORK",
    "WEIGHTS",
    "TrialFiles",
    "load_weights",
    "read_weights",
    "save_weights",
    "write_builder",
]

WEIGHTS = "weights.pt"
"""The file that `Trial.save` makes: a state_dict on the CPU, for `weights_only=True`."""

NETWORK = "network.json"
"""Beside it, where they are known: the model's layers and inputs (see `anatomy`), and for a network
that is known as data `kind` and what it is built from."""

ATTACHMENTS = "attachments"
"""The folder of a run with a folder for what a trial attached, named by its evaluation's number."""

CONFIRMED = "confirmed"
"""What the name of a folder begins with where a repeat of `confirm` left the files."""

BUILDER = "builder.json"
"""Among the files of a run: where the user's function is that builds the modules, signed."""

_SIGNED = ("file", "name", "takes_genes", "folder")

_BUILDERS = {"torch.nn": "evonas.nas.described"}
"""Kind of such data to the module whose `from_description` builds of it; no other is imported."""

_MAX_NAMED = 5


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes a model's state_dict as tensors on the CPU, whole or not at all.

    Raises:
        TypeError: It is no module.
        RunStorageError: The file cannot be written.
    """
    import torch

    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    state = {
        name: value.detach().cpu().contiguous() if isinstance(value, torch.Tensor) else value
        for name, value in model.state_dict().items()
    }

    def write(part: Path) -> None:
        with part.open("wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:  # what torch makes of an OSError of the file
                raise OSError(str(error).partition("\n")[0]) from error

    replace_file(path, write)


def read_weights(path: Path) -> Mapping[str, Any]:
    """Returns the state_dict of a file; no pickled code is run.

    Raises:
        WeightsError: The file is none of `save_weights`.
    """
    import pickle

    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError,
    ) as error:  # fmt: skip
        first = str(error).partition("\n")[0]
        raise WeightsError(f"{path} cannot be read as weights ({first})") from error
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path} holds no state_dict, but a {type(state).__name__}")
    return state


def load_weights(model: nn.Module, path: Path) -> nn.Module:
    """Puts saved weights into a module, and the module into evaluation mode.

    Raises:
        WeightsError: The file is none of `save_weights`, or the module has other layers: named.
    """
    state = read_weights(path)
    differences = _differences(model.state_dict(), state)
    if differences:
        more = (
            f"; and {len(differences) - _MAX_NAMED} more" if len(differences) > _MAX_NAMED else ""
        )
        raise WeightsError(
            f"the module that was built does not fit the weights in {path}: "
            f"{'; '.join(differences[:_MAX_NAMED])}{more}: build it from the genes as in the search"
        )
    model.load_state_dict(dict(state))
    return model.eval()


def _differences(own: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    found = [f"{name} is not in the module" for name in saved if name not in own]
    found += [f"{name} is not in the weights" for name in own if name not in saved]
    for name in own.keys() & saved.keys():
        if hasattr(own[name], "materialize"):  # a lazy layer, which takes the shape of the weights
            continue
        shapes = [tuple(getattr(side[name], "shape", ())) for side in (own, saved)]
        if shapes[0] != shapes[1]:
            found.append(f"{name} is {shapes[0]} in the module and {shapes[1]} in the weights")
    return sorted(found)


class _Owner:
    """Whoever refers to it needs the folder."""


@dataclass(frozen=True)
class TrialFiles:
    """The files of a run's trials: one folder for each evaluation of which they are kept.

    Attributes:
        folder: Of the run.
        build: `genes -> module`, where the problem is known that trained them.
        owner: Kept alive with this object: removes a folder that belongs to a run in memory.
        copied: Number of an evaluation of an earlier run to that run's directory and its number
            there: its files were left there.
    """

    folder: Path
    build: Callable[[Genes], Any] | None = None
    owner: object = None
    copied: Mapping[int, tuple[str, int]] = field(default_factory=dict)

    @classmethod
    def in_memory(cls) -> TrialFiles | None:
        """Returns a folder for a run in memory, removed when nothing refers to it any more.

        None where there is no room for one.
        """
        try:
            folder = Path(tempfile.mkdtemp(prefix="evonas-"))
        except OSError:
            return None
        owner = _Owner()
        weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
        return cls(folder, owner=owner)

    def __reduce__(self) -> tuple[Any, ...]:
        return TrialFiles, (self.folder, None, None, self.copied)

    def of(self, number: int) -> dict[str, Path]:
        """Returns an evaluation's files by name, or those of its repeat in `confirm`."""
        for name in (f"{CONFIRMED}{number}", str(number)):
            folder = self.folder / name
            if folder.is_dir():
                files = (path for path in sorted(folder.iterdir()) if path.name[0] != ".")
                return {path.name: path for path in files}
        return {}

    def network(self, number: int) -> dict[str, Any]:
        """Returns what is known of an evaluation's model: `layers`, `inputs`, `kind`; {}: nothing.

        Raises:
            WeightsError: The file is damaged.
        """
        path = self.of(number).get(NETWORK)
        if path is None:
            return {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise WeightsError(f"{path} cannot be read ({error})") from error
        if not isinstance(found, dict):
            raise WeightsError(f"{path} describes no network")
        return found

    def can_build(self, number: int) -> bool:
        """Whether `load_model` needs no argument in another process: see `Evaluation.load_model`.

        Raises:
            WeightsError: The description is damaged.
        """
        if "kind" in self.network(number):
            return True
        entry = _builder_on_record(self.folder)
        return entry is not None and _is_trusted(entry, self.folder)

    def load_model(
        self, evaluation: Evaluation, build: Callable[[Genes], Any] | Any | None = None
    ) -> nn.Module:
        """Returns the trained module in evaluation mode, on the CPU; see `Evaluation.load_model`.

        Raises:
            TypeError: `build` cannot be called, or returns no module.
            WeightsError: There are no weights, nothing to build the module with, or it does not
                fit them.
        """
        from torch import nn

        files = self.of(evaluation.number)
        if WEIGHTS not in files:
            raise WeightsError(self._why_none(evaluation))
        build = build if build is not None else self.build
        build = getattr(build, "build", build)  # a Problem
        if build is not None:
            module = _built_by(build, evaluation.genes)
        elif "kind" in (known := self.network(evaluation.number)):
            module = _described(files[NETWORK], known)
        else:
            module = _built_by_the_users_function(self.folder, evaluation)
        if not isinstance(module, nn.Module):
            raise TypeError(f"build(genes) must return a nn.Module, got {type(module).__name__}")
        return load_weights(module, files[WEIGHTS])

    def _why_none(self, evaluation: Evaluation) -> str:
        if evaluation.number in self.copied:
            run, number = self.copied[evaluation.number]
            place = display_path(Path(run))
            return (
                f"evaluation {evaluation.number} was copied from {place} by warm_start, without "
                f"its files: where its weights were kept, evonas.open_run({place!r})"
                f".evaluations[{number}] has them"
            )
        if evaluation.fitness is None:
            return f"evaluation {evaluation.number} ended {evaluation.status} and has no weights"
        kept = [path for path in self.folder.glob("*") if path.is_dir()]
        if not kept:
            return (
                "no trial of this run has saved weights: call trial.save(model) at the end of "
                "the fitness function, and search again"
            )
        return (
            f"the weights of evaluation {evaluation.number} were not kept: a run keeps those of "
            f"the champion, the hall of fame and the Pareto front, within keep_bytes; "
            "evolve(..., keep_files='all') keeps every trial's"
        )


def write_builder(folder: Path, file: str, name: str, *, takes_genes: bool) -> None:
    """Puts on record where the user's function is, signed, so that nobody else can put one there.

    Raises:
        RunStorageError: It cannot be written.
    """
    entry = {"file": file, "name": name, "takes_genes": takes_genes, "folder": str(folder)}
    signature = sign(entry, _SIGNED)
    if signature is not None:
        write_text(folder / BUILDER, json.dumps({**entry, "signature": signature}) + "\n")


def _built_by_the_users_function(folder: Path, evaluation: Evaluation) -> Any:
    """Returns what the function on record builds, if this user put it there on this machine.

    Raises:
        WeightsError: There is none, it is somebody else's, or it is gone.
    """
    wanted = "pass load_model(build), where build(genes) returns it"
    about = f"evaluation {evaluation.number} has weights, and only your code knows the module"
    entry = _builder_on_record(folder)
    if entry is None:
        raise WeightsError(f"{about} that they belong to: {wanted}")
    if not _is_trusted(entry, folder):
        raise WeightsError(f"{about} (this run was not made here, on this machine): {wanted}")
    name = entry["name"] if entry["takes_genes"] else f"lambda genes: {entry['name']}()"
    try:
        build = import_from_file(entry["file"], entry["name"])
    except ScriptError as error:
        cause = error.__cause__
        raise WeightsError(
            f"while importing {entry['file']}, which made this run: {type(cause).__name__}: "
            f"{cause}; fix it (load_model() runs the top level of that script, beside its "
            f"__main__ guard), or pass load_model({name})"
        ) from cause
    except (ImportError, OSError) as error:
        raise WeightsError(f"{about}, whose function is gone ({error}): {wanted}") from error
    return build(evaluation.genes) if entry["takes_genes"] else build()


def _built_by(build: Any, genes: Genes) -> Any:
    """Returns what the caller's function makes of the genes.

    Raises:
        TypeError: It is a module, or a class that takes no genes.
    """
    from torch import nn

    if isinstance(build, nn.Module):
        raise TypeError(
            f"load_model takes a function of the genes to a new module, got a module "
            f"({type(build).__name__}): pass lambda genes: MyModel(genes['width'])"
        )
    try:
        return build(genes)
    except Exception as error:
        wrong = class_not_function("build", build, genes, error)
        if wrong is not None:
            raise wrong from error
        raise


def _builder_on_record(folder: Path) -> dict[str, Any] | None:
    try:
        entry = json.loads((folder / BUILDER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else {}


def _is_trusted(entry: Mapping[str, Any], folder: Path) -> bool:
    """Whether this user put it there: no code of a copied run, or of a stranger's, is imported."""
    return entry.get("folder") == str(folder) and is_ours(entry, _SIGNED)


def _described(path: Path, description: Mapping[str, Any]) -> Any:
    try:
        builder = import_module(_BUILDERS[description["kind"]])
        return builder.from_description(description)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        # RuntimeError: what torch raises for sizes that no layer has, and for endless nesting.
        raise WeightsError(f"{path} describes no network that can be built ({error})") from error
