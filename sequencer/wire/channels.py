"""Channels of a subscription, and the instruments that they name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sequencer.errors import Code, shown, wrong
from sequencer.protocol import constants as c
from sequencer.wire.fields import PRICE_DECIMALS, RequestError, UnknownInstrument, invalid, to_units
from sequencer.wire.near import Near

CHANNELS_MAX: Final = 256  # subscriptions of a connection
_CHANNEL_LIMIT: Final = (
    "book.<instrument>, trades, trades.<instrument>, ticker.<instrument> or account.<number>"
)


def channels(params: dict[str, Any], listed: Instruments) -> tuple[list[str], list[tuple[str, RequestError]]]:
    """Channels of subscribe and unsubscribe as events name them (instruments by name), and those that are refused.

    Raises when there is none to subscribe to.
    """
    asked = params.get("channels")
    if set(params) - {"channels"} or type(asked) is not list or not 0 < len(asked) <= CHANNELS_MAX:
        got = len(asked) if type(asked) is list else asked
        raise invalid("channels", f"an array of 1 to {CHANNELS_MAX} channels", got)
    good: list[str] = []
    refused: list[tuple[str, RequestError]] = []
    for one in asked:
        try:
            good.append(_channel(one, listed))
        except RequestError as error:
            refused.append((str(shown(one)), error))
    if not good:
        raise refused[0][1]
    return good, refused


def _channel(text: object, listed: Instruments) -> str:
    if type(text) is str:
        family, _, name = text.partition(".")
        is_number = name.isascii() and name.isdigit() and len(name) <= 10 and int(name) <= c.U32_MAX
        if text == "trades":
            return text
        if family == "account" and is_number:
            return f"account.{int(name)}"
        if family in ("book", "trades", "ticker") and 0 < len(name) <= 32:
            return f"{family}.{listed.name_of(int(name)) if is_number else listed.checked(name)}"
    raise invalid("channels", _CHANNEL_LIMIT, text)


_INSTRUMENT_LIMIT: Final = "the number or the name of an instrument that is listed and has not expired"


class Instruments:
    """Names and numbers of the listed instruments, as last received from the sequencer."""

    def __init__(self, listed: Iterable[tuple[str, int]] = ()) -> None:
        self.numbers = dict(listed)
        self._names = {number: name for name, number in self.numbers.items()}
        self._near: Near | None = None

    def number_of(self, name: str) -> int:
        """Instrument number of a name; UnknownInstrument."""
        number = self.numbers.get(name)
        if number is None:
            raise self._unknown(name)
        return number

    def name_of(self, number: int) -> str:
        """Inverse of `number_of`."""
        name = self._names.get(number)
        if name is None:
            raise self._unknown(number)
        return name

    def near(self) -> Near:
        """Finds similar listed names."""
        if self._near is None:
            self._near = Near(self.numbers)
        return self._near

    def _unknown(self, got: object) -> UnknownInstrument:
        message = wrong("instrument", _INSTRUMENT_LIMIT, got, self.near().hint(got))
        return UnknownInstrument(
            *(Code.INVALID_PARAMS, message),
            field="instrument",
            limit=_INSTRUMENT_LIMIT,
            got=shown(got),
            near=self.near().to(got),
        )

    def terms_of(self, number: int) -> int:
        """strike | put << 31 of a listed instrument, as its name says them."""
        return terms_of(self.name_of(number))

    def checked(self, name: str) -> str:
        """`name`, if it is listed."""
        self.number_of(name)
        return name


def terms_of(name: str) -> int:
    """strike | put << 31 of an option's name, such as BTC-2JAN22-48000-C. ValueError when it is none."""
    _, _, strike, kind = name.split("-")
    return to_units(strike.replace("d", "."), PRICE_DECIMALS) | (kind == "P") << 31
