"""Nature, the keeper, and honest people: what happens in a turn around the coalition's moves."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from sequencer.protocol import constants as c
from sequencer.protocol import insurance, margin
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.state import expiry_time
from tests.economy.truth import step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.economy.world import World

FEED_MOVE, FEED_S = 0.0003, 100
SURFACE_MOVE, SURFACE_S = 0.01, 1_200
REMARK_MOVE = 0.001
REMARK_S = 900
BID_FROM_PPM = 50_000  # the discount at which the honest liquidator begins


class Nature:
    """Time, prices and volatility. `aimed` weather brings prices to the worst point of an account in the range."""

    def __init__(self, world: World, rng: Random, weather: str) -> None:
        self.world, self.rng, self.weather = world, rng, weather
        self.target: dict[int, float] = {}  # underlying -> where the index is being driven

    def move(self) -> None:
        """Time passes, prices move; the open accounts are looked at before anybody can act."""
        rng, world, truth = self.rng, self.world, self.world.truth
        seconds = rng.choice((1, 5, 15, 30, 60)) if rng.random() < 0.93 else rng.choice((120, 300, 900))
        if self.weather == "slow" and rng.random() < 0.2:
            seconds = rng.randrange(900, 3_400)
        truth.advance(seconds)
        jumped = False
        for which in (0, 1):
            factor = step(rng, truth, which, seconds, truth.base[which] * 1.2)
            chance = rng.random()
            if self.weather == "jumps" and chance < 0.03:
                reach = world.range_of(which)
                factor *= 1 + rng.uniform(-0.95, 0.95) * reach
            elif self.weather == "crash" and chance < 0.02:
                factor *= rng.choice((0.55, 0.7, 0.8, 1.25, 1.4, 1.7))
            elif self.weather == "aimed" and chance < 0.15:
                factor *= self._aimed(which)
            elif self.weather == "driven" and which not in self.target and chance < 0.05:
                self.target[which] = truth.index[which] * (1 + rng.uniform(-0.3, 0.3))
            if which in self.target:
                gap = self.target[which] / truth.index[which]
                factor *= min(max(gap, 0.996), 1.004)
                if abs(gap - 1) < 0.002:
                    del self.target[which]
            if abs(factor - 1) > 0.006 or seconds > 120:
                jumped = True
            truth.index[which] = min(max(truth.index[which] * factor, 20_000.0), 60_000_000.0)
            if rng.random() < 0.02:
                one = world.params.of(which)
                part = rng.choice((0.1, 0.3, 0.95)) / c.PPM
                change = rng.uniform(-one.vol_down_ppm, one.vol_up_ppm) * part
                truth.factor[which] = min(max(truth.factor[which] + change, -0.25), 0.6)
                jumped |= abs(change) > 0.03
        if jumped:
            world.books.jumped = truth.time
        world.books.reprice()
        world.books.look()
        world.do(Kind.TICK, time=truth.time)

    def _aimed(self, which: int) -> float:
        """A move inside the range to where one of the coalition's accounts is worth least."""
        world, truth = self.world, self.world.truth
        held = [n for n in world.members if world.state.accounts[n].positions]
        if not held:
            return 1.0
        account = world.state.accounts[self.rng.choice(held)]
        reach = world.range_of(which) * 0.99
        kept = truth.index[which]
        worst, best = 1.0, None
        for place in range(-20, 21):
            truth.index[which] = kept * (1 + reach * place / 20)
            value = sum(
                lots * truth.fair(*world.listed[one])
                for one, lots in account.positions.items()
                if one >> 28 == which and truth.slices[world.listed[one][0]].settled_at is None
            )
            if best is None or value < best:
                worst, best = truth.index[which] / kept, value
        truth.index[which] = kept
        return worst


class Keeper:
    """The sequencer's duties, less what it omits now, and the honest liquidator's bids."""

    def __init__(self, world: World, rng: Random) -> None:
        self.world, self.rng = world, rng
        self.reported: dict[int, tuple[int, float]] = {}  # underlying -> when, what

    def work(self) -> None:
        world, rng = self.world, self.rng
        for which in (0, 1):
            at, told = self.reported.get(which, (0, 0.0))
            now = world.truth.index[which]
            is_due = world.truth.time - at >= FEED_S or abs(now - told) > FEED_MOVE * now
            if is_due and not world.is_omitted("FEED", f"FEED {which}"):
                world.report_index(which, rng)
                self.reported[which] = world.truth.time, now
        self._surfaces()
        self._fixes()
        self._risks()
        books = world.books
        books.look()
        asleep = any(until > world.truth.time for until in world.omitted.values())
        if asleep:
            books.awake_since = 0
        elif not books.awake_since:
            books.awake_since = world.truth.time
        if not world.is_omitted("LIQUIDATE"):
            self._liquidations()
            if not asleep:
                books.seen()
        if not world.is_omitted("BID"):
            self._bids()

    def _surfaces(self) -> None:
        world = self.world
        if world.is_omitted("SURFACE"):
            return
        for key in world.state.expiries:
            told = world.books.surfaced.get(key)
            is_over = expiry_time(key & 0xFFFF) <= world.truth.time
            if is_over or (
                told is not None
                and told.gap(world.truth, key) < SURFACE_MOVE
                and world.truth.time - told.time < SURFACE_S
            ):
                continue
            world.report_surface(key)

    def _fixes(self) -> None:
        world = self.world
        for key, expiry in world.state.expiries.items():
            if expiry.settled:
                if not world.is_omitted("SETTLE"):
                    for number, account in list(world.state.accounts.items()):
                        if any(one >> 12 == key for one in account.positions):
                            world.do(Kind.SETTLE, underlying=key >> 16, day=key & 0xFFFF, account=number)
            elif expiry_time(key & 0xFFFF) <= world.truth.time and not world.is_omitted("FIX"):
                world.do(Kind.FIX, underlying=key >> 16, day=key & 0xFFFF)

    def _risks(self) -> None:
        """In waves, so that the pages of an account are marked together."""
        world, truth = self.world, self.world.truth
        due = list(self._due())
        apart = world.params.mark_skew_max_s // 2
        for page_id, page in list(world.state.pages.items()):
            is_behind = due and truth.time - page.time > apart and page.time
            omitted = world.is_omitted("RISK", f"RISK {page_id}", f"FEED {page_id >> 23}")
            if page_id in due or (is_behind and not omitted):
                world.risk(page_id)

    def _due(self) -> Iterator[int]:
        world, truth = self.world, self.world.truth
        for page_id, page in list(world.state.pages.items()):
            basis = world.books.basis.get(page_id)
            key = page_id >> 7
            if world.is_omitted("RISK", f"RISK {page_id}", f"FEED {key >> 16}"):
                continue
            if world.state.expiries[key].settled and not any(
                one >> 5 == page_id for account in world.state.accounts.values() for one in account.positions
            ):
                continue
            moved = basis is None or basis.gap(truth, key) > REMARK_MOVE
            if moved or truth.time - basis.time > REMARK_S or page.marked < len(page.terms):
                yield page_id

    def _liquidations(self) -> None:
        world, state = self.world, self.world.state
        for number, account in list(state.holders.items()):
            margin.refresh(state, account)
            equity = margin.equity(account)
            if account.auction_start:
                hole = insurance.hole_of(state.globals, account, equity)
                if equity >= margin.initial(state, account) or hole != account.hole:
                    world.do(Kind.LIQUIDATE, account=number)
            elif equity < margin.maintenance(state, account) + account.reserved:
                world.do(Kind.LIQUIDATE, account=number)

    def _bids(self) -> None:
        """The bot takes what it can at a price that is worth it at the truth."""
        world, state = self.world, self.world.state
        bot = world.number["bot"]
        for number, account in list(state.accounts.items()):
            if not account.auction_start or number == bot:
                continue
            for _ in range(6):
                account = state.accounts[number]
                if not account.auction_start:
                    break
                elapsed = world.truth.time - account.auction_start
                params = world.params
                ready = params.auction_discount_max_ppm * elapsed // params.auction_duration_s >= BID_FROM_PPM
                if not ready and elapsed < params.auction_duration_s:
                    break
                whole = world.equity(number) <= 0
                if (
                    world.bid(bot, number, 256 if whole else params.auction_fraction_max).reason
                    is not Reason.OK
                ):
                    break


class Crowd:
    """A market maker that quotes around the truth, traders that come and go, a gambler at the edge of its margin."""

    def __init__(self, world: World, rng: Random) -> None:
        self.world, self.rng = world, rng
        self.quoted = 0

    def act(self) -> None:
        world, rng = self.world, self.rng
        if rng.random() < 0.5:
            self._quote()
        if rng.random() < 0.5:
            self._trade("trader", rng.randrange(100, 20_000))
        if rng.random() < 0.3:
            self._trade("gambler", rng.randrange(500, 60_000))
        if rng.random() < 0.01:
            number = world.number["trader"]
            world.withdraw(number, max(world.free(number) // 10, 1))
            world.deposit("trader", 10_000_000_000)

    def _quote(self) -> None:
        world, rng = self.world, self.rng
        maker = world.number["maker"]
        world.submit(Kind.CANCEL_ALL, maker, nonce_floor=0)
        chosen = world.tradable()
        for instrument in rng.sample(chosen, min(4, len(chosen))):
            fair = world.books.prices[instrument]
            half = max(2.0, fair * 0.004)
            lots = rng.choice((10_000, 50_000, 200_000))
            if fair - half > 1:
                world.place(maker, instrument, c.BUY, int(fair - half), lots, flags=c.FLAG_POST_ONLY)
            world.place(maker, instrument, c.SELL, int(fair + half) + 1, lots, flags=c.FLAG_POST_ONLY)

    def _trade(self, role: str, lots: int) -> None:
        world, rng = self.world, self.rng
        chosen = world.tradable()
        if not chosen:
            return
        instrument = rng.choice(chosen)
        fair = world.books.prices[instrument]
        side = rng.randrange(2)
        slack = max(3.0, fair * 0.01)
        world.place(
            world.number[role], instrument, side, fair - slack if side else fair + slack, lots, c.TIF_IOC
        )
