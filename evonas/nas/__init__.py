"""Searching network architectures for images and texts: a point is a network and how to train it.

```python
data = partial(load_cifar10, "data")
problem = ImageClassificationProblem(alexnet_space(), alexnet_network, data, n_epochs=5)
en.evolve(problem, population=50, generations=25, run_dir="runs/alexnet")
```

- `Network`, and the layers in `evonas.nas.layers`: a list that becomes module and source.
- `build`, `generate_source`, `infer_shapes`: the module, its source, its shapes.
- `alexnet_space`, `alexnet_cifar_space`, `alexnet_small_space`, `resnet_space`, `mobilenet_space`,
  `cell_space`, with `alexnet_network`, `plain_network` and so on, which build their points;
  `FAMILIES` has them by name.
- `transformer_space`, `transformer_network`: for texts.
- `ImageClassificationProblem`, `TextClassificationProblem`: train a point;
  `NasRunFiles`: writes a run's files.
- `search_and_train`: from images to a trained and tested champion in a given time.

The last four need torch and are imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from evonas.arguments import no_attribute
from evonas.nas.alexnet import alexnet_network, alexnet_space
from evonas.nas.cell import cell_network, cell_space
from evonas.nas.families import FAMILIES, Family
from evonas.nas.mobilenet import mobilenet_network, mobilenet_space
from evonas.nas.network import Network, build, infer_shapes
from evonas.nas.plain import alexnet_cifar_space, alexnet_small_space, plain_network
from evonas.nas.resnet import resnet_network, resnet_space
from evonas.nas.source import generate_source
from evonas.nas.transformer import transformer_network, transformer_space

if TYPE_CHECKING:
    from evonas.nas.export import NasRunFiles
    from evonas.nas.problem import ImageClassificationProblem
    from evonas.nas.text_problem import TextClassificationProblem
    from evonas.nas.timed_search import search_and_train

__all__ = [
    "FAMILIES",
    "Family",
    "ImageClassificationProblem",
    "NasRunFiles",
    "Network",
    "TextClassificationProblem",
    "alexnet_cifar_space",
    "alexnet_network",
    "alexnet_small_space",
    "alexnet_space",
    "build",
    "cell_network",
    "cell_space",
    "generate_source",
    "infer_shapes",
    "mobilenet_network",
    "mobilenet_space",
    "plain_network",
    "resnet_network",
    "resnet_space",
    "search_and_train",
    "transformer_network",
    "transformer_space",
]


_NEED_TORCH = {
    "ImageClassificationProblem": "problem",
    "NasRunFiles": "export",
    "TextClassificationProblem": "text_problem",
    "search_and_train": "timed_search",
}


def __getattr__(name: str) -> Any:
    if name in _NEED_TORCH:
        return getattr(import_module(f"evonas.nas.{_NEED_TORCH[name]}"), name)
    raise no_attribute(f"module {__name__!r}", name, __all__)
