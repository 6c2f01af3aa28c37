#!/usr/bin/env bash
# Builds a program for a board into target/board/<triple>/ and checks what came out.
#
# usage: build.sh agent|verifier
#        build.sh --can          (builds nothing: whether there is a way to programs for each of the board's systems)
# BOARD=NAME
# BUILD_WITH=native|cross|zig|gnu  (which way; left out, the first that is there)
# RUST=rustup|debian               (whose Rust; left out, the machine's own where it has the target's library)
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
    *) die "BUILD_WITH=$BUILD_WITH is none of native, cross, zig, gnu" ;;
esac

container_engine_answers() {
    local engine
    for engine in docker podman; do
        have "$engine" && timeout 20 "$engine" info >/dev/null 2>&1 && return
    done
    return 1
}

# Why a way can't be taken; nothing where it can.
obstacle() {
    case $1 in
        native) is_native || printf 'this machine is %s' "$(host_triple)" ;;
        cross)
            have cross || { printf 'cross is not installed' && return; }
            container_engine_answers || printf 'no container engine answers'
            ;;
        zig)
            has_zig || { printf 'cargo-zigbuild is not installed' && return; }
            use_rust || printf 'no Rust here has the standard library of %s' "$triple"
            ;;
        gnu)
            has_gnu_linker || { printf '%s-gcc or its C library is not installed' "$gnu" && return; }
            use_rust || printf 'no Rust here has the standard library of %s' "$triple"
            ;;
    esac
}

# Sets way to the first that can be taken, and passed to why those before it can't.
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
    local why chosen="the first that is here"
    [[ -z ${BUILD_WITH:-} ]] || chosen="as BUILD_WITH says"
    find_way || die "$program can't be built for board $BOARD ($triple) here" "${passed[@]}" \
        "make toolchain BOARD=$BOARD installs what is missing."
    say "Board $BOARD is $triple. Building $program by $way: $chosen."
    for why in "${passed[@]}"; do say "  not by $why"; done
}

# Flags of rustc as a TOML list: no path of this machine may reach the binary, or two folders would give two binaries.
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

# The folders of the registry are known only once it has been unpacked.
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
    # cargo takes these in place of the flags and the linker given here.
    unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS
    unset "CARGO_TARGET_$(tr a-z- A-Z_ <<<"$triple")_LINKER" "CARGO_TARGET_$(tr a-z- A-Z_ <<<"$triple")_RUSTFLAGS"
    # One folder for each way: cargo doesn't link again for another linker.
    built=$target_dir/board/build-$way
    [[ -d "$built/$triple/board" ]] || say "First build for $triple: 200 crates, tract among them; 10 minutes and more on 2 cores."
    # A date of its own: crates with C in them are built anew for another one, and a package's is the last commit's.
    (cd "$root" && SOURCE_DATE_EPOCH=315532800 CARGO_TARGET_DIR=$built "${command[@]}" \
        --config "target.$triple.rustflags=[$flags]" --profile board --locked -p "$program" --bin "$program")
}

read_target
if [[ -z $program ]]; then
    find_way || exit 1
    # GNU's linker takes this machine's glibc, whatever the board has.
    [[ $way != gnu ]] || [[ -n ${GLIBC:-} ]] || [[ -z "$(board_get "$BOARD" build.glibc)" ]] || exit 1
    exit 0
fi
choose_way
compile
mkdir -p "$target_dir/board/$triple"
out=$target_dir/board/$triple/$program
"$root/boards/cross/check.sh" "$built/$triple/board/$program" "$way"
# In one step, so that nobody finds half a program.
cp "$built/$triple/board/$program" "$out.new"
mv "$out.new" "$out"
say "$out"
