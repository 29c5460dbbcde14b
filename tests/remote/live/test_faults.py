"""The proxy hurts as it says it does; else what is tested through it is not."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from random import Random

import pytest

from tests.services.faults import ANSWER_BITS, CLEAR, CUT, REFUSE, REQUEST_BITS, RESET, SLOW, STALL, Faults, faults
from tests.services.gateway import listening
from tests.services.ports import LOOPBACK
from tests.waiting import wait_for

ASKED = b"GET / HTTP/1.1\r\n" + b"x" * (2 << REQUEST_BITS)
ANSWER = b"y" * (2 << ANSWER_BITS)
SECONDS = 20


@pytest.fixture
def heard() -> list[bytes]:
    return []


@pytest.fixture
def proxy(heard: list[bytes]) -> Iterator[Faults]:
    """Before a server that keeps what it hears, and answers when it has heard all."""
    import asyncio

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = len(ASKED)
        while left and (data := await reader.read(left)):
            heard.append(data)
            left -= len(data)
        if not left:
            writer.write(ANSWER)
            await writer.drain()
            await reader.read()

    with listening(meet) as port, faults(port, Random(1)) as found:
        yield found


def ask(proxy: Faults, data: bytes = ASKED) -> bytes:
    """What is answered, until there is no more."""
    with socket.create_connection((LOOPBACK, int(proxy.url.rpartition(":")[2])), SECONDS) as asking:
        asking.sendall(data)
        found = b""
        while len(found) < len(ANSWER) and (more := asking.recv(1 << 16)):
            found += more
        return found


def test_clear_it_carries_everything(proxy: Faults, heard: list[bytes]) -> None:
    assert ask(proxy) == ANSWER
    assert b"".join(heard) == ASKED
    assert (proxy.requests, proxy.met) == (1, {})


def test_a_reset_is_heard_as_one(proxy: Faults, heard: list[bytes]) -> None:
    proxy.become(RESET)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        ask(proxy)
    assert len(b"".join(heard)) < len(ASKED)
    assert proxy.met == {RESET: 1}


def test_a_cut_is_an_end_too_early(proxy: Faults) -> None:
    """Also of answers, when the request was short."""
    proxy.become(CUT)
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # who goes on sending to it hears a reset
        assert len(ask(proxy)) < len(ANSWER)
    assert proxy.met[CUT] == 1


def test_what_stalled_goes_on_or_is_never_answered(proxy: Faults) -> None:
    ends: list[bytes | None] = []

    def asking() -> None:
        try:
            ends.append(ask(proxy))
        except OSError:
            ends.append(None)

    proxy.become(STALL)
    threads = [threading.Thread(target=asking) for _ in range(24)]
    for thread in threads:
        thread.start()
    wait_for(lambda: proxy.met[STALL] == len(threads))
    assert ends == []
    proxy.become(CLEAR)
    for thread in threads:
        thread.join()
    assert set(ends) == {ANSWER, None}


def test_slowly_little_comes_until_it_is_over(proxy: Faults, heard: list[bytes]) -> None:
    proxy.become(SLOW)
    with socket.create_connection((LOOPBACK, int(proxy.url.rpartition(":")[2])), SECONDS) as asking:
        thread = threading.Thread(target=asking.sendall, args=(ASKED,))
        thread.start()
        wait_for(lambda: heard)
        assert len(b"".join(heard)) < len(ASKED) // 2
        proxy.become(CLEAR)
        thread.join()
        assert asking.recv(1)
    assert proxy.met[SLOW] == 1


def test_refused_nobody_listens_and_then_somebody_does_again(proxy: Faults) -> None:
    with socket.create_connection((LOOPBACK, int(proxy.url.rpartition(":")[2])), SECONDS) as open_before:
        open_before.sendall(b"x")
        wait_for(lambda: proxy._writers)
        proxy.become(REFUSE)
        with pytest.raises(ConnectionResetError):
            open_before.recv(1)
    with pytest.raises(ConnectionRefusedError):
        ask(proxy)
    proxy.become(CLEAR)
    assert ask(proxy) == ANSWER
