"""Signers of many records, most of them by known keys: these are verified together, at a tenth of what recovery costs.

What `KeyRing.signers` gives is what recovery gives. A record has a hint: something that most often goes with one key,
like its account. Once a hint has come with the same key a few times, its records are verified under that key, all of
a batch at once (_kernel/batch.h): a wrong signature passes with a probability of 2^-128. A batch that fails is halved,
and what is left of it recovered one by one.

Whoever sends wrong signatures makes that cost more. What a batch costs is therefore paid, if it fails, from a credit
that grows by what others have saved, so that all in all nothing costs much more than recovering everything. A hint
whose record is not by its key has to come with one key for longer before it is verified again.
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
BATCH_MIN: Final = 2
BATCH_MAX: Final = 256
ALONE_MAX: Final = 16  # what is left of a failed batch and recovered one by one
TIMES_MIN: Final = 6  # that a key comes in a row before its table is made, which costs a recovery
TIMES_MAX: Final = 1_024
# µs, about, as the credit counts them
RECOVERY_US: Final = 42
BATCH_US: Final = 50  # whatever is in it
EACH_US: Final = 12  # half of it with vector lanes
# What a recovered record adds that would have been verified, so that a ring without credit begins again.
CONFIRMED_US: Final = 2
CREDIT_FIRST_US: Final = 50_000
CREDIT_MAX_US: Final = 500_000

# What _verify says of a record: 0: no key has signed it; 1: its key has; this: the sum was not zero.
_UNDECIDED: Final = 2
_COEFFICIENT_BYTES: Final = 16
_REPORTS: Final = frozenset({int(Kind.FEED), int(Kind.SURFACE)})


def hints_of(raws: Sequence[bytes]) -> list[bytes]:
    """For each well-formed record of a signed kind its account, or the number of its feed."""
    return [raw[2:3] if raw[0] in _REPORTS else raw[1:5] for raw in raws]


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
        self._credit_us = CREDIT_FIRST_US
        # Of all changes; threads may take a little more from the credit than there is.
        self._lock = threading.Lock()
        self._library = library()

    def signers(self, raws: Sequence[bytes], domain: bytes, hints: Sequence[Hashable]) -> list[bytes | None]:
        """Address (20 bytes) of the signer of each; None where no key can have made the signature.

        Each must be a well-formed record of a signed kind (`codec.well_formed`), and have a hint: see `hints_of`.
        """
        if _verify is None:
            return signers(raws, domain)
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

    def unknown(self, hints: Sequence[Hashable]) -> int:
        """How many records with these hints `signers` will recover one by one, at least."""
        missing = len(hints) if _verify is None else sum(hint not in self._keys for hint in hints)
        return len(hints) if len(hints) - missing < BATCH_MIN else missing

    def _verified(self, job: _Job, places: list[int], keys: list[_Key]) -> list[int]:
        """Verifies these together; returns those that are left to be recovered."""
        cost_us = BATCH_US + EACH_US * len(places)
        if len(places) < BATCH_MIN or cost_us > self._credit_us:
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
                saved_us = RECOVERY_US * len(places) - cost_us
                self._credit_us = min(self._credit_us + saved_us, CREDIT_MAX_US)
            return []
        with self._lock:
            self._credit_us -= cost_us
        if len(places) <= ALONE_MAX:
            return places
        half = len(places) // 2
        left = self._verified(job, places[:half], keys[:half])
        return left + self._verified(job, places[half:], keys[half:])

    def _recover(self, job: _Job, places: list[int]) -> None:
        raws = [job.raws[place] for place in places]
        found = _public_keys(self._library, job.domain, raws, plans(raws, job.domain))
        come: dict[Hashable, tuple[bytes, int]] = {}
        with self._lock:
            self.recovered += len(places)
            for place, key in zip(places, found, strict=True):
                if key is not None:
                    job.found[place] = keccak(key)[12:]
                wanted = self._learn(job.hints[place], key)
                if wanted and key is not None:
                    come[job.hints[place]] = key, wanted
        for hint, (key, wanted) in come.items():
            one = _Key(key, keccak(key)[12:], _key_table(key), wanted)
            with self._lock:
                self._candidates.pop(hint, None)
                _put(self._keys, hint, one, self._keys_max)

    def _learn(self, hint: Hashable, key: bytes | None) -> int:
        """A record has been recovered. Returns how often its key had to come if its table is to be made, else 0."""
        known = self._keys.get(hint)
        if known is not None:
            if known.key == key:
                self._credit_us = min(self._credit_us + CONFIRMED_US, CREDIT_MAX_US)
                return 0
            del self._keys[hint]
            candidate = _Candidate(None, 0, min(2 * known.wanted, TIMES_MAX))
            _put(self._candidates, hint, candidate, self._keys_max)
        else:
            found = self._candidates.get(hint)
            if found is None:
                if key is None:
                    return 0
                found = _Candidate(key, 0, TIMES_MIN)
                _put(self._candidates, hint, found, self._keys_max)
            candidate = found
        if key is None or key != candidate.key:
            candidate.key, candidate.times = key, 0
        candidate.times += 1
        return candidate.wanted if candidate.times == candidate.wanted else 0


_One = TypeVar("_One")


def _put(into: dict[Hashable, _One], hint: Hashable, one: _One, most: int) -> None:
    """Where there is no room the oldest goes."""
    if len(into) >= most and hint not in into:
        del into[next(iter(into))]
    into[hint] = one
