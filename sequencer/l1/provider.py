"""web3.py's provider of a node, and its middleware: what comes through is an answer to what was asked, or a refusal.

web3.py's own HTTPProvider has no deadline for a whole answer and no bound on its size, takes an answer with another
request's id, drops what is missing in a batch, and costs 1.6 ms of CPU a request (docs/DECISIONS.md). Here requests go
out by `post`, which `Rpc` has; ids and envelopes are checked by the provider, results by `CheckedAnswers`, and
`HalvedBatches` asks in smaller parts what a node refuses as one.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from web3 import Web3
from web3.middleware import Web3Middleware
from web3.providers import JSONBaseProvider
from web3.types import MakeBatchRequestFn, MakeRequestFn, RPCEndpoint, RPCResponse

from sequencer.l1 import answers
from sequencer.l1.errors import RpcUnavailable
from sequencer.l1.limits import BATCH_MAX, Limit
from sequencer.l1.refusals import is_rate, refusal

Requests = list[tuple[RPCEndpoint, Any]]
MISSING: Final = {"code": -32603, "message": "no answer in the batch"}


class Provider(JSONBaseProvider):
    """`post` sends a request, which it may do twice, and gives the decoded answer, or raises RpcUnavailable;
    `unavailable` makes one.
    """

    def __init__(self, post: Callable[[Any], Any], unavailable: Callable[[str], RpcUnavailable]) -> None:
        super().__init__()
        self._post = post
        self.unavailable = unavailable
        self.batch_limit = Limit(BATCH_MAX)
        self._ids = itertools.count(1)  # never again: a late answer is not taken for another's

    def ask(self, web3: Web3, method: str, params: Any) -> RPCResponse:
        """`make_request` through the middleware."""
        return self.request_func(web3, web3.middleware_onion)(RPCEndpoint(method), params)

    def ask_all(self, web3: Web3, calls: Sequence[tuple[str, Any]]) -> list[RPCResponse]:
        """`make_batch_request` through the middleware."""
        found = self.batch_request_func(web3, web3.middleware_onion)(
            [(RPCEndpoint(method), params) for method, params in calls]
        )
        assert isinstance(found, list)  # HalvedBatches
        return found

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """A response with a result or an error. Raises RpcUnavailable."""
        request = self._request(method, params)
        return self._response(method, self._post(request), request["id"])

    def make_batch_request(self, requests: Requests) -> list[RPCResponse] | RPCResponse:
        """Responses in order, MISSING where there is none; or one error for all, of whom takes no batches, or none so
        large. Raises RpcUnavailable.
        """
        asked = [self._request(method, params) for method, params in requests]
        found = self._post(asked)
        if not isinstance(found, list):
            return self._response("a batch", found | {"id": None} if isinstance(found, dict) else found, 0)
        by_id = {one.get("id"): one for one in found if isinstance(one, dict)}
        return [
            self._response(one["method"], by_id.get(one["id"], {"error": MISSING}), one["id"])
            for one in asked
        ]

    def _request(self, method: str, params: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}

    def _response(self, method: str, answer: Any, number: int) -> RPCResponse:
        """A response as JSON-RPC says it, of this request."""
        if not isinstance(answer, dict):
            raise self.unavailable(f"{method}: not JSON-RPC: {answer!r:.80}")
        error, named = answer.get("error"), answer.get("id")
        if error is not None:
            if not isinstance(error, dict) or not isinstance(error.get("message"), str):
                raise self.unavailable(f"{method}: {error!r:.200}")
            refused = refusal(method, error)
            if named not in (number, None) or is_rate(refused):
                raise self.unavailable(f"{method}: {refused.message} ({refused.code})")
            told = {**error, "code": refused.code}
            return {"jsonrpc": "2.0", "id": number, "error": told}  # type: ignore[typeddict-item]  # a node's own
        if type(named) is not int or named != number:
            raise self.unavailable(f"{method}: an answer to another request: id {named!r:.40}, not {number}")
        if "result" not in answer:
            raise self.unavailable(f"{method}: neither result nor error: {answer!r:.80}")
        return {"jsonrpc": "2.0", "id": number, "result": answer["result"]}


class _Middleware(Web3Middleware):
    """Of a Web3 over a `Provider`."""

    @property
    def provider(self) -> Provider:
        """Its."""
        return cast(Provider, self._w3.provider)


class CheckedAnswers(_Middleware):
    """Results are as their method's must be (`answers.checked`), or it is as if there were no answer."""

    def wrap_make_request(self, make_request: MakeRequestFn) -> MakeRequestFn:
        """Of one request."""

        def ask(method: RPCEndpoint, params: Any) -> RPCResponse:
            return self._checked(method, params, make_request(method, params))

        return ask

    def wrap_make_batch_request(self, make_batch_request: MakeBatchRequestFn) -> MakeBatchRequestFn:
        """Of each in a batch."""

        def ask(requests: Requests) -> list[RPCResponse] | RPCResponse:
            found = make_batch_request(requests)
            if not isinstance(found, list):
                return found
            return [self._checked(*asked, one) for asked, one in zip(requests, found, strict=True)]

        return ask

    def _checked(self, method: str, params: Any, response: RPCResponse) -> RPCResponse:
        if "result" in response:
            try:
                answers.checked(method, params, response["result"])
            except answers.Malformed as error:
                raise self.provider.unavailable(f"{method}: not what was asked: {error}") from None
        return response


class HalvedBatches(_Middleware):
    """Batches in parts that the node takes: one that it refuses, or answers in part, is asked in halves."""

    def wrap_make_batch_request(self, make_batch_request: MakeBatchRequestFn) -> MakeBatchRequestFn:
        """All responses, in order."""

        def ask(requests: Requests) -> list[RPCResponse]:
            limit, responses = self.provider.batch_limit, list[RPCResponse]()
            while len(responses) < len(requests):
                part = requests[len(responses) : len(responses) + limit.now]
                found = self._ask(make_batch_request, part)
                if found is not None:
                    limit.took()
                    responses += found
            return responses

        return ask

    def _ask(self, make_batch_request: MakeBatchRequestFn, part: Requests) -> list[RPCResponse] | None:
        """Responses of a part, None when it is to be asked for again, in smaller ones. Raises RpcUnavailable."""
        limit = self.provider.batch_limit
        if len(part) == 1 and limit.now == 1:  # a node that takes no batches
            return [self.provider.ask(cast(Web3, self._w3), *part[0])]
        try:
            found = make_batch_request(part)
        except RpcUnavailable as error:
            if error.too_large and limit.halve(len(part)):
                return None
            raise
        if not isinstance(found, list):
            if limit.halve(len(part)):
                return None
            raise self.provider.unavailable(f"a batch: {refusal('a batch', cast(Any, found['error']))}")
        is_short = any(one.get("error", {}).get("message") == MISSING["message"] for one in found)
        return None if is_short and limit.halve(len(part)) else found
