"""Metrics: Prometheus' own parser reads them, their number is bounded, and no name of a user's is in them."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from dreamlake import config
from dreamlake.wire.remotes import Remote
from dreamlake_agent.core import events as on
from dreamlake_agent.core.agent import Agent
from dreamlake_agent.core.session import Session
from dreamlake_agent.observe import exposition, metrics
from dreamlake_agent.observe.status import Status


def an_agent(remotes: int = 1) -> Agent:
    core = Agent(b"incarnat")
    for number in range(3):
        core.sessions[7, number] = Session((7, number), f"/home/quentin/secret-{number}", phase="live")
    core.handle(on.Gauged((on.Disk(7, "/home/quentin", 10**10, 10**12, 5, 10**6), on.Disk(8, "/", 10, 10**12))), 1, 0)
    for number in range(remotes):
        url = f"https://quentin:hunter2@lake{number:03}.example.org:8443/team"
        core.uploads.covered("/home/quentin/secret-0", (Remote(url, "quentin"),), 0, (10, 1000), 0)
        core.counts.uploads[url, "sent"] += 2
    return core


def status_of(core: Agent) -> dict[str, Any]:
    loop: Any = SimpleNamespace(
        core=core,
        directories={},
        who={"pid": 1, "host": "n", "endpoint": "ipc:///x"},
        world=SimpleNamespace(monotonic=lambda: 0.0),
    )
    status = Status(loop, "ipc:///x", "/log")
    found = status.describe()
    found["warnings"] = [raised.describe(1) for raised in core.watch.limits.raised]
    return found


def parsed(core: Agent) -> dict[str, Any]:
    text = exposition.render(metrics.families(core, status_of(core), 8)).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_prometheus_reads_them() -> None:
    core = an_agent()
    core.points = 2**60 + 1
    found = parsed(core)
    (sample,) = found["dreamlake_agent_points"].samples
    assert (sample.name, sample.value) == ("dreamlake_agent_points_total", 2**60 + 1)
    (info,) = found["dreamlake_agent_info"].samples
    assert info.labels["incarnation"] == b"incarnat".hex()
    states = {each.labels["state"]: each.value for each in found["dreamlake_agent_sessions"].samples}
    assert states == {"opening": 0, "recovering": 0, "live": 3, "stalled": 0}
    warnings = {each.labels["kind"]: each.value for each in found["dreamlake_agent_warnings"].samples}
    assert warnings == {"disk_space": 1, "inodes": 1, "backlog": 0, "lag": 0, "setting": 0}
    free = {each.labels["disk"]: each.value for each in found["dreamlake_agent_disk_free_bytes"].samples}
    assert free == {"state": 10, "sessions": 10**10}
    inodes = {each.labels["disk"]: each.value for each in found["dreamlake_agent_disk_free_inodes"].samples}
    assert inodes == {"sessions": 5}
    assert found["process_open_fds"].samples[0].value > 2


def test_names_follow_the_conventions() -> None:
    for family in metrics.families(an_agent(), status_of(an_agent()), None):
        assert family.name.startswith(("dreamlake_agent_", "process_"))
        assert family.name.endswith("_total") == (family.kind == exposition.COUNTER)
        assert family.text.endswith(".")


def test_no_user_no_path_no_session_and_no_password_is_told() -> None:
    text = exposition.render(metrics.families(an_agent(), status_of(an_agent()), 8)).decode()
    assert 'remote="https://lake000.example.org:8443"' in text
    for secret in ("quentin", "hunter2", "secret", "/home", "/team"):
        assert secret not in text


def test_servers_are_as_many_as_the_limit_and_the_others_are_one() -> None:
    core = an_agent(remotes=config.METRICS_REMOTES + 15)
    found = parsed(core)
    remotes = [each.labels["remote"] for each in found["dreamlake_agent_upload_backlog_bytes"].samples]
    assert len(remotes) == len(set(remotes)) == config.METRICS_REMOTES + 1
    assert metrics.OTHER in remotes
    jobs = {each.labels["remote"]: each.value for each in found["dreamlake_agent_uploads"].samples}
    assert jobs[metrics.OTHER] == 15 * 2


def test_labels_may_hold_anything() -> None:
    odd = 'a"b\\c\nd\u2028é'
    family = exposition.Family("x_total", exposition.COUNTER, "One\nline \\ of it.", ("to",), {(odd,): 1.5})
    (found,) = text_string_to_metric_families(exposition.render([family]).decode())
    assert found.samples[0].labels == {"to": odd}
    assert found.samples[0].value == 1.5
    assert metrics.place_of("no url") == metrics.place_of("http://[") == metrics.place_of("http://x:99999") == "other"
    assert metrics.place_of("http://[::1]:3000/") == "http://[::1]:3000"


def test_health_is_unavailable_in_trouble_when_stopping_and_when_nothing_is_done() -> None:
    core = an_agent()
    well = metrics.health(core, status_of(core))
    assert (well["status"], well["reasons"], well["pid"]) == ("ok", [], os.getpid())
    assert well["warnings"] == ["disk_space", "inodes"]
    assert metrics.aged(well, config.HEALTH_SECONDS - 1) == well
    hangs = metrics.aged(well, config.HEALTH_SECONDS + 1)
    assert (hangs["status"], hangs["reasons"]) == ("unavailable", ["the agent has done nothing for 16 s"])
    core.sessions[7, 1].trouble = "/home/quentin/secret-1: No space left on device"
    assert metrics.health(core, status_of(core))["reasons"] == ["1 session is in trouble, and tried again"]
    core.stop(1, 0)
    assert metrics.health(core, status_of(core))["reasons"][0] == "the agent is stopping"
