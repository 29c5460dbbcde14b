"""Each node alone, joined at the server: four nodes of four ranks, no shared disk, clocks that differ by minutes; one
node is killed, one has no network, one goes on with a second run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dreamlake.remote.credentials import word_token
from tests.server_live.lake import client_of, lake
from tests.server_live.nodes import RANKS, WORLD, Node, node
from tests.server_live.programs.rank import POINTS
from tests.server_live.together import Together, restored
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may have host names and networks apart (unshare)")

Row = dict[str, Any]
WAIT_SECONDS = 60


def asked(client: httpx.Client, path: str, **params: Any) -> Any:
    return client.get(path, params=params).raise_for_status().json()


def by_cursor(client: httpx.Client, path: str, key: str, limit: int, **params: Any) -> list[Row]:
    found: list[Row] = []
    while True:
        page = asked(client, path, limit=limit, **params)
        found += page[key]
        if page["nextCursor"] is None:
            return found
        params["cursor"] = page["nextCursor"]


def by_number(client: httpx.Client, path: str, limit: int) -> list[Row]:
    found: list[Row] = []
    while True:
        page = asked(client, path, limit=limit, startIndex=len(found))
        found += page["data"]
        if not page["hasMore"]:
            return found


def assert_answers(client: httpx.Client, session: str, them: Together) -> None:
    """All that the server says, against what stands in the directories."""
    path = f"/sessions/{session}"
    assert asked(client, path)["origins"] == sorted(them.folders)
    assert asked(client, f"{path}/parameters")["data"] == them.parameters()
    assert [each["name"] for each in asked(client, f"{path}/tracks")["tracks"]] == them.tracks()
    for track in them.tracks():
        assert_track(client, f"{path}/tracks/{track}", them, track)
    lines = [{**row, "sequenceNumber": index, "origin": origin} for origin, index, row in them.lines()]
    assert by_cursor(client, f"{path}/logs", "logs", 41) == lines
    warned = [line for line in lines if line["level"] == "warn" and line["rank"] == 9]
    assert by_cursor(client, f"{path}/logs", "logs", 3, level="warn", rank=9) == warned
    files = {(each["path"], each["filename"]): each for each in asked(client, f"{path}/files")["files"]}
    assert_files(files, them)
    for (_, filename), file in files.items():
        data = client.get(f"{path}/files/{file['id']}/download").raise_for_status().content
        assert hashlib.sha256(data).hexdigest() == file["checksum"], filename


def assert_track(client: httpx.Client, path: str, them: Together, track: str) -> None:
    points = them.points(track)
    wanted = [{**row, "index": str(index), "origin": origin} for origin, index, row in points]
    if len({origin for origin, _, _ in points}) == 1:
        wanted = [{key: value for key, value in row.items() if key != "origin"} for row in wanted]
    assert by_cursor(client, f"{path}/data", "data", 97) == wanted
    assert by_number(client, f"{path}/data", 97) == wanted
    of_rank = [row for row in wanted if row["rank"] == 5]
    assert by_cursor(client, f"{path}/data", "data", 7, rank=5) == of_rank
    assert_stats(asked(client, f"{path}/stats"), them, track)


def assert_stats(stats: Row, them: Together, track: str, here: str | None = None) -> None:
    """``here``: of that directory the last point is the one that stands last, as in its own views."""
    points = them.points(track)
    of_here = [row["createdAt"] for origin, _, row in points if origin == here]
    lasts = [*(row["createdAt"] for origin, _, row in points if origin != here), *of_here[-1:]]
    firsts = [row["createdAt"] for _, index, row in points if index == 0]  # of a node, what it took first
    said = {key: stats[key] for key in ("totalDataPoints", "firstDataAt", "lastDataAt")}
    assert said == {"totalDataPoints": str(len(points)), "firstDataAt": min(firsts), "lastDataAt": max(lasts)}
    assert {key: stats[key] for key in ("description", "tags", "metadata")} == them.said_of(track)


def assert_files(files: dict[tuple[str, str], Row], them: Together) -> None:
    keys = ("id", "checksum", "description", "tags", "metadata", "sizeBytes")
    wanted = them.files()
    assert set(files) == set(wanted)
    for place, file in files.items():
        assert {key: file[key] for key in keys} == {key: wanted[place][key] for key in keys}


def assert_reads(read: Row, them: Together, here: str) -> None:
    """The same from Python: this node's directory, and the rest from the server."""
    parameters = them.parameters()
    assert read["parameters"] == parameters
    assert sorted(read["tracks"]) == them.tracks()
    for track in them.tracks():
        wanted = [
            (origin, str(index), restored(row), row["createdAt"], row["rank"])
            for origin, index, row in them.points(track)
        ]
        origins = {each[0] for each in wanted}
        found = [
            (
                row["origin"] if len(origins) > 1 else row.get("origin", *origins),
                *(row[key] for key in ("index", "data", "createdAt", "rank")),
            )
            for row in read["tracks"][track]
        ]
        assert found == wanted, track
        assert_stats(read["stats"][track], them, track, here)
    for rank in range(WORLD):
        wanted_of = [(origin, str(index)) for origin, index, row in them.points("loss") if row["rank"] == rank]
        assert [(row["origin"], row["index"]) for row in read["of rank"][str(rank)]] == wanted_of
        assert read["stats of rank"][str(rank)]["totalDataPoints"] == str(len(wanted_of))
    assert_files({(each["path"], each["filename"]): each for each in read["files"]}, them)


@contextlib.contextmanager
def four(tmp: Path, url: str) -> Iterator[list[Node]]:
    with contextlib.ExitStack() as made:
        yield [
            made.enter_context(node(f"node{number}", number, tmp, url, skew=skew, offline=number == 2))
            for number, skew in enumerate((0, -75, -240, 180))
        ]


@pytest.mark.timeout(300)
def test_four_nodes_are_one_session(tmp_path: Path) -> None:
    with (
        lake(tmp_path, "--auth", "none", "--data", tmp_path / "data") as server,
        four(tmp_path, server.url) as nodes,
        client_of(server.url, word_token("alice")) as client,
    ):
        calm, killed, offline, resumed = nodes
        for each in nodes:
            each.start()
        for each in nodes:
            each.all("write 1")
        # On another node's clock it is past already.
        calm.all("write 2")
        online = [calm, killed, resumed]
        assert [host for _time, host in sorted(map(opened, nodes))] == ["node2", "node1", "node0", "node3"]
        for each in online:
            each.all("sync")
        [session] = [each["id"] for each in asked(client, "/workspaces/work/sessions")["sessions"]]
        about = f"/sessions/{session}"
        assert asked(client, about)["state"] == "running"
        them = Together([each.folder for each in online])
        assert_answers(client, session, them)
        for each in online:
            each.ranks[0].tell("read")
        for each in online:
            assert_reads(each.ranks[0].hear(), them, each.origin)

        killed.kill()
        resumed.ranks[1].tell("fail")
        assert resumed.ranks.pop(1).end() == 1
        resumed.close()
        offline.close()
        wait_for(lambda: has_all(client, killed, "killed") and has_all(client, resumed, "failed"), WAIT_SECONDS)
        assert asked(client, about)["state"] == "running"
        calm.close()
        run = wait_for(lambda: (found := asked(client, about))["state"] != "running" and found, WAIT_SECONDS)
        assert (run["state"], run["killedRanks"]) == ("failed", [4, 5, 6, 7])
        assert run["error"] == {"type": "ValueError", "message": "rank 13 of node3: loss is NaN", "rank": 13}

        # Nobody has heard of this node until now.
        assert offline.origin not in run["origins"]
        offline.dreamlake("agent", "stop")
        assert "sent" in offline.dreamlake("sync", offline.folder)
        assert "up to date" in offline.dreamlake("sync", offline.folder)
        them = Together([each.folder for each in nodes])
        assert len(them.points("loss")) == POINTS * (WORLD + 2 * RANKS) - POINTS * RANKS
        assert_answers(client, session, them)
        assert asked(client, about) == {**run, **times_of(nodes), "origins": sorted(them.folders)}

        resumed.start()
        resumed.all("write 2")
        resumed.all("sync")
        assert asked(client, about)["state"] == "running"
        resumed.ranks[0].tell("read")
        them = Together([each.folder for each in nodes])
        assert_reads(resumed.ranks[0].hear(), them, resumed.origin)
        resumed.close()
        run = wait_for(lambda: (found := asked(client, about))["state"] != "running" and found, WAIT_SECONDS)
        assert (run["state"], run["killedRanks"], run["error"]) == ("killed", [4, 5, 6, 7], None)
        assert_answers(client, session, Together([each.folder for each in nodes]))

        # The scheduler gives the ranks that were killed another node.
        with node("spare", 1, tmp_path, server.url) as spare:
            spare.start()
            spare.all("write 2")
            spare.all("sync")
            assert asked(client, about)["state"] == "running"
            spare.close()
            run = wait_for(lambda: (found := asked(client, about))["state"] != "running" and found, WAIT_SECONDS)
            assert (run["state"], run["killedRanks"], run["error"]) == ("finished", None, None)
            assert_answers(client, session, Together([each.folder for each in (*nodes, spare)]))
        server.assert_no_complaints()


def opened(node: Node) -> tuple[str, str]:
    """When it was opened there first, and by which host."""
    row = json.loads((node.folder / ".dreamlake/session.jsonl").read_bytes().splitlines()[0])
    return row["time"], row["host"]


def times_of(nodes: list[Node]) -> dict[str, str]:
    views = [json.loads((node.folder / "session.json").read_bytes()) for node in nodes]
    earliest = {"createdAt": "created_at", "startedAt": "started_at"}
    latest = {"updatedAt": "updated_at", "endedAt": "ended_at"}
    return {
        **{name: min(view[key] for view in views) for name, key in earliest.items()},
        **{name: max(view[key] for view in views) for name, key in latest.items()},
    }


def has_all(client: httpx.Client, node: Node, state: str) -> bool:
    """Whether the run on a node has ended so, and the server has every line of it."""
    if json.loads((node.folder / "session.json").read_bytes())["state"] != state:
        return False
    logs = ("logs/logs.jsonl", *(f".dreamlake/{name}.jsonl" for name in ("session", "parameters", "tracks", "files")))
    question = {"origin": node.origin, "session": {"workspace": "work", "name": "run"}, "logs": logs}
    told = client.post("/v1/status", json=question).raise_for_status().json()["logs"]
    return all(told[log]["count"] == (node.folder / log).read_bytes().count(b"\n") for log in logs)
