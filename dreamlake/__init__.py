"""Dreamlake records machine-learning experiments: logs, parameters, metrics and files of a training, kept by a local
agent.

>>> from dreamlake import Session
>>> with Session(name="my-experiment", workspace="project") as session:       # doctest: +SKIP
...     session.log("Training started")
...     session.track("loss").append(value=0.5, epoch=1)
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if sys.platform == "win32":
    raise ImportError("Dreamlake runs on Linux and macOS, and not on Windows: use it in WSL 2, where it is Linux")

if TYPE_CHECKING:
    from dreamlake.decorator import dreamlake_session
    from dreamlake.errors import AgentUnavailable, DreamlakeError, JournalLost, RemoteUnavailable, SessionDamaged
    from dreamlake.session import OperationMode, Session

__version__ = "0.4.0"
__all__ = [
    "AgentUnavailable",
    "DreamlakeError",
    "JournalLost",
    "OperationMode",
    "RemoteUnavailable",
    "Session",
    "SessionDamaged",
    "dreamlake_session",
]

# Importing the package must cost nothing: each name brings its module when it is first asked for.
_HOMES = {
    "Session": "dreamlake.session",
    "OperationMode": "dreamlake.session",
    "dreamlake_session": "dreamlake.decorator",
    "AgentUnavailable": "dreamlake.errors",
    "DreamlakeError": "dreamlake.errors",
    "JournalLost": "dreamlake.errors",
    "RemoteUnavailable": "dreamlake.errors",
    "SessionDamaged": "dreamlake.errors",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'dreamlake' has no attribute {name!r}")
    import importlib

    found = getattr(importlib.import_module(home), name)
    globals()[name] = found
    return found
