"""Rows written by a process beside: the same as those written here, none twice, none lost when it is killed."""

import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from sequencer.engine.engine import replay
from sequencer.engine.ledger import Ledger
from sequencer.history import history as histories
from sequencer.history.beside import Writer
from sequencer.history.history import labels_of
from sequencer.history.store import FILE, Store
from sequencer.history.tables import Rows
from sequencer.protocol.outcome import Outcome
from sequencer.sdk.trader import Trader
from sequencer.wire.rows import Batch
from tests.exchange_fixture import Exchange, RealService
from tests.history.busy import Busy
from tests.history.compare import content
from tests.history.test_faults import assert_whole, history_of, restarted
from tests.history.test_history import played, trade
from tests.simulation.little import genesis


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    """Rows of each log entry of a busy day."""
    busy = Busy(5)
    for _ in range(40):
        busy.step()
    busy.settle()
    state = genesis()
    ledger, made = Ledger(state.params.treasury_account), []
    for entry in busy.entries:
        labels = labels_of(entry)

        def observe(raw: bytes, out: Outcome, labels: dict[bytes, str] = labels) -> None:
            ledger.apply(raw, out, state.globals.time, labels.get(raw[1:5] + raw[19:23], ""))

        replay(state, entry, observe)
        made.append(ledger.take())
    return made


def rows_of(store: Store, batches: list[Batch], at: int, end: int) -> Rows:
    return store.rows(batches[at:end], end, bytes([end % 256]) * 32, 0)


def here(folder: Path, batches: list[Batch]) -> dict[str, list[object]]:
    folder.mkdir()
    store = Store(folder / FILE)
    for at in range(len(batches)):
        store.write(rows_of(store, batches, at, at + 1))
    store.close()
    return content(folder)


def test_rows__written_beside__are_those_written_here(tmp_path: Path, batches: list[Batch]) -> None:
    store, writer = Store(tmp_path / FILE), Writer(tmp_path / FILE)
    for at in range(0, len(batches), 7):
        rows = rows_of(store, batches, at, min(at + 7, len(batches)))
        writer.write(rows, store.pruned_seq)
        store.has(rows)
    writer.close()
    store.close()
    assert content(tmp_path) == here(tmp_path / "here", batches)


def test_process__that_is_killed__is_started_again_and_nothing_is_in_twice(
    tmp_path: Path, batches: list[Batch]
) -> None:
    store, writer = Store(tmp_path / FILE), Writer(tmp_path / FILE)
    for at in range(len(batches)):
        rows = rows_of(store, batches, at, at + 1)
        if at % 20 == 10:
            assert writer.pid is not None
            os.kill(writer.pid, signal.SIGKILL)
            with pytest.raises(OSError, match=r"has ended|Broken pipe"):
                writer.write(rows, store.pruned_seq)
            assert not writer.is_running
        writer.write(rows, store.pruned_seq)
        if at % 20 == 15:  # as if its answer had been lost
            writer.write(rows, store.pruned_seq)
        store.has(rows)
    writer.close()
    store.close()
    assert content(tmp_path) == here(tmp_path / "here", batches)


def test_file__that_cannot_be_written__is_said_and_the_process_goes_on(
    tmp_path: Path, batches: list[Batch]
) -> None:
    store, writer = Store(tmp_path / FILE), Writer(tmp_path / FILE)
    rows = rows_of(store, batches, 0, len(batches))
    store.db.execute("ALTER TABLE orders RENAME TO away")
    with pytest.raises(sqlite3.OperationalError, match="no such table: orders"):
        writer.write(rows, 0)
    assert store.db.execute("SELECT COUNT(*) FROM trades").fetchone() == (0,)  # nothing of it is in
    store.db.execute("ALTER TABLE away RENAME TO orders")
    pid = writer.pid
    writer.write(rows, 0)
    assert writer.pid == pid
    writer.close()
    store.has(rows)
    store.close()
    assert content(tmp_path)["orders"] == here(tmp_path / "here", batches)["orders"]


@pytest.fixture
def exchange(monkeypatch: pytest.MonkeyPatch) -> Iterator[Exchange]:
    monkeypatch.setattr(histories, "BESIDE_ROWS", 0)
    monkeypatch.setattr(histories, "RETRY_S", 0.02)
    with Exchange(RealService) as made:
        yield made


def test_exchange__with_a_process_beside__lets_it_go_and_starts_again(exchange: Exchange) -> None:
    played(exchange, trade)
    pid = history_of(exchange)._writer.pid
    assert pid is not None
    assert_whole(exchange)
    restarted(exchange)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert_whole(exchange)


def test_exchange__whose_process_beside_is_killed__has_all_rows(exchange: Exchange) -> None:
    writer = history_of(exchange)._writer

    async def work(maker: Trader, taker: Trader) -> None:
        await maker.cancel_all()
        assert (await maker.history("transaction_log"))["rows"]  # behind all that was offered
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        await trade(maker, taker)

    played(exchange, work)
    assert_whole(exchange)
    assert history_of(exchange).error == ""
