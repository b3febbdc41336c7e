"""Search algorithms in ask/tell form."""

from __future__ import annotations

from evonas.strategies.base import History, Proposal, SearchContext, Strategy
from evonas.strategies.generational import Generational
from evonas.strategies.random_search import RandomSearch

__all__ = ["Generational", "History", "Proposal", "RandomSearch", "SearchContext", "Strategy"]
