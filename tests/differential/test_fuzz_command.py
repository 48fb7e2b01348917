"""`fairstrike fuzz`: one object, nothing else on standard output."""

import json

from click.testing import CliRunner

from sequencer.cli import main


def test_fuzz__writes_one_object_and_finds_no_difference() -> None:
    done = CliRunner(mix_stderr=False).invoke(
        main, ["fuzz", "--records", "150", "--seed", "9", "--json", "-"]
    )
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["records"] >= 150
    assert sum(result["kinds"].values()) == result["records"]
    assert (
        result["divergences"] == result["python_ok_vyper_revert"] == result["wrong_witnesses_accepted"] == 0
    )
    assert 0 < result["max_gas"] < 8_000_000
    assert 0 < result["max_calldata"] < 110_000
