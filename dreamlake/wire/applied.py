"""Applied: what a run of operations amounts to, before any of it is on disk. PURE."""

from __future__ import annotations

from dataclasses import dataclass, field

from dreamlake.wire.state import State, Track, track_view

# A line of a log, its newline included: what a reader takes for one at most (an operation, and what is added to it).
LINE_BYTES_MAX = 9 << 20

# By which rules operations become rows. ``commits.log`` says it of its commits, or an upgrade of the agent would replay
# them to other rows than stand there.
RULES = 2
RANKS_IN_ROWS = 2  # since 0.4; before, no row said its rank, and what every rank set alike was written by each


@dataclass
class Applied:
    """What a run of operations amounts to, before any of it is on disk."""

    rules: int = RULES
    # log → blocks of whole lines, in order
    rows: dict[str, list[bytes]] = field(default_factory=dict)
    # track → [first ordinal, first index, how many], as often as the line breaks
    placed: dict[str, list[list[int]]] = field(default_factory=dict)
    # position in the run → why
    refused: dict[int, str] = field(default_factory=dict)
    operations: int = 0  # in the run, the refused ones too
    # views that no longer show the state
    stale: set[str] = field(default_factory=set)

    def add(self, log: str, line: bytes) -> None:
        blocks = self.rows.get(log)
        if blocks is None:
            self.rows[log] = [line]
        else:
            blocks.append(line)

    def lines(self, log: str) -> list[bytes]:
        """The lines for a log one by one, without their newlines."""
        return b"".join(self.rows.get(log, ())).split(b"\n")[:-1]

    def blocks_of(self, track: Track, name: str) -> list[bytes]:
        """Where a track's lines go."""
        blocks = self.rows.get(track.log)
        if blocks is None:
            blocks = self.rows[track.log] = []
            self.stale.add(track_view(name))
        return blocks

    def place(self, name: str, ordinal: int, index: int, number: int) -> None:
        """So many points of a track, from that ordinal on, have their indexes from ``index`` on."""
        spans = self.placed.get(name)
        if spans is None:
            self.placed[name] = [[ordinal, index, number]]
            return
        last = spans[-1]
        if last[0] + last[2] == ordinal and last[1] + last[2] == index:
            last[2] += number
        else:
            spans.append([ordinal, index, number])


def rank_of(state: State, author: str, out: Applied) -> int | None:
    """The rank whose process wrote a row, as far as rows say it by these rules."""
    return state.clients[author].rank if out.rules >= RANKS_IN_ROWS else None


def rank_in_line(state: State, author: str, out: Applied) -> bytes:
    """What a row says of it, at its end; nothing where there are no ranks."""
    rank = rank_of(state, author, out)
    return b"" if rank is None else b',"rank":%d' % rank
