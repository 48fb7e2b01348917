"""The exchange's time is held against the monotonic clock and against L1's: a clock that jumps gives none."""

import pytest

from sequencer.clock import AGREES_S, ClockStopped, L1Clock

START_S = 1_700_000_000
AHEAD_MAX_S = 60


class Machine:
    """Two clocks, moved by hand."""

    def __init__(self) -> None:
        self.wall_s = float(START_S)
        self.passed_s = 50.0
        self.clock = L1Clock(lambda: self.wall_s, lambda: self.passed_s)

    def passes(self, seconds: float) -> None:
        self.wall_s += seconds
        self.passed_s += seconds

    def block(self, late_s: float = 0.0) -> None:
        """L1 makes a block whose time is `late_s` before the machine's."""
        self.clock.see_l1(int(self.wall_s - late_s), AHEAD_MAX_S)


@pytest.fixture
def machine() -> Machine:
    made = Machine()
    made.block()
    assert made.clock.now_s() == START_S
    return made


def test_time__goes_on_with_and_without_l1(machine: Machine) -> None:
    for _ in range(10_000):
        machine.passes(0.9)
        assert machine.clock.now_s() == int(machine.wall_s)


def test_time__before_l1_has_said_any__is_none() -> None:
    machine = Machine()
    with pytest.raises(ClockStopped, match="L1 has not said its time"):
        machine.clock.now_s()
    machine.block()
    assert machine.clock.now_s() == START_S


@pytest.mark.parametrize("jump_s", [3_600, 86_400, 40 * 86_400, -3_600, 2])
def test_jump__for_three_seconds__stops_the_time_and_leaves_nothing_behind(
    machine: Machine, jump_s: int
) -> None:
    machine.passes(5)
    machine.clock.now_s()
    machine.wall_s += jump_s
    for _ in range(6):
        machine.passes(0.5)
        with pytest.raises(ClockStopped, match=rf"jumped by \{jump_s:+d} s"):
            machine.clock.now_s()
    machine.wall_s -= jump_s
    assert machine.clock.now_s() == START_S + 8


def test_jump__while_l1_is_silent__lasts(machine: Machine) -> None:
    machine.wall_s += 100
    for _ in range(1_000):
        machine.passes(1)
        with pytest.raises(ClockStopped):
            machine.clock.now_s()


def test_jump__onto_l1s_time__is_believed_from_its_next_block_on(machine: Machine) -> None:
    """A machine that slept, or whose clock was set right."""
    machine.wall_s += 3_600
    with pytest.raises(ClockStopped):
        machine.clock.now_s()
    machine.passes(2)
    machine.block(late_s=AGREES_S - 5)
    assert machine.clock.now_s() == START_S + 3_602
    machine.passes(100)
    assert machine.clock.now_s() == START_S + 3_702


def test_clock__ahead_of_l1_from_the_start__gives_no_time_until_they_agree() -> None:
    machine = Machine()
    machine.block(late_s=3_600)
    with pytest.raises(ClockStopped, match="3600 s ahead of L1, which takes 60 s"):
        machine.clock.now_s()
    machine.passes(12)
    machine.block(late_s=0)
    assert machine.clock.now_s() == START_S + 12


def test_clock__that_creeps_ahead__stops_where_l1_would_refuse_its_batches(machine: Machine) -> None:
    """A little at a time is no jump."""
    for _ in range(2 * AHEAD_MAX_S):
        assert machine.clock.now_s() <= START_S + AHEAD_MAX_S
        machine.wall_s += 0.5
    machine.wall_s += 0.5
    with pytest.raises(ClockStopped, match="ahead of L1"):
        machine.clock.now_s()


def test_nodes__some_blocks_behind_each_other__hold_no_time_up(machine: Machine) -> None:
    for _ in range(200):
        machine.passes(3)
        machine.block()
        machine.block(late_s=24)
        assert machine.clock.now_s() == int(machine.wall_s)
