"""The commands of `fairstrike match`: JSON lines to exact integers, and what is wrong with those that are none."""

import re
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

DECIMALS: Final = 8
"""Digits kept after the point: prices and quantities are integers of 1e-8 inside."""
WHOLE_DIGITS_MAX: Final = 12
SCALE: Final = 10**DECIMALS
SHOWN_CHARACTERS_MAX: Final = 40
"""Longer values are cut in messages."""
TIME_MAX: Final = 2**32 - 1

_DECIMAL: Final = re.compile(rf"([0-9]{{1,{WHOLE_DIGITS_MAX}}})(?:\.([0-9]{{1,{DECIMALS}}}))?")
_NUMBER_LIMIT: Final = (
    f"must be a decimal above 0, with at most {WHOLE_DIGITS_MAX} digits before the point "
    f'and {DECIMALS} after it, such as "100.25"'
)

Id = int | str


class MatchError(ValueError):
    """A line that is no valid command. `line` counts from 1; `field` is "" where the whole line is wrong."""

    def __init__(self, line: int, field: str, reason: str) -> None:
        self.line = line
        self.field = field
        self.reason = reason
        super().__init__(f"line {line}: field {field!r} {reason}" if field else f"line {line}: {reason}")


class FieldError(ValueError):
    """A value that its field cannot have."""

    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        self.reason = reason
        super().__init__(reason)


class Place(msgspec.Struct, frozen=True, gc=False, tag_field="op", tag="place", forbid_unknown_fields=True):
    """Command to place an order; price and quantity still as written."""

    id: Id
    side: Literal["buy", "sell"]
    price: str | int
    qty: str | int
    tif: Literal["GTC", "IOC", "FOK"] = "GTC"
    post_only: bool = False
    reduce_only: bool = False
    owner: Id | None = None
    self_trade: Literal["cancel_resting", "cancel_taker"] = "cancel_resting"
    expires: int = 0
    time: int | None = None


class Cancel(msgspec.Struct, frozen=True, gc=False, tag_field="op", tag="cancel", forbid_unknown_fields=True):
    """Command to take an order out of the book; with an owner, only if it is theirs."""

    id: Id
    owner: Id | None = None
    time: int | None = None


class CancelAll(
    msgspec.Struct, frozen=True, gc=False, tag_field="op", tag="cancel_all", forbid_unknown_fields=True
):
    """Command to take every order of an owner out of the book."""

    owner: Id
    time: int | None = None


class Amend(msgspec.Struct, frozen=True, gc=False, tag_field="op", tag="amend", forbid_unknown_fields=True):
    """Command to give a resting order another price, or another quantity that remains of it, or both."""

    id: Id
    price: str | int | None = None
    qty: str | int | None = None
    owner: Id | None = None
    time: int | None = None


class Reduce(msgspec.Struct, frozen=True, gc=False, tag_field="op", tag="reduce", forbid_unknown_fields=True):
    """Command to take `by` off what remains of a resting order."""

    id: Id
    by: str | int
    owner: Id | None = None
    time: int | None = None


class Clock(msgspec.Struct, frozen=True, gc=False, tag_field="op", tag="time", forbid_unknown_fields=True):
    """Command to let the time come; orders that expire by then are gone."""

    time: int


Command = Place | Cancel | CancelAll | Amend | Reduce | Clock
decode: Final = msgspec.json.Decoder(Command).decode


def parse_decimal(text: str | int, field: str) -> int:
    """`text` in units of 1e-8, exact. Raises ValueError, naming the limit, for what does not fit."""
    match = _DECIMAL.fullmatch(text if isinstance(text, str) else str(text))
    if match is None:
        length = len(str(text))
        shown = repr(text) if length <= SHOWN_CHARACTERS_MAX else f"of {length} characters"
        raise FieldError(field, f"{_NUMBER_LIMIT}, not {shown}")
    whole, fraction = match.groups()
    value = int(whole) * SCALE
    if fraction is not None:
        value += int(fraction) * 10 ** (DECIMALS - len(fraction))
    if value == 0:
        raise FieldError(field, f"{_NUMBER_LIMIT}, not {text!r}")
    return value


def format_decimal(value: int, decimals_min: int = 0) -> str:
    """`value` (units of 1e-8, >= 0) as an exact decimal, no exponent, `decimals_min` decimals at least."""
    whole, fraction = divmod(value, SCALE)
    digits = f"{fraction:0{DECIMALS}d}".rstrip("0").ljust(decimals_min, "0")
    return f"{whole}.{digits}" if digits else str(whole)


def check_time(value: int, field: str) -> int:
    """A time in seconds that the exchange's clock can show. Raises FieldError."""
    if not 0 <= value <= TIME_MAX:
        raise FieldError(field, f"must be an integer from 0 to {TIME_MAX} (seconds), not {value}")
    return value


def id_text(order_id: Id) -> str:
    """An id as it stands in JSON."""
    return str(order_id) if isinstance(order_id, int) else msgspec.json.encode(order_id).decode()


def _exact(value: Any) -> bool:
    return isinstance(value, str) or type(value) is int


def _one_of(*words: str) -> tuple[Callable[[Any], bool], str]:
    listed = ", ".join(f'"{word}"' for word in words[:-1]) + f' or "{words[-1]}"'
    return (lambda value: value in words), f"must be {listed}"


_FLAG: Final = ((lambda value: isinstance(value, bool)), "must be true or false")
_ID: Final = (_exact, "must be an integer or a string")
_NUMBER: Final = (_exact, f"{_NUMBER_LIMIT}, in a string")
_TIME: Final = (
    (lambda value: type(value) is int and 0 <= value <= TIME_MAX),
    f"must be an integer from 0 to {TIME_MAX} (seconds)",
)
_RULES: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "id": _ID,
    "side": _one_of("buy", "sell"),
    "price": _NUMBER,
    "qty": _NUMBER,
    "by": _NUMBER,
    "tif": _one_of("GTC", "IOC", "FOK"),
    "post_only": _FLAG,
    "reduce_only": _FLAG,
    "owner": _ID,
    "self_trade": _one_of("cancel_resting", "cancel_taker"),
    "expires": _TIME,
    "time": _TIME,
}
_KINDS: Final[dict[str, type[msgspec.Struct]]] = {
    "place": Place,
    "cancel": Cancel,
    "cancel_all": CancelAll,
    "amend": Amend,
    "reduce": Reduce,
    "time": Clock,
}


def explain(number: int, line: str | bytes, error: Exception) -> MatchError:
    """Why `line` did not decode, in terms of its fields; slow, for the one line that fails."""
    try:
        command = msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeError) as malformed:
        return MatchError(number, "", f"not JSON: {malformed}")
    if not isinstance(command, dict):
        return MatchError(number, "", f"must be a JSON object, not {type(command).__name__}")
    operation = command.get("op")
    kind = _KINDS.get(operation) if isinstance(operation, str) else None
    if kind is None:
        names = ", ".join(f'"{name}"' for name in _KINDS)
        return MatchError(number, "op", f"must be one of {names}{_found(command, 'op')}")
    fields = {field.name: field.required for field in msgspec.structs.fields(kind)}
    for name, is_required in fields.items():
        valid, reason = _RULES[name]
        if name in command and not valid(command[name]):
            return MatchError(number, name, reason + _found(command, name))
        if name not in command and is_required:
            return MatchError(number, name, f"is missing; it {reason}")
    for name in command:
        if name != "op" and name not in fields:
            return MatchError(number, name, f'is no field of "{operation}", which has {", ".join(fields)}')
    return MatchError(number, "", str(error))


def _found(command: dict[str, Any], field: str) -> str:
    if field not in command:
        return "; it is missing"
    shown = msgspec.json.encode(command[field]).decode()
    return f", not {shown if len(shown) <= SHOWN_CHARACTERS_MAX else shown[:SHOWN_CHARACTERS_MAX] + '...'}"
