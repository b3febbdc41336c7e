"""Search algorithms in ask/tell form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evonas.arguments import unknown_names
from evonas.strategies.aging import AgingEvolution
from evonas.strategies.ask_tell import AskTell
from evonas.strategies.auto import choose_strategy
from evonas.strategies.base import KnownPoints, Proposal, SearchContext, Strategy
from evonas.strategies.generational import Generational
from evonas.strategies.hyperband import Hyperband
from evonas.strategies.local_search import LocalSearch
from evonas.strategies.nsga2 import NSGA2
from evonas.strategies.random_search import RandomSearch
from evonas.strategies.surrogate import SurrogateEvolution

__all__ = [
    "NSGA2",
    "AgingEvolution",
    "AskTell",
    "Generational",
    "Hyperband",
    "KnownPoints",
    "LocalSearch",
    "Proposal",
    "RandomSearch",
    "SearchContext",
    "Strategy",
    "SurrogateEvolution",
    "choose_strategy",
]

if not TYPE_CHECKING:  # a type checker would find every name
    __getattr__ = unknown_names(__name__, __all__)
