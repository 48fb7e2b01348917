# pragma version 0.4.3
# pragma evm-version cancun
"""
@title BatchHarness: lib/batch.vy as the contracts have it
@license MIT
@notice For tests: size and weight of every kind.
"""

from lib import batch


@external
@pure
def layout(kind: uint256) -> (uint256, uint256):
    return batch._layout(kind)


@external
@pure
def limits() -> (uint256, uint256, uint256):
    return batch.SEGMENT_WEIGHT_MAX, batch.SEGMENT_ELEMENTS_MAX, batch.PROOF_BYTES_MAX
