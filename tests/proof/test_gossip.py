"""Peers on loopback: what one is shown reaches the others, contradictions are found, and nobody can drown a peer."""

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zenoh

from sequencer.proof import gossip as rules
from sequencer.proof.gossip import Gossip, GossipConfig, GossipError
from sequencer.proof.headers import HeaderStore
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.protocol.receipts import Header
from sequencer.wire.headers import CHAIN, EQUIVOCATION, SIGNED_BYTES, SignedHeader, contradiction

DOMAIN = b"\x0d" * 32
KEY, STRANGER = b"\x01" * 32, b"\x02" * 32
MEMBER = "0x" + "aa" * 20
MEMBERS = {address_of(public_key_of(KEY)): MEMBER}
PATIENCE_S = 20.0


def sign(header: Header, key: bytes = KEY) -> SignedHeader:
    return SignedHeader(header, header.sign(DOMAIN, key), address_of(public_key_of(key)))


def chain_of(count: int, first: int = 1, key: bytes = KEY) -> list[SignedHeader]:
    """Headers of consecutive ticks, each naming the one before."""
    out: list[SignedHeader] = []
    parent, at_ns = bytes(31), time.time_ns()
    for tick in range(first, first + count):
        header = Header(1, 0, 0, tick, parent, 10 * tick, 10, bytes(24), bytes(32), at_ns + tick)
        out.append(sign(header, key))
        parent = header.id
    return out


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Peers:
    """Peers that are started as they are asked for, and ended with the test."""

    def __init__(self) -> None:
        self.started: list[Gossip] = []
        self.at: dict[int, str] = {}

    def start(
        self, *peers: Gossip, listen: str = "", store: HeaderStore | None = None, **config: float
    ) -> Gossip:
        listen = listen or f"tcp/127.0.0.1:{port()}"
        settings = {"ask_s": 0.5, **config}
        made = Gossip(
            DOMAIN,
            HeaderStore(DOMAIN) if store is None else store,
            GossipConfig(peers=tuple(self.at[id(one)] for one in peers), listen=(listen,), **settings),
            MEMBERS.get,
        )
        made.start()
        self.at[id(made)] = listen
        self.started.append(made)
        return made

    def stop(self, one: Gossip) -> None:
        self.started.remove(one)
        one.stop()


@pytest.fixture
def peers() -> Iterator[Peers]:
    made = Peers()
    yield made
    for one in list(made.started):
        made.stop(one)


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def offer(to: Gossip, *headers: SignedHeader) -> None:
    for one in headers:
        to.offer(one.pack())


def counted(of: Gossip, name: str) -> int:
    return sum(counts[name] for counts in of.status()["from"].values())


def stranger_at(of: Gossip, peers: Peers) -> zenoh.Session:
    """A session that says what it likes to one peer."""
    session = zenoh.open(GossipConfig(peers=(peers.at[id(of)],)).as_zenoh())
    until(lambda: str(session.zid()) in of.status()["from"], "the stranger is no neighbour")
    return session


def say(session: zenoh.Session, payload: bytes) -> None:
    session.put(f"fairstrike/1/{DOMAIN.hex()}/new/{session.zid()}", payload)


def test_two_headers_of_one_tick__shown_to_two_groups__meet_at_every_peer(peers: Peers) -> None:
    middle = peers.start()
    left, right = peers.start(middle), peers.start(middle)
    shown = chain_of(20)
    other = sign(replace(shown[-1].header, time_ns=shown[-1].header.time_ns + 1))
    offer(left, *shown)
    offer(right, *shown[:-1], other)
    for one in (left, middle, right):
        until(lambda one=one: one.status()["pairs"] == 1, "the pair was not found")
        (pair,) = one.pairs()
        assert (pair.misdeed, pair.member) == (EQUIVOCATION, MEMBER)
        assert {pair.first.header, pair.second.header} == {shown[-1].header, other.header}
        assert len(one.store) == 21


def test_peer_that_comes_late__catches_up_on_what_it_missed(peers: Peers) -> None:
    first = peers.start()
    offer(first, *chain_of(3_000))
    until(lambda: len(first.store) == 3_000, "the headers were not taken")
    late = peers.start(first)
    until(lambda: len(late.store) == 3_000, "the late peer has not caught up")
    assert not late.pairs()


def test_partition__once_healed__shows_what_was_signed_on_both_sides(peers: Peers, tmp_path: Path) -> None:
    shown = chain_of(200)
    other = sign(replace(shown[100].header, state_root=b"\x01" * 32))
    left, right = peers.start(), peers.start()
    offer(left, *shown)
    offer(right, *shown[:100], other)
    until(lambda: len(left.store) == 200 and len(right.store) == 101, "the headers were not taken")
    assert left.status()["pairs"] + right.status()["pairs"] == 0
    bridge = peers.start(left, right)
    for one in (left, right, bridge):
        until(lambda one=one: len(one.store) == 201, "the sides have not been joined")
        assert EQUIVOCATION in {pair.misdeed for pair in one.pairs()}


def test_peer_that_was_ended__goes_on_from_its_file(peers: Peers, tmp_path: Path) -> None:
    shown = chain_of(10)
    one = peers.start(store=HeaderStore(DOMAIN, tmp_path / "headers.sqlite"))
    offer(one, *shown)
    until(lambda: len(one.store) == 10, "the headers were not taken")
    peers.stop(one)
    again = peers.start(store=HeaderStore(DOMAIN, tmp_path / "headers.sqlite"))
    assert len(again.store) == 10
    offer(again, sign(replace(shown[4].header, term=1)))
    until(lambda: again.status()["pairs"] > 0, "the pair was not found")
    assert EQUIVOCATION in {pair.misdeed for pair in again.pairs()}


def test_what_is_malformed_unsigned_or_of_another_time__is_dropped_and_counted(peers: Peers) -> None:
    one = peers.start()
    session = stranger_at(one, peers)
    (good,) = chain_of(1)
    raw = good.pack()
    for payload in (b"", b"\0" * 7, raw + b"\0", raw * (rules.HEADERS_PER_MESSAGE + 1)):
        say(session, payload)
    until(lambda: counted(one, "malformed") == 4, "not all were found malformed")
    say(session, chain_of(1, key=STRANGER)[0].pack())
    say(session, raw[:-64] + bytes(64))
    say(session, raw[:-1] + bytes([raw[-1] ^ 1]))
    until(lambda: counted(one, "unsigned") == 3, "not all were found unsigned")
    for age_s in (-7_200, 2 * 86_400):
        say(session, sign(replace(good.header, time_ns=time.time_ns() - age_s * 10**9)).pack())
    until(lambda: counted(one, "stale") == 2, "not all were found stale")
    assert len(one.store) == 0
    say(session, raw)
    until(lambda: len(one.store) == 1, "the good one was not taken")
    assert one.status()["from"][str(session.zid())]["unsigned"] == 3
    session.close()


def test_flood__costs_no_more_than_its_allowance_and_stops_nobody_else(peers: Peers) -> None:
    one = peers.start(checks_per_s=10.0, checks_burst=100.0)
    honest = peers.start(one)
    session = stranger_at(one, peers)
    noise = [sign(replace(made.header, tick=n)) for n, made in enumerate(chain_of(64, key=STRANGER))]
    junk = b"".join(made.pack()[:-64] + bytes([n]) * 64 for n, made in enumerate(noise))
    for n in range(400):
        say(session, junk.replace(b"\0\0\0\0\0", n.to_bytes(5, "big")))
    until(lambda: counted(one, "flooded") > 1_000, "nothing was dropped")
    checked = one.status()["from"][str(session.zid())]["unsigned"]
    assert checked < 64 * 400 / 10
    offer(honest, *chain_of(50))
    until(lambda: len(one.store) == 50, "the honest peer was not heard")
    assert not one.pairs()
    session.close()


def test_questions_that_are_no_questions__are_dropped(peers: Peers) -> None:
    one = peers.start()
    offer(one, *chain_of(5))
    session = stranger_at(one, peers)
    where = f"fairstrike/1/{DOMAIN.hex()}/lack/{one.status()['name']}"
    for payload in (b"\0" * 5, b"\0" * 200_000):
        assert list(session.get(where, payload=payload, timeout=5)) == []
    assert one.status()["questions_dropped"] == 2
    until(lambda: len(one.store) == 5, "the headers were not taken")
    (reply,) = session.get(where, payload=b"", timeout=5)
    assert len(reply.ok.payload) == 5 * SIGNED_BYTES
    session.close()


def test_endpoint_in_use__is_an_error_that_names_it(peers: Peers) -> None:
    one = peers.start()
    with pytest.raises(GossipError, match=peers.at[id(one)]):
        peers.start(listen=peers.at[id(one)])


def test_store__keeps_the_newest_of_each_member_and_finds_the_rest_in_its_file(tmp_path: Path) -> None:
    store = HeaderStore(DOMAIN, tmp_path / "h.sqlite", per_member=100)
    shown = chain_of(300)
    for one in shown:
        assert store.add(MEMBER, one) == []
    assert len(store) == 100
    assert store.add("0x" + "bb" * 20, sign(shown[0].header, STRANGER)) is not None
    assert store.add(MEMBER, shown[3]) is None
    (pair,) = store.add(MEMBER, sign(replace(shown[3].header, records=9))) or []
    assert pair.misdeed == EQUIVOCATION
    store.close()


def test_contradiction__is_what_the_judge_calls_one() -> None:
    a, b, c = chain_of(3)
    assert contradiction(a, b) == contradiction(b, a) == contradiction(a, c) == contradiction(a, a) == ""
    assert contradiction(a, sign(replace(a.header, term=1))) == EQUIVOCATION
    assert contradiction(a, sign(replace(a.header, epoch=2))) == ""
    assert contradiction(a, sign(replace(a.header, roll_backs=1))) == ""
    for changed in ({"parent": bytes(31)}, {"first_seq": 21}, {"time_ns": 1}):
        assert contradiction(a, sign(replace(b.header, **changed))) == CHAIN
    assert contradiction(a, sign(replace(c.header, first_seq=19))) == CHAIN
    assert contradiction(a, sign(replace(c.header, first_seq=20, parent=bytes(31)))) == ""


def test_stores_marks__are_equal_where_two_have_the_same(tmp_path: Path) -> None:
    shown = chain_of(200)
    one, other = HeaderStore(DOMAIN), HeaderStore(DOMAIN)
    for made in shown:
        one.add(MEMBER, made)
    for made in reversed(shown[:150]):
        other.add(MEMBER, made)
    lacking = one.differing(dict(other.marks(1_024)), 1_024, 10_000)
    assert {made.pack() for made in shown[150:]} <= set(lacking)
    assert len(lacking) < 50 + 64
    for raw in lacking:
        other.add(MEMBER, rules.unpack(raw, DOMAIN))
    assert dict(one.marks(1_024)) == dict(other.marks(1_024))
    assert one.differing(dict(other.marks(1_024)), 1_024, 10_000) == []
