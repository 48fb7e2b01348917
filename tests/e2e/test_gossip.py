"""A sequencer signs two headers of one tick, one for each group of traders: peers find it, and its bond is taken."""

import socket
import time
from collections.abc import Callable

from sequencer.development import receipt_key
from sequencer.l1.members import MemberKeys
from sequencer.l1.sequencers import CALL_GAS, SEQUENCERS, set_receipt_key
from sequencer.l1.wallet import Wallet
from sequencer.local.devnet import devnet_signer
from sequencer.local.lie_stage import CHALLENGER, Stage, stage
from sequencer.local.receipt_lies import RECEIPT_LIES, perform_signed, signed_receipt, victim_of
from sequencer.market.tape import open_tape
from sequencer.proof.challenger import Challenger
from sequencer.proof.gossip import Gossip, GossipConfig
from sequencer.proof.headers import HeaderStore
from sequencer.proof.receipt_watch import ReceiptSources
from sequencer.proof.watcher import WatchConfig, Watcher
from sequencer.sdk.receipts import Opened
from sequencer.wire.headers import SignedHeader

PATIENCE_S = 60.0


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def peer_of(on: Stage, config: GossipConfig) -> Gossip:
    """What a group of traders runs: a peer that takes the keys from L1."""
    keys = MemberKeys(on.chain.rpc, on.at)
    keys.refresh(on.chain.rpc.block_number())
    head_s = int(on.chain.rpc.block("latest")["timestamp"], 16)
    made = Gossip(on.domain, HeaderStore(on.domain), config, keys.member_of, lambda: (head_s, time.time()))
    made.start()
    return made


def watcher_of(on: Stage, name: str, config: GossipConfig, takes_bonds: bool) -> Watcher:
    folder = on.folder / name
    challenger = Challenger(on.chain.rpc, on.at, devnet_signer(CHALLENGER), folder) if takes_bonds else None
    made = Watcher(
        *(on.chain.rpc, on.at, on.params, folder, WatchConfig(confirmations=0)),
        challenger=challenger,
        receipts=ReceiptSources(gossip=config),
    )
    made.start()
    return made


def tell(peer: Gossip, opened: Opened) -> None:
    peer.offer(SignedHeader(opened.header, opened.signature, opened.signer).pack())


def endpoint() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"tcp/127.0.0.1:{free.getsockname()[1]}"


def test_two_headers_of_one_tick__one_for_each_group__cost_the_bond() -> None:
    first_at, second_at, watcher_at = endpoint(), endpoint(), endpoint()
    with stage("pyevm", open_tape(None, 1)) as on:
        data = set_receipt_key(on.at, on.signer.address, receipt_key())
        Wallet(on.chain.rpc, on.signer, on.at).transact("key", on.at.sequencers, data, gas=CALL_GAS)
        engine, _ = perform_signed(on, lambda _engine: None)
        at, place = victim_of(engine)
        tick, lie = engine.signed[at], RECEIPT_LIES["receipt-equivocation"].header
        assert lie is not None
        shown = signed_receipt(on, tick, place, tick.header, tick.items[place])
        other = signed_receipt(on, tick, place, lie(tick.header), tick.items[place])

        first = peer_of(on, GossipConfig(listen=(first_at,), ask_s=0.5))
        second = peer_of(on, GossipConfig(listen=(second_at,), ask_s=0.5))
        for before in engine.signed[:at]:
            if len(before.items) == len(before.leaves):
                tell(first, signed_receipt(on, before, 0, before.header, before.items[0]))
        tell(first, shown)
        tell(second, other)
        until(lambda: len(first.store) > 1 and len(second.store) == 1, "the headers were not taken")
        assert first.status()["pairs"] + second.status()["pairs"] == 0

        watcher = watcher_of(
            on, "w", GossipConfig(peers=(first_at, second_at), listen=(watcher_at,), ask_s=0.5), True
        )
        watcher.step()

        def is_slashed() -> bool:
            on.chain.mine()
            watcher.step()
            return int(SEQUENCERS.read(on.chain.rpc, on.at.sequencers, "bond_of", on.signer.address)) == 0

        until(is_slashed, "the bond stands")
        until(lambda: first.status()["pairs"] and second.status()["pairs"], "the groups have not heard of it")
        watcher.step()
        told = watcher.status["receipts"]
        assert [one["misdeed"] for one in told["headers"]] == ["equivocation"]
        (slashed,) = told["slashed"].values()
        assert (slashed["state"], slashed["member"].lower()) == ("slashed", on.signer.address.lower())
        assert on.chain.rpc.receipt(slashed["tx_hash"])["status"] == "0x1"
        assert any("BROKEN RECEIPT" in alarm.what for alarm in watcher.alarms)
        watcher.close()

        again = watcher_of(on, "w", GossipConfig(listen=(watcher_at,)), True)  # it goes on from its folder
        again.step()
        (slashed,) = again.status["receipts"]["slashed"].values()
        assert slashed["state"] in ("slashed", "taken")
        again.close()
        first.stop()
        second.stop()


def test_honest_headers__pass_among_peers_without_a_finding() -> None:
    first_at, watcher_at = endpoint(), endpoint()
    with stage("pyevm", open_tape(None, 1)) as on:
        data = set_receipt_key(on.at, on.signer.address, receipt_key())
        Wallet(on.chain.rpc, on.signer, on.at).transact("key", on.at.sequencers, data, gas=CALL_GAS)
        engine, made = perform_signed(on, lambda _engine: None)
        first = peer_of(on, GossipConfig(listen=(first_at,), ask_s=0.5))
        watcher = watcher_of(on, "w", GossipConfig(peers=(first_at,), listen=(watcher_at,), ask_s=0.5), False)
        whole = [one for one in engine.signed if len(one.items) == len(one.leaves)]
        for one in whole:
            tell(first, signed_receipt(on, one, 0, one.header, one.items[0]))
        on.post(made)
        watcher.step()
        assert watcher.receipts is not None
        gossip = watcher.receipts.gossip
        assert gossip is not None
        until(lambda: len(gossip.store) == len(whole), "the headers were not heard")
        watcher.step()
        assert (watcher.status["receipts"]["headers"], watcher.status["receipts"]["slashed"]) == ([], {})
        assert not watcher.alarms
        assert watcher.status["ok"]
        watcher.close()
        first.stop()
