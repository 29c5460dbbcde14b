"""Lifecycle: one agent per runtime folder, from its lock to its end."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import logging
import os
import signal
import sys
import time
from typing import Any

import dreamlake
from dreamlake import config
from dreamlake.wire import jsons
from dreamlake.world import processes
from dreamlake.world.disk import REAL_DISK
from dreamlake.world.registry import Registry
from dreamlake.world.sockets import ZmqHub, answers
from dreamlake_agent.core.agent import Agent
from dreamlake_agent.loop import Loop
from dreamlake_agent.observe.log import begin
from dreamlake_agent.observe.observing import Observing
from dreamlake_agent.observe.status import Status
from dreamlake_agent.remembered import Remembered
from dreamlake_agent.seams import RealWorld
from dreamlake_agent.settings import Settings
from dreamlake_agent.systemd import SOCKET_AGAIN, Service
from dreamlake_agent.uploader import Uploader
from dreamlake_agent.workers import ThreadWorkers

LOCK = "agent.lock"
_LISTENING_SECONDS = 1.0


class AlreadyRunning(Exception):
    """Another agent holds this runtime folder; the message says which."""


class CannotStart(Exception):
    """The agent cannot run here; the message says why and what to try."""


def usable_folder() -> str:
    """The first runtime folder that is, or can be made, ours alone."""
    reasons: list[str] = []
    for folder in config.runtime_folders():
        try:
            config.own_folder(folder)
            path = config.socket_path(folder)
            if os.path.dirname(path) != folder:
                config.own_folder(os.path.dirname(path))
            return folder
        except OSError as error:
            reasons.append(str(error))
    raise CannotStart("no folder for the agent's socket: " + "; ".join(reasons))


def lock(folder: str) -> int:
    """Hold the runtime folder until this process ends; :class:`AlreadyRunning` when somebody does."""
    try:
        fd = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise CannotStart(f"cannot make {folder}/{LOCK}: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        os.close(fd)
        raise AlreadyRunning(f"pid {holder} in {folder}") from None
    with contextlib.suppress(OSError):  # a full disk; the number is for people, the lock is what counts
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd


def lock_again(folder: str, fd: int) -> int:
    """The lock that is ours, taken anew when somebody removed its file: without a name it keeps nobody out.
    :class:`AlreadyRunning` when another agent was faster."""
    held = os.fstat(fd)
    with contextlib.suppress(OSError):
        named = os.stat(os.path.join(folder, LOCK), follow_symlinks=False)
        if (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino):
            return fd
    config.own_folder(folder)
    again = lock(folder)
    os.close(fd)
    return again


def wait_until_it_answers(folder: str) -> bool:
    """Another agent holds the lock: wait until it listens too."""
    deadline = time.monotonic() + config.OPEN_SECONDS
    while not answers(config.socket_path(folder)):
        if time.monotonic() >= deadline:
            return False
        time.sleep(config.TICK_SECONDS)
    return True


def run(folder: str, lock_fd: int, ready: Any, service: Service | None = None) -> None:
    """Be the agent until a signal or a stop request. ``ready()`` is called once clients can connect."""
    service = service or Service.none()
    state = config.state_folder()
    log_path = os.path.join(state, config.AGENT_LOG)
    try:
        config.own_folder(state)
    except OSError as error:
        print(f"dreamlake agent: {error}", file=sys.stderr)
    logger = begin(log_path)
    path = config.socket_path(folder)
    held = service.listener(path)
    if held is None and answers(path):
        raise AlreadyRunning(f"somebody listens at {path}")
    hub = ZmqHub(path, held)
    endpoint = f"ipc://{path}"
    who = {
        **processes.myself(),
        "mnt": processes.mount_namespace(),
        "endpoint": endpoint,
        "version": dreamlake.__version__,
    }
    settings = Settings()
    core = Agent(os.urandom(8), settings.thresholds, dreamlake.__version__, settings.gone_seconds)
    levels = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
    descriptors = processes.raise_descriptors(config.DESCRIPTORS)
    workers = ThreadWorkers(hub.wake)
    registry = Registry(os.path.join(state, "directories"))

    def log(level: str, text: str, **about: str) -> None:
        logger.log(levels.get(level, logging.INFO), "%s", text, extra={"about": about})

    uploader = Uploader(hub.wake, log)
    loop = Loop(core, REAL_DISK, hub, workers, RealWorld(), who, log, registry, uploader, descriptors)
    status = Status(loop, endpoint, log_path)
    status.observing = Observing(loop, state, settings, log, logger.handlers[0].flush)
    gc.set_threshold(10_000, 10, 10)  # most of what is made stays: with 10,000 tracks it was looked through in vain
    processes.memory_bytes()  # what is imported late is imported now: another release may be installed over this one
    loop.report = lambda: jsons.encode(status.describe())
    stops: list[int] = []

    def on_signal(number: int, _frame: Any) -> None:
        stops.append(number)
        hub.wake()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    logger.info("agent %s started, pid %d, at %s", dreamlake.__version__, who["pid"], endpoint)
    status.tend()
    ready()
    service.ready()
    try:
        remembered = Remembered(registry, logger.warning)
        for event in remembered.all(time.monotonic()):
            service.beat(time.monotonic(), len(core.sessions))
            status.tend()
            loop.take(event)
        lock_fd = _serve(loop, hub, status, stops, folder, lock_fd, service, remembered)
    except Exception:
        logger.exception("the agent fails; the next one recovers every directory")
        raise
    finally:
        service.stopping()
        logger.info("agent ended, pid %d", who["pid"])
        status.observing.close()
        uploader.rest()
        workers.finish()
        hub.close()
        os.close(lock_fd)
        logging.shutdown()


def move(hub: ZmqHub, fd: int, folder: str) -> tuple[str, int]:
    """Our place is gone and cannot be made again (a logout takes ``/run/user/UID``): go to another one where clients
    look. Returns the folder and the lock there; :class:`AlreadyRunning` when another agent has it."""
    found = usable_folder()
    if found == folder:
        raise CannotStart(f"there is no place but {folder}")
    again = lock(found)
    path = config.socket_path(found)
    try:
        if answers(path):
            raise AlreadyRunning(f"somebody listens at {path}")
        hub.move(path)
    except BaseException:
        os.close(again)
        raise
    os.close(fd)
    return found, again


def _serve(
    loop: Loop,
    hub: ZmqHub,
    status: Status,
    stops: list[int],
    folder: str,
    lock_fd: int,
    service: Service,
    remembered: Remembered,
) -> int:
    """Until the end; gives back the lock that is held then."""
    world = loop.world
    listened = world.monotonic()
    replaced = False
    while not loop.ended:
        if stops:
            stops.clear()
            loop.perform(loop.core.stop(world.monotonic(), world.wall_ns()))
        service.beat(world.monotonic(), len(loop.core.sessions))
        if not loop.turn():
            hub.wait(config.TICK_SECONDS if loop.core.sessions else config.TICK_SECONDS * 10)
        if world.monotonic() - listened >= _LISTENING_SECONDS:
            listened = world.monotonic()
            status.sample()
            status.tend()
            if replaced:
                continue
            for event in remembered.news(listened, loop.paths()):
                loop.take(event)
            try:
                try:
                    lock_fd = lock_again(folder, lock_fd)
                except (CannotStart, OSError):
                    folder, lock_fd = move(hub, lock_fd, folder)
                    loop.moved(f"ipc://{hub.path}")
                if not hub.is_listening():
                    if answers(hub.path):  # nobody has the lock but us, so it is no agent
                        raise AlreadyRunning(f"systemd listens at {hub.path}")
                    # Somebody cleaned the folder up: connected clients do not notice, new ones find us again.
                    if hub.is_held:
                        loop.log("warning", "systemd's socket has lost its name: " + SOCKET_AGAIN)
                    config.own_folder(os.path.dirname(hub.path))
                    hub.listen()
            except AlreadyRunning as who:
                # Two that listen in turn at one place would both go on for ever: the one with the name stays.
                replaced = True
                loop.log("warning", f"the place of this agent's socket is another's now: {who}")
                loop.perform(loop.core.stop(world.monotonic(), world.wall_ns()))
            except (CannotStart, OSError) as error:
                loop.core.last_error = f"cannot listen at {hub.path}: {error}"
    return lock_fd
