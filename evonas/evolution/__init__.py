"""Everything that is DEAP: individuals, operators, toolbox, hall of fame, random state.

- `individual`: `Individual` and `Fitness`, plain classes that pickle; `deap.creator` stays empty.
- `operators`: crossover, mutation and selection in DEAP's calling convention.
- `toolbox`: `make_toolbox(space, ...)`, in which any operator can be registered anew.
- `hall_of_fame`: DEAP's hall of fame with a stable order among equals.
- `random_state`: seeds, generator states as JSON, the guard around DEAP's global ones.
"""
