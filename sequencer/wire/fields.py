"""Fields of a request: their limits, exact decimals, and the error for a wrong value."""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from sequencer.errors import Code, error_body, shown, wrong
from sequencer.genesis import UNDERLYINGS
from sequencer.protocol import constants as c

PRICE_DECIMALS: Final = 2  # USD -> ticks
QUANTITY_DECIMALS: Final = 4  # contracts -> lots
CASH_DECIMALS: Final = 6
FEE_MAX_DECIMALS: Final = 4


class RequestError(Exception):
    """A wrong request, with its error object; `id_json` when the id could be read."""

    def __init__(self, code: int, message: str, /, id_json: bytes = b"null", **data: object) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data
        self.id_json = id_json

    def body(self) -> bytes:
        """The JSON-RPC error object."""
        return error_body(self.code, self.message, **self.data)


class UnknownInstrument(RequestError):
    """A name that the list of instruments does not hold (yet)."""


def request_error(
    code: int,
    field: str,
    limit: str,
    got: object,
    hint: str = "",
    /,
    id_json: bytes = b"null",
    **data: object,
) -> RequestError:
    """The error of one wrong value; `data` is added to field, limit and got."""
    message = wrong(field, limit, got, hint)
    return RequestError(code, message, id_json=id_json, field=field, limit=limit, got=shown(got), **data)


def invalid(field: str, limit: str, got: object, hint: str = "") -> RequestError:
    """-32602 for one field."""
    return request_error(Code.INVALID_PARAMS, field, limit, got, hint)


# --- decimals -----------------------------------------------------------------------------------

_FINE: Final = re.compile(r"(-?)(\d{1,20})\.(\d{1,40})", re.ASCII)
_DECIMAL: Final = re.compile(r"(-?)(\d{1,20})(?:\.(\d{1,6}))?", re.ASCII)


def to_units(text: str, decimals: int) -> int:
    """`"123.45"` to an integer of 10^-decimals, exact. ValueError for anything else."""
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError(text)
    sign, whole, fraction = match.groups()
    fraction = fraction or ""
    if len(fraction) > decimals:
        raise ValueError(text)
    value = int(whole + fraction.ljust(decimals, "0"))
    return -value if sign else value


def from_units(value: int, decimals: int, least: int = 0) -> str:
    """Inverse of `to_units`, without trailing zeros beyond the `least` decimals."""
    whole, fraction = divmod(abs(value), 10**decimals)
    digits = f"{fraction:0{decimals}d}".rstrip("0").ljust(least, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"


# --- fields -------------------------------------------------------------------------------------


class _Required(Enum):
    REQUIRED = 0


REQUIRED: Final = _Required.REQUIRED


def _no_hint(_given: Any) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter: its limit as text, its reader (ValueError: wrong value), and the `hint` of the error."""

    name: str
    limit: str
    read: Callable[[Any], Any]
    default: object = REQUIRED
    hint: Callable[[Any], str] = _no_hint

    def value(self, given: Any) -> Any:
        """The value of `given`; RequestError -32602 when it is wrong."""
        try:
            return self.read(given)
        except ValueError:
            raise invalid(self.name, self.limit, given, self.hint(given)) from None


def integer(name: str, high: int, default: object = REQUIRED, low: int = 0) -> Field:
    def read(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError
        return value

    return Field(name, f"an integer from {low} to {high}", read, default)


def decimal(
    name: str, decimals: int, low: int, high: int, default: object = REQUIRED, unit: str = "USD"
) -> Field:
    def read(value: Any) -> int:
        if type(value) is not str:
            raise ValueError
        units = to_units(value, decimals)
        if not low <= units <= high:
            raise ValueError
        return units

    def hint(value: Any) -> str:
        """The nearest allowed values of one with too many decimals; how to write a number."""
        if type(value) in (int, float):
            return 'write it as a string, such as "1500.00"'
        match = _FINE.fullmatch(value) if type(value) is str else None
        if match is None:
            return ""
        whole = int(match[2] + match[3][:decimals].ljust(decimals, "0"))
        below, above = sorted((-whole, -whole - 1) if match[1] else (whole, whole + 1))
        near = [f"{from_units(one, decimals, decimals)}" for one in (below, above) if low <= one <= high]
        return f"the nearest {'are' if near[1:] else 'is'} {' and '.join(near)}" if near else ""

    bounds = f"from {from_units(low, decimals)} to {from_units(high, decimals)}"
    limit = f"a decimal string {bounds} with at most {decimals} decimals, in {unit}"
    return Field(name, limit, read, default, hint)


def choice(name: str, choices: dict[str, int], default: object = REQUIRED) -> Field:
    def read(value: Any) -> int:
        if type(value) is not str or value not in choices:
            raise ValueError
        return choices[value]

    return Field(name, "one of " + ", ".join(choices), read, default)


def flag(name: str) -> Field:
    def read(value: Any) -> bool:
        if type(value) is not bool:
            raise ValueError
        return value

    return Field(name, "true or false", read, False)


def from_hex(text: object, sizes: tuple[int, ...]) -> bytes:
    """`"0x…"` of one of `sizes` bytes. ValueError otherwise."""
    if type(text) is not str or text[:2] != "0x" or len(text) // 2 - 1 not in sizes:
        raise ValueError(text)
    return unhexlify(text[2:])


def address(name: str, default: object = REQUIRED) -> Field:
    return Field(name, "0x and 40 hex digits", lambda value: from_hex(value, (20,)), default)


def instrument(default: object = REQUIRED) -> Field:
    def read(value: Any) -> int | str:
        if type(value) is int and 0 <= value <= c.U32_MAX:
            return value
        if type(value) is str and 0 < len(value) <= 32:
            return value
        raise ValueError

    limit = f'an instrument: its number (from 0 to {c.U32_MAX}) or its name ("BTC-2JAN22-48000-C")'
    return Field("instrument", limit, read, default)


def _signature(value: object) -> bytes:
    """64 bytes compact, or 65 bytes r, s, v, to compact."""
    raw = from_hex(value, (c.SIGNATURE_BYTES, c.SIGNATURE_BYTES + 1))
    if len(raw) == c.SIGNATURE_BYTES:
        return raw
    parity = raw[64] - 27 if raw[64] >= 27 else raw[64]
    if parity not in (0, 1) or raw[32] & 0x80:
        raise ValueError
    return raw[:32] + bytes((raw[32] | parity << 7,)) + raw[33:64]


SIGNATURE: Final = Field("signature", "0x and 64 bytes (EIP-2098) or 65 bytes (r, s, v) in hex", _signature)
_U32 = c.U32_MAX


def cursor(value: Any) -> int:
    """A key of the history, as text: it may be beyond what JSON numbers hold exactly. ValueError."""
    if type(value) is not str or not value.isascii() or not value.isdigit() or len(value) > 19:
        raise ValueError
    return min(int(value), 2**63 - 1)


def underlying(value: Any) -> int:
    """The number of an underlying by its name. ValueError."""
    if type(value) is not str or value not in UNDERLYINGS:
        raise ValueError
    return UNDERLYINGS.index(value)
