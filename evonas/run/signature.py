"""Which starts this user made on this machine: a signature that no one else can forge.

`evonas resume` runs a command that stands in a run's directory. In a directory from somebody else
it may be any command, so it runs unasked only what was signed with a secret that is kept outside
of every run.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["is_ours", "sign"]

_SIGNED = ("command", "directory", "run_dir")
_SECRET_BYTES = 32


def sign(environment: Mapping[str, Any], names: Sequence[str] = _SIGNED) -> str | None:
    """Returns the signature of a start's command, directory and run, or of entries `names`.

    None where the secret can neither be read nor made (no home directory, a read-only one).

    Args:
        environment: What `evonas.run.identity.environment` returns.
        names: Of the entries that are signed.
    """
    secret = _secret(make=True)
    return None if secret is None else _signature(secret, environment, names)


def is_ours(environment: Mapping[str, Any], names: Sequence[str] = _SIGNED) -> bool:
    """Whether what is on record was signed by this user on this machine."""
    secret, found = _secret(make=False), environment.get("signature")
    if secret is None or not isinstance(found, str):
        return False
    expected = _signature(secret, environment, names)
    return hmac.compare_digest(expected.encode(), found.encode(errors="replace"))


def _signature(secret: bytes, environment: Mapping[str, Any], names: Sequence[str]) -> str:
    signed = json.dumps([environment.get(name) for name in names])
    return hmac.new(secret, signed.encode(), "sha256").hexdigest()


def _secret(*, make: bool) -> bytes | None:
    try:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        path = Path(state) / "evonas" / "secret"
        if make and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
            part.touch(mode=0o600)
            part.write_bytes(secrets.token_bytes(_SECRET_BYTES))
            try:
                os.link(part, path)  # of two processes that begin at once, the first one's
            except FileExistsError:
                pass
            finally:
                part.unlink()
        found = path.read_bytes()
    except (OSError, RuntimeError):  # no home directory is a RuntimeError
        return None
    return found if len(found) == _SECRET_BYTES else None
