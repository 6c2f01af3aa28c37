#!/usr/bin/env bash
# Runs cargo with the tools that build llama.cpp: cmake and libclang come as packages of Python where they are missing.
#
# usage: run.sh CARGO-ARGUMENT…
# GGML_CPU_REPACK=ON GGML_LLAMAFILE=ON builds the fast kind; give each kind a CARGO_TARGET_DIR of its own.
set -euo pipefail
cd "$(dirname "$0")/../.."

# Absolute: the build script of llama.cpp looks for cmake from a folder of its own.
venv=$(realpath -m "${VENV:-${CARGO_TARGET_DIR:-target}/venv}")

command -v c++ >/dev/null || {
    echo "llama.cpp needs a C++ compiler: apt-get install g++" >&2
    exit 1
}
if ! command -v cmake >/dev/null || [[ -z ${LIBCLANG_PATH:-} ]]; then
    [[ -x "$venv/bin/pip" ]] || python3 -m venv "$venv"
    "$venv/bin/pip" install --disable-pip-version-check -q -r bench/llamacpp/requirements.txt
    export PATH="$venv/bin:$PATH"
    clang=$("$venv/bin/python" -c 'import clang, os; print(os.path.join(os.path.dirname(clang.__file__), "native"))')
    export LIBCLANG_PATH=$clang
    # The library comes without the headers that a compiler has of its own.
    headers=$(cc -print-file-name=include)
    export BINDGEN_EXTRA_CLANG_ARGS="${BINDGEN_EXTRA_CLANG_ARGS:-} -I$headers"
fi
exec "${CARGO:-cargo}" "$@"
