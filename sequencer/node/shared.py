"""A service over a log that other nodes read and write: what it executes of theirs, what it appends beside ticks."""

import asyncio
from collections.abc import Iterator

from sequencer.engine.following import follow
from sequencer.log.interface import Cut, Entry, LogError, LogLost, Term, TurnBack
from sequencer.node.roll_backs import changed_accounts
from sequencer.node.service import Service
from sequencer.protocol import receipts


class SharedLog:
    """The log of `service`, whose end is the state's place whenever nothing of this is running.

    `has_leaders_key`: the leader signs receipts with this node's key, too, so that both give the same.
    """

    def __init__(self, service: Service, has_leaders_key: bool = True) -> None:
        self._service = service
        self._has_leaders_key = has_leaders_key
        self._follow_cuts()
        self.show_leader(*self._last_term())

    def _last_term(self) -> tuple[int, str]:
        """The last term in the log, and who leads in it, where the log's end says that; (0, ""): none has led."""
        for entry in self._backwards():
            if isinstance(entry.control, Term):
                return entry.control.number, entry.control.node
            if heads := [head for head in entry.heads if len(head) > receipts.ID_BYTES]:
                return receipts.load(heads[-1]).term, ""
        return 0, ""

    def epoch(self) -> int:
        """Of the set, in the log's last header; the first where there is none."""
        for entry in self._backwards():
            if heads := [head for head in entry.heads if len(head) > receipts.ID_BYTES]:
                return receipts.load(heads[-1]).epoch
        return self._service.epoch

    def _backwards(self) -> Iterator[Entry]:
        log = self._service.log
        for offset in range(log.end - 1, -1, -1):
            yield next(iter(log.read(offset)))

    def _follow_cuts(self) -> None:
        """Stores the batches whose ends stand in the log, and that the store lacks."""
        service = self._service
        if service.batcher.cursor.offset < service.log.end:
            for entry in service.log.read(service.batcher.cursor.offset):
                if isinstance(entry.control, Cut):
                    service.pace.followed(entry.control)

    def show_leader(self, term: int, node: str) -> None:
        """Whose ticks these are now; this node takes no orders before `Service.lead`."""
        self._service.term = term
        who = f"node {node} leads" if node else "no node leads"
        self._service.gate.deposed = f"this node follows; {who}"

    # --- what another node has logged ---------------------------------------------------------------

    def execute(self, entry: Entry) -> None:
        """Executes the log's last entry, which has an offset. Raises ReplayError."""
        service = self._service
        if not entry.segments:
            self._note()
        else:
            tick = follow(service.state, entry)
            tick.receipts = service.issuer.adopt(tick, self._has_leaders_key)
            service.driver.followed(tick)
        if isinstance(entry.control, Term):
            self.show_leader(entry.control.number, entry.control.node)
        elif isinstance(entry.control, Cut):
            service.pace.followed(entry.control)
        if service.pace.snapshot_due():
            service.pace.snapshot()

    def _note(self) -> None:
        """The log's last entry holds no records."""
        service = self._service
        service.history.offer(service.history.ledger.take(), service.log.head_hash)
        service.vouched.add([], service.log.end, service.state.globals.seq)

    async def turn_back(self, back: TurnBack) -> None:
        """The log's last entry takes others back: goes on with what stands there now. Raises ReplayError."""
        service = self._service
        service.recovery.take_note()
        await service.pace.snapshots.end()  # of what is removed
        before = service.state
        service.recovery.follow()
        state, _ = await asyncio.to_thread(service.recover)
        changed = await asyncio.to_thread(changed_accounts, before, state)
        service.adopt(state)
        service.load_outcomes(back.first_seq)
        service.pace.rolled_back(back.batch_id - 1, bool(back.events))
        service.events.roll_back(back.first_seq, [])
        service.ipc.broadcast(
            service.events.roll_back_events(back.batch_id, back.first_seq, changed, back.redone)
        )

    # --- what this node appends ---------------------------------------------------------------------

    async def append(self, control: Term | Cut) -> None:
        """Makes an entry without records durable, between two ticks. Raises LogError."""
        service = self._service
        state = service.state
        entry = Entry(
            *(state.globals.seq, state.globals.time, state.root(), []),
            verified=service.vouched.offset,
            control=control,
        )
        await service.driver.on_log_thread(service.log.append, entry, service.log.end)
        self._note()

    async def announce(self, cut: Cut) -> None:
        """See Pace. Raises LogLost; OSError when the log takes nothing for a while."""
        try:
            await self.append(cut)
        except LogLost:
            raise
        except LogError as error:  # a full disk, or no majority: the batch waits
            raise OSError(error.reason) from error
