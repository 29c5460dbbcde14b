"""Table: which route a method and a path ask for.

Paths are matched as they came, and each parameter is decoded by itself: ``a%2Fb`` is one name, also where ``a/b`` would
be two. Old clients send names as they are, so ``{name:path}`` takes both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote_to_bytes

from dreamlake_server.problem import Problem, bad, not_found
from dreamlake_server.route import Route

_PARAMETER = re.compile(r"\{(\w+)(:path)?\}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Table:
    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self._paths: list[tuple[re.Pattern[str], dict[str, Route]]] = []
        by_path: dict[str, dict[str, Route]] = {}
        for route in self.routes:
            methods = by_path.setdefault(route.path, {})
            assert route.method not in methods, f"{route.method} {route.path} is in the table twice"
            methods[route.method] = route
        for path, methods in by_path.items():
            if "GET" in methods:
                methods.setdefault("HEAD", methods["GET"])
            self._paths.append((pattern(path), methods))

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]]:
        """The route and its parameters. ``path`` as it came, percent-encoded. Raises :class:`Problem`: 404, 405, and
        400 for a name that is no text."""
        allowed: list[str] = []
        for known, methods in self._paths:
            found = known.fullmatch(path)
            if found is None:
                continue
            if route := methods.get(method):
                return route, {name: _decoded(name, value) for name, value in found.groupdict().items()}
            allowed += [each for each in methods if each not in allowed]
        if allowed:
            words = ", ".join(sorted(allowed))
            text = f"{method[:20]} is not answered here, only {words}: see GET /openapi.json"
            raise Problem(405, "method-not-allowed", text, headers={"Allow": words})
        raise not_found("there is no such path: see GET /openapi.json for those there are")


def pattern(path: str) -> re.Pattern[str]:
    """
    >>> pattern("/tracks/{name:path}/data").fullmatch("/tracks/a/data/data")["name"]
    'a/data'
    """
    parts: list[str] = []
    position = 0
    for found in _PARAMETER.finditer(path):
        parts += [re.escape(path[position : found.start()]), f"(?P<{found[1]}>{'.+' if found[2] else '[^/]+'})"]
        position = found.end()
    return re.compile("".join([*parts, re.escape(path[position:])]))


def _decoded(name: str, value: str) -> str:
    try:
        text = unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise bad(f"{name} in the path is not UTF-8: percent-encode its UTF-8 bytes", "bad-name") from None
    if _CONTROL.search(text):
        raise bad(f"{name} {text!r} in the path holds a control character: leave it out", "bad-name")
    return text
