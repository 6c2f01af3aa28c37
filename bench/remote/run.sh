#!/usr/bin/env bash
# Builds llama.cpp's server from the source package of llama-cpp-python, once, and compares what an agent and a verifier
# before it write with the server's own text. What it makes is in target/remote.
#
# usage: run.sh
# exit codes: 0 all texts are equal; 1 a text differs, or a program failed
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
venv=${VENV:-$target/venv}
out=$target/remote
server=$out/build/bin/llama-server
mkdir -p "$out"

# The compiler is the only thing that this machine must have; cmake comes as a package of Python.
build_server() {
    local package
    command -v c++ >/dev/null || {
        echo "test-remote: a C++ compiler is missing: apt-get install g++" >&2
        exit 1
    }
    [[ -x "$venv/bin/pip" ]] || python3 -m venv "$venv"
    "$venv/bin/pip" install --disable-pip-version-check -q -r bench/remote/requirements.txt
    package=$(grep '^llama-cpp-python==' bench/requirements.txt)
    "$venv/bin/pip" download --disable-pip-version-check -q --no-deps --no-binary llama-cpp-python -d "$out" "$package"
    rm -rf "$out/source" && mkdir "$out/source"
    tar -xzf "$out"/llama_cpp_python-*.tar.gz -C "$out/source" --strip-components 1
    "$venv/bin/cmake" -S "$out/source/vendor/llama.cpp" -B "$out/build" -DCMAKE_BUILD_TYPE=Release \
        -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
        -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF
    "$venv/bin/cmake" --build "$out/build" --target llama-server -j "${JOBS:-$(nproc)}"
}

if [[ ! -x $server ]]; then
    echo "Building llama-server from source, once: 10 to 20 minutes on 2 cores (log: $out/build.log)"
    build_server >"$out/build.log" 2>&1 || {
        tail -n 20 "$out/build.log" >&2
        exit 1
    }
fi
python3 -B bench/remote/remote.py --bins "$target/release" --server "$server" --models "$target/models" --out "$out"
