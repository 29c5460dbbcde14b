"""Many worlds in which agents decide what is sent when, one seed each; and bugs that are planted in those decisions.

As in test_world.py, ``DREAMLAKE_SIM_SEEDS`` looks further.
"""

from __future__ import annotations

from typing import Any

import pytest

import dreamlake_agent.remote.jobs
from dreamlake_agent.core.uploads import DIED, LOGS, Uploads
from dreamlake_agent.remote.logs import Logs
from tests.sim import remotes
from tests.sim.profiles import FILES_RESTORED, KILLED, NEWER, REMOTES, SUPERSEDED, Profile
from tests.sim.test_planted import Plant, find
from tests.sim.test_world import SEEDS as ALL_SEEDS

SEEDS = ALL_SEEDS // 30
SCENES = 3


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_is_opened_with_a_remote_is_on_the_server_in_every_world(seed: int) -> None:
    remotes.run(seed)


@pytest.mark.parametrize("scene", [KILLED, NEWER, SUPERSEDED, FILES_RESTORED], ids=lambda scene: scene.name)
def test_a_scene_without_a_planted_bug_breaks_no_promise(scene: Profile) -> None:
    for seed in range(SCENES):
        remotes.run(seed, scene)


def newer_checkpoint_taken_for_sent(patch: pytest.MonkeyPatch) -> None:
    """A job that ends stands for what is owed then, and not for what was owed when it began."""
    sent = Uploads._sent

    def sends(self: Uploads, target: Any, lane: Any, owed: int, *more: Any) -> Any:
        return sent(self, target, lane, target.owed, *more)

    patch.setattr(Uploads, "_sent", sends)


def forgotten_unfinished(patch: pytest.MonkeyPatch) -> None:
    """A directory whose logs are sent is taken for sent, whatever its files."""
    patch.setattr(
        Uploads, "is_unfinished", lambda self, path: any(each.lanes[LOGS].sent < each.owed for each in self.of(path))
    )
    patch.setattr(Uploads, "is_under_way", Uploads.is_unfinished)


def never_again_after_death(patch: pytest.MonkeyPatch) -> None:
    """What an uploader that died was at is not begun again."""
    uploaded = Uploads.uploaded

    def hears(self: Uploads, event: Any, now: float, **more: Any) -> Any:
        return iter(()) if event.ended == DIED else uploaded(self, event, now, **more)

    patch.setattr(Uploads, "uploaded", hears)


def superseded_after_one_lane(patch: pytest.MonkeyPatch) -> None:
    """Replaced files go when one of the lanes of files is sent."""

    def newest(self: Uploads, path: str) -> int:
        return min(
            (
                max(
                    (kept for owed, kept in each.kept if owed <= max(lane.sent for lane in each.lanes.values())),
                    default=0,
                )
                for each in self.of(path)
            ),
            default=0,
        )

    patch.setattr(Uploads, "superseded", newest)


def answered_before_it_is_sent(patch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the servers is answered when a checkpoint covers it."""
    patch.setattr(Uploads, "is_sent", lambda self, path, owed: True)


def restored_server_believed(patch: pytest.MonkeyPatch) -> None:
    """A server that was found to have been restored from a backup is believed to have the files that it had."""
    patch.setattr(Logs, "was_restored", property(lambda _self: False, lambda _self, _value: None), raising=False)


def bytes_before_their_history(patch: pytest.MonkeyPatch) -> None:
    """The server is believed to keep bytes, also when it has not acked their history: restored, it would not say so."""
    patch.setattr(dreamlake_agent.remote.jobs._Kept, "has_history", lambda _self, _end: True)


PLANTED: list[tuple[Plant, Profile]] = [
    (newer_checkpoint_taken_for_sent, NEWER),
    (forgotten_unfinished, REMOTES[2]),
    (never_again_after_death, KILLED),
    (superseded_after_one_lane, SUPERSEDED),
    (answered_before_it_is_sent, REMOTES[2]),
    (restored_server_believed, FILES_RESTORED),
    (bytes_before_their_history, FILES_RESTORED),
]
# Where looking begins: what few worlds find, one of these finds today.
BEGIN_AT = {forgotten_unfinished: 56}


@pytest.mark.parametrize(("plant", "where"), PLANTED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_planted_bug_is_found(plant: Plant, where: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    find(plant, where, monkeypatch, remotes, BEGIN_AT.get(plant, 0))
