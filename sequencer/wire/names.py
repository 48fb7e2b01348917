"""Instruments by the name that traders use: BTC-2JAN22-48000-C."""

from datetime import UTC, datetime

from sequencer.genesis import UNDERLYINGS
from sequencer.protocol.constants import DAY_S
from sequencer.protocol.state import State

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def terms_name(underlying: int, day: int, strike_ticks: int, is_put: bool) -> str:
    """The name of an option; a strike that is no whole dollar shows its cents after a `d`."""
    date = datetime.fromtimestamp(day * DAY_S, UTC)
    dollars, cents = divmod(strike_ticks, 100)
    strike = f"{dollars}d{cents:02d}" if cents else str(dollars)
    expiry = f"{date.day}{MONTHS[date.month - 1]}{date.year % 100:02d}"
    return f"{UNDERLYINGS[underlying]}-{expiry}-{strike}-{'P' if is_put else 'C'}"


def expiry_name(key: int) -> str:
    """Name of an expiry (underlying << 16 | day), such as BTC-2JAN22."""
    return terms_name(key >> 16, key & 0xFFFF, 0, False).rsplit("-", 2)[0]


def instrument_terms(state: State, instrument: int) -> tuple[int, int, int, bool]:
    """(underlying, day, strike in ticks, is put) of a listed instrument. Raises KeyError when it is not listed."""
    page = state.pages[instrument >> 5]
    row = instrument & 31
    if row >= len(page.terms):
        raise KeyError(instrument)
    word = page.terms[row]
    return instrument >> 28, instrument >> 12 & 0xFFFF, word & 0x7FFF_FFFF, bool(word >> 31)


def instrument_name(state: State, instrument: int) -> str:
    """The name of a listed instrument. Raises KeyError when it is not listed."""
    return terms_name(*instrument_terms(state, instrument))


def find_instrument(state: State, underlying: int, day: int, strike_ticks: int, is_put: bool) -> int | None:
    """The number of a listed option, or None."""
    return state.instruments.get(underlying << 48 | day << 32 | is_put << 31 | strike_ticks)
