"""History queries: authenticated by a signature, answered off the event loop."""

import asyncio
import logging
import sqlite3
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from sequencer import errors
from sequencer.engine.views import QueryError, Views
from sequencer.history.history import METHODS, History
from sequencer.history.store import HistoryDamaged
from sequencer.protocol.hashing import recover
from sequencer.protocol.state import State
from sequencer.wire import access

ASKED_MAX: Final = 256  # that wait
SIGNERS_KEPT: Final = 1_024

logger = logging.getLogger(__name__)

Send = Callable[[bool, bytes], object]
"""Where an answer goes: ok, JSON of the result or of the error object."""


class HistoryQueries:
    """The methods of the history, on one loop."""

    def __init__(self, history: History, domain: bytes) -> None:
        self._history = history
        self._domain = domain
        self._asked: set[asyncio.Task[None]] = set()
        self._signers: OrderedDict[tuple[int, int, bytes], bytes | None] = OrderedDict()

    @staticmethod
    def has(method: str) -> bool:
        """Whether it is a method of the history."""
        return method in METHODS

    def ask(self, method: str, params: dict[str, Any], views: Views, send: Send) -> None:
        """Answers a query. Raises QueryError for a wrong one."""
        if len(self._asked) >= ASKED_MAX:
            body = errors.error_body(
                errors.Code.QUEUE_FULL,
                "too many queries for the history wait; ask again later",
                field="history",
                limit=f"at most {ASKED_MAX} queries that wait",
                got=len(self._asked) + 1,
            )
            send(False, body)
            return
        asked = dict(params)
        if "instrument" in asked:
            asked["instrument"] = views.find(asked)
        number, may_read = readers(views.state, params)
        names = partial(_name, views)
        task = asyncio.get_running_loop().create_task(
            self._answer(method, number, may_read, asked, names, send)
        )
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _answer(
        self,
        method: str,
        account: int,
        may_read: frozenset[bytes],
        params: dict[str, Any],
        names: Callable[[int], str],
        send: Send,
    ) -> None:
        def work() -> tuple[bool, bytes]:
            if self._signer(account, params["access_expires"], params["signature"]) not in may_read:
                return False, _denied(account)
            return True, self._history.answer(method, params, names)

        try:
            ok, body = await self._history.run(work)
        except (sqlite3.Error, HistoryDamaged) as error:
            ok, body = False, errors.error_body(errors.Code.NOT_READY, f"the history cannot be read: {error}")
        except RuntimeError as error:  # it is being closed
            ok, body = False, errors.error_body(errors.Code.NOT_READY, f"the history is closed: {error}")
        except Exception:  # one query's bug must not leave its client without an answer
            logger.exception("query %s failed", method)
            ok, body = (
                False,
                errors.error_body(errors.Code.INTERNAL, f"{method}: the sequencer failed to answer"),
            )
        send(ok, body)

    def _signer(self, account: int, expires: int, signature: bytes) -> bytes | None:
        """Address of the signer, recovered on the history's thread."""
        key = (account, expires, signature)
        known = self._signers
        if key not in known:
            known[key] = recover(access.digest(self._domain, account, expires), signature)
            if len(known) > SIGNERS_KEPT:
                known.popitem(last=False)
        return known[key]


def readers(state: State, params: dict[str, Any]) -> tuple[int, frozenset[bytes]]:
    """The account, and the addresses that may read its history now. Raises QueryError."""
    number: object = params.get("account")
    account = state.accounts.get(number) if isinstance(number, int) else None
    if account is None or not isinstance(number, int):
        raise QueryError("account", "an account's number", number)
    now, expires = state.globals.time, params.get("access_expires")
    if not isinstance(expires, int) or not now < expires <= now + access.LASTS_MAX_S:
        limit = f"ahead of the exchange's time, {now}, by at most {access.LASTS_MAX_S} s"
        raise QueryError("access_expires", limit, expires)
    if not isinstance(params.get("signature"), bytes):
        raise QueryError("signature", "the 64 bytes of a signature", None)
    keys = (key for key, _, until in account.signers if until > now)
    return number, frozenset((account.owner, *keys))


def _denied(account: int) -> bytes:
    return errors.error_body(
        errors.Code.ACCESS_DENIED,
        f"signature: the history of account {account} is for its owner and its session keys: sign "
        f"{access.PRIMARY_TYPE} (typed_data, method history_access) with one of their keys",
        field="signature",
        limit=f"by the owner of account {account} or one of its session keys",
        got="another key's",
    )


def _name(views: Views, instrument: int) -> str:
    """The instrument's name; its number where a roll-back has removed the listing."""
    try:
        return views.name(instrument)
    except (KeyError, IndexError):
        return str(instrument)
