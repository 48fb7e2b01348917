#!/usr/bin/env bash
# Types what README and docs/OPERATIONS.md tell a newcomer to type, line for line, and checks what is printed.
#
#   scripts/newcomer.sh           in a fresh clone with a fresh HOME, from `make demo` and `make test` on: half an hour
#   scripts/newcomer.sh --short   in a fresh clone, with the environment of this checkout: three minutes; .ci/run does it
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[[ $# -eq 0 || ($# -eq 1 && $1 == --short) ]] || { echo "usage: scripts/newcomer.sh [--short]" >&2; exit 2; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/home"
git clone --quiet "$here" "$folder/fairstrike"
export HOME=$folder/home
cd "$folder/fairstrike"
if [[ ${1:-} == --short ]]; then
    venv=${VENV:-.venv}
    [[ $venv == /* ]] || venv=$here/$venv
    exec_=("$venv/bin/python" scripts/newcomer.py --bin "$venv/bin" --scratch "$folder" trade quants parts drill)
else
    FAIRSTRIKE_DATA=${FAIRSTRIKE_DATA:-$here/../shared/data} make demo test
    exec_=(.venv/bin/python scripts/newcomer.py --bin "$PWD/.venv/bin" --scratch "$folder" trade quants parts drill)
fi
"${exec_[@]}"
