"""Compiles the contracts into sequencer/artifacts/, which ship in the wheel; `--check` compares instead of writing.

The compiler is consensus: its version, its pipeline and the EVM version are fixed here, and a difference between
sources and committed artifacts is an error. Writing leaves alone what was made from the present sources; `--check`
compiles everything.
Run: python scripts/compile_contracts.py [--check]
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONTRACTS = ROOT / "contracts"
ARTIFACTS = ROOT / "sequencer" / "artifacts"
SOURCES = {
    "Arbiter": "Arbiter.vy",
    "DataSourceBlob": "DataSourceBlob.vy",
    "DataSourceCalldata": "DataSourceCalldata.vy",
    "Exit": "Exit.vy",
    "Inbox": "Inbox.vy",
    "OrderText": "OrderText.vy",
    "Receipts": "Receipts.vy",
    "Rollup": "Rollup.vy",
    "Sequencers": "Sequencers.vy",
    "TestToken": "test/TestToken.vy",
    "Vault": "Vault.vy",
    "VerifierAccount": "VerifierAccount.vy",
    "VerifierAmend": "VerifierAmend.vy",
    "VerifierAuction": "VerifierAuction.vy",
    "VerifierForced": "VerifierForced.vy",
    "VerifierLedger": "VerifierLedger.vy",
    "VerifierRisk": "VerifierRisk.vy",
    "VerifierTrade": "VerifierTrade.vy",
    "VerifierWords": "VerifierWords.vy",
}
VYPER_VERSION = "0.4.3"
EVM_VERSION = "cancun"  # py-evm (Prague), anvil and hardhat all run it; the sources name it in a pragma
DEPLOYED_BYTES_MAX = 24_576  # EIP-170
INITCODE_BYTES_MAX = 49_152  # EIP-3860


def sources_of(main: Path) -> list[Path]:
    """`main` and every module of this repository that it imports, sorted."""
    found = {main}
    waiting = [main]
    while waiting:
        path = waiting.pop()
        for line in path.read_text().splitlines():
            words = line.split()
            if len(words) < 4 or words[0] != "from" or words[2] != "import":
                continue
            folder = path.parent if words[1] == "." else CONTRACTS / words[1].replace(".", "/")
            module = folder / f"{words[3]}.vy"
            if module.exists() and module not in found:
                found.add(module)
                waiting.append(module)
    return sorted(found)


def source_hash(main: Path) -> str:
    """sha256 over path and text of every source; tells an edited source from a compiled one without a compiler."""
    digest = hashlib.sha256()
    for path in sources_of(main):
        text = path.read_bytes()
        digest.update(f"{path.relative_to(CONTRACTS).as_posix()} {len(text)}\n".encode())
        digest.update(text)
    return digest.hexdigest()


def compile_contract(name: str) -> dict[str, Any]:
    """Artifact of one contract."""
    import vyper
    from vyper.compiler import CompilerData
    from vyper.compiler.input_bundle import FilesystemInputBundle
    from vyper.compiler.output import build_abi_output
    from vyper.compiler.settings import OptimizationLevel, Settings

    if vyper.__version__.split("+")[0] != VYPER_VERSION:
        raise SystemExit(f"compile_contracts: vyper {VYPER_VERSION} is consensus, not {vyper.__version__}")
    main = CONTRACTS / SOURCES[name]
    bundle = FilesystemInputBundle([CONTRACTS])
    settings = Settings(
        compiler_version=VYPER_VERSION,
        evm_version=EVM_VERSION,
        optimize=OptimizationLevel.GAS,
        experimental_codegen=False,
    )
    compiled = CompilerData(bundle.load_file(SOURCES[name]), input_bundle=bundle, settings=settings)
    deployed = compiled.bytecode_runtime
    if len(deployed) > DEPLOYED_BYTES_MAX or len(compiled.bytecode) > INITCODE_BYTES_MAX:
        raise SystemExit(f"compile_contracts: {name} is too large: {len(deployed)} bytes")
    return {
        "name": name,
        "source": main.relative_to(ROOT).as_posix(),
        "source_sha256": source_hash(main),
        "vyper_version": VYPER_VERSION,
        "evm_version": EVM_VERSION,
        "pipeline": "legacy",
        "optimize": "gas",
        "deployed_bytes": len(deployed),
        "abi": build_abi_output(compiled),
        "storage_layout": compiled.storage_layout,
        "bytecode": "0x" + compiled.bytecode.hex(),
    }


def is_current(name: str) -> bool:
    """Whether the committed artifact says that it was made from the present sources, by this compiler."""
    try:
        held = json.loads((ARTIFACTS / f"{name}.json").read_text())
    except (OSError, ValueError):
        return False
    made_by = (VYPER_VERSION, EVM_VERSION, source_hash(CONTRACTS / SOURCES[name]))
    return tuple(held.get(key) for key in ("vyper_version", "evm_version", "source_sha256")) == made_by


def main() -> int:
    """Writes or checks all artifacts; 1 when `--check` finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="compare with the committed artifacts, write nothing"
    )
    check = parser.parse_args().check
    stale = []
    for name in SOURCES:
        if not check and is_current(name):
            continue
        artifact = compile_contract(name)
        text = json.dumps(artifact, indent=1) + "\n"
        path = ARTIFACTS / f"{name}.json"
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(name)
        share = artifact["deployed_bytes"] / DEPLOYED_BYTES_MAX
        print(f"{name:<18} {artifact['deployed_bytes']:>6} bytes deployed ({share:.0%} of EIP-170)")
    if stale:
        print(f"compile_contracts: artifacts differ from sources: {', '.join(stale)}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
