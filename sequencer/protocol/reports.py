"""What the feeds' reports make together: index, forward, variance of a strike. Twin: `contracts/lib/reports.vy`.

Only reports that are fresh now count, and no fewer than the quorum. Of all feeds the middle one rules: while those that
the quorum can do without lie, what comes out lies between two honest ones. Where some are missing, the liars may be
most of the rest. Then the two that are sure to have an honest one at or below and at or above them must agree within a
bound of PARAMS, or nothing comes out: liars can stop the market, and cannot set it.
"""

from typing import Final

from sequencer.protocol import constants as c
from sequencer.protocol import surface
from sequencer.protocol.black76 import TICK_E10, price_e10
from sequencer.protocol.entries import Expiry, SurfaceReport, Underlying
from sequencer.protocol.params import Params

try:
    from sequencer._kernel import black76_kernel as _kernel
except ImportError:  # not built, or FAIRSTRIKE_PURE=1
    _kernel = None  # type: ignore[assignment]  # a module or nothing

_STRIKE: Final = (1 << 31) - 1


def quorum(params: Params) -> int:
    """Fresh reports that an index or a mark needs: `feed_quorum`, or the majority of the configured feeds."""
    return params.feed_quorum or len(params.feed_keys) // 2 + 1


def quorum_time(times: list[int], params: Params) -> int:
    """Time (seconds) since which a quorum of feeds has reported; 0: never. `times`: of FEEDS_MAX feeds, 0 = none."""
    return sorted(times)[c.FEEDS_MAX - quorum(params)]


def index_of(underlying: Underlying, params: Params, now: int) -> int:
    """The index (ticks) by the reports fresh at `now`; 0: fewer than the quorum, or they disagree.

    Between the two that are sure it stays where it is, and else moves to the nearer one: liars can hold it there, and
    cannot lead it away. The first index ever is the lower one.
    """
    fresh = sorted(
        price for price, time in underlying.reports if price and time + params.feed_age_max_s >= now
    )
    if len(fresh) < quorum(params):
        return 0
    low, high = _sure(fresh, params)
    if (high - low) * c.PPM > params.feed_spread_max_ppm * low:
        return 0
    return min(max(underlying.index, low), high)


def fresh_surfaces(expiry: Expiry, params: Params, now: int) -> list[SurfaceReport]:
    """The reports on an expiry that are not older than `surface_age_max_s` at `now`, by feed."""
    oldest = now - params.surface_age_max_s
    return [report for report in expiry.reports if report is not None and report.time >= oldest]


def forward_of(fresh: list[SurfaceReport], index: int, params: Params) -> int:
    """Median of the forwards (ticks) that the reports' ratios give at `index`; 0: they disagree.

    Each is index x reported forward / reported index, rounded half up, in 1..2^32 - 1; the mean of
    the two that are sure, floored. `fresh`: one at least.
    """
    moved = sorted(
        min(max((2 * index * one.forward + one.index) // (2 * one.index), 1), c.U32_MAX) for one in fresh
    )
    low, high = _sure(moved, params)
    if (high - low) * c.PPM > params.feed_spread_max_ppm * low:
        return 0
    return (low + high) // 2


def variances_of(
    fresh: list[SurfaceReport],
    terms: list[int],
    forward: int,
    index: int,
    expires: int,
    now: int,
    params: Params,
) -> dict[int, int]:
    """`variance_of` each strike of a page, whose terms are strike | put << 31. A call and a put share it."""
    if _kernel is not None:
        low, high = _places(len(fresh), params)
        found = _kernel.variances(
            terms,
            [_flat(one, expires) for one in fresh],
            forward,
            index,
            expires - now,
            low,
            high,
            params.variance_spread_max_ppm,
            params.mark_spread_max_ppm,
        )
        if found is not None:
            return found
    return variances_in_python(fresh, terms, forward, index, expires, now, params)


def variances_in_python(
    fresh: list[SurfaceReport],
    terms: list[int],
    forward: int,
    index: int,
    expires: int,
    now: int,
    params: Params,
) -> dict[int, int]:
    """What `variances_of` is without the kernel."""
    strikes = dict.fromkeys(word & _STRIKE for word in terms)
    return {strike: variance_of(fresh, strike, forward, index, expires, now, params) for strike in strikes}


def _flat(report: SurfaceReport, expires: int) -> tuple[int, int, int, int, int, int, int]:
    """A report as the kernel takes it."""
    shape = report.surface
    return (
        report.forward,
        expires - report.time,
        shape.a_e12,
        shape.b_e12,
        shape.rho_e12,
        shape.m_e12,
        shape.sigma_e12,
    )


def variance_of(
    fresh: list[SurfaceReport], strike: int, forward: int, index: int, expires: int, now: int, params: Params
) -> int:
    """Median of the variances (1e-12) that the reports give a strike for the time left; 0: they disagree.

    Each is its surface's at ln(strike / its own reported forward), scaled from the time left at its report to that
    left now. The two that are sure agree within `variance_spread_max_ppm` of the lower, or when the prices
    that they make at `forward` do within `mark_spread_max_ppm` of the index (a far wing is worth nothing, whatever its
    variance); then it is their mean, floored. `fresh`: one at least; now < expires.
    """
    found = sorted(
        surface.at_time(
            surface.variance_e12(one.surface, one.forward, strike), expires - one.time, expires - now
        )
        for one in fresh
    )
    low, high = _sure(found, params)
    if (high - low) * c.PPM > params.variance_spread_max_ppm * low:
        cheap, dear = (price_e10(forward, strike, False, variance) for variance in (low, high))
        if (dear - cheap) * c.PPM > params.mark_spread_max_ppm * index * TICK_E10:
            return 0
    return (low + high) // 2


def _sure(ordered: list[int], params: Params) -> tuple[int, int]:
    """The two of rising numbers that bound what is sure."""
    low, high = _places(len(ordered), params)
    return ordered[low], ordered[high]


def _places(count: int, params: Params) -> tuple[int, int]:
    """Places of the two of `count` rising numbers that bound what is sure, whichever are lies.

    There are up to f = feeds - quorum of those. Of the count - f honest ones one at least is not above place f, and one
    not below place count - 1 - f. Of all feeds both are the median; of fewer they are never closer together than the
    middle two.
    """
    lies = len(params.feed_keys) - quorum(params)
    low = max(min(count - 1 - lies, (count - 1) // 2), 0)
    return low, min(max(lies, count // 2), count - 1)
