"""The files that a mask search leaves for people."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from evonas.records import Evaluation

if TYPE_CHECKING:
    from evonas.freezing.problem import FreezingProblem

__all__ = ["MaskFiles", "load_mask"]


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
        problem = self._problem
        mask = problem.mask_of(evaluation.genes)
        names = [block.name for block in problem.blocks]
        record = {
            "model": problem.model_name,
            "mask": dict(zip(names, mask, strict=True)),
            "frozen": [name for name, bit in zip(names, mask, strict=True) if bit],
            "label": problem.label(mask),
            "evaluation": evaluation.number,
            problem.objectives[0].name: evaluation.values[0],
            "trainable_share": evaluation.metrics.get("trainable_share"),
        }
        _write(self.champion, json.dumps(record, indent=2) + "\n")


def load_mask(path: str | os.PathLike[str]) -> dict[str, int]:
    """Returns the mask of a `mask.json`: block name to 1 (frozen) or 0, for `apply_mask`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no mask.
    """
    wrong = f"{path} must hold a mask by block name, as a freezing search writes it"
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no text at all
        raise ValueError(f"{wrong} ({error})") from error
    mask = record.get("mask") if isinstance(record, dict) else None
    if not isinstance(mask, dict) or not all(value in (0, 1) for value in mask.values()):
        raise ValueError(wrong)
    return mask


def _write(path: Path, text: str) -> None:
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(handle)
    temporary = Path(name)
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o644)  # mkstemp's 0600 would hide the file from colleagues
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
