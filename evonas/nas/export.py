"""The files of a run for people, under the names of the published job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evonas.execution.weights import WEIGHTS
from evonas.files import copy_file, write_text
from evonas.records import EpochMetrics, Evaluation, Status
from evonas.run.files import ARCHITECTURES, STATISTICS

if TYPE_CHECKING:
    from evonas.nas.network_problem import NetworkProblem

__all__ = ["NasRunFiles"]


class NasRunFiles:
    """Writes the sources, the statistics and the champion of a classification run.

    * `ga_architecture/ga-<name>-<number>.py`: the source of each evaluated point; `number` is the
      evaluation's. Points that are `invalid` stand for no network and get none.
    * `stats/<task>_<dataset>_<metric>_ga-<name>-<number>/<epoch>.json`: a list of one
      record for each epoch, from 0.
    * `ga-champ-<name>.py` and `ga-champ-<name>.pt`: the champion as a module that runs alone, and
      its weights (a state_dict for `weights_only=True`).

    Each file is written whole or not at all, and only where it is missing or differs.

    Args:
        run_dir: The run's directory.
        problem: Whose points these are.

    Raises:
        RunStorageError: From its methods: a file cannot be written.

    Example:
        >>> files = NasRunFiles(Path("runs/demo"), problem)  # doctest: +SKIP
        >>> files.architecture(3)  # doctest: +SKIP
        PosixPath('runs/demo/ga_architecture/ga-alexnet-3.py')
    """

    def __init__(self, run_dir: Path, problem: NetworkProblem) -> None:
        self._run_dir = run_dir
        self._problem = problem

    @property
    def champion(self) -> Path:
        """Where the champion's module is."""
        return self._run_dir / f"ga-champ-{self._problem.name}.py"

    @property
    def champion_weights(self) -> Path:
        """Where the champion's weights are."""
        return self.champion.with_suffix(".pt")

    def architecture(self, number: int) -> Path:
        """Returns where the source of an evaluation is."""
        return self._run_dir / ARCHITECTURES / f"ga-{self._problem.name}-{number}.py"

    def statistics(self, number: int) -> Path:
        """Returns the folder of the per-epoch statistics of an evaluation."""
        metric = self._problem.metric_name
        metric = "acc" if metric == "accuracy" else metric
        label = f"{self._problem.task}_{self._problem.dataset}_{metric}"
        return self._run_dir / STATISTICS / f"{label}_ga-{self._problem.name}-{number}"

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Writes source and statistics of the evaluation."""
        source = self._problem.source(evaluation.genes)
        if source is None:  # an invalid point stands for no network
            return
        write_text(self.architecture(evaluation.number), source)
        folder = self.statistics(evaluation.number)
        for epoch in evaluation.epochs:
            record = self._record(evaluation, epoch)
            text = json.dumps([record], indent=4, sort_keys=True) + "\n"
            write_text(folder / f"{epoch.epoch}.json", text)

    def on_champion(self, evaluation: Evaluation, attachments: Path | None) -> None:
        """Writes the champion's module, and its weights where its trial attached them."""
        weights = None if attachments is None else attachments / WEIGHTS
        # Weights first, and none at all rather than those of another network: whoever finds the
        # new module next to a file of weights can load it.
        if weights is not None and weights.is_file():
            copy_file(weights, self.champion_weights)
        elif self._is_current(evaluation):
            return
        else:
            self.champion_weights.unlink(missing_ok=True)
        write_text(self.champion, self._champion_source(evaluation, evaluation.weights_of))

    def _is_current(self, evaluation: Evaluation) -> bool:
        """Whether the files are of this champion, of whichever of its trainings."""
        try:
            written = self.champion.read_text()
        except OSError:
            return False
        trainings = (None, *evaluation.repeats)
        return any(written == self._champion_source(evaluation, each) for each in trainings)

    def _champion_source(self, evaluation: Evaluation, training: Evaluation | None) -> str:
        """Returns the module, with the score of the training whose weights lie beside it."""
        problem, genes = self._problem, evaluation.genes
        n_epochs = problem.training_of(genes).n_epochs
        score = self._score(evaluation if training is None else training)
        title = f"The champion of a search by evonas: trial {evaluation.number} on"
        title += f" {problem.dataset},\n{score} on validation after {n_epochs} epochs."
        if training is not None and training is not evaluation:
            # Not the mean: with each further repeat it would be another file.
            title += (
                f"\nThat is the score of the weights beside this file, of its first repeat on a"
                f" fresh seed\n({training.seed}); `evonas show` has the mean of the repeats."
            )
            if all(each.seed != evaluation.seed for each in evaluation.repeats):
                title += f" In the search it had {self._score(evaluation)}."
        return problem.champion_source(genes, title)

    def _score(self, training: Evaluation) -> str:
        if training.status is not Status.OK:
            return f"ended {training.status}"
        return ", ".join(
            f"{objective.name} {value:.4f}"
            for objective, value in zip(self._problem.objectives, training.values, strict=False)
        )

    def _record(self, evaluation: Evaluation, epoch: EpochMetrics) -> dict[str, Any]:
        # Not the losses: readers of these files take every further field for a hyperparameter.
        names = dict.fromkeys(["accuracy", self._problem.metric_name])
        measured = {name: epoch.metrics[name] for name in names if name in epoch.metrics}
        return {
            **self._problem.prm(evaluation.genes),
            **measured,
            "batch": self._problem.batch_size,
            "duration": round(epoch.seconds * 1e9),
            "transform": self._problem.transform,
            "uid": evaluation.key,
        }
