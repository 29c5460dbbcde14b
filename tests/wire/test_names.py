"""Names: none leaves its folder, none meets another's."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamlake.wire import names

PURE = settings(deadline=None, derandomize=True)

# Text in which what is special here is common.
SPECIAL = st.text(st.sampled_from("%25fF/.a é\0"), max_size=12)
ANY = st.one_of(SPECIAL, st.text(max_size=300))


def accepted(name: str) -> str | None:
    try:
        return names.folder_of("name", name)
    except ValueError:
        return None


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("run", "run"),
        ("sweep/lr=0.1", "sweep%2Flr=0.1"),
        ("a%2Fb", "a%252Fb"),
        ("a%2fb", "a%252fb"),
        ("a%252Fb", "a%25252Fb"),
        ("100%", "100%"),
        ("50%25", "50%25"),
        ("x/.dreamlake", "x%2F.dreamlake"),
        ("..a", "..a"),
        ("naïve run", "naïve run"),
    ],
)
def test_a_name_has_a_folder_and_the_folder_has_the_name(name: str, folder: str) -> None:
    assert names.folder_of("name", name) == folder
    assert names.name_of(folder) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "is empty"),
        ("/abs", "absolute path"),
        ("..", "would leave"),
        (".", "would leave"),
        ("a/../b", "would leave"),
        ("a//b", "empty part"),
        ("a/", "empty part"),
        ("nul\0", "NUL"),
        ("\ud800", "surrogate"),
        ("x" * 256, "longer than 255 bytes"),
        ("é" * 128, "longer than 255 bytes"),
        ("/".join(["a" * 60] * 5), "longer than 255 bytes on disk"),
        (".dreamlake", "Dreamlake's own"),
    ],
)
def test_a_name_that_cannot_be_stored_is_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        names.folder_of("name", name)


@pytest.mark.parametrize("kind", ["folder_of", "track_folder", "file_folder", "file_place"])
@pytest.mark.parametrize("value", [None, 3, b"run", ["run"]])
def test_a_name_that_is_no_text_is_a_type_error(kind: str, value: object) -> None:
    arguments = {"folder_of": ("name", value), "file_place": ("/", value)}.get(kind, (value,))
    with pytest.raises(TypeError, match="must be a string"):
        getattr(names, kind)(*arguments)


@PURE
@given(ANY, ANY)
def test_two_names_never_share_a_folder(one: str, other: str) -> None:
    folders = accepted(one), accepted(other)
    if one != other and None not in folders:
        assert folders[0] != folders[1]


@PURE
@given(ANY)
def test_a_folder_is_one_component_and_leads_back_to_its_name(name: str) -> None:
    folder = accepted(name)
    if folder is not None:
        assert "/" not in folder
        assert folder not in ("", ".", "..", ".dreamlake")
        assert len(os.fsencode(folder)) <= 255
        assert names.name_of(folder) == name


@pytest.mark.parametrize("name", ["loss", "train/loss", "a b/ç", ".hidden", "data", "x" * 255])
def test_a_track_stands_where_its_name_says(name: str) -> None:
    assert names.track_folder(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "is empty"),
        ("/loss", "absolute path"),
        ("../loss", "would leave"),
        ("a/./b", "would leave"),
        ("a//b", "empty part"),
        ("data.jsonl", "name of Dreamlake's own"),
        ("loss/metadata.json", "name of Dreamlake's own"),
        ("loss/metadata.json.tmp/x", "name of Dreamlake's own"),
        ("x" * 256, "longer than 255 bytes"),
        ("/".join(["a" * 200] * 6), "longer than 1024 bytes"),
        ("\0", "NUL"),
    ],
)
def test_a_track_that_cannot_be_stored_is_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        names.track_folder(name)


@pytest.mark.parametrize(
    ("path", "filename", "place"),
    [
        ("/", "model.pth", "model.pth"),
        ("", "model.pth", "model.pth"),
        ("models", "model.pth", "models/model.pth"),
        ("/models/", "model.pth", "models/model.pth"),
        ("//models//", "model.pth", "models/model.pth"),
        ("/a/b", ".files_metadata.json", "a/b/.files_metadata.json"),
    ],
)
def test_a_file_stands_below_its_path(path: str, filename: str, place: str) -> None:
    assert names.file_place(path, filename) == place


@pytest.mark.parametrize(
    ("path", "filename", "why"),
    [
        ("/", "", "empty part"),
        ("/", "..", "would leave"),
        ("/", "a/b", "put the folder into path"),
        ("/..", "a", "would leave"),
        ("a/../../b", "a", "would leave"),
        ("a//b", "a", "empty part"),
        ("/", ".files_metadata.json", "Dreamlake's own"),
        ("/", ".files_metadata.json.tmp", "Dreamlake's own"),
        ("/.files_metadata.json", "a", "Dreamlake's own"),
        ("/", "x" * 256, "longer than 255 bytes"),
        ("/a\0", "a", "NUL"),
        ("/".join(["a" * 200] * 6), "a", "longer than 1024 bytes"),
    ],
)
def test_a_file_that_cannot_be_stored_is_refused_with_the_reason(path: str, filename: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        names.file_place(path, filename)


@PURE
@given(ANY, ANY)
def test_no_file_leaves_its_folder(path: str, filename: str) -> None:
    try:
        place = names.file_place(path, filename)
    except ValueError:
        return
    assert os.path.normpath(place) == place
    assert not place.startswith(("/", "../"))
    assert place != ".."


def test_a_track_that_the_agent_refuses_is_refused_at_the_call() -> None:
    with pytest.raises(ValueError, match="Dreamlake's own"):
        names.track_folder(".dreamlake/loss")
