"""An exchange with the people around it: who they are, what they send, and what is left out. Every record goes through
the real transition; the books of the fuzz (`books.py`) look at each."""

from collections import deque
from dataclasses import dataclass, field
from random import Random

from sequencer.protocol import codec, margin
from sequencer.protocol import constants as c
from sequencer.protocol.book import Order
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.market import strike_step
from sequencer.protocol.params import Params
from sequencer.protocol.state import State, expiry_time
from sequencer.protocol.transition import apply
from tests.economy.books import Books
from tests.economy.truth import Truth
from tests.twins.auditor import Auditor

DOMAIN = bytes(32)  # signers are handed to `apply`, so that nothing is signed
USD = 1_000_000
TODAY = 20_000
LEGIBLE = 12  # records that a violation shows
ORDERS = (
    Kind.PLACE,
    Kind.PLACE_IN_WORDS,
    Kind.AMEND,
    Kind.CONTINUE,
    Kind.FORCED_ORDER,
)  # CONTINUE may follow


@dataclass(slots=True)
class Setting:
    """What an episode is made of, drawn at its beginning."""

    feeds: int = 3
    liars: tuple[int, ...] = ()
    start: int = TODAY * c.DAY_S + 36_000
    expiries: tuple[tuple[int, int], ...] = (
        (0, 1),
        (0, 7),
        (0, 30),
        (1, 1),
        (1, 30),
    )  # underlying, days from now
    strikes: tuple[float, ...] = (0.95, 1.0, 1.05)  # of the index
    is_calm: bool = False  # no velocity breaker
    operator: bool = False  # whose treasury it is belongs to the coalition
    coalition: tuple[int, ...] = (20_000, 200_000)  # USD that each account brings
    population: dict[str, int] = field(default_factory=dict)


HONEST = {
    "treasury": 1,
    "saver": 2_000_000,
    "maker": 5_000_000,
    "trader": 200_000,
    "gambler": 20_000,
    "bot": 5_000_000,
}


def address(number: int) -> bytes:
    return number.to_bytes(20, "big")


class World:
    """State, truth, people and the books. `omitted[what]`: until when the sequencer leaves it out."""

    def __init__(self, setting: Setting, rng: Random) -> None:
        self.setting, self.rng = setting, rng
        calm = {"breaker_restrict_ppm": c.U32_MAX, "breaker_halt_ppm": c.U32_MAX} if setting.is_calm else {}
        keys = tuple(address(1_000 + feed) for feed in range(setting.feeds))
        self.params = Params(feed_keys=keys, treasury_account=1, **calm)
        self.state = State(DOMAIN, self.params, (0, 1))
        term = self.params.vol_reference_s, self.params.vol_power_ppm / c.PPM
        self.truth = Truth(setting.start, [5_000_000.0, 300_000.0], [0.6, 0.8], [0.0, 0.0], *term)
        self.auditor = Auditor()
        self.number: dict[str, int] = {}
        self.nonces: dict[int, int] = {}
        self.omitted: dict[str, int] = {}
        self.tail: deque[tuple[str, dict[str, object], Reason]] = deque(maxlen=LEGIBLE)
        self.steps = 0
        self._is_plan = False  # an order that may be undone is on its way
        self.listed: dict[int, tuple[int, int, bool]] = {}  # instrument -> expiry's key, strike, put
        self.books = Books(self)
        self.frozen = False
        self._open()

    # --- setting up -----------------------------------------------------------------------------

    def _open(self) -> None:
        self.do(Kind.TICK, time=self.truth.time)
        for role, usd in {**HONEST, **self.setting.population}.items():
            self.deposit(role, usd * USD)
        for place, usd in enumerate(self.setting.coalition):
            self.deposit(f"member {place}", usd * USD)
        self.members = [number for role, number in self.number.items() if role.startswith("member")]
        self.books.coalition = {*self.members, *([1] if self.setting.operator else [])}
        self.books.reset()
        for which in (0, 1):
            self.report_index(which)
        today = self.truth.time // c.DAY_S
        for underlying, days in self.setting.expiries:
            for strike in self.setting.strikes:
                near = self.on_grid(underlying, self.truth.index[underlying] * strike)
                for put in (0, 1):
                    self.open(underlying, today + days, near, put)
        for key in self.state.expiries:
            self.report_surface(key)
        for page in list(self.state.pages):
            self.risk(page)

    def range_of(self, underlying: int) -> float:
        """Greatest move that IM is made for, as a part of the index."""
        return self.params.of(underlying).price_range_ppm / c.PPM

    def vols_of(self, key: int) -> tuple[float, float]:
        """Greatest fall and rise of an expiry's volatility that IM is made for, as parts of it."""
        one, truth = self.params.of(key >> 16), self.truth
        down, up = one.vol_down_ppm / c.PPM, one.vol_up_ppm / c.PPM
        return 1 - truth.volatility(key, -down), truth.volatility(key, up) - 1

    def on_grid(self, underlying: int, near: float) -> int:
        """The strike next to a price (ticks) that LIST takes."""
        step = strike_step(max(round(near), 1), self.params.of(underlying))
        return max(round(near / step), 1) * step

    def deposit(self, role: str, amount: int) -> None:
        number = self.number.setdefault(role, len(self.number) + 1)
        self.do(Kind.DEPOSIT, owner=address(number), account=number, amount=amount)

    # --- records --------------------------------------------------------------------------------

    def do(self, kind: Kind, by: int | None = None, **fields: int | bytes):
        """Applies one record, signed by account or feed key `by`; opens a tick where its class asks for one."""
        g = self.state.globals
        raw = codec.encode(kind, **fields)
        signer = None if by is None else address(by)
        is_free = g.taker is None and kind not in (Kind.TICK, Kind.CONTINUE)
        if is_free and codec.class_of(raw) < g.last_class:
            self.do(Kind.TICK, time=g.time)
        out = apply(self.state, raw, signer)
        self.steps += 1
        self.auditor.count(raw, out)
        self.tail.append((kind.name, fields, out.failed or out.reason))
        if g.plan_root or (kind == Kind.CONTINUE and self._is_plan):
            return self._plan(kind, fields, out)
        self.books.after(kind, fields, out)
        if g.taker is not None and kind in ORDERS:
            more = self.do(Kind.CONTINUE)
            out.fills += more.fills
            out.rested = more.rested or out.rested
        return out

    def _plan(self, kind: Kind, fields: dict, out):
        """An order that holds as a whole or not at all counts as one record, once it has ended."""
        is_first, self._is_plan = not self._is_plan, True
        if not out.pending:
            return out
        more = self.do(Kind.CONTINUE)
        out.fills, out.rested, out.failed = out.fills + more.fills, more.rested, more.failed
        if is_first:
            self._is_plan = False
            if out.failed:
                out.fills, out.fee = [], 0
            out.fee += more.fee
            self.books.after(kind, fields, out)
        else:
            out.fee += more.fee
        return out

    def submit(self, kind: Kind, account: int, **fields: int):
        """A record that `account` signs, with its next nonce."""
        nonce = self.nonces.get(account, 0)
        floor = self.state.accounts[account].nonce_floor if account in self.state.accounts else 0
        nonce = max(nonce, floor)
        out = self.do(kind, account, account=account, nonce=nonce, expires=0, **fields)
        used = out.reason is Reason.OK
        self.nonces[account] = nonce + used
        return out

    def last_records(self) -> list[str]:
        """The last records, legibly."""
        lines = []
        for name, fields, reason in self.tail:
            shown = " ".join(
                f"{key}={part.hex() if isinstance(part, bytes) else part}" for key, part in fields.items()
            )
            lines.append(f"{name} {shown} -> {reason.name}")
        return lines

    def is_omitted(self, *what: str) -> bool:
        return any(self.omitted.get(one, 0) > self.truth.time for one in what)

    # --- feeds ----------------------------------------------------------------------------------

    def report_index(self, underlying: int, rng: Random | None = None) -> None:
        """Every feed reports the index: honest ones the truth within a basis point, liars what they like."""
        rng = rng or self.rng
        for feed in range(self.setting.feeds):
            if self.is_omitted("FEED", f"FEED {underlying}", f"feed {feed}"):
                continue
            price = self.truth.index[underlying]
            if feed in self.setting.liars:
                price *= rng.choice((1, 1, 1.001, 0.999, 1.2, 0.8, 10, 0.01))
            else:
                price *= 1 + rng.uniform(-1e-4, 1e-4)
            self.feed(underlying, feed, price)

    def feed(self, underlying: int, feed: int, price: float):
        price = min(max(round(price), 1), c.U32_MAX)
        if feed not in self.setting.liars:
            self.books.indexes[underlying, feed] = self.truth.basis(underlying)
        time = self.state.globals.time
        return self.do(Kind.FEED, 1_000 + feed, underlying=underlying, feed=feed, time=time, price=price)

    def report_surface(self, key: int) -> None:
        """Every honest feed reports the surface of an expiry; a liar the truth, too, until it has a use for its lie."""
        for feed in range(self.setting.feeds):
            if not self.is_omitted("SURFACE", f"feed {feed}"):
                self.surface(key, feed, noise=self.rng.uniform(-0.003, 0.003))
        self.books.surfaced[key] = self.truth.basis(key >> 16)

    def surface(self, key: int, feed: int, noise: float = 0.0, **lies: int):
        if feed not in self.setting.liars:
            self.books.surfaces[key, feed] = self.truth.basis(key >> 16)
        fields = {
            "underlying": key >> 16,
            "day": key & 0xFFFF,
            "time": self.state.globals.time,
            "forward": max(round(self.truth.forward(key)), 1),
            "index": max(round(self.truth.index[key >> 16]), 1),
            **self.truth.surface(key, noise),
            **lies,
        }
        return self.do(Kind.SURFACE, 1_000 + feed, feed=feed, **fields)

    # --- instruments ----------------------------------------------------------------------------

    def open(self, underlying: int, day: int, strike: int, put: int) -> int | None:
        """The instrument's number, or None where LIST refuses."""
        known = self.state.instruments.get(underlying << 48 | day << 32 | put << 31 | strike)
        if known is not None:
            return known
        key = underlying << 16 | day
        out = self.do(Kind.LIST, underlying=underlying, day=day, put=put, strike=strike)
        if out.reason is not Reason.OK:
            return None
        is_new = key not in self.truth.slices
        self.truth.open(key, (expiry_time(day) - self.truth.time) / c.DAY_S)
        self.listed[out.number] = (key, strike, bool(put))
        self.books.price(out.number)
        if is_new and self.state.underlyings[underlying].index:
            self.report_surface(key)
        return out.number

    def risk(self, page_id: int):
        return self.do(Kind.RISK, underlying=page_id >> 23, day=page_id >> 7 & 0xFFFF, page=page_id & 127)

    def mark(self, instrument: int) -> int:
        return self.state.pages[instrument >> 5].rows[instrument & 31][0]

    def tradable(self, underlying: int | None = None) -> list[int]:
        """Instruments that have not expired."""
        return [
            one
            for one, (key, _, _) in self.listed.items()
            if expiry_time(key & 0xFFFF) > self.truth.time + 60 and underlying in (None, key >> 16)
        ]

    # --- what accounts do -----------------------------------------------------------------------

    def place(
        self,
        account: int,
        instrument: int,
        side: int,
        price: float,
        lots: int,
        tif: int = c.TIF_GTC,
        flags: int = 0,
        in_words: bool = False,
    ):
        ticks = min(max(round(price), 1), c.U32_MAX)
        flags |= side | tif << c.FLAG_TIF_SHIFT
        lots = min(max(lots, 1), c.U40_MAX)
        fields = {
            "instrument": instrument,
            "flags": flags,
            "price": ticks,
            "quantity": lots,
            "fee_max": 65_535,
        }
        if in_words:
            _, strike, put = self.listed[instrument]
            return self.submit(Kind.PLACE_IN_WORDS, account, **fields, terms=strike | put << 31)
        return self.submit(Kind.PLACE, account, **fields)

    def sweep(self, order: Order):
        """Anybody asks for a resting order to be taken out."""
        where = {"instrument": order.instrument, "side": order.side, "price": order.price, "seq": order.seq}
        return self.do(Kind.SWEEP, **where)

    def trade(self, buyer: int, seller: int, instrument: int, price: float, lots: int) -> int:
        """The seller rests, the buyer takes, what is left is cancelled. Lots traded."""
        before = self.state.accounts[buyer].positions.get(instrument, 0)
        out = self.place(seller, instrument, c.SELL, price, lots)
        if out.rested is not None:
            self.place(buyer, instrument, c.BUY, price, lots, c.TIF_IOC)
            self.submit(Kind.CANCEL_ALL, seller, nonce_floor=0)
        return self.state.accounts[buyer].positions.get(instrument, 0) - before

    def free(self, account: int) -> int:
        """Free margin by the exchange's own sums (1e-6 USD)."""
        one = self.state.accounts[account]
        margin.refresh(self.state, one)
        return margin.free(self.state, one)

    def equity(self, account: int) -> int:
        one = self.state.accounts[account]
        margin.refresh(self.state, one)
        return margin.equity(one)

    def transfer(self, account: int, to: int, amount: int):
        return self.submit(Kind.TRANSFER, account, to=to, amount=max(amount, 1))

    def withdraw(self, account: int, amount: int):
        return self.submit(Kind.WITHDRAW, account, amount=max(amount, 1))

    def bid(self, account: int, target: int, fraction: int):
        return self.submit(Kind.BID, account, target=target, fraction=fraction, cash_max=2**63 - 1)
