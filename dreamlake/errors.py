"""What Dreamlake raises.

::

    DreamlakeError
    ├── AgentUnavailable     nobody answered within the time: the operations are in the journal (also a TimeoutError)
    ├── SessionDamaged       the directory cannot be opened as it is (also a ValueError)
    ├── NotSynced            sync(): not everything is on the server (also a TimeoutError)
    ├── RemoteUnavailable    nothing is here, and the server, which may have something, could not be asked
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


class NotSynced(DreamlakeError, TimeoutError):
    """Not everything is on the server, within the time or for a reason that the message tells. Nothing is lost: the
    agent goes on sending."""


class RemoteUnavailable(DreamlakeError):
    """A read of a session with a remote: there is nothing on this machine, and whether there is at the server is not
    known, since it could not be asked. The message says why."""


class JournalLost(DreamlakeError, OSError):
    """With ``DREAMLAKE_STRICT=1``: the journal could not take this call (disk full, directory gone), so it is lost."""
