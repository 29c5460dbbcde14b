"""Damaged directories: each is told in words, and repaired without taking anything away."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dreamlake.reader.lines import unnumbered
from dreamlake.reader.verify import verify
from dreamlake.wire import jsons
from dreamlake_agent.repair import Refused, repair
from tests import reading
from tests.verify.corpus import CASES, Case, told
from tests.verify.directories import journaled, kept, killed, left_behind, old, recovered

TOLD = told()
# Where what repair takes away must be found again in cut/.
KEPT_IN_CUT = ("session.json", "parameters.json", "tracks/", "files/.files_metadata.json", ".dreamlake/journals/")


def problems(folder: Path) -> list[str]:
    return [each.sentence for each in verify(str(folder)).problems]


def rows(content: dict[str, bytes | None]) -> Counter[bytes]:
    """Every readable row in the logs and in cut/, without its number."""
    found: Counter[bytes] = Counter()
    for path, data in content.items():
        if data is not None and (path.endswith(".jsonl") or "/cut/" in path):
            for line in data.split(b"\n"):
                try:
                    found[unnumbered(line)] += isinstance(jsons.loads(line), dict)
                except ValueError:
                    pass
    return found


def assert_nothing_was_deleted(before: dict[str, bytes | None], folder: Path, said: list[str]) -> None:
    after = reading.snapshot(folder)
    assert rows(before) - rows(after) == Counter()
    kept = {unnumbered(line) for data in after.values() if data for line in data.split(b"\n")}
    for path, data in before.items():
        if not data or (path not in after and path.startswith(".dreamlake/incoming/")):
            continue  # captures are put in their places
        if path.endswith(".jsonl"):
            left = [line for line in data.split(b"\n") if line.strip(b"\0")]
            gone = [line for line in left if unnumbered(line) not in kept]
            assert [line for line in gone if not reading.kept_somewhere(folder, unnumbered(line))] == []
        elif path.startswith("files/") and path != "files/.files_metadata.json":
            assert reading.kept_somewhere(folder, data), path
        elif path.startswith(KEPT_IN_CUT) and any(path in each and ".dreamlake/cut" in each for each in said):
            assert reading.kept_somewhere(folder, data[-30:]), path


@pytest.mark.parametrize("healthy", [recovered, killed, kept, journaled, old], ids=lambda make: make.__name__)
def test_a_healthy_directory_has_no_problem_and_needs_no_repair(healthy, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = healthy(tmp_path)
    before = reading.snapshot(folder)
    assert problems(folder) == []
    assert reading.snapshot(folder) == before
    left_behind(folder)
    repair(str(folder), lambda sentence: None)
    report = verify(str(folder))
    assert (report.findings, report.waiting) == ([], 0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_damage_is_told_to_the_letter_and_repaired(case: Case, tmp_path: Path) -> None:
    folder = case.healthy(tmp_path)
    case.damage(folder)
    before = reading.snapshot(folder)
    report = verify(str(folder))
    said = [each.sentence for each in report.problems]
    assert said == TOLD[case.name].problems
    assert [note for note in TOLD[case.name].notes if note not in [each.sentence for each in report.notes]] == []
    assert reading.snapshot(folder) == before, "looking changed something"
    left_behind(folder)
    if case.refused:
        with pytest.raises(Refused):
            repair(str(folder), lambda sentence: None)
    else:
        repair(str(folder), lambda sentence: None)
    assert problems(folder) == TOLD[case.name].rest
    assert_nothing_was_deleted(before, folder, said)
    # What is called repairable is repaired, and nothing else is.
    after = {each.sentence for each in verify(str(folder)).problems}
    assert not [each.sentence for each in report.problems if each.repairable and each.sentence in after]


def test_the_corpus_is_large_enough() -> None:
    assert [case.name for case in CASES] == list(TOLD)
    assert len(TOLD) == len(CASES) >= 30
