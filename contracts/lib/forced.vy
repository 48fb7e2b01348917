# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title What old marks make of a forced record
@license MIT
@notice Twin of `_unless_due` in `sequencer/protocol/forced.py`, and of `is_old` and `is_markable` in `market.py`.
@custom:security Who withholds RISK must not be able to serve a message of L1 with a refusal: where RISK can renew the
                 marks, the record does not count.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import cmap
from . import constants
from . import entries
from . import freshness
from . import pages
from . import params
from . import reason
from . import reports
from . import state

uses: freshness
uses: reports
uses: state

# in the place of a page: of the account's pages that are old or behind
ALL_OF_ACCOUNT: constant(uint256) = max_value(uint256)
ANY_OF_ACCOUNT: constant(uint256) = max_value(uint256) - 1
FIRST_OF_ACCOUNT: constant(uint256) = max_value(uint256) - 2


@internal
def _is_old(page: uint256, instrument: uint256) -> bool:
    """
    @notice Whether an instrument has no mark that can carry new risk: none since it was listed, or one that is too old.
    """
    return instrument & 31 >= pages._marked(page) or freshness._is_old(instrument >> 28, page)


@internal
def _unless_due(account: entries.Account, page_id: uint256) -> uint256:
    """
    @notice RISK_STALE, or RISK_DUE when RISK can renew the page, or all of the account's that are old or behind.
    """
    return reason.RISK_DUE if self._renews(account, page_id) else reason.RISK_STALE


@internal
def _renews(account: entries.Account, page_id: uint256) -> bool:
    """
    @notice Whether RISK can mark a page, or could not long ago: all, any or the first of the account's that are old or behind.
    """
    age: uint256 = state._param(params.RISK_AGE_MAX_S)
    silence: uint256 = unsafe_add(age, state._param(params.FEED_AGE_MAX_S))
    unmarked: uint256 = unsafe_add(age, state._param(params.SURFACE_AGE_MAX_S))
    words: DynArray[uint256, state.LEAF_WORDS_MAX] = []
    last: uint256 = max_value(uint256)
    number: uint256 = max_value(uint256)
    key: uint256 = max_value(uint256)
    index_time: uint256 = 0
    is_marked: bool = False  # expired, or with surfaces that RISK could have used
    is_settled: bool = False
    can: bool = False
    unfit: uint256 = freshness._unfit_positions(account) if page_id >= FIRST_OF_ACCOUNT else 0
    for i: uint256 in range(account.position_count if page_id >= FIRST_OF_ACCOUNT else 1, bound=64):
        one: uint256 = page_id
        if page_id >= FIRST_OF_ACCOUNT:
            one = account.positions[i] >> 69
            if one == last or (unfit >> i) & 1 == 0:
                continue
            last = one
        if one >> 23 != number:  # pages ascend: what they share is read once
            number = one >> 23
            index_time = (state._underlying(number) >> 32) & constants.U32_MAX
        if one >> 7 != key:
            key = one >> 7
            words = state._load(constants.KEY_EXPIRY | key)
            is_settled = (words[0] >> 16) & 255 != 0
            is_marked = state.time >= state._expiry_time(key & constants.U16_MAX)
            is_marked = is_marked or reports._have_reported(words, unmarked)
        can = is_settled or (is_marked and unsafe_add(index_time, silence) >= state.time)
        if page_id <= FIRST_OF_ACCOUNT or can == (page_id == ANY_OF_ACCOUNT):
            return can
    return page_id == ALL_OF_ACCOUNT
