#!/usr/bin/env bash
# Runs a command as root of a user namespace that can execute arm64 programs through a binfmt_misc of its own, so that
# nothing on the machine changes.
#
# usage: inside.sh --can        (only checks whether this is possible)
#        inside.sh COMMAND…
#
# A normal user needs subordinate ids (package uidmap, /etc/subuid). A binfmt_misc per namespace needs Linux 6.7; on an
# older kernel the machine's own must have arm64 registered, as Debian's qemu-user-static does.
set -euo pipefail
# shellcheck source=boards/image/debian.sh
. "$(dirname "$0")/debian.sh"

QEMU=$(command -v qemu-aarch64-static || true)
# Matches arm64 programs and libraries: a pattern and its mask in the kernel's notation. The interpreter's path follows.
ARM64=':dunlin-arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:'

main() {
    case $1 in
        --can) with_ids "$0" --prepared true || die "this machine can't run arm64 programs in a namespace" \
            "It needs user namespaces, /etc/subuid for $(id -un), and Linux 6.7 or arm64 in the machine's binfmt_misc." \
            "apt-get install qemu-user-static uidmap" ;;
        --prepared)
            shift
            prepare
            "$@"
            ;;
        *) with_ids "$0" --prepared "$@" ;;
    esac
}

# Runs a command as root of a namespace with 65536 ids: a normal user's subordinate ids, or root's own.
with_ids() {
    if [[ $(id -u) != 0 ]]; then
        unshare --user --map-root-user --map-auto --mount --pid --fork --kill-child "$@"
        return
    fi
    local gate pid code=0
    gate=$(mktemp -d)
    mkfifo "$gate/go"
    # shellcheck disable=SC2016  # expanded by the inner shell
    unshare --user --mount --pid --fork --kill-child bash -c 'echo >"$1/in"; read -r <"$1/go"; shift; exec "$@"' bash "$gate" "$@" &
    pid=$!
    until [[ -s $gate/in ]]; do
        kill -0 "$pid" 2>/dev/null || {
            rm -r "$gate"
            return 1
        }
        read -rt 0.02 <> <(:) || true
    done
    echo "0 0 65536" >"/proc/$pid/uid_map"
    echo "0 0 65536" >"/proc/$pid/gid_map"
    echo >"$gate/go"
    wait "$pid" || code=$?
    rm -r "$gate"
    return "$code"
}

prepare() {
    mkdir -p "$WORK/binfmt"
    if mount -t binfmt_misc binfmt_misc "$WORK/binfmt" 2>"$WORK/binfmt.log"; then
        echo "$ARM64$QEMU:FPC" >"$WORK/binfmt/register"
    else
        grep -q '^enabled' /proc/sys/fs/binfmt_misc/qemu-aarch64
    fi
}

main "$@"
