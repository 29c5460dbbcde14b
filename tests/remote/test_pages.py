"""Pages of a joined series while its origins go on: put together they have each row once, and each origin's in its
order, whatever comes in between and wherever it belongs."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from dreamlake.reader.session import SessionReader
from dreamlake.remote.joined import Joined
from dreamlake.remote.others import Others
from tests.remote.lakes import lake_of
from tests.server.serving import LOSS, Directory, Serving, opened, said

NAME = LOSS.removeprefix("tracks/").removesuffix("/data.jsonl")
OWN = "0" * 32  # of a directory that no agent has kept yet
OTHERS = ("a" * 32, "b" * 32, "c" * 32)
RANKS = 2

Found = tuple[str, int]
Step = tuple[str, list[int]] | int  # an origin writes rows that were made at these seconds; or a page of so many


class World:
    """A directory, others of its session at a server, and somebody who reads page after page."""

    def __init__(self, serving: Serving, folder: Path, rank: int | None) -> None:
        self.folder, self.rank = folder, rank
        (folder / "tracks" / NAME).mkdir(parents=True)
        (folder / "session.json").write_text('{"name":"run","workspace":"project"}')
        self.others = Others(lambda: lake_of(serving)[0], "project", "run")
        self.directories = {origin: Directory(serving.alice, origin, logs={LOSS: []}) for origin in OTHERS}
        self.written: dict[str, list[bytes]] = {OWN: [], **{origin: [] for origin in OTHERS}}
        self.found: list[Found] = []
        self.start = 0  # of the next page

    def write(self, origin: str, seconds: list[int]) -> None:
        lines = self.written[origin]
        first = len(lines)
        lines += [
            b'{"index":%d,"data":{"value":%d},"createdAt":"2026-01-01T00:00:%02d.000000Z","rank":%d}'
            % (index, index, second, index % RANKS)
            for index, second in enumerate(seconds, first)
        ]
        if origin == OWN:
            with (self.folder / LOSS).open("ab") as file:
                file.writelines(line + b"\n" for line in lines[first:])
        else:
            directory = self.directories[origin]
            directory.logs[LOSS] = lines
            said(directory.push({LOSS: directory.piece(LOSS, first)}))

    def page(self, limit: int) -> bool:
        """Read on; whether there is more."""
        with SessionReader(str(self.folder)) as reader:
            rows, more = Joined(reader, self.others).points(NAME, self.start, limit, self.rank)
        assert len(rows) <= limit
        if rows and "origin" not in rows[-1]:  # nobody else has any: numbers are indexes
            [origin] = [each for each, lines in self.written.items() if lines]
            self.found += [(origin, row["index"]) for row in rows]
            self.start = rows[-1]["index"] + 1
        else:
            self.found += [(row["origin"], row["index"]) for row in rows]
            self.start += len(rows)
        return more

    def all(self) -> Iterator[tuple[Found, dict[str, Any]]]:
        for origin, lines in self.written.items():
            for index, line in enumerate(lines):
                row = json.loads(line)
                if self.rank is None or row["rank"] == self.rank:
                    yield (origin, index), row


def read_while_they_write(steps: list[Step], rank: int | None) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        with opened() as serving:
            world = World(serving, folder, rank)
            serving.alice.session()
            for step in steps:
                if isinstance(step, int):
                    world.page(step)
                else:
                    world.write(*step)
            while world.page(5):
                pass
            expected = [found for found, _row in world.all()]
            assert sorted(world.found) == sorted(expected)
            for origin in world.written:
                indexes = [index for each, index in world.found if each == origin]
                assert indexes == sorted(indexes)
    finally:
        shutil.rmtree(folder)


seconds = st.lists(st.integers(0, 59), min_size=1, max_size=8)
steps = st.lists(st.one_of(st.tuples(st.sampled_from((OWN, *OTHERS)), seconds), st.integers(1, 4)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(steps, st.sampled_from([None, 0, 1]))
@example([(OWN, [9, 9, 9]), 2, ("a" * 32, [1, 2])], None)  # ours alone, then another one's before it
@example([("a" * 32, [9, 9, 9]), 2, ("b" * 32, [1, 2])], None)  # one other alone, then a second one's
@example([("a" * 32, [9, 9, 9]), 2, (OWN, [1, 2])], None)
@example([("a" * 32, [9] * 6), 2, 1], 1)  # one other alone, and of one rank
def test_pages_in_a_row_have_each_row_once(steps: list[Step], rank: int | None) -> None:
    read_while_they_write(steps, rank)
