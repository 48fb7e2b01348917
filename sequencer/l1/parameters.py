"""Parameters of a deployment as JSON: they travel in its file, and the genesis root on L1 says whether they are right.

An object of Params' fields, all of them optional: integers, `feed_keys` as a list of addresses in hex, and
`underlyings` as an object by name: {"BTC": {"price_range_ppm": 150000, ...}, "ETH": {...}}.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Protocol

import msgspec

from sequencer.development import devnet_params
from sequencer.genesis import UNDERLYINGS, genesis_root
from sequencer.l1.errors import DeploymentError
from sequencer.l1.rpc import to_bytes, to_hex
from sequencer.protocol.params import INTEGER_FIELDS, UNDERLYING_FIELDS, Params, UnderlyingParams


class Deployed(Protocol):
    """What a deployment's file says of its parameters: `Deployment` of l1/deploy.py has it."""

    @property
    def params(self) -> Mapping[str, Any] | None:
        """An object of them, if they are there."""

    @property
    def genesis_root(self) -> str:
        """The root that they must give."""


def to_object(params: Params) -> dict[str, Any]:
    """Every field."""
    numbers = {name: getattr(params, name) for name in INTEGER_FIELDS}
    return {
        "feed_keys": [to_hex(key) for key in params.feed_keys],
        **numbers,
        "underlyings": {name: asdict(one) for name, one in zip(UNDERLYINGS, params.underlyings, strict=True)},
    }


def from_object(given: Mapping[str, Any], default: Params | None = None) -> Params:
    """Inverse of `to_object`; fields left out are `default`'s. Raises ValueError naming the field and its limit."""
    unknown = set(given) - {field.name for field in fields(Params)}
    if unknown:
        raise ValueError(f"no parameter is called {', '.join(sorted(unknown))}")
    default = default or Params()
    numbers = {name: _integer(name, given.get(name, getattr(default, name))) for name in INTEGER_FIELDS}
    underlyings = _underlyings(given.get("underlyings", {}), default.underlyings)
    addresses = given.get("feed_keys")
    if addresses is None:
        return Params(feed_keys=default.feed_keys, underlyings=underlyings, **numbers)
    if not isinstance(addresses, list) or not all(isinstance(one, str) for one in addresses):
        raise ValueError("feed_keys must be a list of addresses")
    return Params(feed_keys=tuple(map(to_bytes, addresses)), underlyings=underlyings, **numbers)


def _underlyings(given: object, default: tuple[UnderlyingParams, ...]) -> tuple[UnderlyingParams, ...]:
    """What `given` says of each underlying; the rest is `default`'s."""
    if not isinstance(given, Mapping) or set(given) - set(UNDERLYINGS):
        raise ValueError(f"underlyings must be an object with no names but {', '.join(UNDERLYINGS)}")
    out = []
    for name, one in zip(UNDERLYINGS, default, strict=True):
        own = given.get(name, {})
        if not isinstance(own, Mapping) or set(own) - set(UNDERLYING_FIELDS):
            raise ValueError(
                f"underlyings.{name} must be an object with no fields but {', '.join(UNDERLYING_FIELDS)}"
            )
        out.append(
            UnderlyingParams(
                *(
                    _integer(f"underlyings.{name}.{field}", own.get(field, getattr(one, field)))
                    for field in UNDERLYING_FIELDS
                )
            )
        )
    return tuple(out)


def _integer(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} must be an integer")
    return value


def read(path: Path, default: Params | None = None) -> Params:
    """The parameters of a file. Raises ValueError naming the file and what is wrong in it."""
    try:
        return from_object(msgspec.json.decode(path.read_bytes(), type=dict[str, Any]), default)
    except OSError as error:
        raise ValueError(f"--params {path}: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise ValueError(f"--params {path}: {error}") from None


def of_deployment(at: Deployed, path: Path | None = None, default: Params | None = None) -> Params:
    """The parameters that `path` gives, else the deployment's file, else the development ones.

    `default`: what a file at `path` leaves out. Raises ValueError when they cannot be read; DeploymentError naming both
    genesis roots when the deployment's is not theirs (`Deployment.check` compares that with L1).
    """
    if path is not None:
        params, whose = read(path, default), f"--params {path}: their"
    elif at.params is not None:
        try:
            params, whose = from_object(at.params), "the deployment file's parameters: their"
        except ValueError as error:
            raise ValueError(f"the deployment file's parameters: {error}") from None
    else:
        params = devnet_params()
        whose = "the deployment file has no parameters and --params is not given: the development parameters'"
    root = to_hex(genesis_root(params))
    if root != at.genesis_root:
        raise DeploymentError(f"{whose} genesis root is {root}, the deployment's {at.genesis_root}")
    return params
