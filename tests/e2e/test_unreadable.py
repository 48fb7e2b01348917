"""A node, or a decoder, that cannot show a batch: heard by people, looked at again, and no end of the watching."""

import contextlib
import html
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sequencer.l1.errors import L1Error
from sequencer.l1.rpc import Rpc
from sequencer.local.devnet import devnet_signer
from sequencer.local.lie_demo import bent, chained
from sequencer.local.lie_stage import CHALLENGER, LATE_S, Stage, stage
from sequencer.local.lies import LIES
from sequencer.market.tape import open_tape
from sequencer.node.standby import Standby, StandbyConfig
from sequencer.proof.status_page import headline, metrics, page
from sequencer.proof.watcher import WatchConfig, Watcher

STANDBY = 7
WRONG_BATCH = 2


@pytest.fixture(scope="module")
def staged() -> Iterator[Stage]:
    with stage("pyevm", open_tape(None, 1)) as built:
        yield built


@pytest.fixture
def on(staged: Stage) -> Iterator[Stage]:
    before = staged.chain.snapshot()
    yield staged
    staged.chain.revert(before)


@dataclass
class Faulty:
    """While it is open, every answer of L1 to `method` is spoilt."""

    spoil: Callable[[Any], Any]
    method: str

    def __enter__(self) -> "Faulty":
        self._call, self._batch = Rpc.call, Rpc.batch
        of = self

        def call(rpc: Rpc, method: str, *params: Any) -> Any:
            found = of._call(rpc, method, *params)
            return of.spoil(found) if method == of.method else found

        def batch(rpc: Rpc, calls: Any) -> list[Any]:
            found = of._batch(rpc, calls)
            return [
                of.spoil(one) if asked[0] == of.method else one
                for asked, one in zip(calls, found, strict=True)
            ]

        Rpc.call, Rpc.batch = call, batch  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        Rpc.call, Rpc.batch = self._call, self._batch  # type: ignore[method-assign]


def another_payload(transaction: Any) -> Any:
    return {**transaction, "input": transaction["input"][:-128] + "55" * 64}


def another_call(transaction: Any) -> Any:
    return {**transaction, "input": "0x12345678" + transaction["input"][10:]}


def no_hex(transaction: Any) -> Any:
    return {**transaction, "input": "0xzz"}


def no_input(transaction: Any) -> Any:
    return {name: value for name, value in transaction.items() if name != "input"}


def cut_logs(logs: Any) -> Any:
    return [{**one, "data": one["data"][:-64]} for one in logs] if isinstance(logs, list) else logs


def no_topics(logs: Any) -> Any:
    return [{**one, "topics": one["topics"][:1]} for one in logs] if isinstance(logs, list) else logs


TRANSACTION, LOGS = "eth_getTransactionByBlockHashAndIndex", "eth_getLogs"


@pytest.mark.parametrize(
    ("method", "spoil"),
    [
        (TRANSACTION, another_payload),
        (TRANSACTION, another_call),
        (TRANSACTION, no_hex),
        (TRANSACTION, no_input),
        (LOGS, cut_logs),
        (LOGS, no_topics),
    ],
)
def test_faulty_node__is_an_alarm_for_all_who_follow_and_passes_with_it(
    on: Stage, method: str, spoil: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    made = on.perform(None)[1][:2]
    on.post(made)
    watcher = on.watcher(None, f"watcher-{spoil.__name__}", WatchConfig(confirmations=0))
    config = StandbyConfig(on.folder / f"standby-{spoil.__name__}", on.params, on.at)
    standby = Standby(config, on.chain.rpc, devnet_signer(STANDBY))
    with Faulty(spoil, method), caplog.at_level(logging.INFO):
        for _ in range(2):
            assert not watcher.look()
            assert not standby.step()
    assert not watcher.status["ok"]
    assert watcher.fault is None
    errors = [one.name for one in caplog.records if one.levelno >= logging.ERROR]
    assert errors.count("sequencer.proof.alarms") == 1  # once, not at each look
    assert errors.count("sequencer.node.standby") == 1
    assert html.escape(watcher.error) in page(watcher.status, 0)
    if method == TRANSACTION:
        assert watcher.status["unread"] == 1
        assert headline(watcher.status, watcher.status["looked_at"]) == "batch 1 cannot be read"
        assert "fairstrike_watcher_unread_batch 1" in metrics(watcher.status)
        assert "posted batch 1" in standby.message

    assert watcher.look()
    standby.step()
    assert (watcher.batches, watcher.status["ok"], watcher.status["unread"]) == (2, True, None)
    assert standby.batcher.cursor.batch_id == 3
    standby.close()
    watcher.close()


def only(tx_hash: str, spoil: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Spoils one transaction for ever."""
    return lambda found: spoil(found) if found is not None and found["hash"] == tx_hash else found


def challenge(on: Stage, watcher: Watcher) -> None:
    for _ in range(8):
        with contextlib.suppress(L1Error):
            watcher.look()
        on.chain.mine()
        if watcher.challenged is not None and watcher.challenged.state == "won":
            return
    raise AssertionError(watcher.challenged)


def test_unread_batch__that_another_has_rolled_back__is_passed_over(on: Stage) -> None:
    """The watcher that could not read it goes on with what was posted in its place."""
    lie = LIES["header-time"]
    made = on.perform(None)[1]
    on.post(bent(made, lie))
    posted = {one.batch_id: one for one in on.follower().batches(on.at.deploy_block)}
    blind = on.watcher(None, "blind", WatchConfig(confirmations=0))
    seeing = on.watcher(devnet_signer(CHALLENGER), "seeing", WatchConfig(confirmations=0))
    with Faulty(only(posted[WRONG_BATCH].tx_hash, another_payload), TRANSACTION):
        assert not blind.look()
        assert (blind.status["unread"], blind.batches) == (WRONG_BATCH, WRONG_BATCH - 1)
    challenge(on, seeing)
    on.bond()
    on.post(chained(made)[WRONG_BATCH - 1 :])
    with Faulty(only(posted[WRONG_BATCH].tx_hash, another_payload), TRANSACTION):
        assert blind.look()
        assert (blind.status["unread"], blind.fault, blind.batches) == (None, None, len(made))
    for watcher in (blind, seeing):
        watcher.close()


def test_unread_batch__that_was_posted_too_late__is_challenged_all_the_same(on: Stage) -> None:
    """Its event is enough; nothing else of it could be shown by who has not its payload."""
    lie = LIES["message-late"]
    on.post(bent(on.perform(lie)[1], lie), LATE_S)
    posted = list(on.follower().batches(on.at.deploy_block))
    seeing = on.watcher(None, "sees it", WatchConfig(confirmations=0))
    seeing.step()
    assert seeing.fault is not None
    late = posted[seeing.fault.batch_id - 1]
    seeing.close()
    watcher = on.watcher(devnet_signer(CHALLENGER), "late", WatchConfig(confirmations=0))
    with Faulty(only(late.tx_hash, no_input), TRANSACTION):
        challenge(on, watcher)
        assert on.read("next_batch") == late.batch_id
        assert watcher.look()
        assert watcher.status["unread"] is None
    watcher.close()


def test_look__that_fails_in_any_way__is_an_alarm_and_the_next_one_is_made(
    on: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on.post(on.perform(None)[1][:1])
    watcher = on.watcher(None, "failing", WatchConfig(confirmations=0))
    with monkeypatch.context() as patched:
        patched.setattr(Watcher, "_sync", lambda _: {}["nothing"])
        assert not watcher.look()
        assert not watcher.look()
    assert watcher.error == "this look has failed: KeyError('nothing')"
    assert [one.levelno for one in caplog.records if "has failed" in one.message] == [logging.ERROR]
    assert watcher.look()
    assert watcher.batches == 1
    watcher.close()
