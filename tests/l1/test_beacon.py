"""Blobs from a beacon node over HTTP: which slot is asked, and what is said when the blobs are not there."""

import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sequencer.l1 import blobs
from sequencer.l1.beacon import Beacon
from sequencer.l1.errors import BlobsUnavailable, RpcUnavailable

GENESIS_S = 1_606_824_023  # of the main beacon chain
SLOT_S = 12


@dataclass
class Node:
    """A beacon node: answers by path without its query; what is not there is 404."""

    url: str = ""
    answers: dict[str, object] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            made.asked.append(self.path)
            body = made.answers.get(path)
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    made.answers = {
        "/eth/v1/config/spec": {"data": {"SECONDS_PER_SLOT": str(SLOT_S)}},
        "/eth/v1/beacon/genesis": {"data": {"genesis_time": str(GENESIS_S)}},
    }
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture(scope="module")
def blob() -> bytes:
    return blobs.to_blobs(random.randbytes(31 * 40))[0]


def name_of(blob: bytes) -> bytes:
    return blobs.versioned_hash(blobs.commitment_of(blob))


def slot(number: int) -> str:
    return f"/eth/v1/beacon/blobs/{number}"


def test_blobs__are_asked_of_the_slot_of_their_blocks_time_and_verified(node: Node, blob: bytes) -> None:
    other = blobs.to_blobs(bytes(31))[0]
    node.answers[slot(9_000_000)] = {"data": ["0x" + one.hex() for one in (other, blob)]}
    beacon = Beacon(node.url + "/")
    at_s = GENESIS_S + 9_000_000 * SLOT_S
    assert beacon.blobs(5, at_s, [name_of(blob), name_of(other)]) == (blob, other)
    assert beacon.blobs(5, at_s, [name_of(blob)]) == (blob,)
    assert [one for one in node.asked if "spec" in one or "genesis" in one] == [
        "/eth/v1/config/spec",
        "/eth/v1/beacon/genesis",
    ]


def test_blobs__that_are_pruned__are_named_with_slot_and_node_and_what_to_do(node: Node, blob: bytes) -> None:
    with pytest.raises(BlobsUnavailable) as caught:
        Beacon(node.url).blobs(5, GENESIS_S + 77 * SLOT_S, [name_of(blob)])
    assert caught.value.slot == 77
    caught.value.batch_id = 12
    assert str(caught.value) == (
        f"batch 12: the beacon node {node.url} does not have its blobs: slot 77: HTTP 404. Beacon nodes keep blobs "
        "for about 18 days: name one that keeps them longer in FAIRSTRIKE_BEACON, or give --archive FOLDER, the folder "
        "of a `fairstrike watch` that has read them"
    )
    node.answers[slot(77)] = {"data": []}
    with pytest.raises(BlobsUnavailable, match="slot 77: 0 of 1 are there, 0x01"):
        Beacon(node.url).blobs(5, GENESIS_S + 77 * SLOT_S, [name_of(blob)])


def test_blob__that_is_another_one__is_not_taken(node: Node, blob: bytes) -> None:
    altered = bytearray(blob)
    altered[5] ^= 1
    node.answers[slot(77)] = {"data": ["0x" + altered.hex()]}
    with pytest.raises(BlobsUnavailable, match="1 of 1 are there, 0x01"):
        Beacon(node.url).blobs(5, GENESIS_S + 77 * SLOT_S, [name_of(blob)])
    node.answers[slot(77)] = {"data": ["0x" + "ff" * blobs.BLOB_BYTES]}
    with pytest.raises(RpcUnavailable, match="slot 77: not a blob"):
        Beacon(node.url).blobs(5, GENESIS_S + 77 * SLOT_S, [name_of(blob)])


@pytest.mark.parametrize("time_s", [GENESIS_S - 12, GENESIS_S + 7])
def test_block__in_no_slot__is_of_another_chain(node: Node, time_s: int) -> None:
    with pytest.raises(
        RpcUnavailable, match=f"block 5 of second {time_s} is in no slot of 12 s since {GENESIS_S}"
    ):
        Beacon(node.url).blobs(5, time_s, [])


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/eth/v1/config/spec", {"data": {}}),
        ("/eth/v1/beacon/genesis", None),
        ("/eth/v1/beacon/genesis", {"data": {"genesis_time": "soon"}}),
        ("/eth/v1/beacon/genesis", []),
        (slot(1), {"error": "no"}),
        (slot(1), {"data": [5]}),
        (slot(1), b"<html>"),
    ],
)
def test_answer__that_is_none__is_an_outage_and_no_crash(node: Node, path: str, answer: object) -> None:
    node.answers[path] = answer
    with pytest.raises(RpcUnavailable):
        Beacon(node.url).blobs(5, GENESIS_S + SLOT_S, [b"\1" * 32])


def test_node__without_slots__is_asked_by_the_blocks_number(node: Node, blob: bytes) -> None:
    del node.answers["/eth/v1/config/spec"]
    node.answers |= {slot(5): {"data": ["0x" + blob.hex()]}}
    assert Beacon(node.url).blobs(5, 1_641_000_000, [name_of(blob)]) == (blob,)


def test_node__that_says_404_for_a_moment__is_not_taken_for_an_anvil_for_ever(
    node: Node, blob: bytes
) -> None:
    spec = node.answers.pop("/eth/v1/config/spec")
    node.answers[slot(77)] = {"data": ["0x" + blob.hex()]}
    at_s = GENESIS_S + 77 * SLOT_S
    own, other = Beacon(node.url), Beacon(node.url, may_be_anvil=False)
    with pytest.raises(BlobsUnavailable, match="slot 5"):
        own.blobs(5, at_s, [name_of(blob)])
    with pytest.raises(RpcUnavailable, match="is this a beacon node"):
        other.blobs(5, at_s, [name_of(blob)])
    node.answers["/eth/v1/config/spec"] = spec
    assert own.blobs(5, at_s, [name_of(blob)]) == (blob,)
    assert other.blobs(5, at_s, [name_of(blob)]) == (blob,)


def test_error__shows_no_key_of_the_url(node: Node) -> None:
    node.answers = {}
    with pytest.raises(RpcUnavailable) as caught:
        Beacon(node.url + "/v1/sEcReTkEy123", may_be_anvil=False).blobs(5, GENESIS_S, [b"\1" * 32])
    assert "sEcReTkEy123" not in str(caught.value)
    assert node.asked[0] == "/v1/sEcReTkEy123/eth/v1/config/spec"
