"""A writer that uses every kind of call, and says after each that returned what it was: one JSON line on stdout.

Its numbers go up by one with each call, whatever the call, so that one that is lost, doubled or moved shows. What it
says of a call stands in a pipe or a file, and so outlives it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dreamlake import AgentUnavailable, JournalLost, Session

STALL_SECONDS = 1.0
FLUSH_SECONDS = 60.0
PACE_SECONDS = float(os.environ.get("DREAMLAKE_TEST_PACE", "0.01"))  # between eight calls and the next


class Scribe:
    def __init__(self, session: Session, name: str, say: Callable[[dict[str, Any]], None], scratch: Path) -> None:
        self.session, self.name, self._tell, self.scratch = session, name, say, scratch
        self.chance = random.Random(name)
        self.number = 0
        # the last point appended: track, number, receipt
        self.last_point: tuple[str, int, Any] | None = None

    def say(self, **what: Any) -> None:
        self._tell({"writer": self.name, **what})

    def write_once(self) -> None:
        """One call of some kind, and a word about it once it has returned."""
        kind = self.chance.choices(
            (self.point, self.batch, self.log, self.parameter, self.file), (64, 10, 20, 5.5, 0.5)
        )[0]
        began = time.monotonic()
        try:
            place, count = kind(self.number)
        except OSError as error:
            # The one call that may raise what the disk says: an upload whose content could not be captured.
            if kind != self.file:
                raise
            self.say(refused=str(error))
            return
        took = time.monotonic() - began
        self.say(number=self.number, place=place, count=count)
        if took > STALL_SECONDS:
            self.say(stalled=took, place=place)
        self.number += 1

    def _track(self) -> str:
        return self.chance.choice(("loss", "train/loss", "train/accuracy"))

    def point(self, number: int) -> tuple[str, int]:
        track = self._track()
        receipt = self.session.track(track).append(writer=self.name, number=number)
        self.last_point = (track, number, receipt)
        return track, 1

    def batch(self, number: int) -> tuple[str, int]:
        track, count = self._track(), self.chance.randrange(1, 9)
        self.session.track(track).append_batch([{"writer": self.name, "number": number}] * count)
        return track, count

    def log(self, number: int) -> tuple[str, int]:
        self.session.log("at work", metadata={"writer": self.name, "number": number})
        return "logs", 1

    def parameter(self, number: int) -> tuple[str, int]:
        self.session.parameters().set(**{self.name: number})
        return "parameters", 1

    def file(self, number: int) -> tuple[str, int]:
        source = self.scratch / f"{number}.txt"
        source.write_text(f"{self.name} {number}\n")
        self.session.files().upload(source, path=f"/{self.name}")
        source.unlink()
        return "files", 1

    def flush(self) -> None:
        self.session.flush(timeout=FLUSH_SECONDS)

    def ask_index(self) -> None:
        """The index that the last point was given, unless the agent died before it could say it, or the journal could
        not take the point."""
        if self.last_point is not None:
            track, number, receipt = self.last_point
            with contextlib.suppress(AgentUnavailable, JournalLost):
                self.say(indexed=number, place=track, index=int(receipt["index"]))

    def flush_durable(self) -> None:
        """Everything so far survives power loss, unless the disk does not say so."""
        returned = self.number
        try:
            self.session.flush(durable=True)
        except OSError as error:
            self.say(refused=str(error))
        else:
            if not self.lost():
                self.say(durable=returned)

    def lost(self) -> int:
        """How many calls the journal could not take: they have returned, and nothing is promised of them."""
        assert self.session._writer is not None
        return self.session._writer.lost


def main(root: str, session: str, name: str, enough: str, scratch: str, mode: str = "committed") -> None:
    """Write until the file `enough` is there.

    `mode` is what the scribe assures itself of now and then: that all is "committed"; or, in a thread beside the
    training, that it is "durable", or "durable alone" when there is to be no agent; or, "carefree", of nothing.
    """
    if mode == "durable alone":
        os.environ["DREAMLAKE_AGENT"] = "never"
    Path(scratch, name).mkdir()

    def say(what: dict[str, Any]) -> None:
        os.write(1, json.dumps(what).encode() + b"\n")  # one write: what is said is said whole

    opened = Session(session, "project", local_path=root).open()
    scribe = Scribe(opened, name, say, Path(scratch, name))

    def make_durable() -> None:
        while not os.path.exists(enough):
            if mode == "durable":
                scribe.ask_index()
            scribe.flush_durable()
            time.sleep(0.02)

    if mode.startswith("durable"):
        threading.Thread(target=make_durable, daemon=True).start()
    while not os.path.exists(enough):
        for _ in range(8):
            scribe.write_once()
        time.sleep(PACE_SECONDS)
        if mode == "committed" and scribe.number % 400 == 0:
            scribe.ask_index()
        if mode == "committed" and scribe.number % 2400 == 0:
            scribe.flush()
    if mode == "committed":
        scribe.flush()
    opened.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
