"""The page which the product was promised with: its code runs as printed and leaves what it draws."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import reading, scripts

pytestmark = pytest.mark.home("shared")

SEED = (Path(__file__).parents[1] / "data" / "seed_sessions.md").read_text(encoding="utf-8")

# Only what the blocks leave undefined; model.pth lies in the working directory.
PRELUDE = "from dreamlake import Session\n\ndef train_epoch():\n    return 0.5\n\n"

# The headings above the blocks, in the page's order, and what each block must leave.
BLOCKS = {
    "context manager": (".dreamlake/project/my-experiment", ["logs/logs.jsonl", "parameters.json"]),
    "decorator": (
        ".dreamlake/project/my-experiment",
        ["logs/logs.jsonl", "parameters.json", "tracks/loss/data.jsonl"],
    ),
    "direct": (".dreamlake/project/my-experiment", ["logs/logs.jsonl", "parameters.json"]),
    "local": ("experiments/project/my-experiment", ["logs/logs.jsonl"]),
    "remote": ("", []),
    "metadata": ("experiments/computer-vision/resnet50-imagenet", ["logs/logs.jsonl"]),
    "resuming": (".dreamlake/ml/long-training", ["logs/logs.jsonl", "tracks/loss/data.jsonl"]),
    "operations": (
        ".dreamlake/test/demo",
        ["logs/logs.jsonl", "parameters.json", "tracks/loss/data.jsonl", "files/models/model.pth"],
    ),
}


def python_blocks() -> dict[str, str]:
    found = re.findall(r"^```\{code-block\} python\n:linenos:\n(.*?)^```$", SEED, re.DOTALL | re.MULTILINE)
    assert len(found) == len(BLOCKS)
    return dict(zip(BLOCKS, found, strict=True))


def drawn_paths() -> list[str]:
    """The tree under "Storage Structure", as paths: folders end in "/"."""
    drawing = re.search(r"^```\n(\./experiments/\n.*?)^```$", SEED, re.DOTALL | re.MULTILINE)
    assert drawing
    paths: list[str] = []
    above: list[str] = []
    for line in drawing.group(1).splitlines():
        name = re.sub(r"^[│├└─ ]*", "", line)
        depth = (len(line) - len(name)) // 4
        above = [*above[:depth], name]
        paths.append("".join(above))
    return paths


def run_block(name: str, cwd: Path, env: dict[str, str] | None = None) -> None:
    (cwd / "model.pth").write_bytes(b"weights")
    scripts.run(PRELUDE + python_blocks()[name], cwd=cwd, env=env)


@pytest.mark.parametrize("name", [name for name in BLOCKS if name != "remote"])
def test_a_block_runs_verbatim_and_leaves_its_paths(name: str, home: Path, tmp_path: Path) -> None:
    run_block(name, tmp_path)
    session, paths = BLOCKS[name]
    for path in paths:
        assert (tmp_path / session / path).is_file(), path
    assert reading.view(tmp_path / session / "session.json")["state"] == "finished"


def test_the_drawing_is_understood() -> None:
    assert drawn_paths() == [
        "./experiments/",
        "./experiments/project/",
        "./experiments/project/my-experiment/",
        "./experiments/project/my-experiment/logs/",
        "./experiments/project/my-experiment/logs/logs.jsonl",
        "./experiments/project/my-experiment/parameters.json",
        "./experiments/project/my-experiment/tracks/",
        "./experiments/project/my-experiment/tracks/loss/",
        "./experiments/project/my-experiment/tracks/loss/data.jsonl",
        "./experiments/project/my-experiment/files/",
        "./experiments/project/my-experiment/files/models/",
        "./experiments/project/my-experiment/files/models/model.pth",
    ]


def test_every_path_that_the_page_draws_is_there(home: Path, tmp_path: Path) -> None:
    """The page draws one session that used everything; its code names that session test/demo."""
    run_block("operations", tmp_path, env={"DREAMLAKE_LOCAL_PATH": "./experiments"})
    for path in drawn_paths():
        here = tmp_path / path.replace("project/", "test/").replace("my-experiment/", "demo/")
        assert here.is_dir() if path.endswith("/") else here.is_file(), here
    model = tmp_path / "experiments/test/demo/files/models/model.pth"
    assert model.read_bytes() == b"weights"


def test_the_decorated_function_stored_what_it_says(home: Path, tmp_path: Path) -> None:
    run_block("decorator", tmp_path)
    folder = tmp_path / ".dreamlake/project/my-experiment"
    assert [point["data"] for point in reading.points(folder)] == [
        {"value": 0.5, "epoch": epoch} for epoch in range(10)
    ]
    assert reading.messages(folder) == ["Training started"]
    assert reading.view(folder / "parameters.json")["data"] == {"learning_rate": 0.001}


def test_the_resumed_session_continued(home: Path, tmp_path: Path) -> None:
    run_block("resuming", tmp_path)
    folder = tmp_path / ".dreamlake/ml/long-training"
    assert reading.messages(folder) == ["Starting epoch 1", "Resuming from checkpoint"]
    reading.assert_consecutive(reading.points(folder))
    assert reading.values(folder) == [0.5, 0.3]
