"""How long a witness can be, from the widths of the keys alone: whatever a state holds, every segment can be shown.

A path has at most a sibling for each bit of its key: those that tell the types apart, and those below them. So the
length of what a record shows is bounded without any word about how many accounts, pages or orders there are, and the
heaviest segment is a knapsack over the kinds. docs/GAS.md shows the table; `worlds.deepest` comes close to each entry.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from random import Random
from typing import Final

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))

import worlds
from gas_scenes import DeepScript
from runner import ROOT

from sequencer.proof.challenge import message
from sequencer.protocol import constants as c
from sequencer.protocol.cmap import Map
from sequencer.protocol.constants import Kind
from sequencer.protocol.entries import Expiry, Global, Underlying
from sequencer.protocol.params import Params

PAGE: Final = ROOT / "docs" / "GAS.md"
BATCH_VY: Final = ROOT / "contracts" / "lib" / "batch.vy"
READER_VY: Final = ROOT / "contracts" / "exit" / "reader.vy"
MARKS: Final = ("<!-- bounds: begin -->\n", "<!-- bounds: end -->\n")
WITNESS_MAX: Final = 100_000  # of check_segment
PROOF_BYTES_MAX: Final = 8_512  # of DataSourceCalldata; one in blobs is shorter
CALLDATA_MAX: Final = 110_000
CALL_HEAD_BYTES: Final = (
    4 + 11 * 32 + 2 * 32 + 4 * 32 + 4 + 4 * 32
)  # check_segment in challenge, padding aside
MESSAGE_HEAD_BYTES: Final = 32 + 196  # length; selector, root, length and record
WORD: Final = 32

# Bits of a key below its type (docs/PROTOCOL.md, section 3).
WIDTHS: Final = {
    c.KEY_GLOBAL: 0,
    c.KEY_ACCOUNT: 32,
    c.KEY_INSTRUMENT: 4 + 16 + 1 + 31,
    c.KEY_PAGE: 4 + 16 + 7,
    c.KEY_ORDER: 32 + 1 + 32 + 40,
    c.KEY_UNDERLYING: 4,
    c.KEY_EXPIRY: 4 + 16,
    c.KEY_WITHDRAWAL: 32,
    c.KEY_PARAMS: 0,
}
_TYPES: Final = Map.build([(key, 1) for key in WIDTHS])
DEPTHS: Final = {key: len(_TYPES.path(key).siblings) + width for key, width in WIDTHS.items()}
ACCOUNT_WORDS: Final = 4 + c.SIGNERS_MAX + c.POSITIONS_MAX
PAGE_WORDS: Final = 1 + 2 * -(-c.PAGE_ROWS // 8) + 2 * c.PAGE_ROWS


def write(key: int) -> int:
    """Words of a path."""
    return 1 + DEPTHS[key]


def read(key: int, words: int) -> int:
    """Words that show a leaf of so many words; its absence needs fewer."""
    return 1 + words + write(key)


def inline(key: int) -> int:
    """Words that show an inline leaf."""
    return 2 + write(key)


def absent(key: int) -> int:
    """Words that show that an inline leaf, or any order of a side, is not there; a neighbour has key, value and bit."""
    return 4 + write(key)


def insert(key: int) -> int:
    """Words that place a new leaf."""
    return 3 + write(key)


def of_kinds() -> dict[int, int]:
    """Bytes of the longest message about a record of each kind, its length included."""
    account = read(c.KEY_ACCOUNT, ACCOUNT_WORDS)
    touched = account + write(c.KEY_ACCOUNT)
    underlying = read(c.KEY_UNDERLYING, len(Underlying().words()) // WORD)
    # With an account's pages come the underlyings whose indices say whether they are old.
    pages = c.PAGES_MAX * read(c.KEY_PAGE, PAGE_WORDS) + c.UNDERLYINGS * underlying
    expiry = read(c.KEY_EXPIRY, len(Expiry().words()) // WORD)
    order = inline(c.KEY_ORDER)
    # Three steps, each at another's order, a look at what then is best, and what is left rests.
    trade = (
        touched * (1 + c.STEPS_MAX) + pages + order * c.STEPS_MAX + absent(c.KEY_ORDER) + insert(c.KEY_ORDER)
    )
    failed = account * (1 + c.STEPS_MAX) + pages + order * c.STEPS_MAX + absent(c.KEY_ORDER) + touched
    failed += len(Global().words()) // WORD + write(c.KEY_GLOBAL)
    # Of old marks they say which RISK could renew, in as many expiries as there are pages.
    renewable = c.PAGES_MAX * expiry
    of_two = 2 * pages - c.UNDERLYINGS * underlying  # accounts: an underlying is shown once
    refused = pages + renewable
    refused_order = refused + account * (1 + c.STEPS_MAX) + order * c.STEPS_MAX + absent(c.KEY_ORDER)
    pays = touched + pages + insert(c.KEY_WITHDRAWAL)
    listing = underlying + absent(c.KEY_INSTRUMENT) + expiry + read(c.KEY_PAGE, PAGE_WORDS)
    listing += write(c.KEY_EXPIRY) + write(c.KEY_PAGE) + insert(c.KEY_INSTRUMENT)
    own = {
        Kind.TICK: 0,
        Kind.DEPOSIT: touched,
        Kind.FORCED_WITHDRAW: pays + renewable,
        Kind.FORCED_CANCEL_ALL: touched,
        Kind.FORCED_ORDER: max(trade, refused_order),
        Kind.FORCED_LIQUIDATE: touched + pages + renewable,
        # Of the bidder's old pages it asks for all, of the target's for the first.
        Kind.FORCED_BID: max(2 * account + refused, 2 * touched + of_two + expiry),
        Kind.FEED: underlying + write(c.KEY_UNDERLYING),
        Kind.SURFACE: expiry + write(c.KEY_EXPIRY),
        Kind.RISK: read(c.KEY_PAGE, PAGE_WORDS) + underlying + expiry + write(c.KEY_PAGE),
        Kind.LIST: listing,
        Kind.FIX: underlying + expiry + write(c.KEY_EXPIRY),
        Kind.SETTLE: expiry + touched + pages,
        Kind.LIQUIDATE: touched + pages + renewable,
        Kind.COLLECT: touched,
        Kind.SWEEP: order + touched + read(c.KEY_PAGE, PAGE_WORDS),
        Kind.PLACE: trade,
        # An order of several records that fails: GLOBAL and its account at the root before it, and no order rests.
        Kind.CONTINUE: max(trade, failed),
        Kind.CANCEL: order + touched,
        Kind.CANCEL_ALL: touched,
        Kind.SET_SIGNER: touched,
        Kind.TRANSFER: 2 * touched + pages,
        Kind.WITHDRAW: pays,
        Kind.BID: 2 * touched + of_two,
        Kind.AMEND: order + trade,
        Kind.PLACE_IN_WORDS: trade,
    }
    params = len(Params().words()) // WORD
    common = (
        len(Global().words()) // WORD
        + write(c.KEY_GLOBAL)
        + params
        + write(c.KEY_PARAMS)
        + write(c.KEY_GLOBAL)
    )
    return {kind: MESSAGE_HEAD_BYTES + WORD * (common + words) for kind, words in own.items()}


def heaviest_segment() -> tuple[int, list[int]]:
    """Bytes of the longest witness of a segment, and its kinds: an unbounded knapsack over the weights."""
    sizes = of_kinds()
    best: list[tuple[int, list[int]]] = [(0, [])]
    for limit in range(1, c.SEGMENT_WEIGHT_MAX + 1):
        options = [best[-1]]
        for kind, size in sizes.items():
            if (weight := c.LAYOUT[kind][2]) <= limit:
                total, kinds = best[limit - weight]
                options.append((total + size, [*kinds, kind]))
        best.append(max(options, key=lambda one: one[0]))
    return best[-1]


def rendered() -> str:
    """The tables of docs/GAS.md."""
    names = {key: name for name, key in vars(c).items() if name.startswith("KEY_")}
    out = ["| leaf | words | bits of its key | siblings of its path, at most |", "|---|---:|---:|---:|"]
    words = {
        c.KEY_ACCOUNT: ACCOUNT_WORDS,
        c.KEY_PAGE: PAGE_WORDS,
        c.KEY_GLOBAL: len(Global().words()) // WORD,
        c.KEY_PARAMS: len(Params().words()) // WORD,
        c.KEY_UNDERLYING: len(Underlying().words()) // WORD,
        c.KEY_EXPIRY: len(Expiry().words()) // WORD,
    }
    for key, depth in DEPTHS.items():
        out.append(f"| {names[key].removeprefix('KEY_')} | {words.get(key, 1)} | {WIDTHS[key]} | {depth} |")
    out += ["", "| record | weight | bytes of its message, at most |", "|---|---:|---:|"]
    for kind, size in sorted(of_kinds().items(), key=lambda one: -one[1]):
        out.append(f"| {Kind(kind).name} | {c.LAYOUT[kind][2]} | {size:,} |")
    total, kinds = heaviest_segment()
    parts = {kind: kinds.count(kind) for kind in kinds}
    shown = ", ".join(f"{count} {Kind(kind).name}" for kind, count in sorted(parts.items()))
    out.append(f"| **the heaviest segment**: {shown} | {c.SEGMENT_WEIGHT_MAX} | **{total:,}** |")
    return "\n".join(out) + "\n"


def test_bound__of_every_segment__fits_a_challenge() -> None:
    sizes = of_kinds()
    assert set(sizes) == set(c.LAYOUT)
    total, _ = heaviest_segment()
    assert sizes[Kind.BID] + sizes[Kind.TICK] < total <= WITNESS_MAX
    assert f"PROOF_BYTES_MAX: constant(uint256) = {PROOF_BYTES_MAX:_}" in BATCH_VY.read_text()
    assert total + PROOF_BYTES_MAX + CALL_HEAD_BYTES + 3 * 31 <= CALLDATA_MAX


def test_exit__longest_witness_of_each_step__fits() -> None:
    """GLOBAL, PARAMS, the last account, a neighbour; an expiry and its underlying; an account and 12 pages, whole."""
    account = read(c.KEY_ACCOUNT, ACCOUNT_WORDS)
    opened = sum(
        len(words) // WORD + write(key)
        for key, words in ((c.KEY_GLOBAL, Global().words()), (c.KEY_PARAMS, Params().words()))
    )
    sizes = {
        "begin": opened + account + 1 + absent(c.KEY_ACCOUNT),
        "fix": read(c.KEY_EXPIRY, len(Expiry().words()) // WORD)
        + read(c.KEY_UNDERLYING, len(Underlying().words()) // WORD),
        "declare": account + c.PAGES_MAX * read(c.KEY_PAGE, PAGE_WORDS),
    }
    found = re.search(r"WITNESS_BYTES_MAX: constant\(uint256\) = ([\d_]+)", READER_VY.read_text())
    assert found
    bound = int(found[1])
    assert max(sizes.values()) * WORD == sizes["declare"] * WORD == 44_224 <= bound


def test_bid__that_shows_24_pages_of_a_crowded_expiry__fits() -> None:
    """The two largest portfolios that have nothing in common, among the deepest paths; with the TICK before it."""
    world = worlds.deepest(Random(1))
    script = DeepScript(world)
    sizes = of_kinds()
    tick = message(world.witness(b"\x01" + world.globals.time.to_bytes(4, "big") + bytes(26)))
    for scene in script.of_auctions():
        size = sum(len(message(world.witness(raw))) + WORD for raw in scene.records)
        assert size <= sizes[scene.records[0][0]]
        if scene.name.startswith("BID, 24 pages"):
            assert size + len(tick) + WORD <= WITNESS_MAX
            assert size > sizes[Kind.BID] - 4_000  # the accounts are not written
            return
    pytest.fail("no such bid")


def test_message__of_every_scene_in_the_deepest_world__is_within_the_bound() -> None:
    world = worlds.deepest(Random(2))
    sizes = of_kinds()
    nearest: dict[int, float] = {}
    for scene in DeepScript(world).scenes():
        if not scene.name:
            tick = b"\x01" + world.globals.time.to_bytes(4, "big") + bytes(26)
            for raw in scene.records if world.globals.taker else (tick, *scene.records):
                world.witness(raw)
            continue
        if scene.opens:
            world.witness(b"\x01" + world.globals.time.to_bytes(4, "big") + bytes(26))
        total = 0
        for raw in scene.records:
            witness = world.witness(raw)
            size = len(message(witness)) + WORD
            assert size <= sizes[raw[0]], scene.name
            nearest[raw[0]] = max(nearest.get(raw[0], 0), size / sizes[raw[0]])
            total += size
        assert witness.outcome.reason is scene.reason, scene.name
        assert total <= WITNESS_MAX, scene.name
    of_old_marks = (Kind.LIQUIDATE, *c.INBOX_KINDS)  # whose bound counts what only old marks have them show
    executed = [kind for kind in nearest if c.LAYOUT[kind][2] == 31 and kind not in of_old_marks]
    assert min(nearest[kind] for kind in executed) > 0.9  # the bound is no idle one


def test_path__of_a_page_and_of_an_account_in_the_deepest_world__is_as_long_as_its_key() -> None:
    world = worlds.deepest(Random(3))
    page = c.KEY_PAGE | min(one for one in world.accounts[worlds.DEEP_FROM].positions) >> 5
    assert len(world.map.path(page).siblings) == DEPTHS[c.KEY_PAGE]
    assert len(world.map.path(c.KEY_ACCOUNT | worlds.DEEP_FROM).siblings) == DEPTHS[c.KEY_ACCOUNT]
    assert len(world.map.path(c.KEY_EXPIRY | worlds.NEAR).siblings) == DEPTHS[c.KEY_EXPIRY]
    assert len(world.map.path(c.KEY_UNDERLYING).siblings) == DEPTHS[c.KEY_UNDERLYING]


def test_page__shows_the_bounds() -> None:
    text = PAGE.read_text()
    head, rest = text.split(MARKS[0])
    if os.environ.get("FAIRSTRIKE_UPDATE_SNAPSHOTS"):
        PAGE.write_text(head + MARKS[0] + rendered() + MARKS[1] + rest.split(MARKS[1])[1])
    shown = PAGE.read_text().split(MARKS[0])[1].split(MARKS[1])[0]
    assert shown == rendered()
