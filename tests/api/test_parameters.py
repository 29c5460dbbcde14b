from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamlake import Session
from tests import reading

pytestmark = pytest.mark.home("shared")


def stored(session: Session, folder: Path) -> dict[str, Any]:
    session.flush()
    return reading.view(folder / "parameters.json")


def test_parameters_are_stored_flat_with_a_version_and_a_time(session: Session, folder: Path) -> None:
    session.parameters().set(model={"lr": 0.001, "layers": [64, 32]}, seed=7)
    view = stored(session, folder)
    assert reading.TIMESTAMP.fullmatch(view.pop("updatedAt"))
    assert view == {"version": 1, "data": {"model.lr": 0.001, "model.layers": [64, 32], "seed": 7}}


CALLS: list[tuple[list[Any], dict[str, Any]]] = [
    ([{"lr": 0.1}], {"lr": 0.1}),
    ([{"model": {"lr": 0.1, "opt": {"name": "adam"}}}], {"model.lr": 0.1, "model.opt.name": "adam"}),
    ([{"model.lr": 0.1}], {"model.lr": 0.1}),
    ([{"a": 1}, {"b": 2}, {"a": 3}], {"a": 3, "b": 2}),
    ([{"m": {"a": 1, "b": 2}}, {"m": {"b": 3}}], {"m.a": 1, "m.b": 3}),
    ([{"l": [{"x": 1}, {"y": 2}]}, {"l": [3]}], {"l": [3]}),
    (
        [{"none": None, "yes": True, "text": "ü", "big": 2**53 + 1}],
        {"none": None, "yes": True, "text": "ü", "big": 2**53 + 1},
    ),
]


@pytest.mark.parametrize(("calls", "expected"), CALLS)
def test_calls_are_flattened_and_merged_key_by_key(
    calls: list[dict[str, Any]], expected: dict[str, Any], session: Session, folder: Path
) -> None:
    for call in calls:
        session.parameters().set(**call)
    assert session.parameters().get() == expected
    view = stored(session, folder)
    assert (view["data"], view["version"]) == (expected, len(calls))


def test_a_dict_may_be_given_as_it_is(session: Session) -> None:
    session.parameters().set({"model": {"lr": 0.1}, "with-dash": 1})
    session.parameters().set({"seed": 1}, epochs=3)
    assert session.parameters().get() == {"model.lr": 0.1, "with-dash": 1, "seed": 1, "epochs": 3}


def test_an_empty_set_writes_nothing(session: Session, folder: Path) -> None:
    session.parameters().set()
    session.parameters().set({})
    session.flush()
    assert not (folder / "parameters.json").exists()
    session.parameters().set(a=1)
    before = stored(session, folder)
    session.parameters().set()
    assert stored(session, folder) == before


def test_without_parameters_get_is_empty(session: Session) -> None:
    assert session.parameters().get() == {}
    assert session.parameters().get(flatten=False) == {}


def test_get_sees_every_earlier_set_at_once_and_gives_a_copy(session: Session) -> None:
    for value in range(100):
        session.parameters().set(value=value)
        assert session.parameters().get()["value"] == value
    session.parameters().get()["value"] = "changed"
    assert session.parameters().get() == {"value": 99}


def test_get_nests_when_asked(session: Session) -> None:
    given = {"model": {"lr": 0.1, "opt": {"name": "adam"}}, "seed": 1}
    session.parameters().set(given)
    assert session.parameters().get(flatten=False) == given
    assert session.parameters().get(flatten=True) == {"model.lr": 0.1, "model.opt.name": "adam", "seed": 1}


@pytest.mark.parametrize("order", [("a", "a.b"), ("a.b", "a")])
def test_a_key_may_be_both_a_value_and_a_prefix(order: tuple[str, str], session: Session) -> None:
    for key in order:
        session.parameters().set({key: f"value of {key}"})
    assert session.parameters().get() == {"a": "value of a", "a.b": "value of a.b"}
    nested = session.parameters().get(flatten=False)
    assert sorted(reading.leaves(nested)) == ["value of a", "value of a.b"]


def test_flatten_and_unflatten_are_each_others_inverse(session: Session) -> None:
    builder = type(session.parameters())
    nested = {"model": {"lr": 0.1, "opt": {"name": "adam"}}, "seed": 1, "layers": [1, {"kept": 2}]}
    flat = {"model.lr": 0.1, "model.opt.name": "adam", "seed": 1, "layers": [1, {"kept": 2}]}
    assert builder.flatten_dict(nested) == flat
    assert builder.unflatten_dict(flat) == nested
    assert builder.flatten_dict({}) == builder.unflatten_dict({}) == {}


def test_parameters_continue_on_reopen(home: Path, root: Path, folder: Path) -> None:
    for call in ({"a": 1, "b": 1}, {"b": 2}):
        with Session("run", "project", local_path=str(root)) as session:
            session.parameters().set(call)
    view = reading.view(folder / "parameters.json")
    assert (view["data"], view["version"]) == ({"a": 1, "b": 2}, 2)
    with Session("run", "project", local_path=str(root)) as session:
        assert session.parameters().get() == {"a": 1, "b": 2}


def test_what_was_set_is_what_it_was_at_the_call(session: Session) -> None:
    layers = [64]
    session.parameters().set(layers=layers)
    layers.append(32)
    assert session.parameters().get() == {"layers": [64]}
