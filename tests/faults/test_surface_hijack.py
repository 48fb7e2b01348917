"""One feed of three that marks its friend's options as it likes, so that the friend borrows the pool and withdraws it.

Where the report with the median at-the-money variance ruled with all its other numbers, a coalition of a feed, a holder
of three calls and a friend took 4,509,000 USD of a pool of 5,010,000 by a forward or an index, 32,000 by a wing. Now
what one feed says moves no mark beyond what the others say.
"""

import sys
from pathlib import Path

import pytest

from sequencer.protocol import constants as c
from sequencer.protocol import margin, surface
from sequencer.protocol.black76 import price_e10, to_ticks
from sequencer.protocol.constants import Reason
from sequencer.protocol.state import expiry_time

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
from exchange import CONTRACT, FAR, INDEX, USD, Exchange

HONEST = {
    0: 30_000_000_000,
    1: 30_200_000_000,
}  # variance that each honest feed reports; the liar's lies between
BETWEEN = 30_100_000_000
STRIKES = {"call": INDEX, "far call": INDEX * 7 // 5}
LIES: dict[str, tuple[str, dict[str, int]]] = {
    "forward": ("call", {"forward": c.U32_MAX}),
    "forward at its bound": ("call", {"forward": INDEX * 5 // 4}),
    "index of the report": ("call", {"index": 1}),
    "index at its bound": ("call", {"index": INDEX * 4 // 5}),
    "wing": ("far call", {"a": BETWEEN, "b": 10**12, "rho": 10**12, "sigma": 1}),
    "wing by Lee": ("far call", {"a": BETWEEN, "b": 2 * 10**12, "sigma": 1}),
    "level": ("call", {"a": 10**12}),
}


class Hijack:
    """An exchange with honest depositors, a thief that holds three options bought at their mark, and its friend."""

    def __init__(self, held: str) -> None:
        self.held = held
        self.exchange = exchange = Exchange(audits=False)
        numbers = exchange.open(*((FAR, strike, 0) for strike in STRIKES.values()), (FAR, INDEX, 1))
        self.option, self.put = numbers[list(STRIKES).index(held)], numbers[2]
        for role, usd in (("treasury", 1), ("honest", 5_000_000), ("thief", 20_000), ("friend", 1_000)):
            exchange.deposit(role, usd)
        self.report()
        exchange.surface(FAR, 2, a=BETWEEN)
        assert exchange.risk(self.option).reason is Reason.OK
        exchange.trade("thief", "honest", self.option, exchange.mark(self.option), 3 * CONTRACT)
        self.withdrawn = 0

    def report(self, *feeds: int) -> None:
        """Honest prices, and the surfaces of honest feeds."""
        self.exchange.feeds(INDEX)
        for feed in feeds or HONEST:
            assert self.exchange.surface(FAR, feed, a=HONEST[feed]).reason is Reason.OK

    def is_honest(self) -> bool:
        """Whether the mark lies where the honest feeds' variances put it."""
        exchange, strike = self.exchange, STRIKES[self.held]
        ends = expiry_time(FAR)
        variances = [
            surface.at_time(a, ends - report.time, ends - exchange.state.globals.time)
            for a, report in zip(HONEST.values(), exchange.state.expiries[FAR].reports, strict=False)
            if report is not None
        ]
        low, high = (to_ticks(price_e10(INDEX, strike, False, pick(variances))) for pick in (min, max))
        return low <= exchange.mark(self.option) <= high

    def most(self) -> int:
        """What the three options can come to be worth more by honest marks, 1e-6 USD."""
        dear = to_ticks(price_e10(INDEX, STRIKES[self.held], False, max(HONEST.values())))
        return 3 * CONTRACT * (dear - self.exchange.mark(self.option))

    def worth(self) -> int:
        """Cash and marks of thief and friend, and what they have withdrawn, 1e-6 USD."""
        total = self.withdrawn
        for role in ("thief", "friend"):
            margin.refresh(self.exchange.state, self.exchange.account(role))
            total += margin.equity(self.exchange.account(role))
        return total

    def cash_out(self) -> None:
        """The friend writes the thief a put at any price that the thief can be made to pay, and withdraws."""
        exchange = self.exchange
        margin.refresh(exchange.state, exchange.account("thief"))
        free = margin.free(exchange.state, exchange.account("thief"))
        price = min(free, exchange.state.globals.pool - 200 * USD) * 9 // 10 // CONTRACT
        exchange.sell("friend", self.put, price, CONTRACT)
        exchange.buy("thief", self.put, price, CONTRACT, tif=c.TIF_IOC)
        for role in ("friend", "thief"):
            margin.refresh(exchange.state, exchange.account(role))
            cash = min(margin.free(exchange.state, exchange.account(role)), exchange.account(role).cash)
            if cash > 0 and exchange.withdraw(role, cash).reason is Reason.OK:
                self.withdrawn += cash


@pytest.mark.parametrize("lie", LIES)
def test_hijack__by_one_feed_of_three__moves_no_mark_and_gains_nothing(lie: str) -> None:
    held, changes = LIES[lie]
    hijack = Hijack(held)
    exchange, most = hijack.exchange, hijack.worth() + hijack.most()
    hijack.report()
    exchange.surface(FAR, 2, **{"a": BETWEEN, **changes})
    exchange.tick(1)
    assert exchange.risk(hijack.option).reason is Reason.OK
    assert hijack.is_honest()
    hijack.cash_out()
    assert hijack.worth() <= most
    hijack.report()
    exchange.surface(FAR, 2, a=BETWEEN)
    assert exchange.risk(hijack.option).reason is Reason.OK
    assert hijack.worth() <= most
    assert margin.equity(exchange.account("thief")) > 0


@pytest.mark.parametrize("lie", LIES)
def test_hijack__beside_a_silent_feed__can_stop_marks_and_not_set_them(lie: str) -> None:
    held, changes = LIES[lie]
    hijack = Hijack(held)
    exchange, before, mark = hijack.exchange, hijack.worth(), hijack.exchange.mark(hijack.option)
    exchange.tick(exchange.state.params.surface_age_max_s + 1)
    hijack.report(0)
    exchange.surface(FAR, 2, **{"a": BETWEEN, **changes})
    exchange.tick(1)
    assert exchange.risk(hijack.option).reason in (Reason.NO_SURFACE, Reason.FEEDS_DISAGREE)
    assert exchange.mark(hijack.option) == mark
    hijack.cash_out()
    assert hijack.worth() <= before


@pytest.mark.parametrize("ago_s", [1, 1_800, 1_801, 10**6])
def test_hijack__by_the_time_of_a_report__moves_no_mark(ago_s: int) -> None:
    """A variance is scaled from the time that was left at the report: an old one would make the options worth less."""
    hijack = Hijack("call")
    exchange = hijack.exchange
    last = exchange.state.expiries[FAR].reports[2]
    assert last is not None
    exchange.tick(ago_s + 2)
    hijack.report()
    exchange.surface(FAR, 2, a=BETWEEN, time=max(exchange.state.globals.time - ago_s, last.time + 1))
    assert exchange.risk(hijack.option).reason is Reason.OK
    assert hijack.is_honest()
