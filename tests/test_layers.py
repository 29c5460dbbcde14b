"""Imports run one way, and what may fail or wait lives in few files."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "dreamlake": ROOT / "dreamlake",
    "dreamlake_agent": ROOT / "daemon" / "dreamlake_agent",
    "dreamlake_server": ROOT / "daemon" / "dreamlake_server",
}
SERVER = "daemon/dreamlake_server"

# Who may name a foreign library: files, or (a name ending in "/") everything below a folder.
NAMED_ONLY_IN = {
    "zmq": ["dreamlake/world/sockets.py"],
    "msgpack": ["dreamlake/wire/codec.py"],
    "psutil": ["dreamlake/world/processes.py"],
    "orjson": ["dreamlake/wire/jsons.py"],
    "click": [
        "dreamlake/cli/",
        "daemon/dreamlake_agent/cli/agent.py",
        "daemon/dreamlake_agent/cli/install.py",
        "daemon/dreamlake_agent/cli/logs.py",
        "daemon/dreamlake_agent/cli/login.py",
        "daemon/dreamlake_agent/cli/pull.py",
        "daemon/dreamlake_agent/cli/sync.py",
        "daemon/dreamlake_agent/cli/progress.py",
        "daemon/dreamlake_agent/cli/selftest.py",
        "daemon/dreamlake_agent/cli/takeover.py",
        f"{SERVER}/cli.py",
    ],
    "starlette": [f"{SERVER}/app.py", f"{SERVER}/route.py"],
    "uvicorn": [f"{SERVER}/main.py"],
    "pymongo": [
        f"{SERVER}/stores/mongodb.py",
        f"{SERVER}/stores/mongodb_connection.py",
        f"{SERVER}/stores/mongodb_tokens.py",
    ],
    "obstore": [f"{SERVER}/stores/s3.py"],
    "httpx": [f"{SERVER}/stores/s3.py", "dreamlake/remote/lake.py", "dreamlake/remote/ways.py"],
    "rich": ["daemon/dreamlake_agent/cli/progress.py"],
    "sqlite3": [f"{SERVER}/stores/sqlite.py", f"{SERVER}/stores/sqlite_file.py", f"{SERVER}/stores/sqlite_tokens.py"],
    "prometheus_client": [f"{SERVER}/metrics.py"],
    "python_multipart": [f"{SERVER}/api/multipart.py"],
    "backports": ["dreamlake/wire/zstd.py"],
    # Typed bodies are what every route is about.
    "msgspec": [f"{SERVER}/", "dreamlake/reader/arrays.py"],
}

# A clock, a disk, a socket, a thread, chance, a log: none of it in a pure part.
IMPURE = {
    "asyncio",
    "fcntl",
    "logging",
    "mmap",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "secrets",
    "select",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "time",
}
IMPURE_CALLS = {"open", "print", "input", "breakpoint", "__import__"}

PURE = {
    # part: what of the project, and what foreign libraries, it may know
    "dreamlake.wire": ({"dreamlake.wire"}, {"_sha2", "_sha256", "backports", "compression", "msgpack", "orjson"}),
    "dreamlake_agent.core": (
        {"dreamlake_agent.core", "dreamlake.wire", "dreamlake.config", "dreamlake.errors"},
        set[str](),
    ),
    # What the server decides: what is taken of a push.
    "dreamlake_server.records": (
        {"dreamlake.wire", "dreamlake_server.limits", "dreamlake_server.stores.meta"},
        {"msgspec"},
    ),
}

SERVER_MAY_KNOW = {"dreamlake.wire", "dreamlake.reader", "dreamlake.config", "dreamlake.errors", "dreamlake.systemd"}

AGENT_MAY_KNOW = {
    "dreamlake.wire",
    "dreamlake.reader",
    "dreamlake.config",
    "dreamlake.world",
    "dreamlake.remote",
    "dreamlake.journal",
    "dreamlake.errors",
    "dreamlake.systemd",
}


def module_of(path: Path) -> str:
    for package, folder in PACKAGES.items():
        if path.is_relative_to(folder):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    raise AssertionError(path)


FILES = {module_of(path): path for folder in PACKAGES.values() for path in sorted(folder.rglob("*.py"))}
TREES = {module: ast.parse(path.read_text(encoding="utf-8"), str(path)) for module, path in FILES.items()}


def imports(module: str) -> set[str]:
    """The dotted name of every module that the source names in an import, wherever it stands."""
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - (node.level - 1)] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in FILES else base)
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__") and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                found.add(first.value)
    return found


def called(node: ast.Call) -> str:
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def within(module: str, parts: set[str]) -> bool:
    return any(module == part or module.startswith(part + ".") for part in parts)


def ours(module: str) -> bool:
    return module.partition(".")[0] in PACKAGES


def below(part: str) -> list[str]:
    found = [module for module in FILES if within(module, {part})]
    assert found, f"there is no {part}"
    return found


def test_relative_imports_are_understood() -> None:
    assert len(FILES) > 10
    assert any(ours(name) for module in FILES for name in imports(module))
    known = {name for module in FILES for name in imports(module) if ours(name)}
    assert {name for name in known if name not in FILES} == set()


@pytest.mark.parametrize("daemon", ["dreamlake_agent", "dreamlake_server"])
def test_the_library_does_not_know_the_daemons(daemon: str) -> None:
    wrong = {module: found for module in below("dreamlake") if (found := imports_of(module, daemon))}
    assert wrong == {}


def imports_of(module: str, package: str) -> set[str]:
    return {name for name in imports(module) if within(name, {package})}


@pytest.mark.parametrize(
    ("daemon", "known"), [("dreamlake_agent", AGENT_MAY_KNOW), ("dreamlake_server", SERVER_MAY_KNOW)]
)
def test_a_daemon_knows_of_the_library_what_it_may_and_not_the_other_one(daemon: str, known: set[str]) -> None:
    allowed = known | {daemon}
    wrong = {
        (module, name)
        for module in below(daemon)
        for name in imports(module)
        if ours(name) and name != "dreamlake" and not within(name, allowed)  # the package itself has the version
    }
    assert wrong == set()


def test_the_stores_do_not_know_what_they_keep() -> None:
    for module in below("dreamlake_server.stores"):
        known = {name for name in imports(module) if ours(name)} - {"dreamlake"}
        allowed = {"dreamlake_server.stores", "dreamlake_server.limits", "dreamlake.wire.names", "dreamlake.wire.jsons"}
        assert {name for name in known if not within(name, allowed)} == set(), module


def test_inside_the_agent_core_store_and_remote_do_not_know_each_other() -> None:
    for one, other in itertools.permutations(("core", "store", "remote"), 2):
        for module in below(f"dreamlake_agent.{one}"):
            assert imports_of(module, f"dreamlake_agent.{other}") == set(), module


@pytest.mark.parametrize("part", PURE)
def test_a_pure_part_imports_nothing_that_could_wait_or_fail(part: str) -> None:
    project, foreign = PURE[part]
    for module in below(part):
        for name in imports(module):
            top = name.partition(".")[0]
            if ours(name):
                assert within(name, project), f"{module} imports {name}"
            else:
                assert top in sys.stdlib_module_names | foreign, f"{module} imports {name}"
                assert top not in IMPURE, f"{module} imports {name}"


@pytest.mark.parametrize("part", PURE)
def test_a_pure_part_never_asks_for_the_time_or_opens_a_file(part: str) -> None:
    for module in below(part):
        for node in ast.walk(TREES[module]):
            if not isinstance(node, ast.Call):
                continue
            if isinstance(node.func, ast.Name):
                assert node.func.id not in IMPURE_CALLS, f"{module}:{node.lineno}"
            elif isinstance(node.func, ast.Attribute):
                assert node.func.attr not in {"now", "utcnow", "today", "uuid4", "uuid1"}, f"{module}:{node.lineno}"


@pytest.mark.parametrize("library", NAMED_ONLY_IN)
def test_a_foreign_library_is_named_in_few_files(library: str) -> None:
    named = [
        FILES[module].relative_to(ROOT).as_posix()
        for module in FILES
        if any(within(name, {library}) for name in imports(module))
    ]
    allowed = NAMED_ONLY_IN[library]
    wrong = [
        file
        for file in named
        if not any(file == place or (place.endswith("/") and file.startswith(place)) for place in allowed)
    ]
    assert wrong == []
    assert named, f"nobody names {library}: is the table out of date?"


def test_the_daemon_folder_is_no_package() -> None:
    assert not (ROOT / "daemon" / "__init__.py").exists()


def test_importing_the_library_is_light() -> None:
    heavy = sorted(
        {*NAMED_ONLY_IN, "dreamlake_agent", "dreamlake_server", "numpy", "asyncio", "http", "multiprocessing"}
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, dreamlake; print([m for m in {heavy!r} if m in sys.modules])"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
