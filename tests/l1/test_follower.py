"""Deposits become messages once, whatever the chain does above the confirmations; deeper, it is an error."""

import dataclasses

import pytest

from sequencer.l1.errors import InboxMismatch, PayloadMismatch, ReorgTooDeep
from sequencer.l1.poster import Poster
from sequencer.protocol.codec import inbox_hash

from .conftest import BatchMaker, Exchange


def test_deposits__become_messages_once_and_in_order(exchange: Exchange) -> None:
    follower = exchange.follower(confirmations=2)
    assert exchange.trader.deposit(5_000_000) == 0
    assert exchange.other_trader.deposit_with_permit(7_000_000) == 1
    exchange.chain.mine(2)
    messages = follower.messages_after(0)
    assert [message.index for message in messages] == [0, 1]
    owner, account, amount = (messages[1].record[1:21], messages[1].record[21:25], messages[1].record[25:31])
    assert messages[1].record[0] == 2
    assert owner.hex() == exchange.other_trader.address[2:].lower()
    assert int.from_bytes(account, "big") == exchange.other_trader.account() == 2
    assert int.from_bytes(amount, "big") == 7_000_000
    assert messages[1].hash == inbox_hash(messages[0].hash, messages[1].record)
    assert follower.messages_after(2) == []
    assert exchange.follower(confirmations=2).messages_after(1, messages[0].hash) == messages[1:]


def test_deposit__is_not_reported_before_its_confirmations(exchange: Exchange) -> None:
    follower = exchange.follower(confirmations=3)
    exchange.trader.deposit(5_000_000)
    for _ in range(3):
        assert follower.messages_after(0) == []
        exchange.chain.mine()
    assert len(follower.messages_after(0)) == 1


def test_reorg__above_the_confirmations__reports_the_deposit_once_from_its_other_block(
    exchange: Exchange,
) -> None:
    chain, follower = exchange.chain, exchange.follower(confirmations=3)
    snapshot = chain.snapshot()
    exchange.trader.deposit(5_000_000)
    lost = chain.rpc.block("latest")
    chain.mine(2)
    assert lost is not None
    assert follower.messages_after(0) == []
    chain.revert(snapshot)
    chain.mine(2)
    assert follower.messages_after(0) == []
    exchange.trader.deposit(5_000_000)
    chain.mine(3)
    (message,) = follower.messages_after(0)
    assert message.block_hash != lost["hash"]
    assert follower.messages_after(1) == []


def test_reorg__of_confirmed_blocks_without_messages__is_walked_back(exchange: Exchange) -> None:
    chain, follower = exchange.chain, exchange.follower(confirmations=1)
    exchange.trader.deposit(5_000_000)
    chain.mine(2)
    (first,) = follower.messages_after(0)
    snapshot = chain.snapshot()
    chain.mine(4)
    assert follower.messages_after(1) == []
    chain.revert(snapshot)
    exchange.other_trader.deposit(6_000_000)
    chain.mine(1)
    (second,) = follower.messages_after(1)
    assert second.index == 1
    assert second.hash == inbox_hash(first.hash, second.record)


def test_reorg__of_a_reported_message__raises(exchange: Exchange) -> None:
    chain, follower = exchange.chain, exchange.follower(confirmations=1)
    snapshot = chain.snapshot()
    exchange.trader.deposit(5_000_000)
    chain.mine(2)
    (message,) = follower.messages_after(0)
    chain.revert(snapshot)
    chain.mine(4)
    with pytest.raises(ReorgTooDeep) as caught:
        follower.messages_after(1)
    assert caught.value.message_index == message.index
    with pytest.raises(ReorgTooDeep):
        exchange.follower(confirmations=1).messages_after(1, message.hash)


def test_restart__with_another_past__raises(exchange: Exchange) -> None:
    exchange.trader.deposit(5_000_000)
    exchange.chain.mine(1)
    with pytest.raises(ReorgTooDeep):
        exchange.follower(confirmations=1).messages_after(1, b"\x55" * 32)


def test_logs__that_break_the_hash_chain__raise(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange.trader.deposit(5_000_000)
    exchange.chain.mine(1)
    honest = exchange.rpc.batch_strict

    def lying(calls):  # type: ignore[no-untyped-def]
        results = honest(calls)
        for (method, _), result in zip(calls, results, strict=True):
            if method == "eth_getLogs":
                for log in result:
                    log["data"] = log["data"].replace(exchange.trader.address[2:].lower(), "66" * 20)
        return results

    follower = exchange.follower(confirmations=1)
    monkeypatch.setattr(type(exchange.rpc), "batch_strict", lambda self, calls: lying(calls))
    with pytest.raises(InboxMismatch):
        follower.messages_after(0)


def test_batches__are_read_back_from_calldata(exchange: Exchange, make_batch: BatchMaker) -> None:
    manager = exchange.manager()
    poster = Poster(exchange.rpc, manager, exchange.deployment.rollup)
    batches = [make_batch(1, 31 * 40), make_batch(2, 31 * 400), make_batch(3)]
    for batch in batches:
        assert poster.offer(batch)
    assert [posted.batch_id for posted in poster.drain(60)] == [1, 2, 3]
    manager.close()
    read = list(exchange.follower(confirmations=0).batches(exchange.deployment.deploy_block))
    for batch, posted in zip(batches, read, strict=True):
        for field in dataclasses.fields(batch):
            assert getattr(posted, field.name) == getattr(batch, field.name)


def test_batches__whose_calldata_was_altered__raise(
    exchange: Exchange, make_batch: BatchMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = exchange.manager()
    poster = Poster(exchange.rpc, manager, exchange.deployment.rollup)
    poster.offer(make_batch(1))
    poster.drain(60)
    manager.close()
    honest = type(exchange.rpc).call

    def lying(self, method, *params):  # type: ignore[no-untyped-def]
        result = honest(self, method, *params)
        if method == "eth_getTransactionByBlockHashAndIndex":
            result["input"] = result["input"][:-100] + "ff" + result["input"][-98:]
        return result

    monkeypatch.setattr(type(exchange.rpc), "call", lying)
    with pytest.raises(PayloadMismatch, match="data root"):
        list(exchange.follower(confirmations=0).batches(0))
