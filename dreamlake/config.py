"""Configuration: every environment variable, place and limit, with its unit.

=========================  =========================================================================================
``DREAMLAKE_HOME``         folder of the agent's socket and state; when set, the only place where an agent is looked for
``DREAMLAKE_LOCAL_PATH``   root of sessions that name none (default ``.dreamlake`` in the working directory)
``DREAMLAKE_MODE``         ``disabled``: every call is a no-op
``DREAMLAKE_STRICT``       ``1``: a call that could not be kept raises :class:`~dreamlake.errors.JournalLost`
``DREAMLAKE_BACKLOG``      bytes that may wait to be sent before there is a warning, ``500M`` or ``10G`` (the default)
``DREAMLAKE_DISK_FREE``    free bytes of a disk below which there is a warning (default: 1 GiB, or a twentieth of it)
``DREAMLAKE_GONE``         seconds without a sign of life after which an owner on another node is gone (default 90)
``DREAMLAKE_LAG``          seconds that the agent may be behind the journals before there is a warning (default 60)
``DREAMLAKE_METRICS``      where the agent shows metrics and health: the path of a Unix socket, or a port of 127.0.0.1
``DREAMLAKE_API_KEY``      the token for servers, where a session gives none
``DREAMLAKE_SPOOL``        folder on node-local disk that has the journals in place of the session directories
``DREAMLAKE_AGENT``        ``never``: do not start an agent; one that runs is used
``DREAMLAKE_API_KEY``      the token for servers, before what ``dreamlake login`` has stored (``remote/credentials.py``)
=========================  =========================================================================================
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat

from dreamlake.wire.digest import sha256_hex

# ── the client ──────────────────────────────────────────────────────────────────────────────────────────────────────
BATCH_BYTES = 256 << 10  # one message of journal bytes
POLL_AWAITED_SECONDS = 0.004  # how often the link looks at the journal while somebody waits for the agent
POLL_BUSY_SECONDS = 0.02  # while there is traffic
POLL_IDLE_SECONDS = 0.08  # and when there is little
BUSY_BYTES = 32 << 10  # journal bytes found at one look that count as traffic, for each session of the process
ASK_SECONDS = 1.0  # unacked operations are asked about this often
SILENCE_SECONDS = 3.0  # an agent that says nothing for so long is looked for anew
CLOSE_SECONDS = 5.0  # close() waits this long at most
EXIT_SECONDS = 3.0  # each session at interpreter exit
FLUSH_SECONDS = 30.0  # flush() and reads, by default
RECEIPT_SECONDS = 30.0  # touching a receipt
HOPE_SECONDS = 1.5  # without an agent, what can do without one waits this long
OPEN_SECONDS = 10.0  # open() waits this long for an agent to be ready
RECEIPT_SPANS_MAX = 1 << 16  # index ranges kept for receipts, per session and process
FILE_BYTES_MAX = 5 << 40  # one uploaded file: the largest object S3 takes (5 TiB)

# ── the agent ───────────────────────────────────────────────────────────────────────────────────────────────────────
TICK_SECONDS = 0.05
VIEW_SECONDS = 1.0  # views are rewritten this often at most,
VIEW_SHARE = 0.05  # and, of a session with thousands of tracks, in this part of the time, unless somebody waits;
VIEW_REST_SECONDS = 30.0  # but after so long at the latest
VIEWS_MAX = 256  # written at one turn
SESSIONS_A_SECOND = 200  # so many are scanned, shown, and covered when quiet: of more, each less often
REST_SECONDS = 0.5  # one in which nothing happens is looked at this often
SYNC_SECONDS = 1.0  # journals and commits are fsynced this often while busy
CHECKPOINT_SECONDS = 60.0  # a checkpoint at least so often while operations come
CHECKPOINT_QUIET_SECONDS = 1.0  # and when none have come for this long
CHECKPOINT_BYTES = 32 << 20  # and after so many journal bytes: what a recovery replays at most
REGISTRY_SECONDS = 2.0  # what clients without an agent have put into the registry is looked at this often,
ORPHANS_SECONDS = 30.0  # and what another agent had and did not let go
SCAN_SECONDS = 1.0  # journals/ of an owned directory is looked at this often
BEATS = 6  # at least, in the time after which one is gone
BEAT_SECONDS = 10.0  # an owner, and a client whom no agent hears, show this often that they live
# Without a sign of life for so long, somebody on another node is gone, when its lock agrees; DREAMLAKE_GONE. Longer
# than any attribute cache keeps what it has seen (acregmax and acdirmax of NFS: 60 s).
GONE_SECONDS = 90.0
FOREIGN_KEPT_SECONDS = 86_400.0  # the journal of one that is gone so is kept for a day, should it come back
RELEASE_SECONDS = 2.0  # a directory nobody has open is let go after this
HEARD_SECONDS = 3.0  # a client that says nothing for so long is followed through its file
HASH_TRIES = 4  # to read a file for its checksum, RETRY_SECONDS apart
RETRY_SECONDS = (0.25, 3.0)  # a directory in trouble is tried again: first, and at most
STOP_SECONDS = 20.0  # stop drains this long at most
HANDOVER_SECONDS = 40.0  # one that systemd starts waits so long for the one before it to end
TURN_BYTES = 4 << 20  # messages heard before a commit
FOLLOW_BYTES = 256 << 10
DESCRIPTORS = 65_536  # it asks for so many, where it has fewer;
DESCRIPTORS_EACH = 16  # that a directory may need but for its logs;
LOGS_OPEN_MAX = 16_384  # logs kept open at once, of all directories, and at most three quarters of the descriptors
FLUSHES_MAX = 256  # open flushes of one client; of more, the oldest are forgotten and asked for again
CREDIT_BUDGET_BYTES = 32 << 20  # journal bytes on their way from all clients together
CREDIT_BYTES = (32 << 10, 1 << 20)  # per client: least, most
LOG_BYTES = 4 << 20  # agent.log is rotated past this
LOG_FILES = 3  # and so many are kept with it: agent.log, agent.log.1, agent.log.2
LOG_LINE_BYTES = 16 << 10  # one line of it, about; of a longer text the middle is left out
LOG_REPEAT_SECONDS = 60.0  # the same warning is written once in this time, with how often it came besides
LOG_ALIKE_MAX = 20  # and so many that differ only in their numbers
LOG_KNOWN_MAX = 256  # different warnings of which that is known
CHECKPOINT_REMOTE_SECONDS = 5.0  # CHECKPOINT_SECONDS of a session with a remote: only what one covers is sent
CHECKPOINT_SPOOL_SECONDS = 5.0  # and of one with a spooled journal: only what one covers outlives the node's disk

# ── watching: warnings of what a person can do something about, metrics and health ─────────────────────────────────
GAUGE_SECONDS = 5.0  # between two looks at the disks
DISK_FREE_BYTES = 1 << 30  # less free than this where sessions or the agent's state are: a warning; DREAMLAKE_DISK_FREE
DISK_FREE_SHARE = 0.05  # of a small disk, less than this part of it
DISK_FREE_INODES = 10_000  # fewer files than this that could still be made: a warning
LAG_SECONDS = 60.0  # the agent is so far behind what is in the journals: a warning; DREAMLAKE_LAG
METRICS_SECONDS = 1.0  # metrics and health are as old as this at most, while all is well
HEALTH_SECONDS = 15.0  # and when they are older, the agent hangs: /health is 503
METRICS_RETRY_SECONDS = 30.0  # a port or a path that is taken is tried again
METRICS_HEAD_BYTES = 8 << 10  # a request
METRICS_REQUEST_SECONDS = 5.0  # from its first byte to the last of the answer
METRICS_CONNECTIONS = 16  # at once; for one more, the oldest is closed
METRICS_REMOTES = 20  # servers with metrics of their own; of more, those with least to be sent are one

# ── uploading ───────────────────────────────────────────────────────────────────────────────────────────────────────
UPLOADS_LOGS = 4  # jobs of one server at once: logs,
UPLOADS_SMALL = 2  # small files,
UPLOADS_LARGE = 1  # and large ones
UPLOADS_LOOK_SECONDS = 0.2  # between two looks at what is due, unless something happens
UPLOAD_RETRY_SECONDS = (1.0, 60.0)  # full jitter below a wait that doubles: first, and at most
PAUSED_SECONDS = 5.0  # how often another token is looked for after one was not let in
REFUSED_SECONDS = 600.0  # a session that the server will not have is asked about again
UPLOADER_IDLE_SECONDS = 30.0  # without a job the uploader's process ends
BACKLOG_BYTES = 10 << 30  # of logs and files that wait to be sent: a warning; DREAMLAKE_BACKLOG
TOLD_MAX = 100  # different problems of one upload that are told to people

# ── reading from a server ───────────────────────────────────────────────────────────────────────────────────────────
REMOTE_CONNECT_SECONDS = 3.0  # a read waits so long for a server to be there,
REMOTE_ANSWER_SECONDS = 10.0  # and so long for an answer to come, once
REMOTE_AGAIN_SECONDS = 15.0  # a server that was away is left alone for this
REMOTE_WARNING_SECONDS = 60.0  # a warning that it is away, so often at most
REMOTE_KEPT_BYTES = 64 << 20  # of others' histories in memory, for one session object; and of the ends of pages

AGENT_SOCKET = "agent.sock"
AGENT_LOG = "agent.log"
REMOTE_SESSIONS = "sessions"
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([KMG]?)", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
SOCKET_PATH_BYTES_MAX = 100  # sun_path: 108 with NUL on Linux, 104 on macOS


class Insecure(OSError):
    """A folder that another user could change: nothing of ours is put there."""


def own_folder(path: str) -> str:
    """A folder that is ours alone (0700), made when missing. :class:`Insecure` when it is somebody else's."""
    try:
        with contextlib.suppress(FileExistsError):  # a file, or a link to nowhere: it is told below
            os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.stat(path, follow_symlinks=False)
    except OSError as error:
        raise Insecure(error.errno, f"cannot make the folder {path}: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise Insecure(f"{path} is not a folder of yours: remove it, or set DREAMLAKE_HOME to another place")
    if stat.S_IMODE(found.st_mode) & 0o077:
        try:
            os.chmod(path, 0o700)
        except OSError as error:
            raise Insecure(error.errno, f"cannot make {path} private: {error.strerror}") from None
    return path


def runtime_folders() -> list[str]:
    """Where an agent's socket may be, best first. A login shell and a batch job see different environments, so all are
    looked in before an agent is started."""
    home = os.environ.get("DREAMLAKE_HOME")
    if home:
        return [os.path.join(os.path.abspath(home), "run")]
    uid = os.getuid()
    places = [f"/run/user/{uid}", f"/tmp/dreamlake-{uid}"]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        places.insert(0, os.path.abspath(runtime))
    found: list[str] = []
    for place in places:
        is_last = place == places[-1]
        folder = place if is_last else os.path.join(place, "dreamlake")
        if (is_last or os.path.isdir(place)) and folder not in found:
            found.append(folder)
    return found


def socket_path(folder: str) -> str:
    """The socket of the agent of a runtime folder. A path longer than a socket's may be stands for itself in
    ``/tmp/dreamlake-UID``, the same for everybody who is told the same folder."""
    path = os.path.join(folder, AGENT_SOCKET)
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        return path
    name = sha256_hex(os.fsencode(os.path.realpath(folder)))[:16]
    return os.path.join(f"/tmp/dreamlake-{os.getuid()}", f"{name}.sock")


def base_folder() -> str:
    """What is kept for this user, on every host that shares the home."""
    home = os.environ.get("DREAMLAKE_HOME")
    if home:
        return os.path.abspath(home)
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    if not os.path.isabs(state):  # no HOME, and a uid that has no name, as in a container: there is no home
        return os.path.join(f"/tmp/dreamlake-{os.getuid()}", "state")
    return os.path.join(state, "dreamlake")


def state_folder() -> str:
    """Logs and registries of this host's agent; per host, because a home may be shared by many."""
    return os.path.join(base_folder(), socket.gethostname())


def remote_root(url: str, user: str | None) -> str:
    """The root of sessions that have only a remote: the agent's own, one for each server and user."""
    digest = sha256_hex(f"{url}\n{user or ''}".encode())[:12]
    return os.path.join(state_folder(), REMOTE_SESSIONS, digest)


def local_root() -> str:
    """The root of sessions that name none."""
    return os.environ.get("DREAMLAKE_LOCAL_PATH") or ".dreamlake"


def is_disabled() -> bool:
    return os.environ.get("DREAMLAKE_MODE") == "disabled"


def is_strict() -> bool:
    return os.environ.get("DREAMLAKE_STRICT") == "1"


def size_of(text: str) -> int:
    """Bytes as people write them; K, M and G are powers of 1024, as curl has them. :class:`ValueError` for none.

    >>> size_of("500K"), size_of("1.5m"), size_of("4096")
    (512000, 1572864, 4096)
    """
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if size < 1:
        raise ValueError(f"{text[:40]!r} is no number of bytes: give one such as 500K or 10M")
    return size


def backlog_bytes() -> int:
    """How much may wait to be sent before there is a warning. :class:`ValueError`."""
    text = os.environ.get("DREAMLAKE_BACKLOG")
    return size_of(text) if text else BACKLOG_BYTES


def disk_free() -> tuple[int, float]:
    """Below how many free bytes there is a warning, or below which part of a disk, whatever is less.
    :class:`ValueError`."""
    text = os.environ.get("DREAMLAKE_DISK_FREE")
    return (size_of(text), 1.0) if text else (DISK_FREE_BYTES, DISK_FREE_SHARE)


def lag_seconds() -> float:
    """How far behind the journals the agent may be before there is a warning. :class:`ValueError`."""
    return _seconds("DREAMLAKE_LAG", LAG_SECONDS)


def gone_seconds() -> float:
    """Without a sign of life for so long, somebody on another node is gone: DREAMLAKE_GONE. :class:`ValueError`."""
    return _seconds("DREAMLAKE_GONE", GONE_SECONDS)


def beat_seconds(gone: float | None = None) -> float:
    """How often an owner, and a client whom no agent hears, show that they live: several times in ``gone`` seconds
    (without it in :func:`gone_seconds`)."""
    return min(BEAT_SECONDS, (gone_seconds() if gone is None else gone) / BEATS)


def _seconds(name: str, otherwise: float) -> float:
    text = os.environ.get(name)
    if not text:
        return otherwise
    if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text.strip()) or float(text) <= 0:
        raise ValueError(f"{text[:40]!r} is no number of seconds: give one such as 60")
    return float(text)


def metrics_place(text: str) -> str | int:
    """Where metrics are shown: the path of a Unix socket, or a port of 127.0.0.1. :class:`ValueError` for what other
    machines could reach.

    >>> metrics_place("9464"), metrics_place("127.0.0.1:9464"), metrics_place("/run/user/1000/dreamlake/metrics.sock")
    (9464, 9464, '/run/user/1000/dreamlake/metrics.sock')
    """
    said = text.strip()
    if os.path.isabs(said):
        if len(os.fsencode(said)) > SOCKET_PATH_BYTES_MAX:
            raise ValueError(f"{said} is longer than the path of a socket may be ({SOCKET_PATH_BYTES_MAX} bytes)")
        return said
    host, colon, port = said.rpartition(":")
    if colon and host not in ("127.0.0.1", "localhost"):
        raise ValueError(
            f"{said[:80]!r} is not on loopback: give a port, which is one of 127.0.0.1, or a socket's path"
        )
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"{said[:80]!r} is neither a port nor the whole path of a socket (which begins with a slash)")
    return int(port)


def metrics() -> str | int | None:
    """Where the environment wants metrics to be shown; None for nowhere. :class:`ValueError`."""
    text = os.environ.get("DREAMLAKE_METRICS")
    return metrics_place(text) if text and text.strip() else None


def api_key() -> str | None:
    """The token for servers that the environment gives."""
    return os.environ.get("DREAMLAKE_API_KEY") or None


def spool_name() -> str:
    """What a spool's folder is called: nothing else is taken for one."""
    return f"dreamlake-{os.getuid()}"


def spool_folder() -> str | None:
    """The folder for journals that ``DREAMLAKE_SPOOL`` asks for, made when missing; None where it asks for none.
    :class:`OSError` when there can be none."""
    place = os.environ.get("DREAMLAKE_SPOOL")
    if not place:
        return None
    place = os.path.realpath(place)
    if not os.path.isdir(place):
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", place)
    try:
        return own_folder(os.path.join(place, spool_name()))
    except Insecure as error:
        raise Insecure(errno.EPERM, f"{error.strerror or f'{place}/{spool_name()} is not a folder of yours'}") from None


def may_start_agent() -> bool:
    return os.environ.get("DREAMLAKE_AGENT") != "never"
