"""What processes see of a disk, what its platter holds, and which states power loss may leave.

Between the two lie, per file, every version of every dirty 512-byte sector and every length since the last
fsync; and, for the whole disk, the changes to folders that no fsync of a folder has covered. Power loss draws

- of a file: each dirty sector as it was, or in any version it went through; its length likewise, or anything
  between. A sector that did not make it reads as zeros or as what was there before.
- of a change to folders (create, unlink, rename): done or undone as a whole, in any subset, but in order for
  each name: a later change to a name never survives an earlier one that did not. A rename is one change to
  two names, as on every journalling file system, and none outlives the loss of the folder it goes into. Names and
  bytes know nothing of each other: an fsync of a new file does not cover its name, nor that of a folder its own name
  in the folder above.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

SECTOR_BYTES = 512
PENDING_CHANGES_MAX = 1024  # beyond it the older half settles, as a journalling file system does in seconds

_ODDS = (
    0.0,
    0.1,
    0.5,
    0.9,
    1.0,
)  # of surviving; drawn for each file: the extremes find as much as the middle


class _Inode:
    def __init__(self, number: int, now_ns: int) -> None:
        self.number, self.mtime_ns = number, now_ns
        self.nlink = self.descriptions = 0
        self.errors = 0  # of fsync
        self.holder: object = None  # of the flock


class File(_Inode):
    """An inode with bytes."""

    def __init__(self, number: int, now_ns: int) -> None:
        super().__init__(number, now_ns)
        self.data, self.platter = bytearray(), bytearray()
        self.dirty: dict[int, list[bytes]] = {}  # sector → its versions since the last fsync
        self.sizes: list[int] = []  # lengths since the last fsync
        self.version = 0  # of its bytes; others may have seen an earlier one

    def put(self, data: bytes, offset: int) -> None:
        old = len(self.data)
        if offset > old:
            resize(self.data, offset)
        self.data[offset : offset + len(data)] = data
        self._touch(min(offset, old), offset + len(data))

    def cut(self, size: int) -> None:
        old = len(self.data)
        resize(self.data, size)
        self._touch(min(old, size), max(old, size))

    def sync(self) -> None:
        for sector in self.dirty:
            self._place(sector, self._sector(sector))
        if self.sizes:
            resize(self.platter, len(self.data))
        self.dirty.clear()
        self.sizes.clear()

    def tear(self, random: Random) -> None:
        """Let chance say what of the dirty sectors is on the platter; none is dirty afterwards."""
        if not self.sizes:
            return
        lengths, odds = [len(self.platter), *self.sizes], random.choice(_ODDS)
        for sector, versions in self.dirty.items():
            if random.random() < odds:
                self._place(sector, versions[-1] if random.random() < odds else random.choice(versions))
        if random.random() < odds:
            length = lengths[-1]
        elif random.random() < 0.5:
            length = random.choice(lengths)
        else:
            length = random.randint(min(lengths), max(lengths))
        resize(self.platter, length)
        self.dirty.clear()
        self.sizes.clear()

    def _touch(self, start: int, end: int) -> None:
        self.version += 1
        for sector in range(start // SECTOR_BYTES, -(-end // SECTOR_BYTES)):
            self.dirty.setdefault(sector, []).append(self._sector(sector))
        self.sizes.append(len(self.data))

    def _sector(self, sector: int) -> bytes:
        return bytes(self.data[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES])

    def _place(self, sector: int, version: bytes) -> None:
        start, end = sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES
        if len(self.platter) < end:
            resize(self.platter, end)
        self.platter[start:end] = version.ljust(SECTOR_BYTES, b"\0")


class Folder(_Inode):
    """An inode with names."""

    def __init__(self, number: int, now_ns: int) -> None:
        super().__init__(number, now_ns)
        self.names: dict[str, Inode] = {}
        self.platter: dict[str, Inode] = {}

    def inodes(self, *, durable: bool = False) -> Iterator[Inode]:
        """This folder and all below it, each once: as processes see it, or as the platter has it."""
        seen, ahead = {self.number}, [self]
        while ahead:
            folder = ahead.pop()
            yield folder
            for inode in (folder.platter if durable else folder.names).values():
                if inode.number not in seen:
                    seen.add(inode.number)
                    if isinstance(inode, Folder):
                        ahead.append(inode)
                    else:
                        yield inode


Inode = File | Folder
Entry = tuple[Folder, str, Inode | None]  # a name in a folder, and what it now stands for


class Change:
    """Names that were set or removed in one step."""

    def __init__(self, entries: tuple[Entry, ...]) -> None:
        self.entries = entries
        self.keys = {(folder.number, name) for folder, name, _ in entries}
        # A moved folder waits for all that came before it, or a folder could end up inside itself.
        self.waits = len(entries) > 1 and any(isinstance(inode, Folder) for _, _, inode in entries)

    @property
    def folders(self) -> set[int]:
        return {inode.number for _, _, inode in self.entries if isinstance(inode, Folder)}

    def is_inside(self, missing: set[int]) -> bool:
        return any(folder.number in missing for folder, _, _ in self.entries)

    def goes_into(self, missing: set[int]) -> bool:
        """Whether it is a rename into a folder that is not there."""
        return len(self.entries) > 1 and self.is_inside(missing)

    def settle(self) -> None:
        for folder, name, inode in self.entries:
            if inode is None:
                folder.platter.pop(name, None)
            else:
                folder.platter[name] = inode


class Changes:
    """The changes to folders that no fsync has covered, oldest first."""

    def __init__(self) -> None:
        self._pending: list[Change] = []

    def add(self, *entries: Entry) -> None:
        self._pending.append(Change(entries))
        if len(self._pending) > PENDING_CHANGES_MAX:
            self._settle(self._pending[: PENDING_CHANGES_MAX // 2])
            del self._pending[: PENDING_CHANGES_MAX // 2]

    def sync(self, folder: Folder | None = None) -> None:
        """Make a folder's names durable; without a folder, all names."""
        self._settle(self._take(folder))

    def tear(self, random: Random, folder: Folder | None = None) -> None:
        """Let chance say which changes are on the platter; none of these is pending afterwards."""
        odds, lost, missing = random.choice(_ODDS), set[tuple[int, str]](), set[int]()
        for change in self._take(folder):
            undone = (change.waits and lost) or not lost.isdisjoint(change.keys) or change.goes_into(missing)
            if undone or random.random() >= odds:
                lost |= change.keys
                missing |= change.folders
            else:
                change.settle()
                missing |= change.folders if change.is_inside(missing) else set()

    def _take(self, folder: Folder | None) -> list[Change]:
        """Those that an fsync of the folder covers: its own, and what these build upon."""
        taken: list[Change] = []
        rest: list[Change] = []
        keys, everything = set[tuple[int, str]](), folder is None
        into = set[int]()  # folders that a rename goes into, and those that they are in
        for change in reversed(self._pending):
            its_own = any(each is folder for each, _, _ in change.entries)
            makes_way = not into.isdisjoint(change.folders)
            if everything or its_own or makes_way or not keys.isdisjoint(change.keys):
                taken.append(change)
                keys |= change.keys
                if makes_way or len(change.entries) > 1:
                    into |= {parent.number for parent, _, _ in change.entries}
                everything = everything or change.waits
            else:
                rest.append(change)
        self._pending = rest[::-1]
        return taken[::-1]

    @staticmethod
    def _settle(changes: list[Change]) -> None:
        for change in changes:
            change.settle()


def resize(data: bytearray, size: int) -> None:
    if size < len(data):
        del data[size:]
    else:
        data.extend(bytes(size - len(data)))
