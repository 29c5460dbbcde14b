"""OpenAPI: the table of routes as a document (OpenAPI 3.1) that programs read. Nothing is said here by hand that the
table says already.
"""

from __future__ import annotations

import re
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import msgspec

import dreamlake
from dreamlake_server.route import JSON, MSGPACK, Route

_REF = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")
_ABOUT = (
    "Sessions of many users and machines. Bodies and answers are JSON, or msgpack where Content-Type or Accept say "
    "application/msgpack; a body may come in Content-Encoding zstd. Names in a path are percent-encoded UTF-8."
)


class Error(msgspec.Struct):
    """What cannot be done, and why. ``error`` is a short word for programs; there may be further fields."""

    error: str
    message: str


@lru_cache(maxsize=4)
def document(routes: tuple[Route, ...]) -> dict[str, Any]:
    """The whole document, as plain values."""
    kinds: list[type[msgspec.Struct]] = [Error]
    for route in routes:
        kinds += [kind for kind in (route.query, route.body, route.answer) if kind is not None and kind not in kinds]
    references, schemas = msgspec.json.schema_components(kinds, ref_template=_REF)
    of = dict(zip(kinds, references, strict=True))
    elsewhere = {kind for route in routes for kind in (route.body, route.answer)}
    queries = {route.query for route in routes if route.query is not None} - elsewhere
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = paths.setdefault(_PARAMETER.sub(r"{\1}", route.path), {})
        path[route.method.lower()] = _operation(route, of, schemas)
    for query in queries:
        schemas.pop(_name(of[query]), None)  # taken apart into parameters
    return {
        "openapi": "3.1.0",
        "info": {"title": "Dreamlake", "version": dreamlake.__version__, "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "dlk_<id>_<secret>"}},
        },
    }


def _operation(route: Route, of: dict[type[msgspec.Struct], Any], schemas: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"summary": route.does, "operationId": _operation_id(route)}
    if parameters := [*_in_path(route), *_in_query(route, of, schemas)]:
        found["parameters"] = parameters
    if route.body is not None:
        kinds = {kind: {"schema": of[route.body]} for kind in (JSON, MSGPACK[0])}
        found["requestBody"] = {"required": bool(_schema(of[route.body], schemas).get("required")), "content": kinds}
    elif route.streams:
        found["requestBody"] = {"required": True, "content": {route.streams: {}}}
    done: dict[str, Any] = {"description": "Done"}
    if route.answer is not None:
        done["content"] = {kind: {"schema": of[route.answer]} for kind in (JSON, MSGPACK[0])}
    error = {JSON: {"schema": of[Error]}}
    found["responses"] = {"200": done} | {
        str(status): {"description": HTTPStatus(status).phrase, "content": error} for status in statuses(route)
    }
    found["security"] = [] if route.public else [{"token": []}]
    return found


def statuses(route: Route) -> list[int]:
    """The errors that a route may answer with.

    A browser of another site is always 403, and a store that is away 503.
    """
    found = {403, 421, 500, 503, *route.errors}
    if not route.public:
        found |= {401, 429}
    if route.query is not None or route.body is not None or "{" in route.path:
        found.add(400)
    if route.body is not None or route.streams:
        found.add(413)
    if route.body is not None:
        found.add(415)
    return sorted(found)


def _operation_id(route: Route) -> str:
    words = re.findall(r"\w+", route.path.replace(":path", ""))
    return "_".join([route.method.lower(), *words])


def _in_path(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(route.path)
    ]


def _in_query(route: Route, of: dict[type[msgspec.Struct], Any], schemas: dict[str, Any]) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    schema = _schema(of[route.query], schemas)
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": kind}
        for name, kind in schema["properties"].items()
    ]


def _schema(reference: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schemas[_name(reference)]
    return found


def _name(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]
