"""Sessions: make, find, list, delete, restore."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from dreamlake.wire import summary
from dreamlake.wire.names import folder_of, track_folder
from dreamlake.wire.state import SESSION_LOG, data_log
from dreamlake_server import here
from dreamlake_server.limits import NAME_BYTES, PAGE_ROWS, PAGE_ROWS_DEFAULT, SCAN_ROWS
from dreamlake_server.problem import Problem, bad, conflict, not_found
from dreamlake_server.push import SessionGone
from dreamlake_server.route import Call
from dreamlake_server.stores.meta import Session

_SCAN_AT_ONCE = 200


class NewSession(msgspec.Struct, rename="camel"):
    """What makes a session, or changes what is said of one that is there: only what is given is replaced."""

    name: str
    description: str | None = None
    tags: list[str] | None = None
    folder: str | None = None
    metadata: dict[str, Any] | None = None
    write_protected: bool = False


class SessionAnswer(msgspec.Struct, rename="camel"):
    """A session over all its origins. ``state`` is running, finished, failed, killed, or null where nobody said."""

    id: str
    name: str
    workspace: str
    description: str | None
    tags: list[str] | None
    folder: str | None
    metadata: dict[str, Any] | None
    write_protected: bool
    state: str | None
    created_at: str | None
    updated_at: str | None
    started_at: str | None
    ended_at: str | None
    origins: list[str]
    error: dict[str, Any] | None = None
    killed_ranks: list[Any] | None = None
    deleted_at: str | None = None


class Place(msgspec.Struct):
    """What a session is in."""

    id: str
    name: str


class MadeSession(msgspec.Struct):
    session: SessionAnswer
    workspace: Place
    folder: Place | None
    namespace: Place


class SessionQuery(msgspec.Struct):
    """Filters: each that is given must hold; a session must have every tag."""

    state: list[str] = []
    tags: list[str] = []
    folder: str | None = None
    limit: int = PAGE_ROWS_DEFAULT
    cursor: str | None = None


class SessionList(msgspec.Struct, rename="camel"):
    sessions: list[SessionAnswer]
    next_cursor: str | None


class Deleted(msgspec.Struct, rename="camel"):
    """It can be restored for ``keptDays`` from then on."""

    id: str
    deleted_at: str | None
    kept_days: int


def checked(kind: str, name: str) -> str:
    """A name that may be stored, or 400."""
    try:
        folder_of(kind, name)
    except ValueError as error:
        raise bad(str(error), "bad-name") from None
    if len(name.encode()) > NAME_BYTES:
        raise bad(f"{kind} is longer than {NAME_BYTES} bytes (NAME_BYTES): shorten it", "bad-name")
    return name


def answered(session: Session) -> SessionAnswer:
    said = summary.joined(session.origins)
    tags = said["tags"]
    return SessionAnswer(
        id=session.id,
        name=session.name,
        workspace=session.workspace,
        description=_kind(said["description"], str),
        tags=[str(tag) for tag in tags] if isinstance(tags, list) else None,
        folder=_kind(said["folder"], str),
        metadata=_kind(said["metadata"], dict),
        write_protected=said["write_protected"],
        state=said["state"],
        created_at=said["created_at"] or session.created,
        updated_at=said["updated_at"] or session.created,
        started_at=said["started_at"],
        ended_at=said["ended_at"],
        origins=sorted(session.origins),
        error=_kind(said.get("error"), dict),
        killed_ranks=_kind(said.get("killed_ranks"), list),
        deleted_at=session.deleted,
    )


def _kind(value: Any, kind: type) -> Any:
    """A row is a file that anybody may have written: what is of another kind is not answered."""
    return value if isinstance(value, kind) else None


async def the_session(call: Call, *, deleted: bool = False) -> Session:
    """The session that the path names, of this user; 404 for any other."""
    found: Session | None = await call.server.meta.session(call.user, call.path["id"])
    if found is None or (found.deleted is not None and not deleted):
        raise not_found(f"no session {call.path['id'][:40]!r}: it is not yours, was deleted, or never was")
    return found


def refuse_protected(session: Session, *, ended_only: bool = False) -> None:
    said = summary.joined(session.origins)
    if said["write_protected"] and (not ended_only or said["state"] == "finished"):
        raise conflict(f"session {session.name!r} is write-protected", "write-protected")


def gone(error: SessionGone) -> Problem:
    return Problem(410, "deleted", f"{error}: restore it with POST /sessions/{{id}}/restore, or take another name")


async def made(call: Call, workspace: str, name: str) -> Session:
    """The session of that name, made when it is new; 410 when it was deleted."""
    checked("workspace", workspace)
    checked("session", name)
    session: Session = await call.server.meta.make_session(
        call.user, workspace, name, secrets.token_hex(12), call.server.now()
    )
    if session.deleted is not None:
        raise gone(SessionGone(f"session {workspace}/{name} was deleted"))
    return session


async def make(call: Call) -> MadeSession:
    given: NewSession = call.body
    session = await made(call, call.path["workspace"], given.name)
    said = {key: getattr(given, key) for key in summary.FIELDS}
    fields, _ = here.plain({key: value for key, value in said.items() if value is not None})
    is_new = here.origin_of(session) not in session.origins
    if fields or given.write_protected or is_new:
        await _describe(call, session, fields, given.write_protected)
        session = await call.server.meta.session(call.user, session.id) or session
    answer = answered(session)
    folder = Place(answer.folder, answer.folder) if answer.folder else None
    return MadeSession(answer, Place(session.workspace, session.workspace), folder, Place(call.user, call.user))


async def _describe(call: Call, session: Session, fields: dict[str, Any], protected: bool) -> None:
    """An ``import`` says all there is to say, so that whoever reads only the last one knows it, too."""
    time = call.server.now()
    mine = (session.origins.get(here.origin_of(session)) or {}).get("session") or {}
    said = {
        "name": session.name,
        "workspace": session.workspace,
        **{key: mine.get(key) for key in summary.FIELDS},
        **fields,
        "created_at": mine.get("created_at") or session.created,
        "updated_at": time,
        "write_protected": bool(mine.get("write_protected") or protected),
    }
    row = {"op": "import", "time": time, "set": said, "given": sorted(fields)}
    try:
        await here.write(call.server.meta, session, [SESSION_LOG], lambda _heads: {SESSION_LOG: [row]})
    except SessionGone as error:
        raise gone(error) from None


async def show(call: Call) -> SessionAnswer:
    return answered(await the_session(call))


async def list_sessions(call: Call) -> SessionList:
    """Newest first. A page that looked at many and found few ends early, with a cursor."""
    query: SessionQuery = call.query
    if not 1 <= query.limit <= PAGE_ROWS:
        raise bad(f"limit must be 1 to {PAGE_ROWS} (PAGE_ROWS)")
    created, _, last_id = (query.cursor or "").partition("~")
    after = (created, last_id) if last_id else None
    if query.cursor and after is None:
        raise bad("that cursor is none: take the one that the page before gave, whole")
    workspace = call.path.get("workspace")
    found: list[SessionAnswer] = []
    looked = 0
    while True:
        page = await call.server.meta.sessions(call.user, workspace, after, _SCAN_AT_ONCE)
        for session in page:
            after = (session.created, session.id)
            answer = answered(session)
            if _fits(answer, query):
                found.append(answer)
                if len(found) == query.limit:
                    return SessionList(found, "~".join(after))
        looked += len(page)
        if len(page) < _SCAN_AT_ONCE:
            return SessionList(found, None)
        if looked >= SCAN_ROWS:
            return SessionList(found, "~".join(after or ("", "")))


def _fits(session: SessionAnswer, query: SessionQuery) -> bool:
    folder = (session.folder or "").strip("/")
    wanted = (query.folder or "").strip("/")
    return (
        (not query.state or str(session.state) in query.state)
        and set(query.tags) <= set(session.tags or ())
        and (not wanted or folder == wanted or folder.startswith(f"{wanted}/"))
    )


async def delete(call: Call) -> Deleted:
    """It is not shown any more, and purged after a time."""
    session = await the_session(call, deleted=True)
    when = session.deleted or call.server.now()
    if session.deleted is None:
        await call.server.meta.mark_deleted(call.user, session.id, when)
    return Deleted(session.id, when, call.server.purge_days)


async def restore(call: Call) -> SessionAnswer:
    session = await the_session(call, deleted=True)
    await call.server.meta.mark_deleted(call.user, session.id, None)
    return answered(await the_session(call))


def log_of(track: str) -> str:
    """The log of a track, or 400 for a name that cannot be stored."""
    try:
        track_folder(track)
    except ValueError as error:
        raise bad(str(error), "bad-name") from None
    return data_log(track)
