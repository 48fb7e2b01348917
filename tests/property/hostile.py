"""Records of every degree of malice, drawn from one seed: valid ones, forged ones, mutated ones, noise.

A forged record comes with the signer that its account or feed would have, so that it reaches its handler.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.codec import LAYOUTS
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.state import expiry_time

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
from exchange import FEEDS, FLAT, INDEX, Exchange, address

if TYPE_CHECKING:
    from random import Random

Drawn = tuple[bytes, bytes | None]  # record, signer that recovery is said to have found

ROLES = ("treasury", "rich", "maker", "poor", "debtor", "empty")
STRIKES = (INDEX - 250_000, INDEX, INDEX + 250_000)
_KINDS = (
    (Kind.PLACE, 70),
    (Kind.CONTINUE, 3),
    (Kind.CANCEL, 6),
    (Kind.AMEND, 8),
    (Kind.PLACE_IN_WORDS, 12),
    (Kind.CANCEL_ALL, 2),
    (Kind.SWEEP, 4),
    (Kind.LIQUIDATE, 5),
    (Kind.BID, 8),
    (Kind.SETTLE, 6),
    (Kind.FIX, 2),
    (Kind.WITHDRAW, 3),
    (Kind.TRANSFER, 3),
    (Kind.DEPOSIT, 2),
    (Kind.FORCED_ORDER, 6),
    (Kind.FORCED_WITHDRAW, 2),
    (Kind.FORCED_CANCEL_ALL, 1),
    (Kind.FORCED_LIQUIDATE, 5),
    (Kind.FORCED_BID, 3),
    (Kind.SET_SIGNER, 2),
    (Kind.COLLECT, 1),
    (Kind.FEED, 4),
    (Kind.SURFACE, 3),
    (Kind.LIST, 4),
    (Kind.RISK, 4),
    (Kind.TICK, 25),
)
_POPULATION = [kind for kind, _ in _KINDS]
_WEIGHTS = [weight for _, weight in _KINDS]


def populated(**changes: int) -> Exchange:
    """An exchange in full swing: two expiries, calls and puts, six accounts, some of them thin."""
    exchange = Exchange(audits=False, **changes)
    today = exchange.state.globals.time // c.DAY_S
    exchange.open(*((today + day, strike, put) for day in (1, 20) for strike in STRIKES for put in (0, 1)))
    for role, usd in zip(ROLES, (1, 2_000_000, 300_000, 3_000, 15_000, 0), strict=True):
        exchange.deposit(role, usd)
    instrument = exchange.state.instruments[(today + 20) << 32 | INDEX]
    exchange.trade("rich", "debtor", instrument, exchange.mark(instrument), 8_000)
    return exchange


class Adversary:
    """Draws records against an exchange; `keep_going` restores what lets the handlers be reached."""

    def __init__(self, exchange: Exchange, random: Random) -> None:
        self.exchange = exchange
        self.random = random
        self.sent: list[Drawn] = []
        self.level = 0  # price that the feeds speak of; it jumps now and then, and they follow one by one

    def draw(self) -> Drawn:
        """One record: 72 % well-formed ones, the rest replays, mutations and noise; CONTINUE when it is due."""
        share = self.random.random()
        if self.exchange.state.globals.taker is not None and share < 0.7:
            return codec.encode(Kind.CONTINUE), None
        if share < 0.72:
            drawn = self.formed(self.random.choices(_POPULATION, _WEIGHTS)[0])
        elif share < 0.77 and self.sent:
            drawn = self.random.choice(self.sent)
        elif share < 0.88:
            drawn = self.mutated()
        elif share < 0.96:
            drawn = self.shaped_noise()
        else:
            drawn = self.random.randbytes(self.random.randrange(0, 160)), None
        raw = drawn[0]
        leaps = raw[:1] == bytes([Kind.TICK]) and int.from_bytes(raw[1:5], "big") > self._soon(10 * c.DAY_S)
        if leaps and self.random.random() < 0.99:  # it would end the life of all that is listed: seldom
            return self.formed(Kind.PLACE)
        if len(self.sent) < 200:
            self.sent.append(drawn)
        else:
            self.sent[self.random.randrange(200)] = drawn
        return drawn

    def mutated(self) -> Drawn:
        """A formed record with bytes changed, cut or added."""
        raw, signer = self.formed(self.random.choices(_POPULATION, _WEIGHTS)[0])
        data = bytearray(raw)
        way = self.random.randrange(8)
        if way == 0:
            del data[self.random.randrange(len(data)) :]
        elif way == 1:
            data += self.random.randbytes(self.random.randrange(1, 40))
        else:
            for _ in range(self.random.randrange(1, 4)):
                at = self.random.randrange(min(len(data), 40))
                data[at] = self.random.choice((0, 1, 127, 128, 255, self.random.randrange(256)))
        return bytes(data), signer if self.random.random() < 0.9 else None

    def shaped_noise(self) -> Drawn:
        """Random fields of a known kind; half of the time with its length and padding right."""
        kind = self.random.choice(tuple(LAYOUTS))
        layout = LAYOUTS[kind]
        body = bytes([kind]) + self.random.randbytes(layout.size - 1)
        if self.random.random() < 0.5:
            end = layout.size - (c.SIGNATURE_BYTES if layout.signed else 0)
            body = body[: end - layout.padding] + bytes(layout.padding) + body[end:]
        return body, address(self.random.choice(ROLES)) if self.random.random() < 0.7 else None

    # --- well-formed records --------------------------------------------------------------------

    def formed(self, kind: Kind) -> Drawn:
        """A record of `kind` with fields that make sense, or nearly."""
        fields = getattr(self, "_" + kind.name.lower())()
        layout = LAYOUTS[kind]
        for name, of_type in layout.fields:
            if name not in fields:
                fields[name] = getattr(self, "_field_" + name)(fields)
            elif self.random.random() < 0.01 and of_type != "address":
                fields[name] = self._extreme(of_type)
        for name, of_type in layout.fields:
            if of_type.startswith("uint"):  # the world may stand at the end of time
                fields[name] = min(fields[name], 2 ** int(of_type.lstrip("uint")) - 1)
        signer: bytes | None = None
        if "feed" in fields:
            signer = address(f"feed {fields['feed']}")
        elif layout.signed:
            owner = self.exchange.state.accounts.get(fields["account"])
            signer = owner.owner if owner else bytes(20)
            if self.random.random() < 0.05:
                signer = address(self.random.choice(("session", "stranger")))
        return codec.encode(kind, **fields), signer

    def _extreme(self, of_type: str) -> int:
        bits = int(of_type.lstrip("uint"))
        if of_type[0] == "i":
            return self.random.choice((-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, -1))
        return self.random.choice((0, 1, 2**bits - 1, self.random.getrandbits(bits)))

    def _account(self) -> int:
        return self.random.randint(1, len(ROLES)) if self.random.random() < 0.98 else 77

    def _instrument(self) -> int:
        known = self.exchange.state.instruments
        time, pages = self.exchange.state.globals.time, self.exchange.state.pages
        alive = [
            one
            for terms, one in known.items()
            if expiry_time(terms >> 32 & 0xFFFF) > time and pages[one >> 5].time + 3_600 >= time
        ]
        pool = alive[-4:] if alive and self.random.random() < 0.95 else list(known.values())
        return self.random.choice(pool)

    def _field_nonce(self, fields: dict[str, int]) -> int:
        account = self.exchange.state.accounts.get(fields["account"])
        if account is None:
            return 0
        free = next(i for i in range(256) if not account.nonce_bitmap >> i & 1)
        return account.nonce_floor + self.random.choice((*(free,) * 20, 1, 7, 255, 256))

    def _field_expires(self, fields: dict[str, int]) -> int:
        return self.random.choice((0, 0, 0, 0, 0, self._soon(self.random.randint(-3, 50))))

    def _soon(self, seconds: int) -> int:
        return min(self.exchange.state.globals.time + seconds, c.U32_MAX)

    def _place(self) -> dict[str, int]:
        instrument = self._instrument()
        mark = self.exchange.mark(instrument)
        account = self._account()
        flags = self.random.choice((*(0,) * 12, 2, 2, 4, 8, 8, 16, 18, 18, 32, 24, 64)) | self.random.randint(
            0, 1
        )
        if flags & c.FLAG_REDUCE_ONLY and account in self.exchange.state.accounts:
            held = self.exchange.state.accounts[account].positions
            if held:
                instrument = self.random.choice(tuple(held))
                flags = flags & ~1 | (held[instrument] > 0)
        price = self.random.choice(
            (*(mark, mark + self.random.randint(-3, 3)) * 4, mark * 2, mark // 2, 1, c.U32_MAX)
        )
        return {
            "account": account,
            "instrument": instrument,
            "flags": flags,
            "price": min(max(price, 0), c.U32_MAX),
            "quantity": self.random.choice(
                (1, 3, 3, self.random.randint(1, 300), self.random.randint(1, 30_000))
            ),
            "fee_max": 65_535,
        }

    def _place_in_words(self) -> dict[str, int]:
        """A PLACE whose terms are its instrument's, nearly always."""
        fields = self._place()
        page = self.exchange.state.pages[fields["instrument"] >> 5]
        terms = page.terms[fields["instrument"] & 31]
        return {
            **fields,
            "terms": terms if self.random.random() < 0.95 else terms ^ 1 << self.random.randrange(32),
        }

    def _continue(self) -> dict[str, int]:
        return {}

    _collect = _continue

    def _order(self) -> dict[str, int]:
        books = [book for book in self.exchange.state.books.values() if len(book)]
        if books:
            book = self.random.choice(books)
            orders = [*book.orders(c.BUY), *book.orders(c.SELL)]
            order = self.random.choice(orders[:20])
            return {
                "account": order.account if self.random.random() < 0.9 else self._account(),
                "instrument": order.instrument,
                "side": order.side if self.random.random() < 0.95 else self.random.randrange(256),
                "price": order.price,
                "seq": order.seq,
            }
        return {"account": 1, "instrument": self._instrument(), "side": 0, "price": 5, "seq": 5}

    _cancel = _order

    def _amend(self) -> dict[str, int]:
        """Less or more of an order, at its price or at another that may cross."""
        fields = self._order()
        known = self.exchange.state.find_order(
            fields["instrument"], fields.pop("side") & 1, fields["price"], fields["seq"]
        )
        filled, left = (known.filled, known.quantity) if known else (0, 9)
        draw = self.random
        total = filled + left + draw.choice((0, -1, -1, -left, -left // 2, 1, left, draw.randint(1, 30_000)))
        near = draw.choice((1, 2, 3, fields["price"] // 50, fields["price"] // 2))
        move = draw.choice((0, 0, 0, near, -near))
        return {
            **fields,
            "flags": known.flags if known and draw.random() < 0.96 else draw.randrange(256),
            "new_price": min(max(fields["price"] + move, 0), c.U32_MAX),
            "quantity": max(total, draw.choice((0, 1, 1, 1, 1))),
            "fee_max": draw.choice((65_535, 65_535, 65_535, 1, 0)),
        }

    def _sweep(self) -> dict[str, int]:
        fields = self._order()
        del fields["account"]
        return fields

    def _cancel_all(self) -> dict[str, int]:
        account = self._account()
        held = self.exchange.state.accounts.get(account)
        floor = held.nonce_floor if held else 0
        return {"account": account, "nonce_floor": floor + self.random.choice((0, 0, 1, 200, 257))}

    def _liquidate(self) -> dict[str, int]:
        return {"account": self._account()}

    def _bid(self) -> dict[str, int]:
        auctions = [n for n, one in self.exchange.state.accounts.items() if one.auction_start]
        return {
            "account": self.random.choice((2, 2, 3, self._account())),
            "target": self.random.choice(auctions) if auctions else self._account(),
            "fraction": self.random.choice((1, 16, 64, 64, 256, 257)),
            "cash_max": self.random.choice((2**63 - 1, 2**63 - 1, 0, -(10**9))),
        }

    def _day(self) -> int:
        days = [key & 0xFFFF for key in self.exchange.state.expiries]
        return (
            self.random.choice(days)
            if days and self.random.random() < 0.97
            else self.random.randrange(65_536)
        )

    def _fix(self) -> dict[str, int]:
        return {"underlying": 0, "day": self._day()}

    def _settle(self) -> dict[str, int]:
        return {**self._fix(), "account": self._account()}

    def _risk(self) -> dict[str, int]:
        return {**self._fix(), "page": self.random.choice((0, 0, 0, 1, 128))}

    def _list(self) -> dict[str, int]:
        today = self.exchange.state.globals.time // c.DAY_S
        return {
            "underlying": self.random.choice((0, 0, 0, 1, 9)),
            "day": min(today + self.random.choice((1, 1, 2, 3, 20, 500)), 65_535),
            "put": self.random.choice((0, 0, 1, 1, 2)),
            "strike": INDEX + 50_000 * self.random.randint(-8, 8),
        }

    def _feed(self) -> dict[str, int]:
        time = self.exchange.state.globals.time
        last = self.exchange.state.underlyings[0].index or INDEX
        if self.level == 0 or self.random.random() < 0.1:
            self.level = last * self.random.choice((1_000, 950, 1_060, 1_300, 800)) // 1_000
        factor = self.random.choice((1_000, 1_000, 1_001, 999, 1_004))
        return {
            "underlying": self.random.choice((0, 0, 0, 0, 1, 3)),
            "feed": self.random.randrange(FEEDS + 1),
            "time": max(time - self.random.choice((0, 0, 0, 1, 400, -1)), 0),
            "price": min(self.level * factor // 1_000, c.U32_MAX),
        }

    def _surface(self) -> dict[str, int]:
        shape = dict(FLAT, a=self.random.choice((10**9, 28 * 10**9, 3 * 10**10, -1)))
        if self.random.random() < 0.2:
            shape |= {"b": self.random.choice((10**11, 2 * 10**12)), "sigma": 10**10}
        index = self.random.choice((INDEX, INDEX, INDEX, 1, c.U32_MAX // 2))
        basis = self.random.choice((0, 0, 0, 1_000, 4_999, 250_000, 250_001, -250_000))
        return {
            "underlying": 0,
            "feed": self.random.randrange(FEEDS + 1),
            "day": self._day(),
            "time": self.exchange.state.globals.time,
            "forward": index + index * basis // c.PPM,
            "index": index,
            **shape,
        }

    def _tick(self) -> dict[str, int]:
        jump = self.random.choice((0, 0, 0, 1, 1, 5, 60, 300, -1))
        return {"time": min(max(self.exchange.state.globals.time + jump, 0), c.U32_MAX)}

    def _amount(self, account: int) -> int:
        held = self.exchange.state.accounts.get(account)
        cash = max(held.cash, 0) if held else 0
        return min(self.random.choice((0, 1, cash // 2, cash, cash + 1, cash // 50)), c.U64_MAX)

    def _withdraw(self) -> dict[str, int]:
        account = self._account()
        return {"account": account, "amount": self._amount(account)}

    def _transfer(self) -> dict[str, int]:
        return {**self._withdraw(), "to": self._account()}

    def _deposit(self) -> dict[str, int | bytes]:
        number = self.random.choice((1, 2, 3, 4, 5, 6, 0))
        owner = address(ROLES[number - 1]) if number else bytes(20)
        return {
            "owner": owner,
            "account": number,
            "amount": self.random.choice(
                (0, 1, 10**9, 10**10, 2**48 - 1 if self.random.random() < 0.02 else 5)
            ),
        }

    def _forced_order(self) -> dict[str, int]:
        return self._place()

    def _forced_withdraw(self) -> dict[str, int]:
        account = self._account()
        return {"account": account, "amount": self.random.choice((0, self._amount(account)))}

    def _forced_cancel_all(self) -> dict[str, int]:
        return self._liquidate()

    _forced_liquidate = _forced_cancel_all

    def _forced_bid(self) -> dict[str, int]:
        return self._bid()

    def _set_signer(self) -> dict[str, int | bytes]:
        return {
            "account": self._account(),
            "signer": self.random.choice((address("session"), self.random.randbytes(20), address("rich"))),
            "scope": self.random.choice((0, 0, 1, 2, 3, 3, 4, 255)),
            "signer_expires": self._soon(100),
        }

    # --- the world goes on ----------------------------------------------------------------------

    def surfaces(self, time: int, price: int, days: list[int]) -> list[Drawn]:
        """Surfaces of three feeds or two, of which one may differ from the other: by little, or by too much."""
        draw = self.random
        told = draw.sample(range(FEEDS), draw.choice((FEEDS, FEEDS, FEEDS, FEEDS - 1)))
        level, basis = (
            draw.choice(((10, 0), (10, 0), (11, 4), (12, 5), (13, 0), (10, 6)))
            if len(told) < FEEDS
            else (10, 0)
        )
        out: list[Drawn] = []
        for day in days:
            for feed in told:
                is_other = feed == told[0]
                fields = {**FLAT, "a": FLAT["a"] * (level if is_other else 10) // 10}
                fields |= {"forward": price + price * basis // 1_000 if is_other else price, "index": price}
                raw = codec.encode(Kind.SURFACE, underlying=0, feed=feed, day=day, time=time, **fields)
                out.append((raw, address(f"feed {feed}")))
        return out

    def keep_going(self) -> list[Drawn]:
        """Records that restore a fresh index and fresh marks, settle what has expired and list what is next."""
        state, draw = self.exchange.state, self.random
        time = state.globals.time + draw.choice((1, 5, 130, 130, 1_900, 40_000))
        today = time // c.DAY_S
        if time >= c.U32_MAX - 10**7:
            return []
        last = state.underlyings[0].index
        price = max(
            min(last * draw.choice((1_000, 1_000, 1_010, 990, 1_150, 870)) // 1_000, 2 * INDEX), INDEX // 2
        )
        out: list[Drawn] = []

        def add(kind: Kind, signer: bytes | None = None, **fields: int) -> None:
            out.append((codec.encode(kind, **fields), signer))

        if state.globals.taker is not None:
            for _ in range(40):
                add(Kind.CONTINUE)
        add(Kind.TICK, time=time)
        for feed in range(FEEDS):
            add(Kind.FEED, address(f"feed {feed}"), underlying=0, feed=feed, time=time, price=price)
        for day in (today + 1, today + 20):
            for strike in STRIKES:
                for put in (0, 1):
                    add(Kind.LIST, underlying=0, day=day, put=put, strike=strike)
        held = {one >> 5 for account in state.accounts.values() for one in account.positions}
        alive = {page >> 7 for page in held if page >> 23 == 0 and expiry_time(page >> 7) > time}
        out += self.surfaces(time, price, sorted(alive | {today + 1, today + 20}))
        for key in sorted({page >> 7 for page in held} | {today + 1, today + 20}):
            day = key & 0xFFFF
            if expiry_time(day) <= time:
                add(Kind.FIX, underlying=key >> 16, day=day)
                for number in state.accounts:
                    if draw.random() < 0.4:
                        add(Kind.SETTLE, underlying=key >> 16, day=day, account=number)
            if draw.random() < 0.2:
                continue  # marks are the dearest of all: not every page every time
            for page in sorted({page & 127 for page in held if page >> 7 == key} | {0}):
                add(Kind.RISK, underlying=key >> 16, day=day, page=page)
        for number in state.accounts:
            if draw.random() < 0.5:
                add(Kind.LIQUIDATE, account=number)
        return out


def explained(raw: bytes, reason: Reason) -> bool:
    """Whether a record may change the state though its reason is not OK: the inbox goes on whatever it says."""
    uncounted = (
        Reason.MALFORMED,
        Reason.UNKNOWN_KIND,
        Reason.TAKER_PENDING,
        Reason.CLASS_ORDER,
        Reason.RISK_DUE,
    )
    return reason not in uncounted and raw[0] in c.INBOX_KINDS
