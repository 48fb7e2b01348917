"""DEPOSIT, WITHDRAW, TRANSFER, COLLECT."""

import sys
from pathlib import Path

import pytest

from sequencer.protocol import codec, work
from sequencer.protocol import constants as c
from sequencer.protocol.cash import VAULT_MAX
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.entries import Global

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import CONTRACT, FAR, INDEX, USD, Exchange, address


@pytest.fixture
def exchange() -> Exchange:
    one = Exchange()
    one.deposit("treasury", 0)
    one.deposit("owner", 1_000)
    one.deposit("friend", 1_000)
    return one


def test_deposit__opens_the_account_and_credits_it(exchange: Exchange) -> None:
    assert exchange.account("owner").owner == address("owner")
    assert exchange.account("owner").cash == 1_000 * USD
    exchange.deposit("owner", 5)
    assert exchange.account("owner").cash == 1_005 * USD
    assert exchange.state.globals.pool == 2_005 * USD


def test_deposit__is_hashed_in_the_order_of_the_inbox(exchange: Exchange) -> None:
    g = exchange.state.globals
    before, count = g.inbox_hash, g.inbox_count
    raw = codec.encode(Kind.DEPOSIT, owner=address("owner"), account=2, amount=7)
    exchange.apply(raw)
    assert (g.inbox_hash, g.inbox_count) == (codec.inbox_hash(before, raw), count + 1)


@pytest.mark.parametrize(
    ("account", "amount", "reason"), [(0, 5, Reason.INBOX_ACCOUNT), (2, 9, Reason.AMOUNT)]
)
def test_deposit__that_no_vault_has_sent__is_counted_and_credits_nothing(
    exchange: Exchange, account: int, amount: int, reason: Reason
) -> None:
    """The inbox goes on behind it: a message that could not be counted would stop the exchange."""
    exchange.audits = False
    exchange.state.globals.pool = VAULT_MAX - 8
    g = exchange.state.globals
    count, money = g.inbox_count, exchange.account("owner").cash
    out = exchange.unsigned(Kind.DEPOSIT, owner=address("owner"), account=account, amount=amount)
    assert (out.reason, out.amount) == (reason, 0)
    assert g.inbox_count == count + 1
    assert (g.pool, exchange.account("owner").cash) == (VAULT_MAX - 8, money)
    assert 0 not in exchange.state.accounts


def test_deposit__up_to_what_the_vault_holds__is_credited(exchange: Exchange) -> None:
    exchange.audits = False
    exchange.state.globals.pool = VAULT_MAX - 8
    out = exchange.unsigned(Kind.DEPOSIT, owner=address("owner"), account=2, amount=8)
    assert out.reason is Reason.OK


def test_withdraw__writes_a_leaf_for_the_owner(exchange: Exchange) -> None:
    for number, amount in enumerate((300, 700)):
        out = exchange.withdraw("owner", amount)
        assert (out.reason, out.number, out.amount) == (Reason.OK, number, amount)
        leaf = exchange.state.map.get(c.KEY_WITHDRAWAL | number)
        assert leaf == int.from_bytes(address("owner"), "big") << 64 | amount
    assert exchange.state.globals.withdrawals == 2
    assert exchange.account("owner").cash == 1_000 * USD - 1_000


def test_withdraw__above_cash_or_of_nothing__is_refused(exchange: Exchange) -> None:
    assert exchange.withdraw("owner", 1_000 * USD + 1).reason is Reason.MARGIN
    assert exchange.withdraw("owner", 2**64 - 1).reason is Reason.MARGIN
    assert exchange.withdraw("owner", 0).reason is Reason.AMOUNT
    assert exchange.withdraw("owner", 1_000 * USD).reason is Reason.OK


def test_withdraw__above_free_margin__is_refused(exchange: Exchange) -> None:
    (call,) = exchange.open((FAR, INDEX, 0))
    exchange.deposit("maker", 100_000)
    exchange.trade("owner", "maker", call, exchange.mark(call), 1_000)
    from sequencer.protocol import margin

    account = exchange.account("owner")
    margin.refresh(exchange.state, account)
    free = margin.free(exchange.state, account)
    assert 0 < free < account.cash or account.cash < free
    most = min(free, account.cash)
    assert exchange.withdraw("owner", most + 1).reason is Reason.MARGIN
    assert exchange.withdraw("owner", most).reason is Reason.OK


def test_withdraw__of_unrealised_gains__is_bounded_by_cash(exchange: Exchange) -> None:
    (call,) = exchange.open((FAR, INDEX, 0))
    exchange.deposit("maker", 100_000)
    exchange.trade("owner", "maker", call, exchange.mark(call), 2_000)
    exchange.remark(INDEX * 107 // 100)
    cash = exchange.account("owner").cash
    assert exchange.withdraw("owner", cash + 1).reason is Reason.MARGIN


def test_withdraw__with_positions_on_old_marks__is_bounded_by_them_and_their_margin(
    exchange: Exchange,
) -> None:
    from sequencer.protocol import margin

    (call,) = exchange.open((FAR, INDEX, 0))
    exchange.deposit("maker", 100_000)
    exchange.trade("maker", "owner", call, exchange.mark(call), 10)
    account = exchange.account("owner")
    margin.refresh(exchange.state, account)
    free = margin.free(exchange.state, account)
    exchange.tick(3_601)
    assert exchange.withdraw("owner", free + 1).reason is Reason.MARGIN
    assert exchange.withdraw("owner", free).reason is Reason.OK


def test_withdraw__that_the_pool_cannot_pay__is_refused(exchange: Exchange) -> None:
    (call,) = exchange.open((FAR, INDEX, 0))
    exchange.deposit("maker", 100_000)
    exchange.audits = False
    exchange.trade("owner", "maker", call, exchange.mark(call), CONTRACT // 5)
    exchange.state.globals.pool = 10 * USD - 1
    before, spent = Global.from_words(exchange.state.globals.words()), exchange.state.globals.work
    assert exchange.withdraw("friend", 10 * USD).reason is Reason.POOL
    after = Global.from_words(exchange.state.globals.words())
    assert (after.seq, after.work) == (before.seq + 1, spent + work.WORK[Kind.WITHDRAW])
    after.seq, after.work = before.seq, before.work
    assert after.words() == before.words()
    assert exchange.withdraw("friend", 10 * USD - 1).reason is Reason.OK


def test_withdraw__after_the_last_number__is_refused(exchange: Exchange) -> None:
    exchange.audits = False
    exchange.state.globals.withdrawals = c.U32_MAX
    assert exchange.withdraw("owner", 1).reason is Reason.POOL


def test_transfer__moves_cash_by_the_owners_signature(exchange: Exchange) -> None:
    assert exchange.transfer("owner", "friend", 400 * USD).reason is Reason.OK
    assert exchange.account("owner").cash == 600 * USD
    assert exchange.account("friend").cash == 1_400 * USD


def test_transfer__to_oneself_or_nobody__is_refused(exchange: Exchange) -> None:
    exchange.numbers["ghost"] = 99
    for to in ("owner", "ghost"):
        assert exchange.transfer("owner", to, 1).reason is Reason.UNKNOWN_ACCOUNT
    assert exchange.account("owner").nonce_floor == 0


def test_collect__pays_the_treasury_to_its_account(exchange: Exchange) -> None:
    (call,) = exchange.open((FAR, INDEX, 0))
    assert exchange.system(Kind.COLLECT).reason is Reason.NOTHING_TO_COLLECT
    exchange.buy("owner", call, 10, 1)
    out = exchange.system(Kind.COLLECT)
    assert (out.reason, out.amount) == (Reason.OK, 100)
    assert exchange.account("treasury").cash == 100
    assert exchange.state.globals.treasury == 0


def test_collect__without_a_treasury_account__is_refused() -> None:
    exchange = Exchange(treasury_account=77)
    (call,) = exchange.open((FAR, INDEX, 0))
    exchange.deposit("owner", 1_000)
    exchange.buy("owner", call, 10, 1)
    assert exchange.system(Kind.COLLECT).reason is Reason.UNKNOWN_ACCOUNT
    assert exchange.state.globals.treasury == 100
