# pragma version 0.4.3
# pragma evm-version cancun
"""
@title SilentToken: returns nothing, or says no
@license MIT
@notice For tests: old tokens return no boolean, and others report failure by returning false.
"""

balanceOf: public(HashMap[address, uint256])
refuses: public(bool)


@external
def mint(receiver: address, amount: uint256):
    self.balanceOf[receiver] += amount


@external
def set_refuses(refuses: bool):
    self.refuses = refuses


@external
@raw_return
def transfer(receiver: address, amount: uint256) -> Bytes[32]:
    return self._move(msg.sender, receiver, amount)


@external
@raw_return
def transferFrom(sender: address, receiver: address, amount: uint256) -> Bytes[32]:
    return self._move(sender, receiver, amount)


@internal
def _move(sender: address, receiver: address, amount: uint256) -> Bytes[32]:
    if self.refuses:
        return abi_encode(False)
    self.balanceOf[sender] -= amount
    self.balanceOf[receiver] += amount
    return b""
