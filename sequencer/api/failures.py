"""Errors of the gateway's own: the sequencer is away, the outcome is unknown, a limit is reached."""

from sequencer.api.limits import Bucket
from sequencer.errors import Code
from sequencer.wire.fields import RequestError, request_error


def not_ready(why_no_leader: str = "") -> RequestError:
    """The sequencer is away, or there are only some that do not lead: nothing was accepted."""
    if why_no_leader:
        return RequestError(Code.NOT_LEADER, f"Not accepted: {why_no_leader}.")
    return RequestError(
        *(Code.NOT_READY, "the sequencer is away; nothing was accepted, try again later"), retry_after_s=1
    )


def unknown(why: str, **data: str | int) -> RequestError:
    """A record was forwarded, and no answer came. `data`: what is known of it all the same."""
    message = f"{why} after the record was forwarded: look at the account's nonces or orders before sending it again"
    error = RequestError(Code.OUTCOME_UNKNOWN, message)
    error.data |= data
    return error


def too_many(field: str, what: str, bucket: Bucket) -> RequestError:
    """An empty bucket, and when there is a token in it again."""
    wait_s = max(round(bucket.next_s, 4), 0.0001)
    limit = f"at most {bucket.rate:g} {what} a second, {2 * bucket.rate:g} at once"
    hint = f"nothing was accepted; try again in {wait_s:g} s"
    return request_error(Code.RATE_LIMITED, field, limit, "one more", hint, retry_after_s=wait_s)
