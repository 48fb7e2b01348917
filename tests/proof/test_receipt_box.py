"""Receipts left with a watcher over HTTP: what is taken, what is refused and why, and what becomes of them."""

import hashlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sequencer import pages
from sequencer.proof import receipt_box as box_rules
from sequencer.proof.receipt_box import BODY_BYTES_MAX, ReceiptBox
from sequencer.protocol import receipts as rules
from sequencer.protocol.codec import domain_separator
from sequencer.protocol.hashing import address_of, keccak, public_key_of
from sequencer.protocol.receipts import Header
from sequencer.sdk.receipt_post import ReceiptPost
from sequencer.sdk.receipts import Item, Receipt

KEY = keccak(b"receipt key")
SIGNER = address_of(public_key_of(KEY))
ROLLUP = "0x" + "11" * 20
DOMAIN = domain_separator(31_337, bytes.fromhex("11" * 20))
RECORD = b"\x23" + bytes(92)


def receipt(tick: int, key: bytes = KEY, rollup: str = ROLLUP) -> Receipt:
    """Of the one record of its tick."""
    root = rules.leaf(tick * 10, RECORD, 0, rules.NO_OUTCOME)
    header = Header(1, 0, 0, tick, bytes(31), tick * 10, 1, root, bytes(32), 10**18 + tick)
    domain = domain_separator(31_337, bytes.fromhex(rollup[2:]))
    data = rules.pack(header, header.sign(domain, key)) + (0).to_bytes(3, "big")
    return Receipt(31_337, rollup, "0x" + data.hex(), [Item("0x" + RECORD.hex())])


def raw(*those: Receipt) -> bytes:
    return b"\n".join(map(msgspec.json.encode, those))


class Served:
    """A box behind its port. `states`: what the desk would say."""

    def __init__(self, folder: Path, most: int = box_rules.STORED_MAX) -> None:
        self.states: dict[str, dict[str, Any]] = {}
        members = {SIGNER: "0x" + "aa" * 20}
        self.box = ReceiptBox(folder, DOMAIN, members.get, self.states.get, most)
        self.serving = pages.serve(self.box.get, "127.0.0.1", 0, "box", None, self.box.post, BODY_BYTES_MAX)
        self.port = self.serving.__enter__()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text[:1] in b"[{" else text.decode()
        finally:
            connection.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path / "left")
    yield made
    made.serving.__exit__(None, None, None)


def test_receipt__is_stored_by_its_hash_once_and_answered_for(served: Served) -> None:
    one = receipt(5)
    code, told = served.ask("POST", "/receipts", raw(one))
    name = hashlib.sha256(raw(one)).hexdigest()
    assert (code, told["valid"], told["hash"], told["state"]) == (200, True, name, "pending")
    assert (told["tick"], told["seqs"]) == (5, [50])
    assert served.ask("POST", "/receipts", json.dumps(json.loads(raw(one)), indent=2).encode())[1] == told
    assert [found for found, _ in served.box.taken()] == [name]
    served.states[name] = {"state": "broken", "misdeed": "tick", "tx": "0x12"}
    code, told = served.ask("GET", f"/receipts/{name}")
    assert (code, told) == (200, {"hash": name, "state": "broken", "misdeed": "tick", "tx": "0x12"})
    assert served.ask("GET", "/receipts/" + "0" * 64)[0] == 404
    assert served.ask("GET", "/receipts/../../etc/passwd")[0] == 404
    assert served.ask("POST", "/", raw(one))[0] == 404
    assert len(served.box) == 1


def test_what_is_no_receipt_of_this_exchange__is_refused_with_its_reason(served: Served) -> None:
    stranger = receipt(1, b"\x07" * 32)
    foreign = receipt(1, rollup="0x" + "22" * 20)
    changed = msgspec.structs.replace(receipt(1), items=[Item("0x" + RECORD.hex(), 1)])
    code, told = served.ask(
        "POST", "/receipts", b"\n".join([raw(stranger, foreign, changed), b"{}", b"\xff", b"7"])
    )
    assert code == 200
    assert [row["valid"] for row in told] == [False] * 6
    assert "no member's receipt key" in told[0]["why"]
    assert "another exchange" in told[1]["why"]
    assert served.ask("POST", "/receipts", b"")[0] == 400
    assert served.ask("POST", "/receipts", b"{}\n" * 257)[0] == 400
    assert len(served.box) == 0


def test_body_that_is_too_large_or_of_no_length__is_not_read(served: Served) -> None:
    assert served.ask("POST", "/receipts", headers={"Content-Length": str(BODY_BYTES_MAX + 1)})[0] == 413
    assert served.ask("POST", "/receipts", headers={"Content-Length": "-1"})[0] == 411
    assert served.ask("POST", "/receipts", headers={"Content-Length": "9" * 5_000})[0] == 411


def test_client_that_brings_too_many__is_put_off_and_others_are_not(served: Served) -> None:
    codes = [served.ask("POST", "/receipts", b"{}\n" * 250)[0] for _ in range(6)]
    assert codes[:4] == [200] * 4
    assert codes[-1] == 429
    code, _, text = served.box.post("/receipts", raw(receipt(1)), "192.0.2.1")
    assert (code, json.loads(text)["valid"]) == (200, True)


def test_full_box__says_so_and_takes_again_when_there_is_room(tmp_path: Path) -> None:
    served = Served(tmp_path / "left", most=10)
    told = served.ask("POST", "/receipts", raw(*(receipt(tick) for tick in range(1, 12))))
    assert told[0] == 507
    assert [row.get("is_full", False) for row in told[1]] == [False] * 10 + [True]
    assert served.box.is_nearly_full
    served.box.remove(told[1][0]["hash"])
    assert served.ask("POST", "/receipts", raw(receipt(11)))[0] == 200
    served.serving.__exit__(None, None, None)


def test_box__goes_on_with_what_is_in_its_folder(served: Served, tmp_path: Path) -> None:
    served.ask("POST", "/receipts", raw(*(receipt(tick) for tick in range(1, 6))))
    damaged = next((tmp_path / "left").glob("??/*.json"))
    damaged.write_bytes(b"{}")
    again = ReceiptBox(tmp_path / "left", DOMAIN, {SIGNER: "m"}.get, {}.get)
    assert len(list(again.kept())) == 4
    assert len(again) == 4
    assert not damaged.exists()


def test_connections_without_end__leave_the_server_standing(served: Served) -> None:
    idle = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(pages.CONNECTIONS_MAX + 20)]
    for one in idle:
        one.close()
    end = time.monotonic() + 20
    while True:
        try:
            assert served.ask("POST", "/receipts", raw(receipt(1)))[0] == 200
            break
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < end
            time.sleep(0.05)


def test_traders_post__leaves_all_with_a_watcher_and_waits_for_one_that_is_away(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    post = ReceiptPost(f"http://127.0.0.1:{port}", retry_s=0.05)
    for tick in range(1, 201):
        post.add(receipt(tick))
    end = time.monotonic() + 20
    while not post.counts.error:
        assert time.monotonic() < end
        time.sleep(0.01)
    box = ReceiptBox(tmp_path / "left", DOMAIN, {SIGNER: "m"}.get, {}.get)
    with pages.serve(box.get, "127.0.0.1", port, "box", None, box.post, BODY_BYTES_MAX):
        while post.counts.left < 200:
            assert time.monotonic() < end, post.counts
            time.sleep(0.01)
        post.add(receipt(1, b"\x07" * 32))
        post.close()
    assert (len(box), post.counts.left, post.counts.refused, post.counts.dropped) == (200, 200, 1, 0)


def test_traders_post__with_a_full_queue_drops_its_oldest_and_never_waits() -> None:
    with socket.socket() as deaf:  # takes connections and says nothing
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        post = ReceiptPost(f"http://127.0.0.1:{deaf.getsockname()[1]}", waiting_max=100)
        one = receipt(1)
        done = threading.Event()
        threading.Thread(target=lambda: ([post.add(one) for _ in range(1_000)], done.set())).start()
        assert done.wait(5)
        assert post.counts.dropped >= 1_000 - 100 - 64
        post._stop.set()


@pytest.mark.parametrize("url", ["", "127.0.0.1:1", "ftp://x", "http://"])
def test_watcher_that_is_no_url__is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must be http://HOST:PORT"):
        ReceiptPost(url)
