"""Records that are challenged one by one: of each kind and size in an exchange in use, and the heaviest there are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))

import worlds
from exchange import DOMAIN, FEEDS, FLAT, INDEX, NEAR, key_of

from sequencer.proof.witness import Tracer
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.state import expiry_time

SIZES: Final = (0, 8, 32, 64)
MAX: Final = 2**63 - 1
BEFORE: Final = 2  # records that come before a scene's own: one of a segment with an honest root, a TICK


@dataclass(frozen=True)
class Scene:
    """Records of one segment, the last of which end as `reason`. Without a name nothing is measured.

    `size`: positions of the account, where it counts. `opens`: whether a TICK stands before the records.
    """

    name: str
    size: int | None
    records: tuple[bytes, ...]
    reason: Reason = Reason.OK
    opens: bool = True


class Script:
    """Draws up the scenes on the world as it goes on. `before`: records that come before a scene's own."""

    def __init__(self, world: Tracer, before: int = BEFORE) -> None:
        self.world = world
        self.before = before
        self.nonces: dict[int, int] = {}

    def signed(self, kind: Kind, number: int, **fields: int | bytes) -> bytes:
        """By the owner of account `number`, with its next nonce."""
        nonce = self.nonces[number] = self.nonces.get(number, -1) + 1
        role = ("actor", "target", "other", "fallen")[(number - 1) % 4]
        raw = codec.encode(kind, account=number, nonce=nonce, expires=0, **fields)
        return codec.sign(raw, DOMAIN, key_of(f"{role} {SIZES[(number - 1) // 4]}"))

    def place(self, number: int, instrument: int, price: int, quantity: int, flags: int = 0) -> bytes:
        fields = {
            "instrument": instrument,
            "price": price,
            "quantity": quantity,
            "flags": flags,
            "fee_max": 65_535,
        }
        return self.signed(Kind.PLACE, number, **fields)

    def scenes(self) -> Iterator[Scene]:
        """One after another; each is applied before the next is asked for."""
        for place, size in enumerate(SIZES):
            yield from self.of_an_account(4 * place + 1, size)
        yield from self.of_the_market()
        yield from self.of_an_expiry()

    def of_an_account(self, number: int, size: int) -> Iterator[Scene]:
        world = self.world
        instrument = (sorted(world.accounts[number].positions) or sorted(world.books))[size // 2]
        asks = lambda: list(world.books[instrument].orders(c.SELL))  # noqa: E731  # of the moment
        seq = world.globals.seq + self.before
        yield Scene("PLACE, rests", size, (self.place(number, instrument, 1, 10),))
        amend = {"instrument": instrument, "flags": c.BUY, "price": 1, "seq": seq, "fee_max": 65_535}
        less = self.signed(Kind.AMEND, number, **amend, new_price=1, quantity=5)
        yield Scene("AMEND, less in its place", size, (less,))
        cancel = {"instrument": instrument, "side": c.BUY, "price": 1, "seq": seq}
        yield Scene("CANCEL", size, (self.signed(Kind.CANCEL, number, **cancel),))
        best = asks()[0]
        yield Scene("PLACE, one fill", size, (self.place(number, instrument, best.price, 1),))
        much = sum(order.quantity for order in asks()[:7])
        price = asks()[8].price
        yield Scene("PLACE, three fills", size, (self.place(number, instrument, price, much),))
        yield Scene("CONTINUE", size, (codec.encode(Kind.CONTINUE),), opens=False)
        while world.globals.taker is not None:
            yield Scene("", None, (codec.encode(Kind.CONTINUE),))
        yield from self.undone(number, size, instrument)
        signer = {"signer": b"\x77" * 20, "scope": 3, "signer_expires": c.U32_MAX}
        yield Scene("SET_SIGNER", size, (self.signed(Kind.SET_SIGNER, number, **signer),))
        yield Scene("TRANSFER", size, (self.signed(Kind.TRANSFER, number, to=1_000, amount=5),))
        yield Scene("WITHDRAW", size, (self.signed(Kind.WITHDRAW, number, amount=5),))
        owner = world.accounts[number].owner
        yield Scene("DEPOSIT", size, (codec.encode(Kind.DEPOSIT, owner=owner, account=number, amount=5),))
        yield Scene("FORCED_WITHDRAW", size, (codec.encode(Kind.FORCED_WITHDRAW, account=number, amount=5),))
        order = {
            "instrument": instrument,
            "price": 1,
            "quantity": 10,
            "flags": 0,
            "expires": 0,
            "fee_max": 65_535,
        }
        seq = world.globals.seq + self.before
        rests = codec.encode(Kind.FORCED_ORDER, account=number, **order)
        yield Scene("FORCED_ORDER, rests", size, (rests,))
        order |= {
            "price": asks()[8].price,
            "quantity": sum(one.quantity for one in asks()[:3]),
            "flags": c.TIF_IOC << 1,
        }
        takes = codec.encode(Kind.FORCED_ORDER, account=number, **order)
        yield Scene("FORCED_ORDER, three fills", size, (takes,))
        amend["seq"] = world.globals.seq + self.before
        words = {key: order[key] for key in ("instrument", "fee_max")} | {
            "flags": 0,
            "price": 1,
            "quantity": 10,
        }
        words["terms"] = world.pages[instrument >> 5].terms[instrument & 31]
        yield Scene("PLACE_IN_WORDS, rests", size, (self.signed(Kind.PLACE_IN_WORDS, number, **words),))
        amend |= {"new_price": asks()[2].price, "quantity": sum(one.quantity for one in asks()[:3])}
        yield Scene("AMEND, three fills", size, (self.signed(Kind.AMEND, number, **amend),))
        yield Scene("FORCED_CANCEL_ALL", size, (codec.encode(Kind.FORCED_CANCEL_ALL, account=number),))
        sweep = {"instrument": instrument, "side": c.BUY, "price": 1, "seq": seq}
        yield Scene("SWEEP", size, (codec.encode(Kind.SWEEP, **sweep),))
        yield Scene("CANCEL_ALL", size, (self.signed(Kind.CANCEL_ALL, number, nonce_floor=0),))
        if not size:
            return
        forced = codec.encode(Kind.FORCED_LIQUIDATE, account=number + 3)
        yield Scene("FORCED_LIQUIDATE", size, (forced,))
        yield Scene("LIQUIDATE", size, (codec.encode(Kind.LIQUIDATE, account=number + 1),))
        offer = {"target": number + 1, "cash_max": MAX}
        strange = self.signed(Kind.BID, number + 2, fraction=64, **offer)
        reason = Reason.POSITION_LIMIT if size == 64 else Reason.OK  # it has no room
        yield Scene("BID, for other instruments", size, (strange,), reason)
        self.nonces[number + 2] -= reason is not Reason.OK
        yield Scene(
            "BID, for the same instruments", size, (self.signed(Kind.BID, number, fraction=64, **offer),)
        )
        forced = codec.encode(Kind.FORCED_BID, account=number, fraction=64, **offer)
        yield Scene("FORCED_BID, for the same instruments", size, (forced,))

    def undone(self, number: int, size: int, instrument: int) -> Iterator[Scene]:
        """A FOK of two records that lacks one lot."""
        met = list(self.world.books[instrument].orders(c.SELL))[: 2 * c.STEPS_MAX - 1]
        met = [one for one in self.world.books[instrument].orders(c.SELL) if one.price <= met[-1].price]
        lots = sum(one.quantity for one in met)
        fok = self.place(number, instrument, met[-1].price, lots + 1, c.TIF_FOK << c.FLAG_TIF_SHIFT)
        yield Scene("", None, (fok,))
        for _ in range(-(-len(met) // c.STEPS_MAX) - 2):
            yield Scene("", None, (codec.encode(Kind.CONTINUE),))
        yield Scene("CONTINUE, undoes its order", size, (codec.encode(Kind.CONTINUE),), opens=False)

    def of_the_market(self) -> Iterator[Scene]:
        world = self.world
        time, pages = world.globals.time, sorted(world.pages)
        feed = lambda i, time: codec.sign(  # noqa: E731
            codec.encode(Kind.FEED, underlying=0, feed=i, time=time, price=INDEX + i),
            DOMAIN,
            key_of(f"feed {i}"),
        )
        surface = lambda i, day: codec.sign(  # noqa: E731
            codec.encode(
                Kind.SURFACE, underlying=0, feed=i, day=day, time=time + 1, forward=INDEX, index=INDEX, **FLAT
            ),
            DOMAIN,
            key_of(f"feed {i}"),
        )
        yield Scene("", None, (codec.encode(Kind.TICK, time=time + 2),))
        yield Scene("TICK", None, ())
        yield Scene("FEED", None, (feed(0, time + 1),))
        yield Scene("SURFACE", None, (surface(0, pages[0] >> 7),))
        last = pages[-1] >> 7
        terms = {"underlying": 0, "put": 0, "strike": INDEX + 100 * worlds.STEP}
        yield Scene("LIST, row 32 of a page", None, (codec.encode(Kind.LIST, day=last, **terms),))
        yield Scene("LIST, row 1 of a page", None, (codec.encode(Kind.LIST, day=last + 1, **terms),))
        for rows, page in ((8, pages[-2]), (32, pages[0])):
            where = {"underlying": 0, "day": page >> 7, "page": page & 127}
            yield Scene(f"RISK, {rows} rows", None, (codec.encode(Kind.RISK, **where),))
        yield Scene("COLLECT", None, (codec.encode(Kind.COLLECT),))
        yield Scene("no record", None, (b"\xff" * 31,), Reason.UNKNOWN_KIND)
        owners = [world.accounts[1_000 + i].owner for i in range(15)]
        deposits = (
            codec.encode(Kind.DEPOSIT, owner=o, account=1_000 + i, amount=5) for i, o in enumerate(owners)
        )
        yield Scene("segment: 15 DEPOSIT", None, tuple(deposits))
        surfaces = tuple(surface(i % FEEDS, page >> 7) for i, page in enumerate(pages[3:13]))
        yield Scene("segment: 10 SURFACE", None, surfaces)
        listed = (
            codec.encode(Kind.LIST, underlying=0, day=last, put=1, strike=INDEX + step * worlds.STEP)
            for step in range(30, 37)
        )
        yield Scene("segment: 7 LIST", None, tuple(listed))

    def of_an_expiry(self) -> Iterator[Scene]:
        for time in (expiry_time(NEAR) - c.TWAP_S, expiry_time(NEAR)):
            yield Scene("", None, (codec.encode(Kind.TICK, time=time),))
            for i in range(FEEDS):
                raw = codec.encode(Kind.FEED, underlying=0, feed=i, time=time, price=INDEX)
                yield Scene("", None, (codec.sign(raw, DOMAIN, key_of(f"feed {i}")),))
        yield Scene("FIX", None, (codec.encode(Kind.FIX, underlying=0, day=NEAR),))
        for place, size in enumerate(SIZES[1:], 1):
            settle = codec.encode(Kind.SETTLE, underlying=0, day=NEAR, account=4 * place + 1)
            yield Scene("SETTLE", size, (settle,))


class DeepScript:
    """The heaviest record of each kind that there can be, in the world of `worlds.deepest`."""

    def __init__(self, world: Tracer) -> None:
        self.world = world
        self.nonces: dict[int, int] = {}

    def signed(self, kind: Kind, number: int, **fields: int | bytes) -> bytes:
        nonce = self.nonces.get(number, 0)
        self.nonces[number] = nonce + 1
        raw = codec.encode(kind, account=number, nonce=nonce, expires=0, **fields)
        return codec.sign(raw, DOMAIN, key_of(f"deep {number}"))

    def scenes(self) -> Iterator[Scene]:
        """Each is applied before the next is asked for."""
        yield from self.of_orders()
        yield from self.of_money()
        yield from self.of_auctions()
        yield from self.of_the_market()
        yield from self.of_many()

    def of_orders(self) -> Iterator[Scene]:
        order = {"flags": c.SELL, "price": c.U32_MAX, "quantity": 7, "fee_max": 65_535}
        takes = lambda row: {"instrument": NEAR << 12 | row, **order}  # noqa: E731
        yield Scene("PLACE, three fills", None, (self.signed(Kind.PLACE, worlds.DEEP_FROM, **takes(0)),))
        yield Scene("CONTINUE", None, (codec.encode(Kind.CONTINUE),), opens=False)
        yield from self.rest_of_it()
        raw = codec.encode(Kind.FORCED_ORDER, account=worlds.DEEP_FROM, expires=0, **takes(1))
        yield Scene("FORCED_ORDER, three fills", None, (raw,))
        yield from self.rest_of_it()
        yield Scene("", None, (codec.encode(Kind.TICK, time=self.world.globals.time),))
        cancels = []
        for place, seq in enumerate((0, 1, 2, 4)):
            for row in (2, 3):
                where = {"instrument": NEAR << 12 | row, "side": c.BUY, "price": c.U32_MAX, "seq": seq}
                cancels.append(self.signed(Kind.CANCEL, worlds.DEEP_FROM + 1 + place % 3, **where))
        yield Scene("segment: 8 CANCEL", None, tuple(cancels), opens=False)

    def rest_of_it(self) -> Iterator[Scene]:
        while self.world.globals.taker is not None:
            yield Scene("", None, (codec.encode(Kind.CONTINUE),))

    def of_money(self) -> Iterator[Scene]:
        first, second = worlds.DEEP_FROM, worlds.DEEP_FROM + 1
        yield Scene("TRANSFER", None, (self.signed(Kind.TRANSFER, first, to=second, amount=5),))
        yield Scene("WITHDRAW", None, (self.signed(Kind.WITHDRAW, first, amount=5),))
        raw = codec.encode(Kind.FORCED_WITHDRAW, account=first, amount=0)
        yield Scene("FORCED_WITHDRAW", None, (raw,))
        settle = {"underlying": 0, "day": worlds.FIXED, "account": worlds.DEEP["settles"]}
        yield Scene("SETTLE", None, (codec.encode(Kind.SETTLE, **settle),))

    def of_auctions(self) -> Iterator[Scene]:
        deep = worlds.DEEP
        bid = lambda target, fraction: self.signed(  # noqa: E731
            Kind.BID, worlds.DEEP_FROM + 1, target=deep[target], fraction=fraction, cash_max=MAX
        )
        yield Scene("LIQUIDATE", None, (codec.encode(Kind.LIQUIDATE, account=deep["poor"]),))
        raw = codec.encode(Kind.FORCED_LIQUIDATE, account=deep["ruined"])
        yield Scene("FORCED_LIQUIDATE", None, (raw,))
        yield Scene("BID, 24 pages shown", None, (bid("strange", 64),), Reason.POSITION_LIMIT)
        self.nonces[worlds.DEEP_FROM + 1] -= 1
        yield Scene("BID, 23 pages shown, some positions move", None, (bid("dusty", 64),))
        yield Scene("BID, 64 positions move", None, (bid("target", 64),))
        offer = {"account": worlds.DEEP_FROM + 1, "fraction": 64, "cash_max": MAX}
        forced = codec.encode(Kind.FORCED_BID, target=deep["target"], **offer)
        yield Scene("FORCED_BID, 64 positions move", None, (forced,))

    def of_the_market(self) -> Iterator[Scene]:
        yield Scene("RISK, 32 rows", None, (codec.encode(Kind.RISK, underlying=0, day=NEAR, page=0),))

    def of_many(self) -> Iterator[Scene]:
        world = self.world
        tick = (codec.encode(Kind.TICK, time=world.globals.time),)
        yield Scene("", None, tick)
        lists = (
            codec.encode(Kind.LIST, underlying=0, day=NEAR, put=0, strike=strike)
            for strike in worlds.DEEP_STRIKES
        )
        yield Scene("segment: 8 LIST", None, tuple(lists), opens=False)
        numbers = range(worlds.DEEP_FROM, worlds.DEEP_FROM + 16)
        deposits = (
            codec.encode(Kind.DEPOSIT, owner=b"\1" * 20, account=number, amount=5) for number in numbers
        )
        yield Scene("segment: 16 DEPOSIT", None, tuple(deposits), opens=False)
        keys = {"signer": b"\x77" * 20, "scope": 0, "signer_expires": 0}
        signers = (self.signed(Kind.SET_SIGNER, number, **keys) for number in list(numbers)[:10])
        yield Scene("segment: 10 SET_SIGNER", None, tuple(signers))
        dead = codec.encode(Kind.FORCED_CANCEL_ALL, account=worlds.DEEP_FROM + 1)
        yield Scene("FORCED_CANCEL_ALL", None, (dead,))
        yield Scene("", None, tick)
        sweeps = (
            codec.encode(Kind.SWEEP, instrument=NEAR << 12 | row, side=c.BUY, price=c.U32_MAX, seq=0)
            for row in range(4, 10)
        )
        yield Scene("segment: 6 SWEEP", None, tuple(sweeps), opens=False)
