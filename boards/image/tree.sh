#!/usr/bin/env bash
# Makes the image's tree and its file systems, as root of inside.sh: unpacks, configures in a chroot, packs.
# Usage: tree.sh BUILD DEBIAN DEB…; BUILD holds settings, overlay/ and boot/, and gets the file systems;
# DEBIAN is a file that lists Debian's packages, the DEBs are ours.
set -euo pipefail
# shellcheck source=boards/image/debian.sh
. "$(dirname "$0")/debian.sh"

main() {
    local build=$1 debian
    mapfile -t debian <"$2"
    shift 2
    local root=$build/root
    # shellcheck source=/dev/null
    . "$build/settings"
    configured "$build" "$root" "$@"
    rm -rf "$root/dunlin-build"
    "$HERE/pack.sh" "$build" "$root"
    rm -rf "$root"
}

prepare() {
    local build=$1 to=$2/dunlin-build
    mkdir -p "$to/bin" "$to/preinst"
    cp -r "$build/overlay" "$build/settings" "$HERE/configure.sh" "$HERE/settle.sh" "$to"
    chown -R 0:0 "$to/overlay"
    compatible "$2" >"$to/compatible"
    ! grep -Fxf "$to/compatible" "$2/$LOST" ||
        die "the board has the devices above, whose drivers were cut with a part of theirs: see MODULES_EXCLUDED in unpack.sh"
    # A key is the board's own and an initrd is made once: neither by a package's script.
    for name in ssh-keygen update-initramfs; do
        printf '#!/bin/sh\nexit 0\n' >"$to/bin/$name"
    done
    # The bundle is what programs read; the script's links to each certificate take a thousand emulated processes.
    printf '#!/bin/sh\ncat /usr/share/ca-certificates/mozilla/*.crt >/etc/ssl/certs/ca-certificates.crt\n' >"$to/bin/update-ca-certificates"
    chmod +x "$to"/bin/*
}

# compatible ROOT: what the board's device trees say is in it; the kernel finds drivers by these names.
compatible() {
    local tree
    for tree in $DEVICE_TREES; do
        dtc -q -I dtb -O dts "$1"/usr/lib/linux-image-*/"$tree" ||
            die "the kernel's package has no device tree $tree: see device_trees in the board's file"
    done | sed -n 's/^\s*compatible = "\(.*\)";$/\1/p' | sed 's/\\0/\n/g; s/", "/\n/g' | sort -u
}

# Debian alone is kept for the next build from the same packages; ours come on top.
configured() {
    local build=$1 root=$2 base
    shift 2
    base=$WORK/base/$(base_key).tar.zst
    if [[ -f $base ]]; then
        say "Taking Debian as it was configured before ($base)"
        mkdir "$root"
        tar -C "$root" --zstd --numeric-owner --xattrs --xattrs-include='*' -xpf "$base"
    else
        say "Unpacking ${#debian[@]} packages of Debian"
        "$HERE/unpack.sh" "$root" "${debian[@]}"
        prepare "$build" "$root"
        in_chroot "$root" debian
        rm -rf "$root/dunlin-build"
        mkdir -p "$WORK/base"
        tar -C "$root" --zstd --numeric-owner --sort=name --xattrs --xattrs-include='*' -cf "$base.new" .
        mv "$base.new" "$base"
    fi
    say "Unpacking $# packages of ours"
    [[ $# -eq 0 ]] || "$HERE/unpack.sh" "$root" "$@"
    prepare "$build" "$root"
    in_chroot "$root" ours
}

# What the configured Debian depends on: its packages, which are named by their hashes, and what configures them.
base_key() {
    {
        printf '%s\n' "$SOURCE_DATE_EPOCH" "${debian[@]}"
        cat "$HERE/configure.sh" "$HERE/unpack.sh" "$HERE/tree.sh"
    } | sha256sum | cut -c 1-16
}

in_chroot() {
    local root=$1 device
    mount -t proc proc "$root/proc"
    mount -t tmpfs run "$root/run"
    mount -t tmpfs -o mode=0755 dev "$root/dev"
    for device in null zero full random urandom; do
        : >"$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    done
    ln -s /proc/self/fd "$root/dev/fd"
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" /dunlin-build/configure.sh "$2" ||
        die "the packages could not be configured"
    umount -R "$root/dev" "$root/run" "$root/proc"
}

main "$@"
