"""Meta on MongoDB (5.0 or later, a replica set): seven collections, and one transaction for each append.

=============  =====================================================  ==============================
collection     one document for each                                  unique
=============  =====================================================  ==============================
``sessions``   session; ``_id`` is its id                             owner, workspace, name
``origins``    origin of a session that gave a summary (JSON text)    session, origin
``heads``      log of an origin that has records                      session, origin, log
``segments``   segment                                                session, origin, log, first
``references`` blob that a session refers to                          owner, sha256, session
``blobs``      blob                                                   owner, sha256
``pings``      one, which health counts up
=============  =====================================================  ==============================

Names are values everywhere, never names of fields. The largest document is a segment: a record of
``limits.RECORD_BYTES`` at most, which is half of MongoDB's 16 MB.

A session that is being purged is gone for everybody but the purge.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from pymongo import ASCENDING, DESCENDING, IndexModel, InsertOne, ReplaceOne, ReturnDocument, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession

from dreamlake.wire import jsons
from dreamlake_server.stores.meta import Append, Blob, Head, Segment, Session
from dreamlake_server.stores.mongodb_connection import (
    PING_SECONDS,
    Collection,
    Connection,
    Document,
    asked,
    upserted,
    within,
)

NAMED_AT_ONCE = 1000  # names in one question: 1 MB of the 16 that it may have
PURGED_AT_ONCE = 200  # documents: 200 MB of segments

Noun = TypeVar("Noun", Head, Segment, Blob)
LIVE = {"purging": False}


def _index(*fields: str, unique: bool = False, **options: Any) -> IndexModel:
    return IndexModel([(field, ASCENDING) for field in fields], unique=unique, **options)


INDEXES = {
    "sessions": [
        _index("owner", "workspace", "name", unique=True, partialFilterExpression=LIVE),
        _index("owner", "deleted", "created", "_id"),
        _index("owner", "workspace", "deleted", "created", "_id"),
        _index("deleted", "_id"),
    ],
    "origins": [_index("session", "origin", unique=True)],
    "heads": [_index("session", "origin", "log", unique=True)],
    "segments": [_index("session", "origin", "log", "first", unique=True)],
    "references": [_index("owner", "sha256", "session", unique=True), _index("session")],
    "blobs": [_index("owner", "sha256", unique=True)],
}
# In this order: an append of before the deletion that is still under way has written a head or the session, so it is
# waited for, or fails; and what it leaves in the other collections is purged after it.
PURGED = ("heads", "segments", "origins", "references")


class MongoMeta:
    kind = "mongodb"

    def __init__(self, uri: str, database: str = "dreamlake") -> None:
        self._connection = Connection(uri, database)

    async def open(self) -> None:
        await self._connection.open()
        try:
            self._sessions, self._origins, self._heads, self._segments, self._references, self._blobs = (
                self._connection.collection(name) for name in INDEXES
            )
            for name, indexes in INDEXES.items():
                with asked():
                    await self._connection.collection(name).create_indexes(indexes)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._connection.close()

    async def ping(self) -> None:
        await self._connection.ping()
        # And a write: a full disk says nothing to a question.
        pinged = self._connection.collection("pings").update_one({"_id": 0}, {"$inc": {"count": 1}}, upsert=True)
        with asked():
            await within(pinged, PING_SECONDS)

    # ── sessions ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def make_session(self, owner: str, workspace: str, name: str, session_id: str, created: str) -> Session:
        # Every push asks, and an upsert that changes nothing waits for the disk all the same.
        if found := await self.find_session(owner, workspace, name):
            return found
        which = {"owner": owner, "workspace": workspace, "name": name, **LIVE}
        made = {"$setOnInsert": {"_id": session_id, "created": created, "deleted": None}}

        async def upsert() -> Document:
            found = await self._sessions.find_one_and_update(
                which, made, upsert=True, return_document=ReturnDocument.AFTER
            )
            assert found is not None  # it was made, if it was not there
            return found

        with asked():
            return (await self._with_origins([await upserted(upsert)]))[0]

    async def find_session(self, owner: str, workspace: str, name: str) -> Session | None:
        return await self._one({"owner": owner, "workspace": workspace, "name": name, **LIVE})

    async def session(self, owner: str, session_id: str) -> Session | None:
        return await self._one({"_id": session_id, "owner": owner, **LIVE})

    async def sessions(
        self, owner: str, workspace: str | None, after: tuple[str, str] | None, limit: int
    ) -> list[Session]:
        which: Document = {"owner": owner, "deleted": None}
        if workspace is not None:
            which["workspace"] = workspace
        if after is not None:
            created, last = after
            # The first condition says nothing more than the second, but it is one that an index can begin at.
            which["created"] = {"$lte": created}
            which["$or"] = [{"created": {"$lt": created}}, {"_id": {"$lt": last}}]
        newest_first = [("created", DESCENDING), ("_id", DESCENDING)]
        with asked():
            found = await self._sessions.find(which).sort(newest_first).limit(limit).to_list()
            return await self._with_origins(found)

    async def mark_deleted(self, owner: str, session_id: str, when: str | None) -> bool:
        with asked():
            done = await self._sessions.update_one(
                {"_id": session_id, "owner": owner, **LIVE}, {"$set": {"deleted": when}}
            )
        return done.matched_count == 1

    async def deleted_sessions(self, before: str, limit: int) -> list[Session]:
        oldest_first = [("deleted", ASCENDING), ("_id", ASCENDING)]
        with asked():
            found = await self._sessions.find({"deleted": {"$lt": before}}).sort(oldest_first).limit(limit).to_list()
            return await self._with_origins(found)

    async def begin_purge(self, owner: str, session_id: str) -> bool:
        with asked():
            # A purge that died is one that begins anew.
            purging = await self._sessions.update_one(
                {"_id": session_id, "owner": owner, "deleted": {"$ne": None}}, {"$set": {"purging": True}}
            )
        return purging.matched_count > 0

    async def purge_session(self, owner: str, session_id: str) -> None:
        if not await self.begin_purge(owner, session_id):
            return
        for name in PURGED:
            while await self._purge_some(self._connection.collection(name), session_id):
                pass
        with asked():
            await self._sessions.delete_one({"_id": session_id, "purging": True})

    async def _purge_some(self, collection: Collection, session_id: str) -> bool:
        """Delete a bounded number of documents; False when there were none."""
        with asked():
            some = await collection.find({"session": session_id}, {"_id": 1}).limit(PURGED_AT_ONCE).to_list()
            if some:
                await collection.delete_many({"_id": {"$in": [each["_id"] for each in some]}})
        return bool(some)

    async def _one(self, which: Document) -> Session | None:
        with asked():
            found = await self._sessions.find_one(which)
            return (await self._with_origins([found]))[0] if found else None

    async def _with_origins(self, found: list[Document]) -> list[Session]:
        origins: dict[str, dict[str, Any]] = {each["_id"]: {} for each in found}
        async for each in self._origins.find({"session": {"$in": list(origins)}}):
            origins[each["session"]][each["origin"]] = jsons.loads(each["summary"])
        names = ("owner", "workspace", "name", "created", "deleted")
        return [
            Session(id=each["_id"], **{name: each[name] for name in names}, origins=origins[each["_id"]])
            for each in found
        ]

    # ── logs ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def heads(
        self, session_id: str, *, origin: str | None = None, logs: Sequence[str] | None = None
    ) -> dict[tuple[str, str], Head]:
        with asked():
            return {key: head async for key, head in self._heads_of(session_id, origin, logs)}

    async def _heads_of(
        self, session_id: str, origin: str | None, logs: Sequence[str] | None, at: AsyncClientSession | None = None
    ) -> AsyncIterator[tuple[tuple[str, str], Head]]:
        which: Document = {"session": session_id} if origin is None else {"session": session_id, "origin": origin}
        for some in [None] if logs is None else _some(logs):
            chosen = which if some is None else {**which, "log": {"$in": some}}
            async for each in self._heads.find(chosen, session=at):
                yield (each["origin"], each["log"]), _read(Head, each)

    async def append(
        self,
        session_id: str,
        origin: str,
        appends: Sequence[Append],
        *,
        summary: dict[str, Any] | None = None,
        blobs: Sequence[str] = (),
    ) -> bool:
        key = {"session": session_id, "origin": origin}
        segments = [
            ReplaceOne(
                {**key, "log": each.log, "first": segment.first}, {**key, "log": each.log, **vars(segment)}, upsert=True
            )
            for each in appends
            for segment in each.segments
        ]
        origins = []
        if summary is not None:
            origins = [ReplaceOne(key, {**key, "summary": jsons.encode(summary).decode()}, upsert=True)]

        async def attempt(at: AsyncClientSession) -> bool:
            session = await self._sessions.find_one({"_id": session_id, "deleted": None}, {"owner": 1}, session=at)
            if session is None:
                return False
            logs = [each.log for each in appends]
            heads = {log: head async for (_, log), head in self._heads_of(session_id, origin, logs, at)}
            if any(heads.get(each.log, Head()) != each.before for each in appends):
                return False
            if not heads:
                # A transaction sees no deletion that came after its beginning, unless both write the same document.
                # Heads that are there are such; else it is the session's.
                await self._sessions.update_one({"_id": session_id}, {"$inc": {"turn": 1}}, session=at)
            new = [each for each in appends if each.log not in heads and each.after != Head()]
            for collection, writes in (
                (self._heads, [InsertOne({**key, "log": each.log, **vars(each.after)}) for each in new]),
                (self._heads, [_moved(key, each) for each in appends if each.log in heads]),
                (self._segments, segments),
                (self._origins, origins),
                (self._references, [_referred(session["owner"], session_id, sha256) for sha256 in set(blobs)]),
            ):
                if writes:
                    await collection.bulk_write(writes, session=at)
            return True

        return await self._connection.transaction(attempt)

    async def segments(self, session_id: str, origin: str, log: str, first: int, limit: int) -> list[Segment]:
        which: Document = {"session": session_id, "origin": origin, "log": log}
        bounds = {"first": 1, "count": 1}
        with asked():
            begun = await self._segments.find_one(
                {**which, "first": {"$lte": first}}, bounds, sort=[("first", DESCENDING)]
            )
            if begun is not None and begun["first"] + begun["count"] > first:
                first = begun["first"]
            found = self._segments.find({**which, "first": {"$gte": first}}).sort("first", ASCENDING).limit(limit)
            return [_read(Segment, each) async for each in found]

    # ── blobs ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def blob(self, owner: str, sha256: str) -> Blob | None:
        return (await self.blobs(owner, [sha256])).get(sha256)

    async def blobs(self, owner: str, sha256s: Sequence[str]) -> dict[str, Blob]:
        with asked():
            return {
                each["sha256"]: _read(Blob, each)
                for some in _some(sha256s)
                async for each in self._blobs.find({"owner": owner, "sha256": {"$in": some}})
            }

    async def put_blob(self, blob: Blob) -> None:
        which = {"owner": blob.owner, "sha256": blob.sha256}
        with asked():
            await upserted(lambda: self._blobs.update_one(which, {"$setOnInsert": vars(blob)}, upsert=True))

    async def drop_blob(self, owner: str, sha256: str) -> None:
        with asked():
            await self._blobs.delete_one({"owner": owner, "sha256": sha256})

    async def blobs_only_of(self, owner: str, session_id: str) -> list[str]:
        # One other reference is enough to know, however many there are.
        other = [{"$match": {"owner": owner, "session": {"$ne": session_id}}}, {"$limit": 1}]
        stages: list[Document] = [
            {"$match": {"owner": owner, "session": session_id}},
            {
                "$lookup": {
                    "from": "references",
                    "localField": "sha256",
                    "foreignField": "sha256",
                    "pipeline": other,
                    "as": "other",
                }
            },
            {"$match": {"other": []}},
        ]
        with asked():
            return [each["sha256"] async for each in await self._references.aggregate(stages)]


def _moved(key: Document, append: Append) -> UpdateOne:
    """A head that stays as it is is written too, so that whoever writes it at the same time is noticed."""
    return UpdateOne({**key, "log": append.log}, {"$set": vars(append.after), "$inc": {"turn": 1}})


def _referred(owner: str, session_id: str, sha256: str) -> ReplaceOne[Document]:
    reference = {"owner": owner, "sha256": sha256, "session": session_id}
    return ReplaceOne(reference, reference, upsert=True)


def _read(kind: type[Noun], document: Document) -> Noun:
    """A field that came after a document was written has its default."""
    return kind(**{each.name: document[each.name] for each in fields(kind) if each.name in document})


def _some(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), NAMED_AT_ONCE):
        yield names[start : start + NAMED_AT_ONCE]
