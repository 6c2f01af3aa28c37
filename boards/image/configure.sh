#!/bin/sh
# Configures the unpacked packages as Debian's installer would, on their own architecture: in a chroot, or as the first
# process of an emulated machine, which then writes the finished tree to its disk as a tar.
# Usage: configure.sh [debian|ours]; in a chroot Debian's packages come first and ours after them, in a machine all at once.
set -eu
export PATH=/dunlin-build/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true DPKG_MAINTSCRIPT_ARCH=arm64
# No initrd a package: one is made at the end.
export INITRD=No

main() {
    stage=${1:-all}
    [ "$stage" != all ] || machine
    # shellcheck source=/dev/null
    . /dunlin-build/settings
    export SOURCE_DATE_EPOCH
    before_unpacking
    say "Configuring the packages"
    logged dpkg --configure -a --force-confold --force-unsafe-io
    if [ "$stage" != debian ]; then
        make_initrd
        say "Settling the image"
        cp -a /dunlin-build/overlay/. /
        logged sh -eu /dunlin-build/settle.sh
    fi
    [ "$stage" != all ] || write_tree
}

# The modules that are left after unpacking, and an initrd with those that reach the root.
make_initrd() {
    say "Making the initrd"
    cp -a /dunlin-build/overlay/etc/initramfs-tools/. /etc/initramfs-tools
    kernel=$(basename /lib/modules/*)
    depmod "$kernel"
    logged /usr/sbin/mkinitramfs -o /boot/initrd "$kernel"
}

say() { echo "  $*"; }

logged() { "$@" >/dunlin-build/log 2>&1 </dev/null || { tail -n 30 /dunlin-build/log; echo "image: $* failed"; exit 1; }; }

# The preinst scripts that the unpacking could not run, in its order; base-passwd's makes the users first.
before_unpacking() {
    for script in /dunlin-build/preinst/*.base-passwd /dunlin-build/preinst/*; do
        [ -x "$script" ] || continue
        DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_PACKAGE=${script##*.} logged "$script" install
        rm "$script"
    done
}

machine() {
    trap '[ $? != 0 ] || echo "dunlin-build: done"; sync; echo o >/proc/sysrq-trigger; sleep 60' EXIT
    mount -t proc proc /proc
    mount -t sysfs sys /sys
    mount -t devtmpfs dev /dev
    mount -t tmpfs run /run
}

write_tree() {
    say "Writing the tree"
    modprobe virtio_mmio
    modprobe virtio_blk
    for _ in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/vda ] || sleep 1; done
    tar -C / --one-file-system --numeric-owner --sort=name --xattrs --xattrs-include='*' --exclude=./dunlin-build -cf /dev/vda .
    sync
}

main "$@"
