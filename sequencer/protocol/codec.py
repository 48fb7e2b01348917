"""Records: bytes to fields and back, and the EIP-712 digest that each signed kind is signed by.

A record is 31 x k bytes: the kind, the fields big-endian without gaps, zero padding, and for a signed kind the
64-byte compact signature (EIP-2098) at the end. Decoding is total: what is not a well-formed record is a
`Reason`, never an exception. Layouts: docs/PROTOCOL.md section 4.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

from sequencer.protocol import constants as c
from sequencer.protocol import order_text
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.hashing import keccak, recover
from sequencer.protocol.hashing import sign as sign_digest

DOMAIN_TYPE_HASH: Final = keccak(
    b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
DOMAIN_NAME: Final = "Fairstrike"
DOMAIN_VERSION: Final = "1"

# solidity type -> (struct codes, how many struct values, bytes)
_TYPES: Final = {
    "uint8": ("B", 1),
    "uint16": ("H", 2),
    "uint32": ("I", 4),
    "uint40": ("BI", 5),
    "uint48": ("HI", 6),
    "uint64": ("Q", 8),
    "int64": ("q", 8),
    "address": ("20s", 20),
}


def field_bytes(of_type: str) -> int:
    """Bytes of a field of this solidity type."""
    return _TYPES[of_type][1]


def domain_separator(chain_id: int, verifying_contract: bytes) -> bytes:
    """EIP-712 domain separator of an exchange: chain id, 20-byte address of its Rollup."""
    return keccak(
        DOMAIN_TYPE_HASH
        + keccak(DOMAIN_NAME.encode())
        + keccak(DOMAIN_VERSION.encode())
        + chain_id.to_bytes(32, "big")
        + b"\0" * 12
        + verifying_contract
    )


class Layout:
    """Where the fields of one kind stand. `fields` are (name, solidity type); widths follow from the type."""

    __slots__ = (
        "digest_struct",
        "fields",
        "kind",
        "members",
        "padding",
        "primary_type",
        "signed",
        "signed_ints",
        "size",
        "struct",
        "type_hash",
        "type_string",
        "wide",
    )

    def __init__(self, kind: Kind, fields: tuple[tuple[str, str], ...], signed: bool) -> None:
        self.kind = kind
        self.fields = fields
        self.signed = signed
        self.size = c.LAYOUT[kind][0]
        codes = "".join(_TYPES[kind_of_field][0] for _, kind_of_field in fields)
        used = 1 + sum(_TYPES[kind_of_field][1] for _, kind_of_field in fields)
        self.padding = self.size - used - (c.SIGNATURE_BYTES if signed else 0)
        assert self.padding >= 0
        tail = f"{self.padding}s" + (f"{c.SIGNATURE_BYTES}s" if signed else "")
        self.struct = Struct(">B" + codes + tail)
        assert self.struct.size == self.size
        self.primary_type = kind.name.title().replace("_", "")
        self.members = tuple((_camel(name), of_type) for name, of_type in fields)  # of the typed data
        members = ",".join(f"{of_type} {name}" for name, of_type in self.members)
        self.type_string = f"{self.primary_type}({members})"
        self.type_hash = keccak(self.type_string.encode())
        words = ""
        self.wide: list[int] = []  # positions of the high part of values that struct reads in two
        self.signed_ints: list[int] = []
        position = 0
        for _, of_type in fields:
            code, size = _TYPES[of_type]
            words += f"{32 - size}x{code}"
            if of_type == "int64":
                self.signed_ints.append(position)
            if len(code) == 2 and code != "20s":
                self.wide.append(position)
                position += 1
            position += 1
        self.digest_struct = Struct(">32s" + words)

    def merge(self, values: tuple[int | bytes, ...]) -> tuple[int | bytes, ...]:
        """Joins the halves of 40- and 48-bit values that struct has read in two."""
        for at in reversed(self.wide):
            joined = values[at] << 32 | values[at + 1]  # type: ignore[operator]  # both are ints here
            values = (*values[:at], joined, *values[at + 2 :])
        return values

    def split(self, values: tuple[int | bytes, ...]) -> tuple[int | bytes, ...]:
        """Inverse of `merge`."""
        out: list[int | bytes] = []
        for (_, of_type), value in zip(self.fields, values, strict=True):
            if of_type in ("uint40", "uint48"):
                assert isinstance(value, int)
                out += [value >> 32, value & c.U32_MAX]
            else:
                out.append(value)
        return tuple(out)

    def struct_hash(self, values: tuple[int | bytes, ...]) -> bytes:
        """EIP-712 hashStruct of split values."""
        packed = self.digest_struct.pack(self.type_hash, *values)
        if self.signed_ints:
            data = bytearray(packed)
            for index, (_, of_type) in enumerate(self.fields):
                if of_type == "int64" and data[32 * (index + 1) + 24] & 0x80:
                    data[32 * (index + 1) : 32 * (index + 1) + 24] = b"\xff" * 24
            packed = bytes(data)
        return keccak(packed)

    def message(self, values: tuple[int | bytes, ...]) -> dict[str, int | str]:
        """Members of the typed data and their values, from merged values."""
        shown = ("0x" + value.hex() if isinstance(value, bytes) else value for value in values)
        return dict(zip((name for name, _ in self.members), shown, strict=True))


class InWords(Layout):
    """PLACE_IN_WORDS: what is signed is a text that follows from the fields."""

    __slots__ = ()

    def __init__(self, kind: Kind, fields: tuple[tuple[str, str], ...], signed: bool) -> None:
        super().__init__(kind, fields, signed)
        self.members = order_text.MEMBERS
        self.primary_type, self.type_string = "Order", order_text.TYPE_STRING
        self.type_hash = order_text.TYPE_HASH

    def struct_hash(self, values: tuple[int | bytes, ...]) -> bytes:
        """EIP-712 hashStruct of split values."""
        return order_text.struct_hash(self.merge(values))  # type: ignore[arg-type]  # none is an address

    def message(self, values: tuple[int | bytes, ...]) -> dict[str, int | str]:
        """The order in words, account and nonce."""
        return order_text.message(values)  # type: ignore[arg-type]  # likewise


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.title() for part in tail)


def _layouts() -> dict[int, Layout]:
    u8, u16, u32, u40, u48, u64, i64 = "uint8", "uint16", "uint32", "uint40", "uint48", "uint64", "int64"
    expiry = (("underlying", u8), ("day", u16))
    tail = (("nonce", u32), ("expires", u32))
    table: tuple[tuple[Kind, tuple[tuple[str, str], ...], bool], ...] = (
        (Kind.TICK, (("time", u32),), False),
        (Kind.DEPOSIT, (("owner", "address"), ("account", u32), ("amount", u48)), False),
        (Kind.FORCED_WITHDRAW, (("account", u32), ("amount", u64)), False),
        (Kind.FORCED_CANCEL_ALL, (("account", u32),), False),
        (
            Kind.FORCED_ORDER,
            (
                *(("account", u32), ("instrument", u32), ("flags", u8), ("price", u32), ("quantity", u40)),
                *(("expires", u32), ("fee_max", u16)),
            ),
            False,
        ),
        (Kind.FORCED_LIQUIDATE, (("account", u32),), False),
        (
            Kind.FORCED_BID,
            (("account", u32), ("target", u32), ("fraction", u16), ("cash_max", i64)),
            False,
        ),
        (Kind.FEED, (("underlying", u8), ("feed", u8), ("time", u32), ("price", u32)), True),
        (
            Kind.SURFACE,
            (
                *(("underlying", u8), ("feed", u8), ("day", u16)),
                *(("time", u32), ("forward", u32), ("index", u32)),
                *((name, i64) for name in ("a", "b", "rho", "m", "sigma")),
            ),
            True,
        ),
        (Kind.RISK, (*expiry, ("page", u8)), False),
        (Kind.LIST, (*expiry, ("put", u8), ("strike", u32)), False),
        (Kind.FIX, expiry, False),
        (Kind.SETTLE, (*expiry, ("account", u32)), False),
        (Kind.LIQUIDATE, (("account", u32),), False),
        (Kind.COLLECT, (), False),
        (Kind.SWEEP, (("instrument", u32), ("side", u8), ("price", u32), ("seq", u40)), False),
        (
            Kind.PLACE,
            (
                *(("account", u32), ("instrument", u32), ("flags", u8), ("price", u32), ("quantity", u40)),
                *tail,
                ("fee_max", u16),
            ),
            True,
        ),
        (Kind.CONTINUE, (), False),
        (
            Kind.CANCEL,
            (("account", u32), ("instrument", u32), ("side", u8), ("price", u32), ("seq", u40), *tail),
            True,
        ),
        (Kind.CANCEL_ALL, (("account", u32), ("nonce_floor", u32), *tail), True),
        (
            Kind.SET_SIGNER,
            (("account", u32), ("signer", "address"), ("scope", u8), ("signer_expires", u32), *tail),
            True,
        ),
        (Kind.TRANSFER, (("account", u32), ("to", u32), ("amount", u64), *tail), True),
        (Kind.WITHDRAW, (("account", u32), ("amount", u64), *tail), True),
        (
            Kind.BID,
            (("account", u32), ("target", u32), ("fraction", u16), ("cash_max", i64), *tail),
            True,
        ),
        (
            Kind.AMEND,
            (
                *(("account", u32), ("instrument", u32), ("flags", u8), ("price", u32), ("seq", u40)),
                *(("new_price", u32), ("quantity", u40)),
                *tail,
                ("fee_max", u16),
            ),
            True,
        ),
    )
    out: dict[int, Layout] = {kind: Layout(kind, fields, signed) for kind, fields, signed in table}
    terms = (*out[Kind.PLACE].fields, ("terms", u32))
    return {**out, Kind.PLACE_IN_WORDS: InWords(Kind.PLACE_IN_WORDS, terms, True)}


LAYOUTS: Final = _layouts()
_ORDERS: Final = (Kind.PLACE, Kind.AMEND, Kind.PLACE_IN_WORDS)  # whose flags stand in byte 9


class Record:
    """A decoded record. `signer` is the recovered address (20 bytes) or None: unsigned, or not recoverable."""

    __slots__ = ("fields", "kind", "raw", "signer")

    def __init__(self, raw: bytes, kind: int, fields: tuple[Any, ...], signer: bytes | None) -> None:
        self.raw = raw
        self.kind = kind
        self.fields = fields
        self.signer = signer

    def named(self) -> dict[str, int | bytes]:
        """Fields by name, for people and JSON."""
        return dict(zip((name for name, _ in LAYOUTS[self.kind].fields), self.fields, strict=True))


def decode(raw: bytes, domain: bytes, signer: bytes | None = None) -> Record | Reason:
    """Bytes to a record, or the reason why they are none (MALFORMED, UNKNOWN_KIND).

    `signer`, when given, is trusted to be what recovery of this very record yields (the gateway has done it).
    """
    if not raw:
        return Reason.MALFORMED
    layout = LAYOUTS.get(raw[0])
    if layout is None:
        return Reason.UNKNOWN_KIND
    if len(raw) != layout.size:
        return Reason.MALFORMED
    values = layout.struct.unpack(raw)
    if layout.signed:
        if any(values[-2]):
            return Reason.MALFORMED
        body = values[1:-2]
        if signer is None:
            digest = keccak(b"\x19\x01" + domain + layout.struct_hash(body))
            signer = recover(digest, values[-1])
    else:
        if any(values[-1]):
            return Reason.MALFORMED
        body = values[1:-1]
        signer = None
    return Record(raw, layout.kind, layout.merge(body), signer)


def well_formed(raw: bytes) -> Reason:
    """OK for the bytes of a record, whoever has signed it; else MALFORMED or UNKNOWN_KIND."""
    if not raw:
        return Reason.MALFORMED
    layout = LAYOUTS.get(raw[0])
    if layout is None:
        return Reason.UNKNOWN_KIND
    end = layout.size - c.SIGNATURE_BYTES if layout.signed else layout.size
    if len(raw) != layout.size or any(raw[end - layout.padding : end]):
        return Reason.MALFORMED
    return Reason.OK


def signing_digest(raw: bytes, domain: bytes) -> bytes | None:
    """EIP-712 digest of a signed record's bytes (signature ignored); None when it is not a signed kind's."""
    layout = LAYOUTS.get(raw[0]) if raw else None
    if layout is None or not layout.signed or len(raw) != layout.size:
        return None
    return keccak(b"\x19\x01" + domain + layout.struct_hash(layout.struct.unpack(raw)[1:-2]))


def encode(kind: Kind, signature: bytes | None = None, /, **fields: int | bytes) -> bytes:
    """Fields to bytes. A signed kind without `signature` gets 64 zero bytes in its place.

    Raises ValueError naming the field and its limit when a value does not fit, TypeError on wrong names.
    """
    layout = LAYOUTS[kind]
    names = [name for name, _ in layout.fields]
    if sorted(names) != sorted(fields):
        raise TypeError(f"{kind.name} takes {names}, got {sorted(fields)}")
    given: dict[str, Any] = {**fields}  # of any type, whatever the signature says
    for name, of_type in layout.fields:
        check_field(name, of_type, given[name])
    if signature is not None and len(signature) != c.SIGNATURE_BYTES:
        raise ValueError(f"signature must be {c.SIGNATURE_BYTES} bytes")
    if signature is not None and not layout.signed:
        raise ValueError(f"signature: {kind.name} is not signed")
    body = layout.split(tuple(fields[name] for name in names))
    tail: tuple[bytes, ...] = (b"",)
    if layout.signed:
        tail = (b"", signature if signature is not None else bytes(c.SIGNATURE_BYTES))
    return layout.struct.pack(int(kind), *body, *tail)


def check_field(name: str, of_type: str, value: object) -> None:
    """Raises ValueError naming the field and its limit when `value` does not fit the solidity type."""
    if of_type == "address":
        if not isinstance(value, bytes) or len(value) != 20:
            raise ValueError(f"{name} must be 20 bytes")
        return
    bits = int(of_type.lstrip("uint"))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if of_type[0] == "i" else (0, 2**bits - 1)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} must be an integer from {low} to {high}")


def sign(raw: bytes, domain: bytes, private_key: bytes) -> bytes:
    """The record with its signature by `private_key` put in."""
    digest = signing_digest(raw, domain)
    if digest is None:
        raise ValueError("not a record of a signed kind")
    return raw[: -c.SIGNATURE_BYTES] + sign_digest(digest, private_key)


def class_of(raw: bytes) -> int:
    """Class inside its tick of a record of its kind's length: 0 system, 1 cancels, 2 orders that cannot take, 3 the
    others.
    """
    kind = raw[0]
    if kind in _ORDERS and raw[9] & c.FLAG_POST_ONLY:
        return c.CLASS_POST_ONLY
    if kind == Kind.AMEND and raw[10:14] == raw[19:23]:  # where it rests, an order crosses nothing
        return c.CLASS_POST_ONLY
    return c.LAYOUT[kind][1]


@dataclass(frozen=True, slots=True)
class TypedData:
    """What a wallet shows and signs for a record: EIP-712 domain, types and message."""

    domain: dict[str, object]
    types: dict[str, list[dict[str, str]]]
    primary_type: str
    message: dict[str, int | str]


def typed_data(raw: bytes, chain_id: int, verifying_contract: str) -> TypedData:
    """EIP-712 typed data of a signed kind's record, as `eth_signTypedData_v4` takes it."""
    record = decode(raw, b"", signer=b"")
    if isinstance(record, Reason) or not LAYOUTS[record.kind].signed:
        raise ValueError("not a record of a signed kind")
    layout = LAYOUTS[record.kind]
    return TypedData(
        domain={
            "name": DOMAIN_NAME,
            "version": DOMAIN_VERSION,
            "chainId": chain_id,
            "verifyingContract": verifying_contract,
        },
        types={layout.primary_type: [{"name": n, "type": t} for n, t in layout.members]},
        primary_type=layout.primary_type,
        message=layout.message(record.fields),
    )


def inbox_hash(previous: bytes, record: bytes) -> bytes:
    """Running hash of the L1 inbox after one more 31-byte record."""
    return keccak(previous + record + b"\0")
