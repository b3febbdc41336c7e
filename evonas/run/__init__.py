"""One search while it runs, and as it lies on disk.

- `evolve` opens or resumes a run; `driver` is its loop, `in_flight` what it has asked for and not
  yet told, `champion` the best so far; `budget`, `interrupts`: when it stops.
- `identity`: what a run is, and what may not change between two starts.
- `history`: what is known of a point; `warm_start`: evaluations of earlier runs.
- `store`: the run database and the typed record of a run; `files`, `artifacts`: its other files.
- `confirm` repeats the best on fresh seeds; `result` reads what was found.
"""
