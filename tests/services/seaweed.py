"""A real S3 store: SeaweedFS, with every part of it in one process."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import hmac
import json
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.services import install, ports
from tests.services.server import Server

REGION = "us-east-1"
ACCESS_KEY, SECRET_KEY = "testak", "testsecret123"
REQUEST_SECONDS = 20
PARTS = ("master", "volume", "filer", "s3", "admin")


class S3(Server):
    """Where it is and how to speak to it; addressed by path (``endpoint/bucket/key``)."""

    def __init__(self, folder: Path, free: list[int]) -> None:
        self.access_key, self.secret_key, self.region = ACCESS_KEY, SECRET_KEY, REGION
        credentials = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identities = [{"name": "admin", "credentials": [credentials], "actions": actions}]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}), encoding="utf-8")
        (folder / "data").mkdir()
        command = [str(install.program("weed")), "mini", f"-dir={folder / 'data'}", f"-s3.config={folder / 's3.json'}"]
        command += [f"-ip={ports.LOOPBACK}", f"-ip.bind={ports.LOOPBACK}", "-webdav=false", "-admin.ui=false"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
        # Unless it is told, a part speaks gRPC at its port + 10000.
        for part, http, grpc in zip(PARTS, free[::2], free[1::2], strict=False):
            command += [f"-{part}.port={http}", f"-{part}.port.grpc={grpc}"]
        self.endpoint = f"http://{ports.LOOPBACK}:{free[2 * PARTS.index('s3')]}"
        super().__init__(command, folder / "weed.log", self._is_writable)

    def _is_writable(self) -> bool:
        """Whether all of its parts have found each other, which only a write shows."""
        try:
            self.make_bucket("is-writable")
            self.request("PUT", "/is-writable/object", b"1")
            self.request("DELETE", "/is-writable/object")
            self.request("DELETE", "/is-writable")
        except urllib.error.URLError:
            return False
        return True

    def make_bucket(self, name: str) -> None:
        """Nothing, when it is there already."""
        try:
            self.request("PUT", f"/{name}")
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """One signed request (AWS Signature Version 4) without a query. Raises :class:`urllib.error.URLError`."""
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        day, path = now[:8], urllib.parse.quote(path)
        headers = {
            "host": urllib.parse.urlsplit(self.endpoint).netloc,
            "x-amz-content-sha256": hashlib.sha256(body).hexdigest(),
            "x-amz-date": now,
        }
        names = ";".join(headers)
        lines = [method, path, "", *(f"{name}:{value}" for name, value in headers.items()), "", names]
        request = "\n".join([*lines, headers["x-amz-content-sha256"]])
        scope = f"{day}/{self.region}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(request.encode()).hexdigest()])
        key = f"AWS4{self.secret_key}".encode()
        for word in scope.split("/"):
            key = hmac.digest(key, word.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        asked = urllib.request.Request(self.endpoint + path, body or None, headers, method=method)
        with urllib.request.urlopen(asked, timeout=REQUEST_SECONDS) as answer:
            return answer.read()


@contextlib.contextmanager
def s3() -> Iterator[S3]:
    with tempfile.TemporaryDirectory(prefix="dreamlake-s3-") as folder, ports.block() as free:
        server = S3(Path(folder), free)
        try:
            server.start()
            yield server
        finally:
            server.kill()
            # Its parts listen there, too, named by their gRPC ports, and a killed one leaves them.
            for port in free:
                for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                    left.unlink(missing_ok=True)
