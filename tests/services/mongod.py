"""A real MongoDB: one node that is a replica set, as transactions and majority writes ask for one.

It can be told to fail (``fail``): MongoDB's own drivers are tested with that.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

from tests.services import install, ports
from tests.services.server import Server

SET = "rs0"
ALREADY_INITIALIZED = 23
WAIT_SECONDS = 20

Document = dict[str, Any]


class Mongod(Server):
    def __init__(self, folder: Path, port: int, *, standalone: bool) -> None:
        self._port, self._standalone = port, standalone
        self._direct = f"mongodb://{ports.LOOPBACK}:{port}/?directConnection=true"
        self.uri = self._direct if standalone else f"mongodb://{ports.LOOPBACK}:{port}/?replicaSet={SET}"
        data = folder / "data"
        data.mkdir()
        command = [str(install.program("mongod")), f"--dbpath={data}", f"--bind_ip={ports.LOOPBACK}", f"--port={port}"]
        command += ["--nounixsocket", "--oplogSize=128", "--wiredTigerCacheSizeGB=0.25", "--enableFreeMonitoring=off"]
        command += ["--setParameter=diagnosticDataCollectionEnabled=false", "--setParameter=enableTestCommands=1"]
        command += [] if standalone else [f"--replSet={SET}"]
        super().__init__(command, folder / "mongod.log", self._is_writable)

    def _is_writable(self) -> bool:
        member = {"_id": 0, "host": f"{ports.LOOPBACK}:{self._port}"}
        try:
            with pymongo.MongoClient[Document](self._direct, serverSelectionTimeoutMS=500) as client:
                hello = client.admin.command("hello")
                if not self._standalone and "setName" not in hello:
                    client.admin.command("replSetInitiate", {"_id": SET, "members": [member]})
                return bool(hello["isWritablePrimary"])
        except OperationFailure as error:
            # After a restart it says for a moment that it belongs to no set.
            if error.code == ALREADY_INITIALIZED:
                return False
            raise
        except PyMongoError:
            return False

    @contextlib.contextmanager
    def fail(self, *commands: str, mode: Document, **how: Any) -> Iterator[Callable[[], bool]]:
        """Let these commands fail as ``how`` says (MongoDB's ``failCommand``), so often as ``mode`` says. What it gives
        tells whether that has begun."""
        with pymongo.MongoClient[Document](self._direct) as client:

            def configure(mode: object, **data: object) -> int:
                answer = client.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)
                return int(answer["count"])

            before = configure("off")
            configure(mode, failCommands=list(commands), **how)
            wait = {"waitForFailPoint": "failCommand", "timesEntered": before + 1, "maxTimeMS": WAIT_SECONDS * 1000}
            try:
                yield lambda: client.admin.command(wait)["ok"] == 1
            finally:
                configure("off")


@contextlib.contextmanager
def mongod(*, standalone: bool = False) -> Iterator[Mongod]:
    with tempfile.TemporaryDirectory(prefix="dreamlake-mongod-") as folder, ports.block() as free:
        server = Mongod(Path(folder), free[0], standalone=standalone)
        try:
            server.start()
            yield server
        finally:
            server.kill()
