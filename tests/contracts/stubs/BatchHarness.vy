# pragma version 0.4.3
# pragma evm-version cancun
"""
@title BatchHarness: lib/batch.vy and lib/work.vy as the contracts have them
@license MIT
@notice For tests: size, weight and work of every kind.
"""

from lib import batch
from lib import work


@external
@pure
def layout(kind: uint256) -> (uint256, uint256):
    return batch._layout(kind)


@external
@pure
def work_of(kind: uint256) -> uint256:
    return work._of(kind)


@external
@pure
def work_parts() -> (uint256, uint256, uint256):
    return work.RISK_ROW, work.MAKER, work.POSITION


@external
@pure
def limits() -> (uint256, uint256, uint256):
    return batch.SEGMENT_WEIGHT_MAX, batch.SEGMENT_ELEMENTS_MAX, batch.PROOF_BYTES_MAX
