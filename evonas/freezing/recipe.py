"""Fine-tuning recipes: for each block what of it is trained, and at which multiple of the rate."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from evonas.arguments import check_choice, check_int, check_mapping, check_number
from evonas.freezing._structure import norm_parameters, small_parameters
from evonas.freezing.adapters import (
    adapter_layers,
    check_rank,
    insert_adapters,
    lora_config,
    lora_rank,
    merge_adapters,
    modules_to_save,
)
from evonas.freezing.blocks import Block
from evonas.freezing.files import read_champion
from evonas.freezing.mask import AppliedMask, applied_mask, apply_mask
from evonas.freezing.recipe_table import HEAD, recipe_table
from evonas.freezing.saved_mask import SavedMask
from evonas.freezing.states import (
    BIASES,
    FROZEN,
    NORMS,
    State,
    check_state,
    is_trained,
    n_trained,
    state_in_words,
)
from evonas.freezing.transfer import renaming
from evonas.freezing.unfreezing import (
    AT_ONCE,
    GRADUAL,
    START,
    UNFREEZING,
    Unfreezing,
    gradual_scheduler,
    starts,
)
from evonas.training.recipe import TRAINING_GENES, Training

__all__ = ["Recipe", "load_recipe"]

_SETTINGS = tuple(name for name in TRAINING_GENES if name not in ("lr", "weight_decay"))


@dataclass(frozen=True)
class Recipe:
    """What of a model is fine-tuned, and how fast.

    Attributes:
        states: Block name to its state. What is in no block, the head as a rule, is trained at
            the rate itself.
        lr: The learning rate.
        weight_decay: Of weights of two dimensions or more.
        model_name: Class of the model that was searched, "" where it is not known.
        contents: Block name to the paths of its modules and the names of its loose parameters.
        beside: Names of the model's parameters that are in no block.
        settings: Of the training, other settings of `Training`: epochs, schedule and so on.
        unfreezing: `gradual`: the rate of each trained block is 0 until its turn comes, from the
            head to the input, in equal shares of the training (ULMFiT, Howard and Ruder 2018).
        genes: What a search has found for genes of the user's own.
        parameters: Block name, and `head`, to how many numbers are trained, of how many; empty
            where they are not known (`table` counts those of a model).
        frozen_before: Names of the parameters that the model factory of the search had frozen:
            no state trains them.

    Raises:
        TypeError, ValueError: A state is none; a multiple of 0 is `frozen`; a setting is none.

    Example:
        >>> recipe = Recipe({"0": "frozen", "2": 0.3}, lr=1e-3)
        >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))
        >>> [(group["lr"], len(group["params"])) for group in recipe.apply(net)]
        [(0.0003, 1), (0.0003, 1), (0.001, 1), (0.001, 1)]
        >>> net[0].weight.requires_grad
        False
        >>> print(recipe.table(net))
        block  state         trained     of        lr
        0      frozen              0     24
        2      all x0.3           72     72    0.0003
        head   all                18     18     0.001
    """

    states: Mapping[str, State]
    lr: float
    weight_decay: float = 0.01
    model_name: str = ""
    contents: Mapping[str, Sequence[str]] = field(default_factory=dict)
    beside: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    unfreezing: Unfreezing = AT_ONCE
    genes: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, tuple[int, int]] = field(default_factory=dict, compare=False)
    frozen_before: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_mapping("states", self.states)
        check_number("lr", self.lr, above=0)
        check_number("weight_decay", self.weight_decay, minimum=0)
        for name, state in self.states.items():
            check_state(name, state)
        check_choice("unfreezing", self.unfreezing, UNFREEZING)
        check_mapping("settings", self.settings)
        for name in self.settings:
            check_choice("a key of settings", name, _SETTINGS)
        self.training  # noqa: B018 refuses a wrong value

    @property
    def training(self) -> Training:
        """All settings of the training."""
        return Training(lr=self.lr, weight_decay=self.weight_decay, **self.settings)

    @property
    def mask(self) -> dict[str, int]:
        """Block name to 1 (frozen) or 0, for `apply_mask`."""
        return {name: int(state == FROZEN) for name, state in self.states.items()}

    @property
    def _saved_mask(self) -> SavedMask:
        return SavedMask(
            self.mask,
            self.model_name,
            self.contents,
            self.beside,
            frozen_before=self.frozen_before,
        )

    def for_model(self, model: nn.Module) -> Recipe:
        """Returns the same recipe with the names of a model that holds the searched one.

        Wrapped in another module, without the head that was on it, or as it was.

        Raises:
            ValueError: It holds no such model, or several.
        """
        if not self.contents:
            return self
        rename = renaming(self.contents, model)
        beside, frozen = tuple(map(rename, self.beside)), tuple(map(rename, self.frozen_before))
        contents = rename.contents(self.contents)
        return replace(self, contents=contents, beside=beside, frozen_before=frozen)

    def apply(self, model: nn.Module) -> list[dict[str, Any]]:
        """Freezes what is not trained; returns the parameter groups of an optimizer.

        Frozen blocks are put in eval mode and stay there, as `apply_mask` does it;
        `applied_mask(model).undo()` undoes that, and merges adapters into the weights.

        Args:
            model: Changed in place.

        Returns:
            Groups with `params`, `lr` and `weight_decay`: those of one rate with decay, then
            those without (biases, norms), the first block's first. With gradual unfreezing also
            `start`, the share of the steps after which `make_scheduler` begins with them.

        Raises:
            ValueError: The recipe is of another model, or nothing would be trained: of it, or of a
                block that has none of the norms, biases or layers for adapters that its state
                names.
            RuntimeError: A mask is applied to the model already.
            MissingDependencyError: It has adapters, and peft is not installed.
        """
        applied = apply_mask(model, self._saved_mask)
        try:
            self.restrict(applied)
        except BaseException:
            applied.undo()
            raise
        return self.groups(applied)

    def make_optimizer(self, model: nn.Module) -> Optimizer:
        """Applies the recipe to a model; returns the optimizer of what is trained.

        Raises:
            ValueError, RuntimeError, MissingDependencyError: See `apply`.
        """
        return self.training.make_optimizer(self.apply(model))

    def make_scheduler(self, optimizer: Optimizer, n_steps: int) -> LRScheduler | None:
        """Returns the schedule of an optimizer of `make_optimizer`; None for a constant rate.

        Args:
            optimizer: Of the groups of `apply`.
            n_steps: Of the whole training; the schedule steps after each batch.

        Raises:
            TypeError, ValueError: `n_steps` is no number of steps.
        """
        check_int("n_steps", n_steps, minimum=1)
        if self.unfreezing == GRADUAL:
            return gradual_scheduler(optimizer, self.training, n_steps)
        return self.training.make_scheduler(optimizer, n_steps)

    def restrict(self, applied: AppliedMask) -> None:
        """Freezes what of trained blocks is not, and puts the adapters in, where a mask is applied.

        Raises:
            ValueError, MissingDependencyError: See `apply`.
        """
        model = applied.model
        ranks = self._ranks(applied)
        norms = norm_parameters(model)
        for block, names in _by_block(model, applied.blocks):
            state = 1.0 if block is None else self.states.get(block.name, 1.0)
            for name in names:
                if not is_trained(name, state, norms):
                    applied.freeze(name)
        if ranks:
            insert_adapters(model, ranks)
            applied.on_undo(partial(merge_adapters, model))

    def groups(self, applied: AppliedMask) -> list[dict[str, Any]]:
        """Returns the parameter groups of `apply`, after `restrict`."""
        model = applied.model
        groups: dict[tuple[float, float, float], list[nn.Parameter]] = {}
        small = small_parameters(model)
        trained = [
            (block, names)
            for block, own in _by_block(model, applied.blocks)  # adapters are in no block
            if (names := [name for name in own if model.get_parameter(name).requires_grad])
        ]
        if not trained:
            raise ValueError(f"the recipe leaves nothing of {type(model).__name__} to train")
        for (block, names), start in zip(trained, reversed(starts(len(trained))), strict=True):
            state = 1.0 if block is None else self.states.get(block.name, 1.0)
            for name in names:
                parameter = model.get_parameter(name)
                decay = 0.0 if name in small else self.weight_decay
                key = self._rate(state), decay, start if self.unfreezing == GRADUAL else 0.0
                groups.setdefault(key, []).append(parameter)
        return [
            {
                "params": parameters,
                "lr": rate,
                "weight_decay": decay,
                **({START: start} if self.unfreezing == GRADUAL else {}),
            }
            for (rate, decay, start), parameters in groups.items()
        ]

    def table(self, model: nn.Module, blocks: Sequence[Block] | None = None) -> str:
        """Returns, block by block, its state, how many parameters are trained and at which rate.

        Args:
            model: Not changed.
            blocks: Of the model. None: those of the recipe.

        Raises:
            ValueError: See `apply`.
        """
        applied = applied_mask(model)
        if applied is None:
            with apply_mask(model, self._saved_mask, blocks=blocks) as applied:
                pass
        elif any(map(lora_rank, self.states.values())):  # with the names that blocks know
            model = copy.deepcopy(model)
            merge_adapters(model)
        self._ranks(applied, model)
        counts, frozen = {}, applied.frozen_before
        for block, names in _by_block(model, applied.blocks if blocks is None else blocks):
            state = 1.0 if block is None else self.states.get(block.name, 1.0)
            sizes = {name: model.get_parameter(name).numel() for name in names}
            n = sum(sizes.values())
            if block is None:
                counts[HEAD] = n - sum(sizes[name] for name in frozen.intersection(names)), n
            else:
                counts[block.name] = n_trained(model, block, state, frozen), n
        return self._table(counts)

    def __str__(self) -> str:
        lines = [self._table(self.parameters)]
        training = self.training.fingerprint()
        said = [f"{name} {training[name]}" for name in self.settings if training[name] is not None]
        said += [f"{name} {value}" for name, value in self.genes.items()]
        if self.unfreezing == GRADUAL:
            said.insert(0, "unfrozen gradually")
        return "\n".join([*lines, *([", ".join(said)] if said else [])])

    def _table(self, parameters: Mapping[str, tuple[int, int]]) -> str:
        states = {name: self.states.get(name, 1.0) for name in parameters or self.states}
        rates = {
            name: self._rate(state) if not parameters or parameters[name][0] else 0.0
            for name, state in states.items()
        }
        words = {name: state_in_words(state) for name, state in states.items()}
        return recipe_table(words, rates, parameters)

    def peft_config(self, model: nn.Module) -> Any:
        """Returns peft's `LoraConfig` of the adapters, for training in `peft.get_peft_model`.

        Blocks that are trained whole, and what is in no block, are its `modules_to_save`.

        Args:
            model: Not changed.

        Raises:
            ValueError: There are no adapters; or peft cannot train what the recipe does: a block at
                a multiple of the rate other than 1, its norms or biases, a part of a module.
            MissingDependencyError: peft is not installed.
        """
        with apply_mask(model, self._saved_mask) as applied:
            blocks, frozen = applied.blocks, applied.frozen_before
        ranks = self._ranks(applied)
        if not ranks:
            raise ValueError("the recipe has no adapters: peft has nothing to do")
        whole: set[str] = set()
        for block, names in _by_block(model, blocks):
            state = 1.0 if block is None else self.states.get(block.name, 1.0)
            if state == 1.0:
                whole |= set(names) - frozen
            elif state != FROZEN and lora_rank(state) is None:
                raise ValueError(
                    f"{'the head' if block is None else block.name} is trained as "
                    f"{state_in_words(state)!r}, which a LoraConfig cannot say: take `apply`"
                )
        return lora_config(ranks, modules_to_save=modules_to_save(model, whole) or None)

    def _ranks(self, applied: AppliedMask, model: nn.Module | None = None) -> dict[str, int]:
        """Returns the rank of the adapter of each layer that gets one, by path.

        Args:
            applied: The recipe's mask.
            model: Without adapters. None: that of the mask.

        Raises:
            ValueError: Of a block its state trains nothing.
        """
        model = applied.model if model is None else model
        ranks: dict[str, int] = {}
        for block in applied.blocks:
            state = self.states.get(block.name, 1.0)
            rank = lora_rank(state)
            if rank is None:
                trains = n_trained(model, block, state, applied.frozen_before)
                if state in (NORMS, BIASES) and not trains:
                    raise ValueError(f"{block.name} has no {state} to train: say {FROZEN!r}")
                continue
            layers = adapter_layers(model, block, str(state))
            if not layers:
                raise ValueError(
                    f"{block.name} has no linear layer or convolution for {state!r} (those of "
                    "torch's own attention and transformer layers take none, none with a tied or a "
                    "normed weight, and no transposed, 3-D, grouped or dilated convolution)"
                )
            check_rank(layers, rank)
            ranks |= dict.fromkeys(layers, rank)
        return ranks

    def to_json(self) -> dict[str, Any]:
        """Returns plain data, for any language: rates are absolute too."""
        return {
            "model": self.model_name,
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "states": dict(self.states),
            "rates": {name: self._rate(state) for name, state in self.states.items()},
            "blocks": {name: list(paths) for name, paths in self.contents.items()},
            "beside": list(self.beside),
            "settings": dict(self.settings),
            "unfreezing": self.unfreezing,
            "genes": dict(self.genes),
            "parameters": {name: list(counts) for name, counts in self.parameters.items()},
            "frozen_before": list(self.frozen_before),
        }

    def _rate(self, state: State) -> float:
        """Returns the learning rate of a block; 0 where it is frozen."""
        if isinstance(state, str):
            return 0.0 if state == FROZEN else self.lr
        return self.lr * state

    @classmethod
    def from_json(cls, record: Any) -> Recipe:
        """Returns the recipe of `to_json`.

        Raises:
            TypeError, ValueError: It holds none.
        """
        check_mapping("record", record)
        if missing := [name for name in ("states", "lr", "weight_decay") if name not in record]:
            raise ValueError(
                f"record must be what Recipe.to_json returns, got one without {', '.join(missing)}"
            )
        return cls(
            {
                name: state if isinstance(state, str) else float(state)
                for name, state in record["states"].items()
            },
            float(record["lr"]),
            float(record["weight_decay"]),
            str(record.get("model", "")),
            {name: tuple(paths) for name, paths in record.get("blocks", {}).items()},
            tuple(record.get("beside", ())),
            dict(record.get("settings", {})),
            record.get("unfreezing", AT_ONCE),
            dict(record.get("genes", {})),
            {name: (int(n), int(of)) for name, (n, of) in record.get("parameters", {}).items()},
            tuple(record.get("frozen_before", ())),
        )


def load_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Returns the recipe of a `recipe.json`.

    Args:
        path: The file, or the run's directory.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no recipe.
    """
    return read_champion(path, "recipe.json", Recipe.from_json, "a recipe")


def _by_block(
    model: nn.Module, blocks: Sequence[Block]
) -> Iterator[tuple[Block | None, list[str]]]:
    """Yields each block with the names of its parameters, then None with those of no block."""
    left = [name for name, _ in model.named_parameters()]
    for block in blocks:
        held = set(block.parameters)
        yield block, [name for name in left if name in held]
        left = [name for name in left if name not in held]
    if left:
        yield None, left
