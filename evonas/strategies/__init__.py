"""Search algorithms in ask/tell form."""

from __future__ import annotations

from evonas.strategies.base import History, Proposal, SearchContext, Strategy
from evonas.strategies.generational import Generational

__all__ = ["Generational", "History", "Proposal", "SearchContext", "Strategy"]
