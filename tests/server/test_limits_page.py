"""docs/server.md tells every limit that users can meet, as it is."""

from __future__ import annotations

import re
from pathlib import Path

from dreamlake_server import limits
from dreamlake_server.api import multipart

PAGE = (Path(__file__).parents[2] / "docs" / "server.md").read_text("utf-8")
LIMITS = {name: value for name, value in vars(limits).items() if name.isupper()}

# How the server stores and repeats what it has taken: nothing is refused for these.
OUR_OWN = {"SEGMENT_BYTES", "SEGMENT_ROWS", "TAIL_BYTES", "RACE_TRIES", "APPEND_BYTES", "APPEND_LOGS"}
# Told by its name, too, and kept where it is used.
TOLD = LIMITS | {"FIELD_BYTES": multipart.FIELD_BYTES}


def with_unit(name: str, value: int) -> str:
    if name.endswith("_SECONDS"):
        return f"{value:,} s"
    if name.endswith("_DAYS"):
        return f"{value:,} days"
    if not name.endswith("_BYTES"):
        return f"{value:,}"
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB")):
        if value % (1 << 10 * power) == 0:
            return f"{value >> 10 * power:,} {unit}"
    return f"{value:,} bytes"


def test_every_limit_is_told_as_it_is() -> None:
    printed = dict(re.findall(r"^\| `([A-Z_]+)` \| ([^|]+?) \|", PAGE, re.MULTILINE))
    told = {name: with_unit(name, value) for name, value in TOLD.items() if name not in OUR_OWN}
    environment = {name for name in printed if name.startswith(("DREAMLAKE_", "AWS_"))}
    assert {name: value for name, value in printed.items() if name not in environment} == told
    assert set(LIMITS) >= OUR_OWN


def test_values_that_the_prose_repeats_are_those_of_the_table() -> None:
    for sentence in (
        f"After {limits.TOKEN_FAILURES} wrong tokens from one address within a minute",
        f"After {limits.PURGE_DAYS} days (`--purge-days`)",
        "URLs that are good for an hour",
    ):
        assert sentence in PAGE
    assert limits.TOKEN_FAILURE_SECONDS == 60
    assert limits.URL_SECONDS == 3600
