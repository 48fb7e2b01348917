"""Challenges of an honest day, as `fairstrike demo --attempts` makes them: all fail, and cost the sequencer nothing."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from sequencer.l1.follower import Follower, PostedBatch
from sequencer.local.attempts import HONEST, WAYS, Attempts, plan
from sequencer.local.devnet import devnet_signer
from sequencer.local.lie_demo import bent
from sequencer.local.lie_stage import CHALLENGER, Stage, stage
from sequencer.local.lies import LIES
from sequencer.market.tape import open_tape

ATTEMPTS = 52
SENT = 12


@pytest.fixture(scope="module")
def on() -> Iterator[Stage]:
    """An honest day, posted."""
    with stage("pyevm", open_tape(None, 1)) as built:
        built.post(built.perform(None)[1])
        yield built


def attempts(on: Stage, folder: Path) -> Attempts:
    return Attempts(on.chain.rpc, on.at, on.params, devnet_signer(CHALLENGER), folder)


def posted(on: Stage) -> list[PostedBatch]:
    return list(
        Follower(on.chain.rpc, on.at.inbox, on.at.rollup, on.at.deploy_block, 0).batches(on.at.deploy_block)
    )


def test_attempts__against_an_honest_day__all_fail_for_their_own_reasons(on: Stage, tmp_path: Path) -> None:
    balance = on.chain.rpc.balance(on.at.sequencer)
    report = attempts(on, tmp_path).run(ATTEMPTS, SENT)
    assert (report.alarms, report.challenges) == (0, 0)
    assert report.watched_batches == on.read("next_batch") - 1 > 0
    assert report.watched_records == sum(one.records for one in posted(on))
    assert report.attempted_challenges == report.failed_challenges == ATTEMPTS
    assert report.succeeded_challenges == report.sequencer_cost_wei == 0
    assert (report.attempts_sent, report.attempts_called) == (SENT, ATTEMPTS - SENT)
    assert report.attempted_batches == report.watched_batches
    assert report.is_unchanged
    assert report.held
    assert on.chain.rpc.balance(on.at.sequencer) == balance
    assert report.challenger_cost_wei > 0
    assert set(report.attempts_by_kind) == set(WAYS)
    # What is honest was looked at and found right; nothing failed for the hour or for want of a commitment.
    honest = sum(report.attempts_by_kind[name] for name in HONEST)
    assert report.attempts_by_reason["arbiter: no fraud"] >= honest > ATTEMPTS // 3
    assert not {"arbiter: batch is final", "arbiter: no commitment"} & set(report.attempts_by_reason)
    assert sum(report.attempts_by_reason.values()) == ATTEMPTS


def test_plan__of_many__goes_over_every_batch_and_kind_of_record(on: Stage) -> None:
    days = posted(on)
    trials = plan(days, 500, random.Random(7))
    assert len(trials) == 500
    assert {one.batch for one in trials} == set(range(len(days)))
    assert {one.way for one in trials} == set(WAYS)
    assert all(0 <= one.segment < days[one.batch].segments for one in trials)


def test_attempts__against_a_lie__are_not_all_in_vain(tmp_path: Path) -> None:
    """The counting can fail: a true challenge among the attempts succeeds, costs the bond and is told."""
    lie = LIES["header-time"]
    with stage("pyevm", open_tape(None, 1)) as on:
        on.post(bent(on.perform(lie)[1], lie))
        one = attempts(on, tmp_path)
        one.attempt(ATTEMPTS, ATTEMPTS)
    report = one.report
    assert report.succeeded_challenges == 1
    assert report.attempts_by_reason["it was rolled back"] == 1
    assert report.failed_challenges == ATTEMPTS - 1
    assert report.sequencer_cost_wei == 10**18
    assert not report.is_unchanged
    assert not report.held
