#!/usr/bin/env bash
# Lists what a board's build needs and installs what is missing. Safe to repeat and to interrupt: an unpacked part counts
# as installed only once its `ready` file is written.
#
# usage: toolchain.sh [std] [linker] [zig] [emulator]   (all of them by default)
# BOARD=NAME  RUST=rustup|debian (the source of the standard library)
# DEBIAN_MIRROR=URL DEBIAN_SECURITY_MIRROR=URL (Debian's mirrors; by default those of apt)
set -euo pipefail
# shellcheck source=boards/cross/target.sh
. "$(dirname "$0")/target.sh"

# Pinned: both versions determine the bytes of the built programs.
zigbuild_version=0.24.1
zig_version=0.17.1

std() {
    if use_rust; then
        say "standard library of $triple: present ($rust_said)"
        return
    fi
    say "standard library of $triple: missing"
    if [[ ${RUST:-} != debian ]] && std_from_rustup; then
        say "  installed by rustup"
        return
    fi
    [[ ${RUST:-} == rustup ]] && die "rustup has no $triple, and RUST=rustup excludes Debian's Rust"
    "$root/boards/cross/debian-rust.sh" "$triple" || exit 1
    use_rust || die "Debian's Rust was unpacked but has no $triple" "Remove $debian_rust and try again."
    say "  installed: $rust_said"
}

std_from_rustup() {
    have rustup || {
        say "  rustup is not installed"
        return 1
    }
    say "  installing it with rustup"
    timeout 300 rustup target add "$triple" >/dev/null 2>&1 && rustc_has_std rustc && return
    say "  rustup can't install it here; trying Debian's"
    return 1
}

linker() {
    if has_gnu_linker; then
        say "linker $gnu-gcc: present"
    else
        say "linker $gnu-gcc: missing"
        install_packages "gcc-$gnu" "libc6-dev-$arch-cross"
    fi
}

zig() {
    if has_zig; then
        say "cargo-zigbuild, for binaries that run on older systems: present"
        return
    fi
    say "cargo-zigbuild, for binaries that run on older systems: missing"
    if zig_from_pip; then
        say "  installed cargo-zigbuild $zigbuild_version with zig $zig_version"
    else
        rm -rf "$zig_dir"
        say "  pip couldn't install it (see above). Builds use $gnu-gcc and need this system's glibc or a newer one."
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
        say "emulator $qemu, for the tests: present"
    else
        say "emulator $qemu, for the tests: missing"
        install_packages qemu-user-static
    fi
}

native() {
    say "This machine has the same target, so only Rust and a C compiler are needed."
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
