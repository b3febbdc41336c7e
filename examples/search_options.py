"""What all examples share: the options that say how to search, and what becomes of them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import evonas as en
from evonas.arguments import nearest
from evonas.pruning import Pruner

__all__ = [
    "Parser",
    "add_strategy_options",
    "budget",
    "count",
    "front_table",
    "make_objectives",
    "make_pruner",
    "make_strategy",
    "settle",
]

# What each strategy takes of the published GA's options. `auto` is `evolve`'s own choice.
GA_OPTIONS = (
    "population", "generations", "elite", "selection", "tournament", "crossover",
    "crossover_prob", "mutation_prob",
)  # fmt: skip
TAKES: dict[str, tuple[str, ...]] = {
    "published": GA_OPTIONS,
    "auto": (),
    "surrogate": (),
    "aging": ("population",),
    "nsga2": ("population", "generations", "crossover", "crossover_prob", "mutation_prob"),
    "hyperband": (),
    "local": (),
    "random": (),
}
FOR_SEVERAL_OBJECTIVES = ("auto", "surrogate", "nsga2", "random")
# Of the published GA, whatever `en.Generational` makes its own; population and the like are the
# presets'.
GA_DEFAULTS: dict[str, Any] = {
    "selection": "tournament",
    "tournament": 3,
    "crossover": "one_point",
    "crossover_prob": 1.0,
    "mutation_prob": 0.15,
}
VARIATION = {
    "crossover": "crossover",
    "crossover_prob": "crossover_prob",
    "mutation_prob": "gene_mutation_prob",
}
PRUNERS: dict[str, Callable[[], Pruner | None]] = {
    "none": lambda: None,
    "median": en.MedianPruner,
    "halving": en.SuccessiveHalving,
}
MAXIMISED = "accuracy"
ROW_EVERY = 10  # trainings to a line, for strategies without generations


class Parser(argparse.ArgumentParser):
    """Names the nearest option or choice where one was mistyped."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with a message."""
        known = [option for action in self._actions for option in action.option_strings]
        known += [str(each) for action in self._actions for each in action.choices or ()]
        wrong = re.search(r"invalid choice: '([^']*)'|unrecognized arguments: (\S+)", message)
        word = (wrong[1] or wrong[2]).split("=")[0] if wrong else ""
        super().error(message + (nearest(word, known) if word else ""))


def add_strategy_options(
    parser: argparse.ArgumentParser, costs: Sequence[str], *, with_epochs: bool = False
) -> None:
    """Adds the options of strategies, objectives, pruners, warm starts and trainings.

    Args:
        parser: Of an example that has the options of the published GA, without defaults.
        costs: What the example's problem can minimise beside maximising `accuracy`.
        with_epochs: Whether its space has the gene `n_epochs` where `hyperband` asks for it.
    """
    choices = [name for name in TAKES if with_epochs or name != "hyperband"]
    add = parser.add_argument_group("strategy").add_argument
    add("--strategy", choices=choices, default="published", help="default: the published GA")
    add("--max-evaluations", type=count(1), help="trainings; default for strategies that have no"
        " generations: population x generations of the preset")  # fmt: skip
    add("--objectives", nargs="+", choices=[MAXIMISED, *costs], default=[MAXIMISED], metavar="NAME",
        help=f"{MAXIMISED} (default), {', '.join(costs)}; several need --strategy "
        f"{', '.join(FOR_SEVERAL_OBJECTIVES[:-1])} or {FOR_SEVERAL_OBJECTIVES[-1]}")  # fmt: skip
    add("--pruner", choices=PRUNERS, default="none", help="ends poor trainings early")
    add("--warm-start", nargs="+", type=Path, default=[], metavar="RUN",
        help="earlier runs of this very problem: their trainings are not repeated")  # fmt: skip


def settle(
    parser: argparse.ArgumentParser, options: argparse.Namespace, preset: Mapping[str, Any]
) -> None:
    """Fills in what was not given, in place; ends the program where options exclude each other."""
    strategy = options.strategy
    takes = TAKES[strategy]
    options.given = [name for name in GA_OPTIONS if hasattr(options, name)]
    refused = [name for name in options.given if name not in takes]
    if refused:
        hint = f"it takes {_flags(takes)}" if takes else "it takes none of the GA's options"
        if "generations" not in takes:
            hint += ", and --max-evaluations"
        parser.error(f"{_flags(refused)} cannot be given with --strategy {strategy}: {hint}")
    for name, value in {**GA_DEFAULTS, **preset}.items():
        if not hasattr(options, name):
            setattr(options, name, value)
    if "generations" not in takes and options.max_evaluations is None:
        options.max_evaluations = preset["population"] * preset["generations"]
    if len(set(options.objectives)) < len(options.objectives):
        parser.error(f"--objectives names one twice: {' '.join(options.objectives)}")
    if len(options.objectives) > 1:
        if strategy not in FOR_SEVERAL_OBJECTIVES:
            parser.error(
                f"--strategy {strategy} optimises one objective, got {len(options.objectives)} "
                f"({', '.join(options.objectives)}): {', '.join(FOR_SEVERAL_OBJECTIVES)} take"
                " several"
            )
        if options.pruner != "none":
            parser.error("--pruner judges by one objective: leave it out, or name one objective")
    elif options.pruner != "none" and options.objectives != [MAXIMISED]:
        parser.error(f"--pruner judges by {MAXIMISED}, which must then be the objective")


def make_strategy(options: argparse.Namespace) -> en.Strategy | Literal["auto"]:
    """Returns the strategy of the options.

    Raises:
        ValueError: An option is out of range.
    """
    # What is not given is the strategy's own choice, but for the published GA.
    variation = {
        argument: getattr(options, name)
        for name, argument in VARIATION.items()
        if options.strategy == "published" or name in options.given
    }
    match options.strategy:
        case "published":
            return en.Generational(
                options.population,
                elite=options.elite,
                selection=options.selection,
                tournament_size=options.tournament,
                **variation,
            )
        case "nsga2":
            return en.NSGA2(options.population, **variation)
        case "aging":
            size = options.population
            return en.AgingEvolution(size, max(1, size // 2), row_every=ROW_EVERY)
        case "surrogate":
            return en.SurrogateEvolution(row_every=ROW_EVERY)
        case "hyperband":
            return en.Hyperband(row_every=ROW_EVERY)
        case "local":
            return en.LocalSearch(row_every=ROW_EVERY)
        case "random":
            return en.RandomSearch(row_every=ROW_EVERY)
    return "auto"


def make_pruner(options: argparse.Namespace) -> Pruner | None:
    """Returns the pruner of the options, if they name one."""
    return PRUNERS[options.pruner]()


def make_objectives(options: argparse.Namespace) -> list[en.Objective]:
    """Returns the objectives of the options: accuracy is maximised, all else minimised."""
    return [
        en.Objective(name, "max" if name == MAXIMISED else "min") for name in options.objectives
    ]


def budget(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments of `evolve` that end a search, patience aside."""
    with_generations = "generations" in TAKES[options.strategy]
    return {
        "generations": options.generations if with_generations else None,
        "max_evaluations": options.max_evaluations,
        "max_seconds": options.max_seconds,
    }


def front_table(result: en.Result, noun: str) -> str:
    """Returns the Pareto front as a table for people, best by the first objective first."""
    front = result.pareto_front
    names = [objective.name for objective in result.objectives]
    n_ok = sum(entry.status is en.Status.OK for entry in result.evaluations)
    lines = [
        f"Pareto front: {len(front)} of {n_ok} {noun}s, none of which is better in all",
        " ".join([f"{noun:>8}", *(f"{name:>16}" for name in names)]),
    ]
    for entry in front:
        values = " ".join(f"{_shown(value):>16}" for value in entry.values)
        lines.append(f"{entry.number:>8} {values}")
    return "\n".join(lines)


def count(minimum: int) -> Callable[[str], int]:
    """Returns an argument type: a whole number of at least `minimum`."""

    def whole_number(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}, got {value}")
        return value

    return whole_number


def _flags(names: Sequence[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() and abs(value) >= 2 else f"{value:.4f}"
