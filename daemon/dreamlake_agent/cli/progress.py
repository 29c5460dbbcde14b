"""Progress: lines for people, and below them, on a terminal, a bar. The only file that names rich."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from dreamlake.world.terminal import shown

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Show:
    """Any thread may use it. ``quiet``: nothing but complaints."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: tuple[Progress, TaskID] | None = None
        self._expected = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def bar(self, name: str) -> Iterator[None]:
        """Bytes, their rate and the time that is left, on standard error; nothing where that is no terminal."""
        if self._quiet or not sys.stderr.isatty():
            yield
            return
        from rich import progress  # a tenth of a second, for whoever looks
        from rich.console import Console

        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.DownloadColumn(binary_units=True),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        shown = progress.Progress(
            *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
        )
        with shown:
            self._bar = shown, shown.add_task(name, total=None)
            try:
                yield
            finally:
                self._bar = None

    @property
    def has_bar(self) -> bool:
        return self._bar is not None

    def name(self, text: str) -> None:
        """What the bar is about now."""
        if self._bar is not None:
            self._bar[0].update(self._bar[1], description=text)

    def expect(self, count: int) -> None:
        """So many bytes more."""
        with self._lock:
            self._expected += count
            if self._bar is not None:
                self._bar[0].update(self._bar[1], total=self._expected)

    def advance(self, count: int) -> None:
        if self._bar is not None:
            self._bar[0].advance(self._bar[1], count)

    def say(self, text: str) -> None:
        if not self._quiet:
            self._print(text, err=False)

    def data(self, found: bytes) -> None:
        """What a script reads, whatever else is shown."""
        click.echo(found.rstrip(b"\n"))

    def complain(self, text: str) -> None:
        self._print(text, err=True)

    def _print(self, text: str, *, err: bool) -> None:
        text = "\n".join(map(shown, text.split("\n")))  # names are whoever's made the session
        with self._lock:
            if self._bar is not None and (err or sys.stdout.isatty()):  # above the bar
                self._bar[0].console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                click.echo(text, err=err)
