"""Error codes, messages and exceptions of the API and the SDK.

Codes of a JSON-RPC error object are `Code`; a refusal by the exchange is 2000 + its `Reason`. The exceptions::

    FairstrikeError
    ├── ConnectionFailed        no connection; nothing was sent (url, reason)
    ├── OutcomeUnknown          sent without an answer: query the outcome before sending again (what, reason)
    └── RpcFailed               the exchange answered with an error (code, message, data; of it: field, limit, got,
        │                       need, there, where the answer has them)
        ├── BadRequest          the request itself is wrong
        │   ├── InvalidParams   ... in one field
        │   └── AccessDenied    ... for somebody else's history
        ├── Busy                nothing was accepted; the same request may be sent later
        │   ├── NotReady        ... because the sequencer is unavailable
        │   └── NotLeader       ... because another sequencer leads: send it there
        └── Refused             a well-formed record that the rules refuse now (reason)
            ├── NonceRefused    NONCE_USED, NONCE_WINDOW
            └── MarginRefused   MARGIN
"""

from dataclasses import dataclass
from dataclasses import field as member
from decimal import Decimal, InvalidOperation
from enum import IntEnum
from typing import Any, Final

import msgspec

from sequencer.protocol.constants import (
    NONCE_WINDOW,
    PAGES_MAX,
    PLAN_RECORDS_MAX,
    POSITIONS_MAX,
    SIGNERS_MAX,
    STEPS_MAX,
    Reason,
)


class Code(IntEnum):
    """Codes of errors that are not refusals."""

    PARSE = -32700
    INVALID_REQUEST = -32600
    UNKNOWN_METHOD = -32601
    INVALID_PARAMS = -32602
    INTERNAL = -32603
    MALFORMED = 1001
    BAD_SIGNATURE = 1002
    NOT_A_CLIENT_RECORD = 1003
    ACCESS_DENIED = 1004
    QUEUE_FULL = 1100
    RATE_LIMITED = 1101
    NOT_READY = 1102
    OUTCOME_UNKNOWN = 1103
    NOT_LEADER = 1104


REFUSAL_BASE: Final = 2000

REFUSALS: Final[dict[Reason, str]] = {
    Reason.OK: "The record was applied.",
    Reason.MALFORMED: "The record's length, its padding or a field does not fit its kind: see the table of records.",
    Reason.UNKNOWN_KIND: "The first byte of the record names no kind that this exchange knows.",
    Reason.CLASS_ORDER: "The record came after one of a later class in the same tick; send it again for the next tick.",
    Reason.TAKER_PENDING: "An order is still matching; send the record again for the next tick.",
    Reason.NO_TAKER: "No order waits for a CONTINUE.",
    Reason.TIME_BACKWARDS: "The tick's time is before the previous tick's.",
    Reason.UNKNOWN_ACCOUNT: "No such account: an owner's first deposit on L1 opens it, after its confirmations.",
    Reason.BAD_SIGNATURE: "The signer is neither the account's owner nor one of its session keys; check the key, the "
    "chain id and the verifying contract that were signed.",
    Reason.SIGNER_EXPIRED: "The session key has expired; the owner can renew it with set_signer.",
    Reason.EXPIRED: "The record's `expires` has passed; sign it again with a later one, or 0 for none.",
    Reason.NONCE_USED: "This nonce has been used; every record needs a new one.",
    Reason.NONCE_WINDOW: f"The nonce is used (below the account's floor), or {NONCE_WINDOW} or more above the floor.",
    Reason.UNKNOWN_INSTRUMENT: "No such instrument is listed.",
    Reason.INSTRUMENT_EXPIRED: "The instrument has expired.",
    Reason.QUANTITY: "The quantity must be at least one lot, 0.0001 contract.",
    Reason.PRICE: "The price must be at least one tick, 0.01 USD.",
    Reason.FLAGS: "The flags contradict each other: post-only goes with GTC alone, and unused bits are zero."
    " Those of an amendment must be the order's own.",
    Reason.FEE_ABOVE_MAX: "The sequencing fee is above the order's fee_max; raise it, or wait until the backlog falls.",
    Reason.RESTRICTED: "Only cancels, reduce-only orders, liquidations and withdrawals are accepted now.",
    Reason.HALTED: "No order is accepted now; trading resumes on a fresh, calm index.",
    Reason.RISK_STALE: "The marks for this record are too old; try again once they are refreshed.",
    Reason.MARGIN: "The account's free margin is insufficient.",
    Reason.POST_ONLY_CROSSES: "The post-only order would have traded at once.",
    Reason.FOK_UNFILLED: "The fill-or-kill order cannot be filled completely: it matches at most"
    f" {STEPS_MAX * PLAN_RECORDS_MAX} resting orders.",
    Reason.REDUCE_ONLY: "There is no position that this reduce-only order would reduce.",
    Reason.POSITION_LIMIT: f"An account holds at most {POSITIONS_MAX} positions in {PAGES_MAX} pages, each bounded.",
    Reason.SELF_TRADE: "The order met an order of its own account.",
    Reason.UNKNOWN_ORDER: "No such order rests: it has traded, was cancelled, has expired, or its key is wrong.",
    Reason.NOT_OWNER_OF_ORDER: "The order belongs to another account.",
    Reason.ORDER_DEAD: "The order is dead: cancelled by cancel-all, expired, of an expired instrument, or with nothing"
    " left to reduce; it can only be cancelled.",
    Reason.ORDER_ALIVE: "The order is alive; only dead ones can be swept.",
    Reason.TERMS: "The strike or type that the order was signed with is not its instrument's.",
    Reason.AMOUNT: "The amount is zero or too large.",
    Reason.POOL: "The accounts' pool cannot pay this out now.",
    Reason.SIGNERS_FULL: f"The account has {SIGNERS_MAX} session keys already; remove one first (scope 0).",
    Reason.SCOPE: "The session key may not sign this, or the scope asked for cannot be granted.",
    Reason.UNKNOWN_FEED: "The report is not signed by a feed of this exchange, or its underlying is unknown.",
    Reason.FEED_TIME: "The report is not newer than the feed's last one, or is ahead of the exchange's time.",
    Reason.SURFACE: "The surface's parameters or forward are out of range, or arbitrage.",
    Reason.NO_INDEX: "The underlying has no fresh index.",
    Reason.NO_SURFACE: "Too few feeds have a fresh surface of the expiry.",
    Reason.ALREADY_LISTED: "The instrument is listed already.",
    Reason.LISTING_RULE: "The listing rule does not allow this expiry or strike.",
    Reason.EXPIRY_FULL: "The expiry has no room for another instrument.",
    Reason.NOT_EXPIRED: "The expiry has not been reached.",
    Reason.NO_SNAPSHOT: "The index snapshots for the settlement price are missing.",
    Reason.ALREADY_SETTLED: "The settlement price is fixed already.",
    Reason.NOT_SETTLED: "The settlement price is not fixed yet.",
    Reason.NOTHING_TO_SETTLE: "The account has no position of this expiry.",
    Reason.FEEDS_DISAGREE: "The feeds' surfaces of the expiry are too far apart for marks.",
    Reason.HEALTHY: "The account meets its margin; it cannot be liquidated.",
    Reason.UNHEALTHY: "The account is in liquidation; only cancels are open to it.",
    Reason.NO_AUCTION: "The account is not being auctioned.",
    Reason.FRACTION: "The fraction of the portfolio is zero, above the limit of one bid, or too small to move a lot.",
    Reason.CASH_MAX: "The slice costs more than cash_max now.",
    Reason.NOTHING_TO_COLLECT: "The treasury is empty.",
    Reason.INBOX_ACCOUNT: "A deposit to account 0 credits nobody.",
    Reason.RISK_DUE: "The marks for this message are too old; it waits until they are refreshed.",
}
"""Reason -> a sentence with the remedy, where there is one."""


SHOWN_CHARACTERS_MAX: Final = 80


def shown(value: object) -> object:
    """`value`, shortened for the error message."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else "an integer beyond 64 bits"
    text = value if isinstance(value, str) else type(value).__name__
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "…"


def wrong(field: str, limit: str, got: object, hint: str = "") -> str:
    """Message of a wrong value: `field: must be limit, got "value"; hint`."""
    text = f"{field}: must be {limit}, got {msgspec.json.encode(shown(got)).decode()}"
    return f"{text}; {hint}" if hint else text


def error_body(code: int, message: str, **data: object) -> bytes:
    """A JSON-RPC error object, encoded."""
    return msgspec.json.encode({"code": int(code), "message": message, "data": data})


def refusal(reason: Reason, **details: object) -> bytes:
    """Error object of a record refused for `reason`; `details` are added to `data`."""
    return error_body(REFUSAL_BASE + reason, REFUSALS[reason], reason=reason.name, **details)


class FairstrikeError(Exception):
    """Root of the SDK's exceptions."""


@dataclass(slots=True)
class ConnectionFailed(FairstrikeError):
    """No connection; nothing was sent."""

    url: str
    reason: str

    def __str__(self) -> str:
        return f"no connection to {self.url}: {self.reason}"


@dataclass(slots=True)
class OutcomeUnknown(FairstrikeError):
    """The request went out and no answer came back; it may or may not have been applied.

    Of a record that a Trader has sent: its account, nonce and bytes, with which `Trader.outcome` queries the outcome.
    """

    what: str
    reason: str
    account: int | None = None
    nonce: int | None = None
    record: bytes | None = None

    def __str__(self) -> str:
        which = "" if self.nonce is None else f" of account {self.account} with nonce {self.nonce}"
        return f"the outcome of {self.what}{which} is unknown: {self.reason}"


def _decimal(text: object) -> Decimal | None:
    try:
        return Decimal(text) if isinstance(text, str) else None
    except InvalidOperation:  # of another gateway
        return None


@dataclass(slots=True)
class RpcFailed(FairstrikeError):
    """The exchange answered with an error object."""

    code: int
    message: str
    data: dict[str, Any] = member(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"

    @property
    def field(self) -> str:
        """The field at fault; "" where there is none."""
        return str(self.data.get("field", ""))

    @property
    def limit(self) -> str:
        """What the field must be."""
        return str(self.data.get("limit", ""))

    @property
    def got(self) -> object:
        """What was given, in the API's units."""
        return self.data.get("got")

    @property
    def need(self) -> Decimal | None:
        """What was needed, USD or contracts (`data["unit"]`); None without a shortfall."""
        return _decimal(self.data.get("need"))

    @property
    def there(self) -> Decimal | None:
        """What was available."""
        return _decimal(self.data.get("there"))


class BadRequest(RpcFailed):
    """The request itself is wrong; sending it again is of no use."""


class InvalidParams(BadRequest, ValueError):
    """One field is wrong: `field`, its `limit`, and the value given, `got`.

    The SDK raises it itself for values that a gateway would refuse.
    """


class AccessDenied(BadRequest):
    """The history belongs to another account, or the signature is another key's."""


def invalid_params(field: str, limit: str, got: object, hint: str = "") -> InvalidParams:
    """The error with which a gateway would answer a wrong value."""
    data = {"field": field, "limit": limit, "got": shown(got)}
    return InvalidParams(int(Code.INVALID_PARAMS), wrong(field, limit, got, hint), data)


class Busy(RpcFailed):
    """Nothing was accepted; the same request may be sent later."""


class NotReady(Busy):
    """The sequencer is unavailable."""


class NotLeader(Busy):
    """Another sequencer leads; nothing was accepted here: send the request to the leader."""


class Refused(RpcFailed):
    """A well-formed record that the rules refuse in the present state."""

    @property
    def reason(self) -> Reason:
        return Reason(self.code - REFUSAL_BASE)


class NonceRefused(Refused):
    """The nonce is used, or outside the account's window."""


class MarginRefused(Refused):
    """The account's free margin is insufficient."""


_BY_CODE: Final[dict[int, type[RpcFailed]]] = {
    Code.PARSE: BadRequest,
    Code.INVALID_REQUEST: BadRequest,
    Code.UNKNOWN_METHOD: BadRequest,
    Code.INVALID_PARAMS: InvalidParams,
    Code.MALFORMED: BadRequest,
    Code.BAD_SIGNATURE: BadRequest,
    Code.NOT_A_CLIENT_RECORD: BadRequest,
    Code.ACCESS_DENIED: AccessDenied,
    Code.QUEUE_FULL: Busy,
    Code.RATE_LIMITED: Busy,
    Code.NOT_READY: NotReady,
    Code.NOT_LEADER: NotLeader,
    REFUSAL_BASE + Reason.NONCE_USED: NonceRefused,
    REFUSAL_BASE + Reason.NONCE_WINDOW: NonceRefused,
    REFUSAL_BASE + Reason.MARGIN: MarginRefused,
}
_REASONS: Final = frozenset(Reason)


def from_error(error: dict[str, Any], what: str = "the request") -> FairstrikeError:
    """The exception for a JSON-RPC error object."""
    code, message, data = int(error.get("code", 0)), str(error.get("message", "")), error.get("data") or {}
    if code == Code.OUTCOME_UNKNOWN:
        return OutcomeUnknown(what, message)
    kind = _BY_CODE.get(code)
    if kind is None:
        kind = Refused if code - REFUSAL_BASE in _REASONS else RpcFailed
    return kind(code, message, data)
