# pragma version 0.4.3
# pragma evm-version cancun
"""
@title Proxy: forwards a call and its revert
@license MIT
@notice For tests: a sequencer that is a contract, a vault that is not ours.
"""

inbox: public(address)


@external
def set_inbox(inbox: address):
    self.inbox = inbox


@external
@payable
def forward(target: address, message: Bytes[4096]):
    raw_call(target, message, value=msg.value)
