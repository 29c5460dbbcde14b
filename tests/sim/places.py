"""Places: the session directories of a simulated world, what users do to them, and what must stand in them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from dreamlake import config
from dreamlake.reader.segments import UNNAMED
from dreamlake.reader.spools import MARKER
from tests.sim import promises
from tests.sim.platter import Folder
from tests.sim.promises import Book, Call, Found, Violation

SPOOL = f"/scratch/{config.spool_name()}"

if TYPE_CHECKING:
    from dreamlake.reader.replay import Loaded
    from dreamlake_agent.store.directory import Directory
    from tests.sim.disk import SimDisk
    from tests.sim.world import World


class Place:
    """One session directory, from the first process that made it to its end."""

    def __init__(self, path: str, ino: int) -> None:
        self.path, self.ino = path, ino
        self.books: list[Book] = []
        self.removed = self.power_lost = False
        self.copied = False
        self.wiped = False  # a spool of its journals was removed
        self.edits: dict[str, list[bytes]] = {}
        # what has left the machine: log → its first bytes. They can never be called back.
        self.left: dict[str, bytes] = {}

    # ── what users do ───────────────────────────────────────────────────────────────────────────────────────────────

    def remove(self, disk: SimDisk) -> None:
        if disk.exists(self.path):
            disk.remove_tree(self.path)
            disk.settle_names()
        self.removed = True
        for book in self.books:
            book.closed = None
            for call in book.calls:
                call.free, call.index = True, None

    def copy(self, disk: SimDisk, path: str) -> Place:
        """cp -r, at one instant: as much is promised of the copy as was written by then."""
        disk.copy_tree(self.path, path)
        made = Place(path, disk.walk(path).number)
        made.copied, made.power_lost, made.wiped = True, self.power_lost, self.wiped
        made.books = [
            Book(book.client, book.name, made, book.forked, [copy.copy(call) for call in book.calls], book.closed)
            for book in self.books
        ]
        for book, original in zip(made.books, self.books, strict=True):
            if not original.spooled:
                continue
            book.closed, book.spooled = None, True  # its journal is not in the copy
            for call in book.calls:
                call.free = True
        made.left, made.edits = dict(self.left), {view: list(edits) for view, edits in self.edits.items()}
        if any(book.spooled for book in made.books):  # commits end where one names a journal that is not in the copy
            made.left = {}
            for call in [call for book in made.books for call in book.calls]:
                call.index = None
        return made

    def wipe(self) -> None:
        """Somebody removed the spool. A client that lives has its journal open and brings it into the directory; what
        the dead had there and no checkpoint covers is gone. Until then commits name a journal that nobody can read, so
        that an agent that takes over may number anew what no checkpoint covers, whoever wrote it."""
        self.wiped, self.left = True, {}
        for book in self.books:
            if book.spooled:
                book.lose_spool()
            for call in book.calls:
                call.durable = call.durable and (call.pinned or not book.spooled)
                call.index = call.index if call.pinned else None

    def edit(self, disk: SimDisk, view: str, content: bytes) -> None:
        """Write over a view in an editor; an edit that nobody had seen yet is gone, and that is the user's affair."""
        edits = self.edits.setdefault(view, [])
        before = disk.read(f"{self.path}/{view}")
        if before in edits:
            edits.remove(before)
        disk.write(f"{self.path}/{view}", content)
        edits.append(content)

    def views(self, disk: SimDisk) -> list[str]:
        return [path for path in disk.tree(self.path) if path.endswith(".json") and not path.startswith(".dreamlake/")]

    # ── what leaves the machine ─────────────────────────────────────────────────────────────────────────────────────

    def push(self, disk: SimDisk, directory: Directory) -> None:
        """Take what may leave the machine; what left before must be its beginning."""
        for log, size in () if self.wiped else directory.durable.items():
            rows = disk.read(f"{self.path}/{log}")[:size]
            if len(rows) < size:
                raise Violation(f"{log} has {len(rows)} bytes, and {size} may leave the machine")
            self._check_left(log, rows)
            self.left[log] = max(rows, self.left.get(log, b""), key=len)

    def _check_left(self, log: str, rows: bytes) -> None:
        left = self.left.get(log, b"")
        if rows[: len(left)] != left[: len(rows)]:
            raise Violation(f"rows of {log} had left the machine and are others now")

    def power_loss(self, disk: SimDisk) -> None:
        self.power_lost = True
        promises.power_loss(self.books)
        self.edits.clear()
        # Nobody synced a mv: the directory may have its old name again.
        workspace = disk.walk("/runs/w")
        assert isinstance(workspace, Folder)
        names = [name for name, inode in workspace.names.items() if inode.number == self.ino]
        if names:
            self.path = f"/runs/w/{names[0]}"
            return
        self.removed = True
        durable = [call.value for book in self.books for call in book.calls if call.durable and not call.free]
        if durable or any(self.left.values()):
            raise Violation(f"power loss took {self.path}, in which {durable} were durable, or had left the machine")

    # ── what must be true ───────────────────────────────────────────────────────────────────────────────────────────

    def check_reading(self, world: World) -> None:
        """Whatever lives or not: a reader who replays the journals finds every call that has returned."""
        if self.wiped:
            return  # until its clients have brought their journals home
        _loaded, found = self._replayed(world)
        promises.check_rows(found, self.books, self._free(world))

    def _replayed(self, world: World) -> tuple[Loaded, Found]:
        at = world.user.root(self.path)
        with promises.with_spools(world.user, at, self.path) as disk:
            found = promises.replayed(disk, at)
        world.user.close(at)
        return found

    def check(self, world: World) -> None:
        """All is covered, closed and let go."""
        tree, free = world.disk.tree(self.path), self._free(world)
        promises.check_rows(promises.read_rows(tree), self.books, free)
        loaded, found = self._replayed(world)
        if loaded.warnings:
            raise Violation(f"the directory is not sound: {loaded.warnings}")
        promises.check_rows(found, self.books, free)
        promises.check_edits(tree, self.edits)
        promises.check_views(tree, loaded.state, self.edits)
        # Not promised (docs/durability.md): an upload whose fsync had failed for one, and whom another then asked.
        # Nor one to a place that others upload to as well, of a journal that could not be seen for a while, or did not
        # come with the copy.
        is_partial = self.wiped or (self.copied and any(book.spooled for book in self.books))
        if not (self.power_lost and world.profile.disk.fsync_error) and not is_partial:
            promises.check_files(tree, loaded.state, self.books)
        promises.check_ends(loaded.state, self.books, doubtful=world.profile.lies > 0)
        for log in self.left:
            if len(tree.get(log, b"")) < len(self.left[log]):
                raise Violation(f"rows of {log} had left the machine and are gone")
            self._check_left(log, tree[log])
        # Of a journal that power loss took, the captures stay: nobody can say any more what they were.
        # Nor of one in a spool, which did not come with a copy.
        lacking = self.power_lost or self.wiped or (self.copied and any(book.spooled for book in self.books))
        kinds = (".dreamlake/journals/",) if lacking else (".dreamlake/journals/", ".dreamlake/incoming/")
        left = [path for path in tree if path.startswith(kinds)]
        if self.power_lost or self.copied or self.wiped:  # a marker of what is gone, or is not the copy's
            # And what a client copied that died on its way home: it counts once a person has removed the marker.
            marked = {path.removesuffix(MARKER) for path in left if path.endswith(MARKER)}
            left = [path for path in left if path.removesuffix(UNNAMED).rpartition(".")[0] not in marked]
        left = [path for path in left if not world.may_stay(self, path)]
        if left:
            raise Violation(f"all is covered and closed, and these stay: {left}")

    def _free(self, world: World) -> list[Call]:
        """Calls of directories that were removed here: the last of them may have come along."""
        return [call for place in world.places if place.removed for book in place.books for call in book.calls]


def place_of(world: World, ino: int) -> Place | None:
    """The place whose directory has that inode, unless it was removed."""
    return next((place for place in world.places if place.ino == ino and not place.removed), None)
