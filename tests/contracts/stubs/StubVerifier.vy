# pragma version 0.4.3
# pragma evm-version cancun
"""
@title StubVerifier: believes the witness
@license MIT
@notice For tests of the Arbiter alone: the first witness word is the root after the record. Without one it reverts, as a verifier does on a wrong
        witness.
"""


@external
@view
def apply(
    pre_root: bytes32, length: uint256, r0: bytes32, r1: bytes32, r2: bytes32, r3: bytes32
) -> (bytes32, uint256):
    assert len(msg.data) > 196, "witness: bad"
    return convert(slice(msg.data, 196, 32), bytes32), 0
