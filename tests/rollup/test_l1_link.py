"""The line between the sequencer and its L1 process, and what the sequencer's end makes of processes that misbehave."""

import asyncio
import dataclasses
import logging
import os
import sys
import time
from pathlib import Path

import pytest

from sequencer.l1.deploy import Deployment
from sequencer.l1.follower import InboxMessage, RolledBack
from sequencer.l1.poster import Posted, gas_of
from sequencer.l1.sequencers import NEVER, Standing
from sequencer.l1.signing import Signer
from sequencer.rollup import l1_link
from sequencer.rollup.l1_link import Children, L1Handlers, L1Link
from sequencer.rollup.l1_messages import (
    FRAME_BYTES_MAX,
    MESSAGES_MAX,
    PREFIX_BYTES,
    Begin,
    InboxPart,
    L1Config,
    LineBroken,
    Logged,
    Look,
    Messages,
    Notice,
    Now,
    SetSeen,
    Undone,
    frame,
    size_of,
    to_command,
    to_report,
)
from sequencer.rollup.l1_process import serve

SECRET = bytes(range(1, 33))
URL = "http://127.0.0.1:1/v3/sEcReTkEy123"
NOW = Now(1, 0, bytes(32), 0, 0, 0)
STANDING = Standing("0xab", "0xab", 3, ("0xab", "0xcd"), 2**80, 10**20, 225, 1_000, NEVER, 1_100)


def deployment() -> Deployment:
    values = {
        one.name: (7 if one.type is int else "0x" + "ab" * 20)
        for one in dataclasses.fields(Deployment)
        if one.default is dataclasses.MISSING
    }
    return Deployment(**values)  # type: ignore[arg-type]


def begin() -> Begin:
    return Begin(URL, deployment(), SECRET, "/nowhere", L1Config(), NOW, logging.INFO)


def test_messages__come_out_as_they_went_in() -> None:
    messages = Messages([InboxMessage(5, b"\x01\x02", bytes(32), 7, "0xff")])
    look = Look(heard=4, standing=SetSeen.of(STANDING), heard_s=1.5, balance=str(10**30))
    event = RolledBack("key", 2, 10**30, 9)
    part = InboxPart([b"\x03"], [Undone.of(event)])
    assert part.events[0].event() == event
    for report in (messages, look, part, Logged(30, "a.b", "text")):
        assert to_report(frame(report)[PREFIX_BYTES:]) == report
    for command in (begin(), NOW):
        assert to_command(frame(command)[PREFIX_BYTES:]) == command
    assert SetSeen.of(STANDING).standing() == STANDING


def test_begin__shows_neither_key_nor_url() -> None:
    for text in (repr(begin()), str(begin()), f"{[begin()]}"):
        assert SECRET.hex() not in text
        assert repr(SECRET) not in text
        assert "sEcReTkEy123" not in text


def test_frame__too_long_or_of_nothing_known__is_refused_without_its_content() -> None:
    with pytest.raises(LineBroken, match=r"a Logged of \d+ bytes; at most"):
        frame(Logged(10, "a", "x" * FRAME_BYTES_MAX))
    with pytest.raises(LineBroken, match="a frame of 4294967295 bytes; at most"):
        size_of(b"\xff" * PREFIX_BYTES)
    broken = frame(begin())[PREFIX_BYTES:].replace(b"Begin", b"Bxgin")
    with pytest.raises(LineBroken, match="bytes that are no command") as caught:
        to_command(broken)
    assert "sEcReT" not in repr(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(LineBroken, match="bytes that are no report"):
        to_report(frame(NOW)[PREFIX_BYTES:])


def test_process__whose_first_command_is_not_begin__does_nothing(tmp_path: Path) -> None:
    commands = tmp_path / "commands"
    commands.write_bytes(frame(NOW))
    told = pytest.raises(LineBroken, match="the first command is a Now, not Begin")
    with commands.open("rb", buffering=0) as line, (tmp_path / "out").open("wb") as out, told:
        serve(line, out)  # type: ignore[arg-type]


class Heard:
    """What the sequencer was told."""

    def __init__(self) -> None:
        self.messages: list[InboxMessage] = []
        self.notices: list[Notice] = []
        self.posted: list[Posted] = []
        self.deposed: list[tuple[str, bool]] = []
        self.times: list[tuple[int, int]] = []
        self.unverified = 0

    def wait_for_check(self) -> None:
        self.unverified += 1

    def handlers(self) -> L1Handlers:
        return L1Handlers(
            inbox_position=lambda: (0, bytes(32)),
            verified=lambda: 0,
            on_messages=self.messages.extend,
            on_posted=self.posted.extend,
            on_rolled_back=self.notices.append,
            on_deposed=lambda why, is_final: self.deposed.append((why, is_final)),
            on_l1_time=lambda time_s, ahead_s: self.times.append((time_s, ahead_s)),
            on_unverified=self.wait_for_check,
        )


def link_to(
    program: str, folder: Path, monkeypatch: pytest.MonkeyPatch, heard: Heard | None = None
) -> L1Link:
    """A link whose process runs this program."""
    monkeypatch.setattr(l1_link, "COMMAND", (sys.executable, "-c", program))
    monkeypatch.setattr(l1_link, "STOP_S", 0.5)
    monkeypatch.setattr(l1_link, "RESTART_FIRST_S", 0.05)
    return L1Link(URL, deployment(), Signer(SECRET), folder, L1Config(), (heard or Heard()).handlers())


async def until(condition: object, what: str) -> None:
    assert callable(condition)
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        await asyncio.sleep(0.01)


def test_process_that_reads_nothing__costs_a_bounded_number_of_bytes_and_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        link = link_to("import time; time.sleep(600)", tmp_path, monkeypatch)
        link.start()
        await until(lambda: link.pid is not None and link._line is not None, "the process")
        assert link.pid is not None
        pid, line = link.pid, link._line
        for _ in range(20_000):
            link.wake()
            await asyncio.sleep(0)
        assert line is not None
        assert line.transport is not None
        assert line.transport.get_write_buffer_size() < 2 * l1_link.UNREAD_BYTES_MAX
        await link.stop()
        assert not Path(f"/proc/{pid}").exists()
        assert link.restarts == 0

    asyncio.run(play())


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("import sys; sys.exit(9)", "status 9"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("print('this is no report, and long enough to be a prefix')", "its report: LineBroken"),
    ],
)
def test_process_that_ends__is_told_and_another_begins(
    program: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        link = link_to(program, tmp_path, monkeypatch)
        link.start()
        await until(lambda: link.restarts >= 2, "a second end")
        assert f"the L1 process has ended ({told}" in link.last_error
        assert link.unseen_s() is None
        await link.stop()

    asyncio.run(play())
    assert told in caplog.text
    assert "sEcReTkEy123" not in caplog.text
    assert SECRET.hex() not in caplog.text


REPORTS = """
import sys
from sequencer.l1.follower import InboxMessage
from sequencer.l1.poster import Posted
from sequencer.rollup.l1_messages import *
def say(one): sys.stdout.buffer.write(frame(one)); sys.stdout.buffer.flush()
say(L1Time(77, 5))
say(Messages([InboxMessage(n, bytes(900), bytes(32), n, "0x") for n in range(MESSAGES_MAX)]))
for n in range(3): say(InboxPart([bytes([n]) * 100] * MESSAGES_MAX, []))
say(InboxPart([], [Undone("key", 2, str(10**30), 9)]))
say(BatchesPosted([Posted(3, "0x", 8, 9)]))
say(IsDeposed("another leads", False))
seen = SetSeen("a", "a", 1, ("a",), str(10**20), "1", 2, 3, "4", 5)
say(Look(1, 6, "an error", seen, 0.0, 60, 4, True, 7, 2, 1000, str(10**30), str(10**9), 3, 11, 12, 13))
sys.stdin.buffer.read()
"""


def test_reports__of_every_kind_and_size__are_taken_and_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        heard = Heard()
        link = link_to(REPORTS, tmp_path, monkeypatch, heard)
        link.start()
        await until(lambda: link.looks, "the last report")
        assert heard.times == [(77, 5)]
        assert [one.index for one in heard.messages] == list(range(MESSAGES_MAX))
        (notice,) = heard.notices
        assert notice.events == [RolledBack("key", 2, 10**30, 9)]
        assert notice.inbox == [bytes([n]) * 100 for n in range(3) for _ in range(MESSAGES_MAX)]
        assert heard.posted == [Posted(3, "0x", 8, 9)]
        assert heard.deposed == [("another leads", False)]
        assert heard.unverified == 1
        assert (link.last_error, link.next_on_l1, link.hears, link.unverified) == ("an error", 4, True, 7)
        assert (link.posted, link.gas_used, link.blob_gas_used, link.bytes_posted) == (3, 11, 12, 13)
        assert link.standing == Standing("a", "a", 1, ("a",), 10**20, 1, 2, 3, 4, 5)
        assert link.unseen_s() == pytest.approx(time.monotonic(), abs=5)
        assert link.head_age_s() == pytest.approx(time.time() - 60, abs=5)
        assert link.can_pay(500) == (10**30, 10**9 * gas_of(3, 1_500, False))
        await link.stop()

    asyncio.run(play())


def test_child__that_was_made_ready__is_the_first_one_taken_and_holds_what_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(l1_link, "COMMAND", (sys.executable, "-c", "import time; time.sleep(600)"))
    monkeypatch.setattr(l1_link, "STOP_S", 0.1)
    with (tmp_path / "lock").open("wb") as lock:
        children = Children(held=(lock.fileno(),))
        children.prepare()
        children.prepare()
        first, second = children.take(), children.take()
        try:
            for child in (first, second):
                held = os.readlink(f"/proc/{child.process.pid}/fd/{lock.fileno()}")
                assert held == str(tmp_path / "lock")
            assert first.process.pid < second.process.pid
        finally:
            first.end()
            second.end()
        children.prepare()
        children.close()
        children.close()
