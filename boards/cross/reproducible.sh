#!/usr/bin/env bash
# Builds the agent for a board once more, from a copy of the sources in another folder, with another target folder and
# another home of cargo, and compares the bytes with those of `make agent`.
#
# BOARD=NAME, and what build.sh takes
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

# The crates as they were fetched; they are unpacked anew.
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
# What `make toolchain` made is used from where it is: it isn't built from these sources.
mkdir -p "$copy/elsewhere"
[[ ! -d $toolchain_dir ]] || ln -s "$toolchain_dir" "$copy/elsewhere/toolchain"
say "Once more, in $copy"
env CARGO_HOME="$copy/cargo" CARGO_TARGET_DIR="$copy/elsewhere" "$copy/source/boards/cross/build.sh" agent

one=$target_dir/board/$triple/dunlin-agent
two=$copy/elsewhere/board/$triple/dunlin-agent
sha256sum "$one" "$two"
if cmp "$one" "$two"; then
    say "The same bytes."
    rm -rf "$copy"
else
    die "two builds of the same sources differ" "Both are kept: compare what 'strings' and 'readelf -SW' say of them."
fi
