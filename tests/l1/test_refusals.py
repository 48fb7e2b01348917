"""Other clients' words, absurd fees, an empty key, through a proxy before a real node: nothing is stuck for words."""

import contextlib
import time
from collections.abc import Iterator

import pytest
import rlp

from sequencer.l1.errors import RpcRejected
from sequencer.l1.fees import DEFAULT_CAPS, GWEI, FeeCaps, market
from sequencer.l1.refusals import Refusal, meaning
from sequencer.l1.rpc import Rpc, to_int
from sequencer.l1.txmgr import TxConfig, TxManager
from sequencer.l1.txstore import State
from tests.simulation import faulty_l1
from tests.simulation.faulty_l1 import FaultyL1

from .conftest import Exchange
from .test_txmgr import Clock, mint, minted

STALL_S = 30
CAPS = FeeCaps()

# As the clients' sources have them: geth core/txpool/errors.go, nethermind AcceptTxResult.cs (before it spoke as geth
# does), Besu RpcErrorType.java, erigon txpoolcfg.go, reth error.rs.
WORDS = {
    "geth: known": ("already known", Refusal.KNOWN),
    "nethermind: known": ("AlreadyKnown", Refusal.KNOWN),
    "besu: known": ("Known transaction", Refusal.KNOWN),
    "erigon: known": ("existing tx with same hash", Refusal.KNOWN),
    "reth: known": ("[0x12] Already added", Refusal.KNOWN),
    "geth: cheap": ("transaction underpriced: gas tip cap 1, minimum needed 100", Refusal.CHEAP),
    "geth: replacement": ("replacement transaction underpriced", Refusal.CHEAP),
    "nethermind: cheap": ("FeeTooLow, MaxFeePerGas too low", Refusal.CHEAP),
    "nethermind: too cheap to compete": ("FeeTooLowToCompete", Refusal.CHEAP),
    "nethermind: replacement": ("ReplacementNotAllowed", Refusal.CHEAP),
    "besu: cheap": ("Gas price below configured minimum gas price", Refusal.CHEAP),
    "besu: base fee": ("Gas price below current base fee", Refusal.CHEAP),
    "erigon: cheap": ("fee too low", Refusal.CHEAP),
    "erigon: replacement": ("could not replace existing tx", Refusal.CHEAP),
    "reth: replacement": ("insufficient gas price to replace existing transaction", Refusal.CHEAP),
    "nethermind: sort": ("PendingTxsOfConflictingType", Refusal.OTHER_SORT),
    "erigon: sort": ("can't replace blob-txn with a non-blob-txn", Refusal.OTHER_SORT),
    "geth: sort": ("address already reserved", Refusal.OTHER_SORT),
    "besu: never": ("Intrinsic gas exceeds gas limit", Refusal.NEVER),
    "hardhat: never": ("Transaction requires at least 21000 gas but got 20000", Refusal.NEVER),
    "nethermind: syncing": ("Syncing", Refusal.UNKNOWN),
    "besu: sync": ("Initial sync is still in progress", Refusal.UNKNOWN),
    "besu: funds": ("Upfront cost exceeds account balance", Refusal.UNKNOWN),
    "erigon: full": ("pending sub-pool is full", Refusal.UNKNOWN),
    "besu: distant": ("Transaction nonce is too distant from current sender nonce", Refusal.UNKNOWN),
    "besu: lower": ("An invalid transaction with a lower nonce exists", Refusal.UNKNOWN),
    "type": ("unknown transaction type", Refusal.UNKNOWN),
    "nobody's": ("the moon is in the wrong house", Refusal.UNKNOWN),
}


@pytest.fixture
def proxy(exchange: Exchange) -> Iterator[FaultyL1]:
    with faulty_l1.faulty(exchange.rpc.url) as made:
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def manager(exchange: Exchange, proxy: FaultyL1, clock: Clock) -> Iterator[TxManager]:
    rpc = Rpc(proxy.url, timeout_s=2.0, attempts=1)
    made = TxManager(
        rpc, exchange.sequencer, exchange.directory / "tx.sqlite", TxConfig(stall_s=STALL_S), clock
    )
    yield made
    made.close()
    rpc.close()


def goes_on(manager: TxManager, intent_id: str) -> None:
    """Within 10 s, by itself."""
    until_s = time.monotonic() + 10
    while manager.get(intent_id).state is not State.CONFIRMED:  # type: ignore[union-attr]
        assert time.monotonic() < until_s, manager.metrics()
        manager.poll()
        time.sleep(0.02)
    manager.poll()
    assert manager.metrics().problem == ""


@pytest.mark.parametrize(("words", "kind"), WORDS.values(), ids=WORDS)
def test_words__of_a_client__mean(words: str, kind: Refusal) -> None:
    assert meaning(words) is kind


@pytest.mark.parametrize(
    "name", [name for name, (_, kind) in WORDS.items() if kind not in (Refusal.NEVER, Refusal.KNOWN)]
)
def test_refusal__in_any_clients_words__is_told_and_passes(
    exchange: Exchange, proxy: FaultyL1, manager: TxManager, clock: Clock, name: str
) -> None:
    words, kind = WORDS[name]
    proxy.fault = faulty_l1.refuses(words)
    mint(manager, exchange, "a", 5)
    for _ in range(3):
        manager.poll()
    if kind is not Refusal.OTHER_SORT:
        assert words in manager.metrics().problem
    proxy.fault = None
    clock.now_s += STALL_S / 2 if kind is Refusal.CHEAP else 0
    goes_on(manager, "a")
    assert minted(exchange) == 5


@pytest.mark.parametrize("name", [name for name, (_, kind) in WORDS.items() if kind is not Refusal.NEVER])
def test_refusal__of_what_the_node_has_taken__happens_once(
    exchange: Exchange, proxy: FaultyL1, manager: TxManager, name: str
) -> None:
    proxy.fault = faulty_l1.refuses(WORDS[name][0], takes=True)
    mint(manager, exchange, "a", 5)
    mint(manager, exchange, "b", 70)
    goes_on(manager, "a")
    goes_on(manager, "b")
    assert minted(exchange) == 75


@pytest.mark.parametrize(
    "words",
    ["FeeTooLow", "Gas price below configured minimum gas price", "price too small, says a new client"],
)
def test_node__that_wants_more_money_in_its_own_words__gets_it(
    exchange: Exchange, proxy: FaultyL1, manager: TxManager, clock: Clock, words: str
) -> None:
    """Before, a refusal in words that were not on the list was never bumped: the transaction stood still for ever."""
    offered: list[int] = []

    def fault(one: faulty_l1.Exchange) -> None:
        call = one.calls[0]
        if call["method"] == "eth_sendRawTransaction":
            offered.append(int.from_bytes(rlp.decode(bytes.fromhex(call["params"][0][4:]))[2], "big"))
            if offered[-1] < 1.25 * offered[0]:
                one.send(faulty_l1.error(call, words))
                return
        one.send(one.ask())

    proxy.fault = fault
    mint(manager, exchange, "a", 5)
    for _ in range(4):
        manager.poll()
        clock.now_s += STALL_S + 1
    goes_on(manager, "a")
    assert minted(exchange) == 5
    assert max(offered) < 2 * offered[0]


def test_unknown_refusal__for_hours__bumps_no_more_than_a_few_times(
    exchange: Exchange, proxy: FaultyL1, manager: TxManager, clock: Clock
) -> None:
    proxy.fault = faulty_l1.refuses("Syncing")
    mint(manager, exchange, "a", 5)
    for _ in range(50):
        manager.poll()
        clock.now_s += STALL_S + 1
    assert manager.metrics().bumps == 4
    proxy.fault = None
    goes_on(manager, "a")


def test_fees__of_a_node_that_suggests_450_gwei__are_those_of_the_chain(
    exchange: Exchange, proxy: FaultyL1, manager: TxManager
) -> None:
    proxy.fault = faulty_l1.fees(tip_wei=450 * GWEI)
    mint(manager, exchange, "a", 5)
    goes_on(manager, "a")
    found = exchange.rpc.call("eth_getTransactionByHash", manager.get("a").tx_hash)  # type: ignore[union-attr]
    assert (
        to_int(found["maxPriorityFeePerGas"]) <= DEFAULT_CAPS.tip
    )  # twice what these tests' own blocks have taken


def test_fees__without_a_history__are_within_the_cap(proxy: FaultyL1) -> None:
    def fault(one: faulty_l1.Exchange) -> None:
        def answer(call: dict[str, object]) -> object:
            if call["method"] == "eth_feeHistory":
                return faulty_l1.error(call, "the method does not exist", -32601)
            if call["method"] == "eth_maxPriorityFeePerGas":
                return {"jsonrpc": "2.0", "id": call["id"], "result": hex(450 * GWEI)}
            return one.ask(call)

        one.send([answer(call) for call in one.calls])

    proxy.fault = fault
    with contextlib.closing(Rpc(proxy.url)) as rpc:
        assert market(rpc, FeeCaps(tip=3 * GWEI)).fees.tip == 3 * GWEI


@pytest.mark.parametrize(
    ("said", "past", "fee"),
    [
        (900 * GWEI, [GWEI, 2 * GWEI], 8 * GWEI),  # not above twice what it was of late
        (900 * GWEI, [], CAPS.blob_fee),
        (None, [GWEI, 3 * GWEI], 6 * GWEI),  # a node without the method
        (2 * GWEI, [0, 0], 4 * GWEI),
    ],
)
def test_blob_fees__are_those_of_the_chain_and_within_the_cap(
    proxy: FaultyL1, said: int | None, past: list[int], fee: int
) -> None:
    def fault(one: faulty_l1.Exchange) -> None:
        def answer(call: dict[str, object]) -> object:
            result: object = {"baseFeePerGas": ["0x1"], "baseFeePerBlobGas": [hex(one) for one in past]}
            if call["method"] == "eth_blobBaseFee":
                if said is None:
                    return faulty_l1.error(call, "the method does not exist", -32601)
                result = hex(said)
            elif call["method"] != "eth_feeHistory":
                return one.ask(call)
            return {"jsonrpc": "2.0", "id": call["id"], "result": result}

        one.send([answer(call) for call in one.calls])

    proxy.fault = fault
    with contextlib.closing(Rpc(proxy.url)) as rpc:
        assert market(rpc, CAPS, has_blobs=True).fees.blob_fee == fee


def test_blob_fees__that_nobody_says__are_an_error(proxy: FaultyL1) -> None:
    def fault(one: faulty_l1.Exchange) -> None:
        def answer(call: dict[str, object]) -> object:
            if call["method"] in ("eth_blobBaseFee", "eth_feeHistory"):
                return faulty_l1.error(call, "the method does not exist", -32601)
            return one.ask(call)

        one.send([answer(call) for call in one.calls])

    proxy.fault = fault
    rpc = Rpc(proxy.url)
    with pytest.raises(RpcRejected, match="eth_blobBaseFee"):
        market(rpc, CAPS, has_blobs=True)
    rpc.close()


def test_key__without_money__is_told_with_what_it_needs_and_goes_on(
    exchange: Exchange, proxy: FaultyL1, manager: TxManager, clock: Clock
) -> None:
    proxy.fault = faulty_l1.balance(10**12)
    mint(manager, exchange, "a", 5)
    for _ in range(5):
        manager.poll()
        clock.now_s += STALL_S + 1
    told = manager.metrics()
    assert f"the key {exchange.sequencer.address} has 0.000001 ETH, and what waits may cost" in told.problem
    assert told.bumps == 0  # dearer would be no better
    funds = manager.funds()
    assert funds is not None
    assert funds.balance == 10**12
    proxy.fault = None
    goes_on(manager, "a")
    assert minted(exchange) == 5


def test_base_fee__above_the_cap__is_told_and_goes_on_below_it(
    exchange: Exchange, proxy: FaultyL1, manager: TxManager
) -> None:
    def fault(one: faulty_l1.Exchange) -> None:
        if one.calls[0]["method"] == "eth_sendRawTransaction":
            one.send(faulty_l1.error(one.calls[0], "max fee per gas less than block base fee"))
        else:
            faulty_l1.fees(base_wei=600 * GWEI)(one)

    proxy.fault = fault
    mint(manager, exchange, "a", 5)
    manager.poll()
    assert "L1's base fee is 600 gwei, above the cap of 500 gwei: a waits" in manager.metrics().problem
    proxy.fault = None
    goes_on(manager, "a")


@pytest.mark.parametrize("fault", [faulty_l1.lost_answer, faulty_l1.late(3.0)], ids=["lost", "late"])
def test_sent__and_its_answer_lost__happens_once(
    exchange: Exchange, proxy: FaultyL1, manager: TxManager, fault: faulty_l1.Fault
) -> None:
    def of_sending(one: faulty_l1.Exchange) -> None:
        if one.calls[0]["method"] == "eth_sendRawTransaction":
            fault(one)
        else:
            one.send(one.ask())

    manager.poll()
    proxy.fault = of_sending
    mint(manager, exchange, "a", 5)
    assert manager.metrics().l1_down
    proxy.fault = None
    goes_on(manager, "a")
    assert minted(exchange) == 5
