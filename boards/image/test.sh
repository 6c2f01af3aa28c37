#!/usr/bin/env bash
# Tests that every invalid input of an image is refused with its reason before anything is built. Needs no network.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=boards/common.sh
. "$here/../common.sh"
DUNLIN_BOARD=$(realpath "${DUNLIN_BOARD:-target/release/dunlin-board}")
WORK=$(mktemp -d)
export DUNLIN_BOARD WORK
trap 'rm -rf "$WORK"' EXIT
failed=0

# package NAME ARCHITECTURE MACHINE: makes a package whose program has this ELF machine (the bytes of e_machine).
package() {
    local dir=$WORK/$1
    mkdir -p "$dir/DEBIAN" "$dir/usr/bin"
    printf '\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0%b' "$3" >"$dir/usr/bin/dunlin-agent"
    printf 'Package: dunlin-agent\nVersion: 1\nArchitecture: %s\nMaintainer: T <t@t.invalid>\nDescription: test\n' "$2" >"$dir/DEBIAN/control"
    dpkg-deb --root-owner-group -Znone -b "$dir" "$WORK/$1.deb" >/dev/null
}

# refused NAME CODE TEXT COMMAND…: checks that the command ends with the code and prints the text.
refused() {
    local name=$1 code=$2 text=$3 got=0 said
    shift 3
    said=$("$@" 2>&1) || got=$?
    if [[ $got == "$code" && $said == *"$text"* && ! -e $WORK/build ]]; then
        say "ok    $name"
        return
    fi
    printf 'WRONG %s: it ended with code %s and printed\n%s\n' "$name" "$got" "$said"
    failed=1
}

# shellcheck disable=SC2016,SC2317  # expanded by the inner shell; called by name
without_space() {
    mkdir "$WORK/small"
    WORK=$WORK/small "$here/inside.sh" bash -c 'mount -t tmpfs -o size=64m tmpfs "$WORK" && "$@"' bash "$@"
}

package right arm64 '\xb7\x00'
package foreign amd64 '\x3e\x00'
package swapped arm64 '\x3e\x00'
mkdir -p "$WORK/model/drafter" "$WORK/broken"
touch "$WORK/model/tokenizer.json"
cp "$here"/*.sh "$here/packages.txt" "$WORK/broken"
cp "$here"/../{common,need}.sh "$WORK"
echo 'no lock' >"$WORK/broken/packages.lock"
build=$here/build.sh

refused "a board that isn't there" 2 'rpi9' "$build" rpi9 "$WORK/right.deb"
refused "a board without an image" 1 'board host has no image' "$build" host "$WORK/right.deb"
refused "a package that isn't there" 1 'make package' "$build" virt "$WORK/none.deb"
refused "a package of another architecture" 1 'is for amd64' "$build" virt "$WORK/foreign.deb"
refused "a program of another architecture" 1 'is not for arm64' "$build" virt "$WORK/swapped.deb"
refused "a folder that is not a model" 1 'it has no drafter/drafter.onnx' env MODEL="$WORK/model" "$build" virt "$WORK/right.deb"
refused "firmware that is not a folder" 1 'is not a folder' env FIRMWARE="$WORK/none" "$build" virt "$WORK/right.deb"
refused "an invalid lock" 1 "no line '# epoch SECONDS'" "$WORK/broken/build.sh" virt "$WORK/right.deb"
refused "an unknown word for the lock" 1 'unknown LOCK=newest' env LOCK=newest "$build" virt "$WORK/right.deb"
sed '/ wpasupplicant /d' "$here/packages.lock" >"$WORK/broken/packages.lock"
refused "a lock that lacks a package" 1 'has no wpasupplicant for virt' "$WORK/broken/build.sh" virt "$WORK/right.deb"
sed '/ u-boot-qemu /d' "$here/packages.lock" >"$WORK/broken/packages.lock"
refused "a lock that lacks U-Boot" 1 'has no u-boot-qemu for virt' "$WORK/broken/build.sh" virt "$WORK/right.deb"
refused "no space" 1 'MiB free, and an image needs' without_space "$build" virt "$WORK/right.deb"
refused "a mirror without the packages" 3 'did not provide' env MIRROR=http://127.0.0.1:9 MIRROR_SECURITY=http://127.0.0.1:9 \
    "$build" virt "$WORK/right.deb"
exit "$failed"
