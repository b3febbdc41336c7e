"""How good is the best point after N evaluations: strategies and their peers side by side."""

from __future__ import annotations
