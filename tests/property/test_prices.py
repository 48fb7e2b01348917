"""What feeds that lie can do to a number that reaches a mark: nothing beyond what the honest ones report there."""

import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.protocol import codec, surface
from sequencer.protocol import constants as c
from sequencer.protocol.black76 import price_e10, to_ticks
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.entries import Expiry, SurfaceReport
from sequencer.protocol.params import Params
from sequencer.protocol.state import State, expiry_time
from sequencer.protocol.transition import apply

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
from exchange import CALM, DOMAIN, FAR, INDEX, START, address, examples

KEYS = tuple(address(f"feed {feed}") for feed in range(c.FEEDS_MAX))
STRIKES = tuple(INDEX * percent // 100 // 50_000 * 50_000 for percent in (30, 70, 100, 130, 300))

near_index = st.integers(INDEX * 999 // 1_000, INDEX * 1_001 // 1_000)
HONEST = st.fixed_dictionaries(
    {
        "price": near_index,
        "forward": near_index | st.integers(INDEX * 95 // 100, INDEX * 105 // 100),
        "index": near_index,
        "a": st.integers(10**9, 5 * 10**10),
        "b": st.integers(0, 2 * 10**11),
        "rho": st.integers(-(10**12), 10**12),
        "m": st.integers(-(10**11), 10**11),
        "sigma": st.integers(10**9, 5 * 10**11),
    }
)
anything = st.integers(-(2**63), 2**63 - 1)


@st.composite
def lies(draw: st.DrawFn) -> dict[str, int]:
    """Any report that can be encoded; most pass the bounds, and stand at them."""
    index = draw(st.sampled_from([1, INDEX, c.U32_MAX // 2]) | st.integers(1, c.U32_MAX))
    forward = index + index * draw(st.sampled_from([-250_000, 0, 250_000, 250_001])) // c.PPM
    said = {
        "price": draw(st.sampled_from([1, c.U32_MAX, 0]) | near_index),
        "forward": min(forward, c.U32_MAX),
        "index": index,
        "a": draw(st.sampled_from([0, 1, 16 * 10**12, -(10**11)]) | st.integers(0, 10**12)),
        "b": draw(st.sampled_from([0, 10**12, 2 * 10**12])),
        "rho": draw(st.sampled_from([0, 10**12, -(10**12)])),
        "m": draw(st.sampled_from([0, 16 * 10**12, -16 * 10**12])),
        "sigma": draw(st.sampled_from([1, 10**12, 16 * 10**12])),
    }
    for name in draw(st.sampled_from([(), (), ("a",), ("b", "rho"), ("m",), ("sigma",)])):
        said[name] = draw(anything)
    return said


class Feeds:
    """A state with marks by five feeds, to which others are then put."""

    def __init__(self) -> None:
        self.state = State(DOMAIN, Params(feed_keys=KEYS, **CALM), (0,))
        self.now = START
        self.do(codec.encode(Kind.TICK, time=START))
        for feed in range(c.FEEDS_MAX):
            self.report(feed, START, {"price": INDEX})
        for strike in STRIKES:
            for put in (0, 1):
                listed = codec.encode(Kind.LIST, underlying=0, day=FAR, put=put, strike=strike)
                assert self.do(listed) is Reason.OK

    def do(self, raw: bytes, signer: bytes | None = None) -> Reason:
        return apply(self.state, raw, signer).reason

    def later(self, seconds: int) -> None:
        self.now += seconds
        self.do(codec.encode(Kind.TICK, time=self.now))

    def report(self, feed: int, time: int, said: dict[str, int]) -> None:
        """A price, and with it a surface where there is one."""
        head = {"underlying": 0, "feed": feed, "time": time}
        self.do(codec.encode(Kind.FEED, price=said["price"], **head), KEYS[feed])
        if len(said) > 1:
            fields = {name: value for name, value in said.items() if name != "price"}
            self.do(codec.encode(Kind.SURFACE, day=FAR, **head, **fields), KEYS[feed])

    def marked(self) -> Reason:
        return self.do(codec.encode(Kind.RISK, underlying=0, day=FAR, page=0))

    @property
    def expiry(self) -> Expiry:
        return self.state.expiries[FAR]

    def variances(self, reports: list[SurfaceReport], strike: int) -> list[int]:
        ends = expiry_time(FAR)
        return [
            surface.at_time(
                surface.variance_e12(one.surface, one.forward, strike), ends - one.time, ends - self.now
            )
            for one in reports
        ]

    def forwards(self, reports: list[SurfaceReport]) -> list[int]:
        index = self.state.underlyings[0].index
        return [max((2 * index * one.forward + one.index) // (2 * one.index), 1) for one in reports]


@settings(max_examples=examples(150), deadline=None)
@given(st.data(), st.sampled_from([(2, 0), (3, 0), (4, 1), (5, 1), (5, 2)]), st.integers(0, 1_700))
def test_marks__while_fewer_than_half_of_the_feeds_lie__lie_between_honest_ones(
    data: st.DataObject, counts: tuple[int, int], age_s: int
) -> None:
    reporting, lying = counts
    feeds = Feeds()
    feeds.later(feeds.state.params.surface_age_max_s + 1)  # who reports no more is silent
    order = data.draw(st.permutations(range(c.FEEDS_MAX)))
    liars, honest = order[:lying], order[lying:reporting]
    said = {feed: data.draw(lies() if feed in liars else HONEST) for feed in order[:reporting]}
    for feed in data.draw(st.permutations(order[:reporting])):
        back = data.draw(st.integers(0, 10**6)) if feed in liars else data.draw(st.integers(0, 60))
        feeds.report(feed, feeds.now - back, said[feed])
    index = feeds.state.underlyings[0].index
    prices = [said[feed]["price"] for feed in honest]
    assert index == INDEX or min(prices) <= index <= max(prices)
    feeds.later(min(age_s, feeds.state.params.feed_age_max_s - 60))
    reason = feeds.marked()
    page = feeds.state.pages[FAR << 7]
    if reason is not Reason.OK:
        assert reason in (Reason.NO_INDEX, Reason.NO_SURFACE, Reason.FEEDS_DISAGREE)
        assert page.marked == 0
        return
    reports = [one for feed in honest if (one := feeds.expiry.reports[feed]) is not None]
    forwards = feeds.forwards(reports)
    assert min(forwards) <= page.forward <= max(forwards)
    for terms, (mark, _) in zip(page.terms, page.rows, strict=True):
        strike, is_put = terms & 0x7FFF_FFFF, bool(terms >> 31)
        variances = feeds.variances(reports, strike)
        ends = (max(forwards), min(forwards)) if is_put else (min(forwards), max(forwards))
        low, high = (
            to_ticks(price_e10(forward, strike, is_put, variance))
            for forward, variance in zip(ends, (min(variances), max(variances)), strict=True)
        )
        assert low <= mark <= high


@settings(max_examples=examples(150), deadline=None)
@given(st.data(), HONEST, lies(), st.booleans())
def test_marks__while_one_of_two_lies__are_none_or_near_the_honest_ones(
    data: st.DataObject, truth: dict[str, int], lie: dict[str, int], is_near: bool
) -> None:
    feeds = Feeds()
    feeds.state.params = params = Params(feed_keys=KEYS[:3], **CALM)
    feeds.later(params.surface_age_max_s + 1)
    if is_near:  # a lie that stays within the bounds, or nearly
        most = {"price": 5_100, "forward": 2_600, "index": 2_600}  # ppm
        lie = {
            name: value
            + value * data.draw(st.integers(-most.get(name, 120_000), most.get(name, 120_000))) // c.PPM
            for name, value in truth.items()
        }
    for feed, said in enumerate(data.draw(st.permutations([truth, lie]))):
        feeds.report(feed, feeds.now, said)
        honest_at = feed if said is truth else 1 - feed
    index, spread = feeds.state.underlyings[0].index, params.feed_spread_max_ppm
    assert index == INDEX or abs(index - truth["price"]) * c.PPM <= spread * max(index, truth["price"])
    if feeds.marked() is not Reason.OK:
        return
    page, report = feeds.state.pages[FAR << 7], feeds.expiry.reports[honest_at]
    assert report is not None
    (forward,) = feeds.forwards([report])
    assert abs(page.forward - forward) * c.PPM * 2 <= spread * max(page.forward, forward) + c.PPM
    for terms, (mark, _) in zip(page.terms, page.rows, strict=True):
        strike, is_put = terms & 0x7FFF_FFFF, bool(terms >> 31)
        (variance,) = feeds.variances([report], strike)
        step = params.variance_spread_max_ppm * variance // (2 * c.PPM) + 1
        worth = [
            to_ticks(price_e10(page.forward, strike, is_put, one))
            for one in (max(variance - step, 1), variance + step)
        ]
        slack = params.mark_spread_max_ppm * index // c.PPM + 1
        assert worth[0] - slack <= mark <= worth[1] + slack
