# pragma version 0.4.3
# pragma evm-version cancun
"""
@title Twice: two calls in one transaction
@license MIT
@notice For tests: what the first call has left in transient storage is there in the second.
"""


@external
def both(target: address, first: Bytes[16384], second: Bytes[16384]):
    raw_call(target, first)
    raw_call(target, second)
