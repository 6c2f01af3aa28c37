#!/usr/bin/env bash
# Builds a program for a board into target/board/<triple>/ and checks the result.
#
# usage: build.sh agent|verifier
#        build.sh --can          (builds nothing; succeeds if a program can be built here for every system of the board)
# BOARD=NAME
# BUILD_WITH=native|cross|zig|gnu  (the build method; by default the first one available)
# RUST=rustup|debian               (the Rust toolchain; by default this machine's own if it has the target's library)
set -euo pipefail
# shellcheck source=boards/cross/target.sh
. "$(dirname "$0")/target.sh"

case ${1:-} in
    agent | verifier) program=dunlin-$1 ;;
    --can) program= ;;
    *) die "usage: build.sh agent|verifier|--can" ;;
esac
case ${BUILD_WITH:-native} in
    native | cross | zig | gnu) ;;
    *) die "unknown BUILD_WITH=$BUILD_WITH; use native, cross, zig or gnu" ;;
esac

container_engine_answers() {
    local engine
    for engine in docker podman; do
        have "$engine" && timeout 20 "$engine" info >/dev/null 2>&1 && return
    done
    return 1
}

# Prints why a build method is unavailable, or nothing if it is available.
obstacle() {
    case $1 in
        native) is_native || printf 'this machine is %s' "$(host_triple)" ;;
        cross)
            have cross || { printf 'cross is not installed' && return; }
            container_engine_answers || printf 'no container engine is running'
            ;;
        zig)
            has_zig || { printf 'cargo-zigbuild is not installed' && return; }
            use_rust || printf 'no Rust toolchain here has the standard library for %s' "$triple"
            ;;
        gnu)
            has_gnu_linker || { printf '%s-gcc or its C library is not installed' "$gnu" && return; }
            use_rust || printf 'no Rust toolchain here has the standard library for %s' "$triple"
            ;;
    esac
}

# Sets way to the first available method, and passed to the reasons why those before it are unavailable.
find_way() {
    local candidate why
    passed=()
    for candidate in ${BUILD_WITH:-native cross zig gnu}; do
        why=$(obstacle "$candidate")
        [[ -n $why ]] || { way=$candidate && return; }
        passed+=("$candidate: $why")
    done
    return 1
}

choose_way() {
    local why chosen="the first method available"
    [[ -z ${BUILD_WITH:-} ]] || chosen="set by BUILD_WITH"
    find_way || die "$program can't be built here for board $BOARD ($triple)" "${passed[@]}" \
        "make toolchain BOARD=$BOARD installs what is missing."
    say "Board $BOARD is $triple. Building $program with $way ($chosen)."
    for why in "${passed[@]}"; do say "  not $why"; done
}

# Prints rustc's flags as a TOML list. They remap all paths of this machine, so that builds in two folders give equal binaries.
rustc_flags() {
    local flags=() folder feature features
    flags+=("--remap-path-prefix=$root=/dunlin")
    case $target_dir/ in "$root"/*) ;; *) flags+=("--remap-path-prefix=$target_dir=/dunlin/target") ;; esac
    for folder in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
        [[ -d $folder ]] && flags+=("--remap-path-prefix=${folder%/}=/crates")
    done
    features=$(board_get "$BOARD" build.cpu_features)
    for feature in $features; do flags+=("-Ctarget-feature=+$feature"); done
    printf '"%s",' "${flags[@]}"
}

# Run before rustc_flags: the registry's folders exist only once its crates are unpacked.
fetch_sources() { (cd "$root" && "$CARGO" fetch --quiet --locked --target "$triple"); }

compile() {
    local glibc command=() flags
    glibc=$(board_get "$BOARD" build.glibc)
    use_rust || true
    case $way in
        native) command=("$CARGO" build --target "$triple") ;;
        cross) command=(cross build --target "$triple") ;;
        zig)
            use_zig
            command=(cargo-zigbuild zigbuild --target "$triple${glibc:+.$glibc}")
            ;;
        gnu)
            command=("$CARGO" build --target "$triple" --config "target.$triple.linker=\"$gnu-gcc\"")
            ;;
    esac
    fetch_sources
    flags=$(rustc_flags)
    # These variables would override the flags and the linker given here.
    unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS
    unset "CARGO_TARGET_$(tr a-z- A-Z_ <<<"$triple")_LINKER" "CARGO_TARGET_$(tr a-z- A-Z_ <<<"$triple")_RUSTFLAGS"
    # One folder per method: cargo doesn't relink when only the linker changes.
    built=$target_dir/board/build-$way
    [[ -d "$built/$triple/board" ]] || say "First build for $triple: 200 crates, tract among them; 10 minutes and more on 2 cores."
    # A fixed date: crates with C code are rebuilt when it changes, and packages set it to the last commit's.
    (cd "$root" && SOURCE_DATE_EPOCH=315532800 CARGO_TARGET_DIR=$built "${command[@]}" \
        --config "target.$triple.rustflags=[$flags]" --profile board --locked -p "$program" --bin "$program")
}

read_target
if [[ -z $program ]]; then
    find_way || exit 1
    # GNU's linker links against this machine's glibc, which may be newer than the board's.
    [[ $way != gnu ]] || [[ -n ${GLIBC:-} ]] || [[ -z "$(board_get "$BOARD" build.glibc)" ]] || exit 1
    exit 0
fi
choose_way
compile
mkdir -p "$target_dir/board/$triple"
out=$target_dir/board/$triple/$program
"$root/boards/cross/check.sh" "$built/$triple/board/$program" "$way"
# Renamed into place, so that nobody finds half a program.
cp "$built/$triple/board/$program" "$out.new"
mv "$out.new" "$out"
say "$out"
