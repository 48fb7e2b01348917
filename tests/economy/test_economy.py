"""The economy fuzz finds rules that are wrong, and its own parts say what they should."""

from __future__ import annotations

import json
from random import Random
from typing import Final

import pytest
from click.testing import CliRunner

from sequencer.cli import main
from tests.economy.episodes import draw, fuzz, play
from tests.economy.moves import MOVES, PLANS
from tests.economy.planted import PLANTED
from tests.economy.truth import Truth
from tests.economy.world import TODAY, Setting, World

SEEDS_MAX: Final = 4
STEPS: Final = 40_000

pytestmark = pytest.mark.fuzz


@pytest.mark.pure  # compiled rules call each other directly, whatever stands in their modules
@pytest.mark.parametrize("name", PLANTED)
def test_rule__made_wrong_on_purpose__is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, invariants, moves = PLANTED[name]
    plant(monkeypatch)
    for seed in range(1, SEEDS_MAX + 1):
        found = fuzz(STEPS, seed, moves, shrinks=0, is_one_enough=True)["violations"]
        if any(one["invariant"] in invariants for one in found):
            return
    pytest.fail(f"{name}: not found in {SEEDS_MAX} seeds of {STEPS:,} steps")


def test_episode__drawn_again__is_the_same_to_the_last_record() -> None:
    first, second = play(draw(3, 5)), play(draw(3, 5))
    assert (first.steps, first.found, first.gain) == (second.steps, second.found, second.gain)
    assert first.steps >= 800


def test_moves__each_runs_and_lets_time_pass() -> None:
    for name, (move, weight) in MOVES.items():
        assert weight > 0
        world = World(Setting(feeds=3, liars=(2,)), Random(1))
        for turn, _ in enumerate(move(world, Random(2))):
            assert not world.state.globals.taker, name
            if turn == 3:
                break
    assert all(name in MOVES for plan in PLANS for name in plan)


def test_truth__put_and_call_differ_by_the_forward() -> None:
    truth = Truth(TODAY * 86_400, [5_000_000.0, 300_000.0], [0.6, 0.8], [0.0, 0.0], 2_592_000, 0.3)
    truth.open(TODAY + 7, 7)
    call, put = (truth.fair(TODAY + 7, 5_100_000, is_put) for is_put in (False, True))
    assert call - put == pytest.approx(truth.forward(TODAY + 7) - 5_100_000)
    assert 0 < call < put


def test_probe__leaves_no_trace() -> None:
    script = draw(2, 1)
    world = World(script.setting, Random(1))
    member, other = world.members[:2]
    instrument = world.tradable(0)[0]
    world.trade(other, member, instrument, world.mark(instrument), 1_000)
    account = world.state.accounts[member]
    account.cash -= world.equity(member)  # below MM, as a probe wants it

    def all_of_it() -> tuple[bytes, int, set[int]]:
        for number, one in list(world.state.accounts.items()):
            world.state.put_account(number, one)
        return world.state.root(), world.steps, set(world.state.holders)

    before = all_of_it()
    assert world.books._try(member) == ""
    assert world.state.accounts[member] is account
    assert all_of_it() == before


def test_command__writes_one_object() -> None:
    done = CliRunner(mix_stderr=False).invoke(
        main, ["fuzz", "--economy", "--steps", "2000", "--seed", "4", "--json", "-"]
    )
    result = json.loads(done.stdout)
    assert result["steps"] >= 2_000
    assert isinstance(result["violations"], list)
    assert result["coalition_gain_max"] >= 0
    assert done.exit_code == (1 if result["violations"] else 0)
