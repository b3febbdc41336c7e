"""What evonas costs and gains, measured: each module is run as `python -m benchmarks.NAME`."""

from __future__ import annotations
