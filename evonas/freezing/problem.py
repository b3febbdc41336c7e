"""Which blocks of a pretrained model to freeze, as a problem: a point is a mask."""

from __future__ import annotations

import copy
import logging
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from evonas.arguments import check_bool, check_int
from evonas.execution.torch_env import torch_threads
from evonas.freezing._device_cache import DeviceCache
from evonas.freezing._pretrained import Pretrained
from evonas.freezing._reuse import settings_with_reuse
from evonas.freezing._setup import (
    check_functions,
    check_groups,
    check_unseen,
    check_val_size,
    code_of,
    identity_of,
    names_outside,
    rates_of,
    warn_of_fresh,
    without_frozen,
)
from evonas.freezing.advice import frozen_in_words, mask_label, strip_of, usual_masks
from evonas.freezing.blocks import Granularity, Patterns, find_blocks
from evonas.freezing.files import ChampionFile, MaskFiles
from evonas.freezing.mask import (
    AppliedMask,
    Mask,
    apply_mask,
    as_mask,
    frozen_parameters,
    trainable_parameter_groups,
    trainable_share,
)
from evonas.freezing.prefix.decision import ReuseDecision, first_decision
from evonas.freezing.prefix.session import PrefixSession
from evonas.objectives import Objective
from evonas.records import Evaluation, Genes
from evonas.run.hints import with_hints
from evonas.space import SearchSpace
from evonas.space.gene import Gene
from evonas.space.genes import Boolean, Categorical
from evonas.training import (
    Augment,
    PeakMemory,
    evaluate,
    fingerprint_of,
    place,
    readable_name,
    seeded,
)
from evonas.training.data.examples import Examples, as_examples
from evonas.training.data.loaders import GivenData
from evonas.training.data.parts import matched, preprocessing_of
from evonas.training.problem import TrainingProblem
from evonas.training.recipe import Schedule, Training
from evonas.training.targets import check_targets

if TYPE_CHECKING:
    from evonas.execution.trial import Trial

__all__ = ["FreezingProblem"]

_log = logging.getLogger(__name__)

ModelFactory = Callable[[], nn.Module]
LossFunction = Callable[[Tensor, Tensor], Tensor]
Metric = Callable[[Tensor, Tensor], float]
OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]
"""Parameter groups (see `trainable_parameter_groups`) to an optimizer of them."""

COSTS = ("trainable_share", "trainable_params", "train_seconds")
"""What may be an objective beside the metric (to be minimised)."""


class FreezingProblem(TrainingProblem):
    """Fine-tunes a pretrained model under a freeze mask and returns its validation accuracy.

    One Boolean gene for each block, in forward order: True frozen, False trainable. Blocks that the
    factory has frozen already have none and stay as they are. Each training starts from the same
    pretrained weights, with a head that is initialised by the trial's seed (which comes from the
    mask's key, so two runs agree), trains what the mask leaves trainable with AdamW, and starts
    behind the frozen prefix where that trains the same network up to rounding (`decide_reuse`).

    Of masks that score the same the champion is the one that trains the fewest parameters.

    The first population contains the usual advice: full fine-tuning, head only, and the first k
    blocks frozen for each k (`initial_points`).

    On record for each mask: `trainable_params`, `trainable_share` in [0, 1], `train_seconds`
    (computing prefixes included, validation not), `examples_per_second`, `peak_memory_bytes` and
    `prefix_depth`, how many blocks were not computed in each epoch.

    Args:
        model_factory: Returns a new pretrained model at each call: it may initialise a head from
            torch's global generator. For a shared model: `lambda: copy.deepcopy(model)`.
        train: The training examples: `Examples`, or `(inputs, targets)`.
        val: The validation examples.
        blocks: Patterns in place of the rules of `find_blocks`.
        granularity: What counts as a block, see `find_blocks`.
        include_head: Whether the head is a gene too.
        n_epochs: Epochs of each training.
        batch_size: Examples a step.
        lr: Learning rate of AdamW; or several, of which a gene `lr` chooses: which mask is best
            depends on the rate, and full fine-tuning at a poor one is no rival.
        weight_decay: Of weights of two dimensions or more; biases and norms are not decayed.
        optimizer: Parameter groups to an optimizer, instead of AdamW with this `lr`.
        schedule: `linear`: the rate rises for the first tenth of the steps and falls to 0;
            `constant`, `cosine`, `one_cycle`: see `Training`.
        grad_clip: Greatest gradient norm. None: not clipped.
        loss_function: `(outputs as float32, targets)` to a scalar tensor. None: cross entropy.
        metric: `(outputs (N, ...), targets (N, ...))` to a float that is maximised; an error
            needs `objectives=Objective(its name, "min")`. None: accuracy. A lambda is called
            `metric` on record; all validation examples come at once.
        augment: Changes images at random, which forbids the reuse of prefixes.
        reuse_prefix: Whether frozen prefixes may be computed once.
        prefix_memory_bytes: Memory for their outputs, in each worker.
        prefix_file_bytes: Disk space for what does not fit, in each worker.
        device: For which the precision is chosen. Where trials run is the executor's business.
        threads: With how many threads a trial computes, for the same choice.
        precision: `"float32"` or `"bfloat16"`. None: the faster one here, kept in the run.
        objectives: None: the metric, maximised. Others may be `trainable_share`,
            `trainable_params` and `train_seconds`.

    Raises:
        TypeError: An argument, or what `optimizer` returns, has another type.
        ValueError: A number is out of range; the model has no parameters, one block, a block that
            never runs or nothing but frozen blocks; the factory returns the same model twice; a
            label is none of the model's classes; `optimizer` leaves parameters out.

    Example:
        >>> def pretrained():
        ...     return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))
        >>> data = torch.randn(64, 4), torch.arange(64) % 2
        >>> problem = FreezingProblem(pretrained, data, data, n_epochs=1, precision="float32")
        >>> [block.name for block in problem.blocks]
        ['0', '2']
        >>> problem.genes_of([1, 0])
        {'0': True, '2': False}
        >>> from evonas.run.evolve import evolve
        >>> result = evolve(problem, population=4, generations=1, seed=0)
        >>> sorted(problem.mask_of(entry.genes) for entry in result.evaluations)
        [(0, 0), (0, 1), (1, 0), (1, 1)]
    """

    costs = COSTS
    cuda_graphs = False  # a training behind a stored prefix changes what modules do
    builder_takes_genes = False
    tie_breaker = "trainable_share"
    noun, words_for = "mask", "frozen"  # a row of a table, and the head of its column of `words`

    @with_hints({})
    def __init__(
        self,
        model_factory: ModelFactory,
        train: Examples | tuple[Any, Any],
        val: Examples | tuple[Any, Any],
        *,
        blocks: Patterns | None = None,
        granularity: Granularity = "block",
        include_head: bool = False,
        n_epochs: int = 3,
        batch_size: int = 32,
        lr: float | Sequence[float] = 5e-5,
        weight_decay: float = 0.01,
        optimizer: OptimizerFactory | None = None,
        schedule: Schedule = "linear",
        grad_clip: float | None = 1.0,
        loss_function: LossFunction | None = None,
        metric: Metric | None = None,
        augment: Augment | None = None,
        reuse_prefix: bool = True,
        prefix_memory_bytes: int = 1 << 30,
        prefix_file_bytes: int = 4 << 30,
        device: str = "cpu",
        threads: int = 1,
        precision: str | None = None,
        objectives: Objective | Sequence[Objective] | None = None,
    ) -> None:
        if isinstance(model_factory, nn.Module) or not callable(model_factory):
            raise TypeError(
                "model_factory must be a function that returns a new pretrained model, got "
                f"{type(model_factory).__name__}: for a model, pass lambda: copy.deepcopy(model)"
            )
        check_functions(loss_function, metric, optimizer)
        check_bool("include_head", include_head)
        check_bool("reuse_prefix", reuse_prefix)
        check_int("threads", threads, minimum=1)
        check_int("prefix_memory_bytes", prefix_memory_bytes, minimum=0, maximum=None)
        check_int("prefix_file_bytes", prefix_file_bytes, minimum=0, maximum=None)
        self.rates = rates_of(lr, has_own=optimizer is not None)
        self.training = Training(
            n_epochs, batch_size, "adamw", self.rates[len(self.rates) // 2],
            weight_decay=weight_decay, schedule=schedule, grad_clip=grad_clip,
        )  # fmt: skip
        # On the CPU, where models are built and looked at; each device gets its own copy.
        self.train = as_examples(train, "train").to("cpu")
        self.val = matched(as_examples(val, "val").to("cpu"), self.train, "val")
        # In a large batch the longest text pads all others: 128 docstrings, of 17 tokens on average
        # and 58 at most, took MiniLM 1.9 s in one batch and 0.8 s in four (n = 5, one thread).
        self.eval_batch_size = 128 if self.train.layout is None else 32
        self.model_factory, self.reuse_prefix = model_factory, reuse_prefix
        self._own_loss, self._own_optimizer = loss_function, optimizer
        self.prefix_bytes = (prefix_memory_bytes, prefix_file_bytes)
        self._test: Examples | None = None
        self._test_identity: str | None = None
        self._reuse: Mapping[str, Any] | None = None
        self._places: dict[str, DeviceCache] = {}

        with torch_threads(threads):  # more than the trials have would wait for each other
            self.pretrained, model = Pretrained.of(model_factory)
            self.model_name = type(model).__name__
            self._code = f"{fingerprint_of(type(model))}, {code_of(model_factory)}"
            sample = self.train.gather(torch.arange(min(2, len(self.train))))
            found = find_blocks(
                model, sample, granularity=granularity, blocks=blocks, include_head=include_head
            )
            self.blocks = without_frozen(model, found)
            targets = {"train": self.train.targets, "val": self.val.targets}
            check_targets(model, sample, targets, loss_function=loss_function, metric=metric)
        if metric is None:
            check_val_size(len(self.val))
        self.beside = names_outside(model, self.blocks)
        self.frozen_before = tuple(sorted(frozen_parameters(model)))
        self._has_trainable_outside_blocks = not set(self.beside).issubset(self.frozen_before)
        warn_of_fresh(self.model_name, self.blocks, self.pretrained.fresh)
        super().__init__(
            self._space(),
            GivenData(self.train, self.val),
            training=self.training,
            metric=metric,
            metric_name="accuracy" if metric is None else readable_name(metric, "metric"),
            objectives=objectives,
            augment=augment,
            device=device,
            threads=threads,
            precision=precision,
        )
        self._try_optimizer(model)

    @property
    def head_is_a_gene(self) -> bool:
        """Whether the last block is the head, which the mask may freeze."""
        return bool(self.blocks) and self.blocks[-1].is_head

    @property
    def has_own_optimizer(self) -> bool:
        """Whether `optimizer` was given, which has a learning rate of its own."""
        return self._own_optimizer is not None

    def mask_of(self, genes: Genes) -> tuple[int, ...]:
        """Returns the mask of a point: 1 (frozen) or 0 for each block, in forward order."""
        return tuple(int(genes[block.name]) for block in self.blocks)

    def genes_of(self, mask: Mask, lr: float | None = None) -> Genes:
        """Returns the point of a mask.

        Args:
            mask: Of these blocks.
            lr: Which of several learning rates. None: the one in their middle.

        Raises:
            TypeError, ValueError: It is no mask of these blocks, see `as_mask`.
        """
        bits = map(bool, as_mask(mask, self.blocks))
        genes: Genes = dict(zip((block.name for block in self.blocks), bits, strict=True))
        if len(self.rates) > 1:
            genes["lr"] = self.training.lr if lr is None else lr
        return genes

    def lr_of(self, genes: Genes) -> float:
        """Returns the learning rate with which AdamW trains a point."""
        return float(genes["lr"]) if len(self.rates) > 1 else self.training.lr

    def label(self, mask: Sequence[int]) -> str:
        """Returns what people call a mask, see `mask_label`."""
        return mask_label(mask, head_is_a_gene=self.head_is_a_gene)

    def without_rate(self, genes: Genes) -> tuple[tuple[str, Any], ...]:
        """Returns what a point does to the blocks, whatever its learning rate."""
        return tuple((block.name, genes[block.name]) for block in self.blocks)

    def label_of(self, genes: Genes) -> str:
        """Returns what people call a point, see `label`."""
        return self.label(self.mask_of(genes))

    def short(self, genes: Genes) -> str:
        """Returns a point for a line of a log: the mask."""
        return str(list(self.mask_of(genes)))

    def words(self, genes: Genes) -> str:
        """Returns a point for a table: the mask, and what it freezes by name."""
        names = [block.name for block in self.blocks]
        return f"{self.short(genes)} {frozen_in_words(names, self.mask_of(genes))}"

    def strip(self) -> dict[str, Any]:
        """Returns the blocks with their states and the points that people try by hand."""
        return strip_of([block.name for block in self.blocks], self.state_words(), self.rivals())

    def state_words(self) -> list[list[Any]]:
        """Returns the states of a block with what they are called, see `strip`."""
        return [[True, "frozen"], [False, "trained"]]

    def random_point(self, rng: random.Random, lr: float) -> Genes:
        """Returns a random mask, at a learning rate."""
        return self.genes_of([int(rng.random() < 0.5) for _ in self.blocks], lr)

    def rivals(self) -> dict[str, list[Genes]]:
        """Returns the usual masks by what they are called, each at each learning rate."""
        masks = usual_masks(len(self.blocks), head_is_a_gene=self.head_is_a_gene)
        return {
            self.label(mask): [self.genes_of(mask, lr) for lr in self.rates]
            for mask in masks
            if self.invalid_reason(self.genes_of(mask)) is None
        }

    def initial_points(self, n: int) -> list[Genes]:
        """Returns the usual advice for a first population of `n`, which it fills at most 3/4.

        Each mask at each of the learning rates.
        """
        most = max(1, 3 * n // 4)
        n_masks = max(1, most // len(self.rates))
        masks = usual_masks(len(self.blocks), n_masks, head_is_a_gene=self.head_is_a_gene)
        points = [self.genes_of(mask, lr) for mask in masks for lr in self.rates][:most]
        return [point for point in points if self.invalid_reason(point) is None]

    def configure(self, stored: Mapping[str, Any] | None) -> dict[str, Any]:
        """Returns the precision, and what is known of where prefixes may be reused."""
        chosen = super().configure(stored)
        kept = (stored or {}).get("reuse") or self._reuse
        self._reuse = self._first_decision().to_json() if kept is None else kept
        return {**chosen, "reuse": self._reuse}

    def settings_for(
        self, genes: Genes, settings: Mapping[str, Any], say: Callable[[str], None]
    ) -> Mapping[str, Any]:
        """Returns the settings with how a training of the point starts behind its frozen blocks.

        A depth is tried when a point first needs it, which takes at most a tenth of a training.
        """
        found = settings_with_reuse(
            settings, self.mask_of(genes), self.model_factory, self.blocks, self.train,
            self.training.n_epochs, say,
        )  # fmt: skip
        self._reuse = found["reuse"]
        return found

    def sample_point(self) -> Genes:
        """Returns the mask of full fine-tuning."""
        return self.genes_of([0] * len(self.blocks))

    def optimizer(self, model: nn.Module, genes: Genes) -> Optimizer:
        """Returns an optimizer of what is trainable; biases and norms are not decayed."""
        training = self.training_of(genes)
        groups = trainable_parameter_groups(model, training.weight_decay)
        made = (self._own_optimizer or training.make_optimizer)(groups)
        check_groups(made, groups, "groups")
        return made

    def _try_optimizer(self, model: nn.Module) -> None:
        with apply_mask(model, [0] * len(self.blocks), blocks=self.blocks):
            self.optimizer(model, self.sample_point())

    def training_of(self, genes: Genes) -> Training:
        """Returns the settings, with the learning rate of the point."""
        return replace(self.training, lr=self.lr_of(genes))

    def loss_function(self, genes: Genes) -> LossFunction:
        """Returns the loss that was given, or cross entropy."""
        return self._own_loss or super().loss_function(genes)

    def fingerprint(self) -> dict[str, Any]:
        """Returns what makes two trainings comparable: weights, data, training, precision."""
        loss, optimizer = self._own_loss, self._own_optimizer
        own = {} if optimizer is None else {"optimizer": fingerprint_of(optimizer), "lr": None}
        return {
            "problem": "freezing",
            "model": self.model_name,
            "weights": self.pretrained.identity,
            "blocks": identity_of(self.blocks, self.frozen_before),
            **super().fingerprint(),
            **own,
            **({"lr": list(self.rates)} if len(self.rates) > 1 else {}),
            "loss": "cross_entropy" if loss is None else fingerprint_of(loss),
            "code": self._code,  # last: of several differences the others say more
        }

    def invalid_reason(self, genes: Genes) -> str | None:
        """Returns why nothing would be left to train, or None."""
        if self._has_trainable_outside_blocks or not all(self.mask_of(genes)):
            return None
        return "every block is frozen and no head is trainable: nothing is left to train"

    def with_test(self, test: Examples | tuple[Any, Any]) -> FreezingProblem:
        """Returns the same problem, whose trainings also record `test_<metric>` at their end.

        For trainings after the search: the search itself must not see the test examples.

        Raises:
            TypeError: They are something else than examples.
            ValueError: They are the training or validation examples, or their labels are wrong.
        """
        other = copy.copy(self)
        other._places = {}
        other._test = matched(as_examples(test, "test").to("cpu"), self.train, "test")
        other._test_identity = other._test.identity
        check_unseen(other._test, {"training": self.train, "validation": self.val})
        with seeded(0):
            model = self.model_factory()
        sample = self.train.gather(torch.arange(min(2, len(other._test), len(self.train))))
        targets = {"test": other._test.targets}
        check_targets(model, sample, targets, loss_function=self._own_loss, metric=self.metric)
        return other

    def has_tested(self, record: Evaluation) -> bool:
        """Whether a record's training was scored on the test examples of `with_test`."""
        return self._test is None or record.metrics.get("test_set") == self._test_identity

    def evaluate(self, genes: Genes, trial: Trial) -> float | dict[str, float]:
        """Trains the model under the mask and returns its validation metric after the last epoch.

        Reports the metric, `train_loss` and `lr` each epoch. Everything random comes from
        `trial.seed`; torch's global generator is left as it was.

        Raises:
            RuntimeError: No gradient reached a block that the mask leaves trainable.
            FitnessError: The metric returned NaN of outputs that are numbers.
        """
        mask = self.mask_of(genes)
        with (
            seeded(trial.seed, trial.device),
            PeakMemory(trial.device) as peak,
            apply_mask(place(self.build(genes), trial.device), mask, blocks=self.blocks) as applied,
        ):
            self._restrict(applied, genes)
            trained = [p for p in applied.model.parameters() if p.requires_grad]
            trial.record(
                trainable_params=sum(p.numel() for p in trained),
                trainable_share=trainable_share(applied.model),
                test_set=self._test_identity,  # also where the training fails: see `has_tested`
            )
            value = self._fine_tune(applied, genes, trial)
            values = {**trial.metrics, self.metric_name: value}
            fitness = self.fitness(values, applied.model, genes, trial)
        trial.record(peak_memory_bytes=peak.memory_bytes)
        return fitness

    def _restrict(self, applied: AppliedMask, genes: Genes) -> None:
        """Freezes more than the mask does; nothing here."""

    def _fine_tune(self, applied: AppliedMask, genes: Genes, trial: Trial) -> float:
        """Trains behind the frozen prefix; records what it took, and the test score if asked for.

        Raises:
            RuntimeError: No gradient reached a block that the mask leaves trainable.
            FitnessError: The metric returned NaN of outputs that are numbers.
        """
        settings = trial.settings.problem or self.configure(None)
        settings = self.settings_for(genes, settings, _log.info)  # done, unless called by hand
        decision = ReuseDecision.from_json(settings["reuse"])
        cache, precision = self._place(trial.device), settings["precision"]
        began = time.perf_counter()
        with PrefixSession(
            applied, cache.examples, decision, cache.store, precision=precision
        ) as session:
            train, val = session.source("train"), session.source("val")
            seconds = time.perf_counter() - began
            with applied.watching_gradients():
                found = self.fit(applied.model, genes, trial, train, val)
            value, seconds = found[self.metric_name], seconds + found["train_seconds"]
            if math.isfinite(value):
                applied.check_gradients()
            if "test" in cache.examples and math.isfinite(value):
                score = evaluate(
                    applied.model, session.source("test").batches(self.eval_batch_size),
                    metric=lambda *found: self.score(*found)[self.metric_name], precision=precision,
                )  # fmt: skip
                trial.record(**{f"test_{self.metric_name}": score})
            trial.record(prefix_depth=session.depths["train"])
        n_trained = self.training_of(genes).n_epochs * len(self.train)
        trial.record(train_seconds=seconds, examples_per_second=n_trained / seconds)
        return value

    def keep(self, model: nn.Module, genes: Genes, trial: Trial) -> None:
        """Keeps the fine-tuned weights, and what the model is made of."""
        example = self._place(trial.device).examples["val"].gather(torch.arange(1))
        trial.save(model, example, known={"preprocessing": preprocessing_of(self.train)})

    def build(self, genes: Genes) -> nn.Module:
        """Returns a pretrained model, before any fine-tuning."""
        return self.model_factory()

    @property
    def builder(self) -> ModelFactory:
        """The model factory."""
        return self.model_factory

    def run_files(self, run_dir: Path) -> ChampionFile:
        """Returns the writer of `mask.json`, the champion's mask."""
        return MaskFiles(run_dir, self)

    def _space(self) -> SearchSpace:
        return self._with_rates({block.name: Boolean() for block in self.blocks})

    def _with_rates(self, genes: dict[str, Gene], conditions: Any = None) -> SearchSpace:
        if len(self.rates) > 1:
            if "lr" in genes:
                raise ValueError("a block is called 'lr', as the gene of several learning rates is")
            genes["lr"] = Categorical(list(self.rates))
        return SearchSpace(genes, conditions=conditions)

    def _first_decision(self) -> ReuseDecision:
        if not self.reuse_prefix:
            return ReuseDecision({}, {0: "reuse_prefix is False"})
        return first_decision(self.model_name, self.train, augmented=self.augment is not None)

    def _place(self, device: str) -> DeviceCache:
        if device not in self._places:
            examples = {"train": self.train, "val": self.val}
            if self._test is not None:
                examples["test"] = self._test
            self._places[device] = DeviceCache.on(device, examples, *self.prefix_bytes)
        return self._places[device]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_places": {}}
