"""Refusals for accounts, signatures, nonces and expiry of records, and for feeds' reports."""

from typing import Final

from sequencer.amounts import address, usd
from sequencer.genesis import UNDERLYINGS
from sequencer.protocol import constants as c
from sequencer.protocol import surface
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.entries import Account
from sequencer.protocol.state import expiry_time
from sequencer.protocol.surface import Surface
from sequencer.refusals.case import Case, Explainer, Explanation, moment

SCOPES: Final = ("none", "trade", "withdraw", "both")


def _unknown_account(case: Case) -> Explanation:
    values, name = case.values, "account"
    if values["account"] in case.state.accounts:
        name = "to" if case.kind == Kind.TRANSFER else "target"
        if values[name] == values["account"]:
            text = f"{name}: must be another account than the one that signs, got {values[name]} itself."
            return Explanation(text, name, "another account", values[name])
    number, last = values[name], case.state.highest_account
    text = (
        f"No account {number} yet: deposit first. An owner's first deposit on L1 opens one, after its confirmations"
        " (`fairstrike deposit AMOUNT`; on a development chain `fairstrike faucet`)."
    )
    return Explanation(text, name, f"the number of an account; the highest is {last}", number)


def _bad_signature(case: Case) -> Explanation:
    account = case.account
    limit = f"by the owner {address(account.owner)}"
    if account.signers:
        limit += " or a session key: " + ", ".join(address(one) for one, _, _ in account.signers)
    got = address(case.signer) if case.signer else None
    text = (
        f"The signer is neither the owner of account {case.values['account']} nor one of its session keys: the record"
        f" must be signed {limit}, got {got}. Check the key, the chain id and the verifying contract that were signed."
    )
    return Explanation(text, "signature", limit, got)


def _session(case: Case) -> tuple[bytes, int, int]:
    """The session key that signed: address, scope, expiry."""
    return next(one for one in case.account.signers if one[0] == case.signer)


def _signer_expired(case: Case) -> Explanation:
    key, _, until = _session(case)
    text = (
        f"The session key {address(key)} has expired at {moment(until)}; the exchange's time is {moment(case.time)}."
        " The owner can renew it with set_signer."
    )
    limit = f"by a session key valid after {case.time}"
    return Explanation(text, "signature", limit, address(key), more={"expires": until, "time": case.time})


def _scope(case: Case) -> Explanation:
    values, owner = case.values, case.account.owner
    if case.kind == Kind.SET_SIGNER and case.signer == owner:
        if values["signer"] == owner:
            limit = "another key than the owner's, which may sign everything"
            return Explanation(f"signer: must be {limit}, got the owner's.", "signer", limit, address(owner))
        limit = "0 none, 1 trade, 2 withdraw or 3 both"
        return Explanation(f"scope: must be {limit}, got {values['scope']}.", "scope", limit, values["scope"])
    key, granted, _ = _session(case)
    limit = f"by a key with scope {'withdraw' if case.kind == Kind.WITHDRAW else 'trade'}"
    if case.kind in (Kind.SET_SIGNER, Kind.TRANSFER):
        limit = "by the owner's key"
    got = SCOPES[granted & 3]
    text = (
        f"The session key may not sign this: a {case.kind.name} must be signed {limit}, and {address(key)} has scope"
        f" {got}. The owner can sign it, or change the key's scope with set_signer."
    )
    return Explanation(text, "signature", limit, got)


def _expired(case: Case) -> Explanation:
    expires = case.values["expires"]
    text = (
        f"The record's `expires` has passed: it is {moment(expires)}, the exchange's time is {moment(case.time)}."
        " Sign it again with a later one, or 0 for none."
    )
    return Explanation(
        text, "expires", f"0 for none, or above {case.time}", expires, more={"time": case.time}
    )


def _window(account: Account) -> str:
    floor = account.nonce_floor
    return f"from {floor} to {floor + c.NONCE_WINDOW - 1}, each once"


def _next_nonce(account: Account) -> int:
    free = (bit for bit in range(c.NONCE_WINDOW) if not account.nonce_bitmap >> bit & 1)
    return account.nonce_floor + next(free, c.NONCE_WINDOW)


def _nonce_used(case: Case) -> Explanation:
    nonce, free = case.values["nonce"], _next_nonce(case.account)
    text = f"This nonce has been used: {nonce}. Every record needs a new one; the lowest free one is {free}."
    return Explanation(text, "nonce", _window(case.account), nonce, more={"next": free})


def _nonce_window(case: Case) -> Explanation:
    values, account = case.values, case.account
    floor, nonce = account.nonce_floor, values["nonce"]
    if floor <= nonce < floor + c.NONCE_WINDOW and "nonce_floor" in values:
        limit = f"at most {c.NONCE_WINDOW} above the present floor, {floor + c.NONCE_WINDOW}"
        text = f"nonce_floor: must be {limit}, got {values['nonce_floor']}."
        return Explanation(text, "nonce_floor", limit, values["nonce_floor"])
    free = _next_nonce(account)
    text = (
        f"The nonce is used (below the account's floor), or {c.NONCE_WINDOW} or more above the floor: it must be"
        f" {_window(account)}, got {nonce}; the lowest free one is {free}."
    )
    return Explanation(text, "nonce", _window(account), nonce, more={"next": free})


def _signers_full(case: Case) -> Explanation:
    held = [address(one) for one, _, _ in case.account.signers]
    text = (
        f"The account has {len(held)} session keys already, {c.SIGNERS_MAX} at most: {', '.join(held)}. Remove one"
        " first (set_signer with scope 0)."
    )
    limit = f"one of the account's {c.SIGNERS_MAX} keys, or scope 0"
    return Explanation(text, "signer", limit, address(case.values["signer"]))


# --- feeds ------------------------------------------------------------------------------------


def _unknown_feed(case: Case) -> Explanation:
    values, keys = case.values, case.state.params.feed_keys
    signer = address(case.signer) if case.signer else None
    number, feed = values["underlying"], values["feed"]
    if number not in case.state.underlyings:
        limit = f"from 0 to {len(UNDERLYINGS) - 1} ({', '.join(UNDERLYINGS)})"
        return Explanation(f"underlying: must be {limit}, got {number}.", "underlying", limit, number)
    if feed >= len(keys):
        limit = f"from 0 to {len(keys) - 1}"
        text = f"The report is not signed by a feed of this exchange: feed must be {limit}, got {feed}."
        return Explanation(text, "feed", limit, feed)
    limit = f"by feed {feed}, {address(keys[feed])}"
    text = (
        f"The report is not signed by a feed of this exchange: it must be signed {limit}, got {signer}. The feeds' keys"
        " are in the parameters of the deployment."
    )
    return Explanation(text, "signature", limit, signer)


def _feed_time(case: Case) -> Explanation:
    values, state = case.values, case.state
    time, source = values["time"], values["feed"]
    if case.kind == Kind.FEED:
        last = state.underlyings[values["underlying"]].reports[source][1]
    else:
        before = state.expiries[values["underlying"] << 16 | values["day"]].reports[source]
        last = before.time if before is not None else 0
        ends = expiry_time(values["day"])
        if time >= ends:
            text = f"The expiry is over: a surface's time must be below {moment(ends)}, got {moment(time)}."
            return Explanation(text, "time", f"below {ends}", time)
    text = (
        "The report is not newer than the feed's last one, or is ahead of the exchange's time: its time must be"
        f" above {moment(last)} and at most {moment(case.time)}, got {moment(time)}."
    )
    return Explanation(text, "time", f"above {last}, at most {case.time}", time)


def _surface(case: Case) -> Explanation:
    values, params = case.values, case.state.params
    for name in ("forward", "index", "time"):
        if not values[name]:
            return Explanation(f"{name}: must be above 0, got 0.", name, "above 0", 0)
    shape = Surface(*(values[name] for name in ("a", "b", "rho", "m", "sigma")))
    got = {name: values[name] for name in ("a", "b", "rho", "m", "sigma")}
    if not surface.is_valid(shape):
        text = f"The surface's parameters are out of range (docs/RISK.md): got {got}, in 1e-12."
        return Explanation(text, "surface", "parameters within their ranges", got)
    if not surface.is_sound(shape):
        text = f"The surface has static arbitrage (docs/RISK.md): got {got}, in 1e-12."
        return Explanation(text, "surface", "free of static arbitrage", got)
    limit = f"within {params.forward_range_ppm / 10_000:g} % of the index {usd(values['index'])}"
    forward = usd(values["forward"])
    return Explanation(f"forward: must be {limit} USD, got {forward} USD.", "forward", limit, forward)


EXPLAINERS: Final[dict[Reason, Explainer]] = {
    Reason.UNKNOWN_ACCOUNT: _unknown_account,
    Reason.BAD_SIGNATURE: _bad_signature,
    Reason.SIGNER_EXPIRED: _signer_expired,
    Reason.SCOPE: _scope,
    Reason.EXPIRED: _expired,
    Reason.NONCE_USED: _nonce_used,
    Reason.NONCE_WINDOW: _nonce_window,
    Reason.SIGNERS_FULL: _signers_full,
    Reason.UNKNOWN_FEED: _unknown_feed,
    Reason.FEED_TIME: _feed_time,
    Reason.SURFACE: _surface,
}
