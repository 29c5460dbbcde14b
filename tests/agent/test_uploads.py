"""When which directory is sent where, decided without a clock."""

from __future__ import annotations

import itertools
from random import Random

import pytest

from dreamlake import config
from dreamlake.wire.remotes import Remote
from dreamlake_agent.core import effects as do
from dreamlake_agent.core import events as on
from dreamlake_agent.core import uploads
from dreamlake_agent.core.uploads import LARGE, LOGS, SMALL, Tell, Uploads

HERE, THERE = Remote("https://here.example", "alice"), Remote("https://there.example")


class Told:
    """Uploads with a clock that the test moves."""

    def __init__(self) -> None:
        self.uploads = Uploads()
        self.now = 100.0
        self.rested = 0
        self.told: list[str] = []

    def owe(self, path: str, *remotes: Remote, kept: int = 0) -> None:
        self.uploads.covered(path, remotes or (HERE,), kept, (0, 0), self.now)

    def tick(self, seconds: float = 0.0) -> list[do.Upload]:
        self.now += seconds
        found = []
        for effect in self.uploads.tick(self.now):
            if isinstance(effect, do.Upload):
                found.append(effect)
            elif isinstance(effect, Tell):
                self.told.append(effect.text)
            else:
                assert isinstance(effect, do.RestUploader)
                self.rested += 1
        return found

    def end(self, job: do.Upload, ended: str = "sent", **more: object) -> list[str]:
        more = {"answered": ended not in (uploads.AWAY, uploads.DIED), **more}
        said = list(self.uploads.uploaded(on.Uploaded(job.number, ended, **more), self.now))  # type: ignore[arg-type]
        self.told += [each.text for each in said]
        return [each.text for each in said]

    def until(self, most: float = 200.0) -> tuple[float, list[do.Upload]]:
        """How long until something is started, and what."""
        began = self.now
        while self.now < began + most:
            if found := self.tick(0.05):
                return self.now - began, found
        return most, []


def test_three_lanes_start_and_nothing_is_started_twice() -> None:
    told = Told()
    told.owe("/a")
    jobs = told.tick()
    assert [job.lane for job in jobs] == [LOGS, SMALL, LARGE]
    assert {(job.path, job.url, job.user, job.unless) for job in jobs} == {("/a", HERE.url, "alice", None)}
    assert told.tick(50) == []
    for job in jobs:
        told.end(job)
    assert told.tick(50) == []
    assert told.uploads.is_sent("/a", {HERE: 1})


def test_points_are_not_stuck_behind_a_large_file() -> None:
    told = Told()
    told.owe("/a")
    for job in told.tick():
        if job.lane != LARGE:
            told.end(job)
    for _ in range(5):
        told.owe("/a")
        jobs = told.tick(5)
        assert [job.lane for job in jobs] == [LOGS, SMALL]
        for job in jobs:
            told.end(job)
    assert not told.uploads.is_sent("/a", told.uploads.owed("/a"))


def test_what_came_meanwhile_is_owed_again() -> None:
    told = Told()
    told.owe("/a")
    logs = told.tick()[0]
    told.owe("/a")
    told.end(logs)
    assert [job.lane for job in told.tick()] == [LOGS]
    assert told.uploads.is_unfinished("/a")


@pytest.mark.parametrize("ended", [uploads.AWAY, uploads.BUSY, uploads.DIED])
def test_waits_double_up_to_a_cap_and_go_on_for_ever(ended: str) -> None:
    told = Told()
    told.owe("/a")
    jobs = [job for job in told.tick() if job.lane == LOGS]
    waits = []
    for _ in range(20):
        told.end(jobs[0], ended, text="no", chance=0.999)
        seconds, jobs = told.until()
        jobs = [job for job in jobs if job.lane == LOGS]
        waits.append(seconds)
    first, most = config.UPLOAD_RETRY_SECONDS
    assert waits[0] <= first + 0.1
    assert all(later >= earlier - 0.2 for earlier, later in itertools.pairwise(waits))
    assert waits[1] > first
    assert most - 1 < waits[-1] <= most + 0.1


def test_full_jitter_may_be_no_wait_at_all() -> None:
    told = Told()
    told.owe("/a")
    told.end(told.tick()[0], uploads.BUSY, chance=0.0)
    assert [job.lane for job in told.tick()] == [LOGS]


def test_retry_after_is_waited_for() -> None:
    told = Told()
    told.owe("/a")
    for job in told.tick():
        told.end(job, uploads.AWAY, retry_after=37.0, chance=0.0)
    seconds, jobs = told.until()
    assert 36.9 < seconds < 37.1
    assert len(jobs) == 1  # one asks whether the server is back


def test_jobs_that_fail_together_count_once() -> None:
    told = Told()
    for number in range(4):
        told.owe(f"/{number}")
    for job in told.tick():
        told.end(job, uploads.AWAY, chance=0.999)
    seconds, _jobs = told.until()
    assert seconds <= config.UPLOAD_RETRY_SECONDS[0] + 0.1


def test_one_asks_and_when_the_server_is_back_all_go_on() -> None:
    told = Told()
    for number in range(3):
        told.owe(f"/{number}")
    started = told.tick()
    for job in started:
        told.end(job, uploads.AWAY, chance=0.5)
    _, jobs = told.until()
    assert len(jobs) == 1
    assert told.tick(5) == []
    told.end(jobs[0])
    assert len(told.tick()) == len(started) - 1


def test_a_lane_that_had_nothing_to_ask_says_nothing_of_the_server() -> None:
    """Else its waits would begin anew each time."""
    told = Told()
    told.owe("/a")
    waits = []
    for _ in range(6):
        seconds, jobs = told.until()
        waits.append(seconds)
        for job in jobs:
            told.end(job, uploads.AWAY if job.lane == LOGS else uploads.SENT, chance=0.999, answered=False)
        for job in told.tick():
            told.end(job, uploads.SENT, answered=False)
    assert waits[-1] > 10


def test_a_dead_server_delays_no_other() -> None:
    told = Told()
    told.owe("/a", HERE, THERE)
    for job in told.tick():
        told.end(job, uploads.AWAY if job.url == HERE.url else uploads.SENT, chance=0.999)
    told.owe("/a", HERE, THERE)
    assert {job.url for job in told.tick()} == {THERE.url}


def test_a_bad_session_delays_no_other() -> None:
    told = Told()
    told.owe("/bad")
    told.owe("/good")
    for job in told.tick():
        told.end(job, uploads.REFUSED if job.path == "/bad" else uploads.SENT, text="deleted there", chance=0.9)
    assert told.told == ["deleted there"]
    told.owe("/bad")
    told.owe("/good")
    assert {job.path for job in told.tick(60)} == {"/good"}
    assert {job.path for job in told.tick(config.REFUSED_SECONDS)} >= {"/bad"}


def test_a_token_that_is_not_let_in_pauses_until_there_is_another() -> None:
    told = Told()
    told.owe("/a")
    for job in told.tick():
        told.end(job, uploads.NOT_LET_IN, text="no such token", token="one")
    assert len(told.told) == 1
    assert "dreamlake login https://here.example" in told.told[0]
    (entry,) = told.uploads.describe("/a", told.now)
    assert entry["state"] == "paused"
    for _ in range(10):
        seconds, jobs = told.until()
        assert seconds >= config.PAUSED_SECONDS - 0.1
        assert [(job.lane, job.unless) for job in jobs] == [(LOGS, "one")]
        told.end(jobs[0], uploads.NOT_LET_IN, token="one")
    assert len(told.told) == 1
    _, jobs = told.until()
    told.end(jobs[0], token="two")
    assert [job.lane for job in told.tick()] == [SMALL, LARGE]


def test_a_problem_is_told_once_and_stays_in_status() -> None:
    told = Told()
    for _ in range(3):
        told.owe("/a")
        for job in told.tick():
            told.end(job, problems=("a fork",) if job.lane == LOGS else ())
    assert told.told == ["a fork"]
    assert told.uploads.describe("/a", told.now)[0]["problems"] == ["a fork"]
    assert told.uploads.is_unfinished("/a")
    told.owe("/a")
    for job in told.tick():
        told.end(job)
    assert not told.uploads.is_unfinished("/a")


def test_superseded_files_go_when_every_server_has_what_covers_them() -> None:
    told = Told()
    told.owe("/a", HERE, THERE, kept=3)
    jobs = told.tick()
    told.owe("/a", HERE, THERE, kept=8)
    for job in jobs:
        if job.url == HERE.url:
            told.end(job)
    assert told.uploads.superseded("/a") == 0
    for job in jobs:
        if job.url == THERE.url:
            told.end(job)
    assert told.uploads.superseded("/a") == 3
    for job in told.tick():
        told.end(job)
    assert told.uploads.superseded("/a") == 8


def test_superseded_files_stay_while_a_file_could_not_be_sent() -> None:
    told = Told()
    told.owe("/a", kept=3)
    for job in told.tick():
        told.end(job, problems=("it could not be sent",) if job.lane == SMALL else ())
    assert told.uploads.superseded("/a") == 0
    told.owe("/a", kept=4)
    for job in told.tick():
        told.end(job)
    assert told.uploads.superseded("/a") == 4


def test_superseded_files_of_a_directory_that_was_opened_again_have_other_numbers() -> None:
    told = Told()
    told.owe("/a", kept=8)
    for job in told.tick():
        told.end(job)
    told.uploads.opened("/a")
    told.owe("/a", kept=2)
    jobs = told.tick()
    told.end(jobs[0])
    assert told.uploads.superseded("/a") == 0
    for job in jobs[1:]:
        told.end(job)
    assert told.uploads.superseded("/a") == 2


def test_the_uploader_rests_when_there_is_nothing_to_send() -> None:
    told = Told()
    told.owe("/a")
    jobs = told.tick()
    told.tick(500)
    assert told.rested == 0
    for job in jobs:
        told.end(job)
    told.tick(config.UPLOADER_IDLE_SECONDS + 1)
    told.tick(500)
    assert told.rested == 1


def test_what_waits_to_be_sent_is_summed_over_directories() -> None:
    told = Told()
    told.owe("/a")
    told.owe("/b")
    jobs = told.tick()
    for job in jobs:
        told.uploads.measured(on.UploadMeasured(job.number, (1, 100)))
    assert told.uploads.waiting_bytes() == 100 * len(jobs)
    assert told.uploads.owing() == {"/a", "/b"}
    for job in jobs:
        if job.path == "/a":
            told.end(job)
    assert told.uploads.waiting_bytes() == 100 * len([job for job in jobs if job.path == "/b"]) > 0
    assert told.uploads.owing() == {"/b"}


def test_a_directory_that_was_moved_while_it_is_open_is_not_taken_for_sent() -> None:
    told = Told()
    told.owe("/a")
    owed = told.uploads.owed("/a")
    for job in told.tick():
        event = on.Uploaded(job.number, uploads.GONE, chance=0.5)
        assert list(told.uploads.uploaded(event, told.now, is_open=True)) == []
    assert not told.uploads.is_sent("/a", owed)
    assert "was moved" in str(told.uploads.trouble("/a"))
    _, jobs = told.until()
    for job in jobs:  # it was let go meanwhile
        told.end(job, uploads.GONE)
    assert told.uploads.paths() == []
    assert not told.uploads.is_sent("/a", owed)


def test_what_comes_while_the_server_is_away_counts_as_pending() -> None:
    told = Told()
    told.uploads.covered("/a", (HERE,), 0, (100, 5000), told.now)
    logs = told.tick()[0]
    told.uploads.measured(on.UploadMeasured(logs.number, (30, 1500)))
    told.end(logs, uploads.AWAY, chance=0.9)
    told.uploads.covered("/a", (HERE,), 0, (107, 5400), told.now)
    (entry,) = told.uploads.describe("/a", told.now)
    assert (entry["pending_operations"], entry["pending_bytes"]) == (37, 1900)


def test_a_directory_that_is_gone_is_forgotten() -> None:
    told = Told()
    told.owe("/a")
    for job in told.tick():
        told.end(job, uploads.GONE)
    assert told.uploads.paths() == []
    assert told.tick(100) == []


@pytest.mark.parametrize("seed", range(50))
def test_whatever_happens_everything_is_sent_in_the_end(seed: int) -> None:
    random, told = Random(seed), Told()
    endings = [uploads.AWAY, uploads.BUSY, uploads.DIED, uploads.NOT_LET_IN, uploads.REFUSED, uploads.SENT]
    running: list[do.Upload] = []
    for _ in range(300):
        if random.random() < 0.1:
            told.owe(f"/{random.randrange(5)}", *random.sample([HERE, THERE], random.randrange(1, 3)))
        running += told.tick(random.choice((0.05, 1, 30)))
        assert len({(job.path, job.url, job.lane) for job in running}) == len(running)
        if running and random.random() < 0.5:
            job = running.pop(random.randrange(len(running)))
            told.end(job, random.choice(endings), chance=random.random(), token=random.choice("ab"))
    for _ in range(3000):
        if not running and not any(told.uploads.is_unfinished(path) for path in map("/{}".format, range(5))):
            break
        for job in [*running, *told.tick(5)]:
            told.end(job)
        running = []
    assert all(target.is_sent for path in told.uploads.paths() for target in told.uploads.of(path))
