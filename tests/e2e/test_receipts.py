"""Every acknowledgement of the public port carries a receipt that its trader can check."""

import asyncio
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from sequencer.cli import main
from sequencer.development import devnet_params, receipt_key
from sequencer.l1.follower import Follower
from sequencer.l1.sequencers import SEQUENCERS, receipt_keys
from sequencer.local.devnet import Devnet, DevnetConfig, devnet_key, devnet_signer, wait_for
from sequencer.market.flat import FlatSource
from sequencer.proof.receipt_watch import ReceiptSources
from sequencer.proof.watcher import WatchConfig, Watcher
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.batch import ids_in
from sequencer.protocol.constants import Kind
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.sdk.client import Client
from sequencer.sdk.http_client import HttpClient
from sequencer.sdk.receipts import ReceiptWrong, check_ack, load
from sequencer.sdk.trader import Trader

USD = 10**6
INDEX = 4_600_000


def wanted(now_s: int) -> list[tuple[int, int, int, bool]]:
    day = now_s // 86_400 + 30
    return [(0, day, 4_600_000, False), (0, day, 4_800_000, False)]


@pytest.mark.timeout(240)
def test_receipts__of_all_that_traders_do__are_signed_checked_kept_and_committed_to(tmp_path: Path) -> None:
    async def run() -> None:
        terms = wanted(int(time.time()))
        config = DevnetConfig(folder=tmp_path / "net", params=devnet_params(risk_age_max_s=86_400))
        async with Devnet(config, None, [FlatSource(terms, INDEX)], terms) as devnet:
            numbers = [await devnet.fund(devnet_signer(one), 100_000 * USD) for one in (1, 2)]
            await wait_for(lambda: len(devnet.service.state.instruments) == 2, 60, "the listings")
            at = devnet.deployment
            keys = receipt_keys(devnet.chain.rpc, at, [at.sequencer])
            assert keys == {address_of(public_key_of(receipt_key()))}
            async with await Client.connect(devnet.ws_url) as client:
                maker, taker = [
                    await Trader.open(
                        client, devnet_key(one), receipt_file=tmp_path / f"{one}.jsonl", receipt_keys=keys
                    )
                    for one in (1, 2)
                ]
                assert [maker.number, taker.number] == numbers
                name = (await client.call("instruments"))[0]["instrument"]
                resting = [
                    await maker.place(name, "sell", price, "0.5")
                    for price in ("3000", "3001", "3002", "3003", "3004")
                ]
                crossing = await taker.place(name, "buy", "3004", "2.2", tif="IOC")
                assert len(crossing.ack["fills"]) == 5
                assert len(crossing.ack["outcomes"]) == 2  # the order and a CONTINUE
                await maker.amend(resting[4], quantity="0.4")
                last = await maker.place(name, "sell", "3100", "0.1")
                await maker.cancel(last)

                # The same over HTTP; a record that comes again is answered as the first time.
                raw = await _record(taker, name)
                http = await asyncio.to_thread(HttpClient, devnet.url)
                answers = [await asyncio.to_thread(http.submit, raw) for _ in range(3)]
                http.close()
                for trader in (maker, taker):
                    assert trader.receipts is not None
                    trader.receipts.close()
                assert answers[0] == answers[1] == answers[2]
                assert answers[0] == await client.submit(raw)
                opened = check_ack(raw, answers[0], at.chain_id, at.rollup, keys)

            kept = load(tmp_path / "1.jsonl") + load(tmp_path / "2.jsonl")
            assert len(kept) == 9
            all_opened = [one.open() for one in kept] + [opened]
            assert {one.signer for one in all_opened} == keys
            assert max(len(one.receipt.data) // 2 - 1 for one in all_opened) <= 400
            await devnet.post_all()

            # Each header is in a batch, at its tick.
            follower = Follower(devnet.chain.rpc, at.inbox, at.rollup, at.deploy_block, 0)
            batches = await asyncio.to_thread(lambda: list(follower.batches(0)))
            ids = [one for batch in batches for one in ids_in(batch.payload, batch.segments, batch.ticks)]
            assert batches[-1].tick == len(ids)
            for one in all_opened:
                assert ids[one.header.tick - 1] == one.header.id

            # What was not signed is found.
            receipt = kept[-1]
            item = receipt.items[0]
            assert item.paid is not None
            for wrong in (
                msgspec.structs.replace(item, paid=item.paid + 1),
                msgspec.structs.replace(item, rests=item.rests + 1),
                msgspec.structs.replace(item, trades=item.trades[1:]),
                msgspec.structs.replace(item, reason=1),
            ):
                changed = msgspec.structs.replace(receipt, items=[wrong, *receipt.items[1:]])
                with suppress(ReceiptWrong):
                    assert changed.open().signer not in keys

    asyncio.run(run())


async def _record(trader: Trader, name: str) -> bytes:
    """A signed order that nobody has sent."""
    number = await trader._number_of(name)
    nonce = await trader.nonces.take()
    raw = codec.encode(
        Kind.PLACE, account=trader.number, instrument=number, flags=c.BUY, price=1_000, quantity=10, nonce=nonce,
        expires=0, fee_max=65_535,
    )  # fmt: skip
    return codec.sign(raw, trader._domain, trader._key)


@pytest.mark.timeout(240)
def test_receipt_verify__says_honoured_pending_or_broken__and_takes_the_bond(tmp_path: Path) -> None:
    """The commands, as a trader types them; the sequencer stops posting, which breaks what it has receipted."""

    def verify(name: str, *more: str) -> tuple[int, dict[str, Any]]:
        command = ["receipt", "verify", str(tmp_path / name), "--json", *more]
        result = CliRunner().invoke(main, command, catch_exceptions=False)
        is_json = result.stdout.startswith("{")
        return result.exit_code, json.loads(result.stdout) if is_json else {"why": result.output}

    async def run() -> None:
        terms = wanted(int(time.time()))
        config = DevnetConfig(
            folder=tmp_path / "net", params=devnet_params(risk_age_max_s=86_400), challenge_window_s=60
        )
        async with Devnet(config, None, [FlatSource(terms, INDEX)], terms) as devnet:
            await devnet.fund(devnet_signer(1), 100_000 * USD)
            await wait_for(lambda: len(devnet.service.state.instruments) == 2, 60, "the listings")
            l1 = ("--l1", devnet.chain.url, "--deployment", str(tmp_path / "net" / "deployment.json"))

            def place(name: str, price: str) -> None:
                listed = next(
                    iter(devnet.service.views.name(n) for n in devnet.service.state.instruments.values())
                )
                command = ["order", "place", listed, "sell", "0.1", price, "--receipt", str(tmp_path / name)]
                command += ["--api", devnet.url, "--devnet-key", "1"]
                result = CliRunner().invoke(main, command, catch_exceptions=False)
                assert result.exit_code == 0, result.output

            await asyncio.to_thread(place, "kept.jsonl", "3000")
            code, told = await asyncio.to_thread(verify, "kept.jsonl")
            assert (code, told["valid"], told["state"]) == (0, True, None)
            key = "0x" + address_of(public_key_of(receipt_key())).hex()
            assert told["signer"] == key
            await devnet.post_all()
            code, told = await asyncio.to_thread(verify, "kept.jsonl", *l1, "--key", key)
            assert (code, told["state"], told["misdeed"]) == (0, "honoured", None), told

            assert devnet.service.worker is not None
            devnet.service.worker.paused = True
            await asyncio.to_thread(place, "late.jsonl", "3001")
            code, told = await asyncio.to_thread(verify, "late.jsonl", *l1)
            assert (code, told["state"]) == (0, "pending"), told
            await devnet.set_chain_time(told["due_s"] + 5)
            await asyncio.to_thread(devnet.chain.mine)
            code, told = await asyncio.to_thread(verify, "late.jsonl", *l1)
            assert (code, told["state"], told["misdeed"]) == (1, "broken", "overdue"), told
            code, told = await asyncio.to_thread(verify, "late.jsonl", *l1, "--slash", "--devnet-key", "2")
            assert told["tx"].startswith("0x")
            bond = SEQUENCERS.read(
                devnet.chain.rpc, devnet.deployment.sequencers, "bond_of", devnet.deployment.sequencer
            )
            assert bond == 0

    asyncio.run(run())
    kept = (tmp_path / "kept.jsonl").read_bytes()
    (tmp_path / "changed.jsonl").write_bytes(kept.replace(b'"rests":1000', b'"rests":1001'))
    code, told = verify("changed.jsonl", "--key", "0x" + address_of(public_key_of(receipt_key())).hex())
    assert (code, told["valid"]) == (1, False)
    (tmp_path / "none.jsonl").write_bytes(b"{}\n")
    code, told = verify("none.jsonl")
    assert code == 1
    assert "line 1: not a receipt" in told["why"]


@pytest.mark.timeout(240)
def test_receipts__left_with_a_watcher_in_the_background__are_honoured_once_posted(tmp_path: Path) -> None:
    async def run() -> None:
        terms = wanted(int(time.time()))
        config = DevnetConfig(folder=tmp_path / "net", params=devnet_params(risk_age_max_s=86_400))
        async with Devnet(config, None, [FlatSource(terms, INDEX)], terms) as devnet:
            for one in (1, 2):
                await devnet.fund(devnet_signer(one), 100_000 * USD)
            await wait_for(lambda: len(devnet.service.state.instruments) == 2, 60, "the listings")
            at, rpc = devnet.deployment, devnet.chain.rpc
            watcher = Watcher(
                *(rpc, at, config.params, tmp_path / "w", WatchConfig(confirmations=0)),
                receipts=ReceiptSources(tmp_path / "r", takes=True),
            )
            assert watcher.receipts is not None
            await asyncio.to_thread(watcher.step)
            with watcher.receipts.serve("127.0.0.1", 0) as port:
                url = f"http://127.0.0.1:{port}"
                async with await Client.connect(devnet.ws_url) as client:
                    for wrong in ({"watchers": ["nowhere"]}, {"rollup": "0x" + "11" * 20}):
                        with pytest.raises(ValueError, match=r"watcher|rollup"):
                            await Trader.open(client, devnet_key(1), **wrong)
                    asks_l1 = {"l1_url": rpc.url, "rollup": at.rollup}
                    traders = [
                        await Trader.open(client, devnet_key(one), watchers=[url], **how)
                        for one, how in ((1, asks_l1), (2, {}))
                    ]
                    assert traders[0].receipts is not None
                    assert traders[0].receipts.keys == receipt_keys(rpc, at, [at.sequencer])
                    name = (await client.call("instruments"))[0]["instrument"]
                    for trader in traders:
                        for price in ("100", "101", "102"):
                            await trader.place(name, "buy", price, "0.1")
                    await devnet.post_all()
                    for trader in traders:
                        follower = trader.follower
                        assert follower is not None
                        follower._look_at = 0.0
                        follower.came()
                        await wait_for(lambda keeper=follower.keeper: not keeper.waits, 30, "what is posted")
                        await asyncio.to_thread(follower.close)
                        assert [(post.counts.left, post.counts.refused) for post in follower.posts] == [
                            (3, 0)
                        ]
                for _ in range(3):
                    await asyncio.to_thread(watcher.step)
                told = watcher.status["receipts"]
                assert (told["honoured"], told["pending"], told["broken"]) == (6, 0, 0)
                assert told["box"] == {"stored": 6, "refused": 0}
                names = [path.stem for path in (tmp_path / "r" / "left").glob("??/*.json")]
                states = [json.loads(watcher.receipts.box.get(f"/receipts/{one}")[2]) for one in names]
                assert [one["state"] for one in states] == ["honoured"] * 6
            watcher.close()

    asyncio.run(run())
