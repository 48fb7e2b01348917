"""The books that the fuzz keeps beside the exchange: every account at its TRUE fair value, who has gained what, and the
invariants. Amounts in 1e-6 USD.

E      cash and positions at the truth. hole = max(0, -E): what an account cannot pay.
rho    (pool + fund) / (sum of E + the holes that were there to be seen): what a claim is worth, at most 1.
V      of the coalition: rho x sum of max(0, E) + withdrawn - paid in (+ the treasury, if it is its own).

A record moves no price, so a record may raise V by what honest parties have agreed to and by nothing else, and make no
hole. A price moves no cash: inside the modelled range it may cost an account its IM at most, as its pages put it.

Long because every rule about gain is stated against the same books.
"""

from __future__ import annotations

import copy
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sequencer.protocol import constants as c
from sequencer.protocol import freshness, margin, reports
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.entries import Account
from sequencer.protocol.state import expiry_time

if TYPE_CHECKING:
    from sequencer.protocol.outcome import Outcome
    from tests.economy.truth import Basis
    from tests.economy.world import World

USD = 1_000_000
RECORD_TOLERANCE = 10_000  # one record: 0.01 USD, for floats and roundings
EPISODE_TOLERANCE = 1 * USD  # what such may add up to
MARGIN_TOLERANCE = 0.05  # of IM
PROBE = 9_999  # the account that tries whether somebody could bid
AWAKE_S = 300  # after so long awake and without a jump, liquidators have no excuse
TOGETHER = (1e-3, 0.03)  # forward and variance that honest reports differ by at most, as parts of them
APART = (6e-3, 0.12)
HEALTHY = 1.5  # times IM: an account that nobody may sell


@dataclass(slots=True)
class Violation:
    """What did not hold. `amount` in USD."""

    invariant: str
    step: int
    accounts: list[int]
    amount: float
    what: str
    records: list[str]


class Books:
    def __init__(self, world: World) -> None:
        self.world = world
        self.coalition: set[int] = set()
        self.prices: dict[int, float] = {}  # instrument -> fair value of a lot, ticks
        self.value: dict[int, float] = {}  # account -> E
        self.due: dict[int, float] = {}  # account -> hole that was there to be seen
        self.positions: dict[int, dict[int, int]] = {}  # account -> its positions before the record
        self.initial_of: dict[int, float] = {}
        self.basis: dict[int, Basis] = {}  # page -> the truth when it was marked
        self.indexes: dict[tuple[int, int], Basis] = {}  # (underlying, feed) -> the truth of an honest report
        self.surfaces: dict[tuple[int, int], Basis] = {}  # (expiry, feed)
        self.past: tuple[deque[Basis], ...] = (deque(maxlen=40), deque(maxlen=40))
        self.surfaced: dict[int, Basis] = {}  # expiry -> the truth when its surfaces were reported
        self.paid_in = self.paid_out = 0.0
        self.wealth = 0.0
        self.crumbs = 0.0  # gains below RECORD_TOLERANCE
        self.treasury = 0
        self.gain = self.gain_max = 0.0  # attributable, of the coalition
        self.awake_since = 0
        self.jumped = 0
        self.was: dict[int, float] = {}  # account -> E when it was looked at last
        self.found: list[Violation] = []
        self._seen: set[tuple] = set()

    # --- values ---------------------------------------------------------------------------------

    def price(self, instrument: int) -> None:
        key, strike, put = self.world.listed[instrument]
        expiry = self.world.state.expiries[key]
        if expiry.settled:
            gap = expiry.settlement - strike
            self.prices[instrument] = float(max(-gap if put else gap, 0))
        else:
            self.prices[instrument] = self.world.truth.fair(key, strike, put)

    def reprice(self) -> None:
        """After time or truth has moved."""
        for which, past in enumerate(self.past):
            past.append(self.world.truth.basis(which))
        for instrument in self.world.listed:
            self.price(instrument)
        self.reset()

    def reset(self) -> None:
        for number, account in self.world.state.accounts.items():
            self.value[number] = self.worth(account)
        self.world.state._touched.clear()
        self.wealth = self._wealth()

    def worth(self, account: Account) -> float:
        prices = self.prices
        return account.cash + sum(lots * prices[one] for one, lots in account.positions.items())

    def rho(self) -> float:
        g = self.world.state.globals
        due = sum(min(hole, max(-self.value[number], 0.0)) for number, hole in self.due.items())
        liabilities = sum(self.value.values()) + due
        return min(1.0, (g.pool + g.fund) / liabilities) if liabilities > 1 else 1.0

    def _wealth(self) -> float:
        own = sum(max(self.value.get(number, 0.0), 0.0) for number in self.coalition)
        total = self.rho() * own + self.paid_out - self.paid_in
        return total + self.world.state.globals.treasury if self.world.setting.operator else total

    # --- after a record -------------------------------------------------------------------------

    def after(self, kind: Kind, fields: dict, out: Outcome) -> None:
        """Looks at what one record has done to everybody's true value."""
        if kind == Kind.RISK and out.reason is Reason.OK:
            self._marked(fields)
        if kind == Kind.FIX and out.reason is Reason.OK:
            self._fixed(fields, out)
        state = self.world.state
        if kind == Kind.AMEND and out.reason is Reason.OK and not out.removed:
            least = min(self.world.params.sequencing_fee_min, state.globals.pool)
            if out.fee < least:  # it can come again for ever
                self.report("unpaid", [fields["account"]], least / 1e6, "AMEND in its place pays no fee", ())
        touched = [key & c.U32_MAX for key in state._touched if key >> c.TYPE_SHIFT == 1]
        state._touched.clear()
        fees, self.treasury = state.globals.treasury - self.treasury, state.globals.treasury
        if not touched and kind not in (Kind.COLLECT, Kind.SWEEP):
            return
        before = {number: self.value.get(number, 0.0) for number in touched}
        for number in touched:
            self.value[number] = self.worth(state.accounts[number])
        ours = fields.get("account") in self.coalition
        if kind == Kind.DEPOSIT and ours:
            self.paid_in += fields["amount"]
        if kind in (Kind.WITHDRAW, Kind.FORCED_WITHDRAW) and ours:
            self.paid_out += out.amount
        old, self.wealth = self.wealth, self._wealth()
        gained = self.wealth - old
        agreed = self._agreed(kind, fields, out, before)
        if (
            not ours
        ):  # what honest people pay in fees is theirs to pay, and may be the treasury's or all claims' gain
            agreed += max(fees, 0) + out.fee + sum(fill.taker_fee for fill in out.fills)
        agreed += self._beyond(touched, before)
        if self.coalition.isdisjoint(touched):
            agreed = max(agreed, gained)  # others gave it to all
        self.gain += gained - agreed
        self.gain_max = max(self.gain_max, self.gain)
        if gained - agreed > RECORD_TOLERANCE:
            self.report(
                "gain", touched, gained - agreed, f"{kind.name} gives the coalition what nobody agreed to",
                (kind,),
            )  # fmt: skip
        elif gained > agreed:
            self.crumbs += gained - agreed
            if self.crumbs > EPISODE_TOLERANCE:
                self.report(
                    "gain", touched, self.crumbs, f"{kind.name}s add up to a gain of the coalition", (0,)
                )
        self._holes(kind, fields, before)
        for number in touched:
            self.positions[number] = dict(state.accounts[number].positions)
        if kind == Kind.BID:
            self._sold(fields, before)

    def _agreed(self, kind: Kind, fields: dict, out: Outcome, before: dict[int, float]) -> float:
        """What honest parties have lost to the coalition, or won of it, by trades that they have signed."""
        total = 0.0
        for fill in out.fills:
            if (fill.taker in self.coalition) != (fill.maker in self.coalition):
                sign = 1 if (fill.side == c.BUY) == (fill.taker in self.coalition) else -1
                total += sign * fill.quantity * (self.prices[fill.instrument] - fill.maker_price)
        if kind == Kind.BID:
            bidder, target = fields["account"], fields["target"]
            if bidder in self.coalition and target not in self.coalition:
                # A liquidator's premium out of what the honest target has left.
                total += max(before[target], 0.0) - max(self.value[target], 0.0)
            elif target in self.coalition and bidder not in self.coalition:
                total += max(before[bidder] - self.value[bidder], 0.0)
            if before[target] < 0:
                total += self._slip(target)
        return total * min(1.0, self.rho()) if total > 0 else total

    def _beyond(self, touched: list[int], before: dict[int, float]) -> float:
        """Holes of the coalition that a record deepens at marks which the truth has left beyond the modelled range."""
        return sum(
            max(-self.value[number], 0.0) - max(-before[number], 0.0)
            for number in touched
            if self.value[number] < min(before[number], 0.0)
            and number in self.coalition
            and not self.is_in_range(self.world.state.accounts[number])
        )

    def _slip(self, number: int) -> float:
        """What the marks may be off the truth by at which a bid has just taken a part of an account.

        Marks count until the index has moved by mark_move_max_ppm; beyond that, and for volatility, nothing is allowed.
        """
        world, now = self.world, self.world.state.accounts[number].positions
        slip = RECORD_TOLERANCE
        for instrument, held in self.positions.get(number, {}).items():
            sold = held - now.get(instrument, 0)
            basis = self.basis.get(instrument >> 5)
            if sold and (basis is None or not basis.still_counts(world.truth, instrument >> 28)):
                return RECORD_TOLERANCE
            slip += abs(sold * (self.prices[instrument] - world.mark(instrument)))
        return slip

    def _holes(self, kind: Kind, fields: dict, before: dict[int, float]) -> None:
        state = self.world.state
        for number, was in before.items():
            now = self.value[number]
            deeper = max(-now, 0.0) - max(-was, 0.0)
            if deeper <= RECORD_TOLERANCE or now >= was:
                continue
            account = state.accounts[number]
            if not self.is_in_range(account):
                continue
            if kind == Kind.BID and deeper <= self._slip(number):
                continue
            self.report(
                "hole", [number], deeper,
                f"{kind.name} leaves account {number} with {now / USD:.2f} of {was / USD:.2f};"
                f" liquidators {self._sleep()}",
                (kind, number in self.coalition, was > 0, self._sleep()),
            )  # fmt: skip

    def _sleep(self) -> str:
        """Whether honest liquidators could act for a whole auction."""
        awake = self.world.truth.time - (self.awake_since or self.world.truth.time)
        return "awake" if awake >= self.world.params.auction_duration_s else "asleep"

    def _sold(self, fields: dict, before: dict[int, float]) -> None:
        target = fields["target"]
        if target not in before or target in self.coalition:
            return
        lost = before[target] - self.value[target]
        needed = self.initial_of.get(target, 0.0)
        if lost > USD and needed and before[target] > HEALTHY * needed:
            self.report(
                "sold",
                [target],
                lost,
                f"account {target} sold with {before[target] / USD:.2f}, IM {needed / USD:.2f}",
                (),
            )

    # --- marks ----------------------------------------------------------------------------------

    def _marked(self, fields: dict) -> None:
        """Marks lie where the majority's reports put them."""
        world = self.world
        page_id = fields["underlying"] << 23 | fields["day"] << 7 | fields["page"]
        key = page_id >> 7
        truth = world.truth
        self.basis[page_id] = truth.basis(key >> 16)
        one = truth.slices[key]
        reach = self._reach(key)
        if one.settled_at is not None or reach is None:
            return
        page = world.state.pages[page_id]
        for row, terms in enumerate(page.terms):
            strike, put = terms & 0x7FFF_FFFF, bool(terms >> 31)
            low, high = truth.bounds_of(key, strike, put, *reach)
            mark = page.rows[row][0]
            if not low - 2 <= mark <= high + 2:
                lots = 10_000
                off = (low - mark if mark < low else mark - high) * lots
                self.report(
                    "mark",
                    [],
                    off,
                    f"mark {mark} of {page_id << 5 | row:#x} outside {low:.0f} to {high:.0f}",
                    (),
                )

    def _reach(self, key: int) -> tuple[float, float] | None:
        """How far honest reports may put forward and variance off the truth now; None: too far to tell."""
        world, truth = self.world, self.world.truth
        setting, params = world.setting, world.params
        honest = [feed for feed in range(setting.feeds) if feed not in setting.liars]
        missing = False
        for told, age_s, gap in (
            ({feed: self.indexes.get((key >> 16, feed)) for feed in honest}, params.feed_age_max_s, 4e-4),
            ({feed: self.surfaces.get((key, feed)) for feed in honest}, params.surface_age_max_s, 5e-3),
        ):
            for basis in told.values():
                if basis is None or truth.time - basis.time > age_s:
                    missing = True
                elif basis.gap(truth, key) > gap:
                    return None
        if not missing:
            return TOGETHER
        # Liars among the rest may hold the index where it was until that is too old.
        held = (one for one in self.past[key >> 16] if truth.time - one.time <= 2 * params.feed_age_max_s)
        return APART if all(one.gap(truth, key) < 2e-3 for one in held) else None

    def _fixed(self, fields: dict, out: Outcome) -> None:
        key = fields["underlying"] << 16 | fields["day"]
        one = self.world.truth.slices[key]
        quiet = self.world.omitted.get(f"FEED {key >> 16}", 0) < expiry_time(key & 0xFFFF) - 2 * c.TWAP_S
        if quiet and one.settled_at and abs(out.number / one.settled_at - 1) > 0.01:
            self.report(
                "fix",
                [],
                abs(out.number - one.settled_at) * 10_000,
                f"settled at {out.number}, truly {one.settled_at:.0f}",
                (),
            )
        for instrument, (of, _, _) in self.world.listed.items():
            if of == key:
                self.price(instrument)
        self.reset()

    # --- after prices have moved ----------------------------------------------------------------

    def is_in_range(self, account: Account) -> bool:
        """Whether the truth is still inside what margin is made for, seen from the marks that stand."""
        world = self.world
        horizon = world.params.horizon_s
        for page_id in {one >> 5 for one in account.positions}:
            basis = self.basis.get(page_id)
            key = page_id >> 7
            if basis is None or world.truth.time - basis.time > horizon:
                return False
            now = world.truth.index[key >> 16]
            one = world.truth.slices[key]
            if one.settled_at is not None and not world.state.expiries[key].settled:
                now = one.settled_at
            move = now / basis.index - 1
            reach = world.range_of(key >> 16)
            if abs(move) > 0.999 * reach:
                return False
            truth = world.truth
            ratio = truth.volatility(key, truth.factor[key >> 16]) / truth.volatility(key, basis.vol) - 1
            down, up = world.vols_of(key)
            if not -0.999 * down <= ratio <= 0.999 * up:
                return False
        return True

    def look(self) -> None:
        """Margin bears what it is made for; while liquidators are awake and nothing jumps nobody ends below nothing."""
        world = self.world
        state = world.state
        self.initial_of = {}
        # A hole that has closed since it was seen must be seen again.
        self.due = {number: min(hole, max(-self.value[number], 0.0)) for number, hole in self.due.items()}
        quiet = world.truth.time - max(self.awake_since or 2**40, self.jumped) >= AWAKE_S
        for number, account in state.accounts.items():
            if not account.positions:
                continue
            margin.refresh(state, account)
            equity, initial = margin.equity(account), margin.initial(state, account)
            self.initial_of[number] = initial
            true = self.value[number]
            worst = equity - initial * (1 + MARGIN_TOLERANCE) - 2 * USD
            if true < min(worst, -USD) and self.is_in_range(account):
                self.report(
                    "margin", [number], equity - initial - true,
                    f"account {number} worth {true / USD:.2f}; its marks said {equity / USD:.2f},"
                    f" IM {initial / USD:.2f};"
                    f" {len({one >> 28 for one in account.positions})} underlyings",
                    (number in self.coalition, len({one >> 28 for one in account.positions})),
                )  # fmt: skip
            was, self.was[number] = self.was.get(number, true), true
            if quiet and true < -USD and was >= 0 and self.is_in_range(account):
                self.report(
                    "awake",
                    [number],
                    -true,
                    f"account {number} below nothing while liquidators are awake",
                    (),
                )

    def seen(self) -> None:
        """After a whole pass of an awake keeper every hole is there to be seen."""
        state = self.world.state
        for account in state.accounts.values():
            margin.refresh(state, account)
        self.due = {
            number: min(-value, max(-margin.equity(state.accounts[number]), 0))
            for number, value in self.value.items()
            if value < 0
        }
        self.wealth = self._wealth()

    # --- could somebody take it? ----------------------------------------------------------------

    def probe(self) -> None:
        """Every account below MM can be put on auction and taken, slice by slice, by somebody rich and empty."""
        state = self.world.state
        for number, account in list(state.accounts.items()):
            if not account.positions:
                continue
            margin.refresh(state, account)
            needed = 0.9 * margin.maintenance(state, account) - USD
            if self.value[number] < needed and margin.equity(account) < needed:
                why = self._try(number)
                if why:
                    self.report("untakeable", [number], -self.value[number], why, (why,))

    def _try(self, number: int) -> str:
        """ "" or who refused. The state is as it was afterwards."""
        world = self.world
        state = world.state
        kept, globals_, steps = state.accounts[number], state.globals, world.steps
        holders, tail, deposited = dict(state.holders), list(world.tail), world.auditor.deposited
        pages = {one >> 5: state.pages[one >> 5] for one in kept.positions}
        basis = self.basis
        self.basis = dict(basis)
        state.pages.update({page_id: copy.copy(page) for page_id, page in pages.items()})
        state.globals = copy.copy(globals_)
        state.accounts[number] = kept.clone()
        rich = state.accounts[PROBE] = Account(PROBE.to_bytes(20, "big"))
        rich.cash = 10**15
        state.globals.pool += 10**15
        after, self.after = self.after, lambda *_: None
        try:
            return self._sell(number)
        finally:
            self.after = after
            state.globals = globals_
            state.accounts[number] = kept
            state.pages.update(pages)
            state.epoch += 1  # what was valued at other pages is valued again
            self.basis = basis
            del state.accounts[PROBE]
            state.holders.clear()
            state.holders.update(holders)
            state._touched.clear()
            world.nonces.pop(PROBE, None)
            world.tail.clear()
            world.tail.extend(tail)
            world.steps, world.auditor.deposited = steps, deposited

    def _is_silent(self, account: Account) -> bool:
        """Whether feeds that an account's marks need have been silent for less than marks may be old."""
        state, params = self.world.state, self.world.params
        now, age_s = state.globals.time, params.risk_age_max_s
        for page_id in freshness.unfit_pages(state, account):
            index = now - state.underlyings[page_id >> 23].time
            times = sorted(
                (one.time if one else 0 for one in state.expiries[page_id >> 7].reports), reverse=True
            )
            surfaces = now - times[reports.quorum(params) - 1]
            if params.feed_age_max_s < index <= params.feed_age_max_s + age_s:
                return True
            if params.surface_age_max_s < surfaces <= params.surface_age_max_s + age_s:
                return True
        return False

    def _sell(self, number: int) -> str:
        world = self.world
        account = world.state.accounts[number]
        if freshness.unfit_pages(world.state, account):  # anyone may have marks made anew, where they can be
            for page_id in sorted({one >> 5 for one in account.positions}):
                world.risk(page_id)
        if not account.auction_start:
            out = world.do(Kind.LIQUIDATE, account=number)
            if out.reason is Reason.HEALTHY:
                return ""  # the marks do not say it yet
            if out.reason is Reason.RISK_STALE and self._is_silent(account):
                return ""  # feeds are silent, and not for long enough that marks may count without them
            if out.reason is not Reason.OK:
                return f"LIQUIDATE: {out.reason.name}"
        for _ in range(200):
            account = world.state.accounts[number]
            if not account.auction_start:
                return ""
            # A few lots may go as a whole only, which the clock allows at its end.
            for fraction in (world.params.auction_fraction_max, 256, 128, 1):
                out = world.bid(PROBE, number, fraction)
                if out.reason in (Reason.OK, Reason.HEALTHY):
                    break
            if out.reason is Reason.HEALTHY:
                return ""
            if out.reason is not Reason.OK:
                unfit = freshness.unfit_pages(world.state, account)
                if {one >> 5 for one in account.positions} <= set(unfit):
                    return ""  # its other positions are sold, and nobody has a mark to sell these at
                early = world.truth.time - account.auction_start < world.params.auction_duration_s
                return "" if early else f"BID: {out.reason.name}"
        return "BID: 200 do not end it"

    # --- the end --------------------------------------------------------------------------------

    def audit(self) -> None:
        try:
            self.world.auditor.check_money(self.world.state)
        except AssertionError as error:
            self.report("money", [], 0.0, f"money does not add up: {error}", ())

    def report(self, invariant: str, accounts: list[int], amount: float, what: str, sort: tuple) -> None:
        """Keeps the first of each sort of an episode."""
        if (invariant, sort) not in self._seen:
            self._seen.add((invariant, sort))
            self.found.append(
                Violation(
                    invariant, self.world.steps, accounts, amount / USD, what, self.world.last_records()
                )
            )
