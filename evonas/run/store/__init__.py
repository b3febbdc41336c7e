"""The run database: one SQLite file that holds everything a search must not lose.

Journal mode WAL with NORMAL synchronisation: a process killed at any moment loses nothing that was
committed; `durability="power"` (FULL) also survives a power cut and costs an fsync per commit.
Rows hold JSON and numbers, never pickles: opening somebody else's run cannot run code.

Tables: `record` (what the run is), `evaluations` and `epochs` (what was measured), `proposals`
(what the strategy asked for, and which evaluation answers it), `strategy` (its state), `logbook`
(a row per generation), `sessions` (a row per start), `confirmations` (repeats on fresh seeds).
"""

from __future__ import annotations

from evonas.run.store.reader import KnownPoint, PlannedProposal, RunReader
from evonas.run.store.record import RunRecord
from evonas.run.store.schema import SCHEMA_VERSION
from evonas.run.store.store import Store

__all__ = ["SCHEMA_VERSION", "KnownPoint", "PlannedProposal", "RunReader", "RunRecord", "Store"]
