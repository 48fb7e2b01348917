"""What the leaves of the state hold: accounts, pages, underlyings, expiries and the GLOBAL leaf, and their words.

Each entry packs itself into 32-byte words (`words()`, joined) whose keccak is its leaf's value, and is read back with
`from_words`. The bit ranges are those of docs/PROTOCOL.md section 3.

Long because it holds every leaf, each with its words in both directions.
"""

from collections.abc import Callable
from struct import Struct
from typing import Final

from sequencer.protocol import constants as c
from sequencer.protocol.exposure import NO_SUMS
from sequencer.protocol.surface import Surface

_in_kernel: Callable[[dict[int, int]], bytes] | None
try:
    from sequencer._kernel.cmap_kernel import position_words as _in_kernel
except ImportError:  # not built, or FAIRSTRIKE_PURE=1
    _in_kernel = None

_rows_in_kernel: Callable[[list[int], "list[Row]"], bytes | None] | None
try:
    from sequencer._kernel.black76_kernel import page_words as _rows_in_kernel
except ImportError:
    _rows_in_kernel = None

_U32: Final = c.U32_MAX
_U40: Final = c.U40_MAX
_U48: Final = c.U48_MAX
_U64: Final = c.U64_MAX
_U128: Final = 2**128 - 1
NEVER: Final = -1  # an epoch that no page has
_NO_WORD: Final = bytes(32)

# 40-bit fields are packed in two, the high byte first.
_GLOBAL: Final = Struct(">xxIBIIBBBBIIBI 32s xHHHIQQBI QQQQ 32s 32s")
_ACCOUNT: Final = Struct(">20sBIxIBB 32s 8xIQIQ 32s")
_POSITION: Final = Struct(">20xIQ")
_SURFACE: Final = Struct(">4xqqIII 8xqqq")
_FEED: Final = Struct(">24xII")


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def _read(data: bytes) -> list[int]:
    return [int.from_bytes(data[i : i + 32], "big") for i in range(0, len(data), 32)]


def _check_words(data: bytes, count: int, name: str) -> None:
    if len(data) != 32 * count:
        raise ValueError(f"{name}: {count} words expected")


def _signed(value: int, bits: int) -> int:
    """Two's complement of `bits` bits to an int."""
    return value - (1 << bits) if value >> (bits - 1) else value


class Taker:
    """An order that is on its way through the book: between PLACE and the last CONTINUE, or inside one of them."""

    __slots__ = ("account", "expires", "filled", "flags", "instrument", "price", "quantity", "seq")

    def __init__(
        self,
        account: int,
        instrument: int,
        flags: int,
        price: int,
        quantity: int,
        expires: int,
        seq: int,
        filled: int = 0,
    ) -> None:
        self.account = account
        self.instrument = instrument
        self.flags = flags
        self.price = price
        self.quantity = quantity  # what remains, lots
        self.expires = expires
        self.seq = seq
        self.filled = filled  # lots that have traded of it

    def word(self) -> int:
        """The pending taker as GLOBAL's word 4."""
        return (
            self.quantity
            | self.price << 40
            | self.expires << 72
            | self.flags << 104
            | self.account << 112
            | self.instrument << 144
            | self.seq << 176
            | self.filled << 216
        )

    @classmethod
    def from_word(cls, word: int) -> "Taker":
        """Inverse of `word`."""
        return cls(
            quantity=word & _U40,
            price=word >> 40 & _U32,
            expires=word >> 72 & _U32,
            flags=word >> 104 & 0xFF,
            account=word >> 112 & _U32,
            instrument=word >> 144 & _U32,
            seq=word >> 176 & _U40,
            filled=word >> 216,
        )


class Global:
    """The GLOBAL leaf. Cash fields in 1e-6 USD."""

    __slots__ = (
        "breaker_level",
        "breaker_until",
        "deficit",
        "excess",
        "fund",
        "holes",
        "inbox_count",
        "inbox_hash",
        "last_class",
        "plan_fee_max",
        "plan_records",
        "plan_root",
        "pool",
        "queue_state",
        "seq",
        "taker",
        "tick",
        "time",
        "treasury",
        "withdrawals",
        "work",
    )

    def __init__(self) -> None:
        self.seq = 0  # of the next record
        self.time = 0
        self.tick = 0
        self.last_class = 0
        self.queue_state = 0
        self.breaker_level = 0
        self.breaker_until = 0
        self.excess = 0
        self.withdrawals = 0
        self.work = 0  # units of all records so far: protocol/work.py
        self.inbox_hash = bytes(32)
        self.inbox_count = 0
        self.fund = 0
        self.treasury = 0
        self.pool = 0
        self.deficit = 0
        self.holes = 0  # sum of the accounts' holes
        self.taker: Taker | None = None
        self.plan_root = b""  # of the state before the open plan (plans.py); empty: there is none
        self.plan_fee_max = 0  # of its order
        self.plan_records = 0  # that it has had

    def words(self) -> bytes:
        """Six words."""
        deficit = self.deficit & _U128
        return _GLOBAL.pack(
            self.withdrawals,
            self.excess >> 32,
            self.excess & _U32,
            self.breaker_until,
            self.breaker_level,
            self.queue_state,
            self.last_class,
            self.tick >> 32,
            self.tick & _U32,
            self.time,
            self.seq >> 32,
            self.seq & _U32,
            self.inbox_hash,
            self.plan_records,
            self.plan_fee_max,
            self.work >> 32,
            self.work & _U32,
            self.treasury,
            self.fund,
            self.inbox_count >> 32,
            self.inbox_count & _U32,
            self.holes,
            deficit >> 64,
            deficit & _U64,
            self.pool,
            _NO_WORD if self.taker is None else _word(self.taker.word()),
            self.plan_root or _NO_WORD,
        )

    def copy(self) -> "Global":
        """Another with the same fields; the taker, which nobody changes in place, is shared."""
        twin = Global()
        twin.seq, twin.time, twin.tick, twin.last_class = self.seq, self.time, self.tick, self.last_class
        twin.queue_state, twin.breaker_level = self.queue_state, self.breaker_level
        twin.breaker_until, twin.excess, twin.withdrawals = self.breaker_until, self.excess, self.withdrawals
        twin.work, twin.inbox_hash, twin.inbox_count = self.work, self.inbox_hash, self.inbox_count
        twin.fund, twin.treasury, twin.pool = self.fund, self.treasury, self.pool
        twin.deficit, twin.holes, twin.taker = self.deficit, self.holes, self.taker
        twin.plan_root, twin.plan_fee_max = self.plan_root, self.plan_fee_max
        twin.plan_records = self.plan_records
        return twin

    @classmethod
    def from_words(cls, data: bytes) -> "Global":
        """Inverse of `words`. Raises ValueError when the length does not fit."""
        _check_words(data, 6, "global")
        one = cls()
        first, inbox_hash, second, third, taker, plan_root = _read(data)
        one.seq = first & _U40
        one.time = first >> 40 & _U32
        one.tick = first >> 72 & _U40
        one.last_class = first >> 112 & 0xFF
        one.queue_state = first >> 120 & 0xFF
        one.breaker_level = first >> 128 & 0xFF
        one.breaker_until = first >> 136 & _U32
        one.excess = first >> 168 & _U40
        one.withdrawals = first >> 208 & _U32
        one.inbox_hash = _word(inbox_hash)
        one.inbox_count = second & _U40
        one.fund = second >> 40 & _U64
        one.treasury = second >> 104 & _U64
        one.work = second >> 168 & _U48
        one.pool = third & _U64
        one.deficit = _signed(third >> 64 & _U128, 128)
        one.holes = third >> 192
        one.taker = Taker.from_word(taker) if taker else None
        one.plan_root = _word(plan_root) if plan_root else b""
        one.plan_fee_max = second >> 216 & 0xFFFF
        one.plan_records = second >> 232 & 0xFFFF
        return one


def position_words(positions: dict[int, int]) -> bytes:
    """A word each, by instrument; at most 255 of them."""
    return b"".join(
        [
            _POSITION.pack(instrument, positions[instrument] + c.QUANTITY_BIAS)
            for instrument in sorted(positions)
        ]
    )


_position_words: Final = position_words if _in_kernel is None else _in_kernel


class Account:
    """One owner's cash, positions and permissions.

    `positions` maps an instrument to lots (never 0). `sums` caches the portfolio's valuation (see margin.py) for the
    page epoch `epoch`; it is no part of the leaf. Clones share positions, sums and signers: whoever changes one of them
    puts another in its place.
    """

    __slots__ = (
        "auction_start",
        "cash",
        "epoch",
        "hole",
        "nonce_bitmap",
        "nonce_floor",
        "order_floor",
        "orders",
        "owner",
        "positions",
        "reserved",
        "signers",
        "sums",
    )

    def __init__(self, owner: bytes) -> None:
        self.owner = owner
        self.cash = 0
        self.reserved = 0
        self.orders = 0  # leaves of its orders, dead ones too
        self.order_floor = 0
        self.auction_start = 0
        self.hole = 0  # what its equity was below nothing when it was last marked
        self.nonce_floor = 0
        self.nonce_bitmap = 0
        self.signers: list[tuple[bytes, int, int]] = []  # address, scope, expires
        self.positions: dict[int, int] = {}
        self.sums = NO_SUMS
        self.epoch = NEVER

    def clone(self) -> "Account":
        """A copy to plan on; the original stays untouched."""
        twin = Account(self.owner)
        twin.cash = self.cash
        twin.reserved = self.reserved
        twin.orders = self.orders
        twin.order_floor = self.order_floor
        twin.auction_start = self.auction_start
        twin.hole = self.hole
        twin.nonce_floor = self.nonce_floor
        twin.nonce_bitmap = self.nonce_bitmap
        twin.signers = self.signers
        twin.positions = self.positions
        twin.sums = self.sums
        twin.epoch = self.epoch
        return twin

    def words(self) -> bytes:
        """4 + signers + positions words."""
        positions, signers = self.positions, self.signers
        head = _ACCOUNT.pack(
            self.owner,
            self.order_floor >> 32,
            self.order_floor & _U32,
            self.auction_start,
            len(signers),
            len(positions),
            self.cash.to_bytes(32, "big", signed=True),
            self.orders,
            self.hole,
            self.nonce_floor,
            self.reserved,
            self.nonce_bitmap.to_bytes(32, "big"),
        )
        for address, scope, expires in signers:
            head += _word(scope | expires << 8 | int.from_bytes(address, "big") << 96)
        return head + _position_words(positions) if positions else head

    @classmethod
    def from_words(cls, data: bytes) -> "Account":
        """Inverse of `words`. Raises ValueError when the counts do not fit the length."""
        words = _read(data)
        if len(words) < 4 or len(data) % 32:
            raise ValueError("account: at least 4 whole words")
        first = words[0]
        positions, signers = first & 0xFF, first >> 8 & 0xFF
        if len(words) != 4 + signers + positions:
            raise ValueError("account: the counts of signers and positions do not fit the words")
        one = cls((first >> 96).to_bytes(20, "big"))
        one.auction_start = first >> 16 & _U32
        one.order_floor = first >> 56 & _U40
        one.cash = _signed(words[1], 256)
        one.reserved = words[2] & _U64
        one.nonce_floor = words[2] >> 64 & _U32
        one.hole = words[2] >> 96 & _U64
        one.orders = words[2] >> 160 & _U32
        one.nonce_bitmap = words[3]
        for word in words[4 : 4 + signers]:
            one.signers.append(((word >> 96).to_bytes(20, "big"), word & 0xFF, word >> 8 & _U32))
        for word in words[4 + signers :]:
            one.positions[word >> 64] = (word & _U64) - c.QUANTITY_BIAS
        return one


Row = tuple[int, tuple[int, ...]]


class Page:
    """Marks and scenario P&Ls of up to 32 instruments of one expiry. Terms: strike | put << 31. Rows: (mark, P&Ls).

    `variances` is what RISK has valued each strike with (1e-12), for display; it is no part of the leaf.
    """

    __slots__ = ("forward", "index", "marked", "rows", "terms", "time", "variances")

    def __init__(self) -> None:
        self.time = 0  # of the last RISK; 0 = none yet
        self.marked = 0  # rows that the last RISK has marked; those listed since then have no mark
        self.index = 0
        self.forward = 0
        self.terms: list[int] = []
        self.rows: list[Row] = []
        self.variances: dict[int, int] = {}

    def words(self) -> bytes:
        """1 + 2 ceil(n/8) + 2n words."""
        count = len(self.terms)
        head = _word(count | self.time << 8 | self.index << 40 | self.forward << 72 | self.marked << 104)
        if _rows_in_kernel is not None:
            rest = _rows_in_kernel(self.terms, self.rows)
            if rest is not None:
                return head + rest
        return head + self.rows_in_python()

    def rows_in_python(self) -> bytes:
        """The words behind the first, without the kernel."""
        count, parts = len(self.terms), []
        for numbers in (self.terms, [mark for mark, _ in self.rows]):
            for start in range(0, count, 8):
                parts.append(_pack32(numbers[start : start + 8]))
        for _, pnl in self.rows:
            parts.append(_pack32(pnl[:8]))
            parts.append(_pack32(pnl[8:]))
        return b"".join(parts)

    @classmethod
    def from_words(cls, data: bytes) -> "Page":
        """Inverse of `words`. Raises ValueError when the row count does not fit the length."""
        words = _read(data)
        if not words or len(data) % 32:
            raise ValueError("page: at least 1 whole word")
        one = cls()
        count = words[0] & 0xFF
        table = -(-count // 8)
        if len(words) != 1 + 2 * table + 2 * count:
            raise ValueError("page: the row count does not fit the words")
        one.time = words[0] >> 8 & _U32
        one.index = words[0] >> 40 & _U32
        one.forward = words[0] >> 72 & _U32
        one.marked = words[0] >> 104 & 0xFF
        one.terms = _unpack32(words[1 : 1 + table])[:count]
        marks = _unpack32(words[1 + table : 1 + 2 * table])[:count]
        pnls = _unpack32(words[1 + 2 * table :])
        for row in range(count):
            pnl = tuple(_signed(value, 32) for value in pnls[16 * row : 16 * row + 16])
            one.rows.append((marks[row], pnl))
        return one


def _pack32(numbers: "list[int] | tuple[int, ...]") -> bytes:
    """Up to eight 32-bit numbers (two's complement) into one word, the first lowest."""
    word = 0
    for offset, number in enumerate(numbers):
        word |= (number & _U32) << (32 * offset)
    return _word(word)


def _unpack32(words: list[int]) -> list[int]:
    return [word >> (32 * offset) & _U32 for word in words for offset in range(8)]


class Snapshot:
    """Cumulative index at the two bounds of one day's TWAP."""

    __slots__ = ("cumulative_end", "cumulative_start", "day", "has_end", "has_start")

    def __init__(self, day: int = 0) -> None:
        self.day = day
        self.cumulative_start = 0
        self.cumulative_end = 0
        self.has_start = False
        self.has_end = False

    def word(self) -> int:
        """One word."""
        return (
            self.cumulative_start
            | self.cumulative_end << 64
            | self.has_start << 128
            | self.has_end << 129
            | self.day << 130
        )

    @classmethod
    def from_word(cls, word: int) -> "Snapshot":
        """Inverse of `word`."""
        one = cls(word >> 130)
        one.cumulative_start = word & _U64
        one.cumulative_end = word >> 64 & _U64
        one.has_start = bool(word >> 128 & 1)
        one.has_end = bool(word >> 129 & 1)
        return one


class Underlying:
    """Index of one underlying: median of the fresh feeds, its integral over time, TWAP snapshots, breaker window."""

    __slots__ = ("cumulative", "index", "reference_price", "reference_time", "reports", "snapshots", "time")

    def __init__(self) -> None:
        self.index = 0
        self.time = 0
        self.cumulative = 0  # ticks x seconds up to `time`
        self.reference_price = 0
        self.reference_time = 0
        self.reports: list[tuple[int, int]] = [(0, 0)] * c.FEEDS_MAX  # price, time
        self.snapshots = [Snapshot() for _ in range(c.SNAPSHOT_DAYS)]

    def words(self) -> bytes:
        """Ten words."""
        return b"".join(
            (
                _word(
                    self.index
                    | self.time << 32
                    | self.cumulative << 64
                    | self.reference_price << 128
                    | self.reference_time << 160
                ),
                *[_FEED.pack(time, price) for price, time in self.reports],
                *(_word(snapshot.word()) for snapshot in self.snapshots),
            )
        )

    @classmethod
    def from_words(cls, data: bytes) -> "Underlying":
        """Inverse of `words`. Raises ValueError when the length does not fit."""
        _check_words(data, 1 + c.FEEDS_MAX + c.SNAPSHOT_DAYS, "underlying")
        words = _read(data)
        one = cls()
        one.index = words[0] & _U32
        one.time = words[0] >> 32 & _U32
        one.cumulative = words[0] >> 64 & _U64
        one.reference_price = words[0] >> 128 & _U32
        one.reference_time = words[0] >> 160 & _U32
        one.reports = [(word & _U32, word >> 32) for word in words[1 : 1 + c.FEEDS_MAX]]
        one.snapshots = [Snapshot.from_word(word) for word in words[1 + c.FEEDS_MAX :]]
        return one


class SurfaceReport:
    """A feed's last report on one expiry."""

    __slots__ = ("forward", "index", "surface", "time")

    def __init__(self, time: int, forward: int, index: int, surface: Surface) -> None:
        self.time = time
        self.forward = forward
        self.index = index
        self.surface = surface

    def words(self) -> bytes:
        """Two words."""
        s = self.surface
        return _SURFACE.pack(
            s.b_e12, s.a_e12, self.index, self.forward, self.time, s.sigma_e12, s.m_e12, s.rho_e12
        )


class Expiry:
    """One expiry of one underlying: how many instruments are listed, the feeds' surfaces, the settlement price."""

    __slots__ = ("listed", "reports", "settled", "settlement")

    def __init__(self) -> None:
        self.listed = 0
        self.settled = False
        self.settlement = 0
        self.reports: list[SurfaceReport | None] = [None] * c.FEEDS_MAX

    def words(self) -> bytes:
        """Eleven words."""
        parts = [_word(self.listed | self.settled << 16 | self.settlement << 24)]
        for report in self.reports:
            parts.append(bytes(64) if report is None else report.words())
        return b"".join(parts)

    @classmethod
    def from_words(cls, data: bytes) -> "Expiry":
        """Inverse of `words`. Raises ValueError when the length does not fit."""
        _check_words(data, 1 + 2 * c.FEEDS_MAX, "expiry")
        words = _read(data)
        one = cls()
        one.listed = words[0] & 0xFFFF
        one.settled = bool(words[0] >> 16 & 0xFF)
        one.settlement = words[0] >> 24 & _U32
        for feed in range(c.FEEDS_MAX):
            first, second = words[1 + 2 * feed], words[2 + 2 * feed]
            if first & _U32:
                surface = Surface(
                    a_e12=_signed(first >> 96 & _U64, 64),
                    b_e12=_signed(first >> 160 & _U64, 64),
                    rho_e12=_signed(second & _U64, 64),
                    m_e12=_signed(second >> 64 & _U64, 64),
                    sigma_e12=_signed(second >> 128 & _U64, 64),
                )
                one.reports[feed] = SurfaceReport(
                    first & _U32, first >> 32 & _U32, first >> 64 & _U32, surface
                )
        return one
