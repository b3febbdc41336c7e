"""A Gaussian process over mixed genes that learns how much each gene matters."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evonas.strategies.surrogate.encoding import Encoding

__all__ = [
    "Draw",
    "GaussianProcess",
    "Hyperparameters",
    "correlation",
    "drawn",
    "fitted",
    "fitted_model",
    "log_posterior",
]

Floats = NDArray[np.float64]

_RELEVANCE_SD = 1.5  # of the log-normal prior
_NOISE_MEAN, _NOISE_SD = 0.01, 1.5
_CHOICE_SD = 1.0  # of the log-normal prior on what several genes share
_TOTAL_RELEVANCE = 1.0  # of two random points: a correlation of exp(-1) to begin with
_DEGREES = 3.0  # of the prior on the variance
_JITTER = 1e-6
_MANY_STEPS = 50  # of BFGS, where a model is learnt once
_N_LEAPS, _LEAP = 7, 0.3  # of a draw; shorter the more points there are
_FEW = 60  # points up to which leaps have their full length
_LONGER, _SHORTER = 1.05, 1.05**-4  # after a draw that is accepted, refused: four in five are
_FARTHEST = 30.0  # a logarithm from which on a draw has lost its way


@dataclass(frozen=True)
class Hyperparameters:
    """What is learnt.

    Attributes:
        relevance: (n_genes,): how fast the correlation falls with the distance in each gene.
        noise: Variance of the noise, as a fraction of the variance of the signal.
        choices: (n_shared,): how far each choice that several genes share is from the others.
    """

    relevance: Floats
    noise: float
    choices: Floats = field(default_factory=lambda: np.empty(0))

    @classmethod
    def prior(cls, encoding: Encoding) -> Hyperparameters:
        """Returns the centre of the prior: all genes matter alike, all choices are as far apart."""
        return cls(_prior_relevance(encoding), _NOISE_MEAN, np.ones(encoding.n_shared))

    def vector(self) -> Floats:
        """Returns the logarithms, (n_shared + n_genes + 1,)."""
        return np.asarray(np.log(np.concatenate((self.choices, self.relevance, [self.noise]))))

    @classmethod
    def from_vector(cls, vector: Floats, n_shared: int = 0) -> Hyperparameters:
        """Returns what `vector` came from."""
        values = np.exp(vector)
        return cls(values[n_shared:-1], float(values[-1]), values[:n_shared])

    def weights(self, encoding: Encoding) -> Floats:
        """Returns the weight of each coordinate's squared difference, (n_coordinates,)."""
        by_choice = np.append(self.choices, 1.0)[encoding.choice_of]
        return np.asarray(self.relevance[encoding.gene_of] * by_choice)


@dataclass(frozen=True)
class Draw:
    """Hyperparameters of a chain of draws.

    Attributes:
        hyper: The hyperparameters.
        scale: Of the leaps to the next draw, at most 1: smaller where draws were refused.
    """

    hyper: Hyperparameters
    scale: float = 1.0


def _prior_relevance(encoding: Encoding) -> Floats:
    # Two random points differ in most choices, and by 1/6 in a number's squared distance.
    typical = np.where(encoding.is_number, 1.0 / 6.0, 0.7)
    relevance: Floats = _TOTAL_RELEVANCE / (encoding.n_genes * typical)
    return relevance


def correlation(choices: Floats, numbers: Floats) -> tuple[Floats, Floats]:
    """Returns the correlation of points, and how fast it falls with the distance in numbers.

    exp(-choices) times the Matérn 5/2 function of the numbers' distance, in a scale in which a
    little distance lowers the correlation by as much in either.

    Args:
        choices: Weighted sums of distances over choices, of any shape.
        numbers: Those over numbers, of the same shape.

    Returns:
        The correlation, and minus its derivative by `numbers`; that by `choices` is minus itself.
    """
    root = np.sqrt(6.0 * numbers)
    falling = np.exp(-choices - root)
    slope = falling * (1.0 + root)
    return slope + falling * (2.0 * numbers), slope


class GaussianProcess:
    """Posterior over targets, given rows, targets and hyperparameters.

    Correlation: see `correlation`, with distances weighted by relevance. Mean and variance of the
    signal are integrated out.

    Args:
        encoding: What rows mean.
        rows: (n, n_genes).
        targets: (n,).
        hyper: From `fitted`.
    """

    def __init__(
        self, encoding: Encoding, rows: Floats, targets: Floats, hyper: Hyperparameters
    ) -> None:
        self._encoding = encoding
        self._weights = hyper.weights(encoding)
        self._coordinates = encoding.coordinates(rows)
        among, _ = correlation(
            *encoding.weighted(self._coordinates, self._coordinates, self._weights)
        )
        among[np.diag_indices_from(among)] = 1.0 + hyper.noise + _JITTER
        self._inverse = np.linalg.inv(among)
        self._row_sums = self._inverse.sum(axis=1)
        self._total = float(self._row_sums.sum())
        self.mean = float(self._row_sums @ targets) / self._total
        residual = targets - self.mean
        self._solved = self._inverse @ residual
        self.variance = (max(float(residual @ self._solved), 0.0) + _DEGREES) / (
            len(targets) + _DEGREES
        )

    def predict(self, rows: Floats) -> tuple[Floats, Floats]:
        """Returns mean and standard deviation of the signal (without noise) at rows, (n,) each."""
        places = self._encoding.coordinates(rows)
        cross, _ = correlation(*self._encoding.weighted(places, self._coordinates, self._weights))
        mean = self.mean + cross @ self._solved
        explained = ((cross @ self._inverse) * cross).sum(axis=1)
        unsure = (1.0 - cross @ self._row_sums) ** 2 / self._total
        variance = self.variance * np.maximum(1.0 - explained + unsure, 1e-10)
        return mean, np.sqrt(variance)

    def left_out_errors(self) -> Floats:
        """Returns target less prediction, (n,), each point being left out when it is predicted.

        Source:
            Equation 5.12 of Rasmussen and Williams (2006), "Gaussian processes for machine
            learning".
        """
        return np.asarray(self._solved / np.diagonal(self._inverse))


def fitted_model(encoding: Encoding, rows: Floats, targets: Floats) -> GaussianProcess:
    """Returns the posterior of targets (n,) at rows (n, n_genes), its hyperparameters learnt."""
    start = Hyperparameters.prior(encoding)
    hyper = fitted(encoding, rows, targets, start, n_steps=_MANY_STEPS)
    return GaussianProcess(encoding, rows, targets, hyper)


def fitted(
    encoding: Encoding, rows: Floats, targets: Floats, start: Hyperparameters, *, n_steps: int
) -> Hyperparameters:
    """Returns hyperparameters of larger posterior density, at most `n_steps` uphill from `start`.

    Args:
        encoding: What rows mean.
        rows: (n, n_genes).
        targets: (n,).
        start: Where to begin; at the next call, where this one ended.
        n_steps: Steps of BFGS at most.
    """
    vector, _ = _climb(_Posterior(encoding, rows, targets), start.vector(), n_steps)
    return Hyperparameters.from_vector(vector, encoding.n_shared)


def drawn(
    encoding: Encoding,
    rows: Floats,
    targets: Floats,
    start: Draw,
    rng: random.Random,
) -> Draw:
    """Returns a draw from the posterior of the hyperparameters: one step of a chain from `start`.

    A draw that is refused has the hyperparameters of `start`. `rng` draws a number for each and
    two more.

    Args:
        encoding: What rows mean.
        rows: (n, n_genes).
        targets: (n,).
        start: The draw before; the first one from hyperparameters that `fitted` returned.
        rng: Source of all randomness.

    Source:
        Hamiltonian Monte Carlo as in figure 2 of Neal (2011), "MCMC using Hamiltonian dynamics",
        over the logarithms; the length of a leap varies by a third, as in his section 4.2. Ours
        follows the share that is accepted for good, as the data grow all the time.
    """
    density = _Posterior(encoding, rows, targets)
    place = start.hyper.vector()
    leap = start.scale * _LEAP * math.sqrt(min(1.0, _FEW / len(targets))) * rng.uniform(0.7, 1.3)
    momentum = np.array([rng.gauss(0.0, 1.0) for _ in place])
    value, slope = density(place)
    before = value - 0.5 * float(momentum @ momentum)
    refused = Draw(start.hyper, start.scale * _SHORTER)
    for _ in range(_N_LEAPS):
        momentum = momentum + 0.5 * leap * slope
        place = place + leap * momentum
        if np.abs(place).max() > _FARTHEST:
            return refused
        value, slope = density(place)
        momentum = momentum + 0.5 * leap * slope
    gain = value - 0.5 * float(momentum @ momentum) - before
    if math.log(1.0 - rng.random()) >= gain:
        return refused
    return Draw(
        Hyperparameters.from_vector(place, encoding.n_shared), min(1.0, start.scale * _LONGER)
    )


def log_posterior(
    encoding: Encoding, rows: Floats, targets: Floats, hyper: Hyperparameters
) -> float:
    """Returns the logarithm of the posterior density of hyperparameters, up to a constant."""
    return _Posterior(encoding, rows, targets)(hyper.vector())[0]


class _Posterior:
    """Log posterior density of log hyperparameters, and its gradient."""

    def __init__(self, encoding: Encoding, rows: Floats, targets: Floats) -> None:
        self._encoding = encoding
        self._coordinates = encoding.coordinates(rows)
        self._targets = targets
        self._centre = Hyperparameters.prior(encoding).vector()
        self._sd = np.full(len(self._centre), _RELEVANCE_SD)
        self._sd[: encoding.n_shared] = _CHOICE_SD
        self._sd[-1] = _NOISE_SD

    def __call__(self, vector: Floats) -> tuple[float, Floats]:
        n, n_shared = len(self._targets), self._encoding.n_shared
        hyper = Hyperparameters.from_vector(vector, n_shared)
        weights, places = hyper.weights(self._encoding), self._coordinates
        signal, falling = correlation(*self._encoding.weighted(places, places, weights))
        among = signal.copy()
        among[np.diag_indices_from(among)] += hyper.noise + _JITTER
        try:
            factor = np.linalg.cholesky(among)
        except np.linalg.LinAlgError:
            return -np.inf, np.zeros_like(vector)
        inverse = np.linalg.inv(among)
        row_sums = inverse.sum(axis=1)
        mean = float(row_sums @ self._targets) / float(row_sums.sum())
        residual = self._targets - mean
        solved = inverse @ residual
        spread = float(residual @ solved) + _DEGREES
        off = (vector - self._centre) / self._sd
        density = (
            -0.5 * (n + _DEGREES) * np.log(spread)
            - float(np.log(np.diagonal(factor)).sum())
            - 0.5 * float(off @ off)
        )
        # d density / d correlation, times -correlation: what a step in a distance's weight does.
        slope = 0.5 * ((n + _DEGREES) / spread * np.outer(solved, solved) - inverse)
        is_number = self._encoding.is_number[self._encoding.gene_of]
        by_choice, by_number = (_summed(slope * part, places) for part in (signal, falling))
        parts = -weights * np.where(is_number, by_number, by_choice)
        gradient = np.empty_like(vector)
        by_place = np.bincount(self._encoding.choice_of + 1, parts, n_shared + 1)
        gradient[:n_shared] = by_place[1:]
        gradient[n_shared:-1] = np.bincount(self._encoding.gene_of, parts)
        gradient[-1] = hyper.noise * float(np.trace(slope))
        return float(density), gradient - off / self._sd


def _summed(among: Floats, places: Floats) -> Floats:
    """Returns the sums of squared differences in each coordinate, times a symmetric (n, n)."""
    crossed = ((among @ places) * places).sum(axis=0)
    return np.asarray(2.0 * (among.sum(axis=1) @ places**2 - crossed))


def _climb(objective: _Posterior, start: Floats, n_steps: int) -> tuple[Floats, float]:
    """Returns a maximum by BFGS with backtracking, and its value."""
    x = start
    value, gradient = objective(x)
    inverse = np.eye(len(x)) * 0.1
    for _ in range(n_steps):
        step = inverse @ gradient
        longest = float(np.abs(step).max())
        if longest > 2.0:
            step *= 2.0 / longest
        gain = float(step @ gradient)
        if gain < 1e-3:
            break
        scale = 1.0
        for _ in range(8):
            new_value, new_gradient = objective(x + scale * step)
            if new_value >= value + 1e-4 * scale * gain:
                break
            scale *= 0.4
        else:
            break
        move, change = scale * step, gradient - new_gradient
        curvature = float(move @ change)
        if curvature > 1e-10:
            left = np.eye(len(x)) - np.outer(move, change) / curvature
            inverse = left @ inverse @ left.T + np.outer(move, move) / curvature
        x, value, gradient = x + move, new_value, new_gradient
    return x, value
