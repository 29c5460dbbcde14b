"""Targets: which session directories go to which servers, as somebody says or as the directories say themselves."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from dreamlake import config
from dreamlake.errors import DreamlakeError
from dreamlake.reader.commits import CHECKPOINT
from dreamlake.reader.owners import owner_of
from dreamlake.reader.segments import JOURNALS
from dreamlake.reader.spools import Spooled, is_marker
from dreamlake.reader.verify import is_session, sessions_below
from dreamlake.remote.credentials import Credentials
from dreamlake.wire.names import DREAMLAKE
from dreamlake.wire.remotes import Remote
from dreamlake.world.disk import REAL_DISK
from dreamlake.world.registry import Registry
from dreamlake_agent.remote.source import Source
from dreamlake_agent.repair import repair


@dataclass(frozen=True)
class Target:
    """A session directory, and where it goes; ``remote`` is None where nobody knows."""

    path: str
    remote: Remote | None


def known_sessions() -> list[str]:
    """What this user's state knows, of every host that shares it: sessions that may hold something no agent has
    applied or sent, and those that have only a remote."""
    here = config.state_folder()
    base = os.path.dirname(here)
    found: set[str] = set()
    hosts: list[str] = []
    with contextlib.suppress(OSError):
        hosts = os.listdir(base)
    for host in hosts:
        folder = os.path.join(base, host)
        registry = Registry(os.path.join(folder, "directories"))
        found.update(map(os.path.realpath, registry.paths(forget=folder == here)))
        found.update(map(os.path.realpath, sessions_below(os.path.join(folder, config.REMOTE_SESSIONS))))
    return sorted(path for path in found if is_session(path))


def sessions_at(path: str) -> list[str]:
    """A session directory, or those below a folder."""
    return [path] if is_session(path) else sessions_below(path)


def remotes_of(path: str, user: str | None, credentials: Credentials) -> list[Remote]:
    """Where a directory is meant to go: the servers that it was opened for, else the only one that there is a login
    for. ``user`` goes before what they say.

    Raises what :class:`~dreamlake_agent.remote.source.Source` does where nothing else says it.
    """
    said: dict[str, str | None] = {}
    trouble: DreamlakeError | OSError | None = None
    try:
        source = Source(REAL_DISK, path)
        try:
            said = source.remotes()
        finally:
            source.close()
    except (DreamlakeError, OSError) as error:
        trouble = error
    found = [Remote(url, user or whose) for url, whose in said.items()]
    if not found and len(logins := credentials.all()) == 1:
        found = [Remote(logins[0][0].url, user or logins[0][0].user)]
    if not found and trouble is not None:
        raise trouble
    return found


def unsettled(path: str) -> tuple[object, ...]:
    """What waits in the journals of a directory that nobody owns, so that it changes when more does; nothing where
    nothing waits."""
    try:
        at = REAL_DISK.root(path)
    except OSError:
        return ()
    disk = Spooled(REAL_DISK, at, os.path.realpath(path))
    try:
        names = [name for name in disk.listdir(JOURNALS, at) if not is_marker(name)]
        waiting = [(name, disk.stat(f"{JOURNALS}/{name}", at).size) for name in names]
        if CHECKPOINT.rpartition("/")[2] not in REAL_DISK.listdir(DREAMLAKE, at):
            waiting.append((CHECKPOINT, -1))
        return tuple(waiting) if waiting and owner_of(REAL_DISK, at) is None else ()
    except OSError:
        return ()
    finally:
        disk.let_go()
        REAL_DISK.close(at)


def away(path: str) -> list[str]:
    """The journals of a directory that are not seen from here, a sentence each."""
    try:
        at = REAL_DISK.root(path)
    except OSError:
        return []
    disk = Spooled(REAL_DISK, at, os.path.realpath(path))
    try:
        disk.listdir(JOURNALS, at)
        return [each.sentence for each in disk.away.values() if not each.is_copied]
    except OSError:
        return []
    finally:
        disk.let_go()
        REAL_DISK.close(at)


def settle(path: str) -> None:
    """Where nobody owns a directory: apply what waits in its journals, so that it is sent, too.

    Raises :class:`~dreamlake_agent.repair.Refused` and :class:`OSError`; what a checkpoint covers can be sent all the
    same.
    """
    if unsettled(path):
        repair(path, lambda _text: None)
