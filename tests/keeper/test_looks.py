"""Whom the keeper looks at: nobody below his margin is missed, few others are looked at, none stands before the large.

The twin is the naive scan: value every account, every time.
"""

import sys
from pathlib import Path
from random import Random

import pytest

from sequencer.keeper.index import Index
from sequencer.keeper.looks import ROUNDING, Looks, row_move, shortfall
from sequencer.protocol import margin
from sequencer.protocol.entries import NEVER, Account
from sequencer.protocol.state import State

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
from exchange import CALM, FAR, INDEX, NEAR, Exchange, examples

STEP = 50_000
PASS = 7  # looks in one call, none of which goes round


class World:
    """Accounts with random books on two pages, and an index of them."""

    def __init__(self, seed: int, accounts: int) -> None:
        self.random = Random(seed)
        self.exchange = Exchange(audits=False, **CALM)
        self.instruments = self.exchange.open(
            *((day, INDEX + step * STEP, put) for day in (NEAR, FAR) for step in (-8, 0, 5) for put in (0, 1))
        )
        self.state = self.exchange.state
        for number in range(1, accounts + 1):
            self.change(number)
        self.index = Index(self.state, 1_000, 900)

    @property
    def looks(self) -> Looks:
        return self.index.looks

    def change(self, number: int) -> None:
        """Another book, with anything from nothing to twice the margin behind it; some are under auction."""
        draw, state = self.random, self.state
        account = Account(number.to_bytes(20, "big"))
        account.reserved = draw.choice((0, 0, draw.randrange(10**9)))
        for instrument in draw.sample(self.instruments, draw.choice((0, 1, 1, 2, 3, 6))):
            account.positions[instrument] = draw.choice((-1, 1)) * draw.choice((1, 100, 10_000, 500_000))
        account.auction_start = int(bool(account.positions) and draw.random() < 0.2)
        margin.refresh(state, account)
        need = margin.maintenance(state, account) + account.reserved
        account.cash = need - margin.equity(account) + int(need * draw.uniform(-0.1, 2))
        account.epoch = NEVER
        state.put_account(number, account)

    def mark(self, move: float, count: int = 0) -> None:
        """The index moves by a part of itself at most, and one page or both, or `count`, are marked anew."""
        price = self.state.underlyings[0].index
        self.exchange.feeds(int(price * (1 + self.random.uniform(-move, move))))
        for page in self.random.sample(list(self.state.pages), count or self.random.choice((1, 2))):
            self.exchange.risk(page << 5)

    def short(self) -> set[int]:
        """The naive scan."""
        return {number for number, one in self.state.accounts.items() if shortfall(self.state, one) > 0}

    def work_off(self) -> int:
        """Looks at all that must be, and at nobody else; how many looks."""
        looks = 0
        while taken := self.looks.look(self.state.globals.time, PASS):
            looks += taken
        return looks


@pytest.mark.parametrize("seed", range(examples(6)))
@pytest.mark.parametrize("move", [0.0005, 0.01, 0.15])
def test_accounts_below_their_margin__are_found_without_the_others_being_looked_at(
    seed: int, move: float
) -> None:
    world = World(seed, 60)
    world.work_off()
    looks = 0
    for _ in range(40):
        world.mark(move)
        for _ in range(world.random.choice((0, 0, 3))):
            world.change(world.random.randrange(1, 61))
        world.index.update()
        looks += world.work_off()
        assert world.short() <= world.looks.short.keys()
        assert set(world.looks.proposals(60)) == world.short()
        assert world.looks.short.keys() == world.short()
        assert world.looks.by_page == naive_by_page(world.state)
        assert world.looks.auctions.keys() == {
            number for number, one in world.state.accounts.items() if one.auction_start
        }
    if move < 0.001:
        assert looks < 40 * 60 // 4


def naive_by_page(state: State) -> dict[int, dict[int, None]]:
    found: dict[int, dict[int, None]] = {}
    for number, account in state.accounts.items():
        for page_id in {instrument >> 5 for instrument in account.positions}:
            found.setdefault(page_id, {})[number] = None
    return found


@pytest.mark.parametrize("seed", range(examples(4)))
def test_move_of_a_pages_rows__bounds_what_any_account_loses_by_it(seed: int) -> None:
    world = World(seed, 60)
    state = world.state
    for move in (0.0001, 0.003, 0.05, 0.3):
        before = {number: shortfall(state, one) for number, one in state.accounts.items()}
        pages = {key: (page.rows, page.index, page.forward) for key, page in state.pages.items()}
        world.mark(move, count=2)
        moved = {
            key: row_move(
                state,
                key >> 23,
                rows,
                state.pages[key].rows,
                abs(state.pages[key].index - index),
                abs(state.pages[key].forward - forward),
            )
            for key, (rows, index, forward) in pages.items()
        }
        for number, account in state.accounts.items():
            bound = sum(abs(lots) * moved[one >> 5] for one, lots in account.positions.items()) + ROUNDING
            change = shortfall(state, account) - before[number]
            assert abs(change) <= bound or (account.auction_start and abs(change) <= bound + 1)


def test_account__has_its_turn_whatever_waits_before_it() -> None:
    """More accounts change before every pass than it looks at; the smallest, whose loss nothing tells, is found."""
    world = World(1, 200)
    state, account, number, looks_max = world.state, world.state.accounts[200], 200, 16
    account.positions = {world.instruments[1]: 1}
    account.reserved = account.auction_start = 0
    state.put_account(number, account)
    world.index.update()
    world.work_off()
    account.cash -= 10**12
    for _ in range(-(-8 * len(world.looks) // looks_max)):
        for other in world.random.sample(range(1, 200), 60):
            world.change(other)
        world.index.update()
        assert looks_max // 2 < world.looks.look(state.globals.time, looks_max) <= looks_max
        if number in world.looks.short:
            break
    assert number in world.looks.short


def test_move_of_a_row__counts_its_mark_its_scenarios_and_the_index() -> None:
    state = World(0, 0).state
    flat, bent = (0,) * 16, (0,) * 15 + (-40,)
    assert row_move(state, 0, [(100, flat)], [(100, flat)], 0, 0) == 0
    assert row_move(state, 0, [(100, flat)], [(130, flat)], 0, 0) == 30 + 30
    assert row_move(state, 0, [(130, flat)], [(100, bent)], 0, 0) == 30 + 3 * 40
    assert row_move(state, 0, [(100, flat), (5, bent)], [(130, flat), (5, flat)], 0, 0) == 3 * 40
    assert (
        row_move(state, 0, [(100, flat)], [(100, flat), (9_999, bent)], 0, 0) == 0
    )  # nobody holds what had no mark
    floor, third = state.params.of(1).short_floor_ppm, state.params.of(1).price_range_ppm // 3
    assert row_move(state, 1, [(100, flat)], [(100, flat)], 1_000, 0) == -(-1_000 * floor // 1_000_000)
    assert row_move(state, 1, [(100, flat)], [(100, flat)], 0, 1_000) == -(-1_000 * third // 1_000_000)


def test_looks__are_taken_by_what_may_be_lost_largest_first() -> None:
    """A thousand accounts at the edge of their margin do not keep the keeper from the one that matters."""
    world = World(2, 0)
    state, instrument = world.state, world.instruments[0]

    def writer(number: int, lots: int) -> None:
        account = Account(number.to_bytes(20, "big"))
        account.positions[instrument] = -lots
        margin.refresh(state, account)
        account.cash = margin.maintenance(state, account) - margin.equity(account)
        state.put_account(number, account)

    for number in range(1, 1_001):
        writer(number, 100)
    writer(1_001, 100_000)
    world.index.update()
    world.work_off()
    world.exchange.remark(state.underlyings[0].index * 11 // 10)
    world.index.update()
    assert len(world.short()) == 1_001
    assert world.looks.look(state.globals.time, 8) == 8
    assert world.looks.is_behind
    assert 1_001 in world.looks.short
    assert next(iter(world.looks.proposals(1))) == 1_001
    world.work_off()
    assert not world.looks.is_behind


def test_proposals__that_are_refused__do_not_stand_before_the_others() -> None:
    world = World(3, 60)
    world.work_off()
    short = world.short()
    assert len(short) > 4
    seen: set[int] = set()
    for _ in range(-(-len(short) // 2)):
        seen.update(world.looks.proposals(2))
    assert seen == short


def test_page__that_goes_stale_or_is_fresh_again__has_all_its_holders_looked_at() -> None:
    world = World(4, 60)
    world.work_off()
    state = world.state
    held = {number for one in world.looks.by_page.values() for number in one}
    world.exchange.tick(state.params.risk_age_max_s + 5)
    assert world.work_off() >= len(held - world.looks.short.keys())
    assert world.work_off() == 0
    world.exchange.remark()
    world.index.update()
    assert world.work_off() >= len(held - world.looks.short.keys())


def test_index__of_accounts_that_come_and_go__does_not_grow() -> None:
    world = World(5, 30)
    world.work_off()
    for _ in range(400):
        world.change(world.random.randrange(1, 31))
        world.index.update()
        world.work_off()
    entries = sum(len(heap) for limits in world.looks._limits.values() for heap in limits.values())
    assert entries <= 3 * (2 * 30 + 64)
    assert len(world.looks) == sum(
        bool(one.positions or one.cash < one.reserved) for one in world.state.accounts.values()
    )


def test_auctions__come_by_size_and_in_turn() -> None:
    """As many as there may be do not keep the liquidator from the largest, nor from any for long."""
    world = World(6, 0)
    state, instrument = world.state, world.instruments[0]
    for number in range(1, 101):
        account = Account(number.to_bytes(20, "big"))
        account.positions[instrument] = -(1_000_000 if number == 50 else 1)
        account.auction_start = 1
        state.put_account(number, account)
    world.index.update()
    assert set(world.looks.some_auctions(100)) == set(range(1, 101))
    seen: set[int] = set()
    for _ in range(20):
        some = world.looks.some_auctions(10)
        assert 50 in some
        assert len(some) <= 10
        seen.update(some)
    assert seen == set(range(1, 101))
