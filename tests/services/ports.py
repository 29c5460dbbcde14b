"""Ports for a server that must be told them, and must have the same ones after it was killed.

A server cannot be given port 0 then, so blocks of ports are handed out: who has bound a block's first port, which no
server uses, has the block. The kernel gives that up when its holder dies, however it dies. All of them lie below the
ports that Linux takes for outgoing connections (from 32768 on), so nothing else comes by them by chance.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

LOOPBACK = "127.0.0.1"
FIRST, LAST = 20_000, 32_000
BLOCK = 16


@contextlib.contextmanager
def block() -> Iterator[list[int]]:
    """Free ports, 15 of them, nobody else's until the end."""
    blocks = range(FIRST, LAST, BLOCK)
    for turn in range(len(blocks)):
        first = blocks[(os.getpid() + turn) % len(blocks)]
        with socket.socket() as held:
            ports = [*range(first + 1, first + BLOCK)]
            if _can_bind(held, first) and all(_is_free(port) for port in ports):
                yield ports
                return
    raise RuntimeError(f"no {BLOCK} free ports in a row between {FIRST} and {LAST} on {LOOPBACK}")


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what waits in TIME_WAIT hinders no server
        return _can_bind(trial, port)


def _can_bind(trial: socket.socket, port: int) -> bool:
    try:
        trial.bind((LOOPBACK, port))
    except OSError:
        return False
    return True
