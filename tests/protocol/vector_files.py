"""Makes the files of docs/vectors: inputs and outputs of the protocol, for those who write it again.

Nothing here is a definition: every number comes from the transition itself. `tests/protocol/test_vectors.py` compares
the files with what this makes, and writes them under FAIRSTRIKE_UPDATE_SNAPSHOTS=1.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "property"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "differential"))

from exchange import DOMAIN, FAR, INDEX, address, key_of, params
from fuzz import signed
from hostile import Adversary, populated

from sequencer.genesis import genesis_state
from sequencer.l1.parameters import to_object
from sequencer.protocol import batch, black76, cmap, codec, risk_array, surface
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind
from sequencer.protocol.transition import apply

CHAIN_ID: Final = 31_337
ROLLUP: Final = "0x" + "11" * 20
DRAWS: Final = 700
SIGNED: Final[dict[Kind, dict[str, int | bytes]]] = {
    Kind.FEED: {"underlying": 1, "feed": 2, "time": 1_728_036_000, "price": 300_000},
    Kind.SURFACE: {
        "underlying": 0,
        "feed": 0,
        "day": FAR,
        "time": 1_728_036_000,
        "forward": INDEX,
        "index": INDEX - 1,
        "a": -1,
        "b": 10**10,
        "rho": -(10**11),
        "m": -(2**40),
        "sigma": 10**11,
    },
    Kind.PLACE: {
        "account": 3,
        "instrument": FAR << 12 | 5,
        "flags": 0x19,
        "price": 345_063,
        "quantity": 10_000,
        "nonce": 7,
        "expires": 1_728_036_060,
        "fee_max": 65_535,
    },
    Kind.CANCEL: {
        "account": 3,
        "instrument": FAR << 12 | 5,
        "side": 1,
        "price": 345_063,
        "seq": 2**39,
        "nonce": 8,
        "expires": 0,
    },
    Kind.CANCEL_ALL: {"account": 3, "nonce_floor": 300, "nonce": 9, "expires": 0},
    Kind.SET_SIGNER: {
        "account": 3,
        "signer": address("session"),
        "scope": 3,
        "signer_expires": 2_000_000_000,
        "nonce": 10,
        "expires": 0,
    },
    Kind.TRANSFER: {"account": 3, "to": 4, "amount": 2**63, "nonce": 11, "expires": 0},
    Kind.WITHDRAW: {"account": 3, "amount": 1, "nonce": 12, "expires": 0},
    Kind.BID: {"account": 3, "target": 4, "fraction": 64, "cash_max": -(2**62), "nonce": 13, "expires": 0},
    Kind.PLACE_IN_WORDS: {
        "account": 3,
        "instrument": FAR << 12 | 5,
        "flags": 0x39,
        "price": 345_063,
        "quantity": 15_000,
        "nonce": 15,
        "expires": 1_728_036_060,
        "fee_max": 1_234,
        "terms": 1 << 31 | 5_000_050,
    },
    Kind.AMEND: {
        "account": 3,
        "instrument": FAR << 12 | 5,
        "flags": 0x19,
        "price": 345_063,
        "seq": 2**39,
        "new_price": 345_064,
        "quantity": 2**40 - 1,
        "nonce": 14,
        "expires": 1_728_036_060,
        "fee_max": 65_535,
    },
}


def files() -> dict[str, Any]:
    """{name: object}: what docs/vectors holds."""
    run = day()
    return {
        "digests": digests(),
        "genesis": genesis(),
        "map": crit_bit_map(),
        "numbers": numbers(),
        "rows": rows(),
        "records": run,
        "payload": payload(run),
    }


def hexed(data: bytes) -> str:
    """0x-prefixed."""
    return "0x" + data.hex()


def digests() -> dict[str, Any]:
    """EIP-712: one record of every signed kind."""
    key = key_of("trader")
    out = []
    for kind, fields in SIGNED.items():
        layout = codec.LAYOUTS[kind]
        raw = codec.sign(codec.encode(kind, **fields), DOMAIN, key)
        digest = codec.signing_digest(raw, DOMAIN)
        assert digest is not None
        record = codec.decode(raw, DOMAIN)
        assert isinstance(record, codec.Record)
        named = {name: hexed(value) if isinstance(value, bytes) else value for name, value in fields.items()}
        out.append(
            {
                "kind": kind.name,
                "fields": named,
                "message": layout.message(record.fields),
                "type": layout.type_string,
                "type_hash": hexed(layout.type_hash),
                "digest": hexed(digest),
                "record": hexed(raw),
            }
        )
    return {
        "chain_id": CHAIN_ID,
        "verifying_contract": ROLLUP,
        "domain_separator": hexed(DOMAIN),
        "private_key": hexed(key),
        "signer": hexed(address("trader")),
        "records": out,
    }


def genesis() -> dict[str, Any]:
    """Parameters, every leaf of the empty exchange, its root."""
    chosen = params()
    state = genesis_state(DOMAIN, chosen)
    return {
        "params": to_object(chosen),
        "params_words": words(chosen.words()),
        "leaves": leaves(state),
        "root": hexed(state.root()),
    }


def words(data: bytes) -> list[str]:
    """Words of 32 bytes."""
    return [hexed(data[at : at + 32]) for at in range(0, len(data), 32)]


def leaves(state: Any) -> list[dict[str, Any]]:
    """Key, words (one, the value itself, where the value is inline) and value of every leaf, by key."""
    state.root()  # writes what is pending
    values = dict(state.map.items())
    return [
        {
            "key": hexed(key.to_bytes(32, "big")),
            "value": hexed(values[key].to_bytes(32, "big")),
            "words": words(data),
        }
        for key, data in sorted(state.preimages())
    ]


def crit_bit_map() -> list[dict[str, Any]]:
    """Maps of growing size: entries, root, a path, and the neighbour that shows a key's absence."""
    draw = Random(9)
    out: list[dict[str, Any]] = []
    for size in (0, 1, 2, 3, 7, 20):
        tree = cmap.Map()
        entries = {}
        for _ in range(size):
            key = draw.getrandbits(256) if draw.random() < 0.5 else draw.getrandbits(6)
            entries[key] = draw.getrandbits(256)
            tree.put(key, entries[key])
        absent = next(key for key in iter(lambda: draw.getrandbits(7), None) if key not in entries)
        one: dict[str, Any] = {
            "entries": [
                [hexed(k.to_bytes(32, "big")), hexed(v.to_bytes(32, "big"))] for k, v in entries.items()
            ],
            "root": hexed(tree.root()),
            "absent": hexed(absent.to_bytes(32, "big")),
            "neighbour_words": [
                hexed(word.to_bytes(32, "big")) for word in tree.absence_witness(absent).words()
            ],
        }
        if entries:
            present = min(entries)
            one["present"] = hexed(present.to_bytes(32, "big"))
            one["path_words"] = [hexed(word.to_bytes(32, "big")) for word in tree.path(present).words()]
        out.append(one)
    return out


def numbers() -> dict[str, list[list[int]]]:
    """The integer functions: [arguments …, result]. Fixed point as in docs/RISK.md."""
    draw = Random(11)
    pairs = [(1, 1), (1, c.U32_MAX), (c.U32_MAX, 1), (3, 2), (181, 256)]
    pairs += [
        (draw.randint(1, 2 ** draw.randint(1, 32) - 1 or 1), draw.randint(1, c.U32_MAX)) for _ in range(60)
    ]
    variances = [0, 1, 2, 10**6, black76.W_MAX] + [draw.randint(1, black76.W_MAX) for _ in range(30)]
    powers = [0, 1, black76.LN2_Q56 >> 1, black76.LN2_Q56, 60 << 56] + [
        draw.randint(0, 60 << 56) for _ in range(30)
    ]
    tails = [0, 1, black76.HART_SPLIT_Q56 - 1, black76.HART_SPLIT_Q56, 32 << 56]
    tails += [draw.randint(0, 12 << 56) for _ in range(30)]
    values = [(0, 0), (0, 1), (32 << 56, 1), (0, black76.STDEV_MAX_Q56)]
    values += [(draw.randint(0, 2 << 56), draw.randint(1, 3 << 56)) for _ in range(60)]
    shapes = [surface.Surface(0, 0, 0, 0, 1)] + [
        surface.Surface(
            draw.randint(-(10**10), 10**12),
            draw.randint(0, 10**12),
            draw.randint(-(10**12), 10**12),
            draw.randint(-(10**12), 10**12),
            draw.randint(1, 10**12),
        )
        for _ in range(40)
    ]
    prices = [(INDEX, draw.randint(INDEX // 2, INDEX * 2)) for _ in shapes]
    return {
        "ln_ratio_q56": [[a, b, black76.ln_ratio_q56(a, b)] for a, b in pairs],
        "stdev_q56": [[one, black76.stdev_q56(one)] for one in variances],
        "exp_neg_q56": [[one, black76.exp_neg_q56(one)] for one in powers],
        "hart_ratio_q56": [[one, black76.hart_ratio_q56(one)] for one in tails],
        "time_value_q56": [[h, s, black76.time_value_q56(h, s)] for h, s in values],
        "svi_a_b_rho_m_sigma_forward_strike_variance_e12": [
            [s.a_e12, s.b_e12, s.rho_e12, s.m_e12, s.sigma_e12, f, k, surface.variance_e12(s, f, k)]
            for s, (f, k) in zip(shapes, prices, strict=True)
        ],
        "svi_a_b_rho_m_sigma_is_sound": [
            [s.a_e12, s.b_e12, s.rho_e12, s.m_e12, s.sigma_e12, int(surface.is_sound(s))]
            for s in (*shapes, *(at_the_edge(s, step) for s in shapes[1:9] for step in (0, -1)))
        ],
    }


def at_the_edge(shape: surface.Surface, step: int) -> surface.Surface:
    """The shape with its least variance at `step`, and its steeper wing at Lee's bound where it was beyond."""
    steepest = 2 * 10**24 // (10**12 + abs(shape.rho_e12))
    shape = replace(shape, b_e12=min(shape.b_e12, steepest))
    return replace(shape, a_e12=step - surface.bend_e12(shape))


def rows() -> list[dict[str, Any]]:
    """Risk rows of both underlyings' default shocks: mark and 16 P&Ls, ticks."""
    draw = Random(13)
    out = []
    for number in range(40):
        underlying = number % 2
        shocks = params().shocks(underlying)
        forward = (INDEX, 300_000)[underlying] + draw.randint(-(10**4), 10**4)
        strike = forward * draw.choice((50, 90, 100, 103, 200)) // 100
        remaining_s = draw.choice((60, 21_600, 21_601, 86_400, 604_800, 2_592_000, 15_552_000))
        variance = draw.randint(1, 10 ** draw.randint(3, 12))
        is_put = bool(draw.getrandbits(1))
        left = shocks.left(remaining_s)
        mark, pnl = risk_array.scenarios(forward, strike, is_put, variance, shocks, left)
        out.append(
            {
                "underlying": underlying,
                "forward": forward,
                "strike": strike,
                "is_put": is_put,
                "variance_e12": variance,
                "remaining_s": remaining_s,
                "left_ppm": list(left),
                "mark": mark,
                "pnl": list(pnl),
            }
        )
    return out


def day() -> dict[str, Any]:
    """Records from genesis on: trading between a few accounts, and whatever an adversary sends, no-ops included."""
    source = populated()
    draw = Random(5)
    adversary = Adversary(source, draw)
    state = genesis_state(DOMAIN, source.state.params)
    out = []

    def take(raw: bytes) -> None:
        outcome = apply(state, raw)
        out.append(
            {
                "record": hexed(raw),
                "reason": outcome.reason.name,
                "code": int(outcome.reason),
                "root": hexed(state.root()),
            }
        )

    for raw in source.applied:
        take(raw)
    source.state = state
    for number in range(DRAWS):
        for raw, signer in adversary.keep_going() if number % 40 == 39 else [adversary.draw()]:
            take(signed(raw, signer))
    return {
        "genesis": to_object(state.params),
        "domain_separator": hexed(DOMAIN),
        "records": out,
        "leaves": leaves(state),
    }


def payload(run: dict[str, Any]) -> dict[str, Any]:
    """The first well-formed records of `day`, a segment each, as a batch; and a chain of inbox hashes."""
    segments = []
    running, count = bytes(32), 0
    for one in run["records"]:
        raw = bytes.fromhex(one["record"][2:])
        if len(raw) % c.ELEMENT_BYTES or not raw:
            continue
        segments.append(batch.Segment(bytes.fromhex(one["root"][2:]), (raw,)))
        if len(segments) == 40:
            break
    messages = []
    for kind, fields in (
        (Kind.DEPOSIT, {"owner": address("trader"), "account": 1, "amount": 10**7}),
        (Kind.FORCED_CANCEL_ALL, {"account": 1}),
        (Kind.FORCED_WITHDRAW, {"account": 1, "amount": 0}),
    ):
        raw = codec.encode(kind, **fields)
        running, count = codec.inbox_hash(running, raw), count + 1
        messages.append({"record": hexed(raw), "hash": hexed(running), "count": count})
    ticks = sum(batch.ticks_in(one.records) for one in segments)
    ids = [bytes([number]) * c.ELEMENT_BYTES for number in range(1, ticks + 1)]
    data = batch.encode(segments, ids)
    return {
        "segments": [
            {"root": hexed(one.root), "records": [hexed(raw) for raw in one.records]} for one in segments
        ],
        "ids": list(map(hexed, ids)),
        "payload": hexed(data),
        "data_root": hexed(batch.data_root(data)),
        "inbox": messages,
    }
