"""The faucet is for development chains; what it does there is in tests/e2e/test_cli_trader.py."""

import pytest
from click import ClickException

from sequencer.cli.faucet import check_devnet


@pytest.mark.parametrize("chain_id", [1, 10, 137, 8453, 42161, 11155111])
def test_chain_that_may_have_value__has_no_faucet(chain_id: int) -> None:
    with pytest.raises(ClickException, match=f"chain {chain_id} is not a development chain"):
        check_devnet(chain_id)


def test_development_chains__have_one() -> None:
    check_devnet(31_337)
    check_devnet(1_337)
