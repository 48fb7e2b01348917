# pragma version 0.4.3
# pragma evm-version cancun
"""
@title FrozenRollup: what Vault and Exit ask of a rollup
@license MIT
@notice For tests. `freeze` names the root of the only batch there is, and everybody may call it.
"""

from lib import codec

inbox: public(address)
root: bytes32


@external
def set_inbox(inbox: address):
    self.inbox = inbox


@external
def freeze(root: bytes32):
    self.root = root


@external
@view
def exit_batch() -> uint256:
    assert self.root != empty(bytes32), "rollup: not frozen"
    return 1


@external
@view
def final_root(batch_id: uint256) -> bytes32:
    assert batch_id == 1 and self.root != empty(bytes32), "rollup: not final"
    return self.root


@external
@view
def domain_separator() -> bytes32:
    return codec._domain_separator(self)
