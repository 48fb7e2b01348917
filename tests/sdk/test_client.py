"""The SDK against a running exchange: trading, nonces, typed errors, lost connections, keys."""

import asyncio
import json

import pytest
from eth_account import Account
from exchange_fixture import (
    INSTRUMENT,
    KEYS,
    MAKER,
    NAMES,
    NOW,
    PATIENCE_S,
    POOR,
    STRANGER,
    TAKER,
    Exchange,
    free_port,
    signed,
)
from hypothesis import given
from hypothesis import strategies as st

from sequencer import errors
from sequencer.api.gateway import Limits
from sequencer.errors import (
    BadRequest,
    Busy,
    Code,
    ConnectionFailed,
    FairstrikeError,
    InvalidParams,
    MarginRefused,
    NonceRefused,
    NotReady,
    OutcomeUnknown,
    Refused,
    RpcFailed,
    from_error,
)
from sequencer.protocol.constants import NONCE_WINDOW, Kind, Reason
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.sdk.client import Client, HttpClient, Nonces, Trader, load_key


def trading(running, scenario):
    """Runs `scenario(client, maker, taker)`."""

    async def run():
        async with await Client.connect(running.ws_url) as client:
            maker = await Trader.open(client, KEYS[MAKER])
            taker = await Trader.open(client, KEYS[TAKER])
            await scenario(client, maker, taker)

    asyncio.run(run())


def test_place_trade_cancel_withdraw(exchange):
    async def scenario(client, maker, taker):
        order = await maker.place(NAMES[0], "sell", "1500.00", "1")
        assert order.rests
        fill = (await taker.place(INSTRUMENT, "buy", "1500", "0.25", tif="IOC")).ack["fills"][0]
        assert (fill["price"], fill["quantity"], fill["maker_seq"]) == ("1500.00", "0.2500", order.seq)
        assert (await maker.cancel(order))["removed"] == [order.seq]
        assert (await maker.withdraw("12.5"))["amount"] == "12.500000"
        await maker.transfer(TAKER, "0.000001")
        positions = (await taker.account())["positions"]
        assert [(one["number"], one["quantity"]) for one in positions] == [(INSTRUMENT, "0.2500")]

    trading(exchange, scenario)


def test_amend__less_then_another_price__is_one_record_each(exchange):
    async def scenario(client, maker, taker):
        order = await maker.place(NAMES[0], "sell", "1500.00", "1", self_trade="cancel_taker")
        await taker.place(NAMES[0], "buy", "1500", "0.25", tif="IOC")
        less = await maker.amend(order, quantity="0.75")
        assert (less.seq, less.ack["order"]["quantity"], less.ack["order"]["filled"]) == (
            order.seq,
            "0.5000",
            "0.2500",
        )
        asked = await maker.order(order.seq)
        assert (asked.seq, asked.price, asked.quantity, asked.flags) == (
            order.seq,
            order.price,
            7_500,
            order.flags,
        )
        dearer = await maker.amend(less, price="1510.00")
        assert (dearer.ack["amended"], dearer.ack["removed"]) == (order.seq, [order.seq])
        row = dearer.ack["order"]
        assert (dearer.seq, row["price"], row["quantity"]) == (row["seq"], "1510.00", "0.5000")
        assert row["self_trade"] == "cancel_taker"
        with pytest.raises(Refused) as found:
            await maker.amend(order, quantity="2")
        assert found.value.reason is Reason.UNKNOWN_ORDER
        with pytest.raises(MarginRefused):
            await maker.amend(dearer, quantity="90000")
        assert (await client.call("orders", account=MAKER)) == [row]
        done = await maker.amend(dearer, quantity="0.25")
        assert (done.ack["order"], done.ack["removed"], done.rests) == (None, [dearer.seq], False)

    trading(exchange, scenario)


def test_place__in_words__rests_as_any_other_order(exchange):
    async def scenario(client, maker, taker):
        for instrument in (NAMES[0], INSTRUMENT):
            order = await maker.place(instrument, "sell", "1500.00", "0.5", post_only=True, words=True)
            assert (order.ack["order"]["price"], order.ack["order"]["post_only"]) == ("1500.00", True)
            less = await maker.amend(order, quantity="0.25")
            assert less.ack["order"]["quantity"] == "0.2500"

    trading(exchange, scenario)


def test_orders__more_than_the_nonce_window_at_once__all_go_through(exchange):
    async def scenario(client, maker, taker):
        orders = await asyncio.gather(
            *(maker.place(NAMES[0], "sell", "1600", "0.001", post_only=True) for _ in range(3 * NONCE_WINDOW))
        )
        assert len({order.seq for order in orders}) == 3 * NONCE_WINDOW
        await maker.cancel_all()
        assert await client.call("orders", account=MAKER) == []
        assert (await maker.account())["nonce_floor"] == 3 * NONCE_WINDOW + 1

    trading(exchange, scenario)


def test_refused_orders__give_their_nonces_back(exchange):
    async def scenario(client, maker, taker):
        refused = await asyncio.gather(
            *(maker.place(NAMES[0], "sell", "1600", "0.01", reduce_only=True) for _ in range(300)),
            return_exceptions=True,
        )
        assert {(type(one), one.reason) for one in refused} == {(Refused, Reason.REDUCE_ONLY)}
        await maker.place(NAMES[0], "sell", "1600", "0.01")
        assert (await maker.account())["nonce_floor"] == 1

    trading(exchange, scenario)


def test_two_traders_of_one_account__sort_out_their_nonces(exchange):
    async def scenario(client, maker, taker):
        other = await Trader.open(client, KEYS[MAKER])
        placed = await asyncio.gather(
            *(
                one.place(NAMES[0], "sell", price, "0.01")  # the same record twice would be one order
                for one, price in ((maker, "1600"), (other, "1601"))
                for _ in range(20)
            )
        )
        assert len({order.seq for order in placed}) == 40

    trading(exchange, scenario)


def test_nonce_floor_raised_elsewhere__is_learnt(exchange):
    async def scenario(client, maker, taker):
        other = await Trader.open(client, KEYS[MAKER])
        await other.cancel_all(nonce_floor=200)
        order = await maker.place(NAMES[0], "sell", "1600", "0.01")
        assert order.rests

    trading(exchange, scenario)


def test_session_key__trades_within_its_scope(exchange):
    session = b"\x55" * 32

    async def scenario(client, maker, taker):
        await maker.set_signer(address_of(public_key_of(session)), 1, NOW + 3600)
        trader = await Trader.open(client, session, account=MAKER)
        await trader.place(NAMES[0], "sell", "1600", "0.01")
        with pytest.raises(Refused) as refused:
            await trader.withdraw("1")
        assert refused.value.reason is Reason.SCOPE

    trading(exchange, scenario)


def test_errors__are_typed_and_carry_their_data(exchange):
    async def scenario(client, maker, taker):
        with pytest.raises(InvalidParams) as invalid:
            await client.call("book", instrument=NAMES[0], depth=0)
        assert (invalid.value.field, invalid.value.got) == ("depth", 0)
        assert "from 1 to 100" in invalid.value.limit
        with pytest.raises(BadRequest):
            await client.call("no_such_method")
        with pytest.raises(BadRequest):
            await client.submit(b"\x01" * 31)
        poor = await Trader.open(client, KEYS[POOR])
        with pytest.raises(MarginRefused, match="free margin"):
            await poor.place(NAMES[0], "sell", "1600", "100")
        with pytest.raises(Refused) as refused:
            await taker.cancel(await maker.place(NAMES[0], "sell", "1600", "0.01"))
        assert refused.value.reason is Reason.NOT_OWNER_OF_ORDER
        with pytest.raises(ValueError, match=r"1500\.001"):
            await maker.place(NAMES[0], "sell", "1500.001", "1")
        with pytest.raises(ValueError, match="no such instrument"):
            await maker.place("BTC-1JAN30-1-C", "sell", "1", "1")
        with pytest.raises(InvalidParams):
            await Trader.open(client, STRANGER)

    trading(exchange, scenario)


def test_subscription__brings_own_orders_trades_and_books(exchange):
    async def scenario(client, maker, taker):
        own = await maker.subscribe(f"book.{INSTRUMENT}")
        trades = await client.subscribe("trades")
        await maker.place(NAMES[0], "sell", "1500", "1")
        await taker.place(NAMES[0], "buy", "1500", "0.1")
        seen = []
        async with asyncio.timeout(PATIENCE_S):
            async for event in own:
                seen.append((event.channel, *event.data))
                if (f"account.{MAKER}", "fill") in seen:
                    break
            async for event in trades:
                assert (event.data["quantity"], event.channel) == ("0.1000", f"trades.{NAMES[0]}")
                break
        assert (f"account.{MAKER}", "order") in seen
        await client.unsubscribe(own)
        assert all([event.channel in own.channels async for event in own])  # and it ends

    trading(exchange, scenario)


def test_subscription__unread__forgets_the_oldest_and_says_so():
    async def scenario():
        from sequencer.sdk.client import Event, Subscription

        subscription = Subscription(frozenset({"trades"}), kept_max=3)
        for number in range(5):
            subscription.put(Event("trades", number))
        subscription.end()
        return [(event.data, event.is_gap) async for event in subscription]

    assert asyncio.run(scenario()) == [(None, True), (3, False), (4, False)]


# --- lost connections ---------------------------------------------------------------------------


def test_connection_lost__pending_requests_are_unknown__and_the_next_ones_go_through(stand_in):
    async def scenario(client, maker, taker):
        events = await client.subscribe("trades")
        stand_in.sequencer.silent = True
        waiting = asyncio.create_task(maker.place(NAMES[0], "sell", "1600", "0.01"))
        await asyncio.to_thread(stand_in.until, lambda: is_submitted(stand_in), "the order")
        await asyncio.to_thread(stand_in.do, lambda: [peer._raw.abort() for peer in list_of_peers(stand_in)])
        with pytest.raises(OutcomeUnknown) as unknown:
            await waiting
        assert unknown.value.what == "PLACE"
        stand_in.sequencer.silent = False
        order = await maker.place(NAMES[0], "sell", "1600", "0.01")  # asks for the nonces first
        assert order.rests
        async with asyncio.timeout(PATIENCE_S):
            async for event in events:
                assert event.is_gap
                break
        await taker.place(NAMES[0], "buy", "1600", "0.01")
        async with asyncio.timeout(PATIENCE_S):
            async for event in events:
                assert event.channel == f"trades.{NAMES[0]}"
                break

    trading(stand_in, scenario)


def list_of_peers(running):
    """WebSocket peers of the running gateway, by their subscriptions."""
    return [peer for peers in running.gateway.events.by_channel.values() for peer in peers]


def is_submitted(running):
    """Whether a record awaits its ack."""
    return any(one.is_submit for one in running.gateway._pending.values())


def test_sequencer_away__is_not_ready__and_nonces_are_not_lost(stand_in):
    async def scenario(client, maker, taker):
        await asyncio.to_thread(stand_in.stop_sequencer)
        with pytest.raises(NotReady):
            await maker.place(INSTRUMENT, "sell", "1600", "0.01")
        assert not maker.nonces.is_doubtful
        assert await maker.nonces.take() == 0

    trading(stand_in, scenario)


def test_nobody_listens__connection_failed():
    url = f"ws://127.0.0.1:{free_port()}/ws"

    async def scenario():
        with pytest.raises(ConnectionFailed) as failed:
            await Client.connect(url, connect_timeout_s=0.2)
        assert failed.value.url == url

    asyncio.run(scenario())
    base = url.replace("ws://", "http://").removesuffix("/ws")
    with HttpClient(base) as client, pytest.raises(ConnectionFailed):
        client.call("status")


def test_closed_client__fails_what_was_pending(stand_in):
    async def scenario():
        client = await Client.connect(stand_in.ws_url)
        stand_in.sequencer.silent = True
        maker = await Trader.open(client, KEYS[MAKER])
        waiting = asyncio.create_task(maker.place(INSTRUMENT, "sell", "1600", "0.01"))
        await asyncio.to_thread(stand_in.until, lambda: is_submitted(stand_in), "the order")
        await client.close()
        with pytest.raises(OutcomeUnknown):
            await waiting

    asyncio.run(scenario())


def test_answer_that_does_not_come__is_unknown(stand_in):
    async def scenario():
        async with await Client.connect(stand_in.ws_url) as client:
            maker = await Trader.open(client, KEYS[MAKER])
            client._answer_timeout_s = 0.1
            stand_in.sequencer.silent = True
            with pytest.raises(OutcomeUnknown):
                await maker.place(INSTRUMENT, "sell", "1600", "0.01")
            assert maker.nonces.is_doubtful

    asyncio.run(scenario())


# --- HTTP ---------------------------------------------------------------------------------------


def test_http_client__calls_and_submits(exchange):
    record = signed(Kind.CANCEL_ALL, KEYS[MAKER], account=MAKER, nonce_floor=0, nonce=0, expires=0)
    with HttpClient(exchange.url) as client:
        assert client.call("account", account=MAKER)["nonce_floor"] == 0
        first = client.submit(record)
        assert "seq" in first
        assert client.submit(record) == first  # it is executed once, and answered as the first time
        other = signed(Kind.CANCEL_ALL, KEYS[MAKER], account=MAKER, nonce_floor=1, nonce=0, expires=0)
        with pytest.raises(NonceRefused):
            client.submit(other)
        with pytest.raises(InvalidParams):
            client.call("account")


def test_http_client__rate_limited__is_busy():
    def many(client):
        for _ in range(10):
            client.call("status")

    with Exchange(limits=Limits(queries_per_s=1)) as running, HttpClient(running.url) as client:
        with pytest.raises(Busy) as busy:
            many(client)
        assert busy.value.code == Code.RATE_LIMITED


# --- nonces and errors, without a network -------------------------------------------------------


@given(st.lists(st.sampled_from(["take", "use", "refuse", "lose", "reset"]), max_size=80), st.randoms())
def test_nonces__whatever_happens__are_never_handed_out_twice_while_good(steps, random):
    async def scenario():
        nonces = Nonces()
        out, used, floor = [], set(), 0
        for step in steps:
            if step == "take":
                nonce = await asyncio.wait_for(nonces.take(), PATIENCE_S)
                assert nonce not in used
                assert nonce not in out
                assert floor <= nonce < floor + NONCE_WINDOW
                out.append(nonce)
                continue
            if step == "reset":
                nonces.reset(floor, sum(1 << nonce - floor for nonce in used if nonce >= floor))
                assert not nonces.is_doubtful
                continue
            if not out:
                continue
            nonce = out.pop(random.randrange(len(out)))
            if step == "refuse":
                nonces.give_back(nonce)
                continue
            applied = step == "use" or random.random() < 0.5
            if applied:
                used.add(nonce)
                while floor in used:
                    floor += 1
            if step == "use":
                nonces.use(nonce)
            else:
                nonces.lose(nonce)
                nonces.reset(floor, sum(1 << one - floor for one in used if one >= floor))

    asyncio.run(scenario())


def test_nonces__at_the_end_of_the_window__wait_for_the_floor():
    async def scenario():
        nonces = Nonces()
        for _ in range(NONCE_WINDOW):
            await nonces.take()
        waiting = asyncio.create_task(nonces.take())
        nonces.use(1)
        await asyncio.sleep(0.01)
        assert not waiting.done()
        nonces.use(0)
        assert await asyncio.wait_for(waiting, PATIENCE_S) == NONCE_WINDOW

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (-32700, BadRequest),
        (-32602, InvalidParams),
        (1002, BadRequest),
        (1003, BadRequest),
        (1100, Busy),
        (1102, NotReady),
        (1103, OutcomeUnknown),
        (2014, NonceRefused),
        (2029, MarginRefused),
        (2023, Refused),
        (2999, RpcFailed),
        (-32603, RpcFailed),
    ],
)
def test_error_codes__become_their_exceptions(code, kind):
    error = from_error({"code": code, "message": "why", "data": {"x": 1}})
    assert type(error) is kind
    assert isinstance(error, FairstrikeError)
    assert "why" in str(error)


def test_refusal__says_reason_and_details():
    body = json.loads(errors.refusal(Reason.MARGIN, free="-1.5"))
    assert body["code"] == 2029
    assert body["data"] == {"reason": "MARGIN", "free": "-1.5"}


# --- keys ---------------------------------------------------------------------------------------


def test_key__from_the_environment_and_from_a_keystore(monkeypatch, tmp_path):
    monkeypatch.setenv("TRADER_KEY", "0x" + KEYS[MAKER].hex())
    assert load_key("env:TRADER_KEY") == KEYS[MAKER]
    path = tmp_path / "key.json"
    path.write_text(json.dumps(Account.encrypt(KEYS[MAKER], "open", kdf="pbkdf2", iterations=2)))
    assert load_key(f"keystore:{path}", lambda: "open") == KEYS[MAKER]
    monkeypatch.setenv("FAIRSTRIKE_PASSWORD", "open")
    assert load_key(f"keystore:{path}") == KEYS[MAKER]
    with pytest.raises(ValueError, match=r"key\.json"):
        load_key(f"keystore:{path}", lambda: "wrong")


@pytest.mark.parametrize(
    "source", ["env:NOT_THERE", "keystore:/not/there", "file:/x", "", "env:ZERO", "env:SHORT"]
)
def test_key__that_is_none__is_refused_by_name_and_not_shown(source, monkeypatch):
    monkeypatch.setenv("ZERO", "00" * 32)
    monkeypatch.setenv("SHORT", "beef")
    with pytest.raises(ValueError) as refused:
        load_key(source, lambda: "")
    assert "beef" not in str(refused.value)
