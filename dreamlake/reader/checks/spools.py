"""Spools: where the journals are that are not in the directory, and what of them is not seen from here."""

from __future__ import annotations

from dreamlake.reader.checks.finding import Look
from dreamlake.reader.segments import JOURNALS
from dreamlake.reader.spools import MARKER, Away, Spooled, is_marker


def check_spools(look: Look, spooled: Spooled) -> None:
    with look.reading(JOURNALS):
        names = [name for name in look.disk.listdir(JOURNALS, look.at) if is_marker(name)]
        for name in names:
            path = f"{JOURNALS}/{name}"
            if spooled.is_strange(name):
                look.problem("foreign", path, f"{path} is no marker of a journal of yours and is ignored; move it away")
            elif name in spooled.litter and not look.live:
                look.note(
                    "spool", path, f"{path} is of a journal that is not there any more: the next agent removes it"
                )
            elif name.removesuffix(MARKER) in spooled.away:
                look.note("spool", path, _sentence(path, spooled.away[name.removesuffix(MARKER)]))


def _sentence(path: str, away: Away) -> str:
    where = f"{away.marker.path} on {away.marker.host}"
    if away.is_copied:
        return f"{path} came with a copy: the journal in {where} is the other directory's; remove this file"
    return (
        f"{path}: {away.sentence}: an agent there applies it, or `dreamlake sync` there; if that disk is lost, remove "
        "this file, and what only it held is lost"
    )
