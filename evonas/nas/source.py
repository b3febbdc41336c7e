"""The source code that a point stands for, after the nn-dataset contract.

A generated module imports torch alone and defines

* `supported_hyperparameters()`, which returns the names that it reads from `prm`;
* `Net(in_shape, out_shape, prm, device)`, where `in_shape` is `(batch, C, H, W)` and `out_shape`
  is `(classes,)`, with `train_setup(prm)` and `learn(train_data)` (one epoch).

Learning rate and the like come from `prm`, so two points that differ in them alone have the same
code; the genes stand in a comment at the end.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

from evonas.nas.layers import OWN_MODULES, Call, Shape, literal
from evonas.nas.network import Network

__all__ = [
    "GENERATOR_VERSION",
    "HYPERPARAMETERS",
    "OptimizerInSource",
    "chromosome_comment",
    "generate_source",
    "hyperparameters_in",
    "literal_dict",
]

GENERATOR_VERSION = 1
"""Part of every fingerprint: raise it when the generated code trains differently."""

HYPERPARAMETERS = ("lr", "momentum", "weight_decay", "dropout", "label_smoothing")
"""What generated code can read from `prm`; genes of these names are training genes."""

OptimizerInSource = Literal["SGD", "AdamW"]
"""Of `torch.optim`; `momentum` is the first beta of AdamW."""

_LINE = 100
_SHAPE_COLUMN = 78


def hyperparameters_in(genes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the genes that generated code reads from `prm`."""
    return {name: genes[name] for name in HYPERPARAMETERS if name in genes}


def generate_source(
    network: Network,
    in_shape: Shape,
    *,
    genes: Mapping[str, Any] | None = None,
    hyperparameters: Collection[str] = HYPERPARAMETERS[:2],
    optimizer: OptimizerInSource = "SGD",
) -> str:
    """Returns the source of a module that builds and trains the network; deterministic.

    Args:
        network: The layers.
        in_shape: Of one image, `(C, H, W)`, or text, `(length,)`.
        genes: Written into the comment at the end (the chromosome).
        hyperparameters: Which of `HYPERPARAMETERS` the optimiser and the loss read from `prm`
            (`lr` and `momentum` always; `dropout` is found in the layers).
        optimizer: What `train_setup` makes.

    Raises:
        InvalidPoint: A layer cannot take what reaches it.
        ValueError: A hyperparameter is not one of `HYPERPARAMETERS`.
    """
    unknown = sorted(set(hyperparameters) - set(HYPERPARAMETERS))
    if unknown:
        raise ValueError(
            f"hyperparameters must be among {', '.join(HYPERPARAMETERS)}, got {', '.join(unknown)}"
        )
    used = {"lr", "momentum"} | (set(hyperparameters) - {"dropout"})
    if network.uses("dropout"):
        used.add("dropout")
    names = ", ".join(f'"{name}"' for name in HYPERPARAMETERS if name in used)
    loss = 'label_smoothing=prm["label_smoothing"]' if "label_smoothing" in used else ""
    momentum = (
        'betas=(prm["momentum"], 0.999)' if optimizer == "AdamW" else 'momentum=prm["momentum"]'
    )
    arguments = ['lr=prm["lr"]', momentum]
    if "weight_decay" in used:
        arguments.append('weight_decay=prm["weight_decay"]')

    calls, leaving = network.calls(in_shape), network.shapes(in_shape)
    entering = [in_shape, *leaving[:-1]]
    split = len(network.features)
    template = _TEMPLATE
    if len(in_shape) == 1:
        template = template.replace("(batch, C, H, W)", "(batch, length)").replace("images", "ids")
    return template.format(
        names=names,
        modules=_own_modules(calls),
        features=_sequential(calls[:split], entering[:split], leaving[:split]),
        classifier=_sequential(calls[split:], entering[split:], leaving[split:]),
        loss=loss,
        optimizer=optimizer,
        arguments="\n".join(f"            {argument}," for argument in arguments),
        chromosome=chromosome_comment(genes),
    )


def chromosome_comment(genes: Mapping[str, Any] | None) -> str:
    """Returns the comment at the end of a module, empty where there are no genes."""
    if not genes:
        return ""
    lines = literal_dict(genes).splitlines()
    return "\n\n# Chromosome:\n" + "".join(f"# {line}\n" for line in lines)


def literal_dict(values: Mapping[str, Any]) -> str:
    """Returns the mapping as a Python dict display, one entry a line where it is long."""
    entries = [f"{literal(name)}: {literal(value)}" for name, value in values.items()]
    line = "{" + ", ".join(entries) + "}"
    if len(line) <= _LINE - 16:
        return line
    return "{\n" + "".join(f"    {entry},\n" for entry in entries) + "}"


def _sequential(calls: list[Call], entering: list[Shape], leaving: list[Shape]) -> str:
    lines = []
    for call, before, after in zip(calls, entering, leaving, strict=True):
        *first, line = _lines(call, " " * 12)
        if after != before:  # a comment, so it does not count for the point's key
            shape = f"# {'x'.join(str(side) for side in after)}"
            with_shape = f"{line:<{_SHAPE_COLUMN}}  {shape}"
            if len(with_shape) <= _LINE:
                line = with_shape
            else:
                first.insert(0, f"{' ' * 12}{shape} from here on:")
        lines += [*first, line]
    return "\n".join(lines)


def _lines(call: Call, indent: str) -> list[str]:
    """Returns a call, each of the calls within on lines of its own."""
    if not call.inner:
        return [f"{indent}{call.code},"]
    found = [f"{indent}{call.class_code}("]
    plain = [code for value, code in call.arguments() if not isinstance(value, Call)]
    if plain:
        found.append(f"{indent}    {', '.join(plain)},")
    for part in call.inner:
        found += _lines(part, f"{indent}    ")
    return [*found, f"{indent}),"]


def _own_modules(calls: Iterable[Call]) -> str:
    """Returns the source of our classes that the calls make; empty where there are none."""
    used = set[str]().union(*(call.names() for call in calls))
    if used.isdisjoint(OWN_MODULES):
        return ""
    from evonas.nas import modules  # needs torch

    sources = [_plain_source(getattr(modules, name)) for name in OWN_MODULES if name in used]
    return "".join(f"{text}\n\n\n" for text in sources)


def _plain_source(kind: type) -> str:
    """Returns a class without annotations and docstrings (which are lines of their own).

    By text, not through `ast.unparse`: its layout differs between Python versions, and keys must
    not.
    """
    lines = [line for line in inspect.getsource(kind).splitlines() if '"""' not in line]
    text = "\n".join(re.split("  # (?:type: ignore|noqa)", line)[0] for line in lines)
    text = re.sub(r": (nn\.Module|Tensor|int|float|bool|list\[int\])(?=[,)])", "", text)
    return re.sub(r"\) -> \w+:", "):", text).replace(":\n\n    def __init__", ":\n    def __init__")


_TEMPLATE = '''\
import torch
from torch import nn


def supported_hyperparameters():
    return {{{names}}}


{modules}class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        """in_shape: (batch, C, H, W); out_shape: (classes,); prm: the hyperparameters by name."""
        super().__init__()
        self.device = device
        self.features = nn.Sequential(
{features}
        )
        self.classifier = nn.Sequential(
{classifier}
        )

    def forward(self, images):
        return self.classifier(self.features(images))

    def train_setup(self, prm):
        self.to(self.device)
        self.criterion = nn.CrossEntropyLoss({loss})
        self.optimizer = torch.optim.{optimizer}(
            self.parameters(),
{arguments}
        )

    def learn(self, train_data):
        """Trains one epoch; train_data yields (images, labels)."""
        self.train()
        for images, labels in train_data:
            images, labels = images.to(self.device), labels.to(self.device)
            self.optimizer.zero_grad()
            loss = self.criterion(self(images), labels)
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters(), 3)
            self.optimizer.step()
{chromosome}'''
