"""What every Meta must do. Subclass :class:`MetaSuite` in a test file and give it two fixtures: ``meta`` is a store,
opened and empty; ``another`` a second object over the same data, or None where one object is all that may write.
Both are opened, used and closed in the loop of the fixture ``run``.
"""

from __future__ import annotations

from dreamlake_server.stores.meta import Blob, Head, Meta, Session
from tests.contract.conftest import Run
from tests.contract.logs import LOSS, NAMES, ONE, OTHER, S1, S2, S3, THEN, LogSuite, append, together

A, B, C = "a" * 64, "b" * 64, "c" * 64


def bytes_of(owner: str, sha256: str, size: int = 5) -> Blob:
    return Blob(owner, sha256, size, 1 << 20, THEN)


class MetaSuite(LogSuite):
    def test_it_says_what_it_is_and_can_be_written(self, run: Run, meta: Meta) -> None:
        assert meta.kind in ("memory", "sqlite", "mongodb")
        run(meta.ping())

    # ── sessions ────────────────────────────────────────────────────────────────────────────────────────────────────

    def test_a_session_is_made_once(self, run: Run, meta: Meta) -> None:
        assert run(meta.find_session("alice", "work", "run")) is None
        made = run(meta.make_session("alice", "work", "run", S1, THEN))
        assert made == Session(S1, "alice", "work", "run", THEN)
        assert run(meta.make_session("alice", "work", "run", S2, "2027-01-01T00:00:00Z")) == made
        assert run(meta.find_session("alice", "work", "run")) == made
        assert run(meta.session("alice", S1)) == made
        assert run(meta.session("alice", S2)) is None
        assert run(meta.sessions("alice", None, None, 10)) == [made]

    def test_two_that_make_it_at_once_get_the_same(self, run: Run, meta: Meta, another: Meta | None) -> None:
        stores = (meta, another or meta)
        for turn in range(10):
            made = run(
                together(
                    *(
                        stores[who % 2].make_session("alice", "work", f"run {turn}", f"{turn:012}{who:012}", f"{who}")
                        for who in range(8)
                    )
                )
            )
            assert set(map(repr, made)) == {repr(made[0])}
            assert made[0].id == f"{turn:012}{int(made[0].created):012}"
            assert run(meta.find_session("alice", "work", f"run {turn}")) == made[0]
        assert len(run(meta.sessions("alice", None, None, 100))) == 10

    def test_sessions_by_any_name(self, run: Run, meta: Meta) -> None:
        keys = [(owner, "work", "run") for owner in NAMES]
        keys += [("alice", workspace, "run") for workspace in NAMES]
        keys += [("alice", "work", name) for name in NAMES]
        # However the three are put together, they are not each other.
        keys += [("alice", "a/b", "c"), ("alice", "a", "b/c"), ("alice/a", "b", "c"), ("alice", "a\x1fb", "c")]
        made = [run(meta.make_session(*key, f"{at:024}", THEN)) for at, key in enumerate(keys)]
        assert made == [Session(f"{at:024}", *key, THEN) for at, key in enumerate(keys)]
        assert [run(meta.find_session(*key)) for key in keys] == made
        made.reverse()
        for name in NAMES:
            assert run(meta.sessions("alice", name, None, 100)) == [each for each in made if each.workspace == name]
            assert run(meta.sessions(name, None, None, 100)) == [each for each in made if each.owner == name]

    def test_an_owner_sees_nothing_of_another_one(self, run: Run, meta: Meta) -> None:
        hers = run(meta.make_session("alice", "work", "run", S1, THEN))
        assert run(meta.append(S1, ONE, [append(LOSS, Head(), b"row\n")], blobs=[A]))
        run(meta.put_blob(bytes_of("alice", A)))
        assert run(meta.find_session("bob", "work", "run")) is None
        assert run(meta.session("bob", S1)) is None
        assert run(meta.sessions("bob", None, None, 10)) == run(meta.sessions("bob", "work", None, 10)) == []
        assert run(meta.blob("bob", A)) is None
        assert run(meta.blobs("bob", [A])) == {}
        assert run(meta.blobs_only_of("bob", S1)) == []
        run(meta.drop_blob("bob", A))
        assert run(meta.mark_deleted("bob", S1, THEN)) is False
        his = run(meta.make_session("bob", "work", "run", S2, THEN))
        assert (hers.id, his.id) == (S1, S2)
        assert run(meta.mark_deleted("alice", S1, THEN))
        assert run(meta.mark_deleted("bob", S1, None)) is False
        run(meta.purge_session("bob", S1))
        assert run(meta.session("alice", S1)).deleted == THEN
        assert run(meta.heads(S1)).keys() == {(ONE, LOSS)}
        assert run(meta.blob("alice", A)) == bytes_of("alice", A)
        assert run(meta.blobs_only_of("alice", S1)) == [A]

    def test_sessions_come_newest_first_page_by_page(self, run: Run, meta: Meta) -> None:
        # Several are as old as each other; they stand by their ids then, and a page may end among them.
        made = []
        for number in range(25):
            workspace, created = ("work", "play")[number % 2], f"2026-01-0{1 + number * 7 % 25 // 6}T00:00:00Z"
            made.append(run(meta.make_session("alice", workspace, f"{number}", f"{number * 11 % 25:024}", created)))
            run(meta.make_session("bob", workspace, f"{number}", f"b{number:023}", created))
        gone = made.pop(12)
        assert run(meta.mark_deleted("alice", gone.id, THEN))
        made.sort(key=lambda each: (each.created, each.id), reverse=True)
        for workspace in (None, "work", "play"):
            expected = [each for each in made if workspace in (None, each.workspace)]
            assert len({each.created for each in expected}) < len(expected)
            for limit in (1, 2, 3, 7, 24, 100):
                found, after = [], None
                while page := run(meta.sessions("alice", workspace, after, limit)):
                    assert len(page) <= limit
                    found += page
                    after = (page[-1].created, page[-1].id)
                assert found == expected
        # A cursor is a place, whether a session stands there or not.
        assert run(meta.sessions("alice", None, (gone.created, gone.id), 100)) == [
            each for each in made if (each.created, each.id) < (gone.created, gone.id)
        ]
        assert run(meta.sessions("alice", "no such workspace", None, 10)) == []

    # ── deleting ────────────────────────────────────────────────────────────────────────────────────────────────────

    def test_a_deleted_session_is_found_and_can_be_taken_back(self, run: Run, meta: Meta) -> None:
        made = run(meta.make_session("alice", "work", "run", S1, THEN))
        assert run(meta.append(S1, ONE, [append(LOSS, Head(), b"row\n")], summary={"kept": 1}))
        made = run(meta.session("alice", S1))
        assert run(meta.mark_deleted("alice", S1, "2026-05-01")) is True
        assert run(meta.session("alice", S1)).deleted == "2026-05-01"
        assert run(meta.find_session("alice", "work", "run")).deleted == "2026-05-01"
        again = run(meta.make_session("alice", "work", "run", S2, THEN))
        assert (again.id, again.deleted) == (S1, "2026-05-01")
        assert run(meta.sessions("alice", None, None, 10)) == []
        assert run(meta.mark_deleted("alice", S1, "2026-06-01")) is True
        assert run(meta.session("alice", S1)).deleted == "2026-06-01"
        assert run(meta.mark_deleted("alice", S1, None)) is True
        assert run(meta.mark_deleted("alice", S1, None)) is True
        assert run(meta.session("alice", S1)) == made
        assert run(meta.sessions("alice", None, None, 10)) == [made]
        assert run(meta.heads(S1)).keys() == {(ONE, LOSS)}
        assert run(meta.mark_deleted("alice", S2, THEN)) is False
        assert run(meta.mark_deleted("alice", S2, None)) is False

    def test_what_is_to_be_purged_oldest_first(self, run: Run, meta: Meta) -> None:
        for day in (5, 3, 9, 1, 7):
            session_id = f"{10 - day:024}"
            run(meta.make_session(f"owner {day % 2}", "work", f"{day}", session_id, THEN))
            assert run(meta.mark_deleted(f"owner {day % 2}", session_id, f"2026-01-0{day}"))
        run(meta.make_session("alice", "work", "alive", S1, THEN))

        def days(before: str, limit: int) -> list[int]:
            return [int(each.name) for each in run(meta.deleted_sessions(before, limit))]

        assert days("2026-01-07", 10) == [1, 3, 5]
        assert days("2026-01-07T", 10) == [1, 3, 5, 7]
        assert days("2027", 2) == [1, 3]
        assert days("2026-01-01", 10) == []
        (oldest,) = run(meta.deleted_sessions("2027", 1))
        assert oldest == Session(f"{9:024}", "owner 1", "work", "1", THEN, "2026-01-01")

    def test_a_purge_takes_everything_of_one_session_and_nothing_else(self, run: Run, meta: Meta) -> None:
        ends = {}
        for at, (owner, name) in enumerate((("alice", "gone"), ("alice", "stays"), ("bob", "gone"))):
            session = run(meta.make_session(owner, "work", name, (S1, S2, S3)[at], THEN))
            for origin in (ONE, OTHER):
                first = append(LOSS, Head(), *(b"%d" % number for number in range(100)))
                assert run(meta.append(session.id, origin, [first], summary={"at": at}, blobs=[A, (B, C, B)[at]]))
                ends[session.id] = (first.after, list(first.segments))
            run(meta.put_blob(bytes_of(owner, A)))
        assert run(meta.blobs_only_of("alice", S1)) == [B]
        assert run(meta.mark_deleted("alice", S1, THEN))
        run(meta.purge_session("alice", S1))
        for _ in range(2):
            assert run(meta.session("alice", S1)) is None
            assert run(meta.find_session("alice", "work", "gone")) is None
            assert run(meta.deleted_sessions("9", 10)) == []
            assert run(meta.heads(S1)) == {}
            assert run(meta.segments(S1, ONE, LOSS, 0, 10)) == []
            assert run(meta.blobs_only_of("alice", S1)) == []
            assert run(meta.mark_deleted("alice", S1, None)) is False
            assert run(meta.append(S1, ONE, [append(LOSS, Head(), b"late\n")], summary={}, blobs=[A])) is False
            assert run(meta.append(S1, ONE, [append(LOSS, ends[S1][0], b"late\n")])) is False
            run(meta.purge_session("alice", S1))  # nothing, when it is not there
        for session_id, owner in ((S2, "alice"), (S3, "bob")):
            assert run(meta.heads(session_id)) == {(origin, LOSS): ends[session_id][0] for origin in (ONE, OTHER)}
            for origin in (ONE, OTHER):
                assert run(meta.segments(session_id, origin, LOSS, 0, 1000)) == ends[session_id][1]
            assert run(meta.session(owner, session_id)).origins.keys() == {ONE, OTHER}
        # Its references went with it; the bytes are not the session's to take.
        assert sorted(run(meta.blobs_only_of("alice", S2))) == [A, C]
        assert sorted(run(meta.blobs_only_of("bob", S3))) == [A, B]
        assert run(meta.blob("alice", A)) == bytes_of("alice", A)
        # The name is free, and what is made under it is empty, even with the same id.
        fresh = run(meta.make_session("alice", "work", "gone", S1, "2027"))
        assert fresh == Session(S1, "alice", "work", "gone", "2027")
        assert run(meta.heads(S1)) == {}
        assert run(meta.append(S1, ONE, [append(LOSS, Head(), b"new\n")]))
        assert [each.data for each in run(meta.segments(S1, ONE, LOSS, 0, 10))] == [b"new\n"]
        assert run(meta.blobs_only_of("alice", S1)) == []

    def test_only_a_deleted_session_is_purged(self, run: Run, meta: Meta) -> None:
        run(meta.make_session("alice", "work", "run", S1, THEN))
        assert run(meta.append(S1, ONE, [append(LOSS, Head(), b"row\n")], summary={"kept": 1}, blobs=[A]))
        found = run(meta.session("alice", S1))
        run(meta.purge_session("alice", S1))
        assert run(meta.session("alice", S1)) == found
        assert run(meta.heads(S1)).keys() == {(ONE, LOSS)}
        assert len(run(meta.segments(S1, ONE, LOSS, 0, 10))) == 1
        assert run(meta.blobs_only_of("alice", S1)) == [A]
        assert run(meta.mark_deleted("alice", S1, THEN))
        assert run(meta.mark_deleted("alice", S1, None))
        run(meta.purge_session("alice", S1))
        assert run(meta.session("alice", S1)) == found
        run(meta.purge_session("alice", S2))

    def test_a_purge_that_has_begun_cannot_be_taken_back(self, run: Run, meta: Meta) -> None:
        run(meta.make_session("alice", "work", "run", S1, THEN))
        assert run(meta.append(S1, ONE, [append(LOSS, Head(), b"row\n")], blobs=[A]))
        assert not run(meta.begin_purge("alice", S1)), "it is not deleted"
        assert run(meta.mark_deleted("alice", S1, THEN))
        assert not run(meta.begin_purge("bob", S1))
        assert run(meta.begin_purge("alice", S1))
        assert run(meta.begin_purge("alice", S1)), "again, after a death"
        assert not run(meta.mark_deleted("alice", S1, None))
        assert run(meta.blobs_only_of("alice", S1)) == [A]
        assert [each.id for each in run(meta.deleted_sessions("9", 10))] == [S1]
        run(meta.purge_session("alice", S1))
        assert run(meta.deleted_sessions("9", 10)) == []
        assert not run(meta.begin_purge("alice", S1))

    def test_an_append_that_races_a_deletion_is_whole_or_not_there(
        self, run: Run, meta: Meta, another: Meta | None
    ) -> None:
        other = another or meta
        for turn in range(6):
            session_id = f"{turn:024}"
            run(meta.make_session("alice", "work", f"{turn}", session_id, THEN))
            appends = [append(f"log {number}", Head(), b"row\n") for number in range(8)]
            calls = [other.append(session_id, ONE, [each], summary={each.log: 1}, blobs=[A]) for each in appends]
            # The deletion stands in another place among them each time.
            calls.insert(turn, meta.mark_deleted("alice", session_id, THEN))
            answers = run(together(*calls))
            assert answers.pop(turn) is True
            kept = [each for each, answer in zip(appends, answers, strict=True) if answer]
            assert run(meta.heads(session_id)) == {(ONE, each.log): each.after for each in kept}
            late = [other.append(session_id, ONE, [append("late", Head(), b"row\n")]) for _ in range(4)]
            answers = run(together(*late, meta.purge_session("alice", session_id)))
            assert answers[:4] == [False] * 4
            assert run(other.session("alice", session_id)) is None
            assert run(other.heads(session_id)) == {}
            assert run(other.segments(session_id, ONE, "late", 0, 1)) == []

    # ── blobs ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def test_the_first_blob_stays_as_it_is(self, run: Run, meta: Meta, another: Meta | None) -> None:
        first = Blob("alice", A, 5 << 40, 32 << 20, THEN)
        assert run(meta.blob("alice", A)) is None
        run(meta.put_blob(first))
        run((another or meta).put_blob(Blob("alice", A, 1, 1, "2027")))
        run(together(*((meta, another or meta)[who % 2].put_blob(Blob("alice", B, who, 1, "")) for who in range(8))))
        assert run(meta.blob("alice", A)) == first
        assert run((another or meta).blob("alice", B)) == run(meta.blob("alice", B)) is not None
        run(meta.put_blob(Blob("bob", A, 0, 1, "2028")))
        assert run(meta.blob("bob", A)) == Blob("bob", A, 0, 1, "2028")
        assert run(meta.blob("alice", A)) == first

    def test_a_dropped_blob_can_be_stored_anew(self, run: Run, meta: Meta) -> None:
        run(meta.drop_blob("alice", A))
        for owner in ("alice", "bob"):
            run(meta.put_blob(bytes_of(owner, A)))
        run(meta.put_blob(bytes_of("alice", B)))
        run(meta.drop_blob("alice", A))
        assert run(meta.blob("alice", A)) is None
        assert run(meta.blobs("alice", [A, B])).keys() == {B}
        assert run(meta.blob("bob", A)) == bytes_of("bob", A)
        run(meta.put_blob(bytes_of("alice", A, 6)))
        assert run(meta.blob("alice", A)) == bytes_of("alice", A, 6)

    def test_which_of_many_blobs_are_stored(self, run: Run, meta: Meta) -> None:
        names = [f"{number:064x}" for number in range(10_000)]
        there = [bytes_of("alice", name, at) for at, name in enumerate(names[::250])]
        for each in there:
            run(meta.put_blob(each))
        run(meta.put_blob(bytes_of("bob", names[1])))
        assert run(meta.blobs("alice", [*names, names[0]])) == {each.sha256: each for each in there}
        assert run(meta.blobs("alice", [])) == {}

    def test_blobs_that_no_other_session_refers_to(self, run: Run, meta: Meta) -> None:
        for owner, name, session_id in (("alice", "one", S1), ("alice", "two", S2), ("bob", "three", S3)):
            run(meta.make_session(owner, "work", name, session_id, THEN))

        def only() -> list[str]:
            return sorted(run(meta.blobs_only_of("alice", S1)))

        assert only() == []
        assert run(meta.append(S1, ONE, [append(LOSS, Head(), b"row\n")], blobs=[A, B, A]))
        assert run(meta.append(S1, OTHER, [], blobs=[B, C]))
        assert run(meta.append(S1, OTHER, [], blobs=[B, C])) is True
        assert only() == [A, B, C]
        assert run(meta.append(S3, ONE, [], blobs=[A]))  # another owner's bytes are other bytes
        assert only() == [A, B, C]
        assert run(meta.append(S2, ONE, [], blobs=[B]))
        assert only() == [A, C]
        # A deleted session may be taken back, so it still counts; a purged one does not.
        assert run(meta.mark_deleted("alice", S2, THEN))
        assert only() == [A, C]
        assert run(meta.mark_deleted("alice", S1, THEN))
        assert only() == [A, C]
        run(meta.purge_session("alice", S2))
        assert only() == [A, B, C]
        assert run(meta.blobs_only_of("alice", "9" * 24)) == []

    # ── another store object ────────────────────────────────────────────────────────────────────────────────────────

    def test_what_one_has_stored_another_sees(self, run: Run, meta: Meta, another: Meta | None) -> None:
        another = another or meta
        made = run(meta.make_session("alice", "work", "run", S1, THEN))
        assert run(another.find_session("alice", "work", "run")) == made
        first = append(LOSS, Head(), b"row\n")
        assert run(meta.append(S1, ONE, [first], summary={"a": 1}, blobs=[A]))
        assert run(another.heads(S1)) == {(ONE, LOSS): first.after}
        assert run(another.append(S1, ONE, [append(LOSS, first.after, b"row\n")]))
        assert [each.data for each in run(meta.segments(S1, ONE, LOSS, 0, 10))] == [b"row\n", b"row\n"]
        assert run(another.session("alice", S1)).origins == {ONE: {"a": 1}}
        run(another.put_blob(bytes_of("alice", A)))
        assert run(meta.blobs("alice", [A])) == {A: bytes_of("alice", A)}
        assert run(another.mark_deleted("alice", S1, THEN))
        assert run(meta.append(S1, ONE, [], summary={})) is False
        run(meta.purge_session("alice", S1))
        assert run(another.session("alice", S1)) is None
        assert run(another.heads(S1)) == {}
