"""Adapters to other libraries: one file each, imported only when it is used.

- `evonas.integrations.huggingface`: `TrialCallback` for the `Trainer` of transformers.
- `evonas.integrations.lightning`: `TrialCallback` for the `Trainer` of Lightning.
"""
