# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Settlement prices of the exit
@license MIT
@notice The exit state's own where it has one, else the feeds' reports, else its last index; each expiry once.
@custom:security Of a feed the earliest report of a day counts, so that nobody has a choice among them; a majority of
        the feeds prices what the exit state has not.
@custom:kill Nobody has any privilege beyond the feeds' keys in the exit state.
"""

from lib import codec
from lib import constants
from lib import kind
from lib import reason
from lib import state

from . import pinned
from . import reader

uses: pinned
uses: reader
uses: state

KNOWN: constant(uint256) = 2**32  # added to a price that is fixed: 0 is a price too
FEED_TYPE: constant(bytes32) = keccak256("Feed(uint8 underlying,uint8 feed,uint32 time,uint32 price)")
FIRST_SNAPSHOT: constant(uint256) = 6  # word of UNDERLYING


event Reported:
    underlying: indexed(uint256)
    day: indexed(uint256)
    feed: uint256
    time: uint256
    price: uint256


event Fixed:
    underlying: indexed(uint256)
    day: indexed(uint256)
    price: uint256


# expiry << 3 | feed -> time << 32 | price of its earliest report from 08:00 on. Written by report; "earliest" leaves
# nobody a choice among a feed's reports.
_reports: HashMap[uint256, uint256]
# expiry -> KNOWN + settlement price, 0: not fixed. Written by fix, once.
_prices: HashMap[uint256, uint256]


@external
def report(record: Bytes[93]):
    """
    @notice Takes a feed's signed FEED record whose time is at or after 08:00 of a day: a price for the expiries of that day.
    @dev Of each feed the earliest such report counts. Reports can be brought until the price is fixed.
    """
    self._report(len(record))


@internal
def _report(length: uint256):
    assert pinned.root != empty(bytes32), "exit: not begun"
    reader._check_canonical(4, 32)
    of_kind: uint256 = 0
    why: uint256 = 0
    assert length == 93, "exit: not a report"
    of_kind, why = codec._decode(length)
    assert why == reason.OK and of_kind == kind.FEED, "exit: not a report"
    underlying: uint256 = codec._field(1, 1)
    feed: uint256 = codec._field(2, 1)
    time: uint256 = codec._field(3, 4)
    price: uint256 = codec._field(7, 4)
    assert feed < constants.FEEDS_MAX and pinned.feed_keys[feed] != 0, "exit: no such feed"
    digest: bytes32 = keccak256(abi_encode(FEED_TYPE, underlying, feed, time, price))
    assert codec._signer(pinned.DOMAIN, digest, codec.BODY_93) == pinned.feed_keys[feed], "exit: not the feed's signature"
    assert price > 0, "exit: price is zero"
    assert time <= block.timestamp, "exit: report of the future"
    assert time >= constants.EXPIRY_OF_DAY_S, "exit: report outside the window"
    day: uint256 = (time - constants.EXPIRY_OF_DAY_S) // constants.DAY_S
    assert time - state._expiry_time(day) <= pinned.report_window_s, "exit: report outside the window"
    expiry: uint256 = (underlying << 16) | day
    assert self._prices[expiry] == 0, "exit: fixed already"
    slot: uint256 = (expiry << 3) | feed
    assert self._reports[slot] == 0 or time < self._reports[slot] >> 32, "exit: not an earlier report"

    self._reports[slot] = (time << 32) | price
    log Reported(underlying=underlying, day=day, feed=feed, time=time, price=price)


@external
def fix(underlying: uint256, day: uint256, witness: Bytes[reader.WITNESS_BYTES_MAX]) -> uint256:
    """
    @notice Fixes the settlement price of an expiry, once: the exit state's own if it was fixed there; else the TWAP of
            its snapshots if both were taken; else the median of the reports of a majority of the feeds; else, after
            `pinned.silence_s` more, the exit state's last index.
    @param witness EXPIRY leaf; UNDERLYING leaf, unless the expiry is fixed there.
    @return The price, ticks.
    """
    return self._fix(underlying, day)


@internal
def _fix(underlying: uint256, day: uint256) -> uint256:
    reader._read(pinned.root, 132, 68)
    assert underlying < 16 and day <= constants.U16_MAX, "exit: no such expiry"
    expiry: uint256 = (underlying << 16) | day
    assert self._prices[expiry] == 0, "exit: fixed already"
    words: DynArray[uint256, state.LEAF_WORDS_MAX] = state._load(constants.KEY_EXPIRY | expiry)
    assert len(words) != 0, "exit: no such expiry"
    price: uint256 = 0
    if (words[0] >> 16) & 255 != 0:
        price = (words[0] >> 24) & constants.U32_MAX
    else:
        words = state._load(constants.KEY_UNDERLYING | underlying)  # exists: the expiry does
        snapshot: uint256 = words[unsafe_add(FIRST_SNAPSHOT, day & 3)]
        if snapshot >> 130 == day and (snapshot >> 128) & 3 == 3:
            # as FIX (settlement.vy): half up
            elapsed: uint256 = unsafe_sub(snapshot >> 64, snapshot) & constants.U64_MAX
            price = min((2 * elapsed + constants.TWAP_S) // (2 * constants.TWAP_S), constants.U32_MAX)
        else:
            price = self._reported(expiry, words[0] & constants.U32_MAX)
    reader._read_all(132)

    self._prices[expiry] = KNOWN + price
    log Fixed(underlying=underlying, day=day, price=price)
    return price


@internal
@view
def _reported(expiry: uint256, index: uint256) -> uint256:
    """
    @notice Price of an expiry that the exit state has none of: median of the feeds (the mean of the middle two, floor,
            as for the index), or `index` when they have been silent for long.
    """
    closes: uint256 = state._expiry_time(expiry & constants.U16_MAX) + pinned.report_window_s
    ready: uint256 = max(closes, pinned.begun_at) + pinned.report_delay_s
    assert block.timestamp >= ready, "exit: too early"
    feeds: uint256 = 0
    found: uint256 = 0
    prices: uint256[constants.FEEDS_MAX] = empty(uint256[constants.FEEDS_MAX])
    for feed: uint256 in range(constants.FEEDS_MAX):
        if pinned.feed_keys[feed] == 0:
            continue
        feeds += 1
        price: uint256 = self._reports[(expiry << 3) | feed] & constants.U32_MAX
        if price == 0:
            continue
        at: uint256 = found
        for _: uint256 in range(constants.FEEDS_MAX):
            if at == 0 or prices[at - 1] <= price:
                break
            prices[at] = prices[at - 1]
            at -= 1
        prices[at] = price
        found += 1
    if found * 2 > feeds:
        return (prices[(found - 1) // 2] + prices[found // 2]) // 2
    assert block.timestamp >= ready + pinned.silence_s, "exit: too few reports"
    return index


@external
@view
@reentrant
def price(underlying: uint256, day: uint256) -> (bool, uint256):
    """
    @notice Whether an expiry is fixed, and at which price, ticks.
    """
    known: uint256 = self._prices[(underlying << 16) | (day & constants.U16_MAX)]
    return known != 0, known & constants.U32_MAX


@external
@view
@reentrant
def reported(underlying: uint256, day: uint256, feed: uint256) -> (uint256, uint256):
    """
    @notice Time (seconds, 0: none) and price (ticks) of a feed's report that counts for an expiry.
    """
    packed: uint256 = self._reports[(((underlying << 16) | (day & constants.U16_MAX)) << 3) | (feed & 7)]
    return packed >> 32, packed & constants.U32_MAX
