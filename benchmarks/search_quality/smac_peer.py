"""SMAC as a peer: our spaces in the words of ConfigSpace, asked and told."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import evonas as en
from benchmarks.search_quality.instance import Genes
from benchmarks.search_quality.recorder import Recorder

__all__ = ["genes_of", "smac_forest", "smac_space"]


def smac_forest(fitness: Recorder, seed: int) -> None:
    """SMAC's HyperparameterOptimizationFacade (a random forest) with its defaults."""
    from smac import HyperparameterOptimizationFacade, Scenario
    from smac.runhistory import TrialValue

    logging.getLogger("smac").setLevel(logging.CRITICAL)  # it says so at each random point
    space = fitness.instance.space
    # It begins with a quarter of `n_trials` at most, so it has to know how many there are.
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of trees' empty leaves
        scenario = Scenario(
            smac_space(space),
            deterministic=True,
            n_trials=fitness.n_unique,
            seed=seed,
            output_directory=Path(folder),
        )
        search = HyperparameterOptimizationFacade(
            scenario, _never_called, overwrite=True, logging_level=False
        )
        while True:  # until `Spent`
            asked = search.ask()
            cost = -fitness(genes_of(space, dict(asked.config)))
            search.tell(asked, TrialValue(cost=cost), save=False)


def _never_called(config: object, seed: int = 0) -> float:
    raise RuntimeError("SMAC is asked and told, it runs nothing itself")


def smac_space(space: en.SearchSpace) -> Any:
    """Returns a ConfigurationSpace: numbers as numbers, every other gene by place.

    A whole number on a logarithmic grid with steps has no counterpart: it is a number in [0, 1].
    """
    from ConfigSpace import AndConjunction, ConfigurationSpace, InCondition

    found = ConfigurationSpace()
    variables = {name: _variable(name, gene) for name, gene in space.items()}
    found.add(*variables.values())
    for child, parents in space.conditions.items():
        tests = [
            InCondition(
                variables[child],
                variables[name],
                [_place(space[name], value) for value in allowed],
            )
            for name, allowed in parents.items()
        ]
        found.add(tests[0] if len(tests) == 1 else AndConjunction(*tests))
    return found


def _variable(name: str, gene: en.Gene) -> Any:
    from ConfigSpace import Categorical, Float, Integer

    if isinstance(gene, en.Float):
        return Float(name, (gene.low, gene.high), log=gene.log)
    if not isinstance(gene, en.Integer):
        return Categorical(name, list(range(int(gene.cardinality))))
    if gene.step == 1:
        return Integer(name, (gene.low, gene.high), log=gene.log)
    if gene.log:
        return Float(name, (0.0, 1.0))
    return Integer(name, (0, int(gene.cardinality) - 1))


def _place(gene: en.Gene, value: Any) -> Any:
    """Returns how `smac_space` writes a value of a gene that conditions may name."""
    if isinstance(gene, en.Integer):
        if gene.log and gene.step != 1:
            raise ValueError(f"a condition on {gene!r}: SMAC's space has no places for it")
        return value if gene.step == 1 else (value - gene.low) // gene.step
    return list(gene.all_values()).index(value)


def genes_of(space: en.SearchSpace, found: Mapping[str, Any]) -> Genes:
    """Returns the genes that a configuration stands for, those that are active."""
    genes: Genes = {}
    for name, gene in space.items():
        if name not in found:
            continue
        value = found[name]
        if isinstance(gene, en.Float):
            genes[name] = min(max(float(value), gene.low), gene.high)  # exp(log(high)) may be above
        elif not isinstance(gene, en.Integer):
            genes[name] = list(gene.all_values())[int(value)]
        elif gene.step == 1:
            genes[name] = int(value)
        elif gene.log:
            genes[name] = gene.decode([float(value)])
        else:
            genes[name] = gene.low + gene.step * int(value)
    return genes
