#!/usr/bin/env bash
# Installs the peers that standard input lists, one NAME==VERSION a line, each by itself. One that
# can't be had is a gap in a table.
#
# usage: peers.sh LOG
set -euo pipefail
log=$1
venv=${VENV:-${CARGO_TARGET_DIR:-target}/venv}
mkdir -p "$(dirname "$log")"
: >"$log"
[[ -x "$venv/bin/pip" ]] || python3 -m venv "$venv"

# llama.cpp is built for this very machine, as its users build it; the vision part is left out.
export CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF"
while read -r peer; do
    "$venv/bin/python" bench/has.py "$peer" && continue
    case $peer in
        llama-cpp-python*) echo "Building $peer from source, once: 5 to 10 minutes on 2 cores (log: $log)" ;;
        *) echo "Installing $peer" ;;
    esac
    build=()
    [[ $peer == llama-cpp-python* ]] && build=(--no-binary llama-cpp-python)
    "$venv/bin/pip" install --disable-pip-version-check "${build[@]}" "$peer" >>"$log" 2>&1 </dev/null ||
        echo "Can't get $peer, so it is missing below; the reason is in $log"
done
