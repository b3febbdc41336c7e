"""The files that a mask search leaves for people."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from evonas.files import write_text
from evonas.freezing.saved_mask import SavedMask
from evonas.problem import RunFiles
from evonas.records import Evaluation

if TYPE_CHECKING:
    from evonas.freezing.problem import FreezingProblem

__all__ = ["ComparedFiles", "MaskFiles", "load_mask"]


class ComparedFiles(RunFiles, Protocol):
    """Files of a run whose champion may come from a comparison."""

    def on_comparison(self, evaluation: Evaluation, label: str, scores: Mapping[str, Any]) -> None:
        """Adds to the champion's file what it is called in the table, and its fresh scores."""


class MaskFiles:
    """Writes the champion's mask of a run: `mask.json`, by block name.

    Args:
        run_dir: The run's directory.
        problem: Whose masks these are.
    """

    def __init__(self, run_dir: Path, problem: FreezingProblem) -> None:
        self._problem = problem
        self.champion = run_dir / "mask.json"

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Nothing: a mask is its genes."""

    def on_champion(self, evaluation: Evaluation, attachments: Path | None) -> None:
        """Writes the champion's mask, whole or not at all, where it is another one."""
        label = self._problem.label(self._problem.mask_of(evaluation.genes))
        record = self._record(evaluation, label, None)
        before = self._before()
        same = ("mask", "lr", "evaluation", "score_in_the_search", "model", "blocks")
        if all(before.get(name) == record[name] for name in same):
            # What `compare_masks` added stays: it is about this champion.
            record |= {name: before.get(name) for name in ("label", "on_fresh_seeds")}
        self._write(record)

    def on_comparison(self, evaluation: Evaluation, label: str, scores: Mapping[str, Any]) -> None:
        """Adds to the champion's mask what it is called in the table, and its fresh scores."""
        self._write(self._record(evaluation, label, scores))

    def _record(
        self, evaluation: Evaluation, label: str, fresh: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        problem = self._problem
        mask = problem.mask_of(evaluation.genes)
        names = [block.name for block in problem.blocks]
        searched = None
        if evaluation.number >= 0:  # else it is a mask that only the comparison tried
            metric = problem.objectives[0].name
            searched = {"metric": metric, "value": evaluation.values[0], "seeds": 1}
        return {
            "model": problem.model_name,
            "mask": dict(zip(names, mask, strict=True)),
            "frozen": [name for name, bit in zip(names, mask, strict=True) if bit],
            "lr": None if problem.has_own_optimizer else problem.lr_of(evaluation.genes),
            "label": label,
            "evaluation": evaluation.number,
            "score_in_the_search": searched,
            "on_fresh_seeds": fresh,
            "trainable_share": evaluation.metrics.get("trainable_share"),
            "blocks": {b.name: [*b.modules, *b.loose_parameters] for b in problem.blocks},
            "beside": list(problem.beside),
        }

    def _before(self) -> dict[str, Any]:
        try:
            record = json.loads(self.champion.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _write(self, record: Mapping[str, Any]) -> None:
        write_text(self.champion, json.dumps(record, indent=2) + "\n")


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
    path = Path(path)
    if path.is_dir():
        path = path / "mask.json"
    try:
        return SavedMask.from_json(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:  # no JSON, or no text at all
        raise ValueError(
            f"{path} must hold a mask by block name, as a freezing search writes it ({error})"
        ) from error
