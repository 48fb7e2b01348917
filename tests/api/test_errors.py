"""Errors of the gateway: one form, with field, limit and what was given, for every field of every method, malformed."""

import ast
import itertools
import json
from pathlib import Path

import msgspec
import pytest
from exchange_fixture import (
    KEYS,
    MAKER,
    NAMES,
    OWNERS,
    PLACE,
    Exchange,
    RealService,
    signed,
)
from websockets.sync.client import connect

import sequencer.api
from sequencer.api.gateway import Limits
from sequencer.errors import Code
from sequencer.protocol.constants import Kind
from sequencer.queue.intake import IntakeLimits
from sequencer.wire.jsonrpc import METHODS, QUERIES, SIGNED
from sequencer.wire.near import Near

# What no field can be to blame for: nothing that a client sends differently would help.
WITHOUT_FIELD = {Code.NOT_READY, Code.OUTCOME_UNKNOWN, Code.INTERNAL, Code.NOT_LEADER}
GOOD = {
    "account": MAKER,
    "instrument": NAMES[0],
    "side": "sell",
    "price": "2000.00",
    "new_price": "2000.00",
    "quantity": "0.01",
    "nonce": 200,
    "seq": 13,
    "to": 2,
    "amount": "1.5",
    "signer": "0x" + "11" * 20,
    "scope": 1,
    "signer_expires": 0,
    "target": 2,
    "fraction": 1,
    "cash_max": "0",
    "owner": "0x" + OWNERS[MAKER].hex(),
    "underlying": "BTC",
    "number": 0,
    "signature": "0x" + "11" * 64,
    "access_expires": 2**32 - 1,
    "record": "0x" + "20" * 93,
    "channels": ["trades"],
    "method": "withdraw",
}
BAD = [
    *(None, True, False, 1.5, -0.0, -1, 2**31, 2**32, 2**63, 2**64, 10**300, 1e18),
    *(
        "",
        " ",
        "NaN",
        "Infinity",
        "-1",
        "-0.01",
        "1e3",
        "0x",
        "0x0",
        "1,5",
        "+1",
        "١٢",
        "💥",
        "\0",
        "ﬀ",
        "a\nb",
    ),
    *("x" * 33, "x" * 5_000, "9" * 400, "0." + "1" * 400, [], [1], ["trades", 5], {}, {"a": 1}, [[]] * 3),
]


def fields_of(method):
    if method in SIGNED:
        return [(one.name, one) for one in SIGNED[method].fields] + [("signature", None)]
    if method in QUERIES:
        return [(one.name, one) for one in QUERIES[method]]
    return {
        "submit": [("record", None), ("label", None)],
        "subscribe": [("channels", None)],
        "unsubscribe": [("channels", None)],
        "typed_data": [("method", None)],
    }[method]


def good(method):
    needed = [
        name
        for name, field in fields_of(method)
        if field is None or field.default.__class__.__name__ == "_Required"
    ]
    params = {name: GOOD[name] for name in needed if name in GOOD}
    if method in ("account", "positions"):
        params = {"account": MAKER}
    if method == "typed_data":
        params |= {"account": MAKER, "amount": "1", "nonce": 0}
    return params


def asked(exchange, cases):
    """The answers to (method, params), in order, by batches over one connection."""
    answers = []
    with connect(exchange.ws_url, compression=None, max_size=None) as line:
        for start in range(0, len(cases), 20):
            batch = [
                {"id": number, "method": method, "params": params}
                for number, (method, params) in enumerate(cases[start : start + 20])
            ]
            for one in batch:  # one by one, for a document has at most 64 KiB
                line.send(json.dumps(one))
            got = [json.loads(line.recv(30)) for _ in batch]
            answers += [one for _, one in sorted((one["id"], one) for one in got)]
    return answers


@pytest.fixture(scope="module")
def service():
    with Exchange(RealService, Limits(queries_per_s=0, address_queries_per_s=0, submits_per_s=0)) as running:
        running.submit(signed(Kind.PLACE, KEYS[MAKER], **PLACE))
        yield running


def check_form(error, field=None):
    """One form: `field: must be limit, got value`, and the same three in `data`."""
    data = error["data"]
    assert {"field", "limit", "got"} <= set(data), error
    if field is not None:
        assert data["field"] == field, error
    shown = msgspec.json.encode(data["got"]).decode()
    assert error["message"].startswith(f"{data['field']}: ") or error["code"] == Code.UNKNOWN_METHOD, error
    assert data["limit"] in error["message"] or error["code"] == Code.UNKNOWN_METHOD, error
    assert shown.strip('"')[:20] in error["message"] or "is missing" in error["message"], error
    assert len(error["message"]) < 1_000


@pytest.mark.parametrize("method", METHODS)
def test_every_field__malformed__is_named_with_its_limit_and_what_was_given(service, method):
    cases = [(name, value) for (name, _), value in itertools.product(fields_of(method), BAD)]
    before = service.state_root()
    answers = asked(service, [(method, {**good(method), name: value}) for name, value in cases])
    blamed = dict.fromkeys((name for name, _ in fields_of(method)), 0)
    for (name, value), answer in zip(cases, answers, strict=True):
        error = answer.get("error")
        if error is None or error["code"] >= 2000:
            continue  # it can be read
        assert error["code"] in (
            Code.INVALID_PARAMS,
            Code.MALFORMED,
            Code.BAD_SIGNATURE,
            Code.INVALID_REQUEST,
        ), (value, error)
        check_form(error)
        blamed[name] += error["data"]["field"] == name
    assert service.state_root() == before
    for name, count in blamed.items():
        assert count >= len(BAD) // 2, (name, count)


@pytest.mark.parametrize("method", METHODS)
def test_every_field__missing_or_unknown__is_named(service, method):
    whole = good(method)
    needed = [
        name
        for name, field in fields_of(method)
        if field is not None and field.default.__class__.__name__ == "_Required"
    ]
    cases = [(name, {key: value for key, value in whole.items() if key != name}) for name in needed]
    cases += [(name, {**whole, name: 1}) for name in ("surplus", "", "☃", "y" * 200)]
    for (name, _), answer in zip(
        cases, asked(service, [(method, params) for _, params in cases]), strict=True
    ):
        check_form(
            answer["error"],
            "channels" if method.endswith("subscribe") else name[:80] + "…" * (len(name) > 80),
        )


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ('{"id":1,"method":"book","params":{"instrument":NaN}}', "document"),
        ('{"id":1,"method":"book","params":{"instrument":Infinity}}', "document"),
        ('{"id":1,"method":"book","params":{"instrument":-}}', "document"),
        ('{"id":1,"method":"book","params":[1]}', "params"),
        ('{"id":1,"method":"book","params":"BTC"}', "params"),
        ('{"id":1,"method":7}', "method"),
        ('{"id":1,"jsonrpc":2.0,"method":"status"}', "jsonrpc"),
        ('{"id":[],"method":"status"}', "id"),
        ('{"method":"status"}', "id"),
        ('{"id":1,"method":"no such thing"}', "method"),
        ("[]", "batch"),
        ("[" + ",".join(["{}"] * 101) + "]", "batch"),
        ("nothing", "document"),
        ("[" * 2_000, "document"),
        ("5", "request"),
    ],
)
def test_every_document__that_is_no_request__is_told_by_member_limit_and_what_was_given(
    service, document, field
):
    _, answer = service.post(document)
    check_form(answer["error"], field)


def test_no_error_is_made_past_the_one_form():
    """`RequestError` by itself stands for what no field is to blame for, and where the form is made."""
    found = []
    for path in sorted(Path(sequencer.api.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") not in (
                "RequestError",
                "UnknownInstrument",
            ):
                continue
            names = {one.arg for one in node.keywords}
            text = ast.unparse(node)
            if not {"field", "limit", "got"} <= names and not any(
                f"Code.{one.name}" in text for one in WITHOUT_FIELD
            ):
                found.append(f"{path.name}:{node.lineno}: {text}")
    assert found == []


# --- what to type instead -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "given", "words"),
    [
        ("price", "1500.001", "the nearest are 1500.00 and 1500.01"),
        ("price", "0.001", "the nearest is 0.01"),
        ("price", 1500.5, 'write it as a string, such as "1500.00"'),
        ("quantity", "0.00015", 'in contracts, got "0.00015"; the nearest are 0.0001 and 0.0002'),
        ("fee_max", "0.00001", "the nearest are 0.0000 and 0.0001"),
        ("instrument", "BTC-4OCT24-48001-C", f"the nearest are {NAMES[0]}, {NAMES[2]}"),
        ("instrument", "btc-4oct24-48000-p", f"the nearest are {NAMES[1]}"),
        ("instrument", "BTC-4OCT25-49900-P", f"the nearest are {NAMES[3]}"),
        ("instrument", "DOGE-1", f"the nearest are {NAMES[0]}"),
    ],
)
def test_value_that_does_not_fit__comes_back_with_those_that_would(service, field, given, words):
    answer = service.call("order_place", **{**good("order_place"), field: given})
    assert words in answer["error"]["message"], answer
    if field == "instrument":
        assert answer["error"]["data"]["near"][0] in NAMES
        assert words in service.call("ticker", instrument=given)["error"]["message"]


def test_near_names__of_thousands__are_found_by_bisection():
    names = [
        f"{of}-{day}JAN27-{strike}-{kind}"
        for of in ("BTC", "ETH")
        for day in (1, 8, 15)
        for strike in range(1_000, 90_000, 500)
        for kind in "CP"
    ]
    near = Near(names)
    assert near.to("ETH-9JAN27-1700-P") == ["ETH-8JAN27-1500-P", "ETH-8JAN27-2000-P", "ETH-8JAN27-1000-P"]
    assert near.to("BTC-40FOO99-x-C")[0] == "BTC-1JAN27-1000-C"
    assert near.to(7) == near.to("") == [names[0]]
    assert Near(()).to("BTC-1JAN27-1-C") == []


def test_owner_without_account__hears_deposit_first(service):
    error = service.call("account", owner="0x" + "77" * 20)["error"]
    check_form(error, "owner")
    assert "no account yet: deposit first" in error["message"]


def test_withdrawal_in_no_batch__says_when_to_ask_again(service):
    error = service.call("withdrawal", number=99)["error"]
    assert "there are 0" in error["message"]
    raw = signed(Kind.WITHDRAW, KEYS[MAKER], account=MAKER, amount=10**6, nonce=100, expires=0)
    number = service.submit(raw)["number"]
    error = service.call("withdrawal", number=number)["error"]
    assert "in no batch yet: ask again in" in error["message"]
    assert error["data"]["retry_after_s"] > 0


# --- how much -------------------------------------------------------------------------------------


def test_submissions_of_an_address__are_bounded_over_all_its_connections__and_told_when_to_come_again():
    """Before, one address could submit without a bound: the limit was per connection, and off."""
    with Exchange(limits=Limits(address_submits_per_s=5.0)) as exchange:
        cases = [
            ("submit", {"record": "0x" + signed(Kind.PLACE, KEYS[MAKER], **{**PLACE, "nonce": n}).hex()})
            for n in range(10)
        ]
        answers = asked(exchange, cases[:6]) + asked(exchange, cases[6:])
        assert all("result" in one for one in answers), answers
        refused = exchange.call("submit", **cases[0][1])["error"]  # from a third connection
        assert refused["code"] == Code.RATE_LIMITED
        check_form(refused, "address_submits_per_s")
        assert "at most 5 submissions of 127.0.0.1 a second, 10 at once" in refused["message"]
        assert 0 < refused["data"]["retry_after_s"] <= 0.2
        exchange.gateway.addresses.of("127.0.0.1").submits.spend(-1.0)
        assert "error" in exchange.call("order_cancel", **good("order_cancel"))


def test_submissions_of_an_account__beyond_its_rate__are_told_when_to_come_again():
    with Exchange(RealService) as exchange:
        service = exchange.sequencer.service
        exchange.do(lambda: setattr(service.intake, "limits", IntakeLimits(rate_per_s=2, burst=3)))
        cases = [
            ("submit", {"record": "0x" + signed(Kind.PLACE, KEYS[MAKER], **{**PLACE, "nonce": n}).hex()})
            for n in range(4)
        ]
        error = asked(exchange, cases)[3]["error"]
        assert error["code"] == Code.RATE_LIMITED
        assert error["data"]["limit"] == "at most 2 submissions of account 1 a second, 3 at once"
        assert 0 < error["data"]["retry_after_s"] <= 0.5
