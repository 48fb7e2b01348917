"""The embedded chain answers as other nodes do."""

import time

import pytest

from sequencer.l1.chains import Chain
from sequencer.l1.errors import RpcRejected, RpcReverted
from sequencer.l1.rpc import to_int
from sequencer.l1.signing import Content, Fees

from .conftest import GENESIS_TIME_S, OTHER_TRADER, Exchange

FEES = Fees(10**11, 10**9)
SINK = b"\x11" * 20


def test_chain__at_start__has_the_known_accounts_and_the_genesis_time(chain: Chain) -> None:
    assert chain.chain_id == 31_337
    assert chain.signer(0).address == "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    assert chain.rpc.balance(chain.signer(9).address) == 10_000 * 10**18
    genesis = chain.rpc.block(0)
    assert genesis is not None
    assert to_int(genesis["timestamp"]) == GENESIS_TIME_S


def test_chain__set_time__shows_in_the_head(chain: Chain) -> None:
    target = chain.head_time_s() + 1_000
    assert chain.set_time(target) == target == chain.head_time_s()
    assert chain.set_time(target - 5) == target


def test_chain__revert__takes_blocks_and_balances_back(chain: Chain) -> None:
    before = chain.rpc.block("latest")
    assert before is not None
    snapshot = chain.snapshot()
    chain.mine(3)
    chain.revert(snapshot)
    assert chain.rpc.block("latest") == before


def test_call__that_reverts__gives_the_contracts_reason(exchange: Exchange) -> None:
    from sequencer.contracts import load
    from sequencer.l1.abi import Contract

    with pytest.raises(RpcReverted) as caught:
        Contract(load("Inbox").abi).read(exchange.rpc, exchange.deployment.inbox, "hash_at", 1)
    assert caught.value.reason == "inbox: unknown message"


def test_estimate__of_a_deposit__is_enough_and_not_far_off(exchange: Exchange) -> None:
    from sequencer.contracts import load
    from sequencer.l1.abi import Contract

    data = Contract(load("Vault").abi).encode("deposit", 5_000_000)
    fields = {"from": exchange.trader.address, "to": exchange.deployment.vault, "data": "0x" + data.hex()}
    estimate = to_int(exchange.rpc.call("eth_estimateGas", fields, "latest"))
    mined = exchange.trader.transact("deposit", exchange.deployment.vault, data, gas=estimate)
    assert mined.gas_used <= estimate <= 1.3 * mined.gas_used


def test_pool__keeps_what_is_not_its_turn_and_replaces_for_a_higher_fee_only(chain: Chain) -> None:
    if chain.name != "pyevm":
        pytest.skip("the rules of the embedded chain's own pool")
    signer = chain.signer(OTHER_TRADER + 1)
    nonce = chain.rpc.nonce(signer.address)

    def send(offset: int, fees: Fees) -> str:
        return chain.rpc.send_raw(
            signer.sign_transaction(chain.chain_id, nonce + offset, fees, Content(SINK, b"", 1, 21_000)).raw
        )

    late = send(1, FEES)
    assert chain.rpc.receipt(late) is None
    with pytest.raises(RpcRejected, match="already known"):
        send(1, FEES)
    with pytest.raises(RpcRejected, match="underpriced"):
        send(1, Fees(FEES.max_fee * 105 // 100, FEES.tip * 105 // 100))
    dearer = send(1, Fees(FEES.max_fee * 2, FEES.tip * 2))
    send(0, FEES)
    assert chain.rpc.receipt(late) is None
    assert chain.rpc.receipt(dearer) is not None
    with pytest.raises(RpcRejected, match="nonce too low"):
        send(0, Fees(FEES.max_fee * 2, FEES.tip))


def test_transaction__by_its_place__is_the_one_by_its_hash(exchange: Exchange) -> None:
    from sequencer.contracts import load
    from sequencer.l1.abi import Contract

    mined = exchange.trader.transact(
        "deposit", exchange.deployment.vault, Contract(load("Vault").abi).encode("deposit", 5_000_000)
    )
    call = exchange.rpc.call
    by_hash = call("eth_getTransactionByHash", mined.tx_hash)
    for _ in range(100):  # a node may answer from its pool for a moment longer
        if by_hash["blockHash"] is not None:
            break
        time.sleep(0.05)
        by_hash = call("eth_getTransactionByHash", mined.tx_hash)
    place = by_hash["blockHash"], by_hash["transactionIndex"]
    assert call("eth_getTransactionByBlockHashAndIndex", *place) == by_hash
    assert call("eth_getTransactionByBlockHashAndIndex", place[0], "0x7") is None
    assert call("eth_getTransactionByBlockHashAndIndex", "0x" + "11" * 32, "0x0") is None


def test_web3__talks_to_it(chain: Chain) -> None:
    from web3 import Web3

    web3 = Web3(Web3.HTTPProvider(chain.url))
    assert web3.is_connected()
    block = web3.eth.get_block("latest", full_transactions=True)
    assert block["number"] == chain.rpc.block_number()
    assert web3.eth.fee_history(3, "latest", [50.0])["baseFeePerGas"]
    transaction = {"to": Web3.to_checksum_address(SINK), "value": 1, "from": chain.signer(5).address}
    assert web3.eth.estimate_gas(transaction) >= 21_000
