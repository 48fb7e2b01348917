"""One deployment a session, rolled back after every test. Actors are named by what they do."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boa
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from contract_support import ETHER, USD, Exchange, deploy_exchange

HOSTILE = Path(__file__).parent / "hostile"


@pytest.fixture(scope="session")
def sequencer() -> Any:
    return funded("sequencer")


@pytest.fixture(scope="session")
def trader() -> Any:
    return funded("trader")


@pytest.fixture(scope="session")
def other_trader() -> Any:
    return funded("other_trader")


@pytest.fixture(scope="session")
def stranger() -> Any:
    return funded("stranger")


def funded(role: str) -> Any:
    address = boa.env.generate_address(role)
    boa.env.set_balance(address, 1_000 * ETHER)
    return address


@pytest.fixture(scope="session")
def pristine(sequencer: Any, trader: Any, other_trader: Any) -> Exchange:
    exchange = deploy_exchange(sequencer)
    for owner in (trader, other_trader):
        exchange.token.mint(owner, 10**6 * USD)
        exchange.token.approve(exchange.vault.address, 10**6 * USD, sender=owner)
    return exchange


@pytest.fixture
def exchange(pristine: Exchange) -> Iterator[Exchange]:
    with boa.env.anchor():
        yield pristine


@pytest.fixture(scope="session")
def hostile() -> Any:
    """Loads a small contract of hostile/, compiled once a session."""
    compiled: dict[str, Any] = {}

    def load(name: str) -> Any:
        if name not in compiled:
            compiled[name] = boa.load_partial(str(HOSTILE / f"{name}.vy"))
        return compiled[name].deploy()

    return load
