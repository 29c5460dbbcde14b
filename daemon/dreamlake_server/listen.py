"""Listen: the socket that a server answers at."""

from __future__ import annotations

import os
import socket

from dreamlake_server.browsers import is_loopback
from dreamlake_server.settings import CannotStart

_BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """A listening socket at the first address of ``host`` that can be had."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CannotStart(f"{host!r} is no address of this machine: {reason}; give another --host") from None
    refusal: OSError | None = None
    # IPv4 first: what people mean by localhost, and what their clients try.
    for family, _, _, _, address in sorted(found, key=lambda each: each[0] != socket.AF_INET):
        try:
            both = family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
            listening = socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=both)
            # What it accepts inherits this, and asyncio does not set it for a socket that it was given. Without it the
            # body of each answer waits 40 ms for the caller to acknowledge its headers.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return listening
        except OSError as error:
            refusal = refusal or error
    reason = os.strerror(refusal.errno or 0) if refusal else "it has no address"
    text = "a server is there already, or give another --port" if port else "give another --host"
    raise CannotStart(f"cannot listen on {host} port {port}: {reason}; {text}")


def place(listening: socket.socket) -> tuple[str, int]:
    """Its address, as it is written in a URL, and its port."""
    address, port = listening.getsockname()[:2]
    return (f"[{address}]" if listening.family == socket.AF_INET6 else str(address)), int(port)


def for_this_machine_only(listening: socket.socket) -> bool:
    return is_loopback(place(listening)[0])
