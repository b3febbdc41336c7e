"""Which layers of a pretrained model to freeze when it is fine-tuned.

```python
problem = FreezingProblem(make_model, train, val, n_epochs=3)
evonas.evolve(problem, population=16, generations=8, run_dir="runs/mine",
              callbacks=[GenerationLog(problem)])
print(compare_masks(problem, "runs/mine", test))
apply_mask(model, load_mask("runs/mine"))
```

- `find_blocks`, `Block`: the parts of any model that can be frozen.
- `apply_mask` and its relatives: freezing by a mask, and undoing it.
- `FreezingProblem`, `GenerationLog`, `compare_masks`: the search, and its honest end.
- `RecipeProblem`, `Recipe`, `load_recipe`: for each block what is trained, and at which rate.
- `Examples` (of `evonas.training`): data in memory.
- `evonas.freezing.prefix`: frozen prefixes computed once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evonas.arguments import unknown_names
from evonas.freezing.blocks import Block, find_blocks
from evonas.freezing.comparison import compare_masks
from evonas.freezing.comparison_table import MaskRow, MaskTable
from evonas.freezing.files import load_mask
from evonas.freezing.mask import (
    AppliedMask,
    applied_mask,
    apply_mask,
    as_mask,
    frozen_prefix,
    trainable_parameter_groups,
    trainable_share,
)
from evonas.freezing.problem import FreezingProblem
from evonas.freezing.progress import GenerationLog
from evonas.freezing.recipe import Recipe, load_recipe
from evonas.freezing.recipe_problem import RecipeProblem
from evonas.freezing.saved_mask import SavedMask
from evonas.training import Examples

__all__ = [
    "AppliedMask",
    "Block",
    "Examples",
    "FreezingProblem",
    "GenerationLog",
    "MaskRow",
    "MaskTable",
    "Recipe",
    "RecipeProblem",
    "SavedMask",
    "applied_mask",
    "apply_mask",
    "as_mask",
    "compare_masks",
    "find_blocks",
    "frozen_prefix",
    "load_mask",
    "load_recipe",
    "trainable_parameter_groups",
    "trainable_share",
]

if not TYPE_CHECKING:  # a type checker would find every name
    __getattr__ = unknown_names(__name__, __all__)
