# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title State as a verifier sees it: GLOBAL and PARAMS, and what a record opens of the rest
@license MIT
@notice Twin of `sequencer/protocol/state.py` and `entries.py`; consumes what `sequencer/proof/witness.py` writes.
@dev GLOBAL's fields live in transient storage, under their Python names; PARAMS and pages stay in calldata, and are read
     there; accounts are in memory.
@custom:security What is read is proved against the root before it is used. Counts inside a leaf fit its words, because
                 only the transition has ever made one.
@custom:kill Nothing: it holds no state beyond the call and no privilege.
"""

from . import cmap
from . import constants
from . import entries
from . import params

uses: cmap

GLOBAL_WORDS: constant(uint256) = 6
LEAF_WORDS_MAX: constant(uint256) = 73  # a page of 32 rows
U32: constant(uint256) = constants.U32_MAX
U40: constant(uint256) = constants.U40_MAX
U48: constant(uint256) = constants.U48_MAX
U64: constant(uint256) = constants.U64_MAX


# GLOBAL, as in `entries.Global`
seq: transient(uint256)
time: transient(uint256)
tick: transient(uint256)
last_class: transient(uint256)
queue_state: transient(uint256)
breaker_level: transient(uint256)
breaker_until: transient(uint256)
excess: transient(uint256)
withdrawals: transient(uint256)
inbox_hash: transient(bytes32)
inbox_count: transient(uint256)
fund: transient(uint256)
treasury: transient(uint256)
work: transient(uint256)
pool: transient(uint256)
deficit: transient(int256)
holes: transient(uint256)
taker: transient(uint256)  # packed; 0: none
plan_root: transient(bytes32)  # root before the open plan (plans.vy); empty: none
plan: transient(uint256)  # packed: fee_max of its order, 16 bits; records that it has had

outcome: transient(bytes32)  # hash of what an order paid, rests and traded (`matching._finish`); empty: nothing
opened: transient(bytes32)  # root where the record began
global_stored: transient(uint256)  # value of GLOBAL's leaf as it was read
params_at: transient(uint256)  # calldata offset of PARAMS' words
stored: transient(uint256)  # value of the hashed leaf that `_load` has read last
calls: transient(uint256)  # of this transaction: what an earlier call has proved must not serve a later one
page_at: transient(HashMap[uint256, uint256])  # calls << 64 | page id -> calldata offset of its words; 0: not read
underlying_word: transient(HashMap[uint256, uint256])  # calls << 64 | number -> first word, with bit 255; 0: not read


@internal
def _open():
    """
    @notice Reads GLOBAL and PARAMS.
    """
    self.calls = unsafe_add(self.calls, 1)
    self.opened = cmap.root
    self.outcome = empty(bytes32)
    words: DynArray[uint256, LEAF_WORDS_MAX] = self._rewind()
    word: uint256 = words[0]
    self.seq = word & U40
    self.time = (word >> 40) & U32
    self.tick = (word >> 72) & U40
    self.last_class = (word >> 112) & 255
    self.breaker_level = (word >> 128) & 255
    self.breaker_until = (word >> 136) & U32
    self.withdrawals = (word >> 208) & U32
    self.inbox_hash = convert(words[1], bytes32)
    word = words[2]
    self.inbox_count = word & U40
    self.work = (word >> 168) & U48
    self.plan = word >> 216
    self.taker = words[4]
    self.plan_root = convert(words[5], bytes32)
    self.params_at = cmap.cursor
    words = self._words(params.PARAMS_WORDS)
    cmap._prove(constants.KEY_PARAMS, self._hash(words))


@internal
def _rewind() -> DynArray[uint256, LEAF_WORDS_MAX]:
    """
    @notice Reads GLOBAL at the present root, and of its fields those that go back with a plan.
    """
    words: DynArray[uint256, LEAF_WORDS_MAX] = self._words(GLOBAL_WORDS)
    self.global_stored = self._hash(words)
    cmap._prove(constants.KEY_GLOBAL, self.global_stored)
    word: uint256 = words[0]
    self.queue_state = (word >> 120) & 255
    self.excess = (word >> 168) & U40
    word = words[2]
    self.fund = (word >> 40) & U64
    self.treasury = (word >> 104) & U64
    word = words[3]
    self.pool = word & U64
    self.deficit = convert(convert(word << 64, bytes32), int256) >> 128
    self.holes = word >> 192
    return words


@internal
def _close():
    """
    @notice Writes GLOBAL.
    """
    first: uint256 = (
        self.seq
        | (self.time << 40)
        | (self.tick << 72)
        | (self.last_class << 112)
        | (self.queue_state << 120)
        | (self.breaker_level << 128)
        | (self.breaker_until << 136)
        | (self.excess << 168)
        | (self.withdrawals << 208)
    )
    second: uint256 = (
        self.inbox_count | (self.fund << 40) | (self.treasury << 104) | (self.work << 168) | (self.plan << 216)
    )
    deficit: uint256 = convert(convert(self.deficit << 128, bytes32), uint256) >> 64
    third: uint256 = self.pool | deficit | (self.holes << 192)
    entry: uint256 = convert(keccak256(abi_encode(first, self.inbox_hash, second, third, self.taker, self.plan_root)), uint256)
    cmap._write(constants.KEY_GLOBAL, self.global_stored, entry)


@internal
@view
def _param(index: uint256) -> uint256:
    """
    @notice An integer field of PARAMS (`params.vy`).
    """
    word: uint256 = unsafe_add(params.FEED_KEYS_WORDS, index >> 3)
    return (cmap._word_at(unsafe_add(self.params_at, word << 5)) >> ((index & 7) << 5)) & U32


@internal
@view
def _params_of(underlying: uint256) -> uint256:
    """
    @notice The word of PARAMS with an underlying's own fields (`params.vy`); beyond the last, the last one's.
    """
    word: uint256 = unsafe_add(params.FIRST_UNDERLYING, min(underlying, params.UNDERLYINGS - 1))
    return cmap._word_at(unsafe_add(self.params_at, word << 5))


@internal
@view
def _feed_key(index: uint256) -> uint256:
    """
    @notice Address of feed `index` < FEEDS_MAX; 0: there is none.
    """
    return cmap._word_at(unsafe_add(self.params_at, index << 5))


# --- leaves -----------------------------------------------------------------------------------------------------------


@internal
@pure
def _hash(words: DynArray[uint256, LEAF_WORDS_MAX]) -> uint256:
    """
    @notice Value of the leaf that has these words, one at least.
    """
    return convert(keccak256(slice(abi_encode(words), 64, len(words) << 5)), uint256)


@internal
def _words(count: uint256) -> DynArray[uint256, LEAF_WORDS_MAX]:
    """
    @notice The next `count` words of the witness.
    """
    assert count <= LEAF_WORDS_MAX, "witness: words"
    words: DynArray[uint256, LEAF_WORDS_MAX] = []
    offset: uint256 = cmap.cursor
    for _: uint256 in range(count, bound=LEAF_WORDS_MAX):
        words.append(cmap._word_at(offset))
        offset = unsafe_add(offset, 32)
    cmap.cursor = offset
    return words


@internal
def _load(key: uint256) -> DynArray[uint256, LEAF_WORDS_MAX]:
    """
    @notice Words of a hashed leaf, whose value is then in `stored`; none when it is absent (`stored` is 0).
    """
    count: uint256 = cmap._word()
    if count == 0:
        cmap._absent(key, 0)
        self.stored = 0
        return []
    words: DynArray[uint256, LEAF_WORDS_MAX] = self._words(count)
    entry: uint256 = self._hash(words)
    cmap._prove(key, entry)
    self.stored = entry
    return words


@internal
def _store(key: uint256, old: uint256, words: DynArray[uint256, LEAF_WORDS_MAX]):
    """
    @notice Writes a hashed leaf that had the value `old`; 0: there was none.
    """
    entry: uint256 = self._hash(words)
    if old == 0:
        cmap._insert(key, entry)
    else:
        cmap._write(key, old, entry)


@internal
def _inline(key: uint256) -> (uint256, uint256):
    """
    @notice Value of an inline leaf, and its path, which is 0 when the leaf is absent.
    """
    shown: uint256 = cmap._word()
    if shown == 0:
        cmap._absent(key, 0)
        return 0, 0
    assert shown == 1, "witness: inline"
    entry: uint256 = cmap._word()
    return entry, cmap._prove(key, entry)


@internal
def _page(page_id: uint256) -> uint256:
    """
    @notice Calldata offset of a page's words, which are read once a record; 0 when there is no such page.
    """
    slot: uint256 = (self.calls << 64) | page_id
    found: uint256 = self.page_at[slot]
    if found != 0:
        return found
    start: uint256 = unsafe_add(cmap.cursor, 32)
    if len(self._load(constants.KEY_PAGE | page_id)) == 0:
        return 0
    self.page_at[slot] = start
    return start


@internal
def _underlying(number: uint256) -> uint256:
    """
    @notice First word of an underlying that a page names, which is read once a record: index, its time, and what is above;
            bit 255 is set.
    """
    slot: uint256 = (self.calls << 64) | number
    found: uint256 = self.underlying_word[slot]
    if found == 0:
        words: DynArray[uint256, LEAF_WORDS_MAX] = self._load(constants.KEY_UNDERLYING | number)
        found = words[0] | (1 << 255)
        self.underlying_word[slot] = found
    return found


# --- accounts ---------------------------------------------------------------------------------------------------------


@internal
def _account(number: uint256) -> entries.Account:
    """
    @notice Reads an account, which must not have been read before in this record; `stored` is 0 when there is none.
    """
    words: DynArray[uint256, LEAF_WORDS_MAX] = self._load(constants.KEY_ACCOUNT | number)
    account: entries.Account = empty(entries.Account)
    account.number = number
    if len(words) == 0:
        return account
    account.stored = self.stored
    word: uint256 = words[0]
    account.position_count = word & 255
    account.signer_count = (word >> 8) & 255
    account.auction_start = (word >> 16) & U32
    account.order_floor = (word >> 56) & U40
    account.owner = word >> 96
    account.cash = convert(convert(words[1], bytes32), int256)
    word = words[2]
    account.reserved = word & U64
    account.nonce_floor = (word >> 64) & U32
    account.hole = (word >> 96) & U64
    account.orders = (word >> 160) & U32
    account.nonce_bitmap = words[3]
    at: uint256 = 4
    for i: uint256 in range(account.signer_count, bound=4):
        account.signers[i] = words[at]
        at = unsafe_add(at, 1)
    for i: uint256 in range(account.position_count, bound=64):
        account.positions[i] = words[at]
        at = unsafe_add(at, 1)
    return account


@internal
def _put_account(account: entries.Account):
    """
    @notice Writes an account.
    """
    words: DynArray[uint256, LEAF_WORDS_MAX] = [
        account.position_count
        | (account.signer_count << 8)
        | (account.auction_start << 16)
        | (account.order_floor << 56)
        | (account.owner << 96),
        convert(convert(account.cash, bytes32), uint256),
        account.reserved | (account.nonce_floor << 64) | (account.hole << 96) | (account.orders << 160),
        account.nonce_bitmap,
    ]
    for i: uint256 in range(account.signer_count, bound=4):
        words.append(account.signers[i])
    for i: uint256 in range(account.position_count, bound=64):
        words.append(account.positions[i])
    self._store(constants.KEY_ACCOUNT | account.number, account.stored, words)


@internal
@pure
def _expiry_time(day: uint256) -> uint256:
    """
    @notice 08:00:00 UTC of `day` (uint16, days since 1970), in seconds.
    """
    return unsafe_add(unsafe_mul(day, constants.DAY_S), constants.EXPIRY_OF_DAY_S)


@internal
@pure
def _instrument_expiry_time(instrument: uint256) -> uint256:
    """
    @notice Expiry of an instrument, from its number alone, in seconds.
    """
    return self._expiry_time((instrument >> 12) & constants.U16_MAX)
