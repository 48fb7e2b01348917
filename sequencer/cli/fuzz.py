"""`fairstrike fuzz`: both twins on the same records, or coalitions against the market's rules.

It runs from a checkout: the generators are test code.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

import click

from sequencer.cli.output import fail, people, show, write_json
from sequencer.wire.option_types import SEED


def _module(name: str) -> Any:
    """A generator's module. Raises ClickException where there is no checkout or no test extra."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "tests" / "differential" / "fuzz.py").exists():
        raise fail("fuzz needs a checkout of the project: code in tests/ generates its records")
    sys.path.insert(0, str(root))
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise fail(f"fuzz needs the test extra: {error}") from error
    finally:
        sys.path.remove(str(root))


@click.command()
@click.option(
    "--records",
    default=10_000,
    show_default=True,
    type=click.IntRange(1),
    help="number of records to compare",
)
@click.option("--economy", is_flag=True, help="test the market's rules against coalitions, in Python alone")
@click.option("--steps", default=200_000, show_default=True, type=click.IntRange(1), help="with --economy")
@click.option(
    "--episode", type=click.IntRange(0), help="with --economy: replay this episode of the seed only"
)
@click.option("--seed", type=SEED, default=1, show_default=True)
@click.option(
    "--json", "json_target", help="write the result as one object to a file (- for standard output)"
)
def fuzz(
    records: int, economy: bool, steps: int, episode: int | None, seed: int, json_target: str | None
) -> None:
    """Compare Python with the verifiers' bytecode: valid, invalid and hostile records, and wrong witnesses.

    With --economy: accounts of one owner, lying feeds and an omitting sequencer play against honest parties.
    """
    if economy:
        _economy(steps, seed, episode, json_target)
    else:
        _twins(records, seed, json_target)


def _economy(steps: int, seed: int, episode: int | None, json_target: str | None) -> None:
    module = _module("tests.economy.episodes")
    result = module.fuzz(steps, seed) if episode is None else module.replay(seed, episode)
    write_json(json_target, result)
    violations = result["violations"]
    if json_target != "-":
        show("economy fuzz", {**result, "violations": len(violations)})
        for one in violations[:10]:
            people.print(f"{one['invariant']}: {one['what']} (seed {seed}, episode {one['episode']})")
    if violations:
        raise fail(f"{len(violations)} violations; the first: {violations[0]['what'][:400]}")


def _twins(records: int, seed: int, json_target: str | None) -> None:
    module = _module("tests.differential.fuzz")
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
