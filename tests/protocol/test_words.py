"""PLACE_IN_WORDS: the text is the order, what a wallet signs is the text, and terms that are another's are refused."""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from eth_account import Account as Wallet
from eth_account.messages import encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.order_text import order_text
from sequencer.protocol.outcome import Outcome
from sequencer.wire.channels import terms_of
from sequencer.wire.names import terms_name

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import CALM, DOMAIN, FAR, FEE_MAX, INDEX, NEAR, Exchange, examples, key_of

POST, REDUCE, STP = c.FLAG_POST_ONLY, c.FLAG_REDUCE_ONLY, c.FLAG_STP_TAKER
IOC, FOK = c.TIF_IOC << c.FLAG_TIF_SHIFT, c.TIF_FOK << c.FLAG_TIF_SHIFT
DAY = 20_785  # 28 November 2026
TIME = 1_795_852_800  # 08:00 UTC of that day
P = 300_000


def fields(**changes: int) -> tuple[int, ...]:
    values = {
        "account": 3, "instrument": DAY << 12, "flags": 0, "price": 125_000, "quantity": 15_000, "nonce": 7,
        "expires": 0, "fee_max": 100, "terms": 5_000_000,
    }  # fmt: skip
    return tuple({**values, **changes}.values())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "Buy 1.5 BTC-28NOV26-50000-C at 1250.00 USD, good till cancelled, sequencing fee at most 0.0100 USD"),
        (
            {"flags": 1 | POST | REDUCE | STP, "instrument": 1 << 28 | 11_017 << 12, "terms": 1 << 31 | 123_405,
             "quantity": 1, "price": 7, "expires": TIME, "fee_max": 65_535},
            "Sell 0.0001 ETH-1MAR00-1234d05-P at 0.07 USD, good till 2026-11-28 08:00:00 UTC, post-only, reduce-only, "
            "stops at own orders, sequencing fee at most 6.5535 USD",
        ),
        (
            {"flags": IOC, "quantity": 120_000, "expires": TIME + 3_661},
            "Buy 12 BTC-28NOV26-50000-C at 1250.00 USD, immediate or cancel before 2026-11-28 09:01:01 UTC, "
            "sequencing fee at most 0.0100 USD",
        ),
        (
            {"flags": 1 | FOK, "quantity": c.U40_MAX, "price": c.U32_MAX, "fee_max": 0},
            "Sell 109951162.7775 BTC-28NOV26-50000-C at 42949672.95 USD, fill or kill, "
            "sequencing fee at most 0.0000 USD",
        ),
    ],
)  # fmt: skip
def test_text__of_an_order__says_what_it_does(changes: dict[str, int], text: str) -> None:
    assert order_text(fields(**changes)) == text


def test_name__of_every_day__is_the_one_that_the_api_uses() -> None:
    for day in range(0, 2**16, 7):
        for number, strike, put in ((0, 5_000_000, 0), (1, 123_405, 1)):
            text = order_text(fields(instrument=number << 28 | day << 12, terms=put << 31 | strike))
            name = terms_name(number, day, strike, bool(put))
            assert text.split(" ")[2] == name
            assert terms_of(name) == put << 31 | strike


U32 = st.integers(0, c.U32_MAX)
FLAGS = [side | tif | more for side in (0, 1) for tif in (0, IOC, FOK) for more in (0, POST, REDUCE, STP, 56)]
PARTS = re.compile(
    r"(Buy|Sell) (\d+(?:\.\d{0,3}[1-9])?) ([A-Z0-9]+)-(\d+)([A-Z]{3})(\d\d)-(\d+)(?:d(\d\d))?-([CP])"
    r" at (\d+)\.(\d\d) USD, "
    r"(good till|immediate or cancel|fill or kill)(?: cancelled)?(?:(?: before)? (\S+ \S+) UTC)?"
    r"(, post-only)?(, reduce-only)?(, stops at own orders)?, sequencing fee at most (\d+)\.(\d{4}) USD"
)


@settings(max_examples=examples(300), deadline=None)
@given(
    day=st.integers(10_957, 47_481),  # 2000 to 2099: a name has two digits of the year
    underlying=st.integers(0, 15),
    flags=st.sampled_from(FLAGS),
    price=U32, quantity=st.integers(0, c.U40_MAX), expires=U32, fee_max=st.integers(0, 65_535), terms=U32,
)  # fmt: skip
def test_text__tells_every_field_but_the_row(
    day: int, underlying: int, flags: int, price: int, quantity: int, expires: int, fee_max: int, terms: int
) -> None:
    """Read back by another hand: so no two orders have one text."""
    text = order_text(
        fields(
            instrument=underlying << 28 | day << 12,
            flags=flags,
            price=price,
            quantity=quantity,
            expires=expires,
            fee_max=fee_max,
            terms=terms,
        )
    )
    found = PARTS.fullmatch(text)
    assert found is not None, text
    side, amount, name, date, month, year, strike, cents, kind, dollars, ticks, tif, until, *rest = (
        found.groups()
    )
    *marks, fee, small = rest
    names = {"BTC": 0, "ETH": 1} | {f"U{number}": number for number in range(2, 16)}
    when = datetime.strptime(f"{date}{month}20{year}", "%d%b%Y").replace(tzinfo=UTC)
    assert (names[name], int(when.timestamp()) // c.DAY_S) == (underlying, day)
    assert int(strike) * 100 + int(cents or 0) | (kind == "P") << 31 == terms
    assert int(dollars) * 100 + int(ticks) == price
    whole, _, part = amount.partition(".")
    assert int(whole) * 10_000 + int(part.ljust(4, "0") or 0) == quantity
    bits = (POST, REDUCE, STP)
    assert (side == "Sell") | {"g": 0, "i": IOC, "f": FOK}[tif[0]] | sum(
        bit for bit, mark in zip(bits, marks, strict=True) if mark
    ) == flags
    assert int(fee) * 10_000 + int(small) == fee_max
    moment = datetime.strptime(until, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp() if until else 0
    assert moment == expires


# --- in the exchange ------------------------------------------------------------------------------------


@pytest.fixture
def exchange() -> Exchange:
    one = Exchange(**CALM)
    one.open((FAR, INDEX, 0), (FAR, INDEX, 1), (NEAR, INDEX, 0))
    for role in ("treasury", "maker", "taker"):
        one.deposit(role, 1_000_000)
    return one


def spoken(exchange: Exchange, role: str, instrument: int, **changes: int) -> Outcome:
    order = {
        "instrument": instrument,
        "flags": c.SELL,
        "price": P,
        "quantity": 5,
        "terms": INDEX,
        "fee_max": FEE_MAX,
    }
    return exchange.submit(Kind.PLACE_IN_WORDS, role, **{**order, **changes})


def test_order_in_words__is_an_order(exchange: Exchange) -> None:
    call = exchange.state.instruments[FAR << 32 | INDEX]
    out = spoken(exchange, "maker", call)
    assert out.rested is not None
    assert (out.rested.quantity, out.fee) == (5, 100)
    assert spoken(exchange, "taker", call, flags=c.BUY | POST).reason is Reason.POST_ONLY_CROSSES
    assert len(spoken(exchange, "taker", call, flags=c.BUY | IOC).fills) == 1
    assert spoken(exchange, "taker", call, flags=6).reason is Reason.FLAGS
    assert spoken(exchange, "taker", call, by="maker").reason is Reason.BAD_SIGNATURE


def test_order_in_words__with_terms_of_another_option__is_refused(exchange: Exchange) -> None:
    call = exchange.state.instruments[FAR << 32 | INDEX]
    put = exchange.state.instruments[FAR << 32 | 1 << 31 | INDEX]
    for instrument, terms in ((call, 1 << 31 | INDEX), (call, INDEX + 1), (put, INDEX)):
        before = exchange.account("maker").nonce_bitmap, exchange.account("maker").nonce_floor
        out = spoken(exchange, "maker", instrument, terms=terms, nonce=exchange.account("maker").nonce_floor)
        assert out.reason is Reason.TERMS
        assert before == (exchange.account("maker").nonce_bitmap, exchange.account("maker").nonce_floor)
    assert spoken(exchange, "maker", call | 31).reason is Reason.UNKNOWN_INSTRUMENT


def test_text_that_a_wallet_signs__is_accepted__and_no_other(exchange: Exchange) -> None:
    call = exchange.state.instruments[FAR << 32 | INDEX]
    order = {"account": 2, "instrument": call, "flags": c.SELL, "price": P, "quantity": 15_000, "nonce": 0}
    order |= {"expires": 0, "fee_max": 100, "terms": INDEX}
    raw = codec.encode(Kind.PLACE_IN_WORDS, **order)
    typed = codec.typed_data(raw, 31_337, "0x" + "11" * 20)
    name = terms_name(0, FAR, INDEX, False)
    assert typed.message == {
        "order": f"Sell 1.5 {name} at 3000.00 USD, good till cancelled, sequencing fee at most 0.0100 USD",
        "account": 2,
        "nonce": 0,
    }
    for message, reason in (
        ({**typed.message, "order": str(typed.message["order"]).replace("1.5", "1.6")}, Reason.BAD_SIGNATURE),
        (typed.message, Reason.OK),
    ):
        signable = encode_typed_data(typed.domain, typed.types, message)  # type: ignore[arg-type]  # its own types
        signed = Wallet.sign_message(signable, key_of("maker"))
        compact = signed.r.to_bytes(32, "big") + (signed.s | (signed.v - 27) << 255).to_bytes(32, "big")
        exchange.tick()
        assert exchange.apply(raw[: -c.SIGNATURE_BYTES] + compact).reason is reason
    assert codec.signing_digest(raw, DOMAIN) is not None
