"""Intake: the bounded queue in front of the engine. A refused submission was never accepted, and gets the reason.

Limits: submissions waiting in all, submissions per account and second (token bucket), and time in the queue: when the
oldest has waited too long, orders that add risk are refused before those that reduce it. The same applies when more
work is acknowledged than L1 takes in the allowed time (`pressure`). Records without a fee have a bucket of their own,
in units of work: otherwise one account could use all of L1's capacity for nothing.
"""

from collections import deque
from dataclasses import dataclass

from sequencer.engine.engine import Submission, class_of
from sequencer.errors import error_body
from sequencer.protocol import constants as c
from sequencer.protocol import work
from sequencer.protocol.constants import Kind
from sequencer.queue.outcomes import key_of

QUEUE_FULL = 1100
RATE_LIMITED = 1101
UNDONE_COST = 16  # refusals that take as long as a record executed and undone
_UNPAID = tuple(bytes([kind]) for kind in (Kind.CANCEL_ALL, Kind.SET_SIGNER, Kind.TRANSFER, Kind.WITHDRAW))
_ORDERS = (Kind.PLACE, Kind.AMEND, Kind.PLACE_IN_WORDS)  # flags in byte 9


@dataclass(frozen=True)
class IntakeLimits:
    """Limits of the intake.

    Per account `burst` submissions at once and `rate_per_s` after that; of records without a fee `unpaid_work_max`
    units of work at once and `unpaid_work_per_s` after that. `sojourn_max_ns`: time in the queue.
    """

    waiting_max: int = 20_000
    rate_per_s: int = 2_000
    burst: int = 10_000
    unpaid_work_per_s: int = 100
    unpaid_work_max: int = 20_000
    accounts_max: int = 100_000
    sojourn_max_ns: int = 2_000_000_000


class Intake:
    """Waiting submissions by class: `offer` adds, `take` removes, both on the engine's thread."""

    def __init__(self, limits: IntakeLimits | None = None) -> None:
        self.limits = limits or IntakeLimits()
        self._waiting: deque[Submission] = deque()
        self._put_off: deque[Submission] = deque()  # left over by a tick, for the next
        self._buckets: dict[int, tuple[float, int]] = {}
        self._unpaid: dict[int, tuple[float, int]] = {}  # likewise, units of work
        self.refused = 0
        self.accepted = 0
        self.pressure = 0  # work waiting for L1, as a multiple of the limit
        self.signatures = 0  # waiting to be checked again, if they cause the pressure

    def __len__(self) -> int:
        """Submissions waiting."""
        return len(self._waiting) + len(self._put_off)

    @property
    def oldest_ns(self) -> int | None:
        """When the one that has waited longest came; None when none waits."""
        waiting = self._put_off or self._waiting
        return waiting[0].arrived_ns if waiting else None

    def offer(self, submission: Submission) -> int:
        """0 when queued; else QUEUE_FULL or RATE_LIMITED, and it is not queued.

        Cancels are accepted up to twice the bound of the queue, and when the queue is late.
        """
        limits = self.limits
        of_class = submission.of_class = class_of(submission.raw)
        waiting = self._waiting
        limit = limits.waiting_max * 2 if of_class == c.CLASS_CANCEL else limits.waiting_max
        late = bool(waiting) and submission.arrived_ns - waiting[0].arrived_ns > limits.sojourn_max_ns
        if len(waiting) >= limit or (late and of_class > c.CLASS_CANCEL) or self._is_pressed(submission):
            self.refused += 1
            return QUEUE_FULL
        if not self._spend(submission):
            self.refused += 1
            return RATE_LIMITED
        waiting.append(submission)
        self.accepted += 1
        return 0

    def why(self, code: int, raw: bytes, now_ns: int) -> bytes:
        """Error object of a submission that `offer` has just refused with `code`: the limit, and when to try again."""
        limits = self.limits
        account = int.from_bytes(raw[1:5], "big")
        if code == RATE_LIMITED and raw[:1] in _UNPAID and self._tokens(account, now_ns) >= 1.0:
            per_s, units = limits.unpaid_work_per_s, work.of(raw)
            wait_s = max(0.0001, round((units - self._unpaid_of(account, now_ns)) / per_s, 4))
            limit = f"at most {per_s} units of work of account {account} a second, {limits.unpaid_work_max} at once"
            field, got, what = "rate", f"{units} more", "what pays no fee comes too fast"
        elif code == RATE_LIMITED:
            wait_s = max(0.0001, round((1.0 - self._tokens(account, now_ns)) / limits.rate_per_s, 4))
            limit = f"at most {limits.rate_per_s} submissions of account {account} a second, {limits.burst} at once"
            field, got, what = "rate", "one more", "the account sends too fast"
        else:
            wait_s, got = 1.0, f"{len(self)} waiting"
            field, what = "queue", "the queue is full"
            limit = f"at most {limits.waiting_max} submissions waiting, each at most {limits.sojourn_max_ns / 1e9:g} s"
            if self.pressure:
                field, what = "l1", "more waits for L1 than it can take"
                limit = "what L1 takes in the time that is allowed (docs/OPERATIONS.md); cancels go first"
                got = f"{self.pressure} times as much"
            if self.signatures:
                field, what = "signatures", "too many signatures wait to be checked again"
                limit, got = (
                    "what is checked in the time that is allowed; cancels go first",
                    str(self.signatures),
                )
        text = f"Not accepted: {what}: {limit}, got {got}; send again in {wait_s:g} s."
        return error_body(
            *(code, text), field=field, limit=limit, got=got, retry_after_s=wait_s, waiting=len(self)
        )

    def _is_pressed(self, submission: Submission) -> bool:
        """Whether L1 is too far behind for this record: first for new risk, then all but cancels, finally all."""
        raw = submission.raw
        if self.pressure < 2:
            return bool(self.pressure) and _adds_risk(raw)
        return self.pressure > 2 or submission.of_class > c.CLASS_CANCEL

    def _spend(self, submission: Submission) -> bool:
        account = int.from_bytes(submission.raw[1:5], "big")
        limits = self.limits
        now_ns = submission.arrived_ns
        tokens = self._tokens(account, now_ns)
        if tokens < 1.0:
            return False
        if submission.raw[:1] in _UNPAID:
            left = self._unpaid_of(account, now_ns) - work.of(submission.raw)
            if left < 0.0:
                return False
            if len(self._unpaid) >= limits.accounts_max and account not in self._unpaid:
                self._unpaid.clear()
            self._unpaid[account] = (left, now_ns)
        if len(self._buckets) >= limits.accounts_max and account not in self._buckets:
            self._buckets.clear()  # bounded: unknown account numbers must not fill the memory
        self._buckets[account] = (tokens - 1.0, now_ns)
        return True

    def _unpaid_of(self, account: int, now_ns: int) -> float:
        """Units of unpaid work that the account may still submit."""
        limits = self.limits
        units, then = self._unpaid.get(account, (float(limits.unpaid_work_max), now_ns))
        return min(limits.unpaid_work_max, units + (now_ns - then) * 1e-9 * limits.unpaid_work_per_s)

    def _tokens(self, account: int, now_ns: int) -> float:
        """Number of submissions that the account may send now."""
        limits = self.limits
        tokens, then = self._buckets.get(account, (float(limits.burst), now_ns))
        return min(limits.burst, tokens + (now_ns - then) * 1e-9 * limits.rate_per_s)

    def holds(self, account: int, nonce: int) -> bool:
        """Whether a record of this account with this nonce is queued."""
        of = account.to_bytes(4, "big")
        key = of + nonce.to_bytes(4, "big")
        return any(
            one.raw[1:5] == of and key_of(one.raw) == key
            for waiting in (self._put_off, self._waiting)
            for one in waiting
        )

    def charge(self, submission: Submission, records: int) -> None:
        """Reduces the account's rate by the records that were executed and undone."""
        account = int.from_bytes(submission.raw[1:5], "big")
        if account in self._buckets:
            tokens, then = self._buckets[account]
            self._buckets[account] = (max(tokens - records * UNDONE_COST, -float(self.limits.burst)), then)

    def put_off(self, submissions: list[Submission]) -> list[Submission]:
        """Moves these to the next tick, and returns those whose account has used up its rate.

        They do not count as late: being left over by a tick is no sign that ticks are behind.
        """
        overdrawn = []
        for one in submissions:
            if self._buckets.get(int.from_bytes(one.raw[1:5], "big"), (0.0, 0))[0] < 0.0:
                overdrawn.append(one)
            else:
                self._put_off.append(one)
        self.refused += len(overdrawn)
        return overdrawn

    def take(self, most: int) -> list[Submission]:
        """The oldest submissions, at most `most`; of postponed ones no more than half while others wait."""
        waiting = self._waiting
        if not self._put_off and len(waiting) <= most:
            taken = list(waiting)
            waiting.clear()
            return taken
        again = min(len(self._put_off), max(most // 2, most - len(waiting)))
        taken = [self._put_off.popleft() for _ in range(again)]
        return taken + [waiting.popleft() for _ in range(min(most - again, len(waiting)))]


def _adds_risk(raw: bytes) -> bool:
    """Whether a record may be an order that opens a position; an AMEND at the same price mostly reduces one."""
    if len(raw) < 23 or raw[0] not in _ORDERS or raw[9] & c.FLAG_REDUCE_ONLY:
        return False
    return raw[0] != Kind.AMEND or raw[10:14] != raw[19:23]
