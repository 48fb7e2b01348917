# pragma version 0.4.3
# pragma evm-version cancun
"""
@title FeeToken: keeps one unit of every transfer, and says so to nobody
@license MIT
@notice For tests: a vault that credited what it asked for would owe more than it holds.
"""

balanceOf: public(HashMap[address, uint256])


@external
def mint(receiver: address, amount: uint256):
    self.balanceOf[receiver] += amount


@external
@view
def allowance(owner: address, spender: address) -> uint256:
    return max_value(uint256)


@external
def transferFrom(sender: address, receiver: address, amount: uint256) -> bool:
    self.balanceOf[sender] -= amount
    self.balanceOf[receiver] += amount - 1
    return True
