#!/usr/bin/env bash
# Makes a Python environment, gets what the checks compare with, and runs them. What it writes is in target/families.
# FAMILIES has options of families.py, such as --write.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
work=$target/families
venv=$work/venv
python=$venv/bin/python
requirements=bench/families/requirements.txt
mkdir -p "$work"

echo "1 of 5: the example that gives our ids"
"${CARGO:-cargo}" build --release --locked -p dunlin-lm --example ids

echo "2 of 5: a Python environment in $venv"
if ! cmp -s "$requirements" "$venv/complete"; then
    echo "getting torch and transformers: 3 GB to download, 6 GB on the disk; some minutes"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$venv/complete"
fi

echo "3 of 5: templates, vocabularies and llama.cpp's converter: 265 MB to download"
"$python" -B bench/families/fetch.py --out "$work/sources"

# llama.cpp's converter and the library gguf are in the sources.
llama=$(realpath "$work/sources/llama.cpp")
export PYTHONPATH=$llama/gguf-py:$llama PYTHONDONTWRITEBYTECODE=1
failed=0

echo "4 of 5: small models of many architectures"
# shellcheck disable=SC2086 # several options
"$python" bench/families/families.py --programs "$target/release" --work "$work/models" ${FAMILIES:-} || failed=1

echo "5 of 5: tokenizers and chat templates"
ids=$target/release/examples/ids
for part in vocabularies templates; do
    "$python" "bench/families/$part.py" --ids "$ids" --sources "$work/sources" --work "$work/$part" || failed=1
done
exit "$failed"
