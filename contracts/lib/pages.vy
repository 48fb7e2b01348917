# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Pages: marks and scenario P&Ls of up to 32 instruments
@license MIT
@notice Twin of `Page` in `sequencer/protocol/entries.py`. A page that has been proved is known by the calldata offset of its
        words (`state._page`).
@custom:security A row is below the page's count, because an instrument's number names one that was listed.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import cmap
from . import constants
from . import entries
from . import params
from . import reports
from . import risk_array
from . import state

uses: reports
uses: state


@internal
@view
def _tables(page: uint256) -> uint256:
    """
    @notice Bytes of a page's table of terms, and of the one of marks.
    """
    return (unsafe_add(cmap._word_at(page) & 255, 7) >> 3) << 5


@internal
@view
def _mark(page: uint256, row: uint256) -> uint256:
    """
    @notice Mark of a row, ticks.
    """
    at: uint256 = unsafe_add(unsafe_add(page, 32), unsafe_add(self._tables(page), (row >> 3) << 5))
    return (cmap._word_at(at) >> ((row & 7) << 5)) & constants.U32_MAX


@internal
@view
def _terms(page: uint256, row: uint256) -> (uint256, bool):
    """
    @notice Strike of a row in ticks, and whether it is a put.
    """
    word: uint256 = cmap._word_at(unsafe_add(unsafe_add(page, 32), (row >> 3) << 5)) >> ((row & 7) << 5)
    return word & (2**31 - 1), (word >> 31) & 1 == 1


@internal
@view
def _pnl_at(page: uint256, row: uint256) -> uint256:
    """
    @notice Calldata offset of the two words of a row's scenario P&Ls.
    """
    return unsafe_add(unsafe_add(page, 32), unsafe_add(self._tables(page) << 1, row << 6))


@internal
@view
def _time(page: uint256) -> uint256:
    """
    @notice Time of a page's last RISK.
    """
    return (cmap._word_at(page) >> 8) & constants.U32_MAX


@internal
@view
def _marked(page: uint256) -> uint256:
    """
    @notice How many rows the last RISK has marked; those listed since then have no mark.
    """
    return (cmap._word_at(page) >> 104) & 255


@internal
@view
def _index(page: uint256) -> uint256:
    """
    @notice Index of a page's last RISK, ticks.
    """
    return (cmap._word_at(page) >> 40) & constants.U32_MAX


@internal
@pure
def _with_row(
    page: DynArray[uint256, state.LEAF_WORDS_MAX], terms: uint256
) -> DynArray[uint256, state.LEAF_WORDS_MAX]:
    """
    @notice Words of a page, or of none, with one more row, which has no mark until the next RISK.
    """
    head: uint256 = page[0] if len(page) != 0 else 0
    rows: uint256 = head & 255  # <= 31: the expiry counts them
    tables: uint256 = unsafe_add(rows, 7) >> 3
    position: uint256 = (rows & 7) << 5
    words: DynArray[uint256, state.LEAF_WORDS_MAX] = [
        unsafe_add(head, 1)  # rows < 32
    ]
    for i: uint256 in range(tables, bound=4):
        words.append(page[unsafe_add(1, i)])
    if position == 0:
        words.append(terms)
    else:
        words[tables] |= terms << position
    for i: uint256 in range(tables, bound=4):
        words.append(page[unsafe_add(unsafe_add(1, tables), i)])
    if position == 0:
        words.append(0)
    for i: uint256 in range(rows << 1, bound=62):
        words.append(page[unsafe_add(unsafe_add(1, tables << 1), i)])
    words.append(0)
    words.append(0)
    return words


@internal
@view
def _risk_rows(
    underlying: uint256,
    page: uint256,
    forward: uint256,
    is_settled: bool,
    fresh: reports.Fresh,
    index: uint256,
    remaining_s: uint256,
) -> DynArray[uint256, state.LEAF_WORDS_MAX]:
    """
    @notice Words of a page with its rows anew; word 0 is the caller's. No time remains: variances are 0. None: the
            feeds disagree about a strike.
    """
    words: DynArray[uint256, state.LEAF_WORDS_MAX] = [0]
    rows: uint256 = cmap._word_at(page) & 255
    tables: uint256 = unsafe_add(rows, 7) >> 3
    for i: uint256 in range(tables, bound=4):
        words.append(cmap._word_at(unsafe_add(page, unsafe_add(i, 1) << 5)))
    for _: uint256 in range(tables, bound=4):
        words.append(0)
    word: uint256 = state._params_of(underlying)
    up: uint256 = 0
    down: uint256 = 0
    up, down = risk_array._left(
        params._of(word, params.VOL_UP_PPM),
        params._of(word, params.VOL_DOWN_PPM),
        state._param(params.HORIZON_S),
        state._param(params.VOL_REFERENCE_S),
        state._param(params.VOL_POWER_PPM),
        remaining_s,
    )
    shocks: risk_array.Shocks = risk_array._shocks(
        params._of(word, params.PRICE_RANGE_PPM),
        params._of(word, params.EXTREME_RANGE_PPM),
        params._of(word, params.EXTREME_WEIGHT_PPM),
        up,
        down,
    )
    last: uint256 = 0  # strike of the row before, which most often is the call of this put
    variance: uint256 = 0
    for row: uint256 in range(rows, bound=32):
        strike: uint256 = 0
        is_put: bool = False
        strike, is_put = self._terms(page, row)
        mark: uint256 = 0
        pnl: uint256[2] = empty(uint256[2])
        if is_settled:
            mark, pnl = risk_array._settled(forward, strike, is_put)
        else:
            if remaining_s != 0 and strike != last:
                variance = reports._variance(fresh, strike, forward, index, remaining_s)
                if variance == 0:
                    return []
                last = strike
            mark, pnl = risk_array._scenarios(forward, strike, is_put, variance, shocks)
        words[unsafe_add(unsafe_add(1, tables), row >> 3)] |= mark << ((row & 7) << 5)
        words.append(pnl[0])
        words.append(pnl[1])
    return words
