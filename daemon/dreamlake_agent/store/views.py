"""Views: the JSON files that show the state, rewritten in one step, never over what a person wrote.

A view on disk is ours when its checksum is that of the last one we wrote, or when it shows the state after some row of
its history (the agent may die between writing a view and writing down that it did). Anything else is an edit by hand,
or damage: it is kept in ``cut/`` and reported before the view is written.
"""

from __future__ import annotations

import zlib
from typing import Any

from dreamlake.reader.baseline import VIEW_BYTES_MAX
from dreamlake.reader.views import MAIN_VIEWS, shows_some_row
from dreamlake.wire import jsons
from dreamlake.wire.state import State, track_view, view
from dreamlake.world.disk import read_file
from dreamlake_agent.store.cut import CutFolder
from dreamlake_agent.store.owner import Owner


class Views:
    """The views of one directory; only its owner has one."""

    def __init__(self, owner: Owner, known: dict[str, int], cuts: CutFolder) -> None:
        self._owner, self._disk, self._at, self._cuts = owner, owner.disk, owner.at, cuts
        # view → CRC-32 of what we last wrote there
        self.known = dict(known)
        # view → (inode, mtime, size) right after we wrote it
        self._ours: dict[str, tuple[int, int, int]] = {}
        self.stale: set[str] = set()
        self._round: list[str] = []  # those that a writing in pieces has still to see to
        self.dirty: set[str] = set()
        self.warnings: list[str] = []

    def write_some(self, state: State, most: int) -> bool:
        """Of the views that were stale when this was first called, write so many; False while there are more. The
        directory was ours then."""
        if not self._round:
            self._round = sorted(self.stale, reverse=True)
        some = [path for path in self._round[-most:] if path in self.stale]
        del self._round[-most:]
        if not some:
            self._owner.prove()
        for path in reversed(some):
            self._show(state, path)
        return not self._round

    def _show(self, state: State, path: str) -> None:
        shown = view(state, path)
        if shown is not None:
            self._write(state, path, _render(shown))
        self.stale.discard(path)

    def write(self, state: State, *, tracks: bool = True) -> None:
        """Write the stale views, those of ``tracks`` too or not; when there are none, only make sure that the directory
        is ours."""
        stale = sorted(path for path in self.stale if tracks or path in MAIN_VIEWS)
        if not stale:
            self._owner.prove()
        for path in stale:
            self._show(state, path)

    def _write(self, state: State, path: str, data: bytes) -> None:
        self._keep_what_is_not_ours(state, path)
        try:
            self._owner.replace(path, data, durable=False)
        except FileNotFoundError:
            self._disk.mkdirs(path.rpartition("/")[0], self._at)
            self._owner.replace(path, data, durable=False)
        self.known[path] = zlib.crc32(data)
        self._ours[path] = self._identity(path)
        self.dirty.add(path)

    def take_dirty(self, *, tracks: bool = True) -> set[str]:
        """What was written and is not on stable storage yet, and is about to be: of ``tracks``, too, or not."""
        taken = {path for path in self.dirty if tracks or path in MAIN_VIEWS}
        self.dirty -= taken
        return taken

    def _identity(self, path: str) -> tuple[int, int, int]:
        found = self._disk.stat(path, self._at)
        return found.ino, found.mtime_ns, found.size

    def _keep_what_is_not_ours(self, state: State, path: str) -> None:
        try:
            if self._identity(path) == self._ours.get(path):
                return
            data = read_file(self._disk, path, self._at, VIEW_BYTES_MAX)
        except FileNotFoundError:
            return
        if zlib.crc32(data) == self.known.get(path) or self._shows_some_row(state, path, data):
            return
        aside = self._cuts.keep(path, data)
        self.warnings.append(f"{path} was edited or damaged by somebody else; what it said is kept in {aside}")

    def _shows_some_row(self, state: State, path: str, data: bytes) -> bool:
        try:
            found = jsons.loads(data)
        except ValueError:
            return False
        return shows_some_row(self._disk, self._at, state, path, found)

    def check(self, state: State) -> None:
        """After recovery: the main views that do not show the state are stale; one of what never was is taken away."""
        for path in MAIN_VIEWS:
            shown = view(state, path)
            data = self._read(path)
            if shown is not None and data != _render(shown):
                self.stale.add(path)
            elif shown is None and data is not None:
                aside = self._cuts.keep(path, data)
                self._owner.prove()
                self._disk.unlink(path, self._at)
                self.warnings.append(f"{path} shows what no history says; it is kept in {aside}")
        # A track's view that is not the one the checkpoint stands for: written since, and the power may have gone then.
        # And one that is: that checkpoint may have come while it was owed.
        for name in state.tracks:
            path = track_view(name)
            data, shown = self._read(path), view(state, path)
            if data is None or zlib.crc32(data) != self.known.get(path) or (shown and data != _render(shown)):
                self.stale.add(path)

    def _read(self, path: str) -> bytes | None:
        try:
            return read_file(self._disk, path, self._at, VIEW_BYTES_MAX)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def import_known(self, paths: list[str]) -> None:
        """A first owner takes the views that stand there as they are: their content is record 0 of the histories."""
        for path in paths:
            try:
                self.known[path] = zlib.crc32(read_file(self._disk, path, self._at, VIEW_BYTES_MAX))
            except OSError:
                pass


def _render(shown: dict[str, Any]) -> bytes:
    return jsons.pretty(shown)
