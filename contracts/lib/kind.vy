# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Kinds of a record
@license MIT
@notice Twin of `Kind` in `sequencer/protocol/constants.py`: the first byte of a record; reserved ones are not here.
@custom:security Consensus: a change here is a change of the protocol.
@custom:kill Nothing: it holds no state and no privilege.
"""

TICK: constant(uint256) = 1  # 0x01
DEPOSIT: constant(uint256) = 2  # 0x02
FORCED_WITHDRAW: constant(uint256) = 3  # 0x03
FORCED_CANCEL_ALL: constant(uint256) = 4  # 0x04
FORCED_ORDER: constant(uint256) = 5  # 0x05
FORCED_LIQUIDATE: constant(uint256) = 6  # 0x06
FORCED_BID: constant(uint256) = 8  # 0x08
FEED: constant(uint256) = 16  # 0x10
SURFACE: constant(uint256) = 17  # 0x11
RISK: constant(uint256) = 18  # 0x12
LIST: constant(uint256) = 19  # 0x13
FIX: constant(uint256) = 20  # 0x14
SETTLE: constant(uint256) = 21  # 0x15
LIQUIDATE: constant(uint256) = 22  # 0x16
COLLECT: constant(uint256) = 23  # 0x17
SWEEP: constant(uint256) = 24  # 0x18
PLACE: constant(uint256) = 32  # 0x20
PROCEED: constant(uint256) = 33  # 0x21: CONTINUE, a reserved word
CANCEL: constant(uint256) = 34  # 0x22
CANCEL_ALL: constant(uint256) = 35  # 0x23
SET_SIGNER: constant(uint256) = 36  # 0x24
TRANSFER: constant(uint256) = 37  # 0x25
WITHDRAW: constant(uint256) = 38  # 0x26
BID: constant(uint256) = 39  # 0x27
AMEND: constant(uint256) = 45  # 0x2d
PLACE_IN_WORDS: constant(uint256) = 46  # 0x2e
