"""`fairstrike fuzz`: both twins of the transition on the same records, from a checkout (the generator is test code)."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import click

from sequencer.cli.output import fail, people, show, write_json


def _fuzz() -> Any:
    """The generator's module. Raises ClickException where there is no checkout or no test extra."""
    path = Path(__file__).resolve().parents[2] / "tests" / "differential" / "fuzz.py"
    spec = importlib.util.spec_from_file_location("fairstrike_fuzz", path) if path.exists() else None
    if spec is None or spec.loader is None:
        raise fail(
            "fuzz needs a checkout of the project: its records are drawn by tests/differential/fuzz.py"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise fail(f"fuzz needs the test extra: {error}") from error
    return module


@click.command()
@click.option("--records", default=10_000, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--json", "json_target", help="write the result as one object to a file (- for standard output)"
)
def fuzz(records: int, seed: int, json_target: str | None) -> None:
    """Python against the verifiers' bytecode: valid, invalid and hostile records, and wrong witnesses."""
    module = _fuzz()
    people.print(f"comparing {records:,} records, seed {seed}, on {type(module.new_evm()).__name__} ...")
    found = module.fuzz(records, seed)
    result = {
        "records": found["records"],
        "seed": seed,
        "kinds": found["kinds"],
        "divergences": len(found["divergences"]),
        "python_ok_vyper_revert": len(found["python_ok_vyper_revert"]),
        "max_gas": max(found["max_gas"].values()),
        "max_calldata": max(found["max_calldata"].values()),
        "wrong_witnesses": found["attacks"],
        "wrong_witnesses_accepted": len(found["attacks_accepted"]),
        **{name: found[name] for name in module.SIZES},
        "gas_by_kind": found["max_gas"],
        "calldata_by_kind": found["max_calldata"],
        "outcomes": found["outcomes"],
        "cases": found["divergences"] + found["python_ok_vyper_revert"] + found["attacks_accepted"],
    }
    write_json(json_target, result)
    if json_target != "-":
        show("fuzz", {key: value for key, value in result.items() if not isinstance(value, dict | list)})
        show("records by kind", result["kinds"])
    if result["cases"]:
        raise fail(f"{len(result['cases'])} cases differ; the first: {result['cases'][0][:400]}")
