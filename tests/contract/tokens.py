"""What every Tokens must do. Subclass :class:`TokensSuite` in a test file and give it two fixtures: ``tokens`` is a
store, opened and empty; ``another`` a second object over the same data, as another process has it, or None where there
can be none.
"""

from __future__ import annotations

from dataclasses import replace

from dreamlake_server.stores.tokens import Token, Tokens
from tests.contract.conftest import Run
from tests.contract.logs import NAMES, together

FIRST = Token("0123456789ab", "alice", "a" * 64, False, "2026-01-02T00:00:00Z", "laptop")


class TokensSuite:
    def test_a_token_comes_back_as_it_was_added(self, run: Run, tokens: Tokens) -> None:
        for at, name in enumerate(NAMES):
            token = Token(f"{at:012x}", name, f"{at:064x}", at % 2 == 0, "2026", name, "2027" if at % 3 else None)
            run(tokens.add(token))
            found = run(tokens.find(token.id))
            assert found == token
            assert type(found.read_only) is bool
            assert run(tokens.of(name)) == [token]
        assert run(tokens.find("f" * 12)) is None
        assert run(tokens.find("")) is None
        assert len(run(tokens.of(None))) == len(NAMES)

    def test_a_token_can_be_added_again(self, run: Run, tokens: Tokens, another: Tokens | None) -> None:
        # As who was told that the store is unavailable must do. It does not bring back one that was revoked.
        run(tokens.add(FIRST))
        run((another or tokens).add(FIRST))
        assert run(tokens.of(None)) == [FIRST]
        run(tokens.revoke(FIRST.id, "2027"))
        run(tokens.add(FIRST))
        assert run(tokens.of(None)) == [replace(FIRST, revoked="2027")]

    def test_tokens_of_a_user_or_of_all_oldest_first(self, run: Run, tokens: Tokens) -> None:
        assert run(tokens.of(None)) == run(tokens.of("alice")) == []
        days = (5, 3, 9, 1, 7)
        added = [Token(f"{10 - day:012x}", f"user {day // 5}", f"{day:064}", False, f"2026-01-0{day}") for day in days]
        for token in added:
            run(tokens.add(token))
        added.sort(key=lambda token: token.created)
        assert run(tokens.of(None)) == added
        assert run(tokens.of("user 0")) == [token for token in added if token.user == "user 0"]
        assert run(tokens.of("user 1")) == [token for token in added if token.user == "user 1"]
        assert run(tokens.of("user")) == []

    def test_a_token_is_revoked_once(self, run: Run, tokens: Tokens) -> None:
        other = replace(FIRST, id="1" * 12, sha256="b" * 64)
        run(tokens.add(FIRST))
        run(tokens.add(other))
        assert run(tokens.revoke("2" * 12, "2027")) is False
        assert run(tokens.revoke(FIRST.id, "2027")) is True
        assert run(tokens.revoke(FIRST.id, "2028")) is True
        assert run(tokens.find(FIRST.id)) == replace(FIRST, revoked="2027")
        assert run(tokens.find(other.id)) == other
        assert sorted(each.revoked or "" for each in run(tokens.of("alice"))) == ["", "2027"]

    def test_what_one_changes_another_sees_at_once(self, run: Run, tokens: Tokens, another: Tokens | None) -> None:
        stores = (tokens, another or tokens)
        for turn in range(20):
            one, other = stores[turn % 2], stores[1 - turn % 2]
            token = replace(FIRST, id=f"{turn:012}", sha256=f"{turn:064}")
            assert run(other.find(token.id)) is None
            run(one.add(token))
            assert run(other.find(token.id)) == token
            assert len(run(other.of("alice"))) == turn + 1
            assert run(one.revoke(token.id, f"{turn}")) is True
            assert run(other.find(token.id)) == replace(token, revoked=f"{turn}")

    def test_of_several_that_revoke_one_is_first(self, run: Run, tokens: Tokens, another: Tokens | None) -> None:
        stores = (tokens, another or tokens)
        run(tokens.add(FIRST))
        assert run(together(*(stores[who % 2].revoke(FIRST.id, f"{who}") for who in range(8)))) == [True] * 8
        found = run(tokens.find(FIRST.id))
        assert found.revoked in [f"{who}" for who in range(8)]
        assert run((another or tokens).revoke(FIRST.id, "late")) is True
        assert run((another or tokens).find(FIRST.id)) == found

    def test_many_at_once(self, run: Run, tokens: Tokens, another: Tokens | None) -> None:
        stores = (tokens, another or tokens)
        added = [replace(FIRST, id=f"{at:012}", created=f"{at:04}") for at in range(40)]
        run(together(*(stores[at % 2].add(token) for at, token in enumerate(added))))
        assert run(tokens.of("alice")) == added
