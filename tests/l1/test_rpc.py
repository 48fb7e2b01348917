"""Whatever a node answers is an answer to what was asked, a refusal, or no answer: through a proxy that misbehaves."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sequencer.l1 import limits
from sequencer.l1.chains import Chain
from sequencer.l1.errors import L1Error, RpcRejected, RpcUnavailable
from sequencer.l1.follower import Follower
from sequencer.l1.limits import LOG_BLOCKS_MAX
from sequencer.l1.rpc import Rpc
from sequencer.l1.sequencers import standing
from sequencer.l1.transport import shown
from tests.simulation import faulty_l1
from tests.simulation.faulty_l1 import MALFORMED, FaultyL1

from .conftest import Exchange

# Malformed for others, and for these what a node may say.
POSSIBLE = [("result null", "receipt"), ("blocks of another number", "block")]
KEY = "v9K2sEcReTkEyOfAProvider"
Ask = Callable[[Rpc], Any]


@pytest.fixture
def proxy(exchange: Exchange) -> Iterator[FaultyL1]:
    with faulty_l1.faulty(exchange.rpc.url) as made:
        yield made


@pytest.fixture
def rpc(proxy: FaultyL1) -> Iterator[Rpc]:
    made = Rpc(proxy.url, timeout_s=2.0, attempts=1)
    yield made
    made.close()


def everything(exchange: Exchange) -> dict[str, Ask]:
    """What a sequencer asks of L1, one by one."""
    at, tx = exchange.deployment, exchange.trader.mint(5).tx_hash
    reads: dict[str, Ask] = {
        "head": lambda rpc: rpc.block_number(),
        "block": lambda rpc: rpc.block("latest"),
        "nonce": lambda rpc: rpc.nonce(exchange.sequencer.address),
        "balance": lambda rpc: rpc.balance(exchange.sequencer.address),
        "receipt": lambda rpc: rpc.receipt(tx),
        "batch": lambda rpc: rpc.batch_strict([("eth_blockNumber", ()), ("eth_chainId", ())]),
        "standing": lambda rpc: standing(rpc, at, exchange.sequencer.address),
        "messages": lambda rpc: Follower(rpc, at.inbox, at.rollup, at.deploy_block, 0).messages_after(0),
        "roll-backs": lambda rpc: Follower(rpc, at.inbox, at.rollup, at.deploy_block, 0).roll_backs(
            exchange.rpc.block_number()
        ),
    }
    return reads


def test_answers__of_every_malformed_kind__are_an_outage_and_nothing_else(
    exchange: Exchange, proxy: FaultyL1, rpc: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(MALFORMED) >= 40
    monkeypatch.setattr("sequencer.l1.follower.ASK_AGAIN_S", ())
    reads = everything(exchange)
    honest = {name: ask(rpc) for name, ask in reads.items()}
    said = {}
    for kind, fault in MALFORMED.items():
        proxy.fault = fault
        for name, ask in reads.items():
            try:
                got = ask(rpc)
            except L1Error as error:
                said[kind] = str(error)
            else:  # what this kind is not of, and the null of a receipt that is not there yet
                assert got == honest[name] or (kind, name) in POSSIBLE, (kind, name)
        assert kind in said, kind
    proxy.fault = None
    assert {name: ask(rpc) for name, ask in reads.items()} == honest


@pytest.mark.parametrize("fault", [faulty_l1.silence, faulty_l1.drip], ids=["silence", "drip"])
def test_call__whose_answer_never_ends__ends_with_its_time(
    proxy: FaultyL1, rpc: Rpc, fault: faulty_l1.Fault
) -> None:
    proxy.fault = fault
    began_s = time.monotonic()
    with pytest.raises(RpcUnavailable, match=r"timed out|in time"):
        rpc.block_number()
    assert time.monotonic() - began_s < rpc.timeout_s + 1
    proxy.fault = None
    assert rpc.block_number() > 0


@pytest.mark.parametrize(
    "fault",
    [
        faulty_l1.truncated,
        faulty_l1.lost_answer,
        faulty_l1.status("429 Too Many Requests", b'{"jsonrpc":"2.0","id":1,"result":"0x5"}'),
        faulty_l1.status("403 Forbidden"),
        faulty_l1.status("500 Internal Server Error", b'{"jsonrpc":"2.0","id":1,"result":"0x5"}'),
    ],
    ids=["truncated", "lost", "429", "403", "500"],
)
def test_answer__that_is_not_whole_or_not_good__is_none(
    proxy: FaultyL1, rpc: Rpc, fault: faulty_l1.Fault
) -> None:
    rpc.block_number()
    proxy.fault = fault
    with pytest.raises(RpcUnavailable):
        rpc.block_number()
    proxy.fault = None
    assert rpc.block_number() > 0


def test_idle_connection__closed_by_the_node__is_opened_again(proxy: FaultyL1, exchange: Exchange) -> None:
    rpc = Rpc(proxy.url, attempts=2)
    head = rpc.block_number()
    left = [1]

    def hang_up_once(one: faulty_l1.Exchange) -> None:
        if left.pop():
            proxy.fault = None
            one.hang_up()

    proxy.fault = hang_up_once
    assert rpc.block_number() == head
    rpc.close()


def test_errors__show_no_key_of_a_providers_url(proxy: FaultyL1) -> None:
    host = proxy.url.removeprefix("http://")
    urls = [f"http://{host}/v3/{KEY}", f"http://{host}/rpc?apikey={KEY}", f"http://user:{KEY}@{host}/"]
    faults = [
        faulty_l1.silence,
        faulty_l1.status("401 Unauthorized"),
        lambda one: one.send({"error": f"invalid project id {KEY} at {one.path}"}),
        lambda one: one.send(faulty_l1.error(one.calls[0], f"key {KEY} is over its plan")),
        lambda one: one.raw(KEY.encode()),
    ]
    for url in urls:
        for fault in faults:
            proxy.fault = fault
            rpc = Rpc(url, timeout_s=0.3, attempts=1)
            with pytest.raises(L1Error) as caught:
                rpc.block_number()
            rpc.close()
            assert KEY not in str(caught.value), str(caught.value)
            assert KEY not in repr(caught.value)
            assert caught.value.__cause__ is None
            assert f"http://{host}" in str(caught.value) or isinstance(caught.value, RpcRejected)
    assert {one for one in proxy.paths if KEY in one} == {f"/v3/{KEY}", f"/rpc?apikey={KEY}"}


def test_url__as_it_is_shown() -> None:
    assert shown("https://mainnet.example.org/v3/abcdef") == "https://mainnet.example.org/…"
    assert shown("http://user:word@127.0.0.1:8545/") == "http://127.0.0.1:8545"
    assert shown("http://[::1]:8545?key=5") == "http://[::1]:8545/…"
    assert shown("secret") == "(a malformed URL)"
    assert shown("http://a b/secret") == "(a malformed URL)"


WORDS = [
    ("query returned more than 10000 results", -32005),
    ("range 1000000 exceeds limit of 10000", -32602),
    ("Requested range exceeds maximum RPC range limit", -32005),
    ("Log response size exceeded. Please reduce query block range.", -32000),
    ("something that nobody has heard of", -1),
]


@pytest.mark.parametrize(("words", "code"), WORDS, ids=[str(code) for _, code in WORDS])
def test_logs__of_more_blocks_than_a_provider_answers_for__are_asked_in_halves_and_whole_again_later(
    exchange: Exchange, proxy: FaultyL1, rpc: Rpc, words: str, code: int
) -> None:
    exchange.chain.mine(40)
    for amount in (5_000_000, 6_000_000):
        exchange.trader.deposit(amount)
        exchange.chain.mine(20)
    honest = exchange.follower(0).messages_after(0)
    at = exchange.deployment
    proxy.fault = faulty_l1.logs_limit(7, words, code)
    follower = Follower(rpc, at.inbox, at.rollup, at.deploy_block, 0)
    assert follower.messages_after(0) == honest
    query = {"address": at.inbox}
    found = rpc.logs(query, at.deploy_block, exchange.rpc.block_number())
    assert found == exchange.rpc.logs(query, at.deploy_block, exchange.rpc.block_number())
    assert len(found) >= 2
    proxy.fault = None
    proxy.asked.clear()
    head = exchange.rpc.block_number()
    for _ in range(200):
        rpc.logs(query, at.deploy_block, head)
    proxy.asked.clear()
    rpc.logs(query, at.deploy_block, head)
    assert proxy.asked == ["eth_getLogs"]
    assert rpc._log_blocks.now > 7
    assert rpc._log_blocks.now <= LOG_BLOCKS_MAX


@pytest.mark.parametrize(
    "fault",
    [
        faulty_l1.batch_limit(3),
        faulty_l1.batch_limit(1, "Number of requests exceeds max batch size"),
        faulty_l1.batch_limit(1, "batch too large", -32600),
        faulty_l1.size_limit(400),
    ],
    ids=["three", "one", "geth", "by size"],
)
def test_batch__that_a_provider_refuses__is_asked_in_halves(
    exchange: Exchange, proxy: FaultyL1, rpc: Rpc, fault: faulty_l1.Fault
) -> None:
    calls = [("eth_getBalance", ("0x" + f"{number:040x}", "latest")) for number in range(20)]
    proxy.fault = fault
    assert rpc.batch_strict(calls) == exchange.rpc.batch_strict(calls)
    used = rpc.requests
    rpc.batch_strict(calls)
    assert rpc.requests - used <= 22  # what it has learned it keeps, but for a try now and then
    proxy.fault = None
    for _ in range(200):
        rpc.batch_strict(calls)
    used = rpc.requests
    rpc.batch_strict(calls)
    assert rpc.requests - used == 1


def test_rate_limit__is_an_outage_and_makes_no_more_requests(proxy: FaultyL1, rpc: Rpc) -> None:
    proxy.fault = faulty_l1.batch_limit(0, "rate limit reached: 25 requests per second", 429)
    with pytest.raises(RpcUnavailable, match="rate limit"):
        rpc.batch_strict([("eth_blockNumber", ()), ("eth_chainId", ())] * 30)
    assert rpc.requests == 1


def test_late_answer__of_a_request_that_was_given_up__is_not_taken_for_the_next(
    proxy: FaultyL1, rpc: Rpc
) -> None:
    """A proxy that mixes up its clients' answers."""
    kept: list[Any] = []

    def one_behind(one: faulty_l1.Exchange) -> None:
        kept.append(one.ask())
        one.send(kept[-2] if len(kept) > 1 else kept[0])

    proxy.fault = one_behind
    assert rpc.block_number() > 0
    with pytest.raises(RpcUnavailable, match="an answer to another request"):
        rpc.chain_id()


def test_answer__above_the_bound__is_not_read(
    proxy: FaultyL1, rpc: Rpc, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sequencer.l1.transport.ANSWER_BYTES_MAX", 1_000)
    proxy.fault = lambda one: one.raw(b'{"jsonrpc":"2.0","result":"0x' + b"5" * 2_000 + b'"}')
    with pytest.raises(RpcUnavailable, match="more than 1000 bytes"):
        rpc.block_number()
    assert limits.GROWS_AFTER > 1


def test_web3__over_the_same_connection__is_as_strict(proxy: FaultyL1, rpc: Rpc, exchange: Exchange) -> None:
    """By its own provider it takes another request's answer, and hex that is none ends in a ValueError."""
    assert rpc.web3.eth.block_number == rpc.block_number()
    assert rpc.web3.eth.get_block("latest")["number"] == rpc.block_number()
    for kind in ("result no hex", "empty object", "error that is a string", "two objects"):
        proxy.fault = MALFORMED[kind]
        with pytest.raises(RpcUnavailable):
            _ = rpc.web3.eth.block_number
    proxy.fault = None
    assert rpc.web3.eth.chain_id == exchange.chain.chain_id


def test_error__in_words_that_web3_takes_for_another_methods__is_a_refusal(proxy: FaultyL1, rpc: Rpc) -> None:
    """Its manager looks for the hash in the parameters then, and this method has none."""
    proxy.fault = lambda one: one.send(faulty_l1.error(one.calls[0], "transaction not found"))
    with pytest.raises(RpcRejected, match="transaction not found"):
        rpc.block_number()
    with pytest.raises(IndexError):
        _ = rpc.web3.eth.block_number
