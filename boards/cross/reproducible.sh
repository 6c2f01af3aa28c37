#!/usr/bin/env bash
# Checks that builds are reproducible: builds the agent for a board from a copy of the sources, with another target folder
# and another CARGO_HOME, and compares the result with that of `make agent` byte for byte.
#
# BOARD=NAME, and the variables of build.sh
set -euo pipefail
# shellcheck source=boards/cross/target.sh
. "$(dirname "$0")/target.sh"

read_target
copy=$target_dir/reproducible
rm -rf "$copy"
mkdir -p "$copy/source" "$copy/cargo"

copy_sources() {
    (cd "$root" && tar --exclude=./target --exclude=./.git -cf - .) | tar -C "$copy/source" -xf -
}

# Copies the crates as fetched, so that they are unpacked again.
copy_registry() {
    local home=${CARGO_HOME:-$HOME/.cargo}
    mkdir -p "$copy/cargo/registry"
    for part in cache index; do
        [[ ! -d "$home/registry/$part" ]] || cp -a "$home/registry/$part" "$copy/cargo/registry/"
    done
    [[ ! -e "$home/config.toml" ]] || cp "$home/config.toml" "$copy/cargo/"
}

"$root/boards/cross/build.sh" agent
copy_sources
copy_registry
# The toolchain is shared: `make toolchain` doesn't build it from these sources.
mkdir -p "$copy/elsewhere"
[[ ! -d $toolchain_dir ]] || ln -s "$toolchain_dir" "$copy/elsewhere/toolchain"
say "Building again in $copy"
env CARGO_HOME="$copy/cargo" CARGO_TARGET_DIR="$copy/elsewhere" "$copy/source/boards/cross/build.sh" agent

one=$target_dir/board/$triple/dunlin-agent
two=$copy/elsewhere/board/$triple/dunlin-agent
sha256sum "$one" "$two"
if cmp "$one" "$two"; then
    say "Both builds are identical."
    rm -rf "$copy"
else
    die "two builds of the same sources differ" "Both are kept: compare them with strings and readelf -SW."
fi
