"""Records drawn to meet each other: few accounts, instruments and prices, short lives, thin margins, all flags.

`hostile.Adversary` looks for what breaks a handler; this one for how valid ones interact, where twins could differ.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "property"))

from exchange import FEEDS, INDEX, Exchange, address
from hostile import ROLES, Adversary, Drawn, populated
from worlds import shape, vast

from sequencer.protocol import codec, margin
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind
from sequencer.protocol.params import UnderlyingParams
from sequencer.protocol.state import expiry_time, instrument_expiry_time

if TYPE_CHECKING:
    from random import Random

_KINDS: Final = (
    (Kind.PLACE, 100),
    (Kind.CANCEL, 8),
    (Kind.AMEND, 30),
    (Kind.PLACE_IN_WORDS, 25),
    (Kind.CANCEL_ALL, 4),
    (Kind.SWEEP, 8),
    (Kind.LIQUIDATE, 10),
    (Kind.BID, 10),
    (Kind.SETTLE, 4),
    (Kind.WITHDRAW, 4),
    (Kind.TRANSFER, 3),
    (Kind.DEPOSIT, 3),
    (Kind.FORCED_ORDER, 14),
    (Kind.FORCED_WITHDRAW, 4),
    (Kind.FORCED_CANCEL_ALL, 1),
    (Kind.FORCED_LIQUIDATE, 3),
    (Kind.FORCED_BID, 4),
    (Kind.SET_SIGNER, 2),
    (Kind.COLLECT, 1),
    (Kind.TICK, 4),
)


def crowded(random: Random) -> Exchange:
    """An exchange whose counters, fund and parameters stand somewhere in their ranges."""
    congested, restricted = random.choice(((5, 50), (20, 400_000), (20_000, 400_000)))
    exchange = populated(
        maker_fee_ppm=random.choice((0, 0, 100, 5_000)),
        taker_fee_ppm=random.choice((0, 300, 20_000)),
        fee_cap_ppm=random.choice((0, 125_000, 1_000_000)),
        fund_share_ppm=random.choice((0, 333_333, 500_000, 1_000_000)),
        sequencing_fee_min=random.choice((0, 1, 100, 7_777)),
        order_hold=random.choice((0, 1, 1_000, 1_000, 10**9)),
        target_per_s=random.choice((1, 50, 2_000)),
        congested_excess=congested,
        restricted_excess=restricted,
        fee_doubling_excess=random.choice((1, 7, 20_000)),
        short_gross_ppm=random.choice((0, 100, 20_000)),
        horizon_s=random.choice((0, 21_600, 100_000)),
        vol_power_ppm=random.choice((0, 300_000, 1_000_000)),
        underlyings=(
            UnderlyingParams(short_floor_ppm=random.choice((0, 10_000, 60_000))),
            UnderlyingParams(price_range_ppm=random.choice((0, 200_000, 900_000)), extreme_range_ppm=600_000),
        ),
        maintenance_ppm=random.choice((1, 500_000, 800_000, 999_999)),
        auction_fraction_max=random.choice((1, 64, 256)),
        auction_discount_max_ppm=random.choice((0, 1_000_000, 4_000_000)),
        liquidation_fee_ppm=random.choice((0, 20_000, 1_000_000)),
        breaker_restrict_ppm=c.U32_MAX,
        breaker_halt_ppm=c.U32_MAX,
        feed_age_max_s=random.choice((180, 100_000)),
        surface_age_max_s=random.choice((600, 1_800, 100_000)),
        risk_age_max_s=random.choice((3_600, 3_600, 3_600, 2)),
    )
    g = exchange.state.globals
    if random.random() < 0.3:
        g.deficit = random.choice((1, 10**6, 10**12, 2**64))
        g.fund = random.choice((0, 0, 10**6))
    if random.random() < 0.3:
        g.deficit -= random.choice((0, 1, 10**6, 2**64))
        g.holes = random.choice((0, 1, 10**7, 10**13, c.U64_MAX - 10**9))
    if random.random() < 0.2:
        g.pool = random.choice((0, 1, 10**9))
    if random.random() < 0.15:
        g.seq = c.U40_MAX - random.randint(0, 900)
    if random.random() < 0.15:
        g.work = c.U48_MAX - random.randint(0, 20_000)
    if random.random() < 0.1:
        g.tick = c.U40_MAX - random.randint(0, 9)
        g.inbox_count = c.U40_MAX - random.randint(0, 9)
        g.withdrawals = c.U32_MAX - random.randint(0, 9)
    return exchange


class Crowd(Adversary):
    """Draws records that nearly always are well formed and signed."""

    def __init__(self, exchange: Exchange, random: Random) -> None:
        super().__init__(exchange, random)
        self.instruments = random.sample(
            sorted(exchange.state.instruments.values()), random.choice((1, 2, 4))
        )
        self.ahead: list[Kind | Drawn] = []  # of a lapse: kinds to be drawn, and records as they are

    def draw(self) -> Drawn:
        """CONTINUE when it is due; a TICK where a class asks for one; else a record."""
        state, draw = self.exchange.state, self.random
        if state.globals.taker is not None and draw.random() < 0.95:
            return codec.encode(Kind.CONTINUE), None
        if not self.ahead and draw.random() < 0.01 and state.params.risk_age_max_s <= 3_600:
            self.ahead = self._lapse()
        if self.ahead and state.globals.taker is None:
            one = self.ahead.pop(0)
            return self.formed(one) if isinstance(one, Kind) else one
        kinds, weights = zip(*_KINDS, strict=True)
        raw, signer = self.formed(draw.choices(kinds, weights)[0])
        record = codec.decode(raw, state.domain, signer or bytes(20))
        assert isinstance(record, codec.Record)
        if codec.class_of(raw) < state.globals.last_class and draw.random() < 0.97:
            return self.formed(Kind.TICK)
        return raw, signer

    def _lapse(self) -> list[Kind | Drawn]:
        """All marks grow too old, and the index may be heard again or not; messages of L1 come, then RISK."""
        state, draw = self.exchange.state, self.random
        params = state.params
        later = draw.choice((1, params.feed_age_max_s, params.feed_age_max_s + 1, params.feed_age_max_s + 50))
        messages = (
            *(Kind.FORCED_WITHDRAW, Kind.FORCED_ORDER, Kind.FORCED_ORDER),
            *(Kind.FORCED_LIQUIDATE, Kind.FORCED_BID),
        )
        some = lambda count: [draw.choice(messages) for _ in range(count)]  # noqa: E731
        time = self._soon(params.risk_age_max_s + later)
        out: list[Kind | Drawn] = [(codec.encode(Kind.TICK, time=time), None), *some(4)]
        index = state.underlyings[0].index
        for feed in range(draw.choice((0, 1, 2))):
            fields = {"underlying": 0, "feed": feed, "time": time, "price": index + feed}
            out.append((codec.encode(Kind.FEED, **fields), address(f"feed {feed}")))
        if draw.random() < 0.7:
            out += self.surfaces(time, index, self._days_ahead(time))
        for page in state.pages:
            fields = {"underlying": page >> 23, "day": page >> 7 & 0xFFFF, "page": page & 127}
            out += [*some(2), (codec.encode(Kind.RISK, **fields), None)]
        return [*out, *some(2)]

    def _instrument(self) -> int:
        return self.random.choice(self.instruments)

    def _account(self) -> int:
        return self.random.randint(1, len(ROLES))

    def _field_expires(self, fields: dict[str, Any]) -> int:
        return self.random.choice((0, 0, 0, self._soon(self.random.randint(0, 4))))

    def _tick(self) -> dict[str, int]:
        return {"time": self._soon(self.random.choice((0, 0, 1, 1, 2)))}

    def _place(self) -> dict[str, Any]:
        draw, instrument, number = self.random, self._instrument(), self._account()
        mark = self.exchange.mark(instrument)
        flags = (
            draw.choice((0, 0, 0, 2, 4, 8))
            | draw.choice((0, 0, 16))
            | draw.choice((0, 0, 0, 32))
            | draw.randint(0, 1)
        )
        account = self.exchange.state.accounts.get(number)
        if (
            account
            and flags & c.FLAG_REDUCE_ONLY
            and account.positions.get(instrument)
            and draw.random() < 0.8
        ):
            flags = flags & ~1 | (account.positions[instrument] > 0)
        spread = draw.choice((0, 1, 2, 3, 3, mark // 50, mark // 4, mark))
        price = mark + draw.choice((-1, 1)) * spread
        return {
            "account": number,
            "instrument": instrument,
            "flags": flags,
            "price": min(max(price, 1), c.U32_MAX),
            "quantity": draw.choice((1, 2, 3, 5, 8, draw.randint(1, 40), draw.randint(1, 9_000))),
            "fee_max": draw.choice((65_535, 65_535, 65_535, 100)),
        }

    def _amount(self, account: int) -> int:
        """Now and then all that is free, to the unit: what comes next stands at the edge of its margin."""
        held = self.exchange.state.accounts.get(account)
        if held is None or self.random.random() < 0.3:
            return super()._amount(account)
        margin.refresh(self.exchange.state, held)
        free = min(margin.free(self.exchange.state, held), held.cash)
        return min(max(free + self.random.choice((0, 0, 1, -1_000_000)), 0), c.U64_MAX)

    # --- the world goes on ----------------------------------------------------------------------

    def keep_going(self) -> list[Drawn]:
        """A new index, near or far, fresh marks, and who falls below its margin is liquidated; seldom, days pass."""
        state, draw = self.exchange.state, self.random
        if draw.random() < 0.15:
            records = super().keep_going()
            self.instruments = [self._alive() for _ in range(2)]
            return records
        self.instruments = [self._alive() for _ in range(draw.choice((1, 2, 4)))]
        time = self._soon(draw.choice((1, 1, 30, 130)))
        price = state.underlyings[0].index * draw.choice((100, 101, 99, 110, 91, 125, 80)) // 100
        price = min(max(price, INDEX // 3), INDEX * 3)
        out: list[Drawn] = [(codec.encode(Kind.CONTINUE), None)] * (40 if state.globals.taker else 0)
        out.append((codec.encode(Kind.TICK, time=time), None))
        for feed in range(draw.choice((1, 2, FEEDS))):
            fields = {"underlying": 0, "feed": feed, "time": time, "price": price + feed}
            out.append((codec.encode(Kind.FEED, **fields), address(f"feed {feed}")))
        if draw.random() < 0.3:
            out += self.surfaces(time, price, self._days_ahead(time))
        for page in state.pages:
            fields = {"underlying": page >> 23, "day": page >> 7 & 0xFFFF, "page": page & 127}
            out.append((codec.encode(Kind.RISK, **fields), None))
        out += [(codec.encode(Kind.LIQUIDATE, account=number), None) for number in state.accounts]
        return out

    def _days_ahead(self, time: int) -> list[int]:
        return [key for key in self.exchange.state.expiries if key < 2**16 and expiry_time(key) > time]

    def _alive(self) -> int:
        time = self.exchange.state.globals.time
        known = sorted(self.exchange.state.instruments.values())
        return self.random.choice([one for one in known if instrument_expiry_time(one) > time] or known)


def giant(random: Random) -> Exchange:
    """An exchange of 60,000 accounts, with full portfolios and deep books."""
    exchange = Exchange(audits=False)
    exchange.state = vast(random, ROLES)
    return exchange


class Giants(Crowd):
    """A crowd among the largest portfolios and the deepest books; also moves their marks, and sells them by auction."""

    def __init__(self, exchange: Exchange, random: Random) -> None:
        super().__init__(exchange, random)
        self.deep = sorted(exchange.state.books)
        self.instruments = [self._alive() for _ in range(4)]

    def draw(self) -> Drawn:
        """As of a crowd; one in six is about marks or auctions."""
        if self.random.random() < 0.84 or self.exchange.state.globals.taker is not None:
            raw, signer = super().draw()
            is_tick = raw[:1] == bytes([Kind.TICK])
            if is_tick and int.from_bytes(raw[1:5], "big") > self._soon(c.DAY_S):  # all would expire
                return codec.encode(Kind.TICK, time=self._soon(1)), None
            return raw, signer
        kinds = (Kind.SURFACE, Kind.RISK, Kind.LIST, Kind.BID, Kind.BID, Kind.FORCED_BID, Kind.LIQUIDATE)
        raw, signer = self.formed(self.random.choice(kinds))
        if self.exchange.state.globals.last_class > c.CLASS_SYSTEM:
            return self.formed(Kind.TICK)
        return raw, signer

    def keep_going(self) -> list[Drawn]:
        """A new index, two new surfaces and their marks; one account comes to stand near its end."""
        state, draw = self.exchange.state, self.random
        self.instruments = [self._alive() for _ in range(4)]
        time = self._soon(draw.choice((1, 30, 130)))
        index = min(
            max(state.underlyings[0].index * draw.choice((99, 100, 101)) // 100, INDEX // 2), INDEX * 2
        )
        out: list[Drawn] = [(codec.encode(Kind.CONTINUE), None)] * (25 if state.globals.taker else 0)
        out += self._expire() if draw.random() < 0.04 else self._report(time, index)
        for _ in range(2):
            out += [self.formed(Kind.SURFACE), self.formed(Kind.RISK)]
        out += [(codec.encode(Kind.LIQUIDATE, account=number), None) for number in range(1, len(ROLES) + 1)]
        return out

    def _expire(self) -> list[Drawn]:
        """The next expiry comes, is fixed and settled."""
        state = self.exchange.state
        days = [
            day for day in state.expiries if state.globals.time + c.TWAP_S < expiry_time(day) <= c.U32_MAX
        ]
        if not days:
            return []
        day, index = min(days), state.underlyings[0].index
        out = self._report(expiry_time(day) - c.TWAP_S, index) + self._report(expiry_time(day), index)
        out.append((codec.encode(Kind.FIX, underlying=0, day=day), None))
        for number in range(1, len(ROLES) + 1):
            out.append((codec.encode(Kind.SETTLE, underlying=0, day=day, account=number), None))
        return out

    def _report(self, time: int, index: int) -> list[Drawn]:
        out: list[Drawn] = [(codec.encode(Kind.TICK, time=time), None)]
        for feed in range(FEEDS):
            fields = {"underlying": 0, "feed": feed, "time": time, "price": index + feed}
            out.append((codec.encode(Kind.FEED, **fields), address(f"feed {feed}")))
        return out

    def _alive(self) -> int:
        state = self.exchange.state
        held = [one for number in (1, 2) for one in state.accounts[number].positions]
        pool = self.deep if self.random.random() < 0.7 else held
        alive = [one for one in pool if instrument_expiry_time(one) > state.globals.time]
        return self.random.choice(alive or self.deep)

    def _surface(self) -> dict[str, int]:
        time, index = self.exchange.state.globals.time, self.exchange.state.underlyings[0].index
        near = index * self.random.randint(80, 125) // 100
        fields = {"underlying": 0, "feed": self.random.randrange(FEEDS), "day": self._page_id() >> 7}
        return {**fields, "time": time, "forward": near, "index": index, **shape(self.random)}

    def _risk(self) -> dict[str, int]:
        page = self._page_id()
        return {"underlying": 0, "day": page >> 7, "page": page & 127}

    def _page_id(self) -> int:
        return self._alive() >> 5

    def _bid(self) -> dict[str, int]:
        held = range(1, len(ROLES) + 1)
        accounts = self.exchange.state.accounts
        auctions = [number for number in held if accounts[number].auction_start]
        target = self.random.choice(auctions or held)
        is_same = (
            self.random.random() < 0.8
        )  # portfolios of other instruments are more than one account may hold
        same = [n for n in held if n != target and (n % 2 == target % 2) == is_same]
        return {
            "account": self.random.choice(same),
            "target": target,
            "fraction": self.random.choice((1, 16, 64, 64, 256)),
            "cash_max": 2**63 - 1,
        }
