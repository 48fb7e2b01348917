"""Signers of many records, most of them by known keys: these are verified together, at a tenth of what recovery costs.

What `KeyRing.signers` gives is what recovery gives. A record has a hint: something that most often goes with one key,
like its account. Once a hint has come with the same key a few times, its records are verified under that key, all of
a batch at once (_kernel/batch.h): a wrong signature passes with a probability of 2^-128. A batch that fails is halved,
and what is left of it recovered one by one.

Whoever sends wrong signatures makes that cost more. Verifying is therefore paid from a credit, which grows with what
has been saved, so that all in all nothing costs much more than recovering everything. A hint whose record is not by
its key has to come with one key for longer before it is verified again.
"""

import os
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from sequencer.protocol.constants import Kind
from sequencer.protocol.hashing import keccak, library
from sequencer.protocol.signers import plans, signers

_Verify = Callable[[bytes, Sequence[bytes], Sequence[bytes], Sequence[bytes], bytes], bytes]
_verify: _Verify | None
try:
    from sequencer._kernel.cmap_kernel import key_table as _key_table
    from sequencer._kernel.cmap_kernel import public_keys as _public_keys
    from sequencer._kernel.cmap_kernel import verify as _verify
except ImportError:  # not built, or FAIRSTRIKE_PURE=1: every signer is recovered
    _verify = None

KEYS_MAX: Final = 8_192  # of which tables are kept, 2 KiB each; and of those that may become such
BATCH_MIN: Final = 4  # fewer cost less one by one
BATCH_MAX: Final = 256
ALONE_MAX: Final = 16  # what is left of a failed batch and recovered one by one
TIMES_MIN: Final = 6  # that a key comes in a row before its table is made, which costs a recovery
TIMES_MAX: Final = 1_024
CREDIT_FIRST: Final = 8_192  # a failed batch takes VERIFIED for each of its records
CREDIT_MAX: Final = 131_072
VERIFIED: Final = 8  # that a verified record adds; a recovered one that would have been adds 1

_UNDECIDED: Final = (
    2  # of what _verify says of a record: the sum was not zero. 0: no key has signed it; 1: its key has
)
_COEFFICIENT_BYTES: Final = 16
_REPORTS: Final = frozenset({int(Kind.FEED), int(Kind.SURFACE)})


def hint_of(raw: bytes) -> bytes:
    """The account of a well-formed record of a signed kind, or the number of its feed."""
    return raw[2:3] if raw[0] in _REPORTS else raw[1:5]


@dataclass(slots=True)
class _Candidate:
    """The key of a hint's last record, how often it has come in a row, and how often it has to."""

    key: bytes | None
    times: int
    wanted: int


@dataclass(frozen=True, slots=True)
class _Key:
    key: bytes
    address: bytes
    table: bytes
    wanted: int


@dataclass(frozen=True, slots=True)
class _Job:
    raws: Sequence[bytes]
    hints: Sequence[Hashable]
    domain: bytes
    found: list[bytes | None]


class KeyRing:
    """May be used by several threads at a time.

    `verified`, `recovered`: records whose signer was found together with others', and by itself.
    """

    def __init__(self, keys_max: int = KEYS_MAX) -> None:
        self.verified = 0
        self.recovered = 0
        self._keys_max = keys_max
        self._keys: dict[Hashable, _Key] = {}
        self._candidates: dict[Hashable, _Candidate] = {}
        self._credit = CREDIT_FIRST
        self._lock = threading.Lock()  # of all changes
        self._library = library()

    def signers(
        self, raws: Sequence[bytes], domain: bytes, hints: Sequence[Hashable] | None = None
    ) -> list[bytes | None]:
        """Address (20 bytes) of the signer of each; None where no key can have made the signature.

        Each must be a well-formed record of a signed kind (`codec.well_formed`). `hints`: one for each; otherwise
        `hint_of` it.
        """
        if _verify is None:
            return signers(raws, domain)
        if hints is None:
            hints = [hint_of(raw) for raw in raws]
        job = _Job(raws, hints, domain, [None] * len(raws))
        alone: list[int] = []
        together: list[int] = []
        keys: list[_Key] = []
        for place, hint in enumerate(hints):
            key = self._keys.get(hint)
            if key is None:
                alone.append(place)
            else:
                together.append(place)
                keys.append(key)
        for at in range(0, len(together), BATCH_MAX):
            alone += self._verified(job, together[at : at + BATCH_MAX], keys[at : at + BATCH_MAX])
        if alone:
            self._recover(job, alone)
        return job.found

    def unknown(self, raws: Sequence[bytes]) -> int:
        """How many of these records, with hints by `hint_of`, `signers` will recover one by one at least."""
        if _verify is None:
            return len(raws)
        missing = sum(hint_of(raw) not in self._keys for raw in raws)
        return len(raws) if len(raws) - missing < BATCH_MIN else missing

    def _verified(self, job: _Job, places: list[int], keys: list[_Key]) -> list[int]:
        """Verifies these together; returns those that are left to be recovered."""
        cost = len(places) * VERIFIED
        if len(places) < BATCH_MIN or cost > self._credit:
            return places
        assert _verify is not None
        raws = [job.raws[place] for place in places]
        coefficients = os.urandom(_COEFFICIENT_BYTES * len(raws))
        known = _verify(job.domain, raws, plans(raws, job.domain), [key.table for key in keys], coefficients)
        if _UNDECIDED not in known:
            for place, key, is_signed in zip(places, keys, known, strict=True):
                if is_signed:
                    job.found[place] = key.address
            with self._lock:
                self.verified += len(places)
                self._credit = min(self._credit + cost, CREDIT_MAX)
            return []
        with self._lock:
            self._credit -= cost
        if len(places) <= ALONE_MAX:
            return places
        half = len(places) // 2
        left = self._verified(job, places[:half], keys[:half])
        return left + self._verified(job, places[half:], keys[half:])

    def _recover(self, job: _Job, places: list[int]) -> None:
        raws = [job.raws[place] for place in places]
        found = _public_keys(self._library, job.domain, raws, plans(raws, job.domain))
        come: list[tuple[Hashable, _Candidate]] = []
        with self._lock:
            self.recovered += len(places)
            for place, key in zip(places, found, strict=True):
                if key is not None:
                    job.found[place] = keccak(key)[12:]
                candidate = self._learn(job.hints[place], key)
                if candidate is not None:
                    come.append((job.hints[place], candidate))
        for hint, candidate in come:
            assert candidate.key is not None
            table = _key_table(candidate.key)
            one = _Key(candidate.key, keccak(candidate.key)[12:], table, candidate.wanted)
            with self._lock:
                self._candidates.pop(hint, None)
                _put(self._keys, hint, one, self._keys_max)

    def _learn(self, hint: Hashable, key: bytes | None) -> _Candidate | None:
        """A record has been recovered. Returns the candidate if its table is to be made."""
        known = self._keys.get(hint)
        if known is not None:
            if known.key == key:
                self._credit = min(self._credit + 1, CREDIT_MAX)
                return None
            del self._keys[hint]
            candidate = _Candidate(None, 0, min(2 * known.wanted, TIMES_MAX))
            _put(self._candidates, hint, candidate, self._keys_max)
        else:
            found = self._candidates.get(hint)
            if found is None:
                if key is None:
                    return None
                found = _Candidate(key, 0, TIMES_MIN)
                _put(self._candidates, hint, found, self._keys_max)
            candidate = found
        if key is None or key != candidate.key:
            candidate.key, candidate.times = key, 0
        candidate.times += 1
        return candidate if candidate.times == candidate.wanted and key is not None else None


_One = TypeVar("_One")


def _put(into: dict[Hashable, _One], hint: Hashable, one: _One, most: int) -> None:
    """Where there is no room the oldest goes."""
    if len(into) >= most and hint not in into:
        del into[next(iter(into))]
    into[hint] = one
