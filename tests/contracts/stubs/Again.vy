# pragma version 0.4.3
# pragma evm-version cancun
"""
@title Again: withdraws, and once more while it is paid
@license MIT
@notice For tests: an account with code that calls back.
"""

WITHDRAW: constant(Bytes[4]) = method_id("withdraw_bond()")

target: transient(address)


@external
@payable
def __default__():
    raw_call(self.target, WITHDRAW)


@external
def withdraw(target: address):
    self.target = target
    raw_call(target, WITHDRAW)
