"""Which marks are too old to lend on.

The pages of an account are marked one by one, and whoever orders the records chooses when. If pages could stand at
different indices, or at volatilities of different times, whoever chooses could show a gain on one and hide the loss on
another. So a page is *old* when risk_age_max_s has passed since its RISK, or the index has since moved by more than
mark_move_max_ppm of itself; and it is *behind* when another of the account's pages of that underlying that are not old
was marked more than mark_skew_max_s later. Between underlyings nothing offsets, and the silence of one is no reason to
wait for the other. The marks of a fixed expiry never age.
"""

from sequencer.protocol import constants as c
from sequencer.protocol.entries import Account, Page
from sequencer.protocol.exposure import Sums
from sequencer.protocol.state import State


def is_old(state: State, page_id: int, page: Page) -> bool:
    """Whether a page's marks are too old by themselves."""
    moved = _has_moved(state, page_id >> 23, page.index, page.index)
    if page.time == c.MARKED_FOR_GOOD:
        return False
    return moved or page.time + state.params.risk_age_max_s < state.globals.time


def is_stale(state: State, sums: Sums) -> bool:
    """Whether any page that an account's sums rest on is old or behind."""
    params = state.params
    for number, one in sums.exposures.items():
        if one.newest == 0:  # settled pages alone
            continue
        if one.oldest + params.risk_age_max_s < state.globals.time:
            return True
        if one.newest - one.oldest > params.mark_skew_max_s:
            return True
        if _has_moved(state, number, one.index_low, one.index_high):
            return True
    return False


def pages_apart(state: State, account: Account) -> tuple[list[int], list[int]]:
    """The account's pages that are old, and those that are behind; ascending."""
    old: list[int] = []
    times: dict[int, int] = {}
    newest: dict[int, int] = {}  # by underlying
    for page_id in sorted({instrument >> 5 for instrument in account.positions}):
        page = state.page_of(page_id << 5)
        if is_old(state, page_id, page):
            old.append(page_id)
        elif page.time != c.MARKED_FOR_GOOD:
            times[page_id] = page.time
            newest[page_id >> 23] = max(newest.get(page_id >> 23, 0), page.time)
    skew = state.params.mark_skew_max_s
    return old, [page_id for page_id, time in times.items() if time + skew < newest[page_id >> 23]]


def are_apart(state: State, pages: list[Page]) -> bool:
    """Whether pages of one underlying, of which there is one, were not marked together: at two indices or two times."""
    low, high = min(page.index for page in pages), max(page.index for page in pages)
    if (high - low) * c.PPM > state.params.mark_move_max_ppm * low:
        return True
    times = [page.time for page in pages]
    return max(times) - min(times) > state.params.mark_skew_max_s


def unfit_pages(state: State, account: Account) -> list[int]:
    """The account's pages that are old or behind; ascending."""
    old, behind = pages_apart(state, account)
    return sorted(old + behind)


def _has_moved(state: State, number: int, low: int, high: int) -> bool:
    """Whether the index is farther from marks made at indices from `low` to `high` than mark_move_max_ppm of it."""
    underlying = state.underlying(number)
    assert underlying is not None  # a page has one
    index = underlying.index
    return max(high - index, index - low) * c.PPM > state.params.mark_move_max_ppm * index
