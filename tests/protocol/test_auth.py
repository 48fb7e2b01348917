"""Nonces against a naive set, session keys, scopes, expiry of records."""

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.protocol import auth
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.entries import Account

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import DOMAIN, FAR, INDEX, Exchange, address, examples


class NaiveNonces:
    """The rule by its definition: a floor, and the set of what is used at or above it."""

    def __init__(self) -> None:
        self.floor = 0
        self.used: set[int] = set()

    def is_good(self, nonce: int) -> bool:
        return self.floor <= nonce < self.floor + 256 and nonce != 2**32 - 1 and nonce not in self.used

    def use(self, nonce: int) -> None:
        self.used.add(nonce)
        self.settle()

    def raise_to(self, floor: int) -> None:
        self.floor = max(self.floor, floor)
        self.settle()

    def settle(self) -> None:
        while self.floor in self.used:
            self.floor += 1
        self.used = {nonce for nonce in self.used if nonce >= self.floor}


STEPS = st.lists(
    st.tuples(
        st.booleans(), st.one_of(st.integers(0, 4), st.integers(0, 300), st.sampled_from([254, 255, 256]))
    ),
    max_size=400,
)


@settings(max_examples=examples(150))
@given(st.sampled_from([0, 7, 2**32 - 300, 2**32 - 3]), STEPS)
def test_nonce_window__after_any_uses__equals_the_set_of_used_nonces(
    start: int, steps: list[tuple[bool, int]]
) -> None:
    account, naive = Account(bytes(20)), NaiveNonces()
    account.nonce_floor = naive.floor = start
    exchange = Exchange(audits=False)
    exchange.state.put_account(1, account)
    for raises, offset in steps:
        nonce = account.nonce_floor + offset
        if raises:
            if nonce < 2**32 - 1 and offset <= 256 and offset % 7 == 0:
                auth.raise_floor(account, nonce)
                naive.raise_to(nonce)
        elif nonce < 2**32:
            answer = auth.authorise(exchange.state, 1, account.owner, c.SCOPE_TRADE, nonce, 0)
            assert (answer is account) == naive.is_good(nonce)
            if answer is account:
                auth.use_nonce(account, nonce)
                naive.use(nonce)
        assert account.nonce_floor == naive.floor
        assert {account.nonce_floor + i for i in range(256) if account.nonce_bitmap >> i & 1} == naive.used


@pytest.fixture
def exchange() -> Exchange:
    one = Exchange()
    one.deposit("treasury", 1)
    one.deposit("owner", 1_000)
    return one


def grant(exchange: Exchange, signer: str, scope: int, expires: int = 2**32 - 1, by: str = "owner") -> Reason:
    out = exchange.submit(
        Kind.SET_SIGNER, "owner", by=by, signer=address(signer), scope=scope, signer_expires=expires
    )
    return out.reason


def test_nonces__out_of_order_inside_the_window__are_each_good_once(exchange: Exchange) -> None:
    for nonce in (255, 3, 0, 1, 2, 254):
        assert exchange.withdraw("owner", 1, nonce=nonce).reason is Reason.OK
        assert exchange.withdraw("owner", 1, nonce=nonce).reason in (Reason.NONCE_USED, Reason.NONCE_WINDOW)
    assert exchange.account("owner").nonce_floor == 4
    assert exchange.withdraw("owner", 1, nonce=260).reason is Reason.NONCE_WINDOW
    assert exchange.withdraw("owner", 1, nonce=3).reason is Reason.NONCE_WINDOW
    assert exchange.withdraw("owner", 1, nonce=255).reason is Reason.NONCE_USED


def test_record__sent_twice__is_taken_once(exchange: Exchange) -> None:
    raw = exchange.signed(Kind.WITHDRAW, "owner", account=2, amount=5, nonce=0, expires=0)
    assert exchange.apply(raw).reason is Reason.OK
    assert exchange.apply(raw).reason is Reason.NONCE_WINDOW
    assert exchange.account("owner").cash == 1_000_000_000 - 5


def test_record__of_an_unknown_account__is_refused_before_its_signature(exchange: Exchange) -> None:
    raw = exchange.signed(Kind.WITHDRAW, "owner", account=9, amount=5, nonce=0, expires=0)
    assert exchange.apply(raw).reason is Reason.UNKNOWN_ACCOUNT


def test_record__signed_by_a_stranger__is_refused(exchange: Exchange) -> None:
    assert exchange.withdraw("owner", 5, by="stranger").reason is Reason.BAD_SIGNATURE


def test_record__with_a_signature_that_recovers_nothing__is_refused(exchange: Exchange) -> None:
    raw = exchange.signed(Kind.WITHDRAW, "owner", account=2, amount=5, nonce=0, expires=0)
    for signature in (bytes(64), b"\xff" * 64, raw[-64:-32] + bytes(32)):
        assert exchange.apply(raw[:-64] + signature).reason is Reason.BAD_SIGNATURE


def test_record__with_its_signature_turned_to_the_upper_half__is_refused(exchange: Exchange) -> None:
    from sequencer.protocol.hashing import CURVE_ORDER

    raw = exchange.signed(Kind.WITHDRAW, "owner", account=2, amount=5, nonce=0, expires=0)
    packed = int.from_bytes(raw[-32:], "big")
    s, parity = packed & (2**255 - 1), packed >> 255
    twin = CURVE_ORDER - s
    malleated = (twin & (2**255 - 1)) | (1 - parity) << 255
    assert exchange.apply(raw[:-32] + malleated.to_bytes(32, "big")).reason is Reason.BAD_SIGNATURE


def test_record__from_its_expiry_on__is_refused(exchange: Exchange) -> None:
    now = exchange.state.globals.time
    assert exchange.withdraw("owner", 5, expires=now).reason is Reason.EXPIRED
    assert exchange.withdraw("owner", 5, expires=now + 1).reason is Reason.OK
    assert exchange.withdraw("owner", 5, expires=0).reason is Reason.OK


def test_session_key__with_trade_scope__trades_and_does_not_withdraw(exchange: Exchange) -> None:
    (instrument,) = exchange.open((FAR, INDEX, 0))
    assert grant(exchange, "session", c.SCOPE_TRADE) is Reason.OK
    assert exchange.buy("owner", instrument, 10, 1, by="session").reason is Reason.OK
    assert exchange.withdraw("owner", 5, by="session").reason is Reason.SCOPE
    assert grant(exchange, "other", c.SCOPE_TRADE, by="session") is Reason.SCOPE
    out = exchange.submit(Kind.TRANSFER, "owner", by="session", to=1, amount=1)
    assert out.reason is Reason.SCOPE


def test_session_key__with_withdraw_scope__pays_the_owner_only(exchange: Exchange) -> None:
    (instrument,) = exchange.open((FAR, INDEX, 0))
    assert grant(exchange, "session", c.SCOPE_WITHDRAW) is Reason.OK
    assert exchange.buy("owner", instrument, 10, 1, by="session").reason is Reason.SCOPE
    assert exchange.withdraw("owner", 5, by="session").reason is Reason.OK
    leaf = exchange.state.map.get(c.KEY_WITHDRAWAL | 0)
    assert leaf == int.from_bytes(address("owner"), "big") << 64 | 5


def test_session_key__from_its_expiry_on__is_refused(exchange: Exchange) -> None:
    now = exchange.state.globals.time
    assert grant(exchange, "session", 3, expires=now + 10) is Reason.OK
    exchange.tick(9)
    assert exchange.withdraw("owner", 5, by="session").reason is Reason.OK
    exchange.tick(1)
    assert exchange.withdraw("owner", 5, by="session").reason is Reason.SIGNER_EXPIRED
    assert grant(exchange, "session", 3, expires=now + 100) is Reason.OK
    assert exchange.withdraw("owner", 5, by="session").reason is Reason.OK


def test_session_key__removed_by_scope_0__is_a_stranger(exchange: Exchange) -> None:
    assert grant(exchange, "session", 3) is Reason.OK
    assert grant(exchange, "session", 0) is Reason.OK
    assert exchange.account("owner").signers == []
    assert exchange.withdraw("owner", 5, by="session").reason is Reason.BAD_SIGNATURE


def test_session_keys__beyond_four__are_refused_until_one_goes(exchange: Exchange) -> None:
    for name in "abcd":
        assert grant(exchange, name, 3) is Reason.OK
    assert grant(exchange, "e", 3) is Reason.SIGNERS_FULL
    assert grant(exchange, "b", 1) is Reason.OK  # a change takes no further place
    assert grant(exchange, "a", 0) is Reason.OK
    assert grant(exchange, "e", 3) is Reason.OK
    assert [one[0] for one in exchange.account("owner").signers] == [address(name) for name in "cdbe"]


def test_set_signer__of_the_owner_or_of_a_scope_that_is_none__is_refused(exchange: Exchange) -> None:
    assert grant(exchange, "owner", 1) is Reason.SCOPE
    assert grant(exchange, "session", c.SCOPE_OWNER) is Reason.SCOPE
    assert exchange.account("owner").nonce_floor == 0


def test_cancel_all__raising_the_nonce_floor__voids_what_was_signed_below(exchange: Exchange) -> None:
    waiting = exchange.signed(Kind.WITHDRAW, "owner", account=2, amount=5, nonce=100, expires=0)
    assert exchange.cancel_all("owner", nonce_floor=101).reason is Reason.OK
    exchange.nonces["owner"] = 101
    assert exchange.apply(waiting).reason is Reason.NONCE_WINDOW
    assert exchange.withdraw("owner", 5).reason is Reason.OK


def test_cancel_all__raising_the_floor_by_more_than_a_window__is_refused(exchange: Exchange) -> None:
    assert exchange.cancel_all("owner", nonce_floor=257).reason is Reason.NONCE_WINDOW
    assert exchange.cancel_all("owner", nonce_floor=2**32 - 1).reason is Reason.NONCE_WINDOW
    exchange.nonces["owner"] = 0  # a refused record has used none
    assert exchange.cancel_all("owner", nonce_floor=256).reason is Reason.OK
    assert exchange.account("owner").nonce_floor == 256


def test_nonce__the_last_of_all__is_never_good() -> None:
    exchange = Exchange()
    exchange.deposit("owner", 1)
    exchange.account("owner").nonce_floor = 2**32 - 2
    assert exchange.withdraw("owner", 1, nonce=2**32 - 1).reason is Reason.NONCE_WINDOW
    assert exchange.withdraw("owner", 1, nonce=2**32 - 2).reason is Reason.OK
    assert exchange.account("owner").nonce_floor == 2**32 - 1
    assert exchange.withdraw("owner", 1, nonce=2**32 - 1).reason is Reason.NONCE_WINDOW


def test_domain__is_the_exchanges() -> None:
    assert Exchange().state.domain == DOMAIN
