"""What only a test does to Dreamlake, from outside of it: this folder is on the PYTHONPATH of whoever is to suffer.

DREAMLAKE_TEST_MORTAL names a file: as long as it is there, an agent dies now and then between the rows of a commit and
its record, and adds one byte to the file first, so that the deaths can be counted.

DREAMLAKE_TEST_READ_ONLY names a file: as long as it is there, no disk takes a change from an agent or a scribe;
DREAMLAKE_TEST_READ_ONLY_AGENT: from an agent. (The kernel makes no mount read-only while a journal is open on it.)
"""

import errno
import os
import random
import signal
import sys
from typing import Any

_MORTAL = os.environ.get("DREAMLAKE_TEST_MORTAL")
_READ_ONLY = os.environ.get("DREAMLAKE_TEST_READ_ONLY")
_READ_ONLY_AGENT = os.environ.get("DREAMLAKE_TEST_READ_ONLY_AGENT")
# Of the commits of an agent: rare enough that it gets something done, often enough to be half of the deaths.
_CHANCE = 1 / 20


def _make_mortal(count: str) -> None:
    from dreamlake_agent.store.directory import Directory

    write_rows, commit = Directory._write_rows, Directory.commit
    committing = [False]

    def deadly_write_rows(self: Any, out: Any) -> None:
        write_rows(self, out)
        if committing[0] and random.random() < _CHANCE:
            try:
                fd = os.open(count, os.O_WRONLY | os.O_APPEND)
            except FileNotFoundError:
                return
            os.write(fd, b"x")
            os.kill(os.getpid(), signal.SIGKILL)

    def watched_commit(self: Any) -> Any:
        committing[0] = True
        try:
            return commit(self)
        finally:
            committing[0] = False

    Directory._write_rows, Directory.commit = deadly_write_rows, watched_commit  # type: ignore[method-assign]


def _make_read_only(flag: str) -> None:
    from dreamlake.world.disk import CREATE, RealDisk

    def refusing(act: Any, *, when: Any = lambda *_: True) -> Any:
        def act_or_refuse(*arguments: Any) -> Any:
            if os.path.exists(flag) and when(*arguments):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            return act(*arguments)

        return act_or_refuse

    RealDisk.write = staticmethod(refusing(os.write))  # type: ignore[method-assign]
    RealDisk.truncate = staticmethod(refusing(os.ftruncate))  # type: ignore[method-assign]
    for name in ("rename", "unlink", "mkdirs"):
        setattr(RealDisk, name, refusing(getattr(RealDisk, name)))
    RealDisk.open = refusing(RealDisk.open, when=lambda _disk, _path, flags, _at: flags & CREATE)  # type: ignore[method-assign]


_IS_AGENT = any("dreamlake_agent.main" in word for word in sys.orig_argv)
_IS_SCRIBE = any(word.endswith("scribe.py") for word in sys.orig_argv)
if _MORTAL and _IS_AGENT:
    _make_mortal(_MORTAL)
if _READ_ONLY and (_IS_AGENT or _IS_SCRIBE):
    _make_read_only(_READ_ONLY)
if _READ_ONLY_AGENT and _IS_AGENT:
    _make_read_only(_READ_ONLY_AGENT)
