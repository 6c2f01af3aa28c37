# shellcheck shell=bash
# Shared by the scripts for cross builds: facts about targets, and the choice of the Rust toolchain. Sourced, not run.
# BOARD names the board.
# shellcheck disable=SC2034  # Used by the scripts that source this.
# shellcheck source=boards/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

toolchain_dir=$target_dir/toolchain
BOARD=${BOARD:-rpi4}

case ${RUST:-any} in any | rustup | debian) ;; *) die "unknown RUST=$RUST; use rustup or debian" ;; esac

need_rust() {
    if have "$CARGO" && have rustc; then return; fi
    die "Rust is missing" "See https://rustup.rs, or: apt-get install rustup"
}

host_triple() { rustc -vV | sed -n 's/^host: //p'; }

# Sets triple, gnu (the prefix of GNU's tools), arch (Debian's name), machine (readelf's name) and qemu.
read_target() {
    need_rust
    triple=$(board_get "$BOARD" build.target)
    triple=${triple:-$(host_triple)}
    target_facts
}

target_facts() {
    case $triple in
        aarch64-unknown-linux-gnu)
            gnu=aarch64-linux-gnu arch=arm64 machine=AArch64 qemu=qemu-aarch64-static
            ;;
        armv7-unknown-linux-gnueabihf)
            gnu=arm-linux-gnueabihf arch=armhf machine=ARM qemu=qemu-arm-static
            ;;
        x86_64-unknown-linux-gnu)
            gnu=x86_64-linux-gnu arch=amd64 machine='Advanced Micro Devices X86-64' qemu=qemu-x86_64-static
            ;;
        *)
            die "board $BOARD has the unknown target $triple" \
                "Known targets: aarch64-unknown-linux-gnu, armv7-unknown-linux-gnueabihf and x86_64-unknown-linux-gnu." \
                "Correct build.target in the board's file, or add the target to boards/cross/target.sh."
            ;;
    esac
}

# Prints the machine that the program $1 is for, as readelf names it, or nothing if the file isn't a program.
machine_of() { readelf -h "$1" 2>/dev/null | sed -n 's/^ *Machine: *//p'; }

# Prints the newest glibc symbol version that the program $1 needs.
glibc_needed() { readelf -W --dyn-syms "$1" | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -n 1 | sed 's/GLIBC_//'; }

is_native() { [[ $triple == "$(host_triple)" ]]; }

# Succeeds if the compiler $1 has the target's standard library.
rustc_has_std() {
    local lib
    lib=$("$1" --print target-libdir --target "$triple" 2>/dev/null) && compgen -G "$lib/libstd-*.rlib" >/dev/null
}

debian_rust=$toolchain_dir/debian-rust
debian_rust_has_std() { [[ -e "$debian_rust/ready-$triple" ]]; }

# Chooses the Rust toolchain for the target: this machine's own, or Debian's as unpacked by `make toolchain`.
# RUST=rustup|debian forces one. Sets rust_said to its version, for messages.
use_rust() {
    if [[ ${RUST:-} != debian ]] && rustc_has_std rustc; then
        rust_said="$(rustc -V)"
    elif [[ ${RUST:-} != rustup ]] && debian_rust_has_std; then
        export RUSTC=$debian_rust/bin/rustc RUSTDOC=$debian_rust/bin/rustdoc
        rust_said="$("$RUSTC" -V), Debian's"
    else
        return 1
    fi
}

need_std() {
    use_rust || die "no Rust toolchain here has the standard library for $triple" \
        "make toolchain BOARD=$BOARD installs it."
}

zig_dir=$toolchain_dir/zig
zig_ready() { [[ -e "$zig_dir/ready" ]]; }
has_zig() { zig_ready || { have cargo-zigbuild && { have zig || python3 -c 'import ziglang' 2>/dev/null; }; }; }
use_zig() { if zig_ready; then export PATH=$zig_dir/bin:$PATH; fi; }

has_gnu_linker() { have "$gnu-gcc" && [[ -e "/usr/$gnu/lib/libc.so.6" ]]; }
