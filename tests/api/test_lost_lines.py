"""The SDK on lines that fail: closed, silent, closed while kept; and what a gateway refuses for one of many."""

import asyncio
import socket
import threading
import time

import pytest
from exchange_fixture import (
    DOMAIN,
    INSTRUMENT,
    KEYS,
    MAKER,
    NAMES,
    PATIENCE_S,
    TAKER,
    Exchange,
    RealService,
    free_port,
    signed,
)

from sequencer.errors import ConnectionFailed, FairstrikeError, InvalidParams, OutcomeUnknown
from sequencer.protocol import codec
from sequencer.protocol.constants import Kind
from sequencer.sdk.client import Client, HttpClient, Trader
from sequencer.wire.backoff import Backoff
from sequencer.wire.jsonrpc import Instruments


def trading(running, scenario, **settings):
    """Runs `scenario(client, maker)`."""

    async def run():
        async with await Client.connect(running.ws_url, **settings) as client:
            await scenario(client, await Trader.open(client, KEYS[MAKER]))

    asyncio.run(asyncio.wait_for(run(), 2 * PATIENCE_S))


def cut_lines(running):
    """Ends every client's connection."""
    peers = running.do(
        lambda: [peer for peers in running.gateway.events.by_channel.values() for peer in peers]
    )
    running.do(lambda: [peer._raw.abort() for peer in peers])


async def next_event(subscription):
    async with asyncio.timeout(PATIENCE_S):
        async for event in subscription:
            return event
    raise AssertionError("the subscription has ended")


class Tunnel:
    """A TCP port before another. `swallow`: takes bytes and passes none on, in either direction."""

    def __init__(self, port):
        self.swallow = False
        self.accepted = 0
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._ends = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            far = socket.create_connection(("127.0.0.1", self._to))
            self._ends += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source, target):
        try:
            while data := source.recv(65_536):
                if not self.swallow:
                    target.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, target):
                with socket_errors_ignored():
                    end.shutdown(socket.SHUT_RDWR)

    def close(self):
        with socket_errors_ignored():
            self._listener.shutdown(socket.SHUT_RDWR)
        for end in (self._listener, *self._ends):
            with socket_errors_ignored():
                end.close()


class socket_errors_ignored:  # used as a function
    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        return kind is not None and issubclass(kind, OSError)


# --- one bad item -------------------------------------------------------------------------------


def test_subscribe__with_a_bad_channel_among_good_ones__has_the_good_and_names_the_bad(stand_in):
    async def scenario(client, maker):
        found = await client.subscribe("trades", "ticker.BTC-1JAN20-1-C", f"book.{NAMES[0]}")
        assert found.channels == {"trades", f"book.{NAMES[0]}"}
        assert list(found.refused) == ["ticker.BTC-1JAN20-1-C"]
        assert "has not expired" in found.refused["ticker.BTC-1JAN20-1-C"]
        with pytest.raises(InvalidParams):
            await client.subscribe("ticker.BTC-1JAN20-1-C")

    trading(stand_in, scenario)


def test_reconnect__with_an_expired_option_among_the_subscriptions__goes_on_with_the_others(stand_in):
    connected = []

    async def scenario(client, maker):
        events = await client.subscribe("trades", f"ticker.{NAMES[0]}", f"book.{NAMES[1]}")

        def expire():  # a gateway that was started anew knows live options only
            listed = stand_in.gateway.listed.numbers
            stand_in.gateway.listed = Instruments(
                (name, number) for name, number in listed.items() if name != NAMES[0]
            )
            stand_in.gateway._refreshed_at = float("inf")

        stand_in.do(expire)
        connect_once = client._connect

        async def counted():
            connected.append(time.monotonic())
            return await connect_once()

        client._connect = counted
        await asyncio.to_thread(cut_lines, stand_in)
        ended = await next_event(events)
        assert (ended.channel, ended.is_end, "expired" in ended.data) == (f"ticker.{NAMES[0]}", True, True)
        assert (await next_event(events)).is_gap
        await maker.place(NAMES[1], "sell", "1600", "0.01")
        assert (await next_event(events)).channel == f"book.{NAMES[1]}"
        await asyncio.sleep(0.5)
        assert len(connected) == 1

    trading(stand_in, scenario)


def test_reconnect__that_fails_each_time__waits_longer_and_longer():
    waits = []
    now = [0.0]
    backoff = Backoff(0.1, 5.0, steady_s=10.0, monotonic=lambda: now[0])
    for _ in range(60):
        now[0] += 0.01  # it connects, and is lost at once
        backoff.worked()
        waits.append(backoff.next_s())
        now[0] += waits[-1]
    assert sum(one <= now[0] for one in waits) == 60
    assert all(2.5 <= wait <= 5.0 for wait in waits[6:])
    assert len(set(waits)) > 50  # never in step
    backoff.worked()
    now[0] += 10.0
    assert backoff.next_s() <= 0.1


# --- silence ------------------------------------------------------------------------------------


def test_line_that_swallows_bytes__is_noticed_and_made_anew(stand_in):
    tunnel = Tunnel(stand_in.port)
    try:

        async def scenario():
            url = f"ws://127.0.0.1:{tunnel.port}/ws"
            async with await Client.connect(url, ping_s=0.3, connect_timeout_s=0.5) as client:
                maker = await Trader.open(client, KEYS[MAKER])
                events = await client.subscribe("trades")
                tunnel.swallow = True
                began = time.monotonic()
                with pytest.raises(OutcomeUnknown):
                    await maker.place(INSTRUMENT, "sell", "1600", "0.01")
                assert time.monotonic() - began < 10
                tunnel.swallow = False
                assert (await next_event(events)).is_gap
                assert (await maker.place(INSTRUMENT, "sell", "1600", "0.01")).rests

        asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))
    finally:
        tunnel.close()


def test_gateway_that_accepts_and_says_nothing__connecting_fails_in_time():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        async def scenario():
            with pytest.raises(ConnectionFailed):
                await Client.connect(f"ws://127.0.0.1:{port}/ws", connect_timeout_s=0.3)

        asyncio.run(asyncio.wait_for(scenario(), 10))


def test_http_client__whose_answer_drips__gives_up_at_its_deadline():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            end, _ = listener.accept()
            with end, socket_errors_ignored():
                end.recv(65_536)
                end.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                for _ in range(200):
                    end.sendall(b" ")
                    time.sleep(0.05)

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        began = time.monotonic()
        client = HttpClient(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.5)
        with client, pytest.raises(OutcomeUnknown, match=r"no answer in 0\.5 s"):
            client.call("status")
        assert time.monotonic() - began < 5
        thread.join(PATIENCE_S)


# --- lost wake-ups ------------------------------------------------------------------------------


def test_three_hundred_orders_at_once__and_the_line_lost__each_ends(stand_in):
    async def scenario(client, maker):
        await client.subscribe("trades")
        stand_in.sequencer.silent = True
        orders = [
            asyncio.create_task(maker.place(INSTRUMENT, "sell", "1600", "0.01", post_only=True))
            for _ in range(300)
        ]
        await asyncio.to_thread(
            stand_in.until, lambda: len(stand_in.gateway._pending) == 256, "the first window"
        )
        await asyncio.to_thread(cut_lines, stand_in)
        stand_in.sequencer.silent = False
        done, hanging = await asyncio.wait(orders, timeout=30)
        assert not hanging
        unknown = [one for one in done if isinstance(one.exception(), OutcomeUnknown)]
        assert len(unknown) == 256
        assert len([one for one in done if one.exception() is None]) == 44

    trading(stand_in, scenario)


def test_nonces__when_asking_for_them_fails__raise_in_all_who_wait(stand_in):
    async def scenario(client, maker):
        async def fails():
            raise ConnectionFailed("ws://nowhere", "away")

        orders = [await maker.nonces.take() for _ in range(256)]
        waiting = [asyncio.create_task(maker.nonces.take()) for _ in range(44)]
        await asyncio.sleep(0)
        maker.nonces._settle = fails
        for nonce in orders:
            maker.nonces.lose(nonce)
        done, hanging = await asyncio.wait(waiting, timeout=10)
        assert not hanging
        assert {type(one.exception()) for one in done} == {ConnectionFailed}

    trading(stand_in, scenario)


# --- what became of it --------------------------------------------------------------------------


def test_outcome__of_orders_whose_acks_were_lost__says_what_became_of_each():
    with Exchange(RealService) as running:
        tick = running.sequencer.service.driver.tick

        async def scenario(client, maker):
            await client.subscribe("trades")
            placed = asyncio.create_task(maker.place(INSTRUMENT, "sell", "1600", "0.01"))
            await asyncio.to_thread(
                running.until, lambda: len(running.sequencer.service.intake), "the order in the queue"
            )
            await asyncio.to_thread(cut_lines, running)
            with pytest.raises(OutcomeUnknown) as unknown:
                await placed
            assert (unknown.value.account, unknown.value.nonce) == (MAKER, 0)
            waiting = await maker.outcome(unknown.value, patience_s=0.0)
            assert waiting == {"status": "waiting"}
            await asyncio.to_thread(lambda: running.run(ticked()))
            found = await maker.outcome(unknown.value)
            assert (found["status"], found["kind"]) == ("applied", "PLACE")
            assert found["ack"]["order"]["seq"] == found["seq"]
            assert found["record"] == "0x" + unknown.value.record.hex()
            other = codec.sign(
                codec.encode(Kind.CANCEL_ALL, account=MAKER, nonce=0, nonce_floor=0, expires=0),
                DOMAIN,
                KEYS[MAKER],
            )
            replaced = OutcomeUnknown("CANCEL_ALL", "", account=MAKER, nonce=0, record=other)
            assert (await maker.outcome(replaced))["status"] == "replaced"
            unused = OutcomeUnknown("CANCEL_ALL", "", account=MAKER, nonce=7, record=other)
            assert await maker.outcome(unused) == {"status": "unused"}
            await asyncio.to_thread(restart, running)
            again = await maker.outcome(unknown.value)
            assert again == found
            resent = await asyncio.to_thread(running.submit, unknown.value.record)
            assert resent == found["ack"]

        async def ticked():
            await tick()
            await running.sequencer.service.driver.flush()

        # the exchange stands still until it is stepped
        running.run(hold(running.sequencer.service))
        trading(running, scenario)


async def hold(service):
    """Lets the service tick no more by itself."""
    service.driver.end()
    for task in service.tasks:
        await task


def restart(running):
    running.stop_sequencer()
    running.start_sequencer()
    running.until(lambda: running.gateway.ready, "the gateway")


# --- reused connections -------------------------------------------------------------------------


def test_http_client__whose_kept_connection_was_closed__asks_on_a_new_one(stand_in):
    tunnel = Tunnel(stand_in.port)
    try:
        with HttpClient(f"http://127.0.0.1:{tunnel.port}") as client:
            assert client.call("account", account=MAKER)["nonce_floor"] == 0
            for end in list(tunnel._ends):
                with socket_errors_ignored():
                    end.shutdown(socket.SHUT_RDWR)
            record = signed(Kind.CANCEL_ALL, KEYS[MAKER], account=MAKER, nonce_floor=0, nonce=0, expires=0)
            assert "seq" in client.submit(record)
            assert client.call("account", account=MAKER)["nonce_floor"] == 1
            assert tunnel.accepted == 2
    finally:
        tunnel.close()


class OneAnswerEach:
    """A server that closes each connection when the second request on it has arrived whole, unanswered."""

    def __init__(self, answers):
        self._answers = list(answers)
        self.requests = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while self._answers:
            end, _ = self._listener.accept()
            with end:
                for turn in range(2):
                    data = end.recv(65_536)
                    self.requests.append(data)
                    if turn or not self._answers:
                        break
                    body = self._answers.pop(0)
                    end.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def close(self):
        self._listener.close()
        self._thread.join(PATIENCE_S)


def test_http_client__record_sent_again_after_a_close__is_unknown_when_its_nonce_is_used():
    used = b'{"jsonrpc":"2.0","id":2,"error":{"code":2014,"message":"used","data":{"reason":"NONCE_USED"}}}'
    server = OneAnswerEach([b'{"jsonrpc":"2.0","id":1,"result":{}}', used])
    with HttpClient(server.url) as client:
        client.call("status")
        with pytest.raises(OutcomeUnknown):
            client.submit(b"\x21" * 93)
    assert len([one for one in server.requests if b"submit" in one]) == 2
    server.close()


def test_http_client__closed_on_its_first_request__does_not_send_it_again():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        seen = []

        def close_at_once():
            end, _ = listener.accept()
            seen.append(end.recv(65_536))
            end.close()

        thread = threading.Thread(target=close_at_once, daemon=True)
        thread.start()
        client = HttpClient(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with client, pytest.raises(OutcomeUnknown):
            client.call("status")
        thread.join(PATIENCE_S)
        assert len(seen) == 1


def test_nobody_listens__http_client_says_so():
    with HttpClient(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(FairstrikeError):
        client.call("status")


# --- events that were dropped -------------------------------------------------------------------


def test_sequencer_lost_and_back__every_subscriber_hears_of_the_gap(stand_in):
    async def scenario(client, maker):
        events = await client.subscribe("trades")
        await asyncio.to_thread(restart, stand_in)
        gap = await next_event(events)
        assert gap.is_gap
        assert "made again" in gap.data["reason"]

    trading(stand_in, scenario)


def test_expired_option__is_readable_by_its_name_through_a_gateway_that_never_listed_it():
    with Exchange() as running:
        running.submit(
            signed(
                Kind.PLACE,
                KEYS[TAKER],
                account=TAKER,
                instrument=INSTRUMENT,
                flags=0,
                price=200_000,
                quantity=100,
                nonce=0,
                expires=0,
                fee_max=100,
            )
        )

        def forget():
            running.gateway.listed = Instruments()

        running.do(forget)
        found = running.result("ticker", instrument=NAMES[0])
        assert (found["number"], found["settlement"]) == (INSTRUMENT, None)
        assert running.result("trades", instrument=NAMES[0]) == []
        error = running.call("ticker", instrument="BTC-1JAN20-1-C")["error"]
        assert error["data"] | {"field": "instrument"} == error["data"]
