"""What SQLite files have of their own: who may read them, whose they are, and writes that wait together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dreamlake_server.stores import StoreUnavailable, sqlite_file
from dreamlake_server.stores.meta import Head
from dreamlake_server.stores.sqlite import SqliteMeta
from dreamlake_server.stores.sqlite_tokens import SqliteTokens
from tests.contract.conftest import Run
from tests.contract.logs import LOSS, ONE, S1, S2, THEN, append, chain, together
from tests.contract.meta import bytes_of
from tests.contract.tokens import FIRST

TABLES = ("sessions", "origins", "logs", "segments", "uses")
STORES = pytest.mark.parametrize(
    ("Store", "name"), [(SqliteMeta, "meta.db"), (SqliteTokens, "tokens.db")], ids=["meta", "tokens"]
)


@contextlib.contextmanager
def opened(run: Run, store: Any) -> Iterator[Any]:
    run(store.open())
    try:
        yield store
    finally:
        run(store.close())


@pytest.fixture
def meta(run: Run, tmp_path: Path) -> Iterator[SqliteMeta]:
    with opened(run, SqliteMeta(tmp_path / "meta.db")) as store:
        run(store.make_session("alice", "work", "run", S1, THEN))
        yield store


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Somebody else is writing: every write of ours waits."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()


async def outcomes(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
    return list(await asyncio.gather(*calls, return_exceptions=True))


def test_files_are_their_user_s_alone(run: Run, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        meta, tokens = SqliteMeta(tmp_path / "meta.db"), SqliteTokens(tmp_path / "tokens.db")
        with opened(run, meta), opened(run, tokens):
            run(meta.ping())
            run(tokens.add(FIRST))
            modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("meta.db", "meta.db-wal", "meta.db-shm", "tokens.db"), "0o600")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["meta.db", "tokens.db"]


def test_sqlite_is_told_to_fsync_what_it_commits(run: Run, meta: SqliteMeta, tmp_path: Path) -> None:
    # Only power loss shows what this is for: 2 is FULL; 3 is EXTRA, for a rollback journal that was removed.
    with opened(run, SqliteTokens(tmp_path / "tokens.db")) as tokens:
        for connection, level in ((meta._file._connection, 2), (tokens._connection, 3)):
            assert connection.execute("PRAGMA synchronous").fetchone() == (level,)


def test_what_was_kept_is_there_when_it_is_opened_again(run: Run, tmp_path: Path) -> None:
    meta, tokens = SqliteMeta(tmp_path / "meta.db"), SqliteTokens(tmp_path / "tokens.db")
    first = append(LOSS, Head(), b"row\n")
    with opened(run, meta), opened(run, tokens):
        made = run(meta.make_session("alice", "work", "run", S1, THEN))
        assert run(meta.append(S1, ONE, [first], blobs=["a" * 64]))
        run(tokens.add(FIRST))
    for _ in range(2):  # by the same object, and by another
        with opened(run, meta), opened(run, tokens):
            assert run(meta.session("alice", S1)) == made
            assert run(meta.heads(S1)) == {(ONE, LOSS): first.after}
            assert run(meta.segments(S1, ONE, LOSS, 0, 10)) == list(first.segments)
            assert run(meta.blobs_only_of("alice", S1)) == ["a" * 64]
            assert run(tokens.of(None)) == [FIRST]
        meta, tokens = SqliteMeta(tmp_path / "meta.db"), SqliteTokens(tmp_path / "tokens.db")


@STORES
def test_a_closed_store_answers_nothing_and_leaves_no_thread(run: Run, tmp_path: Path, Store: Any, name: str) -> None:
    store = Store(tmp_path / name)
    calls = (store.ping, lambda: store.session("a", S1)) if Store is SqliteMeta else (lambda: store.find("a"),)
    with opened(run, store):
        for call in calls:
            run(call())
        assert any(thread.name.startswith("sqlite") for thread in threading.enumerate())
    run(store.close())
    for call in calls:
        with pytest.raises(StoreUnavailable, match=f"{name} is closed"):
            run(call())
    assert not any(thread.name.startswith("sqlite") for thread in threading.enumerate())


@STORES
@pytest.mark.parametrize(
    ("statements", "says"),
    [
        (["PRAGMA user_version = 99"], "of version 99 and this Dreamlake knows [12]: .*upgrade"),
        (["PRAGMA application_id = 7"], "not the one expected"),
        (["CREATE TABLE theirs (x)", "PRAGMA application_id = 0"], "not the one expected"),
        (["PRAGMA user_version = 1", "PRAGMA application_id = 0"], "not the one expected"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_and_left_alone(
    run: Run, tmp_path: Path, Store: Any, name: str, statements: list[str], says: str
) -> None:
    path = tmp_path / name
    with opened(run, Store(path)):
        pass
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    data = path.read_bytes()
    with pytest.raises(StoreUnavailable, match=says):
        run(Store(path).open())
    assert path.read_bytes() == data
    assert [each.name for each in tmp_path.iterdir()] == [name]


@STORES
def test_a_file_that_cannot_be_opened_is_named(run: Run, tmp_path: Path, Store: Any, name: str) -> None:
    (tmp_path / name).write_bytes(b"this is no database " * 100)
    (tmp_path / "folder.db").mkdir()
    for path in (tmp_path / name, tmp_path / "folder.db", tmp_path / "missing" / name):
        with pytest.raises(StoreUnavailable, match=f"{path} cannot be used"):
            run(Store(path).open())
    assert (tmp_path / name).read_bytes() == b"this is no database " * 100


def test_several_may_meet_at_a_new_file(run: Run, tmp_path: Path) -> None:
    for turn in range(10):
        stores = [SqliteTokens(tmp_path / f"{turn}.db") for _ in range(4)]
        run(together(*(store.open() for store in stores)))
        run(together(*(store.add(FIRST) for store in stores)))
        assert [run(store.of(None)) for store in stores] == [[FIRST]] * 4
        run(together(*(store.close() for store in stores)))


def test_the_two_files_are_not_taken_for_each_other(run: Run, tmp_path: Path) -> None:
    with opened(run, SqliteMeta(tmp_path / "meta.db")), pytest.raises(StoreUnavailable, match="not the one expected"):
        run(SqliteTokens(tmp_path / "meta.db").open())


# ── writes that wait together ─────────────────────────────────────────────────────────────────────────────────────────


def test_those_that_wait_are_written_in_one_transaction(run: Run, meta: SqliteMeta, tmp_path: Path) -> None:
    said: list[str] = []
    meta._file._connection.set_trace_callback(said.append)

    async def burst() -> list[Any]:
        calls = [
            asyncio.ensure_future(meta.append(S1, f"{who}", [append(LOSS, Head(), b"row\n")])) for who in range(50)
        ]
        with locked(tmp_path / "meta.db"):
            await asyncio.sleep(0)  # each has its turn, and joins those that wait
        return await asyncio.gather(*calls)

    assert run(burst()) == [True] * 50
    assert said.count("COMMIT") <= 2  # of those that came before the writer looked, and of all others


def test_what_waits_when_it_is_closed_is_still_written(run: Run, tmp_path: Path) -> None:
    meta = SqliteMeta(tmp_path / "meta.db")
    run(meta.open())
    run(meta.make_session("alice", "work", "run", S1, THEN))

    async def burst() -> list[Any]:
        with locked(tmp_path / "meta.db"):
            calls = [
                asyncio.ensure_future(meta.append(S1, f"{who}", [append(LOSS, Head(), b"row\n")])) for who in range(9)
            ]
            await asyncio.sleep(0)
            closing = asyncio.ensure_future(meta.close())
            await asyncio.sleep(0)
        await closing
        return await asyncio.gather(*calls)

    assert run(burst()) == [True] * 9
    with opened(run, meta):
        assert len(run(meta.heads(S1))) == 9


def test_one_that_fails_takes_no_other_with_it(run: Run, meta: SqliteMeta, tmp_path: Path) -> None:
    good = [append(f"log {number}", Head(), b"row\n") for number in range(6)]
    too_large = [replace(each, after=replace(each.after, size=2**63)) for each in good]
    wrong = [replace(each, before=replace(each.after, count=9)) for each in good]

    async def burst() -> list[Any]:
        calls = [meta.append(S1, ONE, [append(f"{each.log}+", Head(), b"row\n"), each]) for each in too_large + wrong]
        calls[3:3] = [meta.append(S1, ONE, [each]) for each in good[:3]]
        tasks = [asyncio.ensure_future(call) for call in (*calls, *(meta.append(S1, ONE, [each]) for each in good[3:]))]
        with locked(tmp_path / "meta.db"):
            await asyncio.sleep(0)
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    found = run(burst())
    assert [each if isinstance(each, bool) else type(each) for each in found] == [
        *[OverflowError] * 3,
        *[True] * 3,
        *[OverflowError] * 3,
        *[False] * 6,
        *[True] * 3,
    ]
    assert run(meta.heads(S1)) == {(ONE, each.log): each.after for each in good}


def test_who_is_cancelled_has_written_all_or_nothing(run: Run, meta: SqliteMeta, tmp_path: Path) -> None:
    async def burst(cancelled: set[int]) -> list[Any]:
        tasks = [
            asyncio.ensure_future(
                meta.append(S1, f"{min(cancelled)}.{who}", [append(log, Head(), b"row\n") for log in "abc"])
            )
            for who in range(20)
        ]
        with locked(tmp_path / "meta.db"):
            await asyncio.sleep(0)
            for who in cancelled:
                tasks[who].cancel()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    for cancelled in ({0, 1, 7, 19}, set(range(1, 20)), {10}):
        found = run(burst(cancelled))
        assert [each is not True for each in found] == [who in cancelled for who in range(20)]
        assert all(isinstance(found[who], asyncio.CancelledError) for who in cancelled)
    run(meta.ping())  # behind whatever was still under way
    heads = run(meta.heads(S1))
    logs = Counter(origin for origin, _ in heads)
    assert set(logs.values()) == {3}
    assert len(logs) >= 60 - 24


def test_while_another_writes_reads_go_on_and_writes_fail_in_time(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.05)
    first = append(LOSS, Head(), b"row\n")
    with opened(run, SqliteMeta(tmp_path / "meta.db")) as meta:
        run(meta.make_session("alice", "work", "run", S1, THEN))
        with locked(tmp_path / "meta.db"):
            calls = [meta.append(S1, ONE, [first]), meta.ping(), meta.put_blob(bytes_of("alice", "a" * 64))]
            found = run(outcomes(*calls))
            assert [type(each) for each in found] == [StoreUnavailable] * 3
            assert "locked" in str(found[0])
            assert run(meta.heads(S1)) == {}
        assert run(meta.heads(S1)) == {}
        assert run(meta.append(S1, ONE, [first]))


def test_a_full_disk_keeps_nothing_and_is_forgotten_when_there_is_room(run: Run, meta: SqliteMeta) -> None:
    connection = meta._file._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 50}").fetchone()
    small, large = append("small", Head(), b"row\n"), append("large", Head(), bytes(1 << 20))
    found = run(outcomes(meta.append(S1, ONE, [small, large], summary={"a": 1})))
    assert [type(each) for each in found] == [StoreUnavailable]
    assert "full" in str(found[0])
    assert run(meta.heads(S1)) == {}
    assert run(meta.session("alice", S1)).origins == {}
    assert run(meta.append(S1, ONE, [small]))
    connection.execute("PRAGMA max_page_count = 1000000").fetchone()
    assert run(meta.append(S1, ONE, [large]))
    assert run(meta.heads(S1)) == {(ONE, each.log): each.after for each in (small, large)}


def test_a_purge_that_was_broken_off_is_never_taken_back(run: Run, meta: SqliteMeta) -> None:
    writer = meta._file._connection
    whole = append(LOSS, Head(), *(b"%d" % number for number in range(200)))
    assert run(meta.append(S1, ONE, [whole], blobs=["a" * 64]))
    assert run(meta.mark_deleted("alice", S1, "2026"))
    broken = "BEFORE DELETE ON segments WHEN old.first = 150 BEGIN SELECT RAISE(ABORT, 'broken off'); END"
    writer.execute(f"CREATE TRIGGER broken {broken}")
    with pytest.raises(StoreUnavailable, match="broken off"):
        run(meta.purge_session("alice", S1))
    left = run(meta.segments(S1, ONE, LOSS, 0, 1000))
    assert 50 <= len(left) < 200  # other writes came in between
    assert run(meta.mark_deleted("alice", S1, None)) is False
    assert run(meta.append(S1, ONE, [append(LOSS, whole.after, b"row\n")])) is False
    assert run(meta.make_session("alice", "work", "run", S2, THEN)).deleted == "2026"
    assert [each.id for each in run(meta.deleted_sessions("2027", 10))] == [S1]
    writer.execute("DROP TRIGGER broken")
    run(meta.purge_session("alice", S1))
    assert run(meta.deleted_sessions("2027", 10)) == []
    assert [writer.execute(f"SELECT count(*) FROM {table}").fetchone() for table in TABLES] == [(0,)] * len(TABLES)


# ── other processes ───────────────────────────────────────────────────────────────────────────────────────────────────

APPENDER = f"""
import asyncio, sys
from pathlib import Path
from dreamlake_server.stores.meta import Head
from dreamlake_server.stores.sqlite import SqliteMeta
from tests.contract.logs import append

async def write(meta, who):
    head = Head()
    while True:
        each = append("log", head, b"%d of %d" % (head.count, who))
        assert await meta.append({S1!r}, f"{{who}}", [each], summary={{"count": each.after.count}})
        head = each.after
        print(who, head.count, flush=True)

async def main():
    meta = SqliteMeta(Path(sys.argv[1]))
    await meta.open()
    await meta.make_session("alice", "work", "run", {S1!r}, {THEN!r})
    await asyncio.gather(*(write(meta, who) for who in range(4)))

asyncio.run(main())
"""

REVOKER = f"""
import asyncio, sys
from pathlib import Path
from dreamlake_server.stores.sqlite_tokens import SqliteTokens

async def main():
    tokens = SqliteTokens(Path(sys.argv[1]))
    await tokens.open()
    for when in sys.stdin:
        print(await tokens.revoke({FIRST.id!r}, when.strip()), flush=True)
    await tokens.close()

asyncio.run(main())
"""


def python(program: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_what_was_answered_before_a_kill_is_there_after_it(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "meta.db"
    answered: Counter[str] = Counter()
    with python(APPENDER, path) as process:
        assert process.stdout
        for line in process.stdout:
            who, count = line.split()
            answered[who] = int(count)
            if answered.total() == 400:
                process.kill()
    assert answered.total() >= 400
    with opened(run, SqliteMeta(path)) as meta:
        heads = run(meta.heads(S1))
        origins = run(meta.session("alice", S1)).origins
        for (who, log), head in heads.items():
            # One more at most: written, and killed before it could say so.
            assert answered[who] <= head.count <= answered[who] + 1
            assert chain(run(meta.segments(S1, who, log, 0, 10_000))) == head
            assert origins[who] == {"count": head.count}
        assert heads.keys() == {(who, "log") for who in answered}


def test_a_token_that_another_process_revokes_opens_nothing_any_more(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "tokens.db"
    with opened(run, SqliteTokens(path)) as tokens, python(REVOKER, path) as process:
        assert process.stdin
        assert process.stdout
        run(tokens.add(FIRST))
        assert run(tokens.find(FIRST.id)) == FIRST
        for when in ("2027", "2028"):
            process.stdin.write(f"{when}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "True\n"
            assert run(tokens.find(FIRST.id)).revoked == "2027"
