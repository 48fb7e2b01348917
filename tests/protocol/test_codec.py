"""Records: bytes, fields, and the digests that wallets sign."""

import sys
from pathlib import Path

import pytest
from eth_account import Account as Wallet
from eth_account.messages import _hash_eip191_message, encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.codec import LAYOUTS, Record
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.hashing import keccak

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import DOMAIN, address, examples, key_of

SIGNED = [kind for kind, layout in LAYOUTS.items() if layout.signed]
UNSIGNED = [kind for kind, layout in LAYOUTS.items() if not layout.signed]
CONTRACT = "0x" + "11" * 20


def values(of_type: str) -> st.SearchStrategy[int | bytes]:
    if of_type == "address":
        return st.binary(min_size=20, max_size=20)
    bits = int(of_type.lstrip("uint"))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if of_type[0] == "i" else (0, 2**bits - 1)
    return st.one_of(st.sampled_from([low, high]), st.integers(low, high))


@st.composite
def records(draw: st.DrawFn, kinds: list[int]) -> tuple[Kind, dict[str, int | bytes], bytes]:
    kind = Kind(draw(st.sampled_from(kinds)))
    fields = {name: draw(values(of_type)) for name, of_type in LAYOUTS[kind].fields}
    return kind, fields, codec.encode(kind, **fields)


@settings(max_examples=examples(150))
@given(records(SIGNED))
def test_signing_digest__of_any_signed_record__is_the_wallets(
    case: tuple[Kind, dict[str, int | bytes], bytes],
) -> None:
    _, _, raw = case
    typed = codec.typed_data(raw, 31_337, CONTRACT)
    signable = encode_typed_data(
        full_message={
            "domain": typed.domain,
            "types": {
                "EIP712Domain": [
                    {"name": "name", "type": "string"},
                    {"name": "version", "type": "string"},
                    {"name": "chainId", "type": "uint256"},
                    {"name": "verifyingContract", "type": "address"},
                ],
                **typed.types,
            },
            "primaryType": typed.primary_type,
            "message": typed.message,
        }
    )
    assert codec.signing_digest(raw, DOMAIN) == _hash_eip191_message(signable)


@pytest.mark.parametrize("kind", SIGNED)
def test_typed_data__of_every_signed_kind__is_what_a_wallet_signs(kind: int) -> None:
    """The wallet's own signature, made from the typed data alone, is the record's; negative int64 too."""
    fields = {
        name: bytes(range(20)) if of_type == "address" else -5 if of_type == "int64" else 3
        for name, of_type in LAYOUTS[kind].fields
    }
    raw = codec.encode(Kind(kind), **fields)
    typed = codec.typed_data(raw, 31_337, CONTRACT)
    signed = Wallet.sign_typed_data(
        key_of("trader"),
        typed.domain,
        {name: list(types) for name, types in typed.types.items()},
        typed.message,
    )
    compact = signed.r.to_bytes(32, "big") + (signed.s | (signed.v - 27) << 255).to_bytes(32, "big")
    decoded = codec.decode(raw[:-64] + compact, DOMAIN)
    assert isinstance(decoded, Record)
    assert decoded.signer == address("trader")
    assert raw[:-64] + compact == codec.sign(raw, DOMAIN, key_of("trader"))


def test_type_string__of_place__is_the_documented_one() -> None:
    assert LAYOUTS[Kind.PLACE].type_string == (
        "Place(uint32 account,uint32 instrument,uint8 flags,uint32 price,uint40 quantity,"
        "uint32 nonce,uint32 expires,uint16 feeMax)"
    )
    assert LAYOUTS[Kind.CANCEL_ALL].primary_type == "CancelAll"


@settings(max_examples=examples(200))
@given(records(SIGNED + UNSIGNED))
def test_decode__of_what_was_encoded__gives_the_fields(
    case: tuple[Kind, dict[str, int | bytes], bytes],
) -> None:
    kind, fields, raw = case
    assert len(raw) == c.LAYOUT[kind][0]
    record = codec.decode(raw, DOMAIN, signer=b"s" * 20)
    assert isinstance(record, Record)
    assert record.kind == kind
    assert record.named() == fields
    assert record.signer == (b"s" * 20 if LAYOUTS[kind].signed else None)
    assert codec.encode(kind, *([raw[-64:]] if LAYOUTS[kind].signed else []), **fields) == raw


@settings(max_examples=examples(300))
@given(st.binary(max_size=130))
def test_decode__of_any_bytes__is_a_record_or_a_reason(raw: bytes) -> None:
    answer = codec.decode(raw, DOMAIN)
    if isinstance(answer, Record):
        assert len(raw) == c.LAYOUT[raw[0]][0]
    else:
        assert answer in (Reason.MALFORMED, Reason.UNKNOWN_KIND)


@settings(max_examples=examples(200))
@given(records(SIGNED + UNSIGNED), st.integers(0, 130), st.integers(1, 255))
def test_decode__with_a_byte_of_padding_set__is_malformed(
    case: tuple[Kind, dict[str, int | bytes], bytes], place: int, byte: int
) -> None:
    kind, _, raw = case
    layout = LAYOUTS[kind]
    if layout.padding == 0:
        return
    end = len(raw) - (64 if layout.signed else 0)
    at = end - layout.padding + place % layout.padding
    assert codec.decode(raw[:at] + bytes([byte]) + raw[at + 1 :], DOMAIN) is Reason.MALFORMED


@pytest.mark.parametrize("kind", [*SIGNED, *UNSIGNED])
def test_decode__of_another_length__is_malformed(kind: int) -> None:
    raw = bytes([kind]) + bytes(c.LAYOUT[kind][0] - 1)
    assert isinstance(codec.decode(raw, DOMAIN), Record)
    for wrong in (raw[:-1], raw + b"\0", raw[:1], raw + bytes(31)):
        assert codec.decode(wrong, DOMAIN) is Reason.MALFORMED


def test_decode__of_nothing__is_malformed() -> None:
    assert codec.decode(b"", DOMAIN) is Reason.MALFORMED


@pytest.mark.parametrize("kind", [0x00, 0x07, 0x19, 0x28, 0x2C, 0xFF])
def test_decode__of_a_kind_that_is_reserved__is_unknown(kind: int) -> None:
    assert codec.decode(bytes([kind]) + bytes(30), DOMAIN) is Reason.UNKNOWN_KIND


def test_decode__under_another_domain__gives_another_signer() -> None:
    raw = codec.sign(
        codec.encode(Kind.WITHDRAW, account=1, amount=1, nonce=0, expires=0), DOMAIN, key_of("owner")
    )
    other = codec.decode(raw, codec.domain_separator(1, b"\x11" * 20))
    assert isinstance(other, Record)
    assert other.signer != address("owner")


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        ("quantity", 2**40, "0 to 1099511627775"),
        ("price", -1, "0 to 4294967295"),
        ("flags", 256, "0 to 255"),
        ("fee_max", True, "0 to 65535"),
        ("nonce", 1.5, "0 to 4294967295"),
        ("account", "7", "0 to 4294967295"),
    ],
)
def test_encode__of_a_value_that_does_not_fit__names_field_and_limit(
    field: str, value: object, limit: str
) -> None:
    fields: dict[str, object] = dict.fromkeys((name for name, _ in LAYOUTS[Kind.PLACE].fields), 1)
    with pytest.raises(ValueError, match=rf"^{field} must be an integer from {limit}$"):
        codec.encode(Kind.PLACE, **{**fields, field: value})


def test_encode__of_an_int64_out_of_range__names_its_signed_limits() -> None:
    with pytest.raises(ValueError, match=r"^cash_max must be an integer from -9223372036854775808 to"):
        codec.encode(Kind.BID, account=1, target=2, fraction=1, cash_max=2**63, nonce=0, expires=0)


def test_encode__of_an_address_of_19_bytes__says_so() -> None:
    with pytest.raises(ValueError, match=r"^owner must be 20 bytes$"):
        codec.encode(Kind.DEPOSIT, owner=bytes(19), account=1, amount=1)


def test_encode__with_a_wrong_or_needless_signature__says_so() -> None:
    with pytest.raises(ValueError, match=r"^signature must be 64 bytes$"):
        codec.encode(Kind.WITHDRAW, bytes(63), account=1, amount=1, nonce=0, expires=0)
    with pytest.raises(ValueError, match="TICK is not signed"):
        codec.encode(Kind.TICK, bytes(64), time=1)


def test_encode__with_wrong_names__is_a_type_error() -> None:
    with pytest.raises(TypeError, match="TICK takes"):
        codec.encode(Kind.TICK, when=1)


def test_sign__of_an_unsigned_kind__is_refused() -> None:
    with pytest.raises(ValueError, match="not a record of a signed kind"):
        codec.sign(codec.encode(Kind.TICK, time=1), DOMAIN, key_of("nobody"))
    assert codec.signing_digest(b"", DOMAIN) is None
    with pytest.raises(ValueError, match="not a record of a signed kind"):
        codec.typed_data(codec.encode(Kind.TICK, time=1), 1, CONTRACT)


def test_class__of_a_post_only_place__is_before_takers() -> None:
    base = dict.fromkeys((name for name, _ in LAYOUTS[Kind.PLACE].fields), 1)
    for flags, expected in ((0, 3), (c.FLAG_POST_ONLY, 2), (c.FLAG_REDUCE_ONLY, 3)):
        record = codec.decode(codec.encode(Kind.PLACE, **{**base, "flags": flags}), DOMAIN)
        assert isinstance(record, Record)
        assert codec.class_of(record.raw) == expected


def test_class__of_an_amend__is_before_takers_when_it_cannot_take() -> None:
    base = dict.fromkeys((name for name, _ in LAYOUTS[Kind.AMEND].fields), 1)
    for flags, new_price, expected in ((0, 1, 2), (0, 2, 3), (c.FLAG_POST_ONLY, 2, 2)):
        raw = codec.encode(Kind.AMEND, **{**base, "flags": flags, "new_price": new_price})
        record = codec.decode(raw, DOMAIN)
        assert isinstance(record, Record)
        assert codec.class_of(record.raw) == expected


def test_inbox_hash__is_the_documented_one() -> None:
    assert codec.inbox_hash(bytes(32), bytes(31)) == keccak(bytes(32) + bytes(31) + b"\0")
