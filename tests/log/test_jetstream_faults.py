"""The replicated log while servers are killed, stopped, cut off and restarted: nothing acknowledged is lost."""

import threading
import time

import pytest

from sequencer.log.interface import LogError, LogLost
from sequencer.log.jetstream import BODY_BYTES, Stream
from tests.log.servers import Cluster, is_whole, proxied, until


class Load:
    """A writer that appends until it is stopped, and a follower beside it."""

    def __init__(self, cluster: Cluster, **options: object) -> None:
        self.stream = cluster.opened(**options)
        self.followed: list[bytes] = []
        self.failures: list[Exception] = []
        self.follower = cluster.opened(self.stream.name).follow(0, self._on_bodies, self.failures.append)
        self.acknowledged = 0
        self.error: LogError | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _on_bodies(self, place: int, bodies: list[bytes]) -> None:
        assert place == len(self.followed)
        self.followed.extend(bodies)

    def _write(self) -> None:
        while not self._stopping.is_set():
            try:
                self.stream.append(self.acknowledged, [body_at(self.acknowledged)])
            except LogError as error:
                self.error = error
                return
            self.acknowledged += 1

    def until_acknowledged(self, more: int) -> None:
        goal = self.acknowledged + more
        until(lambda: self.acknowledged >= goal or self.error)
        assert self.error is None, self.error

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def check(self) -> None:
        """Ends the load: what was acknowledged stands once, in order, and the follower has had it."""
        self.stop()
        bodies = [body_at(place) for place in range(self.acknowledged)]
        until(lambda: self.follower.place >= self.acknowledged or self.failures)
        assert self.failures == []
        assert self.followed[: self.acknowledged] == bodies
        assert self.stream.read(0, self.acknowledged) == bodies
        assert self.stream.last() - self.acknowledged in (0, 1)  # one whose acknowledgement was lost


def body_at(place: int) -> bytes:
    return b"%06d" % place * 100


@pytest.mark.slow
def test_leader_killed_under_load__goes_on_without_loss(cluster: Cluster) -> None:
    load = Load(cluster)
    for _ in range(3):
        load.until_acknowledged(100)
        leader = cluster.leader_of(load.stream)
        leader.kill()
        load.until_acknowledged(100)
        cluster.start(leader)
        until(lambda: is_whole(load.stream))
    load.check()
    assert load.error is None


def test_leader_stopped_where_it_is__goes_on_and_what_it_held_comes_to_nothing(cluster: Cluster) -> None:
    load = Load(cluster)
    load.until_acknowledged(50)
    leader = cluster.leader_of(load.stream)
    leader.pause()
    try:
        load.until_acknowledged(100)
    finally:
        leader.resume()
    until(lambda: is_whole(load.stream))
    load.until_acknowledged(50)
    load.check()


def test_a_server_that_hangs_with_much_to_take__is_left_at_once(cluster: Cluster) -> None:
    stream = cluster.opened()
    stream.append(0, [b"a"])
    server = next(one for one in cluster.servers if stream.status().server.endswith(f":{one.config.port}"))
    server.pause()
    try:
        large = bytes(BODY_BYTES)  # more than the sockets' buffers
        stream.append(1, [large])
        assert not stream.status().server.endswith(f":{server.config.port}")
    finally:
        server.resume()
    assert stream.read(0, 9) == [b"a", large]
    until(lambda: is_whole(stream))


@pytest.mark.slow
def test_two_of_three_gone__refuses_and_goes_on_when_one_is_back(cluster: Cluster) -> None:
    load = Load(cluster, patience_s=3.0)
    load.until_acknowledged(50)
    leader = cluster.leader_of(load.stream)
    others = [server for server in cluster.servers if server is not leader]
    for server in others:
        server.kill()
    until(lambda: load.error)
    load.stop()
    # The leader may have had the last body, and may bring it to a majority later.
    assert isinstance(load.error, LogLost)
    assert "is durable is unknown" in load.error.reason
    until(lambda: not opens(load.stream))  # it gives the lead up when it has heard nobody for a while
    cluster.start(others[0])
    until(lambda: opens(load.stream))
    stands = load.stream.read(load.acknowledged, 9)
    assert stands in ([], [body_at(load.acknowledged)])
    load.acknowledged += len(stands)
    for _ in range(20):
        load.stream.append(load.acknowledged, [body_at(load.acknowledged)])
        load.acknowledged += 1
    cluster.start(others[1])
    until(lambda: is_whole(load.stream))
    load.check()


def opens(stream: Stream) -> bool:
    try:
        stream.open()
    except LogError:
        return False
    return True


@pytest.mark.slow
def test_without_a_majority_from_the_start__is_refused_as_certainly_not_appended(cluster: Cluster) -> None:
    stream = cluster.opened(patience_s=1.0)
    stream.append(0, [b"a"])
    leader = cluster.leader_of(stream)
    others = [server for server in cluster.servers if server is not leader]
    for server in others:
        server.kill()
    until(lambda: not stream.status().leader)  # it has noticed, and given the lead up
    with pytest.raises(LogError, match="no leader: a majority of its servers is needed") as refused:
        stream.append(1, [b"b"])
    assert not isinstance(refused.value, LogLost)
    stream._patience_s = 30.0
    cluster.start(*others)
    until(lambda: is_whole(stream))
    stream.append(1, [b"c"])
    assert stream.read(0, 9) == [b"a", b"c"]


def test_all_three_killed_and_restarted__have_everything(cluster: Cluster) -> None:
    load = Load(cluster, patience_s=60.0)
    load.until_acknowledged(100)
    for server in cluster.servers:
        server.kill()
    cluster.start(*cluster.servers)
    load.until_acknowledged(100)
    load.check()
    assert load.error is None


def test_lost_acknowledgement__is_asked_for_again_and_appended_once(cluster: Cluster) -> None:
    with proxied(cluster) as (urls, proxies):
        stream = cluster.opened(servers=urls, attempt_s=0.5)
        direct = cluster.opened(stream.name)
        stream.append(0, [b"a"])
        for proxy in proxies:
            proxy.answers_pass = False
        done: list[LogError | None] = []

        def append(place: int, bodies: list[bytes]) -> None:
            try:
                stream.append(place, bodies)
                done.append(None)
            except LogError as error:
                done.append(error)

        for place, bodies in ((1, [b"b"]), (2, [b"c", b"d", b"e"])):
            for proxy in proxies:
                proxy.answers_pass = False
            thread = threading.Thread(target=append, args=(place, bodies))
            thread.start()
            until(lambda place=place, bodies=bodies: direct.last() == place + len(bodies))
            assert done == [None] * (place - 1)
            for proxy in proxies:
                proxy.answers_pass = True
            thread.join()
        assert done == [None, None]
        assert direct.read(0, 9) == [b"a", b"b", b"c", b"d", b"e"]


def test_client_cut_off__cannot_say_and_finds_out_when_it_is_back(cluster: Cluster) -> None:
    with proxied(cluster) as (urls, proxies):
        stream = cluster.opened(servers=urls, attempt_s=0.3)
        direct = cluster.opened(stream.name)
        stream.append(0, [b"a"])
        for proxy in proxies:
            proxy.answers_pass = False
        stream._patience_s = 1.5
        with pytest.raises(LogLost, match="whether what was appended at place 1 is durable is unknown"):
            stream.append(1, [b"b"])
        for proxy in proxies:
            proxy.cut()
        with pytest.raises(LogError, match="no server of the stream can be reached"):
            stream.open()
        for proxy in proxies:
            proxy.mend()
        until(lambda: opens(stream))
        until(lambda: stream.last() == 2)
        assert direct.read(0, 9) == [b"a", b"b"]
        stream.append(2, [b"c"])


def test_connections_cut_again_and_again__nothing_is_missing_or_twice(cluster: Cluster) -> None:
    with proxied(cluster) as (urls, proxies):
        load = Load(cluster, servers=urls)
        for _ in range(8):
            load.until_acknowledged(30)
            for proxy in proxies:
                proxy.cut()
            time.sleep(0.05)
            for proxy in proxies:
                proxy.mend()
        load.until_acknowledged(30)
        load.check()
        assert load.stream.status().reconnects > 0


def test_follower_cut_off__has_what_was_appended_meanwhile(cluster: Cluster) -> None:
    writer = cluster.opened()
    got: list[bytes] = []
    with proxied(cluster) as (urls, proxies):
        follower = cluster.opened(writer.name, servers=urls).follow(0, lambda _, bodies: got.extend(bodies))
        for place in range(50):
            writer.append(place, [body_at(place)])
            if place == 20:
                until(lambda: follower.place == 21)
                for proxy in proxies:
                    proxy.cut()
        for proxy in proxies:
            proxy.mend()
        until(lambda: follower.place == 50)
        follower.stop()
    assert got == [body_at(place) for place in range(50)]
