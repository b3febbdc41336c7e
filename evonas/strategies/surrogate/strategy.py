"""The strategy: propose many, rank them by the model, evaluate the most promising."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evonas.arguments import check_int
from evonas.records import Evaluation
from evonas.strategies.base import Proposal, SearchContext
from evonas.strategies.steady import Point, SteadyState
from evonas.strategies.surrogate.acquisition import log_expected_improvement
from evonas.strategies.surrogate.encoding import Encoding
from evonas.strategies.surrogate.model import (
    Draw,
    GaussianProcess,
    Hyperparameters,
    correlation,
    drawn,
    fitted,
    log_posterior,
)
from evonas.strategies.surrogate.observations import Observation, Observations, scalarised
from evonas.strategies.surrogate.proposals import Breeder
from evonas.strategies.surrogate.warping import OFFSETS, warped

__all__ = ["SurrogateEvolution"]

Floats = NDArray[np.float64]
Values = list[Any]

_MAX_LEARNT = 1_000  # points that the model holds: 2,000 would take eight times as long
_MAX_FITTED = 200  # points that hyperparameters are learnt from
_FIT_STEPS = 8  # uphill, from where the last ones ended
_FEW = 40  # points: of fewer the most probable hyperparameters, of more a draw for each proposal
_N_SPREAD = 30  # random points of which the one farthest from all others is taken
_N_CLIMBS, _N_CLIMBED = 3, 3


class SurrogateEvolution(SteadyState):
    """A GA whose offspring are ranked by a model of the fitness; the most promising is evaluated.

    The first `n_initial` points are spread out at random. From then on each proposal is chosen from
    several hundred in numbers: neighbours, mutants and crossings of the `n_parents` best, and
    random points. The model, a Gaussian process that learns how much each gene matters, says of
    each what to expect and how sure it is; the largest expected improvement wins, after a few steps
    of hill climbing in the model. Nothing is evaluated twice.

    The model learns from every evaluation on record (so from those of a warm start too): a failed
    or pruned point counts as a poor one, a point still being evaluated as a standard deviation less
    than the model expects of it, so that the next is looked for elsewhere. The fitness is stretched
    near the best and squeezed far from it, by as much as the data ask for. From 40 points on what
    the model has learnt about the genes is one guess of many that the data allow, and soon another.

    Serves several objectives too, by a random direction towards the Pareto front for each proposal;
    the logbook and the hall of fame then follow the first.

    Args:
        n_initial: Points before the model is asked, those of `initial` and failures included.
        n_parents: How many of the best have offspring.
        warp: Whether to stretch the fitness near the best.
        row_every: Evaluations to a row of the logbook ("generation").
        hall_of_fame: How many of the best to keep.

    Source:
        Expected improvement as in Jones et al. (1998), "Efficient global optimization"; a
        correlation that learns relevances as in their section 2, of distances for mixed genes as in
        Halstrup (2016); points under way as in Ginsbourger et al. (2010), a "liar" between their
        "kriging believer" and "constant liar";
        hyperparameters drawn from their posterior as in Snoek et al. (2012), section 3.2, but one
        draw in place of their mean over many; several objectives as in ParEGO (Knowles 2006).
        Offspring of the best as candidates, and the
        learnt logarithmic warp, are ours.

    Example:
        >>> from evonas import Float, evolve
        >>> result = evolve(
        ...     {"x": Float(-4.0, 4.0), "kind": ["a", "b", "c"]},
        ...     lambda genes, trial: -((genes["x"] - 1.0) ** 2) - (genes["kind"] != "b"),
        ...     strategy=SurrogateEvolution(), max_evaluations=40, seed=0,
        ... )
        >>> result.champion.genes["kind"], round(result.champion.genes["x"], 1)
        ('b', 1.0)
    """

    def __init__(
        self,
        *,
        n_initial: int = 10,
        n_parents: int = 10,
        warp: bool = True,
        row_every: int = 50,
        hall_of_fame: int = 10,
    ) -> None:
        check_int("n_initial", n_initial, minimum=2)
        check_int("n_parents", n_parents, minimum=1)
        if not isinstance(warp, bool):
            raise TypeError(f"warp must be True or False, got {warp!r}")
        super().__init__(row_every=row_every, hall_of_fame=hall_of_fame)
        self._n_initial = n_initial
        self._n_parents = n_parents
        self._offsets = OFFSETS if warp else OFFSETS[-1:]

    def _own_settings(self) -> dict[str, Any]:
        return {
            "n_initial": self._n_initial,
            "n_parents": self._n_parents,
            "warp": len(self._offsets) > 1,
        }

    @property
    def initial_size(self) -> int:
        """The points before the model is asked."""
        return self._n_initial

    def bind(self, context: SearchContext) -> None:
        """Takes the space, and what is on record of it; see `Strategy.bind`."""
        super().bind(context)
        self._encoding = Encoding(context.space)
        self._draw = Draw(Hyperparameters.prior(self._encoding))
        self._offset = self._offsets[-1]
        self._next_fit = 0  # learnt anew when there are so many observations
        self._observed = Observations(context.space, context.objectives)
        self._observed.recall(context.history.evaluations(), ())

    def _observe(self, proposal: Proposal, evaluation: Evaluation) -> None:
        self._observed.add(evaluation)

    # -- choosing ----------------------------------------------------------------------------

    def _choose(self, rng: random.Random) -> Point | None:
        known, failed = self._observed.in_order()
        n_begun = len(self._observed) + len(self._open)
        if len(known) < 2 or n_begun < self._n_initial:
            return self._far_point(rng)
        breeder = Breeder(self._space, rng)
        values = scalarised(np.array([each.fitness for each in known]), rng)
        parents = [known[i].values for i in np.argsort(-values, kind="stable")[: self._n_parents]]
        model, best = self._learn(known, failed, values, rng)
        score = partial(_promise, model, best, _doubt(len(known)))
        ranked = self._rank(breeder.offspring(parents), score, breeder)
        for candidate in ranked:
            point = self._new_point(self._space.genes(candidate))
            if point is not None:
                return point
        return self._random_point(rng)

    def _rank(
        self, candidates: list[Values], score: Callable[[Floats], Floats], breeder: Breeder
    ) -> list[Values]:
        """Returns candidates and what hill climbing found from them, the most promising first."""
        points: list[Values] = []
        scores = np.empty(0)
        seen: set[bytes] = set()
        for _ in range(1 + _N_CLIMBS):
            rows = self._encoding.rows(candidates)
            first = {row.tobytes(): i for i, row in reversed(list(enumerate(rows)))}
            fresh = sorted(i for name, i in first.items() if name not in seen)
            seen.update(first)
            if not fresh:
                break
            highest = scores.max(initial=-math.inf)
            points += [candidates[i] for i in fresh]
            scores = np.concatenate((scores, score(rows[fresh])))
            if scores.max() <= highest:
                break
            top = np.argsort(-scores, kind="stable")[:_N_CLIMBED]
            candidates = [near for i in top for near in breeder.neighbours(points[i])]
        return [points[i] for i in np.argsort(-scores, kind="stable")]

    # -- learning ----------------------------------------------------------------------------

    def _learn(
        self,
        known: Sequence[Observation],
        failed: Sequence[Observation],
        values: Floats,
        rng: random.Random,
    ) -> tuple[GaussianProcess, float]:
        """Returns the model of the targets, points under way included, and the best target."""
        kept = _best_and_others(values, _MAX_LEARNT)
        values = values[kept]
        rows = self._encoding.rows([known[i].values for i in kept])
        n = len(self._observed)
        if n >= self._next_fit:
            self._fit(rows, values, rng)
            self._next_fit = n + (1 if n < 60 else n // 20)
        targets, _ = warped(values, self._offset)
        best = float(targets.max())
        if failed:
            poor = float(np.quantile(targets, 0.25))
            bad = self._encoding.rows([each.values for each in failed[-_MAX_FITTED:]])
            rows = np.vstack((rows, bad))
            targets = np.append(targets, np.full(len(bad), poor))
        model = GaussianProcess(self._encoding, rows, targets, self._draw.hyper)
        if self._open:
            under_way = self._encoding.rows(self._under_way())
            mean, sd = model.predict(under_way)
            rows, targets = np.vstack((rows, under_way)), np.append(targets, mean - sd)
            model = GaussianProcess(self._encoding, rows, targets, self._draw.hyper)
        return model, best

    def _fit(self, rows: Floats, values: Floats, rng: random.Random) -> None:
        """Learns the warp anew, and draws hyperparameters from their posterior."""
        kept = _best_and_others(values, _MAX_FITTED)
        found = []
        for offset in self._offsets:
            targets, log_slope = warped(values, offset)
            density = log_posterior(self._encoding, rows[kept], targets[kept], self._draw.hyper)
            found.append((density + log_slope * len(kept) / len(values), offset, targets))
        _, self._offset, targets = max(found, key=_first)
        self._draw = self._drawn(rows[kept], targets[kept], rng)

    def _drawn(self, rows: Floats, targets: Floats, rng: random.Random) -> Draw:
        """Returns hyperparameters drawn from their posterior, or their mode while data are few.

        One fit believes too much: on `cells` of benchmarks.search_quality it stayed where it was.
        But draws from a wide posterior cost the first 50 points of `layers`, which has 26 genes.
        """
        start = self._draw
        if len(rows) < _FEW or self._next_fit == 0:  # far from the mode, draws would be refused
            return Draw(
                fitted(self._encoding, rows, targets, start.hyper, n_steps=_FIT_STEPS), start.scale
            )
        return drawn(self._encoding, rows, targets, start, rng)

    def _under_way(self) -> list[Values]:
        return [
            self._space.values(proposal.genes, random.Random(proposal.id))
            for proposal in self._open.values()
        ]

    def _far_point(self, rng: random.Random) -> Point | None:
        """Returns the random point that is least like all that are known or under way."""
        known = [each.values for part in self._observed.in_order() for each in part]
        others = self._encoding.rows(known + self._under_way())
        candidates = [self._space.sample_values(rng) for _ in range(_N_SPREAD)]
        weights = Hyperparameters.prior(self._encoding).weights(self._encoding)
        places = self._encoding.coordinates(self._encoding.rows(candidates))
        known_places = self._encoding.coordinates(others)
        alike, _ = correlation(*self._encoding.weighted(places, known_places, weights))
        for i in np.argsort(alike.sum(axis=1), kind="stable"):
            point = self._new_point(self._space.genes(candidates[i]))
            if point is not None:
                return point
        return self._random_point(rng)

    # -- state -------------------------------------------------------------------------------

    def _own_state(self) -> dict[str, Any]:
        return {
            "choices": [float(value) for value in self._draw.hyper.choices],
            "relevance": [float(value) for value in self._draw.hyper.relevance],
            "noise": float(self._draw.hyper.noise),
            "scale": self._draw.scale,
            "offset": self._offset,
            "next_fit": self._next_fit,
        }

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        choices = state.get("choices", np.ones(self._encoding.n_shared))  # older runs have none
        hyper = Hyperparameters(np.array(state["relevance"]), state["noise"], np.array(choices))
        self._draw = Draw(hyper, state.get("scale", 1.0))  # nor a scale
        self._offset, self._next_fit = state["offset"], state["next_fit"]
        # What was asked for and not told comes back through `tell`, in whatever order it did.
        open_keys = {proposal.key for proposal in self._again}
        self._observed.recall(self._context.history.evaluations(), open_keys)


def _best_and_others(values: Floats, n: int) -> NDArray[np.intp]:
    """Returns the places of n values, ascending: the best half of them, and others evenly."""
    if len(values) <= n:
        return np.arange(len(values))
    order = np.argsort(-values, kind="stable")
    n_best = n // 2
    others = np.linspace(n_best, len(values) - 1, n - n_best).astype(np.intp)
    return np.sort(np.concatenate((order[:n_best], order[others])))


def _promise(model: GaussianProcess, best: float, doubt: float, rows: Floats) -> Floats:
    """Returns what rows are worth trying, (n,), the uncertainty being `doubt` times the model's."""
    mean, sd = model.predict(rows)
    return log_expected_improvement(mean, doubt * sd, best)


def _doubt(n_known: int) -> float:
    """Returns by how much the model's uncertainty is too small once so many points are known.

    Its hyperparameters are one guess among many, and a search that believes them stays where it
    is: twice the uncertainty from 50 points on found better ones on three of five problems and none
    worse (benchmarks.search_quality). The first twenty are too few to look elsewhere.
    """
    return 1.0 + min(1.0, max(0.0, (n_known - 20) / 30.0))


def _first(entry: tuple[float, float, Floats]) -> float:
    return entry[0]
