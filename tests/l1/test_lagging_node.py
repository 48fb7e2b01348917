"""L1 behind a load balancer: each answer may come from a node that is some blocks behind the one before it."""

import random
from typing import Any

import pytest

from sequencer.contracts import load
from sequencer.l1.abi import Contract
from sequencer.l1.chains import Chain
from sequencer.l1.errors import NodeBehind, ReorgTooDeep, RpcRejected
from sequencer.l1.follower import Follower, InboxMessage
from sequencer.l1.poster import Poster, PosterConfig
from sequencer.l1.rpc import Rpc, to_int
from sequencer.l1.txmgr import TxConfig, TxManager

from .conftest import BatchMaker, Exchange
from .test_poster import next_batch
from .test_txmgr import Clock

ROLLUP = Contract(load("Rollup").abi)
BATCHES = DEPOSITS = 8
CONFIRMATIONS = 3
LAG_MAX = 5  # beyond the confirmations


class LaggingRpc(Rpc):
    """Answers each request, a batch as one, as a node would that has not seen the newest `lag()` blocks."""

    def __init__(self, url: str, seed: int) -> None:
        super().__init__(url, sleep=lambda _s: None)
        self.dice = random.Random(seed)

    def lag(self) -> int:
        return self.dice.choice((0, 0, 1, 2, LAG_MAX))

    def _post(self, request: Any) -> Any:
        head = self._ask("eth_blockNumber", ())
        head = max(0, to_int(head["result"]) - self.lag())
        if isinstance(request, list):
            return [self._answer(one, head) for one in request]
        return self._answer(request, head)

    def _ask(self, method: str, params: Any) -> Any:
        return super()._post({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})

    def _answer(self, one: dict[str, Any], head: int) -> Any:
        return {**self._seen(one["method"], list(one["params"]), head), "id": one["id"]}

    def _seen(self, method: str, params: list[Any], head: int) -> Any:
        at = {"eth_getBlockByNumber": 0, "eth_call": 1, "eth_getTransactionCount": 1}.get(method)
        if method == "eth_blockNumber":
            return {"result": hex(head)}
        if at is not None:
            if params[at] == "latest":
                params[at] = hex(head)
            elif params[at] != "pending" and to_int(params[at]) > head:
                is_call = method == "eth_call"
                return (
                    {"error": {"code": -32000, "message": "header not found"}}
                    if is_call
                    else {"result": None}
                )
        if method == "eth_getLogs":
            if to_int(params[0]["fromBlock"]) > head:
                return {"result": []}
            params[0] = {**params[0], "toBlock": hex(min(head, to_int(params[0]["toBlock"])))}
        answer = self._ask(method, params)
        found = answer.get("result")
        if (
            method in ("eth_getTransactionReceipt", "eth_getTransactionByBlockHashAndIndex")
            and found is not None
        ):
            return {"result": found if to_int(found["blockNumber"]) <= head else None}
        return answer


@pytest.fixture
def embedded(chain: Chain) -> Chain:
    if chain.name != "pyevm":
        pytest.skip("what lags is in front of the chain, whichever it is")
    return chain


@pytest.mark.parametrize("seed", range(4))
def test_batches_and_deposits__by_nodes_that_lag__go_out_and_come_in_once(
    embedded: Chain, exchange: Exchange, make_batch: BatchMaker, seed: int
) -> None:
    rpc, clock, at = LaggingRpc(exchange.rpc.url, seed), Clock(), exchange.deployment
    config = TxConfig(confirmations=CONFIRMATIONS, stall_s=20, rebroadcast_s=5)
    manager = TxManager(rpc, exchange.sequencer, exchange.directory / "tx.sqlite", config, clock)
    poster = Poster(rpc, manager, at.rollup, PosterConfig(confirmations=CONFIRMATIONS), clock)
    follower = Follower(rpc, at.inbox, at.rollup, at.deploy_block, CONFIRMATIONS)
    taken: list[InboxMessage] = []
    for batch_id in range(1, BATCHES + 1):
        poster.offer(make_batch(batch_id))
    for turn in range(400):
        clock.now_s += 3
        if turn < DEPOSITS:
            exchange.trader.deposit(5_000_000 + turn)
        embedded.mine()
        poster.step()
        try:
            last_hash = taken[-1].hash if taken else None
            taken += follower.messages_after(len(taken), last_hash)
            found = [one.batch_id for one in follower.batches(at.deploy_block)]
            assert found == list(range(1, len(found) + 1))
        except (NodeBehind, RpcRejected):  # and never that something is gone
            pass
        if len(taken) == DEPOSITS and poster.status().last_confirmed == BATCHES:
            break
    manager.close()
    rpc.close()
    assert next_batch(exchange) == BATCHES + 1
    honest = exchange.follower(CONFIRMATIONS)
    assert taken == honest.messages_after(0)[:DEPOSITS]
    assert [one.batch_id for one in exchange.follower(0).batches(at.deploy_block)] == list(
        range(1, BATCHES + 1)
    )


def test_batches__up_to_a_block_that_a_node_has_not_got__are_all_there_or_an_error(
    embedded: Chain, exchange: Exchange, make_batch: BatchMaker
) -> None:
    """Fewer than there are would look like a chain on which they were never posted."""
    manager = exchange.manager()
    poster = Poster(exchange.rpc, manager, exchange.deployment.rollup)
    for batch_id in (1, 2, 3):
        poster.offer(make_batch(batch_id))
    assert len(poster.drain(60)) == 3
    manager.close()
    at, head = exchange.deployment, embedded.rpc.block_number()
    seen = {"all": 0, "behind": 0}
    for seed in range(40):
        rpc = LaggingRpc(exchange.rpc.url, seed)
        follower = Follower(rpc, at.inbox, at.rollup, at.deploy_block, 0)
        try:
            assert [one.batch_id for one in follower.batches(at.deploy_block, head)] == [1, 2, 3]
            seen["all"] += 1
        except NodeBehind:
            seen["behind"] += 1
        rpc.close()
    assert min(seen.values()) > 0


def test_message__whose_block_a_node_lacks__is_not_called_gone(embedded: Chain, exchange: Exchange) -> None:
    follower = exchange.follower(confirmations=1)
    before = embedded.snapshot()
    exchange.trader.deposit(5_000_000)
    embedded.mine(2)
    assert len(follower.messages_after(0)) == 1
    embedded.revert(before)
    with pytest.raises(NodeBehind, match="which had message 0"):
        follower.messages_after(1)
    embedded.mine(4)
    with pytest.raises(ReorgTooDeep):
        follower.messages_after(1)
