#!/usr/bin/env bash
# Checks a program that was built for a board (its machine, the glibc it needs, that it is stripped) and prints its size.
#
# usage: check.sh PROGRAM [WAY]   (BOARD names the board; WAY is the build method)
# GLIBC=2.34 accepts a program that needs that glibc, whatever the board's file allows
set -euo pipefail
# shellcheck source=boards/cross/target.sh
. "$(dirname "$0")/target.sh"

program=$1
way=${2:-}
name=$(basename "$program")
size_aim=$((10 * 1024 * 1024))

machine_is_right() {
    local found
    found=$(machine_of "$program")
    [[ $found == "$machine" ]] || die "$program is for '${found:-no machine}', but board $BOARD needs $machine ($triple)" \
        "Remove it and rebuild: make ${name#dunlin-} BOARD=$BOARD"
}

glibc_is_old_enough() {
    local needed allowed
    needed=$(glibc_needed "$program")
    allowed=${GLIBC:-$(board_get "$BOARD" build.glibc)}
    if [[ -z $allowed ]] || [[ "$(printf '%s\n' "$needed" "$allowed" | sort -V | tail -n 1)" == "$allowed" ]]; then
        say "  glibc: needs ${needed:-none}${allowed:+; board $BOARD has $allowed or newer}"
        return
    fi
    if [[ $way == native ]]; then
        say "  glibc: needs $needed, so it runs on this system and newer ones; board $BOARD may have $allowed only"
        return
    fi
    die "$name needs glibc $needed, but board $BOARD may have $allowed only" \
        "cargo-zigbuild builds for older systems: make toolchain BOARD=$BOARD, then rebuild." \
        "For boards with newer systems only: GLIBC=$needed make ${name#dunlin-} BOARD=$BOARD"
}

is_stripped() {
    if readelf -SW "$program" | grep -qE ' \.(symtab|debug_info) '; then
        die "$name still has its symbols" "The profile 'board' in Cargo.toml must have: strip = \"symbols\""
    fi
}

say_size() {
    local size
    size=$(stat -c %s "$program")
    awk -v size="$size" -v aim="$size_aim" -v name="$name" 'BEGIN {
        verdict = name != "dunlin-agent" ? "" : size <= aim ? ", within the aim of 10 MiB" : ", over the aim of 10 MiB"
        printf "  size: %.1f MiB (%d bytes)%s\n", size / 1048576, size, verdict }'
}

need readelf binutils
read_target
machine_is_right
say "$name for $triple:"
glibc_is_old_enough
is_stripped
say_size
