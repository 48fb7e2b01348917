# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Constants of the state transition that contracts need
@license MIT
@notice Twin of `sequencer/protocol/constants.py`: same names, same values.
@custom:security Consensus: a change here is a change of the protocol.
@custom:kill Nothing: it holds no state and no privilege.
"""

# --- words and bounds ---
U32_MAX: constant(uint256) = 2**32 - 1
U40_MAX: constant(uint256) = 2**40 - 1
U48_MAX: constant(uint256) = 2**48 - 1
U64_MAX: constant(uint256) = 2**64 - 1
ELEMENT_BYTES: constant(uint256) = 31

# --- key types (top 4 bits of a map key) ---
TYPE_SHIFT: constant(uint256) = 252
KEY_WITHDRAWAL: constant(uint256) = 8 << TYPE_SHIFT

# --- record kinds (first byte of a record) ---
KIND_DEPOSIT: constant(bytes1) = 0x02

# --- payload of a batch ---
OFFSET_BYTES: constant(uint256) = 3  # a segment's end, in elements of the record area
OFFSETS_PER_ELEMENT: constant(uint256) = 10
CHUNK_BYTES: constant(uint256) = 992  # one leaf of the data root: 32 elements, 31 words
CHUNK_WORDS: constant(uint256) = 31
