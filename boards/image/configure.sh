#!/bin/sh
# Configures the unpacked packages as Debian's installer would, in a chroot, on their own architecture.
#
# usage: configure.sh debian|ours   (Debian's packages come first, then our own and the image's settings)
set -eu
export PATH=/dunlin-build/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true DPKG_MAINTSCRIPT_ARCH=arm64
# Packages must not make an initrd: one is made at the end.
export INITRD=No

main() {
    # shellcheck source=/dev/null
    . /dunlin-build/settings
    export SOURCE_DATE_EPOCH
    before_unpacking
    say "Configuring the packages"
    logged dpkg --configure -a --force-confold --force-unsafe-io
    if [ "$1" = ours ]; then
        make_initrd
        say "Settling the image"
        cp -a /dunlin-build/overlay/. /
        logged sh -eu /dunlin-build/settle.sh
    fi
}

# Lists the remaining kernel modules, and makes an initrd with those that are needed to mount the root.
make_initrd() {
    say "Making the initrd"
    cp -a /dunlin-build/overlay/etc/initramfs-tools/. /etc/initramfs-tools
    kernel=$(basename /lib/modules/*)
    depmod "$kernel"
    logged /usr/sbin/mkinitramfs -o /boot/initrd "$kernel"
}

say() { echo "  $*"; }

logged() {
    "$@" >/dunlin-build/log 2>&1 </dev/null && return
    tail -n 30 /dunlin-build/log
    echo "image: $* failed"
    exit 1
}

# Runs the preinst scripts, which could not run during unpacking, in the same order; base-passwd's creates the users first.
before_unpacking() {
    for script in /dunlin-build/preinst/*.base-passwd /dunlin-build/preinst/*; do
        [ -x "$script" ] || continue
        DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_PACKAGE=${script##*.} logged "$script" install
        rm "$script"
    done
}

main "$@"
