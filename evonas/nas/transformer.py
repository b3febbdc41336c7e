"""Our space of transformers for texts: a few blocks over embeddings that are trained with them."""

from __future__ import annotations

from functools import partial

from evonas.arguments import check_int
from evonas.nas.attention import TextEncoder, TransformerBlock
from evonas.nas.layers import Dropout, Linear
from evonas.nas.network import Network
from evonas.records import Genes
from evonas.space import SearchSpace
from evonas.space.genes import Boolean, Categorical, Float, Integer

__all__ = ["hand_made_transformer", "transformer_network", "transformer_space"]


def transformer_space(max_params: int | None = None, vocabulary: int = 10_000) -> SearchSpace:
    """Returns the space: one to six blocks, their heads and widths, where the norm stands, dropout.

    Args:
        max_params: Most weights, embeddings included.
        vocabulary: Numbers of tokens that they are counted for.

    Raises:
        ValueError: A number is below 1.

    Example:
        >>> transformer_space().violated(hand_made_transformer())
        []
    """
    check_int("vocabulary", vocabulary, minimum=1)
    constraints = {}
    if max_params is not None:
        check_int("max_params", max_params, minimum=1)
        constraints[f"at most {max_params:,} weights"] = partial(_is_within, max_params, vocabulary)
    return SearchSpace(
        {
            "depth": Integer(1, 6),
            "width": Categorical([32, 64, 96, 128, 192, 256]),
            "heads": Categorical([1, 2, 4, 8]),
            "ratio": Categorical([1, 2, 4]),
            "activation": Categorical(["relu", "silu", "gelu"]),
            "norm_first": Boolean(),
            "stochastic_depth": Float(0.0, 0.3),
            "lr": Float(1e-4, 1e-2, log=True),
            "momentum": Float(0.8, 0.98),
            "weight_decay": Float(1e-4, 0.3, log=True),
            "dropout": Float(0.0, 0.5),
            "label_smoothing": Float(0.0, 0.2),
        },
        constraints=constraints,
    )


def hand_made_transformer() -> Genes:
    """Returns the point that one would write down: two blocks of width 128 with four heads."""
    return {
        "depth": 2, "width": 128, "heads": 4, "ratio": 2, "activation": "gelu", "norm_first": True,
        "stochastic_depth": 0.0, "lr": 1e-3, "momentum": 0.9, "weight_decay": 0.01, "dropout": 0.2,
        "label_smoothing": 0.1,
    }  # fmt: skip


def transformer_network(genes: Genes, n_classes: int, *, vocabulary: int) -> Network:
    """Returns the network of a point; bind `vocabulary` with `functools.partial`."""
    block = TransformerBlock(
        genes["heads"],
        genes["ratio"],
        genes["activation"],
        genes["norm_first"],
        round(genes["stochastic_depth"], 4),
    )
    encoder = TextEncoder(vocabulary, genes["width"], (block,) * genes["depth"])
    return Network((encoder,), (Dropout(), Linear(n_classes)))


def _is_within(most: int, vocabulary: int, genes: Genes) -> bool:
    return transformer_network(genes, 2, vocabulary=vocabulary).params((64,)) <= most
