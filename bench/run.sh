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
    -p dunlin-verifier --example scripted --example crowd --message-format json-render-diagnostics >"$programs"

grep -v '^#' bench/requirements.txt | VENV=$venv bench/peers.sh "$target/bench/peers.log"

exec "$venv/bin/python" bench/measure.py --programs "$programs" --out "$target/bench" \
    --requirements bench/requirements.txt
