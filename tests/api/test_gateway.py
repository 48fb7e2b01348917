"""The gateway as clients see it, before a stand-in that runs the real engine and before the sequencer's service."""

import http.client
import json
import socket
import time

import pytest
from click.testing import CliRunner
from eth_account import Account
from eth_account.messages import encode_typed_data
from exchange_fixture import (
    CHAIN_ID,
    CONTRACT,
    INSTRUMENT,
    KEYS,
    MAKER,
    NAMES,
    OWNERS,
    PATIENCE_S,
    PLACE,
    TAKER,
    WATCHED,
    Exchange,
    RealService,
    signed,
)
from hypothesis import given
from hypothesis import strategies as st
from websockets.sync.client import connect

from sequencer.api import gateway
from sequencer.api.gateway import Limits, parse_listen
from sequencer.errors import REFUSALS
from sequencer.protocol.constants import Kind, Reason
from sequencer.wire import jsonrpc


def place(account=MAKER, nonce=0, **changes):
    return signed(Kind.PLACE, KEYS[account], **(PLACE | {"account": account, "nonce": nonce} | changes))


def ask(ws, method, /, number=1, **params):
    ws.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))


def test_submit__over_http__is_applied_and_acknowledged(exchange):
    before = exchange.state_root()
    ack = exchange.submit(place())
    assert ack["order"]["price"] == "2000.00"
    assert exchange.state_root() != before
    assert exchange.result("book", instrument=NAMES[0])["asks"] == [["2000.00", "0.0100", 1]]


def test_requests_of_one_connection__are_answered_in_order_and_it_stays_open(exchange):
    with socket.create_connection(("127.0.0.1", exchange.port), PATIENCE_S) as raw:
        body = json.dumps({"id": 1, "method": "status"}).encode()
        request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        raw.sendall(request * 40)
        raw.settimeout(PATIENCE_S)
        seen = b""
        while seen.count(b"HTTP/1.1 200 OK") < 40:
            seen += raw.recv(65_536)


def test_health__says_whether_the_sequencer_is_there(stand_in):
    def health():
        connection = http.client.HTTPConnection("127.0.0.1", stand_in.port, timeout=PATIENCE_S)
        connection.request("GET", "/health")
        response = connection.getresponse()
        found = response.status, json.loads(response.read())["ready"]
        connection.close()
        return found

    assert health() == (200, True)
    stand_in.stop_sequencer()
    assert health() == (503, False)


def wallet_signature(typed, key):
    """What a wallet answers to eth_signTypedData_v4: r, s, v."""
    message = encode_typed_data(full_message=typed)
    return "0x" + bytes(Account.sign_message(message, key).signature).hex()


FIELDS = {
    "order_place": {
        "instrument": NAMES[0],
        "side": "sell",
        "price": "2000",
        "quantity": "0.01",
        "post_only": True,
    },
    "order_place in words": {
        "instrument": INSTRUMENT,
        "side": "buy",
        "price": "0.5",
        "quantity": "0.01",
        "self_trade": "cancel_taker",
        "words": True,
    },
    "withdraw": {"amount": "12.5"},
    "transfer": {"to": TAKER, "amount": "0.000001"},
    "set_signer": {"signer": "0x" + "ab" * 20, "scope": 1, "signer_expires": 2**32 - 1},
    "order_cancel_all": {},
}


@pytest.mark.parametrize("method", FIELDS)
def test_typed_data__signed_by_a_wallet__is_what_the_exchange_takes(exchange, method):
    fields = {"account": MAKER, "nonce": 3, **FIELDS[method]}
    method = method.removesuffix(" in words")
    typed = exchange.result("typed_data", method=method, **fields)
    before = exchange.state_root()
    exchange.result(method, **fields, signature=wallet_signature(typed, KEYS[MAKER]))
    assert exchange.state_root() != before


def test_typed_data__of_an_order_in_words__is_a_sentence(exchange):
    fields = FIELDS["order_place in words"]
    typed = exchange.result("typed_data", method="order_place", account=MAKER, nonce=3, **fields)
    assert (typed["primaryType"], typed["message"]["account"], typed["message"]["nonce"]) == (
        "Order",
        MAKER,
        3,
    )
    assert typed["message"]["order"] == (
        f"Buy 0.01 {NAMES[0]} at 0.50 USD, good till cancelled, stops at own orders, "
        "sequencing fee at most 0.0100 USD"
    )
    changed = {
        **typed,
        "message": {**typed["message"], "order": typed["message"]["order"].replace("0.01 ", "0.02 ")},
    }
    answer = exchange.call(
        "order_place", account=MAKER, nonce=3, **fields, signature=wallet_signature(changed, KEYS[MAKER])
    )
    assert answer["error"]["data"]["reason"] == "BAD_SIGNATURE"


def test_order_cancel__by_fields__takes_the_order_out(exchange):
    order = exchange.submit(place())["order"]
    fields = {key: order[key] for key in ("instrument", "side", "price", "seq")} | {
        "account": MAKER,
        "nonce": 1,
    }
    typed = exchange.result("typed_data", method="order_cancel", **fields)
    ack = exchange.result("order_cancel", **fields, signature=wallet_signature(typed, KEYS[MAKER]))
    assert ack["removed"] == [order["seq"]]


def test_order_amend__by_fields__keeps_what_is_not_said(exchange):
    order = exchange.submit(place())["order"]
    fields = {key: order[key] for key in ("instrument", "side", "price", "seq", "post_only")} | {
        "account": MAKER,
        "nonce": 1,
        "quantity": "0.0002",
    }
    typed = exchange.result("typed_data", method="order_amend", **fields)
    assert typed["message"]["newPrice"] == typed["message"]["price"]
    ack = exchange.result("order_amend", **fields, signature=wallet_signature(typed, KEYS[MAKER]))
    assert (ack["amended"], ack["order"]) == (order["seq"], {**order, "quantity": "0.0002"})


def test_typed_data__of_wide_numbers__has_them_as_strings():
    params = {"method": "withdraw", "account": 1, "amount": "18446744073709.551615", "nonce": 0}
    found = jsonrpc.typed_data(params, jsonrpc.Instruments(), CHAIN_ID, CONTRACT)
    assert found["message"]["amount"] == str(2**64 - 1)


def test_binary_frames__are_answered_with_their_ids(exchange):
    with connect(exchange.ws_url, compression=None) as ws:
        for nonce in range(100):
            ws.send((1000 + nonce).to_bytes(8, "big") + place(nonce=nonce))
        answers = [ws.recv(PATIENCE_S) for _ in range(100)]
    assert sorted(int.from_bytes(one[:8], "big") for one in answers) == list(range(1000, 1100))
    assert all("result" in json.loads(one[8:]) for one in answers)


def test_batch__of_submissions__is_answered_whole(exchange):
    batch = [
        {
            "jsonrpc": "2.0",
            "id": f"n{n}",
            "method": "submit",
            "params": {"record": "0x" + place(nonce=n).hex()},
        }
        for n in range(100)
    ]
    answers = exchange.post(batch)[1]
    assert {one["id"] for one in answers} == {f"n{n}" for n in range(100)}
    assert all("result" in one for one in answers)


def test_ids__come_back_as_they_were(exchange):
    for number in (0, -5, 2**63 - 1, "", 'quote " and \\ and é', "x" * 64):
        assert exchange.post({"id": number, "method": "status"})[1]["id"] == number


def test_subscriptions__by_number_and_name__bring_each_event_once(exchange):
    with connect(exchange.ws_url, compression=None) as ws:
        ask(
            ws,
            "subscribe",
            channels=["trades", f"trades.{NAMES[0]}", f"book.{INSTRUMENT}", f"account.{MAKER}"],
        )
        assert json.loads(ws.recv(PATIENCE_S))["result"]["channels"][2] == f"book.{NAMES[0]}"
        exchange.submit(place())
        exchange.submit(place(TAKER, flags=0))
        ask(ws, "status", number="end")
        heard = []
        while (document := json.loads(ws.recv(PATIENCE_S))).get("id") != "end":
            assert document["method"] == "event"
            heard.append((document["params"]["channel"], document["params"]["data"]))
    channels = [channel for channel, _ in heard]
    assert channels.count(f"trades.{NAMES[0]}") == 1
    assert channels.count(f"book.{NAMES[0]}") == 2
    assert channels.count(f"account.{MAKER}") == 2  # it rests, it is filled
    assert f"account.{TAKER}" not in channels


def test_unsubscribe__ends_the_events(exchange):
    with connect(exchange.ws_url, compression=None) as ws:
        for method in ("subscribe", "unsubscribe"):
            ask(ws, method, channels=["trades", f"book.{NAMES[0]}"])
            assert "result" in json.loads(ws.recv(PATIENCE_S))
        exchange.submit(place())
        ask(ws, "status", number=9)
        assert json.loads(ws.recv(PATIENCE_S))["id"] == 9
    assert exchange.do(lambda: exchange.gateway.events.by_channel) == {}


def test_fragmented_message__is_put_together(exchange):
    document = json.dumps({"id": 1, "method": "status"})
    with connect(exchange.ws_url, compression=None) as ws:
        ws.send(document[n : n + 7] for n in range(0, len(document), 7))
        assert "result" in json.loads(ws.recv(PATIENCE_S))


def test_cross_origin_page__may_post(exchange):
    connection = http.client.HTTPConnection("127.0.0.1", exchange.port, timeout=PATIENCE_S)
    connection.request(
        "OPTIONS", "/", headers={"Origin": "https://x", "Access-Control-Request-Method": "POST"}
    )
    response = connection.getresponse()
    assert response.status == 204
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    connection.close()


# --- the sequencer goes and comes ---------------------------------------------------------------


def test_sequencer_away__everything_is_refused_before_anything_is_accepted(stand_in):
    stand_in.stop_sequencer()
    for method, params in (("submit", {"record": "0x" + place().hex()}), ("status", {})):
        error = stand_in.call(method, **params)["error"]
        assert (error["code"], "nothing was accepted" in error["message"]) == (1102, True)


def test_sequencer_lost__with_a_submission_on_its_way__says_that_the_outcome_is_unknown(stand_in):
    stand_in.sequencer.silent = True
    with connect(stand_in.ws_url, compression=None) as ws:
        ask(ws, "submit", record="0x" + place().hex())
        stand_in.until(lambda: len(stand_in.gateway._pending), "the submission")
        stand_in.stop_sequencer()
        error = json.loads(ws.recv(PATIENCE_S))["error"]
        assert (error["code"], "nonces" in error["message"]) == (1103, True)


def test_sequencer_silent__submissions_time_out_as_unknown():
    with Exchange(limits=Limits(answer_timeout_s=0.2)) as running:
        running.sequencer.silent = True
        assert running.call("submit", record="0x" + place().hex())["error"]["code"] == 1103


def test_sequencer_back__the_gateway_serves_again_and_what_was_durable_is_there():
    with Exchange(RealService) as running:
        seq = running.submit(place())["seq"]
        running.stop_sequencer()
        running.start_sequencer()
        running.until(lambda: running.gateway.ready, "the gateway")
        assert [one["seq"] for one in running.result("orders", account=MAKER)] == [seq]


def test_gateway__started_for_another_exchange__stays_not_ready(stand_in, caplog):
    async def start():
        import asyncio

        other = gateway.Gateway(stand_in.address, gateway.Exchange(CHAIN_ID + 1, CONTRACT))
        task = asyncio.create_task(other.run())
        until = time.monotonic() + PATIENCE_S
        while "was started for" not in caplog.text and time.monotonic() < until:  # noqa: ASYNC110  # it says it in the log
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        return other.ready

    assert stand_in.run(start()) is False
    assert "was started for" in caplog.text


def test_new_instrument__is_found_by_its_name_after_the_list_has_grown(stand_in):
    from sequencer.protocol import codec

    def list_one():
        record = codec.encode(Kind.LIST, underlying=0, day=INSTRUMENT >> 12, put=0, strike=5_100_000)
        tick = stand_in.sequencer.engine.run(stand_in.sequencer.now, [record], [])
        assert tick.system[0].reason is Reason.OK

    stand_in.do(list_one)
    name = "BTC-4OCT24-51000-C"
    assert stand_in.result("book", instrument=name)["instrument"] == name


def test_two_gateways__share_a_sequencer_and_hear_the_same_events(stand_in):
    import asyncio

    async def start():
        other = gateway.Gateway(stand_in.address)
        bound = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(gateway.serve(other, "127.0.0.1", 0, bound.set_result))
        while not other.ready:  # noqa: ASYNC110  # a test's patience
            await asyncio.sleep(0.01)
        return await bound, task

    port, task = stand_in.run(start())
    with connect(f"ws://127.0.0.1:{port}/ws", compression=None) as ws:
        ask(ws, "subscribe", channels=[f"account.{WATCHED}"])
        ws.recv(PATIENCE_S)
        stand_in.submit(place(WATCHED))
        assert json.loads(ws.recv(PATIENCE_S))["params"]["channel"] == f"account.{WATCHED}"
    stand_in.run(_cancelled(task))


async def _cancelled(task):
    import asyncio

    task.cancel()
    await asyncio.wait([task])


# --- without a network --------------------------------------------------------------------------


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes__are_a_request_or_a_reasoned_refusal(data):
    for parse in (jsonrpc.parse_request, jsonrpc.parse_batch):
        try:
            parse(data)
        except jsonrpc.RequestError as error:
            code = json.loads(error.body())["code"]
        else:
            code = None
        assert code in (None, -32700, -32600)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(jsonrpc.SIGNED)), st.data())
def test_any_params__make_a_record_or_a_refusal_with_its_field(method, data):
    fields = {field.name: JSON for field in jsonrpc.SIGNED[method].fields}
    params = data.draw(st.fixed_dictionaries({}, optional={**fields, "signature": JSON, "other": JSON}))
    with pytest.raises(jsonrpc.RequestError) as refused:
        jsonrpc.SIGNED[method].record(params, jsonrpc.Instruments())
    error = json.loads(refused.value.body())
    assert error["code"] == -32602
    assert error["data"]["field"] in error["message"]


@given(st.integers(-(2**63), 2**63), st.integers(1, 6))
def test_decimals__there_and_back__are_exact(value, decimals):
    assert jsonrpc.to_units(jsonrpc.from_units(value, decimals), decimals) == value


def test_every_reason__has_a_sentence():
    assert set(REFUSALS) == set(Reason)
    assert all(sentence.endswith(".") and len(sentence) > 20 for sentence in REFUSALS.values())


@pytest.mark.parametrize("listen", ["0.0.0.0:8545", "10.1.2.3:80", "[::]:80", "example.org:80"])
def test_listen__beyond_this_machine__needs_public(listen):
    with pytest.raises(ValueError, match="--public"):
        parse_listen(listen, public=False)
    assert parse_listen(listen, public=True)[1] in (80, 8545)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen", "0.0.0.0:1", "--sequencer", "/s"], "--public"),
        (["--listen", "127.0.0.1", "--sequencer", "/s"], "HOST:PORT"),
        (["--listen", "127.0.0.1:99999", "--sequencer", "/s"], "65535"),
        (["--sequencer", "10.0.0.1:7000"], "127.0.0.1:PORT of this machine"),
        (["--sequencer", "/s", "--chain-id", "1"], "go together"),
        (["--sequencer", "/s", "--chain-id", "1", "--verifying-contract", "0x1"], "40 hex digits"),
        ([], "--sequencer"),
    ],
)
def test_command_line__that_is_wrong__says_what(arguments, message):
    outcome = CliRunner().invoke(gateway.main, arguments)
    assert outcome.exit_code == 2
    assert message in outcome.output


def test_owners__are_those_of_the_keys(exchange):
    assert exchange.result("account", owner="0x" + OWNERS[TAKER].hex().upper())["account"] == TAKER
