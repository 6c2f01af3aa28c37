#!/usr/bin/env bash
# Makes the image's tree and its file systems: unpacks packages, configures them in a chroot, packs the result. Run by
# inside.sh, as root of its namespace.
#
# usage: tree.sh BUILD DEBIAN DEB…   (BUILD has settings, overlay/ and boot/ and receives the file systems; DEBIAN is a
#                                    file that lists Debian's packages; the DEBs are our own)
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
        die "the board has the devices above, whose drivers were removed together with a module they need" \
            "See MODULES_EXCLUDED in unpack.sh."
    # No package script may make a host key, which belongs to one board, or an initrd, which is made once at the end.
    for name in ssh-keygen update-initramfs; do
        printf '#!/bin/sh\nexit 0\n' >"$to/bin/$name"
    done
    # Programs read the bundle. The original script also links every certificate, which takes a thousand emulated processes.
    printf '#!/bin/sh\ncat /usr/share/ca-certificates/mozilla/*.crt >/etc/ssl/certs/ca-certificates.crt\n' >"$to/bin/update-ca-certificates"
    chmod +x "$to"/bin/*
}

# compatible ROOT: prints the names of the devices in the board's device trees, by which the kernel finds drivers.
compatible() {
    local tree
    for tree in $DEVICE_TREES; do
        dtc -q -I dtb -O dts "$1"/usr/lib/linux-image-*/"$tree" ||
            die "the kernel's package has no device tree $tree" "See device_trees in the board's file."
    done | sed -n 's/^\s*compatible = "\(.*\)";$/\1/p' | sed 's/\\0/\n/g; s/", "/\n/g' | sort -u
}

# Configures Debian's packages, or takes the result from an earlier build with the same packages; then ours.
configured() {
    local build=$1 root=$2 base
    shift 2
    base=$WORK/base/$(base_key).tar.zst
    if [[ -f $base ]]; then
        say "Using Debian as configured earlier ($base)"
        mkdir "$root"
        tar -C "$root" --zstd --numeric-owner --xattrs --xattrs-include='*' -xpf "$base"
    else
        say "Unpacking ${#debian[@]} Debian packages"
        "$HERE/unpack.sh" "$root" "${debian[@]}"
        prepare "$build" "$root"
        in_chroot "$root" debian
        rm -rf "$root/dunlin-build"
        mkdir -p "$WORK/base"
        tar -C "$root" --zstd --numeric-owner --sort=name --xattrs --xattrs-include='*' -cf "$base.new" .
        mv "$base.new" "$base"
    fi
    say "Unpacking $# packages of our own"
    [[ $# -eq 0 ]] || "$HERE/unpack.sh" "$root" "$@"
    prepare "$build" "$root"
    in_chroot "$root" ours
}

# Prints a hash of everything the configured Debian depends on: its packages, named by their hashes, and these scripts.
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
