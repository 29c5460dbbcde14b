"""Parameters: flat keys, merged over all origins."""

from __future__ import annotations

from typing import Any

import msgspec

from dreamlake.wire.state import PARAMETERS_LOG
from dreamlake_server import here
from dreamlake_server.api.sessions import gone, refuse_protected, the_session
from dreamlake_server.problem import not_found
from dreamlake_server.push import SessionGone
from dreamlake_server.route import Call


class NewParameters(msgspec.Struct):
    """Flat keys and their values; each replaces the one that was there."""

    data: dict[str, Any]


class Parameters(msgspec.Struct, rename="camel"):
    id: str
    session_id: str
    data: dict[str, Any]
    version: int
    created_at: str | None
    updated_at: str | None
    nonfinite: list[str] = []


async def put(call: Call) -> Parameters:
    session = await the_session(call)
    refuse_protected(session)
    given: NewParameters = call.body
    if given.data:
        values, nonfinite = here.plain(given.data, "parameter")
        row: dict[str, Any] = {"op": "set", "time": call.server.now(), "set": values}
        if nonfinite:
            row["nonfinite"] = nonfinite
        try:
            await here.write(call.server.meta, session, [PARAMETERS_LOG], lambda _heads: {PARAMETERS_LOG: [row]})
        except SessionGone as error:
            raise gone(error) from None
    found = await _found(call, session.id)
    return found or Parameters(session.id, session.id, {}, 0, None, None)


async def show(call: Call) -> Parameters:
    session = await the_session(call)
    found = await _found(call, session.id)
    if found is None:
        raise not_found("the session has no parameters: set some first")
    return found


async def _found(call: Call, session_id: str) -> Parameters | None:
    said = await call.server.projections.of(session_id)
    if said.parameters is None:
        return None
    return Parameters(
        id=session_id,
        session_id=session_id,
        data=said.parameters,
        version=said.parameters_sets,
        created_at=said.parameters_created,
        updated_at=said.parameters_updated,
        nonfinite=said.parameters_nonfinite,
    )
