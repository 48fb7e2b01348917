"""`fairstrike match --exchange`: the rules of matching, on the book alone and on the exchange's transition, alike."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.market.match import Matcher, Run
from sequencer.market.match.effects import Effects, Venue
from sequencer.market.match.exchange import ExchangeMatcher
from sequencer.protocol import constants as c

VENUES = [pytest.param(Matcher, id="book"), pytest.param(ExchangeMatcher, id="exchange")]


class Ran:
    """A file of commands on a venue: its trades, events and refused lines."""

    def __init__(self, venue: Venue, commands: list[dict[str, object]]) -> None:
        written: list[str] = []
        self.refused: dict[int, str] = {}
        self.venue = venue
        run = Run(venue, written.append, self._refuse, has_events=True)
        self.summary = run.lines(json.dumps(one) for one in commands)
        self.events = [json.loads(one) for one in written]
        self.trades = [
            (one["maker"], one["taker"], one["price"], one["qty"])
            for one in self.events
            if one["event"] == "trade"
        ]
        self.gone = [(one["id"], one["reason"]) for one in self.events if one["event"] == "gone"]

    def _refuse(self, line: int, out: Effects) -> None:
        self.refused[line] = out.refused


def place(order_id: int | str, side: str, price: str, qty: str, **more: object) -> dict[str, object]:
    return {"op": "place", "id": order_id, "side": side, "price": price, "qty": qty, **more}


@pytest.mark.parametrize("venue", VENUES)
def test_self_trade__cancels_the_resting_order_and_goes_on(venue: Callable[[], Venue]) -> None:
    ran = Ran(
        venue(),
        [
            place(1, "sell", "10", "1", owner="a"),
            place(2, "sell", "10", "1", owner="b"),
            place(3, "buy", "10", "2", owner="a"),
        ],
    )
    assert ran.trades == [(2, 3, "10.00", "1")]
    assert ran.gone == [(1, "SELF_TRADE")]
    assert ran.venue.amounts(3) is not None


@pytest.mark.parametrize("venue", VENUES)
def test_self_trade__with_cancel_taker__ends_the_new_order_after_its_fills(
    venue: Callable[[], Venue],
) -> None:
    ran = Ran(
        venue(),
        [
            place(1, "sell", "10", "1", owner="b"),
            place(2, "sell", "11", "1", owner="a"),
            place(3, "sell", "12", "1", owner="b"),
            place(4, "buy", "12", "3", owner="a", self_trade="cancel_taker"),
        ],
    )
    assert ran.trades == [(1, 4, "10.00", "1")]
    assert ran.gone == []
    assert ran.summary.resting == 2


@pytest.mark.parametrize("venue", VENUES)
def test_orders_without_owner__are_strangers(venue: Callable[[], Venue]) -> None:
    ran = Ran(venue(), [place(1, "sell", "10", "1"), place(2, "buy", "10", "1")])
    assert ran.trades == [(1, 2, "10.00", "1")]


@pytest.mark.parametrize("venue", VENUES)
def test_fok__with_an_own_order_in_the_way__leaves_it_when_it_fails(venue: Callable[[], Venue]) -> None:
    book = [place(1, "sell", "10", "1", owner="a"), place(2, "sell", "10", "1", owner="b")]
    ran = Ran(venue(), [*book, place(3, "buy", "10", "1.5", owner="a", tif="FOK")])
    assert (ran.trades, ran.refused, ran.summary.resting) == ([], {3: "FOK_UNFILLED"}, 2)
    ran = Ran(venue(), [*book, place(3, "buy", "10", "1", owner="a", tif="FOK")])
    assert (ran.trades, ran.gone) == ([(2, 3, "10.00", "1")], [(1, "SELF_TRADE")])


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("count", [4, 100])
def test_fok__over_many_orders__fills_whole_or_leaves_all_of_them_as_they_were(
    venue: Callable[[], Venue], count: int
) -> None:
    book = [place(number, "sell", str(10 + number), "1") for number in range(count)]
    ends = {"order_id": "t", "side": "buy", "price": str(9 + count), "tif": "FOK"}
    ran = Ran(venue(), [*book, place(**ends, qty=str(count))])
    assert ran.trades == [(number, "t", f"{10 + number}.00", "1") for number in range(count)]
    assert ran.summary.resting == 0
    after = [
        *(place("p", "buy", "10", "0.25"), {"op": "reduce", "id": 0, "by": "0.25"}),
        {"op": "amend", "id": 1, "qty": "0.5"},
        *({"op": "cancel", "id": 2}, place("q", "buy", "13", "1.5")),
    ]
    ran = Ran(venue(), [*book, place(**ends, qty=f"{count}.0001"), *after])
    assert ran.refused == {count + 1: "FOK_UNFILLED"}
    assert ran.trades == [
        (0, "p", "10.00", "0.25"),
        (0, "q", "10.00", "0.5"),
        (1, "q", "11.00", "0.5"),
        (3, "q", "13.00", "0.5"),
    ]
    assert ran.summary.resting == count - 3


def test_fok__over_more_orders_than_the_exchange_allows__is_refused_there_alone() -> None:
    most = c.STEPS_MAX * c.PLAN_RECORDS_MAX
    book = [place(number, "sell", "10", "1") for number in range(most + 1)]
    ran = Ran(Matcher(), [*book, place("t", "buy", "10", str(most + 1), tif="FOK")])
    assert len(ran.trades) == most + 1
    ran = Ran(
        ExchangeMatcher(),
        [*book, *(place(str(lots), "buy", "10", str(lots), tif="FOK") for lots in (most + 1, most))],
    )
    assert ran.refused == {most + 2: "FOK_UNFILLED"}
    (refused,) = (one for one in ran.events if one["event"] == "refused")
    assert f"at most {most} resting orders" in refused["message"]
    assert (len(ran.trades), ran.summary.resting) == (most, 1)


@pytest.mark.parametrize("venue", VENUES)
def test_reduce_only__closes_what_is_held_and_no_more(venue: Callable[[], Venue]) -> None:
    ran = Ran(
        venue(),
        [
            place(1, "sell", "10", "2", owner="a"),
            place(2, "sell", "10", "1", owner="b", reduce_only=True),
            place(3, "buy", "10", "2", owner="b"),
            place(4, "sell", "11", "5", owner="b", reduce_only=True),
            place(5, "buy", "11", "3", owner="c"),
            place(6, "sell", "11", "1", owner="b", reduce_only=True),
        ],
    )
    assert ran.refused == {2: "REDUCE_ONLY", 6: "REDUCE_ONLY"}
    assert ran.trades == [(1, 3, "10.00", "2"), (4, 5, "11.00", "2")]
    assert ran.venue.amounts(4) is None  # it rested for the 2 that were held
    assert ran.summary.resting == 1


@pytest.mark.parametrize("venue", VENUES)
def test_reduce_only__with_nothing_left_to_reduce__is_gone_at_once(venue: Callable[[], Venue]) -> None:
    ran = Ran(
        venue(),
        [
            place(1, "sell", "10", "2", owner="a"),
            place(2, "buy", "10", "2", owner="b"),
            place(3, "sell", "20", "2", owner="b", reduce_only=True),
            place(4, "buy", "9", "2", owner="c"),
            place(5, "sell", "9", "2", owner="b"),
            place(6, "buy", "20", "1", owner="c", post_only=True),
        ],
    )
    assert ran.gone == [(3, "REDUCE_ONLY")]
    assert ran.refused == {}
    assert (ran.summary.resting, ran.venue.best_price(0)) == (1, 20 * 10**8)


@pytest.mark.parametrize("venue", VENUES)
def test_expires__ends_an_order_at_its_second(venue: Callable[[], Venue]) -> None:
    begins = 1_700_000_000
    ran = Ran(
        venue(),
        [
            place(1, "sell", "10", "1", time=begins, expires=begins + 60),
            place(2, "sell", "10", "1", expires=begins + 61),
            place(3, "buy", "10", "1", time=begins + 60, tif="IOC"),
            place(4, "buy", "10", "1", expires=begins + 60),
            {"op": "time", "time": begins + 59},
        ],
    )
    assert ran.trades == [(2, 3, "10.00", "1")]
    assert ran.gone == [(1, "EXPIRED")]
    assert ran.refused == {4: "EXPIRED", 5: "TIME_BACKWARDS"}


@pytest.mark.parametrize("venue", VENUES)
def test_flags__that_contradict_each_other__are_refused(venue: Callable[[], Venue]) -> None:
    ran = Ran(venue(), [place(1, "sell", "10", "1", tif="IOC", post_only=True)])
    assert ran.refused == {1: "FLAGS"}


@pytest.mark.parametrize("venue", VENUES)
def test_cancel__of_others_and_unknown_ids__changes_nothing(venue: Callable[[], Venue]) -> None:
    ran = Ran(
        venue(),
        [
            place(1, "sell", "10", "1", owner="a"),
            {"op": "cancel", "id": 1, "owner": "b"},
            {"op": "cancel", "id": 2},
            {"op": "cancel", "id": 1, "owner": "a"},
            {"op": "cancel", "id": 1},
        ],
    )
    assert ran.refused == {2: "NOT_OWNER_OF_ORDER", 3: "UNKNOWN_ORDER", 5: "UNKNOWN_ORDER"}
    assert (ran.summary.cancelled, ran.summary.resting) == (1, 0)


@pytest.mark.parametrize("venue", VENUES)
def test_cancel_all__takes_what_its_owner_has(venue: Callable[[], Venue]) -> None:
    ran = Ran(
        venue(),
        [
            place(1, "sell", "10", "1", owner="a"),
            place(2, "sell", "9", "1", owner="b"),
            place(3, "buy", "5", "1", owner="a"),
            {"op": "cancel_all", "owner": "a"},
            {"op": "cancel_all", "owner": "nobody"},
            place(4, "buy", "10", "2", owner="c"),
        ],
    )
    assert ran.gone == [(1, "CANCELLED"), (3, "CANCELLED")]
    assert ran.trades == [(2, 4, "9.00", "1")]


@pytest.mark.parametrize("venue", VENUES)
def test_partial_fills__leave_the_rest_of_the_first_in_its_place(venue: Callable[[], Venue]) -> None:
    ran = Ran(
        venue(),
        [
            place(1, "sell", "10", "3"),
            place(2, "sell", "10", "1"),
            place(3, "buy", "10", "1"),
            place(4, "buy", "10", "1.5"),
            place(5, "buy", "10", "1"),
        ],
    )
    assert ran.trades == [
        (1, 3, "10.00", "1"),
        (1, 4, "10.00", "1.5"),
        (1, 5, "10.00", "0.5"),
        (2, 5, "10.00", "0.5"),
    ]


@pytest.mark.parametrize("venue", VENUES)
def test_taker__of_many_orders__takes_them_all(venue: Callable[[], Venue]) -> None:
    ran = Ran(
        venue(), [*(place(i, "sell", f"{10 + i}", "1") for i in range(20)), place("t", "buy", "40", "25")]
    )
    assert [trade[0] for trade in ran.trades] == list(range(20))
    assert ran.venue.amounts("t") == (20 * 10**8, 5 * 10**8)
    assert ran.summary.resting == 1


@pytest.mark.parametrize("venue", VENUES)
def test_amend__to_less__keeps_the_place__and_to_more_or_another_price_loses_it(
    venue: Callable[[], Venue],
) -> None:
    book = [place(1, "sell", "10", "3"), place(2, "sell", "10", "1")]
    taker = place(9, "buy", "10", "1")
    for amend, first in (
        ({"op": "amend", "id": 1, "qty": "2"}, 1),
        ({"op": "reduce", "id": 1, "by": "1"}, 1),
        ({"op": "amend", "id": 1, "qty": "3", "price": "10"}, 1),
        ({"op": "amend", "id": 1, "qty": "4"}, 2),
        ({"op": "amend", "id": 1, "price": "10.01"}, 2),
        ({"op": "reduce", "id": 1, "by": "3"}, 2),
    ):
        ran = Ran(venue(), [*book, amend, taker])
        assert ran.trades == [(first, 9, "10.00", "1")], amend
    back = [{"op": "amend", "id": 1, "price": "11"}, {"op": "amend", "id": 1, "price": "10"}]
    assert Ran(venue(), [*book, *back, taker]).trades == [(2, 9, "10.00", "1")]


@pytest.mark.parametrize("venue", VENUES)
def test_amend__that_crosses__trades_as_a_new_order_does(venue: Callable[[], Venue]) -> None:
    book = [place(1, "sell", "10", "1"), place(2, "buy", "9", "3"), place(3, "buy", "9", "1", post_only=True)]
    ran = Ran(
        venue(),
        [*book, {"op": "amend", "id": 3, "price": "10"}, {"op": "amend", "id": 2, "price": "10", "qty": "2"}],
    )
    assert ran.refused == {4: "POST_ONLY_CROSSES"}
    assert ran.trades == [(1, 2, "10.00", "1")]
    assert (ran.venue.amounts(2), ran.venue.amounts(3)) == ((10**8, 10**8), (0, 10**8))
    ran = Ran(venue(), [{"op": "amend", "id": 7, "qty": "1"}, {"op": "reduce", "id": 7, "by": "1"}])
    assert ran.refused == {1: "UNKNOWN_ORDER", 2: "UNKNOWN_ORDER"}


@pytest.mark.parametrize("venue", VENUES)
def test_amend__of_the_total__counts_what_has_traded(venue: Callable[[], Venue]) -> None:
    book = [place(1, "sell", "10", "5"), place(2, "sell", "10", "1"), place(3, "buy", "10", "2")]
    ran = Ran(venue(), [*book, {"op": "amend", "id": 1, "qty": "4"}, place(4, "buy", "10", "3")])
    assert ran.trades == [(1, 3, "10.00", "2"), (1, 4, "10.00", "2"), (2, 4, "10.00", "1")]
    ran = Ran(venue(), [*book, {"op": "amend", "id": 1, "qty": "2"}])
    assert ran.gone == [(1, "CANCELLED")]
    ran = Ran(venue(), [*book, {"op": "amend", "id": 1, "qty": "6"}, place(4, "buy", "10", "3")])
    assert ran.trades[1:] == [(2, 4, "10.00", "1"), (1, 4, "10.00", "2")]
    assert ran.venue.amounts(1) == (4 * 10**8, 2 * 10**8)
    ran = Ran(venue(), [*book, {"op": "amend", "id": 1, "qty": "4", "owner": "a"}])
    assert ran.refused == {4: "NOT_OWNER_OF_ORDER"}


def test_exchange__holds_to_its_grid() -> None:
    ran = Ran(
        ExchangeMatcher(),
        [
            place(1, "sell", "10.001", "1"),
            place(2, "sell", "10", "0.00001"),
            place(3, "sell", "42949672.96", "1"),
            place(4, "sell", "42949672.95", "100000"),
            place(5, "buy", "42949672.95", "100000"),
        ],
    )
    assert ran.refused == {1: "PRICE", 2: "QUANTITY", 3: "PRICE"}
    assert ran.trades == [(4, 5, "42949672.95", "100000")]


def test_exchange__lives_for_399_days() -> None:
    day = 86_400
    ran = Ran(
        ExchangeMatcher(),
        [
            place(1, "sell", "10", "1", time=0),
            place(2, "buy", "10", "1", time=399 * day),
            place(3, "buy", "10", "1", time=400 * day),
        ],
    )
    assert ran.trades == [(1, 2, "10.00", "1")]
    assert ran.refused == {3: "INSTRUMENT_EXPIRED"}


OWNER = st.sampled_from([None, "a", "b", "c"])
ORDER = st.fixed_dictionaries(
    {
        "op": st.just("place"),
        "id": st.integers(0, 8),
        "side": st.sampled_from(["buy", "sell"]),
        "price": st.integers(98, 102).map(str),
        "qty": st.integers(1, 9).map(str),
        "tif": st.sampled_from(["GTC", "GTC", "GTC", "IOC"]),
        "post_only": st.sampled_from([False, False, False, True]),
        "reduce_only": st.sampled_from([False, False, True]),
        "owner": OWNER,
        "self_trade": st.sampled_from(["cancel_resting", "cancel_resting", "cancel_taker"]),
        "expires": st.sampled_from([0, 0, 0, 3, 60, 500]),
    }
)
COMMAND = st.one_of(
    ORDER,
    ORDER,
    ORDER,
    ORDER,
    st.fixed_dictionaries({"op": st.just("cancel"), "id": st.integers(0, 8), "owner": OWNER}),
    st.fixed_dictionaries(
        {"op": st.just("amend"), "id": st.integers(0, 8), "qty": st.integers(1, 12).map(str), "owner": OWNER},
        optional={"price": st.integers(98, 102).map(str)},
    ),
    st.fixed_dictionaries(
        {"op": st.just("reduce"), "id": st.integers(0, 8), "by": st.integers(1, 4).map(str)}
    ),
    st.fixed_dictionaries({"op": st.just("cancel_all"), "owner": st.sampled_from(["a", "b"])}),
    st.fixed_dictionaries({"op": st.just("time"), "time": st.sampled_from([0, 2, 3, 59, 61, 4000])}),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(COMMAND, max_size=40))
def test_book_and_exchange__on_any_commands__say_the_same(commands: list[dict[str, object]]) -> None:
    book, exchange = Ran(Matcher(), commands), Ran(ExchangeMatcher(), commands)
    assert book.refused == exchange.refused
    assert book.trades == exchange.trades
    assert sorted(map(str, book.gone)) == sorted(map(str, exchange.gone))
    assert book.summary == exchange.summary
