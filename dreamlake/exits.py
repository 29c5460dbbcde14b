"""Exits: how a process ends or forks, and what becomes of the sessions it has open. Bounded, and never in the way."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
import weakref
from types import FrameType
from typing import TYPE_CHECKING

from dreamlake import config
from dreamlake.wire import ops
from dreamlake.writer import forget_link

if TYPE_CHECKING:
    from dreamlake.session import Session

# Every session that this process has open.
open_sessions: weakref.WeakSet[Session] = weakref.WeakSet()
_hooks_in = _child_hook_in = False
_terminating = threading.Event()
_terminated = threading.Event()


def parent_pid() -> int | None:
    """The process in which multiprocessing was asked to start this one; None when it did not."""
    multiprocessing = sys.modules.get("multiprocessing.process")  # not imported for this: who was started by it has it
    parent = multiprocessing.parent_process() if multiprocessing is not None else None
    return None if parent is None else int(parent.pid)


def install_hooks() -> None:
    """Once a process: at exit, at the end of a process of multiprocessing, and on SIGTERM where nobody has taken it."""
    global _hooks_in, _child_hook_in
    if not _hooks_in:
        _hooks_in = True
        atexit.register(_at_exit)
    if not _child_hook_in and parent_pid() is not None:
        _child_hook_in = True
        from multiprocessing import util

        # Last of all, when its own children have been joined.
        util.Finalize(None, _at_child_exit, exitpriority=-1000)
    if threading.current_thread() is threading.main_thread():
        with contextlib.suppress(ValueError, OSError):
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, _on_sigterm)


def _at_exit() -> None:
    """Close what the script left open: finished, or failed when an exception ended it. Bounded."""
    error = None
    if not hasattr(sys, "ps1"):  # in a notebook the last exception is not what ends it
        error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    _end(list(open_sessions), error)


def _at_child_exit() -> None:
    """The same for what a process of multiprocessing has opened itself: it leaves by ``os._exit`` when it was forked,
    and its exception never reaches the interpreter. Of what it inherited it need not say anything, and does not wait:
    a loader's workers are gone at once."""
    _end([session for session in list(open_sessions) if not session._child], sys.exc_info()[1])


def _end(sessions: list[Session], error: BaseException | None) -> None:
    deadline = time.monotonic() + config.EXIT_SECONDS
    for session in sessions:
        seconds = max(0.2, deadline - time.monotonic())
        with contextlib.suppress(Exception):
            if error is not None:
                session._fail(error, seconds)
            else:
                session._close(ops.FINISHED, None, seconds)


def asked_to_end() -> dict[str, str] | None:
    """What the end of a session says of a process that SIGTERM has come to; None while none has. What fails after
    that, such as a loader whose workers got the signal too, is not why the process ended."""
    return {"type": "SIGTERM", "message": "the process was asked to end"} if _terminating.is_set() else None


def _on_sigterm(number: int, _frame: FrameType | None) -> None:
    """Flush, say who ended it, and then die of the signal as if we had not been here.

    The main thread may be interrupted in the middle of a call and hold its lock, so the saying is done by a thread,
    while the script goes on for that moment; the thread sends the signal again when it is done.
    """
    if _terminated.is_set():
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    elif not _terminating.is_set():
        _terminating.set()
        threading.Thread(target=_say_terminated, args=(number,), name="dreamlake-sigterm", daemon=True).start()


def _say_terminated(number: int) -> None:
    deadline = time.monotonic() + config.EXIT_SECONDS
    told = asked_to_end()
    writers = [session._writer for session in list(open_sessions)]
    for writer in writers:
        if writer is not None:
            with contextlib.suppress(Exception):
                writer.put(ops.CLOSE, ops.KILLED_STATE, told)
    for writer in writers:
        if writer is not None:
            with contextlib.suppress(Exception):
                writer.flush(max(0.1, deadline - time.monotonic()), patient=False)
    _terminated.set()
    os.kill(os.getpid(), number)


def _in_child() -> None:
    """After a fork, in the child: locks may be held by threads that are not here, the link is not here, and the
    journal is the parent's. Everything is made anew on first use; what the child never uses costs nothing."""
    global _terminating, _terminated, _child_hook_in
    forget_link()
    _child_hook_in = False
    _terminating, _terminated = threading.Event(), threading.Event()
    for session in list(open_sessions):
        session._lock = threading.RLock()
        session._child = True
        writer, session._writer = session._writer, None
        session._tracks.clear()
        if writer is not None:
            writer.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
