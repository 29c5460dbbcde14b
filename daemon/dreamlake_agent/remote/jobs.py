"""Jobs: one lane of one directory to one server, each in a thread; and what is kept from one job to the next."""

from __future__ import annotations

import hashlib
import random
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dreamlake.errors import DreamlakeError
from dreamlake.remote.credentials import Credentials, CredentialsUnusable, Login
from dreamlake.remote.lake import Lake, NotLetIn, Refused, Unreachable
from dreamlake.remote.reach import Reach
from dreamlake.wire.marks import Mark
from dreamlake.wire.state import FILES_LOG
from dreamlake.world.disk import REAL_DISK
from dreamlake_agent.remote.blobs import SMALL_BYTES, Blobs, Digests
from dreamlake_agent.remote.logs import Logs, forked
from dreamlake_agent.remote.source import NotSendable, OtherBytes, Source

Answer = dict[str, Any]
_LANES = {"small": (0, SMALL_BYTES), "large": (SMALL_BYTES, None)}
_KEPT_MAX = 500  # directories whose places are remembered
_LAKES_MAX = 50


@dataclass
class _Kept:
    """Of one directory at one server. Each lane has one thread at a time."""

    lake: Lake
    logs: Logs | None = None
    blobs: dict[str, Blobs] = field(default_factory=dict)
    # where the files' history ended when a lane was wholly sent, and the server had that much of it before
    files: dict[str, Mark] = field(default_factory=dict)

    def has_history(self, end: Mark) -> bool:
        """Whether the server has acked the files' history so far. When it is restored from a backup it lacks of what
        it acked, which the next record finds out; of bytes that came before their history nothing would tell."""
        place = self.logs.acked.get(FILES_LOG) if self.logs is not None else None
        return place is not None and place.mark.size >= end.size


class Jobs:
    """``say`` is called from any thread."""

    def __init__(self, say: Callable[[Answer], None], credentials: Credentials | None = None) -> None:
        self._say = say
        self._credentials = credentials or Credentials()
        self._digests = Digests()
        self._lakes: dict[tuple[str, str | None, str | None, Reach | None], Lake] = {}
        self._kept: dict[tuple[str, str, str | None], _Kept] = {}
        self._not_let_in: set[str] = set()  # prints of tokens
        self._lock = threading.Lock()

    def start(self, job: Answer) -> None:
        threading.Thread(target=self._run, args=(job,), name=f"job-{job['job']}", daemon=True).start()

    def _run(self, job: Answer) -> None:
        try:
            said = self.work(job)
        except Exception as fault:  # of ours: this directory is tried again later, and the others go on
            traceback.print_exc()
            said = {"ended": "busy", "text": f"a fault in the uploader, see the agent's log: {type(fault).__name__}"}
        self._say({"job": job["job"], "chance": random.random(), **said})

    def work(self, job: Answer) -> Answer:
        """Do a job; how it ended."""
        try:
            login = self._credentials.find(job["url"], job["user"])
            token = self._token(job, login)
        except CredentialsUnusable as error:
            return {"ended": "busy", "text": str(error)}
        print_of = _print_of(token)
        if job["unless"] == print_of:
            return {"ended": "not let in", "token": print_of}
        try:
            source = self._source(job["path"])
        except FileNotFoundError:
            return {"ended": "gone"}
        except (NotSendable, OSError) as error:
            return {"ended": "busy", "text": str(error)}
        try:
            kept = self._keep(job, token, login.reach if login else None)
            before = kept.lake.answers
            how = self._tried(job, source, kept)
            if how["ended"] == "not let in":
                self._not_let_in.add(print_of)
            else:
                self._not_let_in.discard(print_of)
            return {**how, "token": print_of, "answered": kept.lake.answers > before}
        except NotLetIn as error:  # no server has to be asked
            return {"ended": "not let in", "text": str(error), "token": print_of}
        except (DreamlakeError, ValueError) as error:  # the settings cannot be used
            return {"ended": "busy", "text": str(error)}
        finally:
            source.close()

    def _tried(self, job: Answer, source: Source, kept: _Kept) -> Answer:
        try:
            return self._send_logs(job, source, kept) if job["lane"] == "logs" else self._send_files(job, source, kept)
        except Unreachable as error:
            return {"ended": "away" if error.whole else "busy", "text": str(error), "retry_after": error.retry_after}
        except NotLetIn as error:
            return {"ended": "not let in", "text": str(error)}
        except Refused as error:
            return {"ended": "refused", "text": str(error)}
        except (OtherBytes, DreamlakeError, OSError) as error:
            return {"ended": "busy", "text": str(error)}

    def _source(self, path: str) -> Source:
        return Source(REAL_DISK, path)

    def _lake(self, url: str, user: str | None, token: str | None) -> Lake:
        return Lake.open(url, user, token, tries=1, credentials=self._credentials)

    def _token(self, job: Answer, login: Login | None) -> str | None:
        """The key that the script gave, else that of a login; None where only the user's word is left. One that was not
        let in gives way to the other."""
        key = self._credentials.key_of(job["path"], job["url"], job["user"])
        found = [each for each in (key, login.token if login else None) if each is not None]
        others = [each for each in found if _print_of(each) != job["unless"]]
        return min(others or found, key=lambda each: _print_of(each) in self._not_let_in, default=None)

    def _keep(self, job: Answer, token: str | None, reach: Reach | None) -> _Kept:
        place = (job["path"], job["url"], job["user"])
        server = (job["url"], job["user"], token, reach)  # anew when the way there has changed
        with self._lock:
            lake = self._lakes.get(server)
            if lake is None:
                lake = self._lakes[server] = self._lake(job["url"], job["user"], token)
            kept = self._kept.get(place)
            if kept is None or kept.lake is not lake:  # another token may see another user's session
                kept = self._kept[place] = _Kept(lake)
            while len(self._kept) > _KEPT_MAX:
                self._kept.pop(next(iter(self._kept)))
            while len(self._lakes) > _LAKES_MAX:
                self._lakes.pop(next(iter(self._lakes)))
            return kept

    def _send_logs(self, job: Answer, source: Source, kept: _Kept) -> Answer:
        if kept.logs is None:
            kept.logs = Logs(source, kept.lake)
        else:
            kept.logs.renew(source)
        logs = kept.logs
        self._measure(job, source, logs)
        logs.advance = lambda _bytes: self._measure(job, source, logs)
        try:
            logs.send()
        except BaseException:
            kept.files = {}  # whatever happened to it: it is asked again about everything
            raise
        restored, logs.was_restored = logs.was_restored, False
        if restored:
            kept.files = {}
        standing = list(map(forked, logs.outcome.forks))  # told when they are found, and true until they are mended
        problems = [*standing, *(each for each in logs.outcome.problems if each not in standing)]
        logs.outcome.problems.clear()
        return {"ended": "sent", "problems": problems, "restored": restored}

    def _measure(self, job: Answer, source: Source, logs: Logs) -> None:
        """Tell how many records and bytes are behind."""
        places = logs.acked.values()
        records = source.records() - sum(place.count for place in places)
        size = logs.behind if places else sum(mark.size for mark in source.ends.values())
        self._say({"job": job["job"], "behind": [max(0, records), max(0, size)]})

    def _send_files(self, job: Answer, source: Source, kept: _Kept) -> Answer:
        lane, end, known = job["lane"], source.ends.get(FILES_LOG, Mark()), kept.files
        if known.get(lane) == end or (kept.logs is not None and FILES_LOG in kept.logs.outcome.forks):
            return {"ended": "sent"}  # nothing came or was replaced since; or the server's session has other files
        blobs = kept.blobs.get(lane)
        if blobs is None:
            blobs = kept.blobs[lane] = Blobs(source, kept.lake, digests=self._digests)
        else:
            blobs.renew(source, ask_again=lane not in known)
        least, most = _LANES[lane]
        sent, has_history = 0, kept.has_history(end)

        def advance(size: int) -> None:
            nonlocal sent
            sent += size
            self._say({"job": job["job"], "behind": [count, max(0, size_of_all - sent)]})

        count, size_of_all = blobs.owed(least, most)
        blobs.advance = advance
        advance(0)
        blobs.send(least, most)
        problems = [*blobs.outcome.problems]
        blobs.outcome.problems.clear()
        if not problems and has_history:
            known[lane] = end  # unless the server was found to have lost files meanwhile
        return {"ended": "sent", "problems": problems}


def _print_of(token: str | None) -> str:
    """What may be told of a token."""
    return hashlib.sha256((token or "").encode()).hexdigest()[:16]
