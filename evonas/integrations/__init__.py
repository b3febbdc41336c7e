"""Adapters to other libraries: one file each, imported only when it is used.

- `evonas.integrations.huggingface`: `use_recipe` and `training_arguments` train by a recipe with
  the `Trainer` of transformers, sentence-transformers and setfit; `TrialCallback` for a search.
- `evonas.integrations.lightning`: `RecipeCallback`, `TrialCallback`.
- `evonas.integrations.fastai`: `learner_arguments` of a recipe.
- `evonas.integrations.ultralytics`: `freeze_argument` of a recipe or mask.

peft and timm need none: `Recipe.peft_config` is a `LoraConfig`, and timm's optimizers take the
parameter groups of `Recipe.apply`.
"""
