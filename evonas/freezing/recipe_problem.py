"""Fine-tuning recipes as a problem: a point says for each block what is trained, and how fast."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from evonas.arguments import check_int, check_list, check_number
from evonas.execution.torch_env import torch_threads
from evonas.execution.trial import Trial
from evonas.freezing.adapters import lora_rank, lora_state, merge_adapters, require_peft
from evonas.freezing.advice import usual_masks
from evonas.freezing.files import ChampionFile
from evonas.freezing.informed import relative_gradients, signal_to_noise
from evonas.freezing.mask import AppliedMask, Mask, applied_mask, as_mask
from evonas.freezing.problem import FreezingProblem
from evonas.freezing.recipe import BIASES, FROZEN, NORMS, Recipe, State, state_in_words, states_of
from evonas.records import Genes
from evonas.space import SearchSpace
from evonas.space.gene import Gene
from evonas.space.genes import Categorical
from evonas.training import seeded

__all__ = ["RecipeFiles", "RecipeProblem"]

DECAY = "layer-wise decay"
RGN = "relative gradients"
SPECTRUM = "signal to noise"

_N_LOOKED_AT = 64  # training examples of which gradients are taken


class RecipeProblem(FreezingProblem):
    """Fine-tunes a pretrained model by a recipe and returns its validation accuracy.

    One gene for each block, in forward order: `frozen`; only its `norms`, its `biases` or, with
    `ranks`, LoRA adapters of its linear layers trained; or all of it, at a multiple of the learning
    rate. And a gene `lr`, where there are several. What is in no block, the head as a rule, is
    trained at the rate itself. All else is as in `FreezingProblem`: the same pretrained weights,
    AdamW, frozen prefixes computed once.

    The first population contains what people try, each at each learning rate: full fine-tuning,
    head only, norms only, biases only (BitFit), adapters everywhere (LoRA), rates that fall from
    the head to the input (layer-wise decay), rates by the relative norm of each block's gradient
    (Auto-RGN), the half of the blocks whose weights have the larger signal-to-noise ratio
    (Spectrum), and the first k blocks frozen.

    Args:
        model_factory: See `FreezingProblem`.
        train: Likewise.
        val: Likewise.
        lr: One learning rate, or several of which a gene chooses.
        multiples: Of the rate, of which a trained block has one; 1 is always among them.
        ranks: Of LoRA adapters, of which a block's linear layers may have one instead: all of
            them, or those of its attention. Needs peft (extra `lora`).
        **settings: The other arguments of `FreezingProblem`, without `optimizer`.

    Raises:
        TypeError, ValueError: See `FreezingProblem`; or a multiple is not above 0.

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

    words_for = "blocks"

    def __init__(
        self,
        model_factory: Any,
        train: Any,
        val: Any,
        *,
        lr: float | Sequence[float] = (1e-4, 3e-4, 1e-3),
        multiples: Sequence[float] = (0.1, 0.3, 1.0),
        ranks: Sequence[int] = (),
        **settings: Any,
    ) -> None:
        if "optimizer" in settings:
            raise TypeError("RecipeProblem has no argument optimizer: a recipe is of AdamW's rates")
        for value in check_list("multiples", multiples, "multiples of the learning rate"):
            check_number("an entry of multiples", value, above=0)
        for value in check_list("ranks", ranks, "ranks of LoRA adapters"):
            check_int("an entry of ranks", value, minimum=1)
        if ranks:
            require_peft()
        self.multiples = tuple(sorted({1.0, *map(float, multiples)}))
        self.ranks = tuple(sorted(set(ranks)))
        super().__init__(model_factory, train, val, lr=lr, **settings)

    def _space(self) -> SearchSpace:
        with seeded(0):  # a head of the factory's own draws its weights
            model = self.model_factory()
        self.states = {
            block.name: states_of(model, block, self.multiples, self.ranks) for block in self.blocks
        }
        held = {lora_rank(state) for states in self.states.values() for state in states}
        for rank in self.ranks:
            if rank not in held:
                raise ValueError(
                    f"no block of {self.model_name} has linear layers for adapters of rank {rank}"
                )
        genes: dict[str, Gene] = {
            name: Categorical(list(states)) for name, states in self.states.items()
        }
        return self._with_rates(genes)

    def mask_of(self, genes: Genes) -> tuple[int, ...]:
        """Returns which blocks are frozen: 1 or 0 for each, in forward order."""
        return tuple(int(genes[block.name] == FROZEN) for block in self.blocks)

    def genes_of(self, mask: Mask, lr: float | None = None) -> Genes:
        """Returns the point that freezes what the mask does, and trains the rest at the rate."""
        return self._at(self._frozen_by(as_mask(mask, self.blocks)), lr)

    def recipe(self, genes: Genes) -> Recipe:
        """Returns the recipe of a point: apply it to a model of yours, or print its `table`."""
        return Recipe(
            {block.name: genes[block.name] for block in self.blocks},
            self.lr_of(genes),
            self.training.weight_decay,
            self.model_name,
            {b.name: (*b.modules, *b.loose_parameters) for b in self.blocks},
            self.beside,
        )

    def label_of(self, genes: Genes) -> str:
        """Returns what people call a recipe, `recipe` where they have no name for it."""
        states = {block.name: genes[block.name] for block in self.blocks}
        for name, known in self._usual_states().items():
            if states == known:
                return name
        return "recipe"

    def short(self, genes: Genes) -> str:
        """Returns a point for a line of a log: its states, and its rate."""
        return f"{self.words(genes)}, lr {self.lr_of(genes):g}"

    def words(self, genes: Genes) -> str:
        """Returns the states from the input to the head, those of neighbours together."""
        parts = []
        for state, group in groupby(self.blocks, key=lambda block: genes[block.name]):
            names = [block.name for block in group]
            span = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
            parts.append(f"{span} {state_in_words(state)}")
        return ", ".join(parts)

    def state_words(self) -> list[list[Any]]:
        """Returns the states of a block with what they are called, see `strip`."""
        states = dict.fromkeys(state for own in self.states.values() for state in own)
        return [[state, state_in_words(state)] for state in states]

    def random_point(self, rng: random.Random, lr: float) -> Genes:
        """Returns a random state for each block, at a learning rate."""
        return self._at({name: rng.choice(states) for name, states in self.states.items()}, lr)

    def rivals(self) -> dict[str, list[Genes]]:
        """Returns what people try by hand, each at each learning rate."""
        return {
            name: [self._at(states, lr) for lr in self.rates]
            for name, states in self._usual_states().items()
            if self.invalid_reason(self._at(states, None)) is None
        }

    def initial_points(self, n: int) -> list[Genes]:
        """Returns the rivals for a first population of `n`, which they fill at most 3/4."""
        rivals = self.rivals()
        named = [variants for name, variants in rivals.items() if not name.startswith("first ")]
        others = [variants for name, variants in rivals.items() if name.startswith("first ")]
        # One rate of each before another of any: the middle one first.
        order = sorted(range(len(self.rates)), key=lambda at: abs(at - len(self.rates) // 2))
        points = [variants[at] for kind in (named, others) for at in order for variants in kind]
        return points[: max(1, 3 * n // 4)]

    def fingerprint(self) -> dict[str, Any]:
        """Returns what makes two trainings comparable, as a search of recipes."""
        return {**super().fingerprint(), "problem": "recipe"}

    def optimizer(self, model: nn.Module, genes: Genes) -> Optimizer:
        """Returns AdamW of the recipe's groups, each with its rate; of all of a free model."""
        applied = applied_mask(model)
        if applied is None:  # a step is timed before a search
            return super().optimizer(model, genes)
        return self.training_of(genes).make_optimizer(self.recipe(genes).groups(applied))

    def keep(self, model: nn.Module, genes: Genes, trial: Trial) -> None:
        """Keeps the fine-tuned weights with the adapters in them: those of the model as it was."""
        if any(lora_rank(genes[block.name]) for block in self.blocks):
            model = copy.deepcopy(model)
            merge_adapters(model)
        super().keep(model, genes, trial)

    def run_files(self, run_dir: Path) -> RecipeFiles:
        """Returns the writer of `recipe.json`."""
        return RecipeFiles(run_dir, self)

    def _restrict(self, applied: AppliedMask, genes: Genes) -> None:
        self.recipe(genes).restrict(applied)

    def _at(self, states: dict[str, State], lr: float | None) -> Genes:
        genes: Genes = dict(states)
        if len(self.rates) > 1:
            genes["lr"] = self.training.lr if lr is None else lr
        return genes

    def _usual_states(self) -> dict[str, dict[str, State]]:
        names = [block.name for block in self.blocks]
        found: dict[str, dict[str, State]] = {}
        masks = usual_masks(len(names), head_is_a_gene=self.head_is_a_gene)
        for mask in masks[:2]:
            found[self.label(mask)] = self._frozen_by(mask)
        for name, state in (("norms only", NORMS), ("biases only", BIASES)):
            partial = {each: state if state in self.states[each] else FROZEN for each in names}
            if state in partial.values():
                found[name] = dict(partial)
        for rank in self.ranks:
            for attention in (True, False):
                state = lora_state(rank, attention=attention)
                has = {each: state if state in self.states[each] else FROZEN for each in names}
                if state in has.values():
                    found[f"LoRA {rank} on attention" if attention else f"LoRA {rank}"] = dict(has)
        n, steps = len(names), self.multiples[: self.multiples.index(1.0) + 1]
        if len(steps) > 1:
            found[DECAY] = {name: steps[at * len(steps) // n] for at, name in enumerate(names)}
        for name, states in self._informed.items():
            if states not in found.values():
                found[name] = states
        for mask in masks[2:]:
            found[self.label(mask)] = self._frozen_by(mask)
        return found

    @cached_property
    def _informed(self) -> dict[str, dict[str, State]]:
        """What rules that look at the pretrained model say, found out when first asked for."""
        with seeded(0), torch_threads(self.threads):
            model = self.model_factory()
            model.train()
            some = torch.arange(min(_N_LOOKED_AT, len(self.train)))
            batch = self.train.gather(some), self.train.targets[some]
            gradients = relative_gradients(model, self.blocks, batch, self.loss_function({}))
            signals = signal_to_noise(model, self.blocks)
        steps = (self.multiples[0] / 3, *self.multiples)  # below a step's third of it: nothing
        nearest = [min(steps, key=lambda step: abs(math.log(step / max(share, 1e-12))))
                   for share in gradients]  # fmt: skip
        names = [block.name for block in self.blocks]
        top = sorted(range(len(names)), key=lambda at: -signals[at])[: -(-len(names) // 2)]
        return {
            RGN: {name: FROZEN if step < self.multiples[0] else step
                  for name, step in zip(names, nearest, strict=True)},
            SPECTRUM: {name: 1.0 if at in top else FROZEN for at, name in enumerate(names)},
        }  # fmt: skip

    def _frozen_by(self, mask: Sequence[int]) -> dict[str, State]:
        return {
            block.name: FROZEN if bit else 1.0 for block, bit in zip(self.blocks, mask, strict=True)
        }


class RecipeFiles(ChampionFile):
    """Writes the champion's recipe of a run: `recipe.json`."""

    file_name = "recipe.json"
    _problem: RecipeProblem

    def _found(self, genes: Genes) -> dict[str, Any]:
        return self._problem.recipe(genes).to_json()
