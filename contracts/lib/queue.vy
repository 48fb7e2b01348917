# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Rules of the queue: ticks, the sequencing fee, states, the velocity breaker
@license MIT
@notice Twin of `sequencer/protocol/queue.py`.
@custom:security Total; bounds stand beside the arithmetic.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import codec
from . import constants
from . import params
from . import reason
from . import state

uses: state


@internal
def _tick() -> uint256:
    """
    @notice TICK(time): opens the next tick. Time may stand still, never go back; the backlog drains with it.
    """
    time: uint256 = codec._field(1, 4)
    before: uint256 = state.time
    if time < before:
        return reason.TIME_BACKWARDS
    if before != 0:
        drained: uint256 = unsafe_mul(state._param(params.TARGET_PER_S), unsafe_sub(time, before))  # < 2^64
        excess: uint256 = state.excess
        state.excess = unsafe_sub(excess, drained) if excess > drained else 0
    state.time = time
    state.tick = min(unsafe_add(state.tick, 1), constants.U40_MAX)
    state.last_class = constants.CLASS_SYSTEM
    self._update_state()
    return reason.OK


@internal
@view
def _sequencing_fee() -> uint256:
    """
    @notice What a PLACE pays for its place in the queue, 1e-6 USD: sequencing_fee_min x 2^(excess / fee_doubling_excess),
            linear between whole doublings, rounded down, at most 2^FEE_DOUBLINGS_MAX.
    """
    least: uint256 = state._param(params.SEQUENCING_FEE_MIN)
    step: uint256 = state._param(params.FEE_DOUBLING_EXCESS)  # > 0
    doublings: uint256 = unsafe_div(state.excess, step)
    if doublings >= constants.FEE_DOUBLINGS_MAX:
        return least << constants.FEE_DOUBLINGS_MAX
    rest: uint256 = state.excess % step if step != 0 else 0
    return unsafe_div(unsafe_mul(least << doublings, unsafe_add(step, rest)), step)  # product < 2^85


@internal
def _count_order():
    """
    @notice One more order in the backlog.
    """
    excess: uint256 = min(unsafe_add(state.excess, 1), constants.U40_MAX)
    state.excess = excess
    if excess == state._param(params.CONGESTED_EXCESS) or excess == state._param(params.RESTRICTED_EXCESS):
        self._update_state()


@internal
def _update_state():
    """
    @notice State of the queue from its backlog and the breaker: the stricter one rules.
    """
    level: uint256 = constants.QUEUE_NORMAL
    if state.excess >= state._param(params.RESTRICTED_EXCESS):
        level = constants.QUEUE_RESTRICTED
    elif state.excess >= state._param(params.CONGESTED_EXCESS):
        level = constants.QUEUE_CONGESTED
    state.queue_state = max(level, state.breaker_level)


@internal
def _watch_velocity(
    index: uint256, time: uint256, previous: uint256, reference_price: uint256, reference_time: uint256
) -> (uint256, uint256):
    """
    @notice Breaker, at a new `index` of `time`: too far from the window's reference restricts or halts; a calm fresh one
            resumes. Returns the reference and its time. A window begins at the `previous` index (0: none yet).
    """
    price: uint256 = reference_price
    since: uint256 = reference_time
    if price == 0 or unsafe_sub(time, since) >= state._param(params.BREAKER_WINDOW_S):  # time >= since
        price = previous if previous != 0 else index
        since = time
    distance: uint256 = unsafe_sub(index, price) if index >= price else unsafe_sub(price, index)
    distance = unsafe_mul(distance, constants.PPM)  # < 2^52
    level: uint256 = constants.QUEUE_NORMAL
    if distance >= unsafe_mul(state._param(params.BREAKER_HALT_PPM), price):
        level = constants.QUEUE_HALTED
    elif distance >= unsafe_mul(state._param(params.BREAKER_RESTRICT_PPM), price):
        level = constants.QUEUE_RESTRICTED
    if level != constants.QUEUE_NORMAL:
        state.breaker_level = max(state.breaker_level, level)
        state.breaker_until = min(
            unsafe_add(state.time, state._param(params.BREAKER_COOL_S)), constants.U32_MAX
        )
    elif state.time >= state.breaker_until:
        state.breaker_level = 0
    self._update_state()
    return price, since
