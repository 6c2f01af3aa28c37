#!/usr/bin/env bash
# Says what a board's build needs, what of it is there, and installs the rest. Safe to repeat and to interrupt: what is
# unpacked or installed counts only once its `ready` file is written.
#
# usage: toolchain.sh [std] [linker] [zig] [emulator]   (all of them where none is named)
# BOARD=NAME  RUST=rustup|debian (where the standard library may come from)
# DEBIAN_MIRROR=URL DEBIAN_SECURITY_MIRROR=URL (where Debian's packages come from; as a rule what apt uses)
set -euo pipefail
# shellcheck source=boards/cross/target.sh
. "$(dirname "$0")/target.sh"

# Both fix the bytes of what is built.
zigbuild_version=0.24.1
zig_version=0.17.1

std() {
    if use_rust; then
        say "standard library of $triple: there ($rust_said)"
        return
    fi
    say "standard library of $triple: missing"
    if [[ ${RUST:-} != debian ]] && std_from_rustup; then
        say "  installed by rustup"
        return
    fi
    [[ ${RUST:-} == rustup ]] && die "rustup has no $triple, and RUST=rustup rules Debian's out"
    "$root/boards/cross/debian-rust.sh" "$triple" || exit 1
    use_rust || die "Debian's Rust was unpacked, but doesn't have $triple" "Remove $debian_rust and try again."
    say "  installed: $rust_said"
}

std_from_rustup() {
    have rustup || {
        say "  there is no rustup here"
        return 1
    }
    say "  asking rustup"
    timeout 300 rustup target add "$triple" >/dev/null 2>&1 && rustc_has_std rustc && return
    say "  rustup can't get it here; Debian has one"
    return 1
}

linker() {
    if has_gnu_linker; then
        say "linker $gnu-gcc: there"
    else
        say "linker $gnu-gcc: missing"
        install_packages "gcc-$gnu" "libc6-dev-$arch-cross"
    fi
}

zig() {
    if has_zig; then
        say "cargo-zigbuild, for binaries that run on older systems: there"
        return
    fi
    say "cargo-zigbuild, for binaries that run on older systems: missing"
    if zig_from_pip; then
        say "  installed cargo-zigbuild $zigbuild_version with zig $zig_version"
    else
        rm -rf "$zig_dir"
        say "  pip couldn't get it (above). Builds go through $gnu-gcc and need this system's glibc or a newer one."
    fi
}

zig_from_pip() {
    python3 -c 'import venv, ensurepip' 2>/dev/null || install_packages python3 python3-venv
    rm -rf "$zig_dir"
    python3 -m venv "$zig_dir" &&
        "$zig_dir/bin/pip" install --quiet "cargo-zigbuild==$zigbuild_version" "ziglang==$zig_version" &&
        PATH=$zig_dir/bin:$PATH cargo-zigbuild --version >/dev/null &&
        touch "$zig_dir/ready"
}

emulator() {
    if have "$qemu"; then
        say "emulator $qemu, for the tests: there"
    else
        say "emulator $qemu, for the tests: missing"
        install_packages qemu-user-static
    fi
}

native() {
    say "This machine is of that kind: Rust and its C compiler are all that is needed."
    have cc || install_packages gcc libc6-dev
}

read_target
say "Board $BOARD: $triple"
mkdir -p "$toolchain_dir"
if is_native; then
    native
else
    for part in "${@:-all}"; do
        case $part in
            all)
                std
                linker
                zig
                emulator
                ;;
            std | linker | zig | emulator) "$part" ;;
            *) die "usage: toolchain.sh [std] [linker] [zig] [emulator]" ;;
        esac
    done
fi
(($# > 0)) || say "Ready: make agent BOARD=$BOARD"
