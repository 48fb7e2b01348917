# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Reasons why a record was a no-op
@license MIT
@notice Twin of `Reason` in `sequencer/protocol/constants.py`: same names, same numbers; OK when it was not.
@custom:security Consensus for who compares outcomes; no root depends on which one it is.
@custom:kill Nothing: it holds no state and no privilege.
"""

OK: constant(uint256) = 0
MALFORMED: constant(uint256) = 1
UNKNOWN_KIND: constant(uint256) = 2
CLASS_ORDER: constant(uint256) = 3
TAKER_PENDING: constant(uint256) = 4
NO_TAKER: constant(uint256) = 5
TIME_BACKWARDS: constant(uint256) = 6
UNKNOWN_ACCOUNT: constant(uint256) = 10
BAD_SIGNATURE: constant(uint256) = 11
SIGNER_EXPIRED: constant(uint256) = 12
EXPIRED: constant(uint256) = 13
NONCE_USED: constant(uint256) = 14
NONCE_WINDOW: constant(uint256) = 15
UNKNOWN_INSTRUMENT: constant(uint256) = 20
INSTRUMENT_EXPIRED: constant(uint256) = 21
QUANTITY: constant(uint256) = 22
PRICE: constant(uint256) = 23
FLAGS: constant(uint256) = 24
FEE_ABOVE_MAX: constant(uint256) = 25
RESTRICTED: constant(uint256) = 26
HALTED: constant(uint256) = 27
RISK_STALE: constant(uint256) = 28
MARGIN: constant(uint256) = 29
POST_ONLY_CROSSES: constant(uint256) = 30
FOK_UNFILLED: constant(uint256) = 31
REDUCE_ONLY: constant(uint256) = 32
POSITION_LIMIT: constant(uint256) = 33
SELF_TRADE: constant(uint256) = 34
UNKNOWN_ORDER: constant(uint256) = 35
NOT_OWNER_OF_ORDER: constant(uint256) = 36
ORDER_ALIVE: constant(uint256) = 37
ORDER_DEAD: constant(uint256) = 38
TERMS: constant(uint256) = 39
AMOUNT: constant(uint256) = 40
POOL: constant(uint256) = 41
SIGNERS_FULL: constant(uint256) = 42
SCOPE: constant(uint256) = 43
UNKNOWN_FEED: constant(uint256) = 50
FEED_TIME: constant(uint256) = 51
SURFACE: constant(uint256) = 52
NO_INDEX: constant(uint256) = 53
NO_SURFACE: constant(uint256) = 54
ALREADY_LISTED: constant(uint256) = 55
LISTING_RULE: constant(uint256) = 56
EXPIRY_FULL: constant(uint256) = 57
NOT_EXPIRED: constant(uint256) = 58
NO_SNAPSHOT: constant(uint256) = 59
ALREADY_SETTLED: constant(uint256) = 60
NOT_SETTLED: constant(uint256) = 61
NOTHING_TO_SETTLE: constant(uint256) = 62
FEEDS_DISAGREE: constant(uint256) = 63
HEALTHY: constant(uint256) = 70
UNHEALTHY: constant(uint256) = 71
NO_AUCTION: constant(uint256) = 72
FRACTION: constant(uint256) = 73
CASH_MAX: constant(uint256) = 74
NOTHING_TO_COLLECT: constant(uint256) = 75
INBOX_ACCOUNT: constant(uint256) = 80
RISK_DUE: constant(uint256) = 81
