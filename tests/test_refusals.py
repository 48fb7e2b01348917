"""Every reason for which a client's record can be refused: provoked on the sequencer's own service, and heard by
JSON-RPC, by the SDK and by the command line with its field, limit, what was given, and what to do.

Long because it is one table, checked for having every reason.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange_fixture import (
    DAY,
    DOMAIN,
    FEED_KEY,
    INSTRUMENT,
    KEYS,
    MAKER,
    NAMES,
    NOW,
    OWNERS,
    PARAMS,
    PLACE,
    POOR,
    STRANGER,
    TAKER,
    WATCHED,
    Exchange,
    RealService,
    genesis_records,
    signed,
)

from sequencer.cli.options import connected
from sequencer.engine.engine import Engine, Submission, class_of
from sequencer.errors import REFUSALS, MarginRefused, NonceRefused, Refused
from sequencer.genesis import genesis_state
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.refusals import EXPLAINERS, explanation
from sequencer.sdk.client import Client
from sequencer.wire.jsonrpc import CLIENT_KINDS

# What only the system's own records meet, or L1's messages, which nobody answers.
OF_THE_SYSTEM = {
    *(Reason.OK, Reason.MALFORMED, Reason.UNKNOWN_KIND, Reason.CLASS_ORDER, Reason.TAKER_PENDING),
    *(Reason.NO_TAKER, Reason.TIME_BACKWARDS, Reason.SELF_TRADE, Reason.ORDER_ALIVE, Reason.NO_INDEX),
    *(Reason.NO_SURFACE, Reason.ALREADY_LISTED, Reason.LISTING_RULE, Reason.EXPIRY_FULL),
    *(Reason.NOT_EXPIRED, Reason.NO_SNAPSHOT, Reason.ALREADY_SETTLED, Reason.NOT_SETTLED),
    *(Reason.NOTHING_TO_SETTLE, Reason.FEEDS_DISAGREE, Reason.NOTHING_TO_COLLECT, Reason.INBOX_ACCOUNT),
    Reason.RISK_DUE,
}
SESSION_KEY = b"\x55" * 32
SESSION = address_of(public_key_of(SESSION_KEY))
IOC, FOK, POST_ONLY, REDUCE_ONLY = 2, 4, 8, 16
SURFACE = {"a": 10**9, "b": 10**10, "rho": -(10**11), "m": 0, "sigma": 10**11}


class World:
    """The exchange, and what moves it into the state that refuses."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.service = exchange.sequencer.service
        self.nonces = dict.fromkeys(KEYS, 0)

    @property
    def state(self):
        return self.service.state

    def record(self, kind, number, key=None, **fields):
        nonce = self.nonces[number]
        return signed(
            kind, key or KEYS[number], **{"account": number, "nonce": nonce, "expires": 0, **fields}
        )

    def placed(self, number=MAKER, key=None, **changes):
        return self.record(
            Kind.PLACE,
            number,
            key,
            **{**PLACE, "nonce": self.nonces.get(number, 0), "account": number, **changes},
        )

    def taken(self, raw, number=MAKER):
        """The ack of a record that must hold."""
        ack = self.exchange.submit(raw)
        self.nonces[number] += 1
        return ack

    def rest(self, number=MAKER, **changes):
        return self.taken(self.placed(number, **changes), number)

    def grant(self, scope=1, until=NOW + 3_600, signer=SESSION):
        self.taken(self.record(Kind.SET_SIGNER, MAKER, signer=signer, scope=scope, signer_expires=until))

    def index(self, price):
        """A feed's report, a second later."""
        self.later(1)
        raw = signed(Kind.FEED, FEED_KEY, underlying=0, feed=0, time=self.service.clock.now_s(), price=price)
        self.exchange.submit(raw)

    def later(self, seconds):
        self.exchange.do(lambda: self.service.clock.set(self.service.clock.now_s() + seconds))

    def change(self, **values):
        """GLOBAL as no few orders would make it."""
        self.exchange.do(lambda: [setattr(self.state.globals, name, value) for name, value in values.items()])

    def auction(self, cash=-(10**9)):
        """WATCHED has sold more than it can carry, as after a leap of the index, and is auctioned."""
        self.rest(WATCHED, quantity=100_000)
        self.taken(self.placed(MAKER, flags=IOC, quantity=100_000, price=200_000), MAKER)

        def fall():
            account = self.state.accounts[WATCHED]
            account.cash, account.auction_start = account.cash - 10**12 + cash, NOW

        self.exchange.do(fall)

    def bid(self, **changes):
        return self.record(
            Kind.BID, TAKER, **{"target": WATCHED, "fraction": 16, "cash_max": 10**12, **changes}
        )


def cancel(world, number=MAKER, **changes):
    key = {"instrument": INSTRUMENT, "side": 1, "price": 200_000, "seq": 13}
    return world.record(Kind.CANCEL, number, **{**key, **changes})


def amend(world, ack, number=MAKER, **changes):
    fields = {"instrument": INSTRUMENT, "flags": 1, "price": 200_000, "seq": ack["seq"], "new_price": 200_000}
    return world.record(Kind.AMEND, number, **{**fields, "quantity": 50, "fee_max": 100, **changes})


def _session(world, scope=1, until=NOW + 3_600):
    world.grant(scope, until)
    return world.placed(key=SESSION_KEY)


def _expired_key(world):
    raw = _session(world, until=NOW + 5)
    world.later(10)
    return raw


def _used_nonce(world):
    world.rest(nonce=7)
    return world.placed(nonce=7, quantity=77)  # the same record would have the same answer


def _full_of_keys(world):
    for number in range(c.SIGNERS_MAX):
        world.grant(signer=bytes([100 + number]) * 20)
    return world.record(Kind.SET_SIGNER, MAKER, signer=SESSION, scope=1, signer_expires=NOW + 60)


def _after_its_expiry(world):
    world.later(86_400)
    return world.placed()


def _other_flags(world):
    return amend(world, world.rest(), flags=1 | REDUCE_ONLY)


def _after(index):
    def make(world):
        world.index(index)
        return world.placed()

    return make


def _old_marks(world):
    world.later(4_000)
    return world.placed()


def _crossing(world):
    world.rest()
    return world.placed(TAKER, flags=POST_ONLY)


def _too_large_for_the_book(world):
    world.rest()
    return world.placed(TAKER, flags=FOK, quantity=500)


def _others_order(world):
    return cancel(world, TAKER, seq=world.rest()["seq"])


def _dead_order(world):
    ack = world.rest(expires=NOW + 5)
    service = world.service  # without sweeps: else it is gone before anybody can amend it
    service.engine.sweeps = nothing = lambda _time: []
    service.keeper = SimpleNamespace(sweeps=nothing, pass_one=nothing, pass_two=nothing, bids=nothing)
    world.later(10)
    return amend(world, ack)


def _words_of_another(world):
    fields = {**PLACE, "terms": 5_000_000}
    return world.record(Kind.PLACE_IN_WORDS, MAKER, **fields)


def _dry_pool(world):
    world.rest()
    world.change(pool=10)
    return world.placed(TAKER, flags=IOC)


def _full_position(world):
    def fill():
        world.state.accounts[MAKER].positions[INSTRUMENT] = -c.POSITION_LOTS_MAX

    world.exchange.do(fill)
    return world.placed()


def _in_liquidation(world):
    world.auction()
    return world.placed(WATCHED)


def _recovered(world):
    world.auction(cash=10**12)
    return world.bid()


def _auctioned(**changes):
    def make(world):
        world.auction(cash=10**10)
        return world.bid(**changes)

    return make


def _forged_feed(world):
    return signed(Kind.FEED, STRANGER, underlying=0, feed=0, time=NOW, price=4_900_000)


def _feed_before(world):
    return signed(Kind.FEED, FEED_KEY, underlying=0, feed=0, time=NOW, price=4_900_000)


def _far_forward(world):
    world.later(1)
    report = {
        "underlying": 0,
        "feed": 0,
        "day": DAY,
        "time": NOW + 1,
        "forward": 9_000_000,
        "index": 4_900_000,
    }
    return signed(Kind.SURFACE, FEED_KEY, **report, **SURFACE)


# reason: (what makes the record, field, what `got` is, words of the message)
TABLE = {
    Reason.UNKNOWN_ACCOUNT: (
        lambda w: w.record(Kind.WITHDRAW, MAKER, account=99, amount=1),
        *("account", 99, ["No account 99 yet: deposit first"]),
    ),
    Reason.BAD_SIGNATURE: (
        lambda w: w.placed(key=STRANGER),
        *(
            "signature",
            "0x" + address_of(public_key_of(STRANGER)).hex(),
            ["0x" + OWNERS[MAKER].hex(), "chain id"],
        ),
    ),
    Reason.SIGNER_EXPIRED: (
        _expired_key,
        "signature",
        "0x" + SESSION.hex(),
        ["2024-10-03 18:00:05 UTC", "2024-10-03 18:00:10 UTC", "renew"],
    ),
    Reason.SCOPE: (
        lambda w: _session(w, scope=2),
        "signature",
        "withdraw",
        ["a key with scope trade", "has scope withdraw"],
    ),
    Reason.EXPIRED: (
        lambda w: w.placed(expires=NOW - 5),
        *("expires", NOW - 5, [f"({NOW - 5})", f"2024-10-03 18:00:00 UTC ({NOW})", "Sign it again"]),
    ),
    Reason.NONCE_USED: (_used_nonce, "nonce", 7, ["used: 7", "lowest free one is 0"]),
    Reason.NONCE_WINDOW: (lambda w: w.placed(nonce=300), "nonce", 300, ["from 0 to 255", "got 300"]),
    Reason.SIGNERS_FULL: (
        _full_of_keys,
        "signer",
        "0x" + SESSION.hex(),
        ["4 session keys", "Remove one first"],
    ),
    Reason.UNKNOWN_FEED: (
        _forged_feed,
        "signature",
        "0x" + address_of(public_key_of(STRANGER)).hex(),
        ["not signed by a feed"],
    ),
    Reason.FEED_TIME: (_feed_before, "time", NOW, ["not newer", f"got 2024-10-03 18:00:00 UTC ({NOW})"]),
    Reason.SURFACE: (_far_forward, "forward", "90000.00", ["within 25 % of the index 49000.00 USD"]),
    Reason.UNKNOWN_INSTRUMENT: (
        lambda w: w.placed(instrument=INSTRUMENT + 9),
        *("instrument", INSTRUMENT + 9, [f"of BTC-4OCT24 are {INSTRUMENT} to {INSTRUMENT + 3}"]),
    ),
    Reason.INSTRUMENT_EXPIRED: (_after_its_expiry, "instrument", NAMES[0], ["2024-10-04 08:00:00 UTC"]),
    Reason.TERMS: (_words_of_another, "terms", "BTC-4OCT24-50000-C", [f"the instrument is {NAMES[0]}"]),
    Reason.QUANTITY: (lambda w: w.placed(quantity=0), "quantity", "0.0000", ["0.0001 contracts"]),
    Reason.PRICE: (lambda w: w.placed(price=0), "price", "0.00", ["0.01 USD"]),
    Reason.FLAGS: (_other_flags, "flags", "sell, GTC, reduce-only", ["must be the order's own: sell, GTC;"]),
    Reason.FEE_ABOVE_MAX: (
        lambda w: w.placed(fee_max=0),
        *("fee_max", "0.000000", ["0.0001 USD is required", "0.00 USD is offered"]),
    ),
    Reason.RESTRICTED: (
        _after(5_400_000),
        "queue_state",
        "RESTRICTED",
        ["until a fresh, calm index after 2024-10-03"],
    ),
    Reason.HALTED: (_after(6_500_000), "queue_state", "HALTED", ["No order is accepted now", "2024-10-03"]),
    Reason.RISK_STALE: (
        _old_marks,
        "marks",
        NOW,
        ["of BTC-4OCT24 were made at 2024-10-03 18:00:00 UTC", "3600 s"],
    ),
    Reason.POST_ONLY_CROSSES: (_crossing, "price", "2000.00", ["below the best ask, 2000.00"]),
    Reason.FOK_UNFILLED: (
        _too_large_for_the_book,
        "quantity",
        "0.0500",
        ["0.0500 contracts", "orders have 0.0100"],
    ),
    Reason.REDUCE_ONLY: (
        lambda w: w.placed(flags=1 | REDUCE_ONLY),
        "reduce_only",
        "0.0000",
        ["a sell to reduce, long"],
    ),
    Reason.POSITION_LIMIT: (
        _full_position,
        "quantity",
        "0.0100",
        ["from -1759218604.4416 to 1759218604.4416 contracts"],
    ),
    Reason.UNKNOWN_ORDER: (
        lambda w: cancel(w, seq=999),
        "seq",
        999,
        ["number 999", "sell of " + NAMES[0], "2000.00"],
    ),
    Reason.NOT_OWNER_OF_ORDER: (_others_order, "account", TAKER, ["is account 1's, got 2"]),
    Reason.ORDER_DEAD: (_dead_order, "seq", None, ["it expired at 2024-10-03 18:00:05 UTC"]),
    Reason.MARGIN: (
        lambda w: w.placed(POOR, quantity=10**6),
        *("quantity", None, ["it needs", "10.00 USD is available", "Deposit"]),
    ),
    Reason.AMOUNT: (
        lambda w: w.record(Kind.WITHDRAW, MAKER, amount=0),
        "amount",
        "0.000000",
        ["0.000001 USD"],
    ),
    Reason.POOL: (_dry_pool, "pool", "0.000010", ["0.00001 USD is in it"]),
    Reason.UNHEALTHY: (_in_liquidation, "account", WATCHED, ["in liquidation since 2024-10-03", "deposit"]),
    Reason.HEALTHY: (_recovered, "target", WATCHED, ["its initial margin"]),
    Reason.NO_AUCTION: (lambda w: w.bid(), "target", WATCHED, ["not being auctioned: 4"]),
    Reason.FRACTION: (_auctioned(fraction=200), "fraction", 200, ["from 1 to 64 (of 256)"]),
    Reason.CASH_MAX: (
        _auctioned(cash_max=-(10**15)),
        "cash_max",
        "-1000000000.000000",
        ["-1000000000.00 USD is offered"],
    ),
}


def test_every_reason__is_told_or_is_the_systems_own():
    assert set(EXPLAINERS) == set(TABLE)
    assert set(EXPLAINERS) | OF_THE_SYSTEM == set(Reason) == set(REFUSALS)
    assert not set(EXPLAINERS) & OF_THE_SYSTEM


@pytest.mark.parametrize("reason", TABLE, ids=lambda one: one.name)
def test_refusal__names_field_limit_and_what_was_given__to_api_sdk_and_command_line(reason):
    make, field, got, words = TABLE[reason]
    with Exchange(RealService) as exchange:
        raw = make(World(exchange))
        _, answer = exchange.post({"id": 1, "method": "submit", "params": {"record": "0x" + raw.hex()}})
        error = answer["error"]
        assert error["code"] == 2000 + reason, error
        data = error["data"]
        assert data["reason"] == reason.name
        assert data["field"] == field, error
        assert data["limit"], error
        if got is not None:
            assert data["got"] == got, error
        for one in words:
            assert one in error["message"], error["message"]

        refused = asyncio.run(_by_sdk(exchange.ws_url, raw))
        assert (refused.code, refused.reason, refused.message) == (2000 + reason, reason, error["message"])
        assert (refused.field, refused.limit, refused.got) == (field, data["limit"], data["got"])
        assert refused.need == (Decimal(data["need"]) if "need" in data else None)
        assert refused.there == (Decimal(data["there"]) if "there" in data else None)

        with pytest.raises(click.ClickException) as said:
            connected(exchange.url, lambda client: client.submit(raw))
        assert said.value.message == f"{error['message']} ({error['code']})"


async def _by_sdk(url, raw):
    async with await Client.connect(url) as client:
        with pytest.raises(Refused) as refused:
            await client.submit(raw)
        return refused.value


def test_margin__says_what_an_order_needs__to_the_unit():
    """A deposit of what is short makes the same order hold, and of a unit less does not."""
    with Exchange(RealService) as exchange:
        world = World(exchange)
        raw = world.placed(POOR, quantity=10**4)
        refused = asyncio.run(_by_sdk(exchange.ws_url, raw))
        assert isinstance(refused, MarginRefused)
        assert refused.there == 10
        short = int((refused.need - refused.there) * 10**6)
        for amount, holds in ((short - 1, False), (1, True)):
            transfer = world.record(Kind.TRANSFER, MAKER, to=POOR, amount=amount)
            world.taken(transfer)
            answer = exchange.call("submit", record="0x" + raw.hex())
            assert ("result" in answer) is holds, answer
        assert json.dumps(answer)


def test_less_of_an_order__that_nothing_pays__says_what_it_costs():
    with Exchange(RealService) as exchange:
        world = World(exchange)
        ack = world.rest(POOR, flags=0, price=100, quantity=100)
        exchange.do(lambda: setattr(world.state.accounts[POOR], "cash", 0))
        as_much = amend(world, ack, POOR, flags=0, price=100, new_price=100, quantity=100)
        refused = asyncio.run(_by_sdk(exchange.ws_url, as_much))
        assert isinstance(refused, MarginRefused)
        assert (refused.field, refused.need, refused.there) == ("quantity", Decimal("0.0001"), 0)
        assert "Cancel the order" in str(refused)


def test_withdrawal__says_what_is_free__and_that_can_be_withdrawn():
    with Exchange(RealService) as exchange:
        world = World(exchange)
        world.rest(POOR, flags=0, price=100, quantity=10_000)  # 1 USD and a hold is reserved
        refused = asyncio.run(_by_sdk(exchange.ws_url, world.record(Kind.WITHDRAW, POOR, amount=10**7)))
        assert (refused.field, refused.need) == ("amount", 10)
        free = int(refused.there * 10**6)
        assert 0 < free < 9 * 10**6
        ack = world.taken(world.record(Kind.WITHDRAW, POOR, amount=free), POOR)
        assert Decimal(ack["amount"]) == refused.there


def test_nonce__that_is_used__names_the_one_to_take():
    with Exchange(RealService) as exchange:
        world = World(exchange)
        world.rest(nonce=1)
        refused = asyncio.run(_by_sdk(exchange.ws_url, world.placed(nonce=1, quantity=77)))
        assert isinstance(refused, NonceRefused)
        exchange.submit(world.placed(nonce=refused.data["next"]))


KINDS = sorted(one for one in CLIENT_KINDS if one not in (Kind.FEED, Kind.SURFACE))
NEAR = {  # values around those that mean something
    "account": [0, 1, 2, 3, 4, 99],
    "to": [0, 1, 2, 99],
    "target": [0, 1, 4, 99],
    "instrument": [*(INSTRUMENT + row for row in range(6)), 0, 2**32 - 1],
    "flags": [*range(64), 0x40, 0xFF],
    "price": [0, 1, 200_000, 200_001, 2**32 - 1],
    "new_price": [0, 1, 200_000, 200_001, 2**32 - 1],
    "quantity": [0, 1, 100, 10**6, 2**40 - 1],
    "nonce": [*range(12), 255, 256, 2**32 - 1],
    "nonce_floor": [0, 3, 256, 257, 2**32 - 1],
    "expires": [0, 0, 0, NOW - 1, NOW + 3, 2**32 - 1],
    "signer_expires": [0, NOW + 1, 2**32 - 1],
    "fee_max": [0, 1, 100],
    "seq": [*range(13, 40), 2**40 - 1],
    "side": [0, 1, 2, 255],
    "terms": [4_800_000, 4_800_000 | 1 << 31, 0],
    "amount": [0, 1, 10**7, 10**12, 2**64 - 1],
    "signer": [SESSION, OWNERS[MAKER], bytes(20), b"\x01" * 20, b"\x02" * 20, b"\x03" * 20],
    "scope": [0, 1, 2, 3, 4, 255],
    "fraction": [0, 1, 64, 256, 65_535],
    "cash_max": [-(2**63), 0, 2**63 - 1],
}


@pytest.mark.parametrize("seed", range(4))
def test_any_refused_record__has_words__and_they_change_nothing(seed, caplog):
    draw = random.Random(seed)
    engine = Engine(genesis_state(DOMAIN, PARAMS))
    told = []

    def explain(state, raw, signer, reason, out):
        before = state.root(), state.globals.words()
        found = explanation(state, raw, signer, reason, out)
        assert (state.root(), state.globals.words()) == before
        told.append((reason, found))

    engine.explain = explain
    engine.run(NOW, genesis_records(), [])
    for step in range(150):
        records = []
        for _ in range(8):
            kind = draw.choice(KINDS)
            fields = {name: draw.choice(NEAR[name]) for name, _ in codec.LAYOUTS[kind].fields}
            number = fields["account"] = draw.choice([1, 1, 2, 2, 3, 4, 99])
            if number in engine.state.accounts and draw.random() < 0.8:
                fields["nonce"] = engine.state.accounts[number].nonce_floor + len(records)
            signer = draw.choice([OWNERS.get(number, SESSION)] * 4 + [SESSION])
            raw = codec.encode(kind, **fields)
            records.append(Submission(raw, signer, reply=1, of_class=class_of(raw)))
        state = engine.state
        if step == 75:  # somebody is auctioned from here on
            state.accounts[WATCHED].auction_start = NOW
        engine.run(NOW + step // 10, [], records)
    assert not caplog.records, caplog.text
    seen = {reason for reason, _ in told}
    assert len(seen) >= 15, seen
    for reason, found in told:
        assert (found is None) is (reason in OF_THE_SYSTEM), reason
        if found is not None:
            assert found.field
            assert found.limit
            assert found.text.endswith(".")
            assert len(found.text) < 600
