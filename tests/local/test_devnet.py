"""One machine's exchange: it starts, funds, posts, and leaves no process behind, also when it cannot start."""

import asyncio
import socket
import subprocess

import pytest

from sequencer.genesis import genesis_root
from sequencer.local.devnet import (
    FEEDS,
    Devnet,
    DevnetConfig,
    devnet_key,
    devnet_params,
    devnet_signer,
    feed_key,
    wait_for,
)
from sequencer.protocol.hashing import address_of, public_key_of


def test_devnet_params__feeds__are_the_addresses_of_the_derived_keys():
    params = devnet_params(taker_fee_ppm=7)
    assert params.feed_keys == tuple(address_of(public_key_of(feed_key(number))) for number in range(FEEDS))
    assert len(set(params.feed_keys)) == FEEDS
    assert params.taker_fee_ppm == 7
    assert genesis_root(params) != genesis_root(devnet_params())


def test_devnet_key__first_account__is_the_well_known_one():
    assert devnet_signer(0).address == "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    assert address_of(public_key_of(devnet_key(1))).hex() == "70997970c51812dc3a010c7d01b50e0d17dc79c8"


def test_wait_for__what_never_comes__says_what_it_was():
    with pytest.raises(TimeoutError, match="waited 0 s for a miracle"):
        asyncio.run(wait_for(lambda: False, 0.02, "a miracle"))


@pytest.mark.slow
def test_devnet__a_deposit__is_credited_posted_and_survives_a_restart_of_the_sequencer(tmp_path):
    async def main() -> tuple[subprocess.Popen, subprocess.Popen]:
        async with Devnet(DevnetConfig(folder=tmp_path)) as devnet:
            chain, gateway = devnet.chain.process, devnet.gateway
            assert await devnet.fund(devnet_signer(1), 5_000_000) == 1
            assert await devnet.fund(devnet_signer(2), 7_000_000) == 2
            assert await devnet.fund(devnet_signer(1), 1_000_000) == 1
            assert devnet.vault_balance() == 13_000_000
            g = devnet.service.state.globals
            assert (g.pool, g.inbox_count) == (13_000_000, 3)
            root = devnet.service.state.root()
            assert await devnet.post_all() == devnet.service.pace.last_posted
            # The same folder, chain and deployment, as after an end and a start of the sequencer alone.
            await devnet.service.stop()
            again = Devnet(DevnetConfig(chain=devnet.chain.url, folder=tmp_path))
            async with again:
                assert again.service.state.root() == root
                assert again.deployment == devnet.deployment
                assert await again.fund_key(b"\x77" * 32, 2_000_000) == 3
            del devnet.service
            return chain, gateway

    for process in asyncio.run(main()):
        assert process.poll() is not None


@pytest.mark.slow
def test_devnet__whose_gateway_cannot_listen__ends_its_chain_and_says_why(tmp_path):
    devnet = Devnet(
        DevnetConfig(folder=tmp_path, port=1)
    )  # not ours to listen on, or root's: then another reason

    async def main() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            devnet.config.port = taken.getsockname()[1]  # bound and not listening: nobody else can
            with pytest.raises(RuntimeError, match="the gateway did not start"):
                await devnet.__aenter__()

    asyncio.run(main())
    assert devnet.chain.process is None
    assert devnet.gateway is None
