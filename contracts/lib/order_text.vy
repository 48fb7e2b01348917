# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title An order in words: what a person reads in a wallet and signs
@license MIT
@notice Twin of `sequencer/protocol/order_text.py`. Grammar: docs/PROTOCOL.md section 4.
@custom:security Total over fields of a record's widths; bounds stand beside the arithmetic.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import constants

TYPE_HASH: constant(bytes32) = keccak256("Order(string order,uint32 account,uint32 nonce)")
MONTHS: constant(String[36]) = "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC"
HOUR_S: constant(uint256) = 3_600


# Fields of PLACE_IN_WORDS that the text is about, within their widths.
struct Order:
    instrument: uint256
    flags: uint256
    price: uint256  # ticks
    quantity: uint256  # lots
    expires: uint256
    fee_max: uint256  # 0.0001 USD
    terms: uint256  # strike | put << 31


@internal
@pure
def _struct_hash(order: Order, account: uint256, nonce: uint256) -> bytes32:
    """
    @notice EIP-712 hashStruct of an order in words.
    """
    return keccak256(abi_encode(TYPE_HASH, keccak256(self._text(order)), account, nonce))


@internal
@pure
def _text(order: Order) -> String[400]:
    """
    @notice The order in words: side, contracts, option, USD, time in force, flags, fee.
    """
    side: String[5] = "Buy "
    if order.flags & constants.FLAG_SIDE == constants.SELL:
        side = "Sell "
    post_only: String[11] = ""
    if order.flags & constants.FLAG_POST_ONLY != 0:
        post_only = ", post-only"
    reduce_only: String[13] = ""
    if order.flags & constants.FLAG_REDUCE_ONLY != 0:
        reduce_only = ", reduce-only"
    stops: String[22] = ""
    if order.flags & constants.FLAG_STP_TAKER != 0:
        stops = ", stops at own orders"
    return concat(
        side,
        self._amount(order.quantity),
        " ",
        self._name(order.instrument, order.terms),
        " at ",
        self._decimal(order.price, 100, 2),
        " USD, ",
        self._until((order.flags >> constants.FLAG_TIF_SHIFT) & 3, order.expires),
        post_only,
        reduce_only,
        stops,
        ", sequencing fee at most ",
        self._decimal(order.fee_max, 10_000, 4),
        " USD",
    )


@internal
@pure
def _digits(figure: uint256) -> String[20]:
    """
    @notice A number of at most 64 bits.
    """
    return uint2str(convert(figure, uint64))


@internal
@pure
def _fixed(figure: uint256, one: uint256, width: uint256) -> String[4]:
    """
    @notice A number below `one` = 10^width with its leading zeros; 1 <= width <= 4.
    """
    padded: uint256 = unsafe_add(one, figure) * 10**unsafe_sub(4, width)  # width digits after a 1, four in all
    four: String[4] = slice(self._digits(padded), 1, 4)
    return slice(four, 0, width)


@internal
@pure
def _decimal(figure: uint256, one: uint256, width: uint256) -> String[25]:
    """
    @notice `figure` / `one` with `width` decimals.
    """
    return concat(self._digits(figure // one), ".", self._fixed(figure % one, one, width))


@internal
@pure
def _amount(quantity: uint256) -> String[25]:
    """
    @notice Contracts of so many lots, without zeros at their end.
    """
    figure: uint256 = quantity
    one: uint256 = 10_000
    width: uint256 = 4
    for _: uint256 in range(4):
        if figure % 10 != 0:
            return self._decimal(figure, one, width)
        figure = figure // 10
        one = one // 10
        width = unsafe_sub(width, 1)
    return self._digits(figure)


@internal
@pure
def _until(tif: uint256, expires: uint256) -> String[60]:
    """
    @notice Time in force, and until when.
    """
    out: String[19] = "unknown"
    if tif == constants.TIF_GTC:
        if expires != 0:
            return concat("good till ", self._time(expires))
        out = "good till cancelled"
    elif tif == constants.TIF_IOC:
        out = "immediate or cancel"
    elif tif == constants.TIF_FOK:
        out = "fill or kill"
    if expires == 0:
        return out
    return concat(out, " before ", self._time(expires))


@internal
@pure
def _name(instrument: uint256, terms: uint256) -> String[77]:
    """
    @notice BTC-28NOV26-50000-C; an underlying without a name is U and its number.
    """
    number: uint256 = instrument >> 28
    underlying: String[21] = concat("U", self._digits(number))
    if number == 0:
        underlying = "BTC"
    elif number == 1:
        underlying = "ETH"
    year: uint256 = 0
    month: uint256 = 0
    day: uint256 = 0
    year, month, day = self._date((instrument >> 12) & 65_535)
    months: String[36] = MONTHS
    strike: uint256 = terms & (2**31 - 1)
    cents: String[5] = ""
    if strike % 100 != 0:
        cents = concat("d", self._fixed(strike % 100, 100, 2))
    put_or_call: String[2] = "-C"
    if terms >> 31 == 1:
        put_or_call = "-P"
    return concat(
        underlying,
        "-",
        self._digits(day),
        slice(months, 3 * (month - 1), 3),
        self._fixed(year % 100, 100, 2),
        "-",
        self._digits(strike // 100),
        cents,
        put_or_call,
    )


@internal
@pure
def _time(seconds: uint256) -> String[33]:
    """
    @notice 2026-11-28 08:00:00 UTC.
    """
    year: uint256 = 0
    month: uint256 = 0
    day: uint256 = 0
    year, month, day = self._date(seconds // constants.DAY_S)
    rest: uint256 = seconds % constants.DAY_S
    return concat(
        self._fixed(year, 10_000, 4),
        "-",
        self._fixed(month, 100, 2),
        "-",
        self._fixed(day, 100, 2),
        " ",
        self._fixed(rest // HOUR_S, 100, 2),
        ":",
        self._fixed(rest // 60 % 60, 100, 2),
        ":",
        self._fixed(rest % 60, 100, 2),
        " UTC",
    )


@internal
@pure
def _date(days: uint256) -> (uint256, uint256, uint256):
    """
    @notice Year, month, day of a number of days since 1970, below 2^17, in the Gregorian calendar: years begin in March, and
            400 of them have 146,097 days.
    """
    since: uint256 = days + 719_468
    era: uint256 = since // 146_097
    of_era: uint256 = since % 146_097
    year: uint256 = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year: uint256 = of_era - (365 * year + year // 4 - year // 100)
    march: uint256 = (5 * of_year + 2) // 153
    day: uint256 = of_year - (153 * march + 2) // 5 + 1
    year += 400 * era
    if march >= 10:
        return year + 1, march - 9, day
    return year, march + 3, day
