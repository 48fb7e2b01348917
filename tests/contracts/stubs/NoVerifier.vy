# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title NoVerifier: accepts no witness
@license MIT
@notice For tests of who is asked.
"""


@external
@view
@reentrant
def apply(
    pre_root: bytes32, length: uint256, r0: bytes32, r1: bytes32, r2: bytes32, r3: bytes32
) -> (bytes32, uint256):
    """
    @notice Refuses.
    """
    raise "witness: bad"
