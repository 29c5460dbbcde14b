"""Observing: what was asked for and cannot be had is a warning, and is had once it can."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dreamlake import config
from dreamlake_agent.core.agent import Agent
from dreamlake_agent.observe.observing import SETTING, Observing
from dreamlake_agent.settings import Settings
from tests.agent.test_metrics import status_of


class Observed:
    """An agent without a loop, whose metrics are wanted at ``place``."""

    def __init__(self, state: Path, place: str | int | None) -> None:
        self.core = Agent(b"incarnat")
        self.said: list[tuple[str, str]] = []
        self.flushes = 0
        settings = Settings()
        settings.metrics = place
        loop: Any = SimpleNamespace(core=self.core, world=time, take=lambda event: self.core.handle(event, 0, 0))
        self.observing = Observing(loop, str(state), settings, self.log, self.flush)

    def log(self, level: str, text: str, **_about: str) -> None:
        self.said.append((level, text))

    def flush(self) -> None:
        self.flushes += 1

    def tend(self) -> None:
        self.observing.tend(lambda: status_of(self.core))


@pytest.fixture
def hasty(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("METRICS_SECONDS", "METRICS_RETRY_SECONDS", "GAUGE_SECONDS"):
        monkeypatch.setattr(config, name, 0.0)


@contextlib.contextmanager
def observed(state: Path, place: str | int | None) -> Iterator[Observed]:
    found = Observed(state, place)
    try:
        yield found
    finally:
        found.observing.close()


def health(address: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(address.removeprefix("http://"))
    connection.request("GET", "/health")
    with connection.getresponse() as response:
        found = response.status, json.loads(response.read())
    connection.close()
    return found


@pytest.mark.usefixtures("hasty")
def test_a_port_that_is_taken_is_one_warning_until_it_is_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, observed(tmp_path, taken.getsockname()[1]) as found:
        for _ in range(3):
            found.tend()
        assert [level for level, _ in found.said] == ["warning"]
        assert [each["kind"] for each in found.observing.warnings()] == [SETTING]
        assert found.observing.address is None
        taken.close()
        found.tend()
        assert found.observing.warnings() == []
        assert found.observing.address is not None
        assert health(found.observing.address)[0] == 200
        assert found.flushes == 4


@pytest.mark.usefixtures("hasty")
def test_a_socket_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    place = tmp_path / "run" / "metrics.sock"
    with observed(tmp_path, str(place)) as found:
        found.tend()
        place.unlink()
        found.tend()
        assert place.is_socket()
    assert not place.exists()


@pytest.mark.usefixtures("hasty")
def test_an_agent_that_does_nothing_any_more_is_not_healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with observed(tmp_path, 0) as found:
        found.tend()
        address = found.observing.address
        assert address is not None
        assert health(address)[0] == 200
        monkeypatch.setattr(config, "HEALTH_SECONDS", 0.0)  # nobody has called it for longer than that
        code, said = health(address)
        assert code == 503
        assert said["reasons"] == ["the agent has done nothing for 0 s"]


@pytest.mark.usefixtures("hasty")
def test_without_metrics_there_is_no_socket_and_the_disks_are_looked_at_all_the_same(tmp_path: Path) -> None:
    with observed(tmp_path, None) as found:
        found.tend()
        assert found.observing.address is None
        gauge = found.observing._gauge
        assert gauge._looking is not None
        gauge._looking.join(20)
        found.tend()
        assert [disk.path for disk in found.core.watch.last.disks] == [str(tmp_path)]
        assert found.said == []


def test_what_cannot_be_used_is_said_and_the_rest_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMLAKE_LAG", "0")
    monkeypatch.setenv("DREAMLAKE_DISK_FREE", "half of it")
    monkeypatch.setenv("DREAMLAKE_BACKLOG", "2G")
    monkeypatch.setenv("DREAMLAKE_METRICS", "0.0.0.0:9464")
    settings = Settings()
    assert [text.split(" ")[0] for text in settings.left_out] == [
        "DREAMLAKE_DISK_FREE",
        "DREAMLAKE_LAG",
        "DREAMLAKE_METRICS",
    ]
    assert settings.thresholds.backlog_bytes == 2 << 30
    assert settings.thresholds.lag_seconds == config.LAG_SECONDS
    assert settings.thresholds.disk_free_share == config.DISK_FREE_SHARE
    assert settings.metrics is None
