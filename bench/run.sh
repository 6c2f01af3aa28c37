#!/usr/bin/env bash
# Builds what is measured, gets the peers, and measures. What it writes is in target/bench.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
venv=${VENV:-$target/venv}
programs=$target/bench/programs.json
mkdir -p "$target/bench"

# One line of JSON for each program built; the messages for people go to the terminal.
"${CARGO:-cargo}" build --release --locked -p dunlin-stand --benches \
    -p dunlin-verifier --example scripted --message-format json-render-diagnostics >"$programs"

[[ -x "$venv/bin/pip" ]] || python3 -m venv "$venv"

# llama.cpp is built for this very machine, as its users build it; the vision part is left out.
export CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF"
log=$target/bench/peers.log
: >"$log"
grep -v '^#' bench/requirements.txt | while read -r peer; do
    "$venv/bin/python" bench/has.py "$peer" && continue
    case $peer in
        llama-cpp-python*) echo "Building $peer from source, once: 5 to 10 minutes on 2 cores (log: $log)" ;;
        *) echo "Installing $peer" ;;
    esac
    build=()
    [[ $peer == llama-cpp-python* ]] && build=(--no-binary llama-cpp-python)
    "$venv/bin/pip" install --disable-pip-version-check "${build[@]}" "$peer" >>"$log" 2>&1 ||
        echo "Can't get $peer, so it is missing below; the reason is in $log"
done

exec "$venv/bin/python" bench/measure.py --programs "$programs" --out "$target/bench" \
    --requirements bench/requirements.txt
