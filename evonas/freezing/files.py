"""The files that a mask search leaves for people."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from evonas.files import write_text
from evonas.freezing.saved_mask import SavedMask
from evonas.records import Evaluation, Genes

if TYPE_CHECKING:
    from evonas.freezing.problem import FreezingProblem

__all__ = ["ChampionFile", "MaskFiles", "load_mask", "read_champion"]


T = TypeVar("T")


class ChampionFile:
    """Writes what a fine-tuning search has found, as one JSON file for people and scripts.

    A subclass says what of a point goes into it, in `_found`.

    Args:
        run_dir: The run's directory.
        problem: Whose points these are.
    """

    file_name: ClassVar[str]

    def __init__(self, run_dir: Path, problem: FreezingProblem) -> None:
        self._problem = problem
        self.champion = run_dir / self.file_name

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Nothing: a point is its genes."""

    def on_champion(self, evaluation: Evaluation, attachments: Path | None) -> None:
        """Writes the champion, whole or not at all, where it is another one."""
        record = self._record(evaluation, self._problem.label_of(evaluation.genes), None)
        before = self._before()
        added = ("label", "on_fresh_seeds")
        if all(before.get(name) == record[name] for name in record if name not in added):
            # What `compare_masks` added stays: it is about this champion.
            record |= {name: before.get(name) for name in added}
        self._write(record)

    def on_comparison(self, evaluation: Evaluation, label: str, scores: Mapping[str, Any]) -> None:
        """Adds to the champion what it is called in the table, and its fresh scores."""
        self._write(self._record(evaluation, label, scores))

    def on_verdict(
        self, verdict: str, evaluation: Evaluation, label: str, scores: Mapping[str, Any]
    ) -> None:
        """Writes another row of the table as the champion is written: `recipe.smallest.json`."""
        file = self.champion.with_suffix(f".{verdict}.json")
        write_text(file, json.dumps(self._record(evaluation, label, scores), indent=2) + "\n")

    def _found(self, genes: Genes) -> dict[str, Any]:
        """Returns what the file says of a point, as JSON."""
        raise NotImplementedError(f"{type(self).__name__} must define _found(genes)")

    def _record(
        self, evaluation: Evaluation, label: str, fresh: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        searched = None
        if evaluation.number >= 0:  # else it is a point that only the comparison tried
            metric = self._problem.objectives[0].name
            searched = {"metric": metric, "value": evaluation.values[0], "seeds": 1}
        return {
            **self._found(evaluation.genes),
            "label": label,
            "evaluation": evaluation.number,
            "score_in_the_search": searched,
            "on_fresh_seeds": fresh,
            "trainable_share": evaluation.metrics.get("trainable_share"),
        }

    def _before(self) -> dict[str, Any]:
        try:
            record = json.loads(self.champion.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _write(self, record: Mapping[str, Any]) -> None:
        write_text(self.champion, json.dumps(record, indent=2) + "\n")


class MaskFiles(ChampionFile):
    """Writes the champion's mask of a run: `mask.json`, by block name."""

    file_name = "mask.json"

    def _found(self, genes: Genes) -> dict[str, Any]:
        problem = self._problem
        mask = {
            block.name: bit
            for block, bit in zip(problem.blocks, problem.mask_of(genes), strict=True)
        }
        return {
            "model": problem.model_name,
            "mask": mask,
            "frozen": [name for name, bit in mask.items() if bit],
            "lr": None if problem.has_own_optimizer else problem.lr_of(genes),
            "blocks": {b.name: [*b.modules, *b.loose_parameters] for b in problem.blocks},
            "beside": list(problem.beside),
            "frozen_before": list(problem.frozen_before),
        }


def load_mask(path: str | os.PathLike[str]) -> SavedMask:
    """Returns the mask of a `mask.json`: block name to 1 (frozen) or 0, for `apply_mask`.

    It knows what its blocks hold, so `apply_mask` needs no `blocks`, not even for blocks of one's
    own making, and refuses a model that has others.

    Args:
        path: The file, or the run's directory.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no mask.
    """
    return read_champion(path, MaskFiles.file_name, SavedMask.from_json, "a mask by block name")


_LOADERS = {"mask.json": "load_mask", "recipe.json": "load_recipe"}


def _instead(folder: Path) -> str:
    """Returns what a run has that lacks the file asked for."""
    for name, loader in _LOADERS.items():
        if (folder / name).exists():
            what = name.removesuffix(".json")
            return f": this run has a {what}, which {loader} of evonas.freezing reads"
    return (
        ": it is written where a search for masks (FreezingProblem) or recipes (RecipeProblem) has "
        "its first result"
    )


def read_champion(
    path: str | os.PathLike[str], file_name: str, parse: Callable[[Any], T], what: str
) -> T:
    """Returns what `parse` makes of a file, or of the one of this name in a run's directory.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no JSON, or none that `parse` takes.
    """
    path = Path(path)
    if path.is_dir():
        folder, path = path, path / file_name
        if not path.exists():
            raise FileNotFoundError(f"{folder} has no {file_name}{_instead(folder)}")
    elif not path.exists():
        raise FileNotFoundError(
            f"there is no {path}: pass a run's directory, or the {file_name} of one"
        )
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError, KeyError, AttributeError) as error:  # or no text at all
        raise ValueError(
            f"{path} must hold {what}, as a freezing search writes it ({error})"
        ) from error
