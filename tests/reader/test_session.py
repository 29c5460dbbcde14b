"""A session directory read as it stands, whatever a person wrote into its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamlake.cli.sessions import summary
from dreamlake.reader.session import SessionReader
from tests.golden import make

LOSS = "tracks/train/loss"
ODD = ("null", '"x"', "[]", "{}", "Infinity", "1e999", "true", '"' + "9" * 5000 + '"')


def edited(tmp_path: Path, path: str, text: str) -> Path:
    folder = make.directory("recovered", tmp_path)
    (folder / ".dreamlake" / "owner").unlink()
    (folder / path).write_text(text, "utf-8")
    return folder


def read(folder: Path) -> dict[str, Any]:
    summary(str(folder))
    with SessionReader(str(folder)) as reader:
        return {
            "count": reader.log_count(),
            "logs": reader.logs(),
            "track": reader.track("train/loss"),
            "stats": reader.stats("train/loss"),
            "points": reader.points("train/loss"),
            "parameters": reader.parameters(),
            "files": reader.files(),
        }


@pytest.mark.parametrize("odd", ODD)
def test_a_number_that_is_none_is_read_as_nothing(odd: str, tmp_path: Path) -> None:
    folder = edited(tmp_path, f"{LOSS}/data.jsonl", f'{{"index":{odd},"data":{{"v":"NaN"}},"nonfinite":{odd}}}\n')
    (folder / f"{LOSS}/metadata.json").write_text(f'{{"totalDataPoints":{odd}}}')
    (folder / "logs/logs.jsonl").write_text(f'{{"sequenceNumber":{odd}}}\n')
    assert read(folder)["stats"]["totalDataPoints"].isdecimal()
    (folder / f"{LOSS}/metadata.json").unlink()
    assert read(folder)["track"]["name"] == "train/loss"


@pytest.mark.parametrize("odd", ODD)
def test_a_list_that_is_none_is_read_as_empty(odd: str, tmp_path: Path) -> None:
    folder = edited(tmp_path, "files/.files_metadata.json", f'{{"files":{odd}}}')
    (folder / "parameters.json").write_text(f'{{"data":{{"lr":"NaN"}},"nonfinite":{odd}}}')
    found = read(folder)
    assert found["files"] == []
    assert found["parameters"] == {"lr": "NaN"}


def test_a_file_without_an_id_is_no_file(tmp_path: Path) -> None:
    folder = edited(tmp_path, "files/.files_metadata.json", '{"files":[{"path":"/x","filename":"y"}]}')
    with SessionReader(str(folder)) as reader:
        (record,) = reader.files()
        with pytest.raises(FileNotFoundError):
            reader.open_file(record)
