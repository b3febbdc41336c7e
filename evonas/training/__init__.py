"""Training any module: the problem of a model of yours, data, one loop, its settings.

```python
data = load_digits()
train, val = split(data, seed=0)
model = place(MyNetwork(), "cpu")
fit(model, data.subset(train), data.subset(val),
    n_epochs=5, batch_size=128, seed=0, optimizer=lambda m: SGD(m.parameters(), lr=0.01))
```

- `ModelProblem`: a search over any module of yours; `Training`: the settings that genes may name.
- `Examples`: data of any kind in memory, in batches on the training device; `split` divides it.
- `load_cifar10`, `load_image_folder`, `load_digits`, `from_dataset`, `from_tensors`: its sources.
- `Sentences`, `read_tsv`, `hold_out`, `Vocabulary`: texts with classes, as token numbers.
- `FlipCrop`: random changes of training images.
- `fit`, `train_epoch`, `evaluate`, `accuracy`, `place`: the loop and its parts.
- `seeded`, `PeakMemory`, `Timed`, `name_of`, `fingerprint_of`: around and about a training.
- `choose_precision`, `autocast`: float32 or bfloat16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evonas.arguments import unknown_names
from evonas.space.naming import fingerprint_of, name_of, readable_name
from evonas.training.data.batches import Augment, Batch, BatchSource, FlipCrop
from evonas.training.data.corpora import Sentences, hold_out, read_tsv
from evonas.training.data.examples import Examples
from evonas.training.data.sources import (
    from_dataset,
    from_tensors,
    load_cifar10,
    load_digits,
    load_image_folder,
)
from evonas.training.data.split import split
from evonas.training.data.vocabulary import Vocabulary
from evonas.training.loop import evaluate, fit, place, train_epoch
from evonas.training.memory import PeakMemory
from evonas.training.metrics import MeanLoss, accuracy
from evonas.training.model_problem import ModelProblem
from evonas.training.passes import forward
from evonas.training.precision import Precision, as_precision, autocast, choose_precision
from evonas.training.problem import TrainingProblem
from evonas.training.recipe import Training
from evonas.training.seeding import seeded
from evonas.training.timed import Timed

__all__ = [
    "Augment",
    "Batch",
    "BatchSource",
    "Examples",
    "FlipCrop",
    "MeanLoss",
    "ModelProblem",
    "PeakMemory",
    "Precision",
    "Sentences",
    "Timed",
    "Training",
    "TrainingProblem",
    "Vocabulary",
    "accuracy",
    "as_precision",
    "autocast",
    "choose_precision",
    "evaluate",
    "fingerprint_of",
    "fit",
    "forward",
    "from_dataset",
    "from_tensors",
    "hold_out",
    "load_cifar10",
    "load_digits",
    "load_image_folder",
    "name_of",
    "place",
    "read_tsv",
    "readable_name",
    "seeded",
    "split",
    "train_epoch",
]

if not TYPE_CHECKING:  # a type checker would find every name
    __getattr__ = unknown_names(__name__, __all__)
