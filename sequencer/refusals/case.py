"""What an explanation starts from, and what it says; amounts and times as people read them."""

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as member
from typing import Any, Final, TypeAlias

from sequencer.amounts import cash
from sequencer.clock import utc
from sequencer.protocol import constants as c
from sequencer.protocol.book import Order
from sequencer.protocol.constants import Kind
from sequencer.protocol.entries import Account
from sequencer.protocol.state import State
from sequencer.wire.names import instrument_name

MONEY: Final = "USD"
SIZE: Final = "contracts"


@dataclass(slots=True)
class Why:
    """A refusal: `text` for people; the field at fault, its limit, what was given; `need`, `there` in `unit`."""

    text: str
    field: str
    limit: str
    got: object
    need: str | None = None
    there: str | None = None
    unit: str = ""
    more: dict[str, object] = member(default_factory=dict)

    def data(self) -> dict[str, object]:
        """What stands beside code and message in the error object."""
        out: dict[str, object] = {"field": self.field, "limit": self.limit, "got": self.got}
        if self.need is not None:
            out |= {"need": self.need, "there": self.there, "unit": self.unit}
        return out | self.more


@dataclass(frozen=True, slots=True)
class Case:
    """A refused record before the state that it has found. `needed`, `there`: as `Outcome` has them."""

    state: State
    kind: Kind
    values: dict[str, Any]
    signer: bytes | None
    needed: int
    there: int

    @property
    def account(self) -> Account:
        """The account that the record names, which exists."""
        return self.state.accounts[self.values["account"]]

    @property
    def time(self) -> int:
        """The exchange's, in seconds since 1970."""
        return self.state.globals.time

    @property
    def instrument(self) -> str:
        """Name of the record's instrument."""
        return name_of(self.state, self.values["instrument"])

    @property
    def side(self) -> int:
        """BUY or SELL, from the record's side or flags."""
        return int(self.values["side"] if "side" in self.values else self.values["flags"] & c.FLAG_SIDE)

    def order(self) -> Order | None:
        """The resting order that the record names."""
        values = self.values
        return self.state.find_order(values["instrument"], self.side, values["price"], values["seq"])


Teller: TypeAlias = Callable[[Case], Why]


def name_of(state: State, instrument: int) -> str:
    """Name of an instrument; the number of one that is not listed."""
    try:
        return instrument_name(state, instrument)
    except KeyError:
        return str(instrument)


def moment(time: int) -> str:
    """Seconds since 1970, behind the date."""
    return f"{utc(time)} ({time})"


def money(amount: int) -> str:
    """1e-6 USD with two decimals, or as many as it needs."""
    text = cash(amount)
    return text[:-4] + text[-4:].rstrip("0")


def side_of(side: int) -> str:
    """buy or sell."""
    return "sell" if side else "buy"
