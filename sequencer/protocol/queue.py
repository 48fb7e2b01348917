"""Rules of the queue that belong to the transition: ticks, classes, sequencing fee, states, velocity breaker."""

from sequencer.protocol import constants as c
from sequencer.protocol.codec import Record
from sequencer.protocol.constants import QueueState, Reason
from sequencer.protocol.entries import Underlying
from sequencer.protocol.state import State


def tick(state: State, record: Record) -> Reason:
    """TICK(time): opens the next tick. Time may stand still, never go back; the backlog drains with it."""
    (time,) = record.fields
    g = state.globals
    if time < g.time:
        return Reason.TIME_BACKWARDS
    if g.time:
        g.excess = max(0, g.excess - state.params.target_per_s * (time - g.time))
    g.time = time
    g.tick = min(g.tick + 1, c.U40_MAX)
    g.last_class = c.CLASS_SYSTEM
    update_state(state)
    return Reason.OK


def sequencing_fee(state: State) -> int:
    """What a PLACE pays for its place in the queue, 1e-6 USD: sequencing_fee_min x 2^(excess / fee_doubling_excess).

    The power is linear between whole doublings, rounded down, and stops at 2^FEE_DOUBLINGS_MAX.
    """
    params = state.params
    step = params.fee_doubling_excess
    doublings, rest = divmod(state.globals.excess, step)
    if doublings >= c.FEE_DOUBLINGS_MAX:
        return params.sequencing_fee_min << c.FEE_DOUBLINGS_MAX
    return (params.sequencing_fee_min << doublings) * (step + rest) // step


def count_order(state: State) -> None:
    """One more order in the backlog."""
    g = state.globals
    g.excess = min(g.excess + 1, c.U40_MAX)
    if g.excess == state.params.congested_excess or g.excess == state.params.restricted_excess:
        update_state(state)


def update_state(state: State) -> None:
    """State of the queue from its backlog and the breaker: the stricter one rules."""
    g = state.globals
    level = QueueState.NORMAL
    if g.excess >= state.params.restricted_excess:
        level = QueueState.RESTRICTED
    elif g.excess >= state.params.congested_excess:
        level = QueueState.CONGESTED
    g.queue_state = max(level, g.breaker_level)


def watch_velocity(state: State, underlying: Underlying, previous: int) -> None:
    """Breaker, at a new index: too far from the window's reference restricts or halts; a calm fresh one resumes.

    A window begins at the `previous` index (0 = none yet), so that a jump at its turn is seen like any other.
    """
    params, g = state.params, state.globals
    if (
        underlying.reference_price == 0
        or underlying.time - underlying.reference_time >= params.breaker_window_s
    ):
        underlying.reference_price = previous or underlying.index
        underlying.reference_time = underlying.time
    distance = abs(underlying.index - underlying.reference_price) * c.PPM
    if distance >= params.breaker_halt_ppm * underlying.reference_price:
        level = QueueState.HALTED
    elif distance >= params.breaker_restrict_ppm * underlying.reference_price:
        level = QueueState.RESTRICTED
    else:
        level = QueueState.NORMAL
    if level:
        g.breaker_level = max(g.breaker_level, level)
        g.breaker_until = min(g.time + params.breaker_cool_s, c.U32_MAX)
    elif g.time >= g.breaker_until:
        g.breaker_level = 0
    update_state(state)
