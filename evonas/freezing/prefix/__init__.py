"""Frozen prefixes computed once: trainings that start behind the frozen blocks of a model.

- `cut` finds where a model can be cut; `replay` starts and stops forward passes there.
- `store` keeps the outputs; `session` trains with them; `decision` finds out whether to.
"""
