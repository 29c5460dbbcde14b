"""What /openapi.json promises is kept, whatever comes; and whatever is pushed, the server stands, and what it has
stored can be read.

Schemathesis makes the requests out of the document and judges the answers; they go by our own client, in the event loop
that the stores live in and to a host that the server answers to.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from dreamlake.wire.marks import Mark
from dreamlake.wire.projection import time_of
from dreamlake.wire.state import FILES_LOG, HISTORIES, LOGS_LOG
from dreamlake_server import openapi, records
from dreamlake_server.api import ROUTES
from dreamlake_server.route import MSGPACK
from tests.server.serving import HERE, LOSS, RUN, Directory, Serving, as_bytes, msgpack, opened, points, said

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 8  # of each route, in order and out of order
# A failure is shown as it was found: to make it smaller would take minutes, with what schemathesis generates.
quick = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)


def document() -> dict[str, Any]:
    """As it is answered, but for bodies in msgpack, which schemathesis cannot write."""
    found = copy.deepcopy(openapi.document(ROUTES))
    for path in found["paths"].values():
        for operation in path.values():
            for kind in MSGPACK:
                operation.get("requestBody", {"content": {}})["content"].pop(kind, None)
    return found


SCHEMA = schemathesis.openapi.from_dict(document())
OPERATIONS = {operation.label: operation for operation in (each.ok() for each in SCHEMA.get_all_operations())}


@pytest.fixture(scope="module")
def filled() -> Iterator[tuple[Serving, dict[str, str]]]:
    """A server, and what a path may name in it."""
    with opened() as serving:
        alice = serving.alice
        session = Directory(alice, logs={LOSS: points(5)}).pushed()
        said(alice.post(f"/sessions/{session}/logs", json={"logs": [{"message": "hello", "metadata": {"a": 1}}]}))
        said(alice.post(f"/sessions/{session}/parameters", json={"data": {"lr": 0.1}}))
        record = said(alice.post(f"/sessions/{session}/files", files={"file": ("m.pth", b"weights")}))
        known = {"id": session, "name": "train/loss", "workspace": "project", "fid": record["id"]}
        yield serving, {**known, "sha256": record["checksum"], "number": "1"}


# Of what takes neither parameters nor a body there is nothing to get wrong.
IN_ORDER = [(label, GenerationMode.POSITIVE) for label in OPERATIONS]
OUT_OF_ORDER = [
    (label, GenerationMode.NEGATIVE)
    for label, operation in OPERATIONS.items()
    if operation.body or any(True for _ in operation.iter_parameters())
]


@pytest.mark.parametrize(("label", "mode"), [*IN_ORDER, *OUT_OF_ORDER], ids=str)
def test_answers_are_what_the_document_says(
    filled: tuple[Serving, dict[str, str]], label: str, mode: GenerationMode
) -> None:
    serving, known = filled
    numbers = itertools.count(1000 if mode is GenerationMode.NEGATIVE else 0)

    @quick
    @given(OPERATIONS[label].as_strategy(generation_mode=mode), st.integers(0, 3))
    def answers(case: Case, dice: int) -> None:
        if dice:  # of random names nothing but 404 comes
            case.path_parameters = {name: known[name] for name in case.path_parameters or {}}
        if label == "DELETE /sessions/{id}":
            case.path_parameters = {"id": serving.alice.session(f"another {next(numbers)}")}
        sent = case.as_transport_kwargs(base_url=HERE)
        content = {"json": sent["json"]} if "json" in sent else {"content": _bytes(sent.get("data"))}
        kept = {"content-type", "accept", "range"}
        headers = {name: value for name, value in sent["headers"].items() if name.lower() in kept}
        response = serving.alice.request(sent["method"], sent["url"], params=sent["params"], headers=headers, **content)
        case.validate_response(response, checks=CHECKS)

    answers()


def _bytes(data: Any) -> bytes:
    return data if isinstance(data, bytes) else b"" if data is None else str(data).encode()


# ── pushes ──────────────────────────────────────────────────────────────────────────────────────────────────────────

KEYS = ("op", "time", "set", "given", "version", "nonfinite", "track", "trackId", "record", "id", "checksum", "client")
MORE = ("createdAt", "timestamp", "data", "metadata", "message", "level", "state", "error", "name", "workspace")
words = st.sampled_from(
    ["import", "set", "upload", "open", "end", "running", "1" * 32, "\ud800", "NaN", "\n", "\0", "x" * 41, "2026-01-01"]
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.just(10**40), st.floats(), words, st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.one_of(words, st.sampled_from(KEYS + MORE)), inner, max_size=3)
    ),
    max_leaves=6,
)
records_of = {"id": words, "path": st.just("/"), "filename": st.just("m"), "tags": values, "metadata": values}
rows = st.one_of(
    values,
    st.dictionaries(st.sampled_from(KEYS + MORE), values, max_size=6),
    st.fixed_dictionaries({"op": words, "time": words, "set": st.dictionaries(words, values, max_size=2)}),
    st.fixed_dictionaries({"op": st.just("upload"), "record": st.fixed_dictionaries(records_of)}),
    st.fixed_dictionaries({"op": words, "client": st.just("1" * 32), "name": words, "workspace": words, "time": words}),
    st.fixed_dictionaries({"time": words, "track": words, "trackId": words, "set": values}),
)
LOGS = (*HISTORIES, LOGS_LOG, LOSS, "tracks/x/data.jsonl")
# Python's json, as 0.2.x used it: bare NaN, and halves of surrogate pairs as escapes.
lines = st.one_of(rows.map(json.dumps), st.text(max_size=5))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(LOGS), st.lists(lines, max_size=4)), max_size=6))
def test_what_was_taken_can_be_read(pieces: list[tuple[str, str, list[str]]]) -> None:
    """Rows that nobody has thought of: the push takes them or says which it does not, and every read is answered."""
    with opened() as serving:
        session = serving.alice.session()
        heads: dict[tuple[str, str], dict[str, Any]] = {}
        for name, log, given_lines in pieces:
            directory = Directory(serving.alice, name * 32)
            head = heads.get((name, log), {"count": 0, "mark": "0-00000000"})
            piece = {"from": head["count"], "prev": head["mark"], "records": given_lines}
            response = serving.alice.post("/v1/push", json=directory.body(**{log: piece}))
            assert response.status_code in (200, 422), response.text
            heads[name, log] = response.json()["logs"][log]
        assert_reads(serving, session)
        assert_sound(serving, session)


def assert_reads(serving: Serving, session: str) -> None:
    """Every route that reads a session answers, in JSON and within its schema, and so does the list of sessions."""
    names = {"id": session, "name": "train/loss", "workspace": "project"}
    for label, operation in OPERATIONS.items():
        method, path = label.split()
        named = {name: names[name] for name in names if f"{{{name}}}" in path}
        if method != "GET" or "sessions" not in path or "{fid}" in path:
            continue
        response = serving.alice.get(path.format(**named))
        assert response.status_code in (200, 404), (label, response.text)
        if response.status_code == 200:
            said(response)
            operation.Case(path_parameters=named).validate_response(response, checks=CHECKS)
    for record in said(serving.alice.get(f"/sessions/{session}/files"))["files"]:
        assert serving.alice.get(f"/sessions/{session}/files/{_encoded(record['id'])}").status_code in (200, 400)


def _encoded(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def assert_sound(serving: Serving, session: str) -> None:
    """Heads are what the segments say, and segments have neither holes nor lines that they should not."""
    meta, run = serving.server.meta, serving.run
    for (origin, log), head in run(meta.heads(session)).items():
        count, mark = 0, Mark()
        for segment in run(meta.segments(session, origin, log, 0, 1000)):
            assert (segment.first, records.mark_before(segment)) == (count, mark)
            there = records.lines_of(segment)
            assert len(there) == segment.count
            count += segment.count
            mark = mark.after(records.joined(there)) if segment.refused is None else records.mark_at_end(head)
        assert count == head.count
        assert segment.refused is not None or mark == records.mark_at_end(head)


BODY = Directory(None, logs={LOSS: points(6), FILES_LOG: [b'{"op":"delete","id":"x"}']})  # type: ignore[arg-type]
PUSHES = [
    BODY.body(**{LOSS: as_bytes(BODY.piece(LOSS))}),
    BODY.body(**{LOSS: as_bytes(BODY.piece(LOSS, 2, 4)), FILES_LOG: BODY.piece(FILES_LOG)}),
    BODY.body(**{LOSS: {"from": 0, "prev": "0-00000000", "refused": "why", "next": "9-01234567"}}),
    {"origin": "a" * 32, "session": RUN, "logs": None, "blobs": ["ab" * 32]},
]
edits = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255), st.sampled_from("=+-")), min_size=1, max_size=4)


def edited(data: bytes, edits: list[tuple[int, int, str]]) -> bytes:
    found = bytearray(data)
    for place, byte, what in edits:
        at = place % (len(found) + 1)
        if what == "+":
            found.insert(at, byte)
        elif at < len(found):
            found[at : at + 1] = [byte] if what == "=" else []
    return bytes(found)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PUSHES), edits, st.sampled_from(["/v1/push", "/v1/status"]), st.booleans())
def test_damaged_bodies_break_nothing(
    body: dict[str, Any], edits: list[tuple[int, int, str]], path: str, as_msgpack: bool
) -> None:
    with opened() as serving:
        sent = msgpack(body) if as_msgpack else {"content": msgspec.json.encode(body), "headers": {}}
        response = serving.alice.post(path, content=edited(sent["content"], edits), headers=sent["headers"])
        assert response.status_code in (200, 400, 409, 413, 422), response.text
        said(response, response.status_code)
        for session in said(serving.alice.get("/sessions"))["sessions"]:
            assert_sound(serving, session["id"])
            assert serving.alice.get(f"/sessions/{session['id']}/tracks/train/loss/data").status_code == 200


@settings(max_examples=200, deadline=None)
@given(st.lists(lines, min_size=1, max_size=3))
def test_the_quick_look_at_records_takes_nothing_that_a_reader_refuses(given_lines: list[str]) -> None:
    encoded = [line.encode("utf-8", "surrogatepass") for line in given_lines]
    times, wrong = records._checked(encoded, 0)
    for line, time in zip(encoded, times, strict=False):
        assert (time_of(records.parsed(line)) or "") == time
    assert (wrong is None) == (len(times) == len(encoded))
