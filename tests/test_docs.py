"""The pages' Python runs as printed.

The blocks of a page run in their order, as one script, in an empty working directory. The script has every
line of code where the page has it, so a traceback names the page's own lines. Two comments, invisible on the
page, take part: `<!-- needs: CODE -->` supplies what a block leaves undefined, `<!-- check: CODE -->` holds
the page to its word.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import scripts

TOP = Path(__file__).parents[1]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]

OPENING = re.compile(r"```(python|\{code-block\} python)")
OPTION = re.compile(r":[a-z]+:.*")
COMMENT = re.compile(r"<!-- (?:needs|check): (.*) -->")


def script_of(page: str) -> str:
    """The page's code, on the page's lines."""
    lines = []
    inside = code_seen = False
    for line in page.splitlines():
        keep = ""
        if inside and line == "```":
            inside = False
        elif inside and (code_seen or not OPTION.fullmatch(line)):
            keep, code_seen = line, code_seen or bool(line)
        elif not inside and OPENING.fullmatch(line):
            inside, code_seen = True, False
        elif not inside and (comment := COMMENT.fullmatch(line)):
            keep = comment[1]
        lines.append(keep)
    assert not inside, "a block without its end"
    return "\n".join(lines) + "\n"


def test_code_keeps_its_lines_and_prose_and_shell_are_left_out() -> None:
    page = "Words\n```{code-block} python\n:linenos:\n\na = x\n```\n```\nmake demo\n```\n```python\nb = a\n```\n"
    assert script_of("<!-- needs: x = 1 -->\n" + page).splitlines() == [
        "x = 1", "", "", "", "", "a = x", "", "", "", "", "", "b = a", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "page", [page for page in PAGES if script_of(page.read_text("utf-8")).strip()], ids=lambda p: p.name
)
def test_the_code_of_a_page_runs(page: Path, home: Path, tmp_path: Path) -> None:
    script = tmp_path / f"page_{page.stem}.py"  # logging.py would stand before the library
    script.write_text(script_of(page.read_text("utf-8")), "utf-8")
    empty = tmp_path / "here"
    empty.mkdir()
    # A page may name a server that is not ours; nothing goes there.
    scripts.run(script, cwd=empty, env={"HTTPS_PROXY": "http://127.0.0.1:9"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text("utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing
