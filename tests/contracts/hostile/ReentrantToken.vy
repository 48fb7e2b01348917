# pragma version 0.4.3
# pragma evm-version cancun
"""
@title ReentrantToken: calls back into whoever moves it
@license MIT
@notice For tests. `arm` says what to call, and on what, at the next transfer; the call's revert is passed on.
"""

balanceOf: public(HashMap[address, uint256])
target: address
message: Bytes[2048]


@external
def mint(receiver: address, amount: uint256):
    self.balanceOf[receiver] += amount


@external
def arm(target: address, message: Bytes[2048]):
    self.target = target
    self.message = message


@external
@view
def allowance(owner: address, spender: address) -> uint256:
    return max_value(uint256)


@external
def transfer(receiver: address, amount: uint256) -> bool:
    self._strike()
    self.balanceOf[msg.sender] -= amount
    self.balanceOf[receiver] += amount
    return True


@external
def transferFrom(sender: address, receiver: address, amount: uint256) -> bool:
    self._strike()
    self.balanceOf[sender] -= amount
    self.balanceOf[receiver] += amount
    return True


@internal
def _strike():
    if self.target != empty(address):
        target: address = self.target
        self.target = empty(address)
        raw_call(target, self.message)
