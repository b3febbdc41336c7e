"""Fine-tuning recipes as a problem: a point says for each block what is trained, and how fast."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from evonas.arguments import (
    check_bool,
    check_function,
    check_int,
    check_list,
    check_mapping,
    check_number,
)
from evonas.execution.torch_env import torch_threads
from evonas.execution.trial import Trial
from evonas.freezing._setup import check_groups
from evonas.freezing.adapters import lora_rank, merge_adapters, require_peft
from evonas.freezing.files import ChampionFile
from evonas.freezing.mask import AppliedMask, Mask, applied_mask, as_mask
from evonas.freezing.prefix.decision import ReuseDecision
from evonas.freezing.problem import FreezingProblem
from evonas.freezing.recipe import Recipe
from evonas.freezing.recipe_genes import (
    Compact,
    PerBlock,
    StateGenes,
    check_decays,
    check_own_genes,
    default_of,
    takes_genes,
)
from evonas.freezing.recipe_table import HEAD
from evonas.freezing.rivals import GRADUALLY, by_hand, by_looking, first_frozen, frozen_by, spread
from evonas.freezing.states import FROZEN, State, n_trained, state_in_words, states_of
from evonas.freezing.unfreezing import AT_ONCE, GRADUAL, UNFREEZING
from evonas.records import Genes
from evonas.space import SearchSpace
from evonas.space.gene import Gene
from evonas.space.genes import Categorical
from evonas.training import fingerprint_of, seeded
from evonas.training.recipe import TRAINING_GENES, Training

__all__ = ["RecipeFiles", "RecipeProblem"]

_N_FIRST_K = 3  # depths k of "the first k frozen" that are tried before other rates are
_N_LOOKED_AT = 64  # training examples of which gradients are taken


class RecipeProblem(FreezingProblem):
    """Fine-tunes a pretrained model by a recipe and returns its validation accuracy.

    One gene for each block, in forward order: `frozen`; only its `norms`, its `biases` or, with
    `ranks`, LoRA adapters of its layers trained; or all of it, at a multiple of the learning
    rate. A gene `lr`, where there are several; a gene `unfreezing`, whether trained blocks begin at
    once or in turn; and whatever `genes` adds. What is in no block, the head as a rule, is
    trained at the rate itself. All else is as in `FreezingProblem`: the same pretrained weights,
    AdamW, frozen prefixes computed once.

    The first population contains what people try, each at each learning rate: full fine-tuning,
    head only, norms only, biases only (BitFit), adapters everywhere (LoRA), rates that fall from
    the head to the input (layer-wise decay), gradual unfreezing (ULMFiT), rates by the relative
    norm of each block's gradient (Auto-RGN), the half of the blocks whose weights have the larger
    signal-to-noise ratio (Spectrum), and the first k blocks frozen.

    Args:
        model_factory: See `FreezingProblem`.
        train: Likewise.
        val: Likewise.
        lr: One learning rate, or several of which a gene chooses.
        multiples: Of the rate, of which a trained block has one; 1 is always among them.
        ranks: Of LoRA adapters, of which a block's linear layers and convolutions may have one
            instead: all of them, or those of its attention. Needs peft (extra `lora`).
        gradual: Whether there is the gene `unfreezing`.
        compact: Three genes in place of one for each block: `n_frozen`, how many of the first
            blocks are frozen; `trained`, what of the others is: `all`, `norms`, …; and `decay`,
            by which factor the rate falls from one block to that before it.
        decays: Of which `decay` is one, with `compact`; 1 is always among them.
        genes: More genes. Those named like settings of `Training` (`weight_decay`, `n_epochs`,
            `batch_size`, `schedule`, `optimizer`, …) replace them; `model_factory`, where it needs
            an argument, and `optimizer` get the point. To find its blocks, a model is first built
            of these genes alone, each at its first value. Models that depend on
            genes forbid the reuse of prefixes.
        optimizer: `(groups, genes)` to an optimizer, in place of AdamW; each group has its rate.
        **settings: The other arguments of `FreezingProblem`.

    Raises:
        TypeError, ValueError: See `FreezingProblem`; a multiple is not above 0; a gene has a name
            that is taken, a value that its setting cannot have, or would do nothing.

    Source:
        Lee et al. (2022), "Surgical fine-tuning improves adaptation to distribution shifts";
        Ben Zaken et al. (2021), "BitFit"; Howard and Ruder (2018), "ULMFiT" (rates by layer);
        Hu et al. (2021), "LoRA".

    Example:
        >>> import torch
        >>> def pretrained():
        ...     return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))
        >>> data = torch.randn(64, 4), torch.arange(64) % 2
        >>> problem = RecipeProblem(pretrained, data, data, lr=[1e-3, 1e-2], n_epochs=1)
        >>> problem.space["0"], problem.space["lr"]
        (Categorical(['frozen', 'biases', 0.1, 0.3, 1.0]), Categorical([0.001, 0.01]))
        >>> problem.recipe({"0": "frozen", "2": 0.3, "lr": 0.01}).states
        {'0': 'frozen', '2': 0.3}
    """

    noun, words_for = "recipe", "blocks"

    def __init__(
        self,
        model_factory: Callable[..., nn.Module],
        train: Any,
        val: Any,
        *,
        lr: float | Sequence[float] = (1e-4, 3e-4, 1e-3),
        multiples: Sequence[float] = (0.1, 0.3, 1.0),
        ranks: Sequence[int] = (),
        gradual: bool = True,
        compact: bool = False,
        decays: Sequence[float] = (0.5, 0.7, 0.85, 1.0),
        genes: Mapping[str, Gene] | None = None,
        optimizer: Callable[[list[dict[str, Any]], Genes], Optimizer] | None = None,
        **settings: Any,
    ) -> None:
        for value in check_list("multiples", multiples, "multiples of the learning rate"):
            check_number("an entry of multiples", value, above=0)
        for value in check_list("ranks", ranks, "ranks of LoRA adapters"):
            check_int("an entry of ranks", value, minimum=1)
        if ranks:
            require_peft()
        check_bool("gradual", gradual)
        check_bool("compact", compact)
        if optimizer is not None:
            made = getattr(optimizer, "__name__", "")
            check_function("optimizer", optimizer, f"lambda groups, genes: {made}(groups)")
        self.multiples = tuple(sorted({1.0, *map(float, multiples)}))
        self.decays = check_decays(decays)
        self.ranks = tuple(sorted(set(ranks)))
        self.gradual, self.compact = gradual, compact
        self._given_genes, self._optimizer_of_groups = genes, optimizer
        self.builder_takes_genes = not isinstance(model_factory, nn.Module) and takes_genes(
            model_factory, are_given=genes is not None
        )
        if self.builder_takes_genes:
            if genes is None:
                raise TypeError(
                    "model_factory takes an argument, which is for genes of yours, but genes= is "
                    "missing: pass a function without arguments, or genes="
                )
            check_mapping("genes", genes)
            usual = {name: gene.first for name, gene in genes.items()}
            self._factory_of_genes = model_factory
            model_factory = partial(model_factory, usual)
        super().__init__(model_factory, train, val, lr=lr, **settings)

    def _space(self) -> SearchSpace:
        with seeded(0):  # a head of the factory's own draws its weights
            model = self.model_factory()
        self.states = {
            block.name: states_of(model, block, self.multiples, self.ranks, self.frozen_before)
            for block in self.blocks
        }
        self._counts = {
            (block.name, state): n_trained(model, block, state, self.frozen_before)
            for block in self.blocks
            for state in self.states[block.name]
        }
        sizes = {name: model.get_parameter(name).numel() for name in self.beside}
        n_frozen = sum(sizes.get(name, 0) for name in self.frozen_before)
        self._n_beside = sum(sizes.values()) - n_frozen, sum(sizes.values())
        held = {lora_rank(state) for states in self.states.values() for state in states}
        for rank in self.ranks:
            if rank not in held:
                raise ValueError(
                    f"no block of {self.model_name} has layers for adapters of rank {rank}: linear "
                    "ones or 1-D or 2-D convolutions that are called, are as large as that, and "
                    "have weights of their own (no weight_norm)"
                )
        n_most = len(self.blocks) - (not self._has_trainable_outside_blocks)
        self.state_genes: StateGenes = PerBlock(self.states, self.multiples)
        if self.compact:
            self.state_genes = Compact(self.states, self.decays, n_most)
        genes: dict[str, Gene] = dict(self.state_genes.genes)
        if "unfreezing" in genes:
            raise ValueError("a block is called 'unfreezing', as a gene of recipes is")
        if self.gradual:
            genes["unfreezing"] = Categorical(list(UNFREEZING))
        self.own_genes = check_own_genes(
            self._given_genes,
            self.training,
            (*genes, "lr", "unfreezing"),
            are_used=self.builder_takes_genes or self._optimizer_of_groups is not None,
        )
        return self._with_rates({**genes, **self.own_genes}, self.state_genes.conditions)

    def build(self, genes: Genes) -> nn.Module:
        """Returns a pretrained model, before any fine-tuning; of these genes if they make it."""
        if not self.builder_takes_genes:
            return super().build(genes)
        return self._factory_of_genes(genes)

    @property
    def builder(self) -> Callable[..., nn.Module]:
        """The model factory."""
        return self._factory_of_genes if self.builder_takes_genes else super().builder

    def states_at(self, genes: Genes) -> dict[str, State]:
        """Returns the state of each block at a point, in forward order."""
        return self.state_genes.states(genes)

    def mask_of(self, genes: Genes) -> tuple[int, ...]:
        """Returns which blocks are frozen: 1 or 0 for each, in forward order."""
        return tuple(int(state == FROZEN) for state in self.states_at(genes).values())

    def genes_of(self, mask: Mask, lr: float | None = None) -> Genes:
        """Returns the point that freezes what the mask does, and trains the rest at the rate.

        Raises:
            TypeError, ValueError: It is no mask of these blocks; the compact genes cannot say it.
        """
        names = [block.name for block in self.blocks]
        point = self._at(frozen_by(names, as_mask(mask, self.blocks)), lr)
        if point is None:
            raise ValueError(f"compact genes freeze the first blocks only, not {list(mask)!r}")
        return point

    def training_of(self, genes: Genes) -> Training:
        """Returns the settings, with the learning rate and the genes that are named like them."""
        own = {name: genes[name] for name in self.own_genes if name in TRAINING_GENES}
        return super().training_of(genes).with_genes(own)

    def recipe(self, genes: Genes) -> Recipe:
        """Returns the recipe of a point: apply it to a model of yours, or print its `table`.

        Of a row of `compare_masks`: `problem.recipe(table.smallest.genes)`.

        Raises:
            TypeError: It is no point.
            ValueError: It lacks a gene of the space.
        """
        check_mapping("genes", genes)
        # Of compact genes some are inactive in some points.
        blocks = [] if self.compact else [block.name for block in self.blocks]
        missing = [name for name in (*blocks, *self.own_genes) if name not in genes]
        if missing:
            raise ValueError(
                f"genes must have a value for each block and gene of the problem, got none for "
                f"{', '.join(missing)}: pass the genes of an evaluation or of a row of the table"
            )
        training = self.training_of(genes)
        settings = training.fingerprint()
        return Recipe(
            self.states_at(genes),
            settings.pop("lr"),
            settings.pop("weight_decay"),
            self.model_name,
            {b.name: (*b.modules, *b.loose_parameters) for b in self.blocks},
            self.beside,
            settings,
            genes.get("unfreezing", AT_ONCE),
            {name: genes[name] for name in self.own_genes if name not in TRAINING_GENES},
            self._parameters(genes),
            self.frozen_before,
        )

    def _parameters(self, genes: Genes) -> dict[str, tuple[int, int]]:
        found = {}
        for block, state in zip(self.blocks, self.states_at(genes).values(), strict=True):
            n = self._counts.get((block.name, state), self._counts[block.name, 1.0])
            found[block.name] = n, block.n_parameters
        if self.beside:
            found[HEAD] = self._n_beside
        return found

    def without_rate(self, genes: Genes) -> tuple[tuple[str, Any], ...]:
        """Returns what a point does to the blocks, whatever its rate and the user's own genes."""
        states = self.states_at(genes)
        return (*states.items(), ("unfreezing", genes.get("unfreezing", AT_ONCE)))

    def label_of(self, genes: Genes) -> str:
        """Returns what people call a recipe, `recipe` where they have no name for it."""
        found = self.without_rate(genes)
        for name, (states, unfreezing) in self._usual.items():
            if found == (*states.items(), ("unfreezing", unfreezing)):
                return name
        return "recipe"

    def short(self, genes: Genes) -> str:
        """Returns a point for a line of a log: its states, and its rate."""
        return f"{self.words(genes)}, lr {self.lr_of(genes):g}"

    def words(self, genes: Genes) -> str:
        """Returns the states from the input to the head, those of neighbours together."""
        parts = []
        states = self.states_at(genes)
        for state, group in groupby(states, key=states.__getitem__):
            names = list(group)
            span = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
            parts.append(f"{span} {state_in_words(state)}")
        if genes.get("unfreezing") == GRADUAL:
            parts.append("unfrozen gradually")
        for name in self.own_genes:
            value = genes[name]
            parts.append(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}")
        return ", ".join(parts)

    def strip(self) -> dict[str, Any]:
        """Returns the blocks with their states; empty where genes are not those of blocks."""
        return {} if self.compact else super().strip()

    def state_words(self) -> list[list[Any]]:
        """Returns the states of a block with what they are called, see `strip`."""
        states = dict.fromkeys(state for own in self.states.values() for state in own)
        return [[state, state_in_words(state)] for state in states]

    def random_point(self, rng: random.Random, lr: float) -> Genes:
        """Returns a random state for each block, at a learning rate."""
        genes = self.space.sample(rng)
        return {**genes, "lr": lr} if "lr" in genes else genes

    def rivals(self) -> dict[str, list[Genes]]:
        """Returns what people try by hand, each at each learning rate."""
        found = {}
        for name, (states, unfreezing) in self._usual.items():
            points = [self._at(states, lr, unfreezing) for lr in self.rates]
            known = [point for point in points if point and self.invalid_reason(point) is None]
            if known:
                found[name] = known
        return found

    def initial_points(self, n: int) -> list[Genes]:
        """Returns the rivals for a first population of `n`, which they fill at most 3/4."""
        rivals = self.rivals()
        named = [variants for name, variants in rivals.items() if not name.startswith("first ")]
        others = [variants for name, variants in rivals.items() if name.startswith("first ")]
        some = spread(others, _N_FIRST_K)
        rest = [variants for variants in others if variants not in some]
        # One rate of each before another of any: the middle one first.
        order = sorted(range(len(self.rates)), key=lambda at: abs(at - len(self.rates) // 2))
        kinds = [*named, *some], rest
        points = [variants[at] for kind in kinds for at in order for variants in kind]
        return points[: max(1, 3 * n // 4)]

    def fingerprint(self) -> dict[str, Any]:
        """Returns what makes two trainings comparable, as a search of recipes."""
        found = {**super().fingerprint(), "problem": "recipe"}
        if self._optimizer_of_groups is not None:
            found["optimizer"] = fingerprint_of(self._optimizer_of_groups)
        return found

    def optimizer(self, model: nn.Module, genes: Genes) -> Optimizer:
        """Returns the optimizer of the recipe's groups; of all of a model without a recipe."""
        applied = applied_mask(model)
        if applied is None:  # a step is timed before a search
            return super().optimizer(model, genes)
        groups = self.recipe(genes).groups(applied)
        if self._optimizer_of_groups is not None:
            made = self._optimizer_of_groups(groups, genes)
            check_groups(made, groups, "groups, genes")
            return made
        return self.training_of(genes).make_optimizer(groups)

    def scheduler(self, optimizer: Optimizer, genes: Genes, n_steps: int) -> LRScheduler | None:
        """Returns the schedule of the recipe."""
        return self.recipe(genes).make_scheduler(optimizer, n_steps)

    def keep(self, model: nn.Module, genes: Genes, trial: Trial) -> None:
        """Keeps the fine-tuned weights with the adapters in them: those of the model as it was."""
        if any(map(lora_rank, self.states_at(genes).values())):
            model = copy.deepcopy(model)
            merge_adapters(model)
        super().keep(model, genes, trial)

    def run_files(self, run_dir: Path) -> RecipeFiles:
        """Returns the writer of `recipe.json`."""
        return RecipeFiles(run_dir, self)

    def _restrict(self, applied: AppliedMask, genes: Genes) -> None:
        self.recipe(genes).restrict(applied)

    def _first_decision(self) -> ReuseDecision:
        if self.builder_takes_genes:
            return ReuseDecision({}, {0: "model_factory makes another model for other genes"})
        return super()._first_decision()

    def _at(
        self, states: Mapping[str, State], lr: float | None, unfreezing: str = AT_ONCE
    ) -> Genes | None:
        """Returns the point of these states, with the usual settings; None if there is none."""
        genes = self.state_genes.point(states)
        if genes is None:
            return None
        if self.gradual:
            genes["unfreezing"] = unfreezing
        for name, gene in self.own_genes.items():
            genes[name] = default_of(name, gene, self.training)
        if len(self.rates) > 1:
            genes["lr"] = self.training.lr if lr is None else lr
        return genes

    @cached_property
    def _usual(self) -> dict[str, tuple[dict[str, State], str]]:
        """What people try, by name: the states, and how blocks are unfrozen."""
        head = {"head_is_a_gene": self.head_is_a_gene}
        found = {
            name: (states, AT_ONCE)
            for name, states in by_hand(
                self.states, self.ranks, self.state_genes.decayed(), **head
            ).items()
        }
        names = [block.name for block in self.blocks]
        full = frozen_by(names, [0] * len(names))
        if self.gradual:
            found[GRADUALLY] = full, GRADUAL
        with seeded(0), torch_threads(self.threads):
            some = torch.arange(min(_N_LOOKED_AT, len(self.train)))
            batch = self.train.gather(some), self.train.targets[some]
            loss = self.loss_function(self._at(full, None) or {})
            informed = by_looking(self.model_factory(), self.blocks, batch, loss, self.multiples)
        for name, states in informed.items():
            if (states, AT_ONCE) not in found.values():
                found[name] = states, AT_ONCE
        for name, states in first_frozen(self.states, **head).items():
            found[name] = states, AT_ONCE
        return found


class RecipeFiles(ChampionFile):
    """Writes the champion's recipe of a run: `recipe.json`."""

    file_name = "recipe.json"
    _problem: RecipeProblem

    def _found(self, genes: Genes) -> dict[str, Any]:
        return self._problem.recipe(genes).to_json()
