#!/usr/bin/env bash
# Checks the packages of BOARD= without installing them: runs lintian, builds them again and compares the bytes, and starts
# the program of another architecture under emulation.
set -euo pipefail
# shellcheck source=boards/cross/target.sh
. "$(dirname "$0")/../cross/target.sh"

here=$root/boards/package
packages=$target_dir/packages

# Prints the packages for an architecture, including the model's.
debs() { find "$packages" -name "dunlin-*_$1.deb" -o -name 'dunlin-*_all.deb' | sort; }

lint() {
    local found
    mapfile -t found < <(debs "$arch")
    [[ ${#found[@]} -ge 2 ]] || die "there are no packages for $arch in $packages" "make package BOARD=$BOARD builds them."
    lintian --allow-root --fail-on error,warning --tag-display-limit 0 "${found[@]}"
    say "lintian: no errors and no warnings besides the overrides, in ${#found[@]} packages for $arch"
}

same_bytes_twice() {
    local again=$target_dir/package-again deb name names=()
    for deb in $(debs "$arch"); do
        name=$(basename "$deb")
        name=${name%%_*}
        names+=("${name#dunlin-}")
    done
    rm -rf "$again"
    PREBUILT=1 PACKAGE_DIR=$again "$here/build.sh" "${names[@]}" >/dev/null
    for deb in "$again"/*.deb; do
        cmp "$deb" "$packages/$(basename "$deb")" || die "$(basename "$deb") differs when built again" \
            "Was it built from this commit? Run make package BOARD=$BOARD, then check again."
    done
    rm -r "$again"
    say "built again: identical"
}

starts_under_emulation() {
    local dir=$target_dir/package-unpacked
    is_native && return
    if ! have "$qemu" || [[ ! -d "/usr/$gnu" ]]; then
        say "skipped starting the program for $arch ($qemu or libc6-dev-$arch-cross is missing)"
        return
    fi
    rm -rf "$dir"
    dpkg-deb -x "$packages"/dunlin-agent_*_"$arch".deb "$dir"
    "$qemu" -L "/usr/$gnu" "$dir/usr/bin/dunlin-agent" --version
    say "the agent for $arch starts under emulation"
}

read_target
lint
same_bytes_twice
starts_under_emulation
