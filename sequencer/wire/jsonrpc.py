"""Requests of the public API: methods and their params to fields and records. No network, no clock, no state.

Every wrong request becomes a `RequestError` with a code of `errors.Code` and a message that names the field and its
limit. Decimals are strings and exact; a JSON number with a fraction is refused for money and quantities.
"""

from __future__ import annotations

from binascii import unhexlify
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from sequencer.errors import REFUSALS, Code, shown
from sequencer.genesis import UNDERLYINGS
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.wire import access
from sequencer.wire.channels import CHANNELS_MAX, Instruments, channels
from sequencer.wire.documents import DECODE_ERRORS, parse_batch, parse_params, parse_request
from sequencer.wire.fields import (
    CASH_DECIMALS,
    FEE_MAX_DECIMALS,
    PRICE_DECIMALS,
    QUANTITY_DECIMALS,
    REQUIRED,
    SIGNATURE,
    Field,
    RequestError,
    UnknownInstrument,
    from_hex,
    from_units,
    invalid,
    request_error,
    to_units,
)
from sequencer.wire.fields import address as _address
from sequencer.wire.fields import choice as _choice
from sequencer.wire.fields import cursor as _cursor
from sequencer.wire.fields import decimal as _decimal
from sequencer.wire.fields import flag as _flag
from sequencer.wire.fields import instrument as _instrument
from sequencer.wire.fields import integer as _integer
from sequencer.wire.fields import underlying as _underlying
from sequencer.wire.labels import LABEL_BYTES, LABEL_LIMIT, checked_label, from_frame
from sequencer.wire.rows import ROWS, ROWS_MAX, TRANSACTIONS, State

__all__ = [
    "CASH_DECIMALS",
    "CHANNELS_MAX",
    "FEE_MAX_DECIMALS",
    "PRICE_DECIMALS",
    "QUANTITY_DECIMALS",
    "Field",
    "Instruments",
    "RequestError",
    "UnknownInstrument",
    "channels",
    "from_hex",
    "from_units",
    "invalid",
    "parse_batch",
    "parse_params",
    "parse_request",
    "shown",
    "to_units",
]

RECORD_BYTES_MAX: Final = max(size for size, _, _ in c.LAYOUT.values())


CLIENT_KINDS: Final = frozenset(
    {
        Kind.PLACE,
        Kind.PLACE_IN_WORDS,
        Kind.AMEND,
        Kind.CANCEL,
        Kind.CANCEL_ALL,
        Kind.SET_SIGNER,
        Kind.TRANSFER,
        Kind.WITHDRAW,
        Kind.BID,
        Kind.FEED,
        Kind.SURFACE,
    }
)
"""Kinds that arrive signed through a gateway; the sequencer makes the others itself."""


class _SubmitParams(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    record: str
    label: str = ""


_submit_decoder: Final = msgspec.json.Decoder(_SubmitParams)


_U32: Final = c.U32_MAX
_SIDE: Final = _choice("side", {"buy": c.BUY, "sell": c.SELL})
_PRICE: Final = _decimal("price", PRICE_DECIMALS, 1, c.U32_MAX)
_ACCOUNT: Final = _integer("account", _U32)
_TAIL: Final = (_integer("nonce", _U32 - 1), _integer("expires", _U32, default=0))
_AMOUNT: Final = _decimal("amount", CASH_DECIMALS, 1, c.U64_MAX)
_PAGE: Final = _integer("limit", 1_000, 1_000, low=1)
_SEQ: Final = _integer("seq", c.U40_MAX)
_LOTS: Final = _decimal("quantity", QUANTITY_DECIMALS, 1, c.U40_MAX, unit="contracts")
_FEE_MAX: Final = _decimal("fee_max", FEE_MAX_DECIMALS, 0, 2**16 - 1, "0.01")
_HOW: Final = (
    _flag("post_only"),
    _flag("reduce_only"),
    _choice("self_trade", {"cancel_resting": 0, "cancel_taker": 1}, "cancel_resting"),
)
_LABEL: Final = Field("label", LABEL_LIMIT, checked_label, None)


@dataclass(frozen=True, slots=True)
class Signed:
    """A method that makes a record of `kind` from fields and a signature."""

    kind: Kind
    fields: tuple[Field, ...]

    def record(self, params: dict[str, Any], listed: Instruments, *, signed: bool = True) -> bytes:
        """The record; with `signed` False, without its signature."""
        values = read_fields((*self.fields, SIGNATURE) if signed else self.fields, params, listed)
        signature = values.pop("signature", None)
        values.pop("label", None)  # goes beside the record
        kind = self.kind
        if kind in (Kind.PLACE, Kind.AMEND):
            values = _order_fields(values)
        if values.pop("words", False):
            kind, values["terms"] = Kind.PLACE_IN_WORDS, listed.terms_of(values["instrument"])
        return codec.encode(kind, signature, **values)


def _order_fields(values: dict[str, Any]) -> dict[str, Any]:
    flags = values.pop("side") | values.pop("tif", c.TIF_GTC) << c.FLAG_TIF_SHIFT
    flags |= c.FLAG_POST_ONLY * values.pop("post_only") | c.FLAG_REDUCE_ONLY * values.pop("reduce_only")
    flags |= c.FLAG_STP_TAKER * values.pop("self_trade")
    if flags & c.FLAG_POST_ONLY and flags >> c.FLAG_TIF_SHIFT & 3:
        raise invalid("post_only", "false unless tif is GTC", True)
    if "seq" in values:
        values.setdefault("new_price", values["price"])
    return values | {"flags": flags}


SIGNED: Final[dict[str, Signed]] = {
    "order_place": Signed(
        Kind.PLACE,
        (
            _ACCOUNT,
            _instrument(),
            _SIDE,
            _PRICE,
            _LOTS,
            _choice("tif", {"GTC": c.TIF_GTC, "IOC": c.TIF_IOC, "FOK": c.TIF_FOK}, "GTC"),
            *_HOW,
            *_TAIL,
            _FEE_MAX,
            _flag("words"),
            _LABEL,
        ),
    ),
    "order_amend": Signed(
        Kind.AMEND,
        (
            *(_ACCOUNT, _instrument(), _SIDE, _PRICE, _SEQ),
            _decimal("new_price", PRICE_DECIMALS, 1, c.U32_MAX, None),
            _LOTS,
            *_HOW,
            *_TAIL,
            _FEE_MAX,
        ),
    ),
    "order_cancel": Signed(Kind.CANCEL, (_ACCOUNT, _instrument(), _SIDE, _PRICE, _SEQ, *_TAIL)),
    "order_cancel_all": Signed(
        Kind.CANCEL_ALL, (_ACCOUNT, _integer("nonce_floor", _U32 - 1, default=0), *_TAIL)
    ),
    "set_signer": Signed(
        Kind.SET_SIGNER,
        (
            _ACCOUNT,
            _address("signer"),
            _integer("scope", c.SCOPE_TRADE | c.SCOPE_WITHDRAW),
            _integer("signer_expires", _U32),
            *_TAIL,
        ),
    ),
    "transfer": Signed(Kind.TRANSFER, (_ACCOUNT, _integer("to", _U32), _AMOUNT, *_TAIL)),
    "withdraw": Signed(Kind.WITHDRAW, (_ACCOUNT, _AMOUNT, *_TAIL)),
    "bid": Signed(
        Kind.BID,
        (
            _ACCOUNT,
            _integer("target", _U32),
            _integer("fraction", 256, low=1),
            _decimal("cash_max", CASH_DECIMALS, -(2**63), 2**63 - 1),
            *_TAIL,
        ),
    ),
}


def _kind(value: Any) -> str:
    if value not in TRANSACTIONS:
        raise ValueError
    return str(value)


_WHOSE: Final = (_integer("account", _U32, None), _address("owner", None))

_ACCESS: Final = (_ACCOUNT, _integer("access_expires", _U32))
_HISTORY: Final = (
    *(*_ACCESS, SIGNATURE),
    _integer("since", _U32, None),
    _integer("until", _U32, None),
    _integer("limit", ROWS_MAX, ROWS, low=1),
    Field("cursor", "the `next` of the previous page", _cursor, None),
)
_OF_ORDERS: Final = (_instrument(None), _integer("order_id", c.U40_MAX, None), _LABEL)

QUERIES: Final[dict[str, tuple[Field, ...]]] = {
    "account": _WHOSE,
    "positions": _WHOSE,
    "book": (_instrument(), _integer("depth", 100, 10, low=1)),
    "instruments": (_flag("expired"), _integer("after", _U32, 0), _PAGE),
    "ticker": (_instrument(),),
    "tickers": (
        Field("underlying", "one of " + ", ".join(UNDERLYINGS), _underlying),
        _integer("expiry", _U32, None),
        _integer("limit", 100, 50, low=1),
        _integer("cursor", _U32, None),
    ),
    "trades": (_instrument(None), _integer("limit", 1000, 100, low=1)),
    "status": (),
    "order": (_SEQ,),
    "orders": (_ACCOUNT, _LABEL, _integer("after", c.U40_MAX, 0), _PAGE),
    "order_history": (
        *(*_HISTORY, *_OF_ORDERS),
        _choice("state", {one.name.lower(): int(one) for one in State}, None),
    ),
    "trade_history": (*_HISTORY, *_OF_ORDERS),
    "settlement_history": (*_HISTORY, _instrument(None)),
    "transaction_log": (*_HISTORY, Field("kind", "one of " + ", ".join(TRANSACTIONS), _kind, None)),
    "outcome": (_ACCOUNT, _integer("nonce", _U32 - 1)),
    "withdrawal": (_integer("number", _U32),),
    "margin_statement": (_ACCOUNT,),
    "system_info": (),
}

HISTORY_ACCESS: Final = "history_access"  # for `typed_data`
METHODS: Final = ("submit", *SIGNED, "typed_data", *QUERIES, "subscribe", "unsubscribe")


def read_fields(
    fields: tuple[Field, ...], params: dict[str, Any], listed: Instruments | None
) -> dict[str, Any]:
    """Values by name, defaults filled in, an instrument's name replaced by its number (if `listed` is given)."""
    values: dict[str, Any] = {}
    taken = 0
    for field in fields:
        value = params.get(field.name, REQUIRED)
        if value is not REQUIRED:
            taken += 1
        elif field.default is REQUIRED:
            raise RequestError(
                Code.INVALID_PARAMS,
                f"{field.name}: is missing; must be {field.limit}",
                field=field.name,
                limit=field.limit,
                got=None,
            )
        elif field.default is None:
            continue
        else:
            value = field.default
        values[field.name] = field.value(value)
    if taken < len(params):
        known = [field.name for field in fields]
        for name, value in params.items():
            if name not in known:
                raise invalid(str(shown(name)), "absent: the fields are " + ", ".join(known), value)
    instrument = values.get("instrument")
    if type(instrument) is str and listed is not None:
        values["instrument"] = listed.number_of(instrument)
    return values


def query_params(method: str, params: dict[str, Any], listed: Instruments) -> dict[str, Any]:
    """Params of a query as they go to the sequencer: instruments as numbers, addresses as lower-case hex.

    A name that is not among `listed` goes as it is: the sequencer knows all that were ever listed.
    """
    values = read_fields(QUERIES[method], params, None)
    if type(values.get("instrument")) is str:
        values["instrument"] = listed.numbers.get(values["instrument"], values["instrument"])
    if method in ("account", "positions") and len(values) != 1:
        raise invalid("account", "given, or owner, but not both", params.get("account"))
    if "owner" in values:
        values["owner"] = "0x" + values["owner"].hex()
    return values


# --- records ------------------------------------------------------------------------------------


def submit_params(raw: msgspec.Raw) -> tuple[bytes, str]:
    """The record's bytes of `submit`, and the order's label ("" without one)."""
    try:
        given = _submit_decoder.decode(raw)
    except DECODE_ERRORS:
        params = parse_params(raw)
        for name in params:
            if name not in ("record", "label"):
                limit = "absent: the fields are record, label"
                raise invalid(str(shown(name)), limit, params[name]) from None
        if type(params.get("record")) is str:
            raise invalid("label", LABEL_LIMIT, params.get("label")) from None
        raise invalid("record", _RECORD_LIMIT, params.get("record")) from None
    text = given.record
    if text[:2] != "0x" or len(text) > 2 * RECORD_BYTES_MAX + 2:
        raise invalid("record", _RECORD_LIMIT, text)
    try:
        record = unhexlify(text[2:])
    except ValueError:
        raise invalid("record", _RECORD_LIMIT, text) from None
    return record, label_beside(record, given.label)


def label_beside(record: bytes, label: str) -> str:
    """`label`, if it may go beside `record`; -32602 otherwise."""
    if label and record[:1] not in _PLACES:
        raise invalid("label", "absent: only a PLACE has one", label)
    try:
        return checked_label(label) if label else ""
    except ValueError:
        raise invalid("label", LABEL_LIMIT, label) from None


def split_frame(data: bytes) -> tuple[bytes, str]:
    """Record and label of a binary frame, without the client's id."""
    size = c.LAYOUT[data[0]][0] if data and data[0] in c.LAYOUT else len(data)
    if len(data) != size + LABEL_BYTES:
        return data, ""
    try:
        label = from_frame(data[size:])
    except (ValueError, UnicodeDecodeError):
        raise invalid("label", LABEL_LIMIT, data[size:].hex()) from None
    return data[:size], label_beside(data[:size], label)


_PLACES: Final = (bytes([Kind.PLACE]), bytes([Kind.PLACE_IN_WORDS]))


_RECORD_LIMIT: Final = f"0x and the record's bytes in hex, at most {RECORD_BYTES_MAX}"


_CLIENT_KIND_NAMES: Final = "one of " + ", ".join(Kind(kind).name for kind in sorted(CLIENT_KINDS))


def check_record(raw: bytes) -> None:
    """Raises RequestError 1001 or 1002 unless these are the bytes of a record that a client may send, signed or not."""
    if raw and raw[0] in c.LAYOUT and raw[0] not in CLIENT_KINDS:
        name = Kind(raw[0]).name
        hint = f"{name} records are created by the sequencer; clients cannot send them"
        raise request_error(Code.NOT_A_CLIENT_RECORD, "kind", _CLIENT_KIND_NAMES, name, hint, kind=name)
    reason = codec.well_formed(raw)
    if reason is not Reason.OK:
        if raw and raw[0] in c.LAYOUT:
            size = c.LAYOUT[raw[0]][0]
            limit, hint = f"{size} bytes", f"a {Kind(raw[0]).name} has {size} bytes with zero padding"
            got = f"{len(raw)} bytes" if len(raw) != size else "padding that is not zero"
        else:
            limit = "a kind's first byte and its fields (docs/PROTOCOL.md, the table of records)"
            hint, got = REFUSALS[reason], f"0x{raw[:1].hex()}"
        raise request_error(Code.MALFORMED, "record", limit, got, hint, reason=reason.name)


def bad_signature(raw: bytes) -> RequestError:
    """The error 1002 of a record whose signer cannot be recovered."""
    hint = "no signer can be recovered (r or s is out of range, or s is in the upper half)"
    limit = "r and s of secp256k1, s in the lower half, as EIP-2098 has them"
    return request_error(Code.BAD_SIGNATURE, "signature", limit, "0x" + raw[-64:].hex(), hint)


def typed_data(params: dict[str, Any], listed: Instruments, chain_id: int, contract: str) -> dict[str, Any]:
    """EIP-712 typed data of `{"method": …, fields}` as eth_signTypedData_v4 takes it; wide integers as strings."""
    fields = dict(params)
    method = fields.pop("method", None)
    if method == HISTORY_ACCESS:
        values = read_fields(_ACCESS, fields, None)
        data = access.typed_data(values["account"], values["access_expires"], chain_id, contract)
    elif isinstance(method, str) and method in SIGNED:
        data = codec.typed_data(SIGNED[method].record(fields, listed, signed=False), chain_id, contract)
    else:
        raise invalid("method", "one of " + ", ".join((*SIGNED, HISTORY_ACCESS)), method)
    domain_type = [
        ("name", "string"),
        ("version", "string"),
        ("chainId", "uint256"),
        ("verifyingContract", "address"),
    ]
    return {
        "domain": data.domain,
        "types": {"EIP712Domain": [{"name": n, "type": t} for n, t in domain_type], **data.types},
        "primaryType": data.primary_type,
        "message": {
            name: str(value) if isinstance(value, int) and abs(value) >= 2**53 else value
            for name, value in data.message.items()
        },
    }
