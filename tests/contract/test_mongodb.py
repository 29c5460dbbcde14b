"""Meta and Tokens on a real MongoDB: the suites, and what only this store can do wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pymongo
import pytest
from pymongo.asynchronous.client_session import AsyncClientSession

from dreamlake_server.stores import StoreUnavailable, mongodb, mongodb_connection
from dreamlake_server.stores.meta import Append, Head
from dreamlake_server.stores.mongodb import MongoMeta
from dreamlake_server.stores.mongodb_connection import Connection
from dreamlake_server.stores.mongodb_tokens import MongoTokens
from tests.contract.conftest import Run
from tests.contract.logs import LOSS, ONE, OTHER, S1, S2, THEN, append, chain
from tests.contract.meta import MetaSuite
from tests.contract.tokens import TokensSuite
from tests.services import mongod as mongodb_server
from tests.services import ports
from tests.services.mongod import Mongod
from tests.waiting import wait_for

pytest_plugins = ["tests.services.fixtures"]
pytestmark = pytest.mark.services

DATABASE = "contract"
WRITERS = 8
KILLS = 2
BACK_SECONDS = 30  # until a server that was killed must be of use again
APPENDS_BETWEEN = 60
ONCE = {"times": 1}

Store = TypeVar("Store", MongoMeta, MongoTokens, Connection)


@pytest.fixture
def database(mongod: Mongod) -> Iterator[str]:
    """Always the same one: to make one and its indexes takes ten times as long as to empty it."""
    yield DATABASE
    with pymongo.MongoClient[dict[str, object]](mongod.uri) as client:
        for name in client[DATABASE].list_collection_names():
            client[DATABASE][name].delete_many({})


@contextlib.contextmanager
def opened(run: Run, store: Store) -> Iterator[Store]:
    run(store.open())
    try:
        yield store
    finally:
        run(store.close())


@pytest.fixture
def meta(run: Run, mongod: Mongod, database: str) -> Iterator[MongoMeta]:
    with opened(run, MongoMeta(mongod.uri, database)) as store:
        yield store


@pytest.fixture
def another(run: Run, meta: MongoMeta, mongod: Mongod, database: str) -> Iterator[MongoMeta]:
    with opened(run, MongoMeta(mongod.uri, database)) as store:
        yield store


def left_of(mongod: Mongod, database: str, session_id: str) -> dict[str, int]:
    """How many documents there are of a session, in every collection that has some."""
    with pymongo.MongoClient[dict[str, object]](mongod.uri) as client:
        which = {"$or": [{"session": session_id}, {"_id": session_id}]}
        counts = {name: client[database][name].count_documents(which) for name in mongodb.INDEXES}
    return {name: count for name, count in counts.items() if count}


class TestMeta(MetaSuite):
    pass


class TestTokens(TokensSuite):
    @pytest.fixture
    def tokens(self, run: Run, mongod: Mongod, database: str) -> Iterator[MongoTokens]:
        with opened(run, MongoTokens(mongod.uri, database)) as store:
            yield store

    @pytest.fixture
    def another(self, run: Run, tokens: MongoTokens, mongod: Mongod, database: str) -> Iterator[MongoTokens]:
        with opened(run, MongoTokens(mongod.uri, database)) as store:
            yield store


class TestOpening:
    def test_a_standalone_server_is_refused_with_what_to_do(self, run: Run, nobody_left_behind: None) -> None:
        with mongodb_server.mongod(standalone=True) as server:
            for store in (MongoMeta(server.uri), MongoTokens(server.uri)):
                with pytest.raises(StoreUnavailable, match=r"standalone.*start mongod with --replSet"):
                    run(store.open())

    def test_a_server_that_is_not_there(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mongodb_connection, "FIND_SECONDS", 0.3)
        with ports.block() as free, pytest.raises(StoreUnavailable, match=f"127.0.0.1:{free[0]}.*failed"):
            run(MongoMeta(f"mongodb://127.0.0.1:{free[0]}").open())

    @pytest.mark.parametrize(
        "userinfo",
        ["user:sEcret@sEcret", "user:sEcret:sEcret", "user:sEcret/sEcret", "user:sEcret%", "user:sEcret"],
    )
    def test_no_message_holds_a_password(self, run: Run, mongod: Mongod, userinfo: str) -> None:
        uri = mongod.uri.replace("://", f"://{userinfo}@")
        with pytest.raises(StoreUnavailable) as caught:
            run(MongoMeta(uri).open())
        whole = "".join(traceback.format_exception(caught.value))
        assert "sEcret" not in whole.replace(f'"{uri}"', "")


class TestUnavailable:
    def test_a_ping_of_a_server_that_hangs_is_bounded(
        self, run: Run, mongod: Mongod, meta: MongoMeta, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mongodb_connection, "PING_SECONDS", 0.5)
        run(meta.ping())
        os.kill(mongod.pid, signal.SIGSTOP)
        try:
            with pytest.raises(StoreUnavailable, match="did not answer in time"):
                run(meta.ping())
        finally:
            os.kill(mongod.pid, signal.SIGCONT)
        wait_for(lambda: run(_answers(meta.ping)))

    def test_an_append_while_the_server_is_gone_is_not_tried_for_ever(
        self, run: Run, nobody_left_behind: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mongodb_connection, "FIND_SECONDS", 1)
        with mongodb_server.mongod() as server, opened(run, MongoMeta(server.uri)) as meta:
            run(meta.make_session("alice", "work", "run", S1, THEN))
            more = append(LOSS, Head(), b"row\n")
            server.kill()
            for call in (lambda: meta.append(S1, ONE, [more]), lambda: meta.heads(S1), meta.ping):
                with pytest.raises(StoreUnavailable, match="MongoDB cannot be used"):
                    run(call())
            server.start()
            wait_for(lambda: run(_answers(meta.ping)))
            assert run(meta.append(S1, ONE, [more]))

    def test_what_was_written_is_in_no_message(self, run: Run, mongod: Mongod, meta: MongoMeta) -> None:
        run(meta.make_session("alice", "work", "run", S1, THEN))
        with mongod.fail("update", "insert", mode=ONCE, errorCode=8000), pytest.raises(StoreUnavailable) as caught:
            run(meta.append(S1, ONE, [append("sEcret", Head(), b"sEcret")], summary={"sEcret": 1}))
        assert "sEcret" not in str(caught.value)
        assert run(meta.heads(S1)) == {}


class TestCommit:
    """A commit of which no answer comes, one that is refused, one that has to wait."""

    @pytest.mark.parametrize(
        ("command", "how"),
        [
            ("commitTransaction", {"closeConnection": True}),  # before it was done
            ("commitTransaction", {"writeConcernError": {"code": 64, "errmsg": "timed out"}}),  # after it was done
            ("commitTransaction", {"errorCode": 251, "errorLabels": ["TransientTransactionError"]}),
            ("update", {"closeConnection": True}),
            ("update", {"errorCode": 112, "errorLabels": ["TransientTransactionError"]}),
        ],
    )
    def test_it_is_done_once(
        self, run: Run, mongod: Mongod, meta: MongoMeta, command: str, how: dict[str, object]
    ) -> None:
        run(meta.make_session("alice", "work", "run", S1, THEN))
        last = append(LOSS, Head(), b"0\n")
        assert run(meta.append(S1, ONE, [last]))
        for number in range(1, 4):
            last = append(LOSS, last.after, b"%d\n" % number)
            with mongod.fail(command, mode=ONCE, **how) as has_begun:
                assert run(meta.append(S1, ONE, [last])) is True
                assert has_begun()
        found = run(meta.segments(S1, ONE, LOSS, 0, 10))
        assert [each.data for each in found] == [b"0\n", b"1\n", b"2\n", b"3\n"]
        assert chain(found) == run(meta.heads(S1))[ONE, LOSS]

    def test_nobody_says_no_who_may_have_committed(self, run: Run, mongod: Mongod, database: str) -> None:
        connection = Connection(mongod.uri, database)
        answers = [True, False]

        async def attempt(session: AsyncClientSession) -> bool:
            answer = answers.pop(0)
            if answer:
                await connection.collection("heads").insert_one({}, session=session)
            return answer

        how = {"errorCode": 251, "errorLabels": ["TransientTransactionError"]}
        with (
            opened(run, connection),
            mongod.fail("commitTransaction", mode=ONCE, **how),
            pytest.raises(StoreUnavailable, match="did not say whether"),
        ):
            run(connection.transaction(attempt))
        assert answers == []


class TestPurge:
    def test_a_purge_that_died_leaves_nothing_half(
        self, run: Run, mongod: Mongod, meta: MongoMeta, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mongodb, "PURGED_AT_ONCE", 3)
        run(meta.make_session("alice", "work", "run", S1, THEN))
        for origin in (ONE, OTHER):
            logs = [append(f"log {number}", Head(), b"0", b"1") for number in range(4)]
            assert run(meta.append(S1, origin, logs, summary={}, blobs=[f"{number:064}" for number in range(4)]))
        assert run(meta.mark_deleted("alice", S1, THEN))
        whole = left_of(mongod, database, S1)
        assert whole == {"sessions": 1, "origins": 2, "heads": 8, "segments": 16, "references": 4}
        deaths = 0
        while left := left_of(mongod, database, S1):
            # It comes one batch further each time.
            with mongod.fail("delete", mode={"skip": 1}, errorCode=8000):
                try:
                    run(meta.purge_session("alice", S1))
                except StoreUnavailable:
                    deaths += 1
            now = left_of(mongod, database, S1)
            assert sum(now.values()) < sum(left.values())
            if now:
                assert [each.id for each in run(meta.deleted_sessions("9", 10))] == [S1]
                assert run(meta.mark_deleted("alice", S1, None)) is False
                assert run(meta.session("alice", S1)) is None
                assert run(meta.append(S1, ONE, [], summary={})) is False
                other = run(meta.make_session("alice", "work", "run", S2, THEN))
                assert (other.id, other.origins) == (S2, {})
        assert deaths > 8
        assert run(meta.deleted_sessions("9", 10)) == []
        assert run(meta.session("alice", S2)) is not None

    @pytest.mark.parametrize("log", ["is new", "grows", "stays as it is"])
    @pytest.mark.parametrize("command", ["update", "commitTransaction"])
    def test_an_append_that_is_under_way_leaves_nothing(
        self, run: Run, mongod: Mongod, meta: MongoMeta, another: MongoMeta, database: str, command: str, log: str
    ) -> None:
        """Before its first write it meets the deletion; before its commit it is waited for."""
        run(meta.make_session("alice", "work", "run", S1, THEN))
        first = append(LOSS, Head(), b"0\n")
        if log != "is new":
            assert run(meta.append(S1, ONE, [first]))
            first = append(LOSS, first.after, b"1\n")
        if log == "stays as it is":
            first = Append(LOSS, first.before, first.before, ())

        async def race(has_begun: Callable[[], bool]) -> bool:
            new = append("new", Head(), b"0\n")
            under_way = asyncio.ensure_future(meta.append(S1, ONE, [first, new], summary={}, blobs=["a" * 64]))
            assert await asyncio.to_thread(has_begun)
            assert await another.mark_deleted("alice", S1, THEN)
            await another.purge_session("alice", S1)
            return await under_way

        with mongod.fail(command, mode=ONCE, blockConnection=True, blockTimeMS=1000) as has_begun:
            assert run(race(has_begun)) is (command == "commitTransaction")
        assert left_of(mongod, database, S1) == {}


class Writer:
    """Appends to a log of its own, and asks what became of it whenever the store does not say."""

    def __init__(self, number: int) -> None:
        self.log, self.head = f"log {number}", Head()
        self.written: list[bytes] = []
        self.acked = self.unknown = 0

    async def write(self, meta: MongoMeta, is_over: threading.Event) -> None:
        while not is_over.is_set():
            data = b"%d\n" % len(self.written)
            more = append(self.log, self.head, data)
            try:
                assert await meta.append(S1, ONE, [more]), "nobody else writes this log"
                self.acked += 1
            except StoreUnavailable:
                self.unknown += 1
                head = await self._head(meta)
                assert head in (more.before, more.after)
                if head == more.before:
                    continue
            self.head = more.after
            self.written.append(data)

    async def _head(self, meta: MongoMeta) -> Head:
        deadline = time.monotonic() + BACK_SECONDS
        while True:
            try:
                return (await meta.heads(S1, origin=ONE, logs=[self.log])).get((ONE, self.log), Head())
            except StoreUnavailable:
                if time.monotonic() > deadline:
                    raise


def test_a_killed_server_has_kept_what_it_said_once(run: Run, nobody_left_behind: None) -> None:
    """Eight write, each a log of its own, while the server is killed and comes again."""
    writers = [Writer(number) for number in range(WRITERS)]
    is_over = threading.Event()
    failures: list[BaseException] = []

    async def write(store: MongoMeta) -> None:
        await store.open()
        writes = [asyncio.ensure_future(writer.write(store, is_over)) for writer in writers]
        try:
            await asyncio.gather(*writes)
        finally:
            is_over.set()  # one that failed ends the others
            await asyncio.gather(*writes, return_exceptions=True)
            await store.close()

    def in_a_thread(store: MongoMeta) -> None:
        try:
            asyncio.run(write(store))
        except BaseException as error:
            failures.append(error)

    def wait_for_more() -> None:
        goal = sum(writer.acked for writer in writers) + APPENDS_BETWEEN
        wait_for(lambda: failures or sum(writer.acked for writer in writers) >= goal)

    with mongodb_server.mongod() as server, opened(run, MongoMeta(server.uri)) as meta:
        run(meta.make_session("alice", "work", "run", S1, THEN))
        writing = threading.Thread(target=in_a_thread, args=(MongoMeta(server.uri),))
        writing.start()
        try:
            for _ in range(KILLS):
                wait_for_more()
                server.kill()
                server.start()
            wait_for_more()
        finally:
            is_over.set()
            writing.join()
        assert not failures, failures
        wait_for(lambda: run(_answers(meta.ping)))
        heads = run(meta.heads(S1))
        for writer in writers:
            found = run(meta.segments(S1, ONE, writer.log, 0, 100_000))
            assert [each.data for each in found] == writer.written
            assert chain(found) == heads[ONE, writer.log] == writer.head


async def _answers(call: Callable[[], Awaitable[None]]) -> bool:
    try:
        await call()
    except StoreUnavailable:
        return False
    return True
