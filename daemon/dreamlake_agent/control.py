"""Control: asking a live agent from a command line."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from dreamlake.wire import jsons, messages
from dreamlake.world.sockets import ZmqLines


class NoAnswer(Exception):
    """The agent did not answer in time."""


class OtherProtocol(NoAnswer):
    """It speaks another version of the protocol, so that it can be told nothing by a message."""


def ask(endpoint: str, kind: str, seconds: float, lives: Callable[[], bool] = lambda: True) -> dict[str, Any]:
    """Send ``status`` or ``stop`` and give back what the agent reports; :class:`NoAnswer`, also when it no longer
    ``lives``."""
    lines = ZmqLines()
    try:
        line = lines.connect(endpoint)
        line.send(messages.encode((kind, 1)))
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            lines.wait(min(left, 0.5))
            frames = line.receive()
            if frames is None:
                if not lives():
                    raise NoAnswer("it has died")
                continue
            try:
                message, _body = messages.decode(frames)
            except messages.OtherVersion:
                raise OtherProtocol(f"it speaks another protocol than version {messages.VERSION}") from None
            except messages.Unreadable:
                continue
            if message[0] == messages.OTHER_VERSION:
                raise OtherProtocol(f"it speaks another protocol than version {messages.VERSION}")
            if message[0] == messages.REPORT:
                found = jsons.loads(message[2])
                return found if isinstance(found, dict) else {}
        raise NoAnswer(f"no answer within {seconds:.0f} s")
    finally:
        lines.close()
