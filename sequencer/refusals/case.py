"""Input and result of an explanation; amounts and times formatted for people."""

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
class Explanation:
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
        """Members of the error object's `data`."""
        out: dict[str, object] = {"field": self.field, "limit": self.limit, "got": self.got}
        if self.need is not None:
            out |= {"need": self.need, "there": self.there, "unit": self.unit}
        return out | self.more


@dataclass(frozen=True, slots=True)
class Case:
    """A refused record and the state that it met. `needed`, `there`: those of `Outcome`."""

    state: State
    kind: Kind
    values: dict[str, Any]
    signer: bytes | None
    needed: int
    there: int

    @property
    def account(self) -> Account:
        """The record's account, which exists."""
        return self.state.accounts[self.values["account"]]

    @property
    def time(self) -> int:
        """The exchange's time, seconds since 1970."""
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


Explainer: TypeAlias = Callable[[Case], Explanation]


def name_of(state: State, instrument: int) -> str:
    """Name of an instrument; the number of one that is not listed."""
    try:
        return instrument_name(state, instrument)
    except KeyError:
        return str(instrument)


def moment(time: int) -> str:
    """A time as date and seconds since 1970."""
    return f"{utc(time)} ({time})"


def money(amount: int) -> str:
    """1e-6 USD with two decimals, or more where needed."""
    text = cash(amount)
    return text[:-4] + text[-4:].rstrip("0")


def side_of(side: int) -> str:
    """buy or sell."""
    return "sell" if side else "buy"
