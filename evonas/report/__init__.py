"""The report of a run: one HTML file, and its figures one by one.

- `write_report(run_dir)` writes `report.html`: self-contained, for people.
- `plots` holds the functions that return each figure.

Everything is read from the run's directory. Needs plotly: `pip install 'evonas[report]'`.
"""

from __future__ import annotations

from evonas.report import plots
from evonas.report.html import render, write_report

__all__ = ["plots", "render", "write_report"]
