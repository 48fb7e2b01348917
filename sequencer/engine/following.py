"""Execution of a tick that another node has logged: the Tick that its leader had, for who keeps up with it.

A follower makes the same acknowledgements, receipts, events and rows of it as the leader. It recovers who signed each
record by itself, and compares the root after each segment.
"""

from typing import Final

from sequencer.engine.engine import (
    CONTINUE,
    ReplayError,
    Result,
    Submission,
    Tick,
    account_and_nonce,
)
from sequencer.engine.signed import is_signed, signers_of
from sequencer.log.interface import Entry
from sequencer.protocol import receipts
from sequencer.protocol.constants import Kind
from sequencer.protocol.state import State
from sequencer.protocol.transition import apply

_TICK: Final = Kind.TICK
_PLACES: Final = frozenset({Kind.PLACE, Kind.PLACE_IN_WORDS})
_REPORTS: Final = frozenset({Kind.FEED, Kind.SURFACE})


def follow(state: State, entry: Entry) -> Tick:
    """Applies a logged tick to `state`.

    Raises ReplayError when it does not go on where `state` stands, or a root or the work after one of its segments
    differs from the logged one; `state` is then of no use.
    """
    if state.globals.seq != entry.first_seq:
        raise ReplayError(f"log goes on at seq {entry.first_seq}, the state stands at {state.globals.seq}")
    labels = {(account, nonce): label for account, nonce, label in entry.labels}
    named = signers_of(list(entry.raws()), state.domain)
    state.map.roots()  # none that an unfinished tick has left
    marks: list[int] = []
    leaves: list[bytes] = []
    results: list[Result] = []
    system: list[Result] = []
    last: Result | None = None
    for _, records, work in entry.segments:
        for raw in records:
            out = apply(state, raw, next(named))
            # now: a later record of the tick may fill what this one rests
            leaves.append(receipts.leaf(out.seq, raw, out.reason, receipts.outcome_hash(out)))
            if raw == CONTINUE and last is not None and last.outcomes[-1].pending:
                last.outcomes.append(out)
                continue
            kind = raw[0] if raw else 0
            if kind == _TICK:
                continue
            label = ""
            if labels and kind in _PLACES:
                label = labels.get(account_and_nonce(raw), "")
            last = Result(Submission(raw, None, label=label), [out])
            (results if is_signed(raw) and kind not in _REPORTS else system).append(last)
        if state.globals.work != work:
            raise ReplayError(f"work differs after seq {state.globals.seq - 1}")
        marks.append(state.mark())
    roots = state.map.roots()
    for mark, (root, _, _) in zip(marks, entry.segments, strict=True):
        if roots[mark] != root:
            raise ReplayError(f"root differs in the tick that begins at seq {entry.first_seq}")
    return Tick(state.globals.tick, entry, results, system, leaves=leaves)
