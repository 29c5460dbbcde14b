"""Processes: who we are on this machine, and whether somebody else still lives.

A pid alone says nothing: it is used again. A process is its pid, its start time, its pid namespace and the boot it
lived in.
"""

from __future__ import annotations

import os
import socket
import sys
from functools import lru_cache
from typing import Any

from dreamlake.wire.digest import sha256_hex

ALIVE = "alive"
GONE = "gone"
UNKNOWN = "unknown"


@lru_cache(maxsize=1)
def host() -> str:
    return socket.gethostname()


@lru_cache(maxsize=1)
def boot() -> str:
    """This boot of this machine; on macOS, where there is no such id, the time it booted."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        import psutil

        return str(int(psutil.boot_time()))


@lru_cache(maxsize=1)
def machine() -> str:
    """This installation of the system (machine-id(5)), which a reboot does not change; "" where there is none."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                return file.read(64).strip()
        except OSError:
            continue
    return ""


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def mount_namespace() -> str:
    """Who shares it sees the same paths; "" where there is no such thing."""
    try:
        return os.readlink("/proc/self/ns/mnt")
    except OSError:
        return ""


def start_time(pid: int) -> float | None:
    """When that process began, in a unit that is the same for everybody on this boot; None when there is none."""
    if sys.platform.startswith("linux"):
        # Field 22 (proc(5)). A zombie is gone.
        fields = _stat(pid)
        return None if not fields or fields[0] in (b"Z", b"X") else float(fields[19])
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def state(pid: int) -> str | None:
    """What the kernel says that process is at, a letter (proc(5)): ``D`` waits for a disk, ``T`` is stopped; None where
    it does not say."""
    fields = _stat(pid)
    return fields[0].decode() if fields else None


def _stat(pid: int) -> list[bytes]:
    """``/proc/PID/stat`` from field 3 on, after the name, which may hold spaces and parentheses; empty without one."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def myself() -> dict[str, Any]:
    """What a journal's header and an owner's record say of the process that wrote them."""
    pid = os.getpid()
    here = {"host": host(), "machine": machine(), "boot": boot(), "ns": _pid_namespace()}
    return {**here, "pid": pid, "start": start_time(pid)}


def node(who: dict[str, Any]) -> str:
    """A node's name of 8 hex digits, for names of files: made of host and machine as ``myself`` says them."""
    return sha256_hex(f"{who.get('host')}\n{who.get('machine') or ''}".encode("utf-8", "replace"))[:8]


def is_here(who: dict[str, Any], me: dict[str, Any] | None = None) -> bool:
    """Whether ``myself`` was said on this node, in this boot or an earlier one: what one process of it has written, all
    others see at once, and a lock of one stops all others. ``me``: whose node is meant, in place of this one.

    >>> is_here({**myself(), "host": "a-container"}), is_here({**myself(), "host": "node7", "boot": "another"})
    (True, False)
    """
    here = me or {"host": host(), "machine": machine(), "boot": boot()}
    if "node" in who:
        return bool(who["node"] == node(here))
    if who.get("boot") is not None and who.get("boot") == here.get("boot"):
        return True  # one kernel, whatever its containers are called
    # Records of dreamlake before 0.4 say no machine.
    same_machine = None in (who.get("machine"), here.get("machine")) or who["machine"] == here["machine"]
    return who.get("host") == here.get("host") and same_machine


def verdict(who: dict[str, Any]) -> str:
    """Whether the process that ``myself`` described elsewhere is still there: ``alive``, ``gone``, or ``unknown`` for
    one of another machine, boot or pid namespace."""
    if not is_here(who):
        return UNKNOWN
    if who.get("boot") != boot():
        return GONE
    if who.get("ns") != _pid_namespace():
        return UNKNOWN
    try:
        found = start_time(int(who["pid"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return UNKNOWN
    return ALIVE if found is not None and found == who.get("start") else GONE


def memory_bytes() -> int:
    """Resident memory of this process, in bytes."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def raise_descriptors(wanted: int) -> int:
    """Let this process have so many descriptors, or as many as it is allowed to; returns how many that are. A login
    shell gives 1024, whatever the machine can do."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted:
        most = wanted if hard == unlimited else min(wanted, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
        except (OSError, ValueError):
            pass  # macOS allows fewer than it says
    return wanted if soft == unlimited else soft


def descriptors() -> tuple[int, int] | None:
    """How many descriptors this process has open, and how many it may have; None where that cannot be told."""
    import resource

    try:
        count = len(os.listdir("/dev/fd")) - 1  # without the one that this takes
    except OSError:
        return None
    return count, resource.getrlimit(resource.RLIMIT_NOFILE)[0]
