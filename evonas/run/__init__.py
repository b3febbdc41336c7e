"""One search while it runs, and as it lies on disk.

- `evolve` opens or resumes a run; `driver` is its loop; `budget`, `interrupts`: when it stops.
- `identity` and `settings`: what a run is, and what may not change between two starts.
- `history`: what is known of a point; `warm_start`: evaluations of earlier runs.
- `store`: the run database; `files` and `artifacts`: the files beside it.
- `confirm` repeats the best on fresh seeds; `result` reads what was found.
"""
