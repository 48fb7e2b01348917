"""The liquidator: when it bids, for how much, and with which of its accounts."""

import sys
from pathlib import Path

import pytest

from sequencer.keeper.liquidator import Bidder, Liquidator
from sequencer.protocol import codec, margin
from sequencer.protocol.constants import Reason

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
from exchange import CALM, CONTRACT, FAR, INDEX, Exchange, key_of

DEBTORS = ("debtor", "second")


@pytest.fixture
def exchange() -> Exchange:
    """Two accounts have written a call each; `bot` and `spare` are the liquidator's."""
    one = Exchange(audits=False, **CALM)
    (call,) = one.open((FAR, INDEX, 0))
    one.deposit("treasury", 1)
    for role, usd in (
        (DEBTORS[0], 20_000),
        (DEBTORS[1], 20_000),
        ("long", 500_000),
        ("bot", 500_000),
        ("spare", 500_000),
    ):
        one.deposit(role, usd)
    for role in DEBTORS:
        one.trade("long", role, call, one.mark(call), CONTRACT)
    return one


def liquidator(exchange: Exchange, *roles: str, **how: int) -> Liquidator:
    return Liquidator([Bidder(exchange.numbers[role], key_of(role)) for role in roles], **how)


def bids(exchange: Exchange, who: Liquidator, *targets: str) -> list[dict[str, int | bytes]]:
    """What it bids for the targets, applied: each holds."""
    auctions = [(exchange.numbers[one], exchange.account(one)) for one in targets]
    out = []
    for one in who.bids(exchange.state, auctions, exchange.state.globals.time):
        assert exchange.apply(one.raw).reason is Reason.OK
        record = codec.decode(one.raw, exchange.state.domain)
        assert isinstance(record, codec.Record)
        assert record.signer == one.signer
        out.append(record.named())
    return out


def fall(exchange: Exchange, percent: int) -> None:
    exchange.remark(INDEX * percent // 100)
    for role in DEBTORS:
        assert exchange.liquidate(role).reason is Reason.OK


def test_insolvent_accounts__are_taken_whole_at_once(exchange: Exchange) -> None:
    fall(exchange, 180)
    made = bids(exchange, liquidator(exchange, "bot"), *DEBTORS)
    assert [one["fraction"] for one in made] == [256, 256]
    assert [one["nonce"] for one in made] == [0, 1]
    for role in DEBTORS:
        assert exchange.account(role).positions == {}
    assert exchange.state.globals.holes == 0


def test_solvent_account__is_bid_for_when_the_discount_is_there(exchange: Exchange) -> None:
    fall(exchange, 140)
    who = liquidator(exchange, "bot", fraction=16)
    assert bids(exchange, who, "debtor") == []
    exchange.tick(45)
    assert [one["fraction"] for one in bids(exchange, who, "debtor")] == [16]


def test_solvent_account__with_little_equity__is_bid_for_when_the_clock_allows_all_of_it(
    exchange: Exchange,
) -> None:
    fall(exchange, 140)
    debtor = exchange.account("debtor")
    margin.refresh(exchange.state, debtor)
    debtor.cash -= margin.equity(debtor) - margin.initial(exchange.state, debtor) // 100
    who = liquidator(exchange, "bot", discount_min_ppm=900_000)
    exchange.tick(8)
    assert bids(exchange, who, "debtor") == []
    exchange.tick(1)
    assert len(bids(exchange, who, "debtor")) == 1


def test_account_without_margin_for_all__takes_a_part_and_the_next_one_the_rest(exchange: Exchange) -> None:
    fall(exchange, 180)
    bot = exchange.account("bot")
    margin.refresh(exchange.state, exchange.account("debtor"))
    bot.cash = margin.initial(exchange.state, exchange.account("debtor")) // 3
    who = liquidator(exchange, "bot", "spare")
    made = bids(exchange, who, "debtor")
    assert [(one["account"], one["fraction"]) for one in made] == [(exchange.numbers["bot"], 64)]
    while exchange.account("debtor").auction_start:
        made += bids(exchange, who, "debtor")
    assert made[-1]["account"] == exchange.numbers["spare"]
    assert len(made) < 10


def test_liquidator__bids_neither_for_itself_nor_while_it_is_on_auction(exchange: Exchange) -> None:
    fall(exchange, 180)
    assert bids(exchange, liquidator(exchange, "debtor"), *DEBTORS) == []
    assert bids(exchange, liquidator(exchange, "bot", bids_max=1), *DEBTORS) != []
    assert exchange.account("second").positions != {}
