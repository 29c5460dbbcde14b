"""Tokens on MongoDB: one document for each, under its id."""

from __future__ import annotations

from typing import Any

from pymongo import ASCENDING, IndexModel
from pymongo.errors import DuplicateKeyError

from dreamlake_server.stores.mongodb_connection import Collection, Connection, Document, asked
from dreamlake_server.stores.tokens import Token


class MongoTokens:
    def __init__(self, uri: str, database: str = "dreamlake") -> None:
        self._connection = Connection(uri, database)

    async def open(self) -> None:
        await self._connection.open()
        try:
            with asked():
                await self._tokens.create_indexes([IndexModel([("user", ASCENDING), ("created", ASCENDING)])])
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._connection.close()

    @property
    def _tokens(self) -> Collection:
        return self._connection.collection("tokens")

    async def add(self, token: Token) -> None:
        document = {"_id": token.id, **vars(token)}
        del document["id"]
        with asked():
            try:
                await self._tokens.insert_one(document)
                return
            except DuplicateKeyError:
                pass
        # It may be this one: added before, but the answer got lost.
        there = await self.find(token.id)
        if there is None or there.sha256 != token.sha256:
            raise ValueError(f"there is another token {token.id}: make a new one")

    async def find(self, token_id: str) -> Token | None:
        with asked():
            found = await self._tokens.find_one({"_id": token_id})
        return _token(found) if found else None

    async def of(self, user: str | None) -> list[Token]:
        which: dict[str, Any] = {} if user is None else {"user": user}
        with asked():
            return [_token(each) async for each in self._tokens.find(which).sort([("created", 1), ("_id", 1)])]

    async def revoke(self, token_id: str, when: str) -> bool:
        with asked():
            done = await self._tokens.update_one({"_id": token_id, "revoked": None}, {"$set": {"revoked": when}})
        return done.matched_count == 1 or await self.find(token_id) is not None


def _token(found: Document) -> Token:
    return Token(id=found.pop("_id"), **found)
