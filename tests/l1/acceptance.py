"""Whoever follows the exchange, driven over what Rollup has taken: none may be unable to read it."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import msgspec

from sequencer.engine.engine import ReplayError
from sequencer.l1 import blobs
from sequencer.local.devnet import devnet_signer
from sequencer.local.lie_stage import CHALLENGER, Stage
from sequencer.node.standby import Standby, StandbyConfig
from sequencer.proof.replay import replay
from sequencer.proof.watcher import WatchConfig
from sequencer.protocol import batch as batches
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind
from sequencer.protocol.state import State
from sequencer.protocol.transition import apply

STANDBY: Final = 7
LOOKS_MAX: Final = 12
WORD: Final = 32


def drive(on: Stage, name: str, challenges: bool = True) -> str:
    """Lets every follower read the batches that stand; what the watcher makes of them: "right", or the fault's kind.

    A wrong batch must have been challenged, and be gone, unless the watcher is to raise its alarm alone.
    """
    posted = list(on.follower().batches(on.at.deploy_block))
    assert [one.batch_id for one in posted] == list(range(1, on.read("next_batch")))
    try:
        is_right = replay(posted, on.domain, on.params).batches == len(posted)
    except ReplayError:
        is_right = False

    config = StandbyConfig(on.folder / f"standby-{name}", on.params, on.at)
    standby = Standby(config, on.chain.rpc, devnet_signer(STANDBY))
    standby.step()
    assert standby.batcher.cursor.batch_id == (len(posted) + 1 if is_right else 1), standby.message
    assert standby.message.startswith("following" if is_right else "batch 1 is wrong"), standby.message
    assert not is_right or all(standby.batcher.is_as_logged(one.batch_id) for one in posted)
    standby.close()

    challenger = devnet_signer(CHALLENGER) if challenges else None
    watcher = on.watcher(challenger, f"watcher-{name}", WatchConfig(confirmations=0))
    assert watcher.look(), watcher.error
    fault = watcher.fault
    assert (fault is None) == is_right
    if fault is not None and challenges:
        for _ in range(LOOKS_MAX):
            on.chain.mine()
            assert watcher.look(), watcher.error
            if watcher.challenged is not None and watcher.challenged.state in ("won", "failed"):
                break
        assert watcher.challenged is not None
        assert watcher.challenged.state == "won", watcher.challenged
        assert on.read("next_batch") == 1
    watcher.close()
    return "right" if fault is None else str(fault.kind)


def payload_of(state: State, records: list[bytes]) -> tuple[bytes, int]:
    """Records, one a segment, applied to the state: the payload, and its segments."""
    segments, before = [], state.globals.tick
    for raw in records:
        apply(state, raw)
        segments.append(batches.Segment(state.root(), (raw,)))
    ids = [bytes([number]) * c.ELEMENT_BYTES for number in range(1, state.globals.tick - before + 1)]
    return batches.encode(segments, ids), len(segments)


def odd_payload(draw: random.Random, state: State, time_s: int) -> tuple[bytes, int, int, int]:
    """A payload that Rollup can take and no honest sequencer makes: bytes; segments, records and ticks in the header.

    Roots, offsets, ids and records are noise; the last root and the last offset are as Rollup wants them.
    """
    segments = draw.choice((1, 2, 3, 9, 10, 11, 21))
    area = segments + draw.choice((0, 0, 1, 7, 43, 60))
    tick = codec.encode(Kind.TICK, time=time_s)
    elements = [tick if not place else _element(draw) for place in range(area)]
    if draw.random() < 0.5:
        ends = sorted(draw.sample(range(area + 1), segments - 1)) if segments > 1 else []
    else:
        ends = [draw.choice((0, place, area, area + 1, 2**24 - 1)) for place in range(segments - 1)]
    roots = [draw.randbytes(c.ELEMENT_BYTES) for _ in range(segments - 1)] + [state.root()[: c.ELEMENT_BYTES]]
    table = b""
    for at in range(0, segments, batches.OFFSETS_PER_ELEMENT):
        some = [*ends, area][at : at + batches.OFFSETS_PER_ELEMENT]
        table += b"".join(end.to_bytes(3, "big") for end in some).ljust(30, b"\0") + draw.randbytes(1)
    records = draw.choice((segments, area))
    ticks = draw.choice((0, 1, records // 2, records))
    payload = b"".join(roots) + table + draw.randbytes(ticks * c.ELEMENT_BYTES) + b"".join(elements)
    return payload, segments, records, ticks


def _element(draw: random.Random) -> bytes:
    """31 bytes that begin as some record does, or as none."""
    kind = draw.choice((*c.LAYOUT, 0, 0x2F, 0x30, 0xFF))
    return bytes([kind]) + draw.choice((bytes(30), b"\xff" * 30, draw.randbytes(30)))


@contextmanager
def beacon(folder: Path) -> Iterator[tuple[str, list[bytes]]]:
    """A beacon node with a slot a second, which serves every slot the blobs of the list; its URL."""
    held: list[bytes] = []
    said = {
        "/eth/v1/config/spec": {"SECONDS_PER_SLOT": "1"},
        "/eth/v1/beacon/genesis": {"genesis_time": "0"},
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = said.get(self.path) or ["0x" + one.hex() for one in held]
            body = msgspec.json.encode({"data": data})
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", held
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def blobs_with(payload: bytes, change: dict[int, bytes]) -> tuple[bytes, ...]:
    """The payload's blobs, some of their field elements replaced (by place, over all of them)."""
    words = bytearray(b"".join(blobs.to_blobs(payload)))
    for place, word in change.items():
        assert int.from_bytes(word, "big") < blobs.MODULUS
        words[place * WORD : (place + 1) * WORD] = word
    return tuple(bytes(words[at : at + blobs.BLOB_BYTES]) for at in range(0, len(words), blobs.BLOB_BYTES))
