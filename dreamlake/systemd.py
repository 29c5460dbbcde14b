"""systemd: what it is told of a service, and the texts of its units.

Both are a few lines, so no library is asked: a datagram to ``$NOTIFY_SOCKET`` (sd_notify(3)), and files in the wheel
into which the path of an installation is written.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import sysconfig

AGENT_SERVICE = "dreamlake-agent.service"
AGENT_SOCKET = "dreamlake-agent.socket"
SERVER_SERVICE = "dreamlake-server.service"

_PROGRAM = "/usr/bin/dreamlake"  # what the texts have where the program of an installation is to be
_FOLDERS = ("units", os.path.join("..", "systemd"))  # in a wheel; in a checkout
_SEND_SECONDS = 1.0  # how long systemd may be too busy to hear


class NotForSystemd(Exception):
    """What no unit can name, such as a program that is not there; the message says why."""


class Notifier:
    """Tells systemd how a service is. Without an address, which is without systemd, nothing is said."""

    def __init__(self, address: str | None) -> None:
        # An abstract name is written with "@" for the NUL that it begins with.
        self._address = f"\0{address[1:]}" if address and address[0] == "@" else address

    @classmethod
    def taken(cls) -> Notifier:
        """What this process was given, which its children shall not have: they would speak for it."""
        return cls(os.environ.pop("NOTIFY_SOCKET", None))

    def __bool__(self) -> bool:
        return self._address is not None

    def say(self, *lines: str, seconds: float = _SEND_SECONDS) -> bool:
        """``READY=1``, ``STATUS=…`` and so on, in one message; False when it could not be sent within ``seconds``."""
        if self._address is None:
            return False
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(seconds)
            sender.connect(self._address)
            sender.send("\n".join(lines).encode())
            return True
        return False


def unit(name: str) -> str:
    """The text of one of our units, for a program at ``/usr/bin/dreamlake``."""
    here = os.path.dirname(os.path.abspath(__file__))
    for folder in _FOLDERS:
        with contextlib.suppress(FileNotFoundError), open(os.path.join(here, folder, name), encoding="utf-8") as file:
            return file.read()
    raise FileNotFoundError(f"this installation of dreamlake lacks its file {name}: install it again")


def unit_for(name: str, program: str) -> str:
    """The same for a program elsewhere. :class:`NotForSystemd` when systemd would refuse its path."""
    return unit(name).replace(f"ExecStart={_PROGRAM}", f"ExecStart={quoted(program)}")


def program() -> str:
    """The ``dreamlake`` of this installation. :class:`NotForSystemd`."""
    # Where pip put it, also for --user; the python that runs may be a link to one of another folder.
    places = [sysconfig.get_path("scripts"), os.path.dirname(sys.executable)]
    if os.path.basename(sys.argv[0]) == "dreamlake":
        places.insert(0, os.path.dirname(os.path.abspath(shutil.which(sys.argv[0]) or sys.argv[0])))
    for place in places:
        path = os.path.join(place, "dreamlake")
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise NotForSystemd(f"there is no program `dreamlake` in {' or '.join(dict.fromkeys(places))}: install it with pip")


def quoted(path: str) -> str:
    """A path as one word of a unit, which knows ``%h`` and cuts at spaces. :class:`NotForSystemd`."""
    if not path.isprintable() or set(path) & set("\"'\\"):
        raise NotForSystemd(f"systemd takes no path with quotes, backslashes or control characters: {path!r}")
    return '"' + path.replace("%", "%%") + '"'
