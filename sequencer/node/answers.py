"""Answers to gateways' queries, each held until the state that it shows is durable."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import msgspec

from sequencer import errors
from sequencer.api.ipc import Connection, Query
from sequencer.engine.views import QueryError, Views
from sequencer.history.queries import HistoryQueries
from sequencer.l1.deploy import Deployment
from sequencer.node.pace import Pace
from sequencer.node.settings import ServiceConfig
from sequencer.protocol.constants import U32_MAX
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.queue.driver import Driver
from sequencer.queue.outcomes import Outcomes
from sequencer.rollup.withdrawals import Withdrawals

HELD_BYTES_MAX = 64 * 1024 * 1024  # of waiting answers
HELD_BYTES_EACH = 1_024  # overhead of an answer


def system_info(
    at: Deployment | None,
    domain: bytes,
    chain_id: int = 0,
    contract: bytes = b"",
    receipt_key: bytes | None = None,
) -> dict[str, Any]:
    """Domain of signatures and addresses of the contracts; `chain_id` and `contract` apply without a deployment.

    `receipt_key`: address that signs receipts; `Sequencers.member_of_key` on L1 says whose it is.
    """
    return {
        "chain_id": at.chain_id if at else chain_id,
        "verifying_contract": at.rollup.lower() if at else "0x" + contract.hex(),
        "domain": "0x" + domain.hex(),
        "vault": at.vault if at else None,
        "token": at.token if at else None,
        "inbox": at.inbox if at else None,
        "receipts": at.receipts if at else None,
        "receipt_key": None if receipt_key is None else "0x" + receipt_key.hex(),
    }


@dataclass(frozen=True, slots=True)
class _PendingAnswer:
    """A query and its answer, which depends on `applied` ticks."""

    applied: int
    connection: Connection
    query: Query
    ok: bool
    body: bytes


class Answers:
    """Answers queries about the state, each once the ticks that it depends on are durable, so that no crash invalidates
    it.

    `held_bytes`: bytes of waiting answers, at most HELD_BYTES_MAX.
    """

    def __init__(
        self,
        config: ServiceConfig,
        domain: bytes,
        driver: Driver,
        views: Views,
        history: HistoryQueries,
        withdrawals: Withdrawals,
        outcomes: Outcomes,
        pace: Pace,
    ) -> None:
        self.history = history
        self.held_bytes = 0
        self._config = config
        self._domain = domain
        self._driver = driver
        self._views = views
        self._withdrawals = withdrawals
        self._outcomes = outcomes
        self._pace = pace
        self._held: deque[_PendingAnswer] = deque()

    def __len__(self) -> int:
        """Number of answers that wait for the log."""
        return len(self._held)

    def ask(self, connection: Connection, rid: int, method: str, params: dict[str, Any]) -> None:
        """Sends the answer, now or when it is durable."""
        if self.history.has(method):
            self._ask_history(connection, rid, method, params)
            return
        ok, body = self._answered(method, params)
        if self._driver.applied == self._driver.settled:
            connection.send_answer(rid, ok, body)
            return
        size = len(body) + HELD_BYTES_EACH
        if self.held_bytes + size > HELD_BYTES_MAX:
            busy = errors.error_body(
                errors.Code.QUEUE_FULL, "too many queries wait for the log; ask again later"
            )
            connection.send_answer(rid, False, busy)
            return
        self.held_bytes += size
        query = Query(rid, method, params)
        self._held.append(_PendingAnswer(self._driver.applied, connection, query, ok, body))

    def _ask_history(self, connection: Connection, rid: int, method: str, params: dict[str, Any]) -> None:
        """Answers are durable at once: the history holds only what is in the log."""
        try:
            self.history.ask(
                method, params, self._views, lambda ok, body: connection.send_answer(rid, ok, body)
            )
        except QueryError as error:
            connection.send_answer(rid, False, error.body())

    def _answered(self, method: str, params: dict[str, Any]) -> tuple[bool, bytes]:
        try:
            return True, msgspec.json.encode(self.answer(method, params))
        except QueryError as error:
            return False, error.body()

    def release(self) -> None:
        """Sends the answers that depend on durable ticks only."""
        held = self._held
        while held and held[0].applied <= self._driver.settled:
            one = held.popleft()
            self.held_bytes -= len(one.body) + HELD_BYTES_EACH
            one.connection.send_answer(one.query.rid, one.ok, one.body)

    def give_up(self) -> list[tuple[Connection, Query]]:
        """Drops the waiting answers and returns their queries: the state that they depend on is lost."""
        held, self._held, self.held_bytes = self._held, deque(), 0
        return [(one.connection, one.query) for one in held]

    # --- answers ----------------------------------------------------------------------------------

    def answer(self, method: str, params: dict[str, Any]) -> Any:
        """Answer to a query from the present state, durable or not. Raises QueryError."""
        if method == "system_info":
            key = self._config.receipt_key
            signs = None if key is None else address_of(public_key_of(key))
            return system_info(
                self._config.deployment, self._domain, *self._config.signed_under, receipt_key=signs
            )
        if method == "withdrawal":
            return self._withdrawal(params)
        if method == "outcome":
            return self._outcome(params)
        handler = self._views.methods.get(method)
        if handler is None:
            raise QueryError("method", "must be one of " + ", ".join(sorted(self._views.methods)), method)
        return handler(params)

    def _withdrawal(self, params: dict[str, Any]) -> dict[str, Any]:
        number = params.get("number")
        proof = self._withdrawals.proof(number) if isinstance(number, int) else None
        if proof is None:
            raise self._no_proof(number)
        return {**proof, "posted": proof["batch_id"] <= self._pace.last_posted}

    def _no_proof(self, number: object) -> QueryError:
        """Why a withdrawal has no proof, and when it will have one."""
        made = self._driver.engine.state.globals.withdrawals
        limit = f"that of a withdrawal in a stored batch: there are {made}"
        if not isinstance(number, int) or not 0 <= number < made:
            return QueryError("number", limit, number, "`fairstrike withdraw` prints it")
        wait_s = max(1.0, self._config.batch_interval_s)
        hint = f"it is in no batch yet: ask again in {wait_s:g} s"
        return QueryError("number", limit, number, hint, retry_after_s=wait_s)

    def _outcome(self, params: dict[str, Any]) -> dict[str, Any]:
        number, nonce = params.get("account"), params.get("nonce")
        accounts = self._driver.engine.state.accounts
        account = accounts.get(number) if isinstance(number, int) else None
        if account is None or not isinstance(number, int):
            highest = self._driver.engine.state.highest_account
            raise QueryError("account", f"must be an account's number; the highest is {highest}", number)
        if not isinstance(nonce, int) or not 0 <= nonce < U32_MAX:
            raise QueryError("nonce", f"must be an integer from 0 to {U32_MAX - 1}", nonce)
        return self._outcomes.find(account, number, nonce, self._driver.intake.holds)
