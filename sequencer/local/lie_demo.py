"""`fairstrike demo --lie`: a lying sequencer on a chain of its own, and a watcher that starts from L1 alone.

The watcher has to find the lie, challenge it and see it rolled back; then the sequencer makes up its bond, executes the
honest records again, and the same watcher has to find that right.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from sequencer.engine.engine import Engine, Submission, class_of
from sequencer.genesis import genesis_state
from sequencer.l1.batch import Batch
from sequencer.local.devnet import devnet_signer
from sequencer.local.liar import Lie
from sequencer.local.lie_stage import CHALLENGER, LATE_S, LieReport, Progress, Stage, stage
from sequencer.local.lies import LIES
from sequencer.local.play import PAYLOAD_MAX_BYTES
from sequencer.local.receipt_lies import RECEIPT_LIES, break_on
from sequencer.log.interface import Entry
from sequencer.market.tape import open_tape
from sequencer.proof.watcher import Watcher, as_json
from sequencer.protocol import batch as batches
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.transition import apply

HEADER_LIE_BATCH: Final = 2
LOOKS: Final = 40


def as_object(report: LieReport) -> dict[str, Any]:
    """The report as one object."""
    return asdict(report)


def summary(reports: Sequence[LieReport]) -> dict[str, Any]:
    """What became of many lies. `not_held`: those that were not caught, slashed and rolled back as they must be."""
    challenged = [one for one in reports if not one.refused_by_l1]
    return {
        "lies": len(reports),
        "challenged": len(challenged),
        "refused_by_l1": {one.lie: one.refused_by_l1 for one in reports if one.refused_by_l1},
        "not_held": [one.lie for one in reports if not one.held],
        "challenge_gas_min": min((one.challenge_gas for one in challenged), default=0),
        "challenge_gas_max": max((one.challenge_gas for one in challenged), default=0),
        "challenge_bytes_max": max((one.challenge_bytes for one in challenged), default=0),
        "honest_records_kept_min": min(
            (one.honest_records_kept for one in challenged if not one.is_receipt), default=0
        ),
        "seconds": round(sum(one.seconds for one in reports), 3),
    }


def bent(made: list[Batch], lie: Lie) -> list[Batch]:
    """The batches with a lie in the header of one; what follows it fits its header."""
    return chained(
        lie.of(one) if one.batch_id == HEADER_LIE_BATCH and lie.of is not None else one for one in made
    )


def chained(made: Iterable[Batch]) -> list[Batch]:
    """The batches, each made to follow the one before it: Rollup takes no other."""
    out: list[Batch] = []
    for one in made:
        if out:
            last = out[-1]
            first_seq, tick = last.first_seq + last.records, last.tick + one.ticks
            one = replace(one, first_seq=first_seq, pre_root=last.post_root, tick=tick)
        out.append(one)
    return out


def tell(
    name: str,
    chain_name: str = "pyevm",
    tape: Path | None = None,
    seed: int = 1,
    progress: Progress = lambda _stage, _done, _total: None,
    data: str = "calldata",
) -> LieReport:
    """Tells a lie and lets it be found."""
    with stage(chain_name, open_tape(tape, seed), data) as on:
        return tell_on(on, name, progress)


def tell_all(
    names: Iterable[str],
    chain_name: str = "pyevm",
    tape: Path | None = None,
    seed: int = 1,
    progress: Progress = lambda _stage, _done, _total: None,
    data: str = "calldata",
) -> Iterator[LieReport]:
    """Tells lies one after the other, each to the same deployment: the chain is taken back between them."""
    listed = list(names)
    with stage(chain_name, open_tape(tape, seed), data) as on:
        for done, name in enumerate(listed):
            progress("lies", done, len(listed))
            before = on.chain.snapshot()
            yield tell_on(on, name)
            on.chain.revert(before)
        progress("lies", len(listed), len(listed))


def tell_on(on: "Stage", name: str, progress: Progress = lambda _stage, _done, _total: None) -> LieReport:
    """Tells a lie on a stage where nothing has been posted yet."""
    if name in RECEIPT_LIES:
        return break_on(on, name, progress)
    began, lie = time.monotonic(), LIES[name]
    report = LieReport(name, lie.what, on.chain.name, on.at.data)
    progress("lie", 1, 5)
    _, made = on.perform(lie)
    told = bent(made, lie)
    report.batches, report.records = len(made), sum(one.records for one in made)
    if lie.refusal and not on.at.in_blobs:
        on.post(told[: HEADER_LIE_BATCH - 1])
        report.refused_by_l1 = on.refusal(told[HEADER_LIE_BATCH - 1])
    else:
        on.post(told, LATE_S if lie.is_late else None)
        progress("lie", 2, 5)
        watcher = on.watcher(devnet_signer(CHALLENGER), f"watcher-{name}")
        catch(on, watcher, report, progress)
        if report.rolled_back:
            execute_again(on, made, report)
            watcher.step()
            report.watcher_agrees = watcher.fault is None and watcher.batches == on.read("next_batch") - 1 > 0
        watcher.close()
    progress("lie", 5, 5)
    report.seconds = round(time.monotonic() - began, 3)
    return report


def catch(on: Stage, watcher: Watcher, report: LieReport, progress: Progress) -> None:
    """Lets the watcher look until the wrong batch is gone."""
    for _ in range(LOOKS):
        watcher.step()
        if watcher.fault is not None and not report.caught:
            report.caught, report.fault = True, as_json(watcher.fault)
            progress("lie", 3, 5)
        if not report.caught or (
            watcher.challenged is not None and watcher.challenged.state in ("won", "failed")
        ):
            break
        on.chain.mine()
    challenged = watcher.challenged
    if challenged is None:
        return
    report.challenge_gas, report.challenge_bytes = challenged.gas, challenged.calldata_bytes
    report.error = challenged.why
    report.slashed = on.chain.rpc.balance(on.at.sequencers) == 0
    report.rolled_back = report.fault is not None and on.read("next_batch") == report.fault["batch"]
    watcher.step()
    progress("lie", 4, 5)


def execute_again(on: Stage, made: list[Batch], report: LieReport) -> None:
    """The sequencer, honest now: from the last right batch, all its records once more; what holds is posted."""
    right = on.read("next_batch") - 1
    state = genesis_state(on.domain, on.params)
    for one in made[:right]:
        for raw in _records([one]):
            apply(state, raw)
    start_batch, pre_root = right + 1, state.root()
    seq, taken, ticks = state.globals.seq, state.globals.inbox_count, state.globals.tick
    inbox = on.inbox[taken:]
    engine = Engine(state)
    entries: list[Entry] = []
    for time_s, records in [*_ticks(_records(made[right:])), (0, [_DEPOSIT] * len(inbox))]:
        # What the lying sequencer has made of the inbox is not to be believed; L1 has the messages.
        wanted = [
            inbox.pop(0) if raw[0] == Kind.DEPOSIT else raw
            for raw in records
            if raw[0] != Kind.DEPOSIT or inbox
        ]
        tick = engine.run(
            time_s,
            [raw for raw in wanted if class_of(raw) == c.CLASS_SYSTEM],
            [
                Submission(raw, None, of_class=class_of(raw))
                for raw in wanted
                if class_of(raw) != c.CLASS_SYSTEM
            ],
        )
        if tick.entry is not None:
            entries.append(tick.entry)
        results = tick.system + tick.results
        report.honest_records_kept += sum(1 for one in results if one.reason is Reason.OK)
        report.refused += [Reason(one.reason).name for one in results if one.reason is not Reason.OK]
    on.bond()
    on.post(_batches(on, entries, start_batch, pre_root, seq, taken, ticks))


_DEPOSIT: Final = bytes([Kind.DEPOSIT])
_MADE_ANEW: Final = (Kind.TICK, Kind.CONTINUE)


def _records(made: list[Batch]) -> list[bytes]:
    return [
        raw
        for one in made
        for segment in batches.decode(one.payload, one.segments, one.ticks)
        for raw in segment.records
    ]


def _ticks(records: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """(time, records) of each tick; the first may have begun in the batch before."""
    time_s = 0
    waiting: list[bytes] = []
    for raw in records:
        if raw[0] == Kind.TICK:
            if waiting:
                yield time_s, waiting
            time_s, waiting = int.from_bytes(raw[1:5], "big"), []
        elif raw[0] not in _MADE_ANEW:
            waiting.append(raw)
    if waiting:
        yield time_s, waiting


def _batches(
    on: Stage, entries: list[Entry], batch_id: int, pre_root: bytes, seq: int, inbox_count: int, tick: int
) -> list[Batch]:
    """Ticks as batches, from `batch_id` on; `tick`: GLOBAL's before the first."""
    out: list[Batch] = []
    waiting: list[Entry] = []
    for number, entry in enumerate(entries):
        waiting.append(entry)
        size = sum(len(raw) for one in waiting for raw in one.raws())
        if size < PAYLOAD_MAX_BYTES and number < len(entries) - 1:
            continue
        segments = [segment for one in waiting for segment in one.batch_segments()]
        records = sum(one.records for one in waiting)
        inbox_count += sum(1 for one in waiting for raw in one.raws() if raw[0] == Kind.DEPOSIT)
        ticks = sum(batches.ticks_in(segment.records) for segment in segments)
        tick += ticks
        out.append(
            Batch(
                batch_id=batch_id + len(out),
                pre_root=pre_root,
                post_root=entry.root,
                segments=len(segments),
                records=records,
                first_seq=seq,
                time_s=entry.time,
                inbox_count=inbox_count,
                inbox_hash=on.inbox_hash(inbox_count),
                work=waiting[-1].segments[-1][2],
                tick=tick,
                ticks=ticks,
                payload=batches.encode(segments),
            )
        )
        pre_root = entry.root
        seq += records
        waiting = []
    return out
