"""The command `evonas`: a module for each of its commands, and what they share in `screen`."""

from __future__ import annotations

from evonas.cli.command import main

__all__ = ["main"]
