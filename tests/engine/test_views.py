"""What people see of the state: exact decimals, answers that agree with the state, errors that name the field."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from sequencer import errors
from sequencer.engine.engine import Engine, Result, Submission
from sequencer.engine.events import Events
from sequencer.engine.views import QueryError, Views, cash, contracts, usd
from sequencer.genesis import genesis_state
from sequencer.log.interface import Redone
from sequencer.protocol import codec, margin
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.entries import Account
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.protocol.params import Params

DOMAIN = codec.domain_separator(31_337, b"\x5f" * 20)
MAKER, TAKER = 1, 2
KEYS = {number: bytes([number]) * 32 for number in (MAKER, TAKER)}
FEED_KEY = b"\xfe" * 32
DAY = 20_000
NOW = DAY * 86_400 - 6 * 3_600
CALL, PUT = DAY << 12, DAY << 12 | 1
CALL_NAME, PUT_NAME = "BTC-4OCT24-48000-C", "BTC-4OCT24-48000-P"


def owner(number: int) -> bytes:
    return address_of(public_key_of(KEYS[number]))


def signed(kind: Kind, key: bytes, **fields: int | bytes) -> bytes:
    return codec.sign(codec.encode(kind, **fields), DOMAIN, key)


@dataclass
class Desk:
    """An engine with two funded accounts and two marked options, and its views."""

    engine: Engine
    views: Views
    nonce: int = 0

    def __post_init__(self) -> None:
        self.maker = Events(self.views)

    def submit(self, *records: bytes) -> list[Result]:
        tick = self.engine.run(NOW, [], [Submission(raw, None) for raw in records])
        self.maker.observe(tick.results)
        self.events = self.maker.events([one for one in tick.results if one.reason is Reason.OK])
        return tick.results

    def place(
        self,
        account: int,
        side: int,
        price: int,
        lots: int,
        flags: int = 0,
        instrument: int = CALL,
        expires: int = 0,
    ) -> Result:
        self.nonce += 1
        fields = {
            "price": price,
            "quantity": lots,
            "nonce": self.nonce,
            "expires": expires,
            "fee_max": 10_000,
        }
        record = signed(
            Kind.PLACE, KEYS[account], account=account, instrument=instrument, flags=side | flags, **fields
        )
        (result,) = self.submit(record)
        assert result.reason is Reason.OK
        return result

    def ack(self, result: Result) -> dict:
        return json.loads(self.maker.ack(result, 7))


@pytest.fixture
def desk() -> Desk:
    engine = Engine(genesis_state(DOMAIN, Params(feed_keys=(address_of(public_key_of(FEED_KEY)),))))
    records = [
        codec.encode(Kind.DEPOSIT, owner=owner(number), account=number, amount=10**11)
        for number in (MAKER, TAKER)
    ]
    records.append(signed(Kind.FEED, FEED_KEY, underlying=0, feed=0, time=NOW, price=4_900_000))
    records += [codec.encode(Kind.LIST, underlying=0, day=DAY, put=put, strike=4_800_000) for put in (0, 1)]
    report = {"underlying": 0, "feed": 0, "day": DAY, "time": NOW, "forward": 4_900_000, "index": 4_900_000}
    shape = {"a": 10**9, "b": 10**10, "rho": -(10**11), "m": 0, "sigma": 10**11}
    records.append(signed(Kind.SURFACE, FEED_KEY, **report, **shape))
    records.append(codec.encode(Kind.RISK, underlying=0, day=DAY, page=0))
    tick = engine.run(NOW, records, [])
    assert {one.reason for one in tick.system} == {Reason.OK}
    return Desk(engine, Views(engine.state, lambda: {"waiting": 3}))


@pytest.mark.parametrize(
    ("show", "value", "text"),
    [
        (usd, 0, "0.00"), (usd, 5, "0.05"), (usd, -5, "-0.05"), (usd, 2**32 - 1, "42949672.95"),
        (cash, 1, "0.000001"), (cash, -1_000_000, "-1.000000"), (cash, -1, "-0.000001"),
        (contracts, 1, "0.0001"), (contracts, -12_345, "-1.2345"), (contracts, 10_000, "1.0000"),
    ],
)  # fmt: skip
def test_amounts__any_sign__are_exact_decimals(show, value, text):
    assert show(value) == text


def test_ack__of_an_order_that_rests__is_the_same_by_the_short_way_and_the_long(desk):
    result = desk.place(MAKER, c.BUY, 10_000, 15_000)
    got = desk.ack(result)
    outcome = result.outcomes[0]
    assert got == {
        "seq": outcome.seq,
        "tick": 7,
        "fee": cash(outcome.fee),
        "fills": [],
        "order": desk.views.order(outcome.rested),
        "outcomes": [[outcome.paid, outcome.rests, 0]],
    }
    assert got["order"]["price"] == "100.00"
    assert got["order"]["quantity"] == "1.5000"


def test_ack__of_a_taker__shows_its_fills_and_what_rests(desk):
    resting = desk.ack(desk.place(MAKER, c.SELL, 20_000, 10_000))
    got = desk.ack(desk.place(TAKER, c.BUY, 21_000, 15_000))
    (fill,) = got["fills"]
    assert (fill["side"], fill["price"], fill["quantity"]) == ("buy", "200.00", "1.0000")
    assert (fill["maker_seq"], fill["taker_seq"]) == (resting["seq"], got["seq"])
    assert (got["order"]["price"], got["order"]["quantity"]) == ("210.00", "0.5000")


def amended(desk, order, total, price=None, account=MAKER):
    """An AMEND's ack and the events of the account's channel."""
    desk.nonce += 1
    fields = {"instrument": CALL, "flags": order.flags, "price": order.price, "seq": order.seq}
    fields |= {"quantity": total, "new_price": order.price if price is None else price}
    fields |= {"nonce": desk.nonce, "expires": 0, "fee_max": 10_000}
    (result,) = desk.submit(signed(Kind.AMEND, KEYS[account], account=account, **fields))
    assert result.reason is Reason.OK
    told = [json.loads(body) for channel, _, body in desk.events if channel == f"account.{account}"]
    return desk.ack(result), told


def test_ack__of_an_amend__shows_the_order_as_it_is_then(desk):
    order = desk.place(MAKER, c.SELL, 20_000, 10_000).outcomes[0].rested
    desk.place(TAKER, c.BUY, 20_000, 4_000, c.TIF_IOC << 1)
    got, told = amended(desk, order, 7_000)
    row = desk.views.order(order)
    assert (row["quantity"], row["filled"], row["seq"]) == ("0.3000", "0.4000", order.seq)
    assert (got["amended"], got["order"], got.get("removed")) == (order.seq, row, None)
    assert told == [{"order": row}]
    got, told = amended(desk, order, 7_000, 21_000)
    assert (got["amended"], got["removed"], got["order"]["seq"]) == (order.seq, [order.seq], got["seq"])
    assert told == [{"order": got["order"]}, {"removed": row}]
    assert desk.views.orders({"account": MAKER}) == [got["order"]]
    new = desk.views.state.find_order(CALL, c.SELL, 21_000, got["seq"])
    got, told = amended(desk, new, 4_000)
    assert (got["order"], got["removed"], [list(one) for one in told]) == (None, [new.seq], [["removed"]])
    assert desk.views.orders({"account": MAKER}) == []


def test_ack__of_a_withdrawal__names_number_and_amount(desk):
    (result,) = desk.submit(
        signed(Kind.WITHDRAW, KEYS[TAKER], account=TAKER, amount=1_500_000, nonce=99, expires=0)
    )
    got = desk.ack(result)
    assert (got["number"], got["amount"]) == (0, "1.500000")


def test_account__after_a_trade__agrees_with_the_margin(desk):
    desk.place(MAKER, c.SELL, 20_000, 10_000)
    desk.place(TAKER, c.BUY, 20_000, 10_000)
    state = desk.engine.state
    for number, lots in ((MAKER, "-1.0000"), (TAKER, "1.0000")):
        got = desk.views.account({"account": number})
        account = state.accounts[number]
        assert got == desk.views.account({"owner": "0x" + owner(number).hex().upper()})
        assert [(one["instrument"], one["quantity"]) for one in got["positions"]] == [(CALL_NAME, lots)]
        assert got["equity"] == cash(margin.equity(account))
        assert got["initial_margin"] == cash(margin.initial(state, account))
        assert got["free"] == cash(margin.free(state, account))
        assert int(got["nonce_bitmap"], 16) == account.nonce_bitmap
        statement = desk.views.margin_statement({"account": number})
        (row,) = statement["positions"]
        assert statement["value"] == row["quantity_lots"] * row["mark_ticks"]
        assert statement["underlyings"]["BTC"]["scenario_sums"] == [
            row["quantity_lots"] * one for one in row["scenarios_ticks"]
        ]
        assert statement["equity"] == statement["cash"] + statement["value"]


def test_book__levels__are_best_first_and_summed(desk):
    for side, price, lots in (
        (c.BUY, 100, 1),
        (c.BUY, 300, 2),
        (c.BUY, 300, 3),
        (c.SELL, 500, 4),
        (c.SELL, 400, 5),
    ):
        desk.place(MAKER, side, price * 100, lots * 10_000)
    got = desk.views.book({"instrument": CALL_NAME})
    assert got["bids"] == [["300.00", "5.0000", 2], ["100.00", "1.0000", 1]]
    assert got["asks"] == [["400.00", "5.0000", 1], ["500.00", "4.0000", 1]]
    assert desk.views.book({"instrument": CALL, "depth": 1})["bids"] == [["300.00", "5.0000", 2]]
    ticker = desk.views.ticker({"instrument": CALL_NAME})
    assert (ticker["best_bid"], ticker["best_ask"], ticker["index"]) == ("300.00", "400.00", "49000.00")
    empty = desk.views.ticker({"instrument": PUT_NAME})
    assert (empty["best_bid"], empty["best_ask"]) == (None, None)
    assert desk.views.book({"instrument": PUT})["asks"] == []


def test_orders__after_cancel_all__are_none_though_dead_ones_still_lie_in_the_book(desk):
    desk.place(MAKER, c.BUY, 100, 10_000)
    desk.place(TAKER, c.BUY, 200, 10_000)
    assert [one["price"] for one in desk.views.orders({"account": MAKER})] == ["1.00"]
    desk.submit(signed(Kind.CANCEL_ALL, KEYS[MAKER], account=MAKER, nonce_floor=0, nonce=50, expires=0))
    assert desk.views.orders({"account": MAKER}) == []
    assert len(desk.views.orders({"account": TAKER})) == 1


def _floored(desk: Desk) -> None:
    desk.place(MAKER, c.BUY, 19_000, 10_000)
    desk.submit(signed(Kind.CANCEL_ALL, KEYS[MAKER], account=MAKER, nonce_floor=0, nonce=50, expires=0))


def _lapsed(desk: Desk) -> None:
    desk.place(MAKER, c.BUY, 19_000, 10_000, expires=NOW + 1)
    desk.engine.run(NOW + 1, [codec.encode(Kind.DEPOSIT, owner=b"\3" * 20, account=3, amount=10**7)], [])


def _idle(desk: Desk) -> None:
    desk.place(TAKER, c.BUY, 20_000, 10_000)
    desk.place(MAKER, c.SELL, 20_000, 10_000)
    desk.place(MAKER, c.BUY, 19_000, 10_000, c.FLAG_REDUCE_ONLY)
    desk.place(TAKER, c.SELL, 19_500, 10_000)
    desk.place(MAKER, c.BUY, 19_500, 10_000, c.TIF_IOC << c.FLAG_TIF_SHIFT | c.FLAG_REDUCE_ONLY)


def _unbacked(desk: Desk) -> None:
    desk.place(MAKER, c.SELL, 120_000, 10_000)
    desk.engine.run(
        NOW + 1,
        [
            signed(Kind.FEED, FEED_KEY, underlying=0, feed=0, time=NOW + 1, price=6_900_000),
            codec.encode(Kind.RISK, underlying=0, day=DAY, page=0),
        ],
        [],
    )


def _expired(desk: Desk) -> None:
    desk.place(MAKER, c.SELL, 120_000, 10_000)
    desk.engine.run(
        DAY * 86_400 + 8 * 3_600, [codec.encode(Kind.DEPOSIT, owner=b"\3" * 20, account=3, amount=10**7)], []
    )


@pytest.mark.parametrize("die", [_floored, _lapsed, _idle, _unbacked, _expired])
def test_dead_order__that_nobody_has_swept__is_shown_nowhere(desk: Desk, die: Callable[[Desk], None]) -> None:
    die(desk)
    views, state = desk.views, desk.engine.state
    ((_, order),) = state.orders_of[MAKER].items()
    assert state.find_order(CALL, order.side, order.price, order.seq) is order  # its leaf stands
    book, ticker = views.book({"instrument": CALL}), views.ticker({"instrument": CALL})
    assert (book["bids"], book["asks"]) == ([], [])
    assert (ticker["best_bid"], ticker["best_ask"]) == (None, None)
    assert views.orders({"account": MAKER}) == []
    with pytest.raises(QueryError):
        views.order_by_seq({"seq": order.seq})
    sweep = {"instrument": CALL, "side": order.side, "price": order.price, "seq": order.seq}
    tick = desk.engine.run(state.globals.time, [codec.encode(Kind.SWEEP, **sweep)], [])
    assert [one.reason for one in tick.system] == [Reason.OK]


def test_dead_orders__leave_the_live_ones_of_their_level_to_be_seen(desk: Desk) -> None:
    desk.place(MAKER, c.BUY, 19_000, 10_000, expires=NOW + 1)
    desk.place(MAKER, c.BUY, 19_000, 20_000)
    desk.place(TAKER, c.BUY, 18_000, 30_000)
    assert desk.views.book({"instrument": CALL})["bids"][0] == ["190.00", "3.0000", 2]
    desk.engine.run(NOW + 1, [codec.encode(Kind.DEPOSIT, owner=b"\3" * 20, account=3, amount=10**7)], [])
    assert desk.views.book({"instrument": CALL})["bids"] == [["190.00", "2.0000", 1], ["180.00", "3.0000", 1]]
    assert [one["quantity"] for one in desk.views.orders({"account": MAKER})] == ["2.0000"]


def test_instruments__at_expiry__are_left_out_unless_asked_for(desk):
    assert [one["instrument"] for one in desk.views.instruments({})] == [CALL_NAME, PUT_NAME]
    desk.engine.state.globals.time = DAY * 86_400 + 8 * 3_600
    assert desk.views.instruments({}) == []
    assert len(desk.views.instruments({"expired": True})) == 2


def test_events__of_a_trade__reach_the_public_and_both_sides(desk):
    desk.place(MAKER, c.SELL, 20_000, 10_000)
    desk.place(TAKER, c.BUY, 20_000, 10_000)
    public = [(channel, json.loads(body)) for channel, account, body in desk.events if not account]
    trades = [body for channel, body in public if channel.startswith("trades")]
    assert trades
    assert {(one["price"], one["quantity"], one["side"]) for one in trades} == {("200.00", "1.0000", "buy")}
    assert any(channel == f"book.{CALL_NAME}" for channel, _ in public)
    assert {account for _, account, _ in desk.events if account} == {MAKER, TAKER}
    assert [one.price for one in desk.views.recent_trades({})] == ["200.00"]
    assert desk.views.recent_trades({"instrument": PUT_NAME}) == []


class Unread(dict):
    """Of a state that is too large to be read through for an answer."""

    def __iter__(self):
        raise AssertionError("read through")

    keys = values = items = __iter__


def test_look_ups__by_number_or_owner__read_through_nothing(desk):
    seq = desk.ack(desk.place(MAKER, c.SELL, 20_000, 10_000))["seq"]
    state = desk.engine.state
    desk.views.account({"owner": owner(MAKER).hex()})
    accounts = state.accounts
    state.accounts, state.orders_of = Unread(accounts), Unread(state.orders_of)
    assert desk.views.order_by_seq({"seq": seq})["status"] == "rests"
    with pytest.raises(QueryError, match="sequence number"):
        desk.views.order_by_seq({"seq": seq + 1})
    with pytest.raises(QueryError, match="the highest is 2,"):
        desk.views.account({"account": 99})
    state.accounts = Recent(accounts)
    late = Account(b"\x07" * 20)
    state.put_account(9, late)
    state.put_account(12, Account(late.owner))
    assert desk.views.account({"owner": late.owner.hex()})["account"] == 9
    assert desk.views.account({"owner": owner(TAKER).hex()})["account"] == TAKER


class Recent(dict):
    """Of a state of which only the newest two accounts may be looked at to find an owner."""

    def items(self):
        return list(super().items())[-2:]


def test_status__of_the_state__is_joined_by_the_process(desk):
    got = desk.views.status({})
    state = desk.engine.state
    assert got["root"] == "0x" + state.root().hex()
    assert got["seq"] == state.globals.seq
    assert (got["pool"], got["waiting"], got["queue_state"]) == ("200000.000000", 3, "NORMAL")


@pytest.mark.parametrize(
    ("method", "params", "field"),
    [
        ("account", {}, "account"),
        ("account", {"account": 99}, "account"),
        ("account", {"account": [1]}, "account"),
        ("account", {"account": "1"}, "account"),
        ("account", {"owner": "0x00"}, "owner"),
        ("account", {"owner": None}, "owner"),
        ("book", {}, "instrument"),
        ("book", {"instrument": True}, "instrument"),
        ("book", {"instrument": -1}, "instrument"),
        ("book", {"instrument": CALL + 2}, "instrument"),
        ("book", {"instrument": "BTC-4OCT24-1-C"}, "instrument"),
        ("book", {"instrument": CALL, "depth": 0}, "depth"),
        ("book", {"instrument": CALL, "depth": 101}, "depth"),
        ("book", {"instrument": CALL, "depth": "1"}, "depth"),
        ("ticker", {"instrument": {}}, "instrument"),
        ("trades", {"limit": 1001}, "limit"),
        ("margin_statement", {"account": 0}, "account"),
        ("orders", {}, "account"),
    ],
)
def test_query__with_a_wrong_parameter__names_it(desk, method, params, field):
    with pytest.raises(QueryError) as caught:
        desk.views.methods[method](params)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: must be {caught.value.limit}, got ")


@pytest.mark.parametrize("name", ["", "BTC", "BTC-32OCT24-1-C", "XRP-4OCT24-48000-C", "BTC-4OCT24-0d001-C"])
def test_query__with_a_name_that_is_none__says_what_a_name_is(desk, name):
    with pytest.raises(QueryError) as caught:
        desk.views.methods["ticker"]({"instrument": name})
    assert "must be a name like BTC-2JAN22-48000-C" in str(caught.value)


def test_roll_back__tells_whom_it_concerns_and_the_order_says_what_has_become_of_it(desk: Desk) -> None:
    order = desk.place(MAKER, c.SELL, 150_000, 100).outcomes[0].rested
    assert order is not None
    desk.place(TAKER, c.BUY, 150_000, 40, c.TIF_IOC << c.FLAG_TIF_SHIFT)
    (trade,) = desk.views.trades
    fields = {"instrument": CALL, "flags": c.BUY, "price": 140_000, "quantity": 10, "nonce": 77, "expires": 0}
    void = signed(Kind.PLACE, KEYS[TAKER], account=TAKER, fee_max=100, **fields)
    moved = signed(
        Kind.PLACE, KEYS[MAKER], account=MAKER, fee_max=100, **fields | {"flags": c.SELL, "nonce": 8}
    )
    redone = {
        90: Redone(90, 91, void, Reason.MARGIN),
        order.seq - 1: Redone(order.seq - 1, order.seq, moved, Reason.OK),
    }
    desk.views.redone = redone.get
    desk.views.acknowledged_as = {91: 90, order.seq: order.seq - 1}.get  # type: ignore[assignment]  # all that is asked
    events = desk.maker.roll_back_events(3, 88, [MAKER], redone.values())
    told = [(channel, json.loads(body)) for channel, _, body in events]
    general = {"rolled_back": {"batch_id": 3, "first_seq": 88}}
    assert told[:2] == [(f"account.{MAKER}", general), (f"account.{TAKER}", general)]
    key = {"instrument": CALL_NAME, "number": CALL, "side": "buy", "price": "1400.00", "seq": 90}
    why = {"code": 2029, "reason": "MARGIN", "message": errors.REFUSALS[Reason.MARGIN]}
    body = {"seq": 90, "kind": "PLACE", "nonce": 77, "order": key, **why}
    assert told[2] == (f"account.{TAKER}", {"void": body})
    assert told[3][0] == f"account.{MAKER}"
    assert (told[3][1]["moved"]["seq"], told[3][1]["moved"]["to"]) == (order.seq - 1, order.seq)
    assert desk.views.order_by_seq({"seq": 90}) == {"status": "void", **body}
    for seq in (order.seq - 1, order.seq):
        found = desk.views.order_by_seq({"seq": seq})
        assert (found["status"], found["seq"], found["acknowledged_as"]) == (
            "rests",
            order.seq,
            order.seq - 1,
        )
    with pytest.raises(QueryError, match="of an order that rests, or of a record that is void"):
        desk.views.order_by_seq({"seq": 1_000})

    desk.maker.roll_back(trade.seq, [])
    assert not desk.views.trades
