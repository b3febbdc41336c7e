"""What is searched: a space, a fitness function, and where there is one the source of a point."""

from __future__ import annotations

import hashlib
import inspect
import io
import sys
import tokenize
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from evonas.arguments import check_string
from evonas.objectives import Objective, as_objectives
from evonas.records import Evaluation, Genes
from evonas.space import SearchSpace, canonical_json
from evonas.space.naming import fingerprint_of

if TYPE_CHECKING:
    from evonas.execution.trial import Trial

__all__ = ["FitnessFunction", "FunctionProblem", "Problem", "RunFiles"]

FitnessFunction = Callable[[Genes, "Trial"], Any]
"""`(genes, trial)` to a number, a tuple of numbers (one per objective), or a dict by objective."""


class RunFiles(Protocol):
    """Writes the files made for people beside `run.db`.

    Each method writes whole files or none (temporary file, then rename), may be called again with
    the same record (after a crash), and then leaves what is there.
    """

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Writes the files of one committed evaluation, where they are missing."""

    def on_champion(self, evaluation: Evaluation, attachments: Path | None) -> None:
        """Writes the champion's files; `attachments` is the folder of what its trial attached.

        After `confirm` that is its first repeat, with a score of its own: `evaluation.weights_of`.
        """


class Problem:
    """A space, objectives and a fitness; subclass it where a point stands for more than its genes.

    Everything but `evaluate` has a default that is right for a problem without source code.

    Pickling: workers receive the problem through cloudpickle once; keep large data out of it or
    make it shareable.

    Args:
        space: The search space.
        objectives: What `evaluate` returns, in this order. None: one, `fitness`, maximised.
    """

    def __init__(
        self, space: SearchSpace, *, objectives: Objective | Sequence[Objective] | None = None
    ) -> None:
        if not isinstance(space, SearchSpace):
            raise TypeError(f"space must be a SearchSpace, got {type(space).__name__}")
        self.space = space
        self.objectives = as_objectives(objectives)

    def __repr__(self) -> str:
        wanted = ", ".join(f"{each.name} ({each.direction})" for each in self.objectives)
        return f"<{type(self).__name__}: {len(self.space)} genes, {wanted}>"

    builder_takes_genes: bool = True
    """Whether `builder` is a function of the genes; else it is called without arguments."""

    preparation: str | None = None
    """What `configure` does at a run's first start that may take seconds, for people."""

    choice: str | None = None
    """What `configure` chose by itself, and what follows from it, for people: said at the first
    start."""

    tie_breaker: str | None = None
    """A metric that every trial records, of which less is better among equals: a cost."""

    @property
    def uses_torch(self) -> bool:
        """Whether trials need torch's seeds and threads set (True once torch is imported)."""
        return "torch" in sys.modules

    def configure(self, stored: Mapping[str, Any] | None) -> dict[str, Any]:
        """Returns the settings that are chosen once a run (a precision, say), as JSON.

        Called in the driver before anything else: with None at a run's first start, later with
        what the first start chose, which must then be used. Each trial gets them as
        `trial.settings`.
        """
        return dict(stored or {})

    def settings_for(
        self, genes: Genes, settings: Mapping[str, Any], say: Callable[[str], None]
    ) -> Mapping[str, Any]:
        """Returns the run's settings, with what a trial of these genes needs decided beforehand.

        Called in the driver before each trial. What it adds is kept with the run, and settles for
        good what trials like this one do: one that is made again must come to the same.

        Args:
            genes: Of the trial.
            settings: Those of the run so far.
            say: Tells people what takes its time.

        Returns:
            `settings` itself where nothing is to be added.
        """
        return settings

    def fingerprint(self) -> dict[str, Any]:
        """Returns, as flat JSON, all that makes two evaluations of one key comparable.

        Data identity and split, epochs, batch size, precision, version of the code generator.
        Called after `configure`. A run started under another fingerprint is refused. An entry
        `code` is compared only where both fingerprints have one.
        """
        return {"problem": type(self).__qualname__, "code": fingerprint_of(type(self))}

    def sample_step(self) -> tuple[Callable[[], object], int] | None:
        """Returns a function that does one training step of a typical trial, and how many it has.

        For choosing workers and threads at a run's first start, after `configure`. None: unknown.
        """
        return None

    def invalid_reason(self, genes: Genes) -> str | None:
        """Returns why these genes are invalid (found without training), or None."""
        return None

    def initial_points(self, n: int) -> Sequence[Genes]:
        """Returns points worth trying first, for a first population of `n`; none by default.

        Asked for where the caller of `evolve` gives no `initial`. Must be deterministic.
        """
        return ()

    def source(self, genes: Genes) -> str | None:
        """Returns the source code that these genes stand for, or None where there is none.

        Must be deterministic. Comments do not count for the key.
        """
        return None

    def training_genes(self, genes: Genes) -> Genes:
        """Returns those active genes that are not already in the source (a learning rate).

        Only asked for where `source` returns code.
        """
        return genes

    def strip(self) -> Mapping[str, Any]:
        """Returns how a point is drawn as a strip of blocks, as JSON; empty where it is not one.

        `blocks` names the genes that are blocks, from the input of the model on, `states` has a
        pair of value and words for each value of theirs, that which trains nothing first, and
        `labels` the values of all blocks of those points that people have a name for.
        """
        return {}

    def build(self, genes: Genes) -> Any:
        """Returns the untrained `torch.nn.Module` of these genes, into which weights are loaded.

        Raises:
            NotImplementedError: The problem knows of no module.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define build(genes)")

    @property
    def builder(self) -> Callable[..., Any] | None:
        """The user's function behind `build`, found again by its name; None: there is none.

        So that `Evaluation.load_model` needs no argument in another process of this machine.
        """
        return None

    def key(self, genes: Genes) -> str:
        """Returns the SHA-256 (hexadecimal) of what the genes build; equal keys, equal points.

        Args:
            genes: Active genes in canonical form.
        """
        source = self.source(genes)
        if source is None:
            return self.space.key(genes)
        text = _without_comments(source) + "\n" + canonical_json(self.training_genes(genes))
        return hashlib.sha256(text.encode()).hexdigest()

    def seed_key(self, genes: Genes, key: str) -> str:
        """Returns what the trial's seed follows from, beside the run's: by default the point's key.

        Points of one seed key have one seed, as a training and its continuation must.
        """
        return key

    def evaluate(self, genes: Genes, trial: Trial) -> Any:
        """Returns the fitness of the genes: a number, a tuple or a dict by objective.

        Raises:
            InvalidPoint: The genes are invalid.
            Exception: Anything else becomes status `failed`, with its traceback.
        """
        raise NotImplementedError(f"{type(self).__name__} must define evaluate(genes, trial)")

    def fusion_obstacle(self) -> str | None:
        """Returns why points of this problem cannot be trained at once, in words; None: they can.

        Where they can, `fusion_key` and `evaluate_fused` are defined, too.
        """
        return f"evonas does not know how {type(self).__name__} trains"

    def fusion_key(self, genes: Genes) -> str:
        """Returns what points share that may be trained at once: the shapes of their models.

        It holds within this process only.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define fusion_key(genes)")

    def evaluate_fused(self, genes: Sequence[Genes], trials: Sequence[Trial]) -> list[Any]:
        """Returns for each of several points what `evaluate` returns, or what ended its trial.

        Args:
            genes: Points of one `fusion_key`.
            trials: Of each: it reports, is pruned and attaches by itself.

        Raises:
            FusionError: They cannot be trained at once.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define evaluate_fused")

    def run_files(self, run_dir: Path) -> RunFiles | None:
        """Returns the writer of the files for people, or None where the database is all."""
        return None


class FunctionProblem(Problem):
    """A space and a user's fitness function.

    Args:
        space: The search space.
        fitness: Called as `fitness(genes, trial)`.
        objectives: See `Problem`.
        problem_id: Names data and settings that the function uses: change it when old
            evaluations no longer compare with new ones. None: the function's name, and a digest of
            its code and of what it calls (see `fingerprint_of`).
    """

    def __init__(
        self,
        space: SearchSpace,
        fitness: FitnessFunction,
        *,
        objectives: Objective | Sequence[Objective] | None = None,
        problem_id: str | None = None,
    ) -> None:
        super().__init__(space, objectives=objectives)
        if not callable(fitness):
            raise TypeError(
                f"fitness must be callable as fitness(genes, trial), got {type(fitness).__name__}"
            )
        self.fitness = fitness
        _check_arity(fitness)
        if problem_id is not None:
            check_string("problem_id", problem_id)
        self.problem_id = problem_id or getattr(fitness, "__qualname__", type(fitness).__qualname__)
        self._is_named = problem_id is not None

    def fingerprint(self) -> dict[str, Any]:
        """Returns the `problem_id`, and the function's code where none was given."""
        named = {"problem_id": self.problem_id}
        return named if self._is_named else {**named, "code": fingerprint_of(self.fitness)}

    def evaluate(self, genes: Genes, trial: Trial) -> Any:
        """Returns what the user's function returns."""
        return self.fitness(genes, trial)


def _check_arity(fitness: FitnessFunction) -> None:
    """Refuses a function that cannot be called with genes and a trial."""
    try:
        signature = inspect.signature(fitness)
    except (TypeError, ValueError):  # some functions of C have none
        return
    try:
        signature.bind({}, None)
    except TypeError as error:
        name = getattr(fitness, "__name__", type(fitness).__name__)
        raise TypeError(
            f"fitness must be callable as fitness(genes, trial), got {name}{signature} ({error})"
        ) from None


def _without_comments(source: str) -> str:
    # By tokens, not through ast.unparse: its layout differs between Python versions, and keys
    # must not.
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return "\n".join(line.rstrip() for line in lines if line.strip())
