#!/usr/bin/env bash
# Builds what is measured, gets llama.cpp, and measures models of the paper's size. What it writes is in target/paper-size.
# SIZE=small takes models of two layers; PAPER has options of paper.py, such as --kinds q4_k_m --keep.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
venv=${VENV:-$target/venv}
work=$target/paper-size
options=()
SIZE=${SIZE:-full}
case $SIZE in
    full) ;;
    small)
        work+=-small
        options+=(--small)
        ;;
    *)
        echo "SIZE=$SIZE is unknown: use full or small"
        exit 1
        ;;
esac
mkdir -p "$work"

"${CARGO:-cargo}" build --release --locked -p dunlin-agent -p dunlin-verifier
# One line of JSON for each program built; the messages for people go to the terminal.
"${CARGO:-cargo}" build --release --locked -p dunlin-stand --bench drafter --bench target \
    --message-format json-render-diagnostics >"$work/programs.json"

grep -E '^(numpy|llama-cpp-python)=' bench/requirements.txt | VENV=$venv bench/peers.sh "$work/peers.log"
"$venv/bin/python" -c 'import llama_cpp' 2>/dev/null && options+=(--peer)

# shellcheck disable=SC2086 # several options
exec "$venv/bin/python" -B bench/paper/paper.py --programs "$work/programs.json" --bin "$target/release" \
    --work "$work" "${options[@]}" ${PAPER:-}
