"""Spools: journals on node-local disk (``DREAMLAKE_SPOOL``), seen as if they stood in their session directory.

A client that spools leaves a marker in the directory, ``journals/<client>.spool``: one line of JSON::

    {"v": 1, "host": "node1", "path": "/local/scratch/dreamlake-1000", "ino": 1234}

``path`` is the spool's folder, ``ino`` its inode; below it is ``.dreamlake/journals/<client>.<n>`` as in a directory.
The header of a spooled segment says of which directory it is (``by["of"]``).

A marker stands where others may write, so nothing is done for its sake but to segments of that very client, in a folder
called ``dreamlake-UID`` that is ours alone, whose header names this directory: not the one that this is a copy of.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import re
from collections.abc import Callable, Iterable
from typing import Any

from dreamlake import config
from dreamlake.reader.segments import JOURNALS, begun_of, read_segment
from dreamlake.wire import jsons
from dreamlake.wire.digest import sha256_hex
from dreamlake.world import processes
from dreamlake.world.disk import CREATE, READ, Disk, Stat, read_file, sync_folder

VERSION = 1
MARKER = ".spool"
SPOOL = ".dreamlake/spool"  # stands in a spool: it has journals/ as a session directory has, and is none
MARKER_BYTES_MAX = 8192
# What a disk answers for a marker that is gone, or for what somebody put in its place: a link, a pipe, a folder.
_NONE_OF_OURS = {errno.ENOENT, errno.ELOOP, errno.EINVAL, errno.ESPIPE, errno.ENXIO, errno.EISDIR, errno.EFBIG}
# And for a folder that cannot be had. Anything else is trouble: what cannot be read now is not away.
_NOT_HERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EPERM, errno.EACCES, errno.ENAMETOOLONG, errno.ENODEV}
_LOOKS_MAX = 3  # at journals/ while clients come and go
_MARKER = re.compile(r"[0-9a-f]{32}\.spool\Z")
# What of a client's is in its spool.
_SPOOLED = re.compile(r"([0-9a-f]{32})\.(?:(?:0|[1-9][0-9]{0,11})(?:\.new)?|sync)\Z")


class NoMarker(ValueError):
    """What stands in a marker's place is none."""


@dataclasses.dataclass(frozen=True)
class Marker:
    """Where a client's journal is."""

    host: str
    path: str
    ino: int


@dataclasses.dataclass(frozen=True)
class Away:
    """A marker whose journal is not seen from here, and why."""

    marker: Marker
    why: str
    is_copied: bool = False  # the journal is another directory's: this one is a copy of it

    @property
    def sentence(self) -> str:
        return f"a journal is in {self.marker.path} on {self.marker.host} and is not seen from here ({self.why})"


def is_marker(name: str) -> bool:
    """Whether a file in ``journals/`` is called as a marker is, or as one that is being made."""
    begun = begun_of(name)
    return _MARKER.match(begun[0] if begun else name) is not None


def marker_path(client: bytes) -> str:
    return f"{JOURNALS}/{client.hex()}{MARKER}"


def encode_marker(marker: Marker) -> bytes:
    return jsons.encode({"v": VERSION, **dataclasses.asdict(marker)}) + b"\n"


def decode_marker(data: bytes) -> Marker:
    """Raises :class:`NoMarker`."""
    try:
        found = jsons.loads(data)
        version, marker = found["v"], Marker(found["host"], found["path"], found["ino"])
        str(marker.path).encode()
    except (ValueError, TypeError, KeyError):
        raise NoMarker("it is no marker of a journal") from None
    if version != VERSION:
        raise NoMarker(f"it is of version {version!r}")
    if not isinstance(marker.host, str) or not isinstance(marker.path, str) or type(marker.ino) is not int:
        raise NoMarker("it is no marker of a journal")
    if not os.path.isabs(marker.path) or "\0" in marker.path:
        raise NoMarker("it names no folder")
    return marker


def marked(disk: Disk, at: int) -> set[bytes]:
    """The clients that have a marker in the directory, whether their journals are seen from here or not."""
    return {bytes.fromhex(name[:32]) for name in disk.listdir(JOURNALS, at) if _MARKER.match(name)}


def is_spool(disk: Disk, at: int) -> bool:
    """Whether a folder has the journals of other directories: nobody may take it for a session's and apply them
    there."""
    folder, _, name = SPOOL.partition("/")
    return name in disk.listdir(folder, at)


def binding(found: Stat, path: str) -> list[Any]:
    """What a spooled segment says of its directory. A device's number may change at a boot, and a path when the
    directory is moved; a copy has another inode."""
    return [found.dev, found.ino, sha256_hex(os.fsencode(path))[:16]]


class Spooled:
    """A session directory and the spools of its journals as one :class:`~dreamlake.world.disk.Disk`, in which every
    journal that can be seen from here is in ``.dreamlake/journals``.

    It looks for them whenever ``journals/`` is listed. Close it with :meth:`let_go`.
    """

    def __init__(self, disk: Disk, at: int, path: str, host: str | None = None) -> None:
        self._disk, self._at, self._path = disk, at, path
        self._host = host or processes.host()
        self._roots: dict[str, int] = {}  # path → open folder
        self._old: list[int] = []  # of folders that somebody removed; a worker may still be using them
        self._markers: dict[str, Marker | None] = {}  # client → None for what power loss has torn
        self._here: dict[str, int] = {}  # client → the open folder in which its journal is
        self.away: dict[str, Away] = {}
        self.litter: list[str] = []  # markers of which nothing can come any more, as names
        self.root, self.private, self.folder = disk.root, disk.private, disk.folder
        self.mkdirs, self.mkdir, self.rmdir = disk.mkdirs, disk.mkdir, disk.rmdir
        self.close, self.pread, self.write, self.truncate = disk.close, disk.pread, disk.write, disk.truncate
        self.fsync, self.fstat, self.lock, self.rename = disk.fsync, disk.fstat, disk.lock, disk.rename
        self.touch, self.copy, self.write_out = disk.touch, disk.copy, disk.write_out

    # ── as a disk ───────────────────────────────────────────────────────────────────────────────────────────────────

    def open(self, path: str, flags: int, at: int) -> int:
        spool = self._spool_of(path, at)
        if spool is not None:
            try:
                return self._disk.open(path, flags & ~CREATE, spool)
            except FileNotFoundError:
                pass  # it has come home meanwhile (Journal.move)
        return self._disk.open(path, flags, at)

    def stat(self, path: str, at: int) -> Stat:
        spool = self._spool_of(path, at)
        if spool is not None:
            try:
                return self._disk.stat(path, spool)
            except FileNotFoundError:
                pass
        return self._disk.stat(path, at)

    def unlink(self, path: str, at: int) -> None:
        spool = self._spool_of(path, at)
        if spool is None:
            self._disk.unlink(path, at)
            return
        try:
            self._disk.unlink(path, at)  # a copy by a client that died on its way home
        except FileNotFoundError:
            pass
        self._disk.unlink(path, spool)

    def listdir(self, path: str, at: int) -> list[str]:
        names = self._disk.listdir(path, at)
        if at != self._at or path != JOURNALS:
            return names
        return self._look(names) if self._markers or self.litter or any(MARKER in each for each in names) else names

    def _spool_of(self, path: str, at: int) -> int | None:
        if not self._here or at != self._at or not path.startswith(f"{JOURNALS}/"):
            return None
        found = _SPOOLED.match(path, len(JOURNALS) + 1)
        return self._here.get(found[1]) if found else None

    # ── markers ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _look(self, names: list[str]) -> list[str]:
        for _ in range(_LOOKS_MAX):
            found = self._look_once(names)
            if not self.away and not self.litter:
                break
            before, names = names, self._disk.listdir(JOURNALS, self._at)
            if [each for each in names if _MARKER.match(each)] == [each for each in before if _MARKER.match(each)]:
                break  # else one of these has come home while we looked for it in its spool
        return found

    def _look_once(self, names: list[str]) -> list[str]:
        here: dict[str, int] = {}
        away: dict[str, Away] = {}
        litter = [each for each in names if (begun := begun_of(each)) and _MARKER.match(begun[0])]
        spools: dict[int, list[str]] = {}
        self._read(names)
        litter += [f"{client}{MARKER}" for client, marker in self._markers.items() if marker is None]
        for client, marker in self._markers.items():
            if marker is None:
                continue
            root = self._open(marker)
            if isinstance(root, str):
                away[client] = Away(marker, root)
                continue
            if root not in spools:
                spools[root] = self._disk.listdir(JOURNALS, root)
            mine = [each for each in spools[root] if each.startswith(client) and _SPOOLED.match(each)]
            known = self._here.get(client) == root
            of = None if known else self._binding(root, mine)
            if mine and (known or self._is_ours(of)):
                here[client] = root
            elif of is not None:
                away[client] = Away(marker, "it is of the directory that this one was copied from", is_copied=True)
            elif marker.host == self._host and self._disk.fstat(root).ino == marker.ino:
                litter.append(f"{client}{MARKER}")  # that very folder is here, and holds nothing of it any more
            else:
                away[client] = Away(marker, "it is not in the folder of that name that is here")
        self._here, self.away, self.litter = here, away, litter
        hidden = here.keys() | away.keys()
        found = [each for each in names if not (_SPOOLED.match(each) and each[:32] in hidden)]
        for root, spooled in spools.items():
            found += [each for each in spooled if _SPOOLED.match(each) and here.get(each[:32]) == root]
        return sorted(found)

    def _read(self, names: list[str]) -> None:
        """The markers that stand there, each read once."""
        known, self._markers = self._markers, {}
        for name in [each for each in names if _MARKER.match(each)]:
            client = name[:32]
            if client in known:
                self._markers[client] = known[client]
                continue
            try:
                marker = decode_marker(read_file(self._disk, f"{JOURNALS}/{name}", self._at, MARKER_BYTES_MAX))
            except NoMarker:
                self._markers[client] = None
            except OSError as error:
                if error.errno not in _NONE_OF_OURS:
                    raise
            else:
                if os.path.basename(marker.path) == config.spool_name():
                    self._markers[client] = marker

    def _open(self, marker: Marker) -> int | str:
        """The folder that a marker names, or why it cannot be had here."""
        root = self._roots.get(marker.path)
        if root is not None and self._disk.fstat(root).nlink == 0:
            self._old.append(self._roots.pop(marker.path))
            root = None
        if root is None:
            try:
                root = self._roots[marker.path] = self._disk.private(marker.path)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                return error.strerror or "it cannot be opened"
        return root

    def _binding(self, root: int, names: list[str]) -> Any:
        """What a client's segments say of their directory; None where no whole one is left."""
        for name in names:
            segment = read_segment(self._disk, root, name)
            if segment is not None:
                return segment.by.get("of") or ()
        return None

    def _is_ours(self, of: Any) -> bool:
        dev, ino, path = binding(self._disk.fstat(self._at), self._path)
        return isinstance(of, (list, tuple)) and len(of) == 3 and of[1] == ino and (of[0] == dev or of[2] == path)

    # ── for the owner ───────────────────────────────────────────────────────────────────────────────────────────────

    def has(self, client: bytes) -> bool:
        """Whether that client's journal is in a spool that is seen from here, when last looked at."""
        return client.hex() in self._here

    def waits(self) -> bool:
        """Whether a journal may be here another time: its disk is not mounted, say."""
        return any(each.marker.host == self._host and not each.is_copied for each in self.away.values())

    def is_strange(self, name: str) -> bool:
        """Whether something else stands where a marker would: a link, a pipe, or one that names no spool of ours."""
        return name.endswith(MARKER) and name[:32] not in self._markers

    def names_job(self, clients: Iterable[bytes]) -> Callable[[], None]:
        """A job for a worker, after which power loss takes no name of these clients' segments, nor their markers."""
        mine = [(client, self._here[client.hex()]) for client in clients if client.hex() in self._here]
        tops = {root: os.path.dirname(path) for path, root in self._roots.items()}
        disk = self._disk

        def job() -> None:
            for client, _root in mine:
                try:
                    marker = disk.open(marker_path(client), READ, self._at)
                except FileNotFoundError:
                    continue  # it has come home meanwhile, and made sure of that itself
                try:
                    disk.fsync(marker)
                finally:
                    disk.close(marker)
            for root in sorted({root for _client, root in mine}):
                sync_spool(disk, root, tops.get(root))

        return job

    def let_go(self) -> None:
        """Close the spools."""
        for root in (*self._roots.values(), *self._old):
            self._disk.close(root)
        self._roots.clear()
        self._old.clear()
        self._here.clear()

    def __len__(self) -> int:
        """How many folders it has open."""
        return len(self._roots) + len(self._old)


def sync_spool(disk: Disk, root: int, top: str | None) -> None:
    """Make the names of a spool's folders, and of what is in them, survive power loss. ``top``: what it is in."""
    for folder in (JOURNALS, ".dreamlake", "."):
        sync_folder(disk, folder, root)
    try:
        above = disk.root(top) if top else None
    except (PermissionError, FileNotFoundError):
        return  # not ours to read, so not made by us
    if above is not None:
        try:
            disk.fsync(above)
        finally:
            disk.close(above)
