"""The network of an evaluation: its layers as a drawing, and as lines of a table."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evonas.exceptions import WeightsError
from evonas.records import Evaluation
from evonas.report.style import GREY, PALETTE
from evonas.report.template import rendered

__all__ = [
    "Layer",
    "Net",
    "Row",
    "classes_text",
    "draw",
    "layer_rows",
    "network_of",
    "precision_text",
    "preprocessing_known",
    "preprocessing_text",
]

_log = logging.getLogger(__name__)

MAX_LAYERS = 48  # drawn; of more, those in the middle are left out
_MAX_NAME = 60  # letters of the name of a transform

_KINDS = (  # by what a type's name holds, the first that fits
    ("conv", PALETTE[0]), ("linear", PALETTE[1]), ("norm", PALETTE[4]), ("pool", PALETTE[2]),
    ("attention", PALETTE[3]), ("embedding", PALETTE[7]), ("lstm", PALETTE[5]),
    ("gru", PALETTE[5]), ("rnn", PALETTE[5]),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that was called: see `evonas.execution.anatomy`.

    Attributes:
        name: In the module; "" for the module itself.
        kind: The name of its class.
        shape: Of its output, without the batch; None where it returns no tensor.
        params: Weights of its own.
        macs: Multiply-adds of one example.
    """

    name: str
    kind: str
    shape: tuple[int, ...] | None
    params: int
    macs: int


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the drawing.

    Attributes:
        kind: Of the layer.
        name: Of the layer.
        shape: Of its output.
        costs: Weights and multiply-adds, in words.
        colour: Of the block.
        share: Of the multiply-adds of the costliest layer.
    """

    kind: str
    name: str = ""
    shape: str = ""
    costs: str = ""
    colour: str = GREY
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Net:
    """What is known of an evaluation's network.

    Attributes:
        inputs: The shapes of the inputs, in words.
        layers: In the order in which they are called.
    """

    inputs: str
    layers: tuple[Layer, ...]

    @property
    def params(self) -> int:
        """All weights."""
        return sum(layer.params for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-adds of one example."""
        return sum(layer.macs for layer in self.layers)

    @property
    def rows(self) -> list[Row]:
        """The lines of the drawing: the input, each layer, and the sums."""
        largest = max((layer.macs for layer in self.layers), default=0) or 1
        rows = [Row("input", shape=self.inputs)]
        for entry in _shortened(self.layers, MAX_LAYERS):
            if not isinstance(entry, Layer):
                rows.append(Row(f"… {entry} more layers"))
                continue
            costs = [f"{short(entry.params)} weights"] if entry.params else []
            costs += [f"{short(entry.macs)} multiply-adds"] if entry.macs else []
            colour = next((c for word, c in _KINDS if word in entry.kind.lower()), GREY)
            shape, share = _shape(entry.shape), entry.macs / largest
            rows.append(Row(entry.kind, entry.name, shape, ", ".join(costs), colour, share))
        total = f"{short(self.params)} weights, {short(self.macs)} multiply-adds"
        return [*rows, Row("together", costs=total)]


def network_of(evaluation: Evaluation) -> Net | None:
    """Returns the network that was kept with an evaluation's weights; None: none was.

    A damaged file is none, which is said: the rest of a run can be shown without it.
    """
    try:
        known = {} if evaluation.kept is None else evaluation.kept.network(evaluation.number)
    except WeightsError as error:
        _log.warning("%s", error)
        return None
    entries = known.get("layers")
    if not isinstance(entries, list):
        return None
    layers = tuple(layer for entry in entries if (layer := _layer(entry)) is not None)
    return Net(_inputs(known.get("inputs")), layers) if layers else None


def preprocessing_text(evaluation: Evaluation) -> str:
    """Returns what examples go through before the model, in words; "": nothing that is known."""
    known = preprocessing_known(evaluation)
    named = known.get("transform")
    last = [f"your transform {named[:_MAX_NAME]}"] if isinstance(named, str) else []
    try:
        mean, std = (tuple(float(each) for each in known[n]) for n in ("mean", "std"))
        scale = known.get("scale", 1)
        before = "input" if scale == 1 else f"input / {scale:g}"
    except (KeyError, TypeError, ValueError):
        return "".join(last)
    size = known.get("size")
    is_known = isinstance(size, list) and [type(each) for each in size] == [int, int]
    images = f"images {' × '.join(map(str, size or ()))}, " if is_known else ""
    normalised = f"{images}({before} - mean) / std, with mean {mean} and std {std}"
    return ", then ".join([normalised, *last])


def classes_text(evaluation: Evaluation, most: int | None = None) -> str:
    """Returns the names of a model's outputs in their order, each with its number; "": unknown.

    Args:
        evaluation: Whose weights were kept.
        most: How many to name at most. None: all.
    """
    known = preprocessing_known(evaluation).get("classes")
    classes = known if isinstance(known, list) else []
    named = [f"{place} {name}" for place, name in enumerate(classes[:most])]
    more = len(classes) - len(named)
    return ", ".join([*named, *([f"… and {more} more"] if more else [])])


def preprocessing_known(evaluation: Evaluation) -> dict[str, Any]:
    """Returns `Evaluation.preprocessing`; a damaged file is nothing, as in `network_of`."""
    try:
        return evaluation.preprocessing
    except WeightsError:
        return {}


def precision_text(precision: str) -> str:
    """Returns the arithmetic of a run's trainings, and what that means for its weights."""
    if precision == "float32":
        return precision
    return f"{precision}: in float32 the same weights may score slightly otherwise"


def layer_rows(net: Net, most: int = MAX_LAYERS) -> list[tuple[str, str, str, str, str, str]]:
    """Returns the layers for a terminal, and their sums.

    Name, type, output, weights and multiply-adds of each, and a bar as long as its share of the
    multiply-adds.
    """
    found = [("", "input", net.inputs, "", "", "")]
    largest = max((layer.macs for layer in net.layers), default=0) or 1
    for entry in _shortened(net.layers, most):
        if isinstance(entry, Layer):
            found.append((
                entry.name, entry.kind, _shape(entry.shape), short(entry.params), short(entry.macs),
                "▇" * round(10 * entry.macs / largest),
            ))  # fmt: skip
        else:
            found.append(("", f"… {entry} more layers", "", "", "", ""))
    return [*found, ("", "together", "", short(net.params), short(net.macs), "")]


def draw(net: Net) -> str:
    """Returns the network as an SVG: a block for each layer, as dark as its share of the cost.

    Raises:
        MissingDependencyError: Jinja2 is not installed.
    """
    return rendered("network.svg", net=net)


def short(count: int) -> str:
    """Returns a count in three digits: 36.9k, 9.44M.

    Example:
        >>> short(36_928), short(9_437_184), short(512), short(0)
        ('36.9k', '9.44M', '512', '-')
    """
    if not count:
        return "-"
    for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def _shortened(layers: Sequence[Layer], most: int) -> list[Layer | int]:
    if len(layers) <= most:
        return list(layers)
    first, last = (most + 1) // 2, most // 2
    return [*layers[:first], len(layers) - first - last, *layers[len(layers) - last :]]


def _shape(shape: Sequence[int] | None) -> str:
    if shape is None:
        return "?"
    return "×".join(map(str, shape)) or "number"


def _layer(entry: Any) -> Layer | None:
    """Returns a layer of the run's file, which anybody may have written; None: it is none."""
    if not isinstance(entry, Mapping):
        return None
    shape: Any = entry.get("shape")
    counts: list[Any] = [entry.get(name) for name in ("params", "macs")]
    is_shape = shape is None or (
        isinstance(shape, list) and len(shape) < 9 and all(type(side) is int for side in shape)
    )
    if not is_shape or not all(type(count) is int and 0 <= count < 10**18 for count in counts):
        return None
    name, kind = (str(entry.get(key, ""))[:60] for key in ("name", "type"))
    return Layer(name, kind, None if shape is None else tuple(shape), counts[0], counts[1])


def _inputs(described: Any) -> str:
    if not isinstance(described, Mapping):
        return ""
    if isinstance(named := described.get("named"), Mapping):
        return ", ".join(f"{str(name)[:40]} {_inputs(value)}" for name, value in named.items())[:90]
    if isinstance(several := described.get("several"), list):
        return ", ".join(map(_inputs, several))[:90]
    shape = described.get("shape")
    return _shape(shape[:9]) if isinstance(shape, list) else ""
