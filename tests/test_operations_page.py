"""docs/operations.md tells everything that whoever runs Dreamlake may meet, as it is in the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import click
import pytest

from dreamlake import config, rank
from dreamlake.cli import cli
from dreamlake_agent.core.agent import Agent
from dreamlake_agent.core.limits import KINDS
from dreamlake_agent.observe import metrics
from dreamlake_agent.observe.observing import SETTING
from dreamlake_server import limits as server_limits
from tests.agent.test_metrics import status_of

TOP = Path(__file__).parents[1]
PAGE = (TOP / "docs" / "operations.md").read_text("utf-8")
SERVER_PAGE = (TOP / "docs" / "server.md").read_text("utf-8")
SOURCES = [path for folder in ("dreamlake", "daemon") for path in sorted((TOP / folder).rglob("*.py"))]

UNITS = {1 << 10: "KiB", 1 << 20: "MiB", 1 << 30: "GiB", 1 << 40: "TiB"}


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"no section {title!r}"
    return found[1]


def rows(text: str) -> dict[str, list[str]]:
    """First cell → the others, of every row that begins with a word in backticks."""
    found = re.findall(r"^\| `([^`]+)` \|(.*)\|$", text, re.MULTILINE)
    return {name: [cell.strip() for cell in rest.split("|")] for name, rest in found}


def with_unit(name: str, value: Any) -> str:
    """
    >>> with_unit("CREDIT_BYTES", (32 << 10, 1 << 20)), with_unit("TICK_SECONDS", 0.05), with_unit("TRIES_MAX", 4096)
    ('32 KiB, 1 MiB', '0.05 s', '4,096')
    """
    if isinstance(value, tuple):
        return ", ".join(with_unit(name, each) for each in value)
    if isinstance(value, str):
        return f"`{value}`"
    if "SECONDS" in name:
        return f"{value:g} s"
    if "SHARE" in name:
        return f"{value:.0%}"
    if "BYTES" in name:
        for size in sorted(UNITS, reverse=True):
            if value >= size and value % size == 0:
                return f"{value // size:,} {UNITS[size]}"
        return f"{value:,} bytes"
    return f"{value:,}"


LIMITS = {name: value for name, value in vars(config).items() if name.isupper() and not name.startswith("_")}


def test_every_limit_is_told_as_it_is() -> None:
    told = {name: cells[0] for name, cells in rows(section("Limits")).items()}
    assert told == {name: with_unit(name, value) for name, value in LIMITS.items()}


def test_every_limit_of_the_server_is_told_where_the_page_says_it_is() -> None:
    assert "[The server's](server.md#limits)" in section("Limits")
    ours = {"SEGMENT_BYTES", "SEGMENT_ROWS", "TAIL_BYTES", "RACE_TRIES", "APPEND_BYTES", "APPEND_LOGS"}
    lacking = {name for name in vars(server_limits) if name.isupper() and f"`{name}`" not in SERVER_PAGE} - ours
    assert lacking == set()


# ── variables ───────────────────────────────────────────────────────────────────────────────────────────────────────


def variables() -> set[str]:
    """Every environment variable that the sources name: all of ours anywhere, and others where one is read."""
    found = set()
    for path in SOURCES:
        text = path.read_text("utf-8")
        found |= set(re.findall(r"\bDREAMLAKE_[A-Z0-9_]*[A-Z0-9]\b", text))
        found |= set(re.findall(r"environ(?:\.get|\.pop)?[\[(]\s*\"([A-Z][A-Z0-9_]+)\"", text))
        found |= set(re.findall(r"``((?:[A-Z]+_PROXY|SSL_CERT_[A-Z]+))``", text))
        if "envvar" not in text and "_VARIABLES" not in text and "_ENDPOINTS" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.keyword) and node.arg == "envvar" and isinstance(node.value, ast.Constant):
                found.add(node.value.value)
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("_VARIABLES", "_ENDPOINTS"):
                found |= set(ast.literal_eval(node.value))
    return found | {name for names in rank._LAUNCHERS for name in names}


def test_every_variable_is_told() -> None:
    told = {
        name
        for cell in re.findall(r"^\| (`[^|]+) \|", section("Environment"), re.MULTILINE)
        for name in cell.split("`")
    }
    lacking = variables() - told
    assert lacking == set()
    ours = {name for name in told if name.startswith("DREAMLAKE_")}
    assert ours <= variables(), "a variable is told that nobody reads"


# ── exit codes ──────────────────────────────────────────────────────────────────────────────────────────────────────


def commands(command: click.Command, path: tuple[str, ...] = ()) -> set[str]:
    if not isinstance(command, click.Group):
        return {" ".join(path)}
    found = set()
    for name in command.list_commands(click.Context(command)):
        inner = command.get_command(click.Context(command), name)
        assert inner is not None
        found |= commands(inner, (*path, name))
    return found


def test_every_command_is_told_with_its_exit_codes() -> None:
    text = section("Exit codes")
    told = {
        name for cell in re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE) for name in re.findall(r"`([^`]+)`", cell)
    }
    assert told == commands(cli)


def exit_constants() -> dict[str, int]:
    """Names of whole numbers that end a command: ``raise SystemExit(NAME)``, ``return NAME``, and those of a unit."""
    found = {}
    for path in SOURCES:
        text = path.read_text("utf-8")
        if "SystemExit(" not in text and path.stem not in ("main", "verify", "syncing"):
            continue
        tree = ast.parse(text)
        numbers = {
            node.targets[0].id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
            and type(node.value.value) is int
        }
        for node in ast.walk(tree):
            ends = isinstance(node, ast.Raise) and ast.unparse(node).startswith("raise SystemExit(")
            if ends or (isinstance(node, ast.Return) and path.stem in ("main", "verify", "syncing")):
                named = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)} & set(numbers)
                found |= {f"{path.stem}.{name}": numbers[name] for name in named}
    return found


def test_every_exit_code_that_has_a_name_is_told() -> None:
    constants = exit_constants()
    assert {"agent.NO_AGENT", "main.IS_RUNNING", "main.WRONG_SOCKET", "install.NO_SYSTEMD"} <= set(constants)
    text = section("Exit codes")
    assert {name for name, code in constants.items() if f"**{code}**" not in text} == set()


# ── metrics ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_metric_is_told_with_its_labels() -> None:
    core = Agent(b"incarnat")
    found = {family.name: family for family in metrics.families(core, status_of(core), None)}
    told = rows(section("Metrics"))
    assert set(told) == set(found)
    for name, (kind, labels, _) in told.items():
        assert kind == found[name].kind
        assert tuple(re.findall(r"`(\w+)`", labels)) == found[name].labels


def test_every_kind_of_warning_is_told() -> None:
    assert set(rows(section("Warnings"))) == {*KINDS, SETTING}


# ── signals, files ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_signal_that_somebody_listens_to_is_told() -> None:
    named = {name for path in SOURCES for name in re.findall(r"signal\.(SIG[A-Z]+)\b", path.read_text("utf-8"))}
    told = set(re.findall(r"`(SIG[A-Z]+)`", section("Signals")))
    assert named - {"SIG", "SIGKILL"} <= told


@pytest.mark.parametrize(
    "name", ["agent.sock", "agent.lock", "start.lock", "agent.log", "credentials.json", "directories"]
)
def test_files_are_told_by_the_names_that_they_have(name: str) -> None:
    assert any(f'"{name}"' in path.read_text("utf-8") for path in SOURCES)
    assert name in section("Files and sockets")
