"""Silence: the leader's is counted, a node's own sleep is not."""

import pytest

from sequencer.node.silence import STILL_S, Silence

LOOK_S = 0.05


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def watched(silence: Silence, hand: Hand, seconds: float) -> None:
    """The node runs for so long."""
    for _ in range(round(seconds / LOOK_S)):
        hand.now_s += LOOK_S
        silence.look()


def test_silence__of_a_leader_that_is_gone__grows_with_the_clock() -> None:
    hand = Hand()
    silence = Silence(hand)
    watched(silence, hand, 3)
    assert silence.silent_s == pytest.approx(3)
    silence.heard()
    watched(silence, hand, 1)
    assert silence.silent_s == pytest.approx(1)


def test_silence__while_the_node_itself_is_stopped__is_not_the_leaders() -> None:
    hand = Hand()
    silence = Silence(hand)
    watched(silence, hand, 0.2)
    hand.now_s += 3600
    silence.look()
    assert silence.silent_s == pytest.approx(0.2)
    watched(silence, hand, 1)
    assert silence.silent_s == pytest.approx(1.2)  # and a leader that has died meanwhile is missed soon


def test_silence__of_a_node_that_is_slow__still_grows() -> None:
    hand = Hand()
    silence = Silence(hand)
    for _ in range(100):
        hand.now_s += STILL_S * 0.9
        silence.look()
    assert silence.silent_s == pytest.approx(45)


def test_silence__when_the_leader_was_heard_as_the_node_woke__is_never_negative() -> None:
    hand = Hand()
    silence = Silence(hand)
    hand.now_s += 60
    silence.heard()
    silence.look()
    assert silence.silent_s == 0
