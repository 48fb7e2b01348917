"""What the feeds' numbers make together, whichever of them lie and whichever are missing."""

from itertools import combinations

import pytest

from sequencer.protocol import reports
from sequencer.protocol.params import Params

HONEST = (1_000, 1_001, 1_002, 1_003, 1_004)
LIES = (1, 999, 1_002, 10**9)


def params(feeds: int, quorum: int = 0) -> Params:
    return Params(feed_keys=tuple(bytes([feed + 1]) * 20 for feed in range(feeds)), feed_quorum=quorum)


@pytest.mark.parametrize(
    ("feeds", "quorum"), [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (3, 3), (5, 4), (5, 5)]
)
def test_sure__whichever_feeds_lie_and_are_missing__has_an_honest_number_within(
    feeds: int, quorum: int
) -> None:
    rules = params(feeds, quorum)
    lies_max = feeds - reports.quorum(rules)
    for count in range(reports.quorum(rules), feeds + 1):
        for fresh in combinations(range(feeds), count):
            for liars in combinations(fresh, min(lies_max, count)):
                for lie in LIES:
                    ordered = sorted(lie if feed in liars else HONEST[feed] for feed in fresh)
                    low, high = reports._sure(ordered, rules)
                    honest = [HONEST[feed] for feed in fresh if feed not in liars]
                    assert low <= high
                    assert low <= max(honest)
                    assert high >= min(honest)
                    if count == feeds:
                        assert (low, high) == (ordered[(count - 1) // 2], ordered[count // 2])


def test_sure__two_liars_and_one_honest_of_five__must_all_agree() -> None:
    assert reports._sure([100, 5_000, 5_001], params(5)) == (100, 5_001)
