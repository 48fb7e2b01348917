"""A chain that refuses transactions above 2^24 gas (EIP-7825) takes the whole deployment and full batches."""

from pathlib import Path

import pytest

from sequencer.l1 import chains
from sequencer.l1.deploy import DeployConfig, deploy
from sequencer.l1.errors import ChainStartError, RpcError
from sequencer.l1.poster import Poster, PosterConfig
from sequencer.l1.signing import Content, Fees
from sequencer.l1.txmgr import TxConfig, TxManager

from .conftest import DEPLOYER, ELEMENT, GENESIS_ROOT, GENESIS_TIME_S, SEQUENCER, TRADER, BatchMaker

TX_GAS_MAX = 2**24
PAYLOAD_BYTES = 3_936 * ELEMENT  # as long as calldata may be


@pytest.mark.node
@pytest.mark.parametrize("data", ["calldata", "blob"])
def test_deployment_and_batch__under_the_cap_of_a_transactions_gas__are_mined(
    data: str, tmp_path: Path, make_batch: BatchMaker, installed_devnets: None
) -> None:
    with chains.start("anvil", genesis_time_s=GENESIS_TIME_S, log_dir=tmp_path, caps_tx_gas=True) as chain:
        trader = chain.signer(TRADER)
        for gas, is_taken in ((TX_GAS_MAX + 1, False), (TX_GAS_MAX, True)):
            content = Content(bytes(20), b"", 1, gas)
            signed = trader.sign_transaction(chain.chain_id, 0, Fees(10**10, 1), content)
            if is_taken:
                chain.rpc.send_raw(signed.raw)
            else:
                with pytest.raises(RpcError, match="gas"):
                    chain.rpc.send_raw(signed.raw)
        sequencer = chain.signer(SEQUENCER)
        config = DeployConfig(GENESIS_ROOT, sequencer.address, 3_600, 3_600, data=data)
        at = deploy(chain.rpc, chain.signer(DEPLOYER), config)
        at.check(chain.rpc)
        manager = TxManager(chain.rpc, sequencer, tmp_path / "tx.sqlite", TxConfig(stall_s=0.2))
        settings = PosterConfig(confirmations=0, in_blobs=data == "blob")
        poster = Poster(chain.rpc, manager, at.rollup, settings)
        assert poster.offer(make_batch(1, PAYLOAD_BYTES))
        (posted,) = poster.drain(60.0)
        assert posted.batch_id == 1
        assert posted.gas_used is not None
        assert posted.gas_used < TX_GAS_MAX
        manager.close()


def test_cap__asked_of_another_chain__says_that_only_anvil_has_one() -> None:
    with pytest.raises(ChainStartError, match="only anvil"):
        chains.start("pyevm", caps_tx_gas=True)
