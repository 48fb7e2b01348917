"""JSON-RPC 2.0 documents: from bytes to id, method and params, or to a `RequestError` that names what is wrong."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from sequencer.errors import SHOWN_CHARACTERS_MAX, Code
from sequencer.wire.fields import RequestError, invalid, request_error

BATCH_MAX: Final = 100
ID_CHARACTERS_MAX: Final = 64
ID_INTEGER_MAX: Final = 2**63 - 1
_ID_LIMIT: Final = f"a 64-bit integer or a string of at most {ID_CHARACTERS_MAX} characters"
BRACKETS_MAX: Final = 1_000  # of a document: bounds its depth


class Request(msgspec.Struct, gc=False):
    """One request object. `params` stays undecoded until the method is known."""

    method: str
    id: int | str | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw = msgspec.Raw(b"{}")
    jsonrpc: str = "2.0"


_request_decoder: Final = msgspec.json.Decoder(Request)
_batch_decoder: Final = msgspec.json.Decoder(list[msgspec.Raw])
_any_decoder: Final = msgspec.json.Decoder()
_encoder: Final = msgspec.json.Encoder()
DECODE_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _check_depth(data: bytes) -> None:
    """Refuses deeply nested documents: the decoder recurses, and libraries raise Python's recursion limit."""
    if data.count(b"[") + data.count(b"{") > BRACKETS_MAX:
        limit = f"JSON with at most {BRACKETS_MAX} opening brackets"
        got = data.count(b"[") + data.count(b"{")
        raise request_error(Code.PARSE, "document", limit, got, "not JSON of this API")


def _no_json(data: bytes, error: Exception) -> RequestError:
    got = data[: SHOWN_CHARACTERS_MAX + 1].decode(errors="replace")
    return request_error(Code.PARSE, "document", "JSON in UTF-8", got, f"not JSON: {error}")


def parse_batch(data: bytes) -> list[bytes]:
    """The request objects of a batch array, undecoded."""
    _check_depth(data)
    try:
        items = _batch_decoder.decode(data)
    except DECODE_ERRORS as error:
        raise _no_json(data, error) from None
    if not 0 < len(items) <= BATCH_MAX:
        limit = f"at least one request, at most {BATCH_MAX} requests"
        raise request_error(Code.INVALID_REQUEST, "batch", limit, len(items))
    return [bytes(item) for item in items]


def parse_request(data: bytes) -> tuple[bytes, str, msgspec.Raw]:
    """(id as JSON, method, params) of one request object."""
    _check_depth(data)
    try:
        request = _request_decoder.decode(data)
    except DECODE_ERRORS:
        raise _why_no_request(data) from None
    number = request.id
    if type(number) is int:
        if not -ID_INTEGER_MAX <= number <= ID_INTEGER_MAX:
            raise _bad_id(number)
        id_json = b"%d" % number
    elif type(number) is str:
        if len(number) > ID_CHARACTERS_MAX:
            raise _bad_id(number)
        id_json = _encoder.encode(number)
    else:
        hint = "an id is required: every request is answered, notifications are not accepted"
        raise request_error(Code.INVALID_REQUEST, "id", _ID_LIMIT, None, hint)
    if request.jsonrpc != "2.0":
        raise request_error(Code.INVALID_REQUEST, "jsonrpc", '"2.0"', request.jsonrpc, id_json=id_json)
    return id_json, request.method, request.params


def _bad_id(got: object) -> RequestError:
    return request_error(Code.INVALID_REQUEST, "id", _ID_LIMIT, got)


def _why_no_request(data: bytes) -> RequestError:
    """The error for a document that is not a request object: not JSON at all, or which member is wrong."""
    try:
        document = _any_decoder.decode(data)
    except DECODE_ERRORS as error:
        return _no_json(data, error)
    if not isinstance(document, dict):
        hint = "a request must be a JSON object (or an array of them)"
        return request_error(Code.INVALID_REQUEST, "request", "a JSON object", document, hint)
    number = document.get("id")
    if "id" in document and (isinstance(number, bool) or not isinstance(number, int | str)):
        return _bad_id(number)
    id_json = _encoder.encode(number)
    if len(id_json) > 2 * ID_CHARACTERS_MAX:
        return _bad_id(number)
    for member in ("method", "jsonrpc"):
        if not isinstance(document.get(member, "" if member == "jsonrpc" else None), str):
            got = document.get(member)
            return request_error(Code.INVALID_REQUEST, member, "a string", got, id_json=id_json)
    limit = "an object with id, method, params and jsonrpc"
    return request_error(Code.INVALID_REQUEST, "request", limit, document, id_json=id_json)


def parse_params(raw: msgspec.Raw) -> dict[str, Any]:
    """Params by name."""
    try:
        params = _any_decoder.decode(raw)
    except DECODE_ERRORS as error:
        raise _no_json(bytes(raw), error) from None
    if not isinstance(params, dict):
        raise invalid("params", "an object: parameters are passed by name", params)
    return params
