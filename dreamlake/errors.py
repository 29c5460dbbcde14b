"""What Dreamlake raises.

::

    DreamlakeError
    ├── AgentUnavailable     nobody answered within the time: the operations are in the journal (also a TimeoutError)
    ├── SessionDamaged       the directory cannot be opened as it is (also a ValueError)
    └── JournalLost          DREAMLAKE_STRICT=1 only: a call could not be kept (also an OSError)

Wrong calls raise Python's own ``TypeError``, ``ValueError``, ``RuntimeError`` and ``FileNotFoundError``, at the call.
"""

from __future__ import annotations


class DreamlakeError(Exception):
    """The root of what is raised on Dreamlake's own account."""


class AgentUnavailable(DreamlakeError, TimeoutError):
    """No agent took the operations within the time. Nothing is lost: they are in the journal, and the next agent that
    sees the directory applies them."""


class SessionDamaged(DreamlakeError, ValueError):
    """A session directory that cannot be opened as it stands; the message says which file, and nothing was
    overwritten."""


class JournalLost(DreamlakeError, OSError):
    """With ``DREAMLAKE_STRICT=1``: the journal could not take this call (disk full, directory gone), so it is lost."""
