"""The files that trials leave, and the trained weights among them: saved and loaded, no pickles."""

from __future__ import annotations

import inspect
import json
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evonas.exceptions import UnknownModuleError, WeightsError
from evonas.execution.user_code import (
    ScriptError,
    class_not_function,
    import_from_file,
    reading_only,
)
from evonas.files import display_path, replace_file, write_text
from evonas.records import Evaluation, Genes
from evonas.run.signature import is_ours, sign
from evonas.space.naming import CODE, fingerprint_of

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
        best: Numbers of evaluations whose files the run keeps, as far as that is known.
        copied: Number of an evaluation of an earlier run to that run's directory and its number
            there: its files were left there.
    """

    folder: Path
    build: Callable[[Genes], Any] | None = None
    owner: object = None
    best: frozenset[int] = frozenset()
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
        return TrialFiles, (self.folder, None, None, self.best, self.copied)

    def of(self, number: int) -> dict[str, Path]:
        """Returns an evaluation's files by name, or those of its repeat in `confirm`."""
        folder = self.folder_of(number)
        if folder is None:
            return {}
        return {path.name: path for path in sorted(folder.iterdir()) if path.name[0] != "."}

    def folder_of(self, number: int) -> Path | None:
        """Returns where those files are; None: there are none."""
        folders = (self.folder / f"{CONFIRMED}{number}", self.folder / str(number))
        return next((folder for folder in folders if folder.is_dir()), None)

    def is_repeats(self, number: int) -> bool:
        """Whether they are of the first repeat of the evaluation in `confirm`."""
        return (self.folder / f"{CONFIRMED}{number}").is_dir()

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
        if evaluation.number in self.best:
            return (
                f"the weights of evaluation {evaluation.number} are gone: it is one of the best, "
                f"whose weights a run keeps, and {self.folder / str(evaluation.number)} was "
                "removed, by hand or to stay within keep_bytes (or its trial saved none)"
            )
        return (
            f"the weights of evaluation {evaluation.number} were not kept: a run keeps those of "
            f"the champion, the hall of fame and the Pareto front, within keep_bytes; "
            "evolve(..., keep_files='all') keeps every trial's"
        )


def write_builder(
    folder: Path, file: str, name: str, *, takes_genes: bool, code: str | None = None
) -> None:
    """Puts on record where the user's function is, signed, so that nobody else can put one there.

    Args:
        folder: For the files of the run's trials.
        file: Of the function.
        name: In that file.
        takes_genes: Whether it is a function of the genes.
        code: What `fingerprint_of` says of it, to tell whether it was edited. None: nothing.

    Raises:
        RunStorageError: It cannot be written.
    """
    entry = {"file": file, "name": name, "takes_genes": takes_genes, "folder": str(folder)}
    signature = sign(entry, _SIGNED)
    if signature is not None:
        entry |= {"signature": signature, "code": code}
        write_text(folder / BUILDER, json.dumps(entry) + "\n")


def _built_by_the_users_function(folder: Path, evaluation: Evaluation) -> nn.Module:
    """Returns what the function on record builds, if this user put it there on this machine.

    Raises:
        UnknownModuleError: There is none, it is somebody else's, it is gone, or it raises.
    """
    from torch import nn

    about = f"evaluation {evaluation.number} has weights, and only your code knows the module"
    entry = _builder_on_record(folder)
    if entry is None:
        raise UnknownModuleError(f"{about} that they belong to")
    if not _is_trusted(entry, folder):
        raise UnknownModuleError(f"{about} (this run was not made here, on this machine)")
    file, name, takes_genes = entry["file"], entry["name"], entry["takes_genes"]
    made = f"{file}, which made this run"
    way_out = f"fix it, or pass load_model({name if takes_genes else f'lambda genes: {name}()'})"
    try:
        build = import_from_file(file, name)
    except ScriptError as error:
        cause = error.__cause__
        raise UnknownModuleError(
            f"while importing {made}: {type(cause).__name__}: {cause} (all but what is under its "
            "__main__ guard runs)",
            way_out,
        ) from cause
    except (ImportError, OSError) as error:
        raise UnknownModuleError(f"{about}, whose function is gone ({error})") from error
    _warn_of_other_code(entry, build, evaluation.number)
    try:
        with reading_only(file):
            module = build(evaluation.genes) if takes_genes else build()
    except (Exception, SystemExit) as error:
        raise UnknownModuleError(
            f"{name} of {made}, raised {type(error).__name__}: {error}", way_out
        ) from error
    if not isinstance(module, nn.Module):
        returned = f"{name} of {made}, returned {type(module).__name__} and no nn.Module"
        raise UnknownModuleError(returned, way_out)
    return module


def _warn_of_other_code(entry: Mapping[str, Any], build: Any, number: int) -> None:
    """Warns where the function on record is not as it was when the run last started."""
    code = entry.get("code")
    # In another Python the same code has another digest.
    if not isinstance(code, str) or CODE not in code or fingerprint_of(build) == code:
        return
    warnings.warn(
        f"{entry['name']} in {entry['file']}, or what it uses, was edited after the search: the "
        f"network that it builds for the weights of evaluation {number} may compute something "
        "else than the one that was trained; restore the file, or name a function that builds that",
        stacklevel=5,  # whoever calls `Evaluation.load_model`
    )


def _built_by(build: Any, genes: Genes) -> Any:
    """Returns what the caller's function makes of the genes.

    Raises:
        TypeError: It is a module, a class that takes no genes, or cannot be called.
    """
    from torch import nn

    if isinstance(build, nn.Module):
        raise TypeError(
            f"load_model takes a function of the genes to a new module, got a module "
            f"({type(build).__name__}): pass lambda genes: MyModel(genes['width'])"
        )
    if not callable(build):
        raise TypeError(
            f"build must be a function of the genes to a new module, got {build!r} "
            f"({type(build).__name__})"
        )
    try:
        return build() if _takes_nothing(build) else build(genes)
    except Exception as error:
        wrong = class_not_function("build", build, genes, error)
        if wrong is not None:
            raise wrong from error
        raise


def _takes_nothing(build: Any) -> bool:
    """Whether a function has no argument for the genes, as a factory of pretrained models."""
    try:
        return not inspect.signature(build).parameters
    except (TypeError, ValueError):  # of C, or it cannot be called
        return False


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
