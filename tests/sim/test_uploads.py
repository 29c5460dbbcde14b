"""Many worlds with a server, one seed each; and bugs that are planted in uploads, each of which must be found.

As in test_world.py, ``DREAMLAKE_SIM_SEEDS`` looks further.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dreamlake.wire.marks import Mark
from dreamlake.world.disk import read_file
from dreamlake_agent.remote.logs import Logs
from dreamlake_agent.remote.source import Source
from dreamlake_server import push, records
from dreamlake_server.stores.memory import MemoryMeta
from dreamlake_server.stores.meta import Head
from tests.sim import uploads
from tests.sim.profiles import RESTORED, SENT_AT_ONCE, Profile
from tests.sim.test_planted import Plant, find
from tests.sim.test_world import CHUNK
from tests.sim.test_world import SEEDS as ALL_SEEDS

SEEDS = ALL_SEEDS // 9
SCENES = 10


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_what_a_directory_holds_is_on_the_server_once_in_every_world(first: int) -> None:
    for seed in range(first, min(first + CHUNK, SEEDS)):
        uploads.run(seed)


@pytest.mark.parametrize("scene", [SENT_AT_ONCE, RESTORED], ids=lambda scene: scene.name)
def test_a_scene_without_a_planted_bug_breaks_no_promise(scene: Profile) -> None:
    for seed in range(SCENES):
        uploads.run(seed, scene)


def sent_before_a_checkpoint(patch: pytest.MonkeyPatch) -> None:
    """Whatever stands in the logs is sent, and not only what a checkpoint covers."""
    opened = Source.__init__

    def opens(self: Source, disk: Any, path: str) -> None:
        opened(self, disk, path)
        for log in self.ends:
            data = read_file(disk, log, self._at, 1 << 40)
            self.ends[log] = Mark().after(data[: data.rfind(b"\n") + 1])

    patch.setattr(Source, "__init__", opens)


def mark_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    """What the server says that it has is taken for ours."""
    patch.setattr(Source, "has", lambda self, log, mark, known=None: True)


def fork_not_told(patch: pytest.MonkeyPatch) -> None:
    """A log that has forked is left alone, and its user hears nothing."""
    heard = Logs._heard

    def hears(self: Logs, *given: Any, **named: Any) -> None:
        heard(self, *given, **named)
        self.outcome.forks.clear()
        self.outcome.problems.clear()

    patch.setattr(Logs, "_heard", hears)


def gap_taken_for_an_ack(patch: pytest.MonkeyPatch) -> None:
    """A server that was restored from a backup, and says that it has less, is believed to have what came now."""
    acked = Logs._acked

    def acks(self: Logs, log: str, place: Any, data: bytes, sent_to: Mark, said: dict[str, Any]) -> None:
        if said.get("problem") == "gap":
            self.acked[log] = type(place)(place.count + data.count(b"\n"), sent_to)
        else:
            acked(self, log, place, data, sent_to, said)

    patch.setattr(Logs, "_acked", acks)


def no_compare_and_set(patch: pytest.MonkeyPatch) -> None:
    """A server appends to whatever head there is now, and not to the one it has judged by."""
    append = MemoryMeta.append

    async def appends(self: MemoryMeta, session_id: str, origin: str, appends: Any, **more: Any) -> bool:
        logs = self._kept[session_id].logs
        now = [
            replace(each, before=logs[key].head if (key := (origin, each.log)) in logs else Head()) for each in appends
        ]
        return await append(self, session_id, origin, now, **more)

    patch.setattr(MemoryMeta, "append", appends)


def acked_before_stored(patch: pytest.MonkeyPatch) -> None:
    """A server's answer goes before what it has taken is stored: with its next request."""
    carry_out = push._carry_out
    waiting: list[Any] = []

    async def later(*given: Any) -> bool:
        while waiting:
            await carry_out(*waiting.pop(0))
        waiting.append(given)
        return True

    patch.setattr(push, "_carry_out", later)


def marks_not_compared(patch: pytest.MonkeyPatch) -> None:
    """A server takes whatever begins where it stands, by its number."""
    patch.setattr(
        records, "judge", lambda head, batch, stored: records.GAP if batch.first > head.count else records.TAKE
    )


PLANTED: list[tuple[Plant, tuple[str, ...] | Profile]] = [
    (sent_before_a_checkpoint, SENT_AT_ONCE),
    (mark_not_looked_at, ("sent from copies",)),
    (fork_not_told, ("sent from copies",)),
    (gap_taken_for_an_ack, RESTORED),
    (no_compare_and_set, ("sent", "sent anew")),
    (acked_before_stored, ("sent", "sent anew")),
    (marks_not_compared, ("sent from copies",)),
]


@pytest.mark.parametrize(("plant", "where"), PLANTED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_planted_bug_is_found(
    plant: Plant, where: tuple[str, ...] | Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    find(plant, where, monkeypatch, uploads)
