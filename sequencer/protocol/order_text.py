"""An order in words: what a person reads in a wallet and signs, as PLACE_IN_WORDS has it.

Twin: `contracts/lib/order_text.vy`. The text follows from the record's fields alone, and two orders that differ in a
field have two texts, but for the instrument's number: it is that of the terms. Grammar: docs/PROTOCOL.md section 4.
Total: flags that mean nothing have a text, too, under which nothing is accepted.
"""

from typing import Final

from sequencer.protocol import constants as c
from sequencer.protocol.hashing import keccak

MEMBERS: Final = (("order", "string"), ("account", "uint32"), ("nonce", "uint32"))
TYPE_STRING: Final = "Order(string order,uint32 account,uint32 nonce)"
TYPE_HASH: Final = keccak(TYPE_STRING.encode())
MONTHS: Final = "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC"
_TIFS: Final = ("good till cancelled", "immediate or cancel", "fill or kill", "unknown")


def struct_hash(fields: tuple[int, ...]) -> bytes:
    """EIP-712 hashStruct of an order in words; `fields` are those of the record, in their order."""
    text = keccak(order_text(fields).encode())
    return keccak(TYPE_HASH + text + fields[0].to_bytes(32, "big") + fields[5].to_bytes(32, "big"))


def message(fields: tuple[int, ...]) -> dict[str, int | str]:
    """Members of the typed data and their values."""
    return {"order": order_text(fields), "account": fields[0], "nonce": fields[5]}


def order_text(fields: tuple[int, ...]) -> str:
    """The order in words: side, contracts, option, USD, time in force, flags, fee."""
    _, instrument, flags, price, quantity, _, expires, fee_max, terms = fields
    whole, lots = divmod(quantity, 10_000)
    amount = f"{whole}.{lots:04d}".rstrip("0") if lots else str(whole)
    tif = flags >> c.FLAG_TIF_SHIFT & 3
    until = _TIFS[tif]
    if expires:
        until = f"good till {_time(expires)}" if tif == c.TIF_GTC else f"{until} before {_time(expires)}"
    out = f"{'Sell' if flags & c.FLAG_SIDE else 'Buy'} {amount} {_name(instrument, terms)}"
    out += f" at {price // 100}.{price % 100:02d} USD, {until}"
    out += ", post-only" * bool(flags & c.FLAG_POST_ONLY) + ", reduce-only" * bool(flags & c.FLAG_REDUCE_ONLY)
    out += ", stops at own orders" * bool(flags & c.FLAG_STP_TAKER)
    return f"{out}, sequencing fee at most {fee_max // 10_000}.{fee_max % 10_000:04d} USD"


def _name(instrument: int, terms: int) -> str:
    """BTC-28NOV26-50000-C; an underlying without a name is U and its number."""
    number = instrument >> 28
    underlying = ("BTC", "ETH")[number] if number < c.UNDERLYINGS else f"U{number}"
    year, month, day = _date(instrument >> 12 & 0xFFFF)
    dollars, cents = divmod(terms & 0x7FFF_FFFF, 100)
    strike = f"{dollars}d{cents:02d}" if cents else str(dollars)
    expiry = f"{day}{MONTHS[3 * month - 3 : 3 * month]}{year % 100:02d}"
    return f"{underlying}-{expiry}-{strike}-{'P' if terms >> 31 else 'C'}"


def _time(seconds: int) -> str:
    """2026-11-28 08:00:00 UTC."""
    year, month, day = _date(seconds // c.DAY_S)
    rest = seconds % c.DAY_S
    return f"{year}-{month:02d}-{day:02d} {rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d} UTC"


def _date(days: int) -> tuple[int, int, int]:
    """Year, month, day of a number of days since 1970, in the Gregorian calendar: years begin in March, and
    400 of them have 146,097 days.
    """
    era, of_era = divmod(days + 719_468, 146_097)
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    march = (5 * of_year + 2) // 153
    month = march + 3 if march < 10 else march - 9
    return year + 400 * era + (month <= 2), month, of_year - (153 * march + 2) // 5 + 1
