"""Docs: /openapi.json as one page for people. It loads nothing and runs nothing, and says so to the browser."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font: 14px/1.4 ui-monospace, monospace; }
h2 { margin: 2rem 0 0.25rem; font-size: 1rem; }
pre { overflow-x: auto; padding: 0.5rem; border: 1px solid #8886; }
table { border-collapse: collapse; }
td, th { padding: 0.1rem 1rem 0.1rem 0; text-align: left; vertical-align: top; }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def page(document: dict[str, Any]) -> str:
    """HTML of a document that ``openapi.py`` made."""
    info = document["info"]
    title = f"{info['title']} {info['version']}"
    schemas = document["components"]["schemas"]
    operations = [
        _operation(method, path, each)
        for path, methods in document["paths"].items()
        for method, each in methods.items()
    ]
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
            f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>',
            f"<h1>{escape(title)}</h1><p>{escape(info['description'])}</p>",
            "<p>Send <code>Authorization: Bearer &lt;token&gt;</code>.",
            'The same for programs: <a href="openapi.json">openapi.json</a>.</p>',
            *operations,
            "<h1>Types</h1>",
            *(_type(name, schema) for name, schema in sorted(schemas.items())),
            "</body></html>",
        ]
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    lines = [f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation['summary'])}"]
    if not operation["security"]:
        lines.append(" Needs no token.")
    lines.append("</p>")
    rows = [
        (each["name"], each["in"] + (", required" if each["required"] else ""), kind_of(each["schema"]))
        for each in operation.get("parameters", [])
    ]
    if "requestBody" in operation:
        rows.append(("", "body", _content(operation["requestBody"])))
    rows.append(("", "answer", _content(operation["responses"]["200"])))
    rows.append(("", "errors", ", ".join(status for status in operation["responses"] if status != "200")))
    return "".join([*lines, _table(rows)])


def _content(holder: dict[str, Any]) -> str:
    for kind, content in holder.get("content", {}).items():
        return kind_of(content["schema"]) if "schema" in content else str(kind)
    return "bytes or an object"


def kind_of(schema: dict[str, Any]) -> str:
    """A schema in a few words.

    >>> kind_of({"type": "array", "items": {"anyOf": [{"type": "integer"}, {"type": "null"}]}})
    'list of integer or null'
    """
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(kind_of(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(repr(each) for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {kind_of(schema.get('items') or {})}"
    return str(schema.get("type", "anything"))


def _type(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    rows = [
        (field, "required" if field in required else "", kind_of(kind))
        for field, kind in schema.get("properties", {}).items()
    ]
    about = escape(schema.get("description", ""))
    return f"<h2><code>{escape(name)}</code></h2><p>{about}</p>{_table(rows)}"


def _table(rows: list[tuple[str, str, str]]) -> str:
    return "".join(
        [
            "<table>",
            *(
                f"<tr><td><code>{escape(one)}</code></td><td>{escape(two)}</td><td>{escape(three)}</td></tr>"
                for one, two, three in rows
            ),
            "</table>",
        ]
    )
