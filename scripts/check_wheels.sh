#!/usr/bin/env bash
# Builds the wheel and installs it, from wheels alone, into a fresh environment of each Python 3.11 to 3.13 that is here;
# there it starts the embedded chain and deploys the exchange. Says which Python is missing, and which package has no wheel.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

interpreter() {
    local candidate
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
        "$candidate" -c "import sys, venv, ensurepip; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" \
            >/dev/null 2>&1 && { echo "$candidate"; return; }
    done
    return 1
}

failed=
for version in 3.11 3.12 3.13; do
    python=$(interpreter "$version") || { echo "Python $version: not here"; continue; }
    "$python" -m venv "$scratch/$version"
    bin=$scratch/$version/bin
    "$bin/python" -m pip wheel --quiet --no-deps --wheel-dir "$scratch/$version" . &&
        "$bin/python" -m pip install --quiet --only-binary=:all: "$scratch/$version"/fairstrike-*.whl &&
        (cd "$scratch" && "$bin/fairstrike" --help >/dev/null && "$bin/python" - <<'PYTHON') &&
from sequencer.l1 import chains
from sequencer.l1.deploy import DeployConfig, deploy

with chains.start("pyevm") as chain:
    made = deploy(chain.rpc, chain.signer(0), DeployConfig(b"\x01" * 32, chain.signer(1).address, 3600, 3600))
    made.check(chain.rpc)
PYTHON
        echo "Python $version: installed from wheels, the exchange deploys" ||
        { echo "Python $version: failed"; failed=yes; }
done
[ -z "$failed" ]
