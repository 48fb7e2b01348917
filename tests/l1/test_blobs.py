"""Batches in blobs: their form, and the way from a poster over anvil to a follower, an archive and a challenge."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import ckzg
import pytest
import rlp
from click.testing import CliRunner
from tiny_keccak import keccak256

from sequencer.cli import main
from sequencer.contracts import load
from sequencer.genesis import genesis_root
from sequencer.l1 import blobs, chains
from sequencer.l1.abi import Contract
from sequencer.l1.batch import Batch
from sequencer.l1.beacon import Beacon
from sequencer.l1.chains import Chain
from sequencer.l1.deploy import DeployConfig, Deployment, deploy
from sequencer.l1.errors import RpcRejected, RpcReverted, RpcUnavailable
from sequencer.l1.fees import bumped
from sequencer.l1.follower import Follower, PostedBatch
from sequencer.l1.poster import Poster, PosterConfig, post_blobs_gas
from sequencer.l1.signing import Content, Fees, Signer
from sequencer.l1.txmgr import TxConfig, TxManager
from sequencer.l1.wallet import Wallet
from sequencer.proof.archive import Archive
from sequencer.proof.challenge import arbiter, challenge_form, challenge_segment, is_malformed
from sequencer.proof.witness import Tracer

from .conftest import (
    DEPLOYER,
    ELEMENT,
    GENESIS_ROOT,
    GENESIS_TIME_S,
    SEQUENCER,
    TRADER,
    BatchMaker,
    Exchange,
    install_or_skip,
)
from .test_challenge import PARAMS, genesis, three_feeds

ROLLUP = Contract(load("Rollup").abi)
TWO_BLOBS_BYTES = 5_000 * ELEMENT


def test_blobs__of_a_payload__give_it_back() -> None:
    payload = random.randbytes(TWO_BLOBS_BYTES)
    made = blobs.to_blobs(payload)
    assert [len(one) for one in made] == [blobs.BLOB_BYTES] * 2
    assert blobs.count(len(payload)) == 2
    assert blobs.from_blobs(made, 5_000) == payload
    with pytest.raises(ValueError, match="whole elements"):
        blobs.to_blobs(payload[:-1])


def cells_hold(made: blobs.Sidecar) -> bool:
    """What every node since Osaka asks of a sidecar (EIP-7594): each cell of each blob under its commitment."""
    cells = [cell for blob in made.blobs for cell in ckzg.compute_cells(blob, blobs.setup())]
    commitments = [one for one in made.commitments for _ in range(blobs.CELLS_PER_BLOB)]
    places = list(range(blobs.CELLS_PER_BLOB)) * len(made.blobs)
    return bool(
        ckzg.verify_cell_kzg_proof_batch(commitments, places, cells, list(made.cell_proofs), blobs.setup())
    )


def test_sidecar__made_in_a_process_of_its_own__has_the_cell_proofs_that_nodes_verify() -> None:
    made = blobs.sidecar(random.randbytes(TWO_BLOBS_BYTES))
    assert len(made.cell_proofs) == 2 * blobs.CELLS_PER_BLOB
    assert cells_hold(made)
    proofs = made.cell_proofs
    assert not cells_hold(replace(made, cell_proofs=(proofs[1], proofs[0], *proofs[2:])))
    assert made.hashes == tuple(blobs.versioned_hash(blobs.commitment_of(one)) for one in made.blobs)


def test_transaction_with_blobs__goes_with_the_sidecar_of_eip_7594() -> None:
    made = blobs.sidecar(random.randbytes(10 * ELEMENT))
    signer = Signer(b"\7" * 32)
    signed = signer.sign_transaction(31_337, 5, Fees(9, 3, 2), Content(b"\1" * 20, b"call", 0, 90_000), made)
    assert signed.raw[0] == 3
    body, version, *parts = rlp.decode(signed.raw[1:])
    assert version == b"\1"
    assert parts == [list(made.blobs), list(made.commitments), list(made.cell_proofs)]
    assert body[9:11] == [b"\2", list(made.hashes)]
    assert signed.hash == "0x" + keccak256(b"\3" + rlp.encode(body)).hex()


def test_commitment__of_no_field_elements__raises() -> None:
    with pytest.raises(ValueError, match="not a blob"):
        blobs.commitment_of(b"\xff" * blobs.BLOB_BYTES)


def test_fees__of_a_replacement_with_blobs__are_doubled() -> None:
    assert bumped(Fees(1001, 7, 3), Fees(0, 0, 0)) == Fees(2002, 14, 6)
    assert bumped(Fees(1000, 8, 3), Fees(5000, 9, 11)) == Fees(5000, 16, 11)


@pytest.fixture(scope="module")
def anvil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    install_or_skip()
    with chains.start(
        "anvil", genesis_time_s=GENESIS_TIME_S, log_dir=tmp_path_factory.mktemp("a")
    ) as started:
        yield started


class Blobs:
    """A deployment that takes blobs; its sequencer, and whatever follows it."""

    def __init__(self, chain: Chain, folder: Path, root: bytes = GENESIS_ROOT) -> None:
        self.chain = chain
        self.sequencer: Signer = chain.signer(SEQUENCER)
        config = DeployConfig(root, self.sequencer.address, 3600, 3600, data="blob")
        self.at: Deployment = deploy(chain.rpc, chain.signer(DEPLOYER), config)
        self.at.save(folder / "deployment.json")
        assert Deployment.load(folder / "deployment.json").in_blobs
        self.manager = TxManager(chain.rpc, self.sequencer, folder / "tx.sqlite", TxConfig(stall_s=0.2))
        self.poster = Poster(
            chain.rpc, self.manager, self.at.rollup, PosterConfig(confirmations=0, in_blobs=True)
        )

    def post(self, batch: Batch) -> None:
        assert self.poster.offer(batch)
        self.poster.drain(180.0)
        assert self.poster.status().queued == 0, self.poster.status().reason

    def follower(self) -> Follower:
        return Follower(self.chain.rpc, self.at.inbox, self.at.rollup, self.at.deploy_block, 0)

    def batches(self) -> list[PostedBatch]:
        return list(self.follower().batches(self.at.deploy_block))

    def form(self, posted: PostedBatch) -> bool:
        """Whether the arbiter finds fraud in the form of segment 0."""
        answer = self.chain.rpc.eth_call(self.at.arbiter, challenge_form(posted, 0).call)
        verdict = arbiter().function("check_form").decode_output(answer)
        return bool(verdict[0])


@pytest.fixture
def exchange(anvil: Chain, tmp_path: Path) -> Iterator[Blobs]:
    made = Blobs(anvil, tmp_path)
    yield made
    made.manager.close()


@pytest.mark.node
def test_batch__of_one_and_of_two_blobs__comes_back_and_into_the_archive(
    exchange: Blobs, make_batch: BatchMaker, tmp_path: Path
) -> None:
    sent = [make_batch(1), make_batch(2, TWO_BLOBS_BYTES)]
    for one in sent:
        exchange.post(one)
    status = exchange.poster.status()
    assert status.blob_gas_used == 3 * blobs.GAS_PER_BLOB
    assert status.bytes_posted == 5_010 * ELEMENT
    posted = exchange.batches()
    assert [one.payload for one in posted] == [one.payload for one in sent]
    assert [len(one.blob_hashes) for one in posted] == [1, 2]
    assert not any(one.odd_blobs for one in posted)
    archive = Archive(tmp_path / "archive.sqlite")
    for place, one in enumerate(posted):
        archive.add(one, place)
    archive.close()
    archive = Archive(tmp_path / "archive.sqlite")
    assert [archive.batch(row) for row in archive.standing()] == posted
    archive.close()


def _raw(exchange: Blobs, batch: Batch, elements: int, made: blobs.Sidecar) -> None:
    """Posts as no honest sequencer would."""
    values = (batch.batch_id, batch.pre_root, batch.post_root, batch.segments, batch.records)
    times = (batch.first_seq, batch.time_s, batch.inbox_count, batch.inbox_hash, batch.work, batch.tick)
    data = ROLLUP.encode("post_blobs", *values, *times, elements)
    content = Content(bytes.fromhex(exchange.at.rollup[2:]), data, 0, post_blobs_gas(data, len(made.blobs)))
    rpc = exchange.chain.rpc
    nonce = rpc.nonce(exchange.sequencer.address)
    fees = Fees(10**11, 10**9, 10**9)
    signed = exchange.sequencer.sign_transaction(exchange.at.chain_id, nonce, fees, content, made)
    assert rpc.send_raw(signed.raw) == signed.hash
    for _ in range(500):  # anvil answers before it mines
        if rpc.receipt(signed.hash) is not None:
            break
        rpc.sleep(0.02)


@pytest.mark.node
def test_batch__with_more_in_its_blob_than_the_payload__is_followed_and_can_be_challenged(
    exchange: Blobs, make_batch: BatchMaker
) -> None:
    """The last segment ends before the payload, a field element is above 2^248, and something stands behind."""
    batch = make_batch(1)
    odd = bytearray(blobs.to_blobs(batch.payload)[0])
    odd[0] = 1
    odd[-1] = 5
    _raw(exchange, batch, 11, blobs.with_proofs([bytes(odd)]))
    [posted] = exchange.batches()
    assert posted.payload == batch.payload + bytes(ELEMENT)
    assert posted.odd_blobs == (bytes(odd),)
    assert is_malformed(posted.payload, 1, 0, 0)
    assert exchange.form(posted)


@pytest.mark.node
def test_batch__whose_last_root_is_not_its_post_root__can_be_challenged(anvil: Chain, tmp_path: Path) -> None:
    """What `Rollup.post` refuses by itself, and cannot see in a blob."""
    on = Blobs(anvil, tmp_path, genesis_root(PARAMS))
    trader = Wallet(anvil.rpc, anvil.signer(TRADER), on.at)
    there = Exchange(anvil, on.at, on.sequencer, trader, trader, tmp_path)
    honest, _ = three_feeds(there)
    on.post(replace(honest, post_root=b"\x66" * 32))
    on.manager.close()
    [posted] = on.batches()
    assert posted.post_root == b"\x66" * 32
    assert posted.payload[:31] == honest.post_root[:31]
    check = challenge_segment(posted, 0, Tracer.of(genesis(there)))
    answer = anvil.rpc.eth_call(on.at.arbiter, check.call, "latest", trader.address)
    assert arbiter().function("check_segment").decode_output(answer) == (
        *(True, 1, check.challenge_id, honest.post_root),
    )


@pytest.mark.node
def test_sidecar__with_two_cell_proofs_in_each_others_place__is_refused_by_a_node(
    exchange: Blobs, make_batch: BatchMaker
) -> None:
    batch = make_batch(1)
    made = blobs.sidecar(batch.payload)
    first, second, *others = made.cell_proofs
    with pytest.raises(RpcRejected, match="invalid KZG proof"):
        _raw(exchange, batch, 10, replace(made, cell_proofs=(second, first, *others)))
    _raw(exchange, batch, 10, made)
    assert [one.payload for one in exchange.batches()] == [batch.payload]


@pytest.mark.node
def test_form__of_an_honest_batch__is_no_fraud(exchange: Blobs, make_batch: BatchMaker) -> None:
    exchange.post(make_batch(1))
    [posted] = exchange.batches()
    assert not is_malformed(posted.payload, 1, 0, 0)
    assert not exchange.form(posted)


@pytest.mark.node
def test_post_blobs__refuses_what_nobody_could_open(exchange: Blobs, make_batch: BatchMaker) -> None:
    batch, rpc = make_batch(1), exchange.chain.rpc
    values = (
        batch.batch_id,
        batch.pre_root,
        batch.post_root,
        batch.segments,
        batch.records,
        batch.first_seq,
        batch.time_s,
        0,
        batch.inbox_hash,
        batch.work,
        batch.tick,
    )

    def reason(elements: int | None, hashes: int) -> str:
        last = batch.payload if elements is None else elements
        data = ROLLUP.encode("post" if elements is None else "post_blobs", *values, last)
        names = [bytes([1]) * 32] * hashes
        with pytest.raises(RpcReverted) as caught:
            rpc.eth_call(exchange.at.rollup, data, "latest", exchange.sequencer.address, names)
        return caught.value.reason

    assert reason(None, 0) == "rollup: payload is not where the arbiter looks"
    assert reason(0, 1) == "rollup: payload shorter than its tables"
    assert reason(10, 0) == "rollup: blob is missing"
    assert reason(4_097, 1) == "rollup: blob is missing"
    assert reason(10, 2) == "rollup: surplus blob"
    assert reason(6 * 4_096 + 1, 6) == "rollup: payload too large"
    assert reason(2, 1) == "rollup: record count does not fit"


@pytest.mark.node
def test_batch__stuck_in_the_pool__is_replaced_at_doubled_fees_and_mined_once(
    exchange: Blobs, make_batch: BatchMaker
) -> None:
    exchange.chain.set_automine(False)
    try:
        assert exchange.poster.offer(make_batch(1))
        exchange.poster.step()
        for _ in range(50):
            if exchange.manager.metrics().bumps:
                break
            exchange.chain.rpc.sleep(0.02)
            exchange.poster.step()
        assert exchange.manager.metrics().bumps >= 1
        assert not exchange.manager.metrics().last_error
    finally:
        exchange.chain.set_automine(True)
    exchange.chain.mine()
    exchange.poster.drain(60)
    assert [one.batch_id for one in exchange.batches()] == [1]


@pytest.mark.node
def test_beacon__without_the_blob__is_an_outage_and_no_verdict(exchange: Blobs) -> None:
    with pytest.raises(RpcUnavailable):
        Beacon(exchange.chain.url).blobs(exchange.chain.rpc.block_number(), 0, [b"\1" * 32])


@pytest.mark.node
def test_post_blobs__where_the_arbiter_looks_at_calldata__reverts(
    anvil: Chain, make_batch: BatchMaker
) -> None:
    sequencer = anvil.signer(SEQUENCER)
    at = deploy(anvil.rpc, anvil.signer(DEPLOYER), DeployConfig(GENESIS_ROOT, sequencer.address, 3600, 3600))
    batch = make_batch(1)
    data = ROLLUP.encode(
        "post_blobs", 1, GENESIS_ROOT, batch.post_root, 1, 1, 0, batch.time_s, 0, bytes(32), 0, 0, 10
    )
    with pytest.raises(RpcReverted, match="payload is not where the arbiter looks"):
        anvil.rpc.eth_call(at.rollup, data, "latest", sequencer.address, [b"\1" * 32])


@pytest.mark.node
def test_lie__told_in_blobs__is_caught_slashed_and_rolled_back(tmp_path: Path) -> None:
    install_or_skip()
    target = tmp_path / "lie.json"
    command = ["demo", "--lie", "wrong-mark", "--chain", "anvil", "--data", "blob", "--json", str(target)]
    assert CliRunner().invoke(main, command).exit_code == 0
    report = json.loads(target.read_text())
    assert report["data"] == "blob"
    assert report["caught"]
    assert report["slashed"]
    assert report["rolled_back"]
    assert report["watcher_agrees"]
    assert report["honest_records_kept"] > 0
    assert report["challenge_gas"] < 1_000_000


def test_demo__in_blobs_on_a_chain_without_them__says_so() -> None:
    result = CliRunner().invoke(main, ["demo", "--data", "blob"])
    assert result.exit_code == 1
    assert "does not support blobs" in result.output
