"""A liquidator that is filled up, so that it can take nothing of the portfolio that matters.

A bid was refused when one position did not fit, and the keeper had one account: whoever let it take small parts of 12
other pages met no rival afterwards, and took its own account by a second one at full discount: profit 283,256 USD. Now
a bid moves what fits, the keeper goes on with its next account, and an auction without rivals costs the others nothing.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
from exchange import CALM, INDEX, TODAY, Exchange, key_of

from sequencer.keeper.keeper import Keeper
from sequencer.keeper.liquidator import Bidder, Liquidator
from sequencer.protocol import constants as c
from sequencer.protocol import margin
from sequencer.protocol.constants import Reason


def prepared() -> tuple[Exchange, list[int]]:
    """24 expiries with one call each; `bot` holds a little of the first 12, `debtor` is below MM with the last 12."""
    exchange = Exchange(audits=False, **CALM)
    instruments = exchange.open(*((TODAY + 10 + day, INDEX, 0) for day in range(24)))
    for role, usd in (
        ("treasury", 1),
        ("other", 9_000_000),
        ("long", 9_000_000),
        ("bot", 5_000_000),
        ("spare", 5_000_000),
        ("debtor", 5_000),
    ):
        exchange.deposit(role, usd)
    for one in instruments[:12]:
        exchange.trade("other", "bot", one, exchange.mark(one), 1)
    for one in instruments[12:]:
        exchange.trade("long", "debtor", one, exchange.mark(one), 400)
    price = INDEX
    while exchange.liquidate("debtor").reason is Reason.HEALTHY:
        price += 20_000
        exchange.remark(price)
    return exchange, instruments


def bid(exchange: Exchange, bidders: tuple[str, ...]) -> list[Reason]:
    liquidator = Liquidator([Bidder(exchange.numbers[one], key_of(one)) for one in bidders])
    keeper = Keeper(exchange.state, liquidator=liquidator)
    exchange.tick(60)
    return [exchange.apply(one.raw).reason for one in keeper.bids(exchange.state.globals.time)]


def test_full_liquidator__goes_on_with_its_next_account() -> None:
    exchange, instruments = prepared()
    assert len({one >> 5 for one in exchange.account("bot").positions}) == c.PAGES_MAX
    assert exchange.bid("bot", "debtor", 64).reason is Reason.POSITION_LIMIT
    assert bid(exchange, ("bot",)) == []
    for _ in range(12):
        if not exchange.account("debtor").auction_start:
            break
        assert bid(exchange, ("bot", "spare")) == [Reason.OK]
    assert exchange.account("debtor").auction_start == 0
    assert set(exchange.account("spare").positions) == set(instruments[12:])
    assert exchange.state.globals.deficit == 0


def test_bidder__with_room_for_some_of_the_positions__takes_those() -> None:
    exchange, instruments = prepared()
    (gone, *kept) = instruments[:12]
    exchange.trade("bot", "other", gone, exchange.mark(gone), 1)
    debtor = exchange.account("debtor")
    margin.refresh(exchange.state, debtor)
    equity, risk = margin.equity(debtor), margin.initial(exchange.state, debtor)
    exchange.tick(60)
    assert exchange.bid("bot", "debtor", 64).reason is Reason.OK
    assert set(exchange.account("bot").positions) == {*kept, instruments[12]}
    debtor = exchange.account("debtor")
    margin.refresh(exchange.state, debtor)
    assert margin.initial(exchange.state, debtor) < risk
    assert margin.equity(debtor) * risk >= equity * margin.initial(exchange.state, debtor)
