"""Meta and Tokens on a real MongoDB: the suites, and what only this store can do wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Iterator

import pymongo
import pytest

from dreamlake_server.stores import StoreUnavailable, mongodb, mongodb_connection
from dreamlake_server.stores.meta import Head
from dreamlake_server.stores.mongodb import MongoMeta
from dreamlake_server.stores.mongodb_connection import Connection
from dreamlake_server.stores.mongodb_tokens import MongoTokens
from dreamlake_server.stores.tokens import Token
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

WRITERS = 8
KILLS = 3
APPENDS_BETWEEN = 80
ONCE = {"times": 1}


@pytest.fixture
def database(mongod: Mongod) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex}"
    yield name
    with pymongo.MongoClient[dict[str, object]](mongod.uri) as client:
        client.drop_database(name)


@pytest.fixture
def open_meta(run: Run, mongod: Mongod, database: str) -> Iterator[Callable[[], MongoMeta]]:
    stores: list[MongoMeta] = []

    def opened() -> MongoMeta:
        stores.append(MongoMeta(mongod.uri, database))
        run(stores[-1].open())
        return stores[-1]

    yield opened
    for store in stores:
        run(store.close())


@pytest.fixture
def meta(open_meta: Callable[[], MongoMeta]) -> MongoMeta:
    return open_meta()


@pytest.fixture
def another(meta: MongoMeta, open_meta: Callable[[], MongoMeta]) -> MongoMeta:
    return open_meta()


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
        store = MongoTokens(mongod.uri, database)
        run(store.open())
        yield store
        run(store.close())

    @pytest.fixture
    def another(self, run: Run, tokens: MongoTokens, mongod: Mongod, database: str) -> Iterator[MongoTokens]:
        store = MongoTokens(mongod.uri, database)
        run(store.open())
        yield store
        run(store.close())

    def test_a_token_may_be_added_again_but_not_replaced(self, run: Run, tokens: MongoTokens) -> None:
        token = Token("0123456789ab", "alice", "a" * 64, False, THEN)
        run(tokens.add(token))
        run(tokens.add(token))
        with pytest.raises(StoreUnavailable, match="another token with the id 0123456789ab"):
            run(tokens.add(Token("0123456789ab", "bob", "b" * 64, False, THEN)))
        assert run(tokens.of(None)) == [token]


class TestOpening:
    def test_a_standalone_server_is_refused_with_what_to_do(self, run: Run, nobody_left_behind: None) -> None:
        with mongodb_server.mongod(standalone=True) as server:
            for store in (MongoMeta(server.uri), MongoTokens(server.uri)):
                with pytest.raises(StoreUnavailable, match=r"standalone.*start mongod with --replSet"):
                    run(store.open())

    def test_a_server_that_is_not_there(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mongodb_connection, "FIND_SECONDS", 0.3)
        with ports.block() as free, pytest.raises(StoreUnavailable, match=f"127.0.0.1:{free[0]}.*refused"):
            run(MongoMeta(f"mongodb://127.0.0.1:{free[0]}").open())

    @pytest.mark.parametrize(
        "userinfo",
        ["user:sEcret@sEcret", "user:sEcret:sEcret", "user:sEcret/sEcret", "user:sEcret%", "user:sEcret", "sEcret:x"],
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
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="MongoDB cannot be used"):
                run(meta.ping())
            assert time.monotonic() - began < 5
        finally:
            os.kill(mongod.pid, signal.SIGCONT)
        wait_for(lambda: run(_answers(meta.ping)))

    def test_an_append_while_the_server_is_gone_is_not_tried_for_ever(
        self, run: Run, mongod: Mongod, open_meta: Callable[[], MongoMeta], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mongodb_connection, "FIND_SECONDS", 0.3)
        meta = open_meta()
        run(meta.make_session("alice", "work", "run", S1, THEN))
        mongod.kill()
        try:
            began = time.monotonic()
            for call in (meta.append(S1, ONE, [append(LOSS, Head(), b"row\n")]), meta.heads(S1), meta.ping()):
                with pytest.raises(StoreUnavailable, match="MongoDB cannot be used"):
                    run(call)
            assert time.monotonic() - began < 10
        finally:
            mongod.start()
        assert run(meta.append(S1, ONE, [append(LOSS, Head(), b"row\n")]))

    def test_what_was_written_is_in_no_message(self, run: Run, mongod: Mongod, meta: MongoMeta) -> None:
        run(meta.make_session("alice", "work", "run", S1, THEN))
        with mongod.fail("update", "insert", mode=ONCE, errorCode=8000):
            with pytest.raises(StoreUnavailable) as caught:
                run(meta.append(S1, ONE, [append("sEcret", Head(), b"sEcret")], summary={"sEcret": 1}))
        assert "sEcret" not in str(caught.value)
        assert run(meta.heads(S1)) == {}


class TestCommit:
    """A commit of which no answer comes, one that is refused, one that has to wait."""

    @pytest.mark.parametrize(
        "how",
        [
            {"closeConnection": True},  # before it was done
            {"writeConcernError": {"code": 91, "errmsg": "shutting down"}},  # after it was done
            {"errorCode": 251, "errorLabels": ["TransientTransactionError"]},  # all of it must be done anew
        ],
    )
    @pytest.mark.parametrize("command", ["commitTransaction", "update"])
    def test_it_is_done_once(
        self, run: Run, mongod: Mongod, meta: MongoMeta, command: str, how: dict[str, object]
    ) -> None:
        run(meta.make_session("alice", "work", "run", S1, THEN))
        last = append(LOSS, Head(), b"0\n")
        assert run(meta.append(S1, ONE, [last]))
        if command == "update" and "writeConcernError" in how:
            pytest.skip("a statement in a transaction has no write concern")
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
        run(connection.open())
        answers = [True, False]

        async def attempt(_: object) -> bool:
            await connection.collection("any").insert_one({}, session=_)  # type: ignore[arg-type]
            return answers.pop(0)

        how = {"errorCode": 251, "errorLabels": ["TransientTransactionError"]}
        with mongod.fail("commitTransaction", mode=ONCE, **how):
            with pytest.raises(StoreUnavailable, match="did not say whether"):
                run(connection.transaction(attempt))
        assert answers == []
        run(connection.close())


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

    @pytest.mark.parametrize("is_new", [True, False])
    @pytest.mark.parametrize("command", ["update", "commitTransaction"])
    def test_an_append_that_is_under_way_leaves_nothing(
        self, run: Run, mongod: Mongod, meta: MongoMeta, another: MongoMeta, database: str, command: str, is_new: bool
    ) -> None:
        """Before its first write it meets the deletion; before its commit it is waited for."""
        run(meta.make_session("alice", "work", "run", S1, THEN))
        first = append(LOSS, Head(), b"0\n")
        if not is_new:
            assert run(meta.append(S1, ONE, [first]))
            first = append(LOSS, first.after, b"1\n")

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
        while True:
            try:
                return (await meta.heads(S1, origin=ONE, logs=[self.log])).get((ONE, self.log), Head())
            except StoreUnavailable:
                continue


def test_a_killed_server_has_kept_what_it_said_once(
    run: Run, mongod: Mongod, open_meta: Callable[[], MongoMeta], database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(open_meta().make_session("alice", "work", "run", S1, THEN))
    writers = [Writer(number) for number in range(WRITERS)]
    is_over = threading.Event()
    failures: list[BaseException] = []

    async def write() -> None:
        meta = MongoMeta(mongod.uri, database)
        await meta.open()
        try:
            await asyncio.gather(*(writer.write(meta, is_over) for writer in writers))
        finally:
            await meta.close()

    def thread() -> None:
        try:
            asyncio.run(write())
        except BaseException as error:
            failures.append(error)

    writing = threading.Thread(target=thread)
    writing.start()
    try:
        for kill in range(1, KILLS + 1):
            wait_for(lambda: failures or sum(each.acked for each in writers) > kill * APPENDS_BETWEEN)  # noqa: B023
            mongod.kill()
            mongod.start()
        wait_for(lambda: failures or sum(each.acked for each in writers) > (KILLS + 1) * APPENDS_BETWEEN)
    finally:
        is_over.set()
        writing.join()
    assert not failures, failures
    meta = open_meta()
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
