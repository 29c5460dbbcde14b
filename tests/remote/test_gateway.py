"""The gateway of these tests leaves nothing behind, whenever it ends: the next test would fail for it."""

from __future__ import annotations

import contextlib
import gc
import socket
import sys
from random import Random
from typing import Any

import pytest

from tests.services.gateway import Gateway, listening
from tests.services.ports import LOOPBACK

ROUNDS = 30


def test_it_ends_in_the_middle_of_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", left.append)
    chance = Random(1)

    async def answer(reader: Any, writer: Any) -> None:
        await reader.read(10)
        writer.write(b"hi")
        await writer.drain()

    for _ in range(ROUNDS):
        with listening(answer) as port, Gateway({"a:443": port}).opened() as gateway, contextlib.ExitStack() as clients:
            for _ in range(chance.randint(1, 3)):
                client = clients.enter_context(socket.create_connection((LOOPBACK, int(gateway.url.split(":")[2]))))
                if chance.random() < 0.8:
                    client.sendall(b"CONNECT a:443 HTTP/1.1\r\n\r\n" + b"x" * chance.randint(0, 1))
                if chance.random() < 0.3:
                    client.shutdown(socket.SHUT_WR)
                    while client.recv(100):
                        pass
    gc.collect()
    assert [str(each.exc_value) for each in left] == []
