#!/usr/bin/env bash
# Builds the wheel and installs it, from wheels alone, into a fresh environment of each Python 3.11 to 3.13 that is here;
# there it runs the demo on the embedded chain. Says which Python is missing, which package has no wheel,
# and whether the transition is compiled in it; for the first Python also with a wheel built where no compiler works.
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

# check VERSION PYTHON CC: the wheel that `CC` builds, in an environment of its own.
check() {
    local home=$scratch/$1-${3##*/} bin status
    "$2" -m venv "$home"
    bin=$home/bin
    rm -rf build/lib.*
    CC=$3 "$bin/python" -m pip wheel --quiet --no-deps --wheel-dir "$home" . &&
        "$bin/python" -m pip install --quiet --only-binary=:all: "$home"/fairstrike-*.whl &&
        (cd "$scratch" && "$bin/fairstrike" demo --chain pyevm --json "$home/demo.json" >/dev/null) &&
        status=$(cd "$scratch" && "$bin/python" -m sequencer._compiled) ||
        { echo "Python $1: failed"; failed=yes; return; }
    echo "Python $1: installed from wheels, the demo holds; $status"
    if [ "$3" != false ] && [ "$status" != "transition: compiled" ]; then failed=yes; fi
}

failed=
without=yes # still to be checked
compiler=$(command -v cc || command -v gcc || echo false)
for version in 3.11 3.12 3.13; do
    python=$(interpreter "$version") || { echo "Python $version: not here"; continue; }
    check "$version" "$python" "$compiler"
    [ -n "$without" ] && check "$version" "$python" false && without=
done
[ -z "$failed" ]
