"""Opened: the logs that an agent has open, of all its directories: those it wrote last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

LetGo = Callable[[str], None]  # close the log of that name


class Opened:
    """Which logs are open, in the order of their last use, as far as it was said. ``most``: so many at once."""

    def __init__(self, most: int) -> None:
        self._logs: OrderedDict[tuple[LetGo, str], None] = OrderedDict()
        self.bound(most)

    def bound(self, most: int) -> None:
        """From now on so many; the oldest of more are closed."""
        self.most = max(1, most)
        self._make_room()

    def add(self, let_go: LetGo, log: str) -> None:
        """A log was opened: ``let_go`` is called with its name when it has to make room for another one."""
        self._logs[let_go, log] = None
        self._make_room()

    def _make_room(self) -> None:
        while len(self._logs) > self.most:
            oldest, name = self._logs.popitem(last=False)[0]
            oldest(name)

    def has_room(self, more: int) -> bool:
        """Whether so many more can be opened, and none has to make room; nobody need say then which are used."""
        return len(self._logs) + more <= self.most

    def used(self, let_go: LetGo, logs: Iterable[str]) -> None:
        """Logs that are open are about to be written: all others make room before these do."""
        for log in logs:
            self._logs.move_to_end((let_go, log))

    def remove(self, let_go: LetGo, log: str) -> None:
        """It was closed."""
        del self._logs[let_go, log]
