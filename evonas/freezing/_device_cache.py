"""What fine-tunings on one device share: the examples, and outputs of frozen prefixes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from evonas.freezing.prefix.store import PrefixStore
from evonas.training.data.examples import Examples

__all__ = ["DeviceCache"]


@dataclass(frozen=True)
class DeviceCache:
    """What trainings on one device share."""

    examples: dict[str, Examples]
    store: PrefixStore

    @classmethod
    def on(
        cls, device: str, examples: Mapping[str, Examples], memory_bytes: int, file_bytes: int
    ) -> Self:
        """Returns the examples, moved there, and an empty store."""
        return cls(
            {name: part.to(device) for name, part in examples.items()},
            PrefixStore(memory_bytes=memory_bytes, file_bytes=file_bytes, device=device),
        )
