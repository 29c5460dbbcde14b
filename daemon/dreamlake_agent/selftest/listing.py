"""Listings: whoever has changed a folder sees all that is in it, whatever he believed before."""

from __future__ import annotations

import os

from dreamlake_agent.selftest.finding import Finding, Raw, holds_if
from dreamlake_agent.selftest.meeting import Side

NAME = "listing"
ROUNDS = 10


def measure(side: Side) -> Raw:
    os.mkdir(side.mine("listing"))
    side.swap("folders are there")
    lacking = 0
    for number in range(ROUNDS):
        os.listdir(side.theirs("listing"))
        side.swap(f"listed {number}")
        os.close(os.open(side.mine(f"listing/{number}"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        side.swap(f"made {number}")
        os.mkdir(side.theirs("listing/mark"))
        os.rmdir(side.theirs("listing/mark"))
        lacking += str(number) not in os.listdir(side.theirs("listing"))
    side.swap("listings are seen")
    return {"lacking": lacking}


def judge(first: Raw, second: Raw) -> list[Finding]:
    lacking = first["lacking"] + second["lacking"]
    text = f"{2 * ROUNDS} listings" + (f", {lacking} without a name that was there" if lacking else "")
    return [
        holds_if(
            not lacking,
            "whoever changes a folder sees all that is in it",
            text,
            follows="whoever takes a directory over has seen every log and journal in it",
            otherwise="a takeover may miss a log that is new: wait for longer than caches last before one",
            needed=True,
            figures={"lacking": lacking},
        )
    ]
