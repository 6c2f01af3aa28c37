#!/usr/bin/env bash
# Installs the programs that a job runs, where they are missing.
#
# usage: need.sh JOB            (SUDO= is the command put before apt-get)
#        need.sh --missing JOB  (installs nothing: prints the missing Debian packages, and fails if there are any)
set -euo pipefail
# shellcheck source=boards/common.sh
. "$(dirname "$0")/common.sh"

# For each job: its programs, each with the Debian package that contains it.
# shellcheck disable=SC2034
{
    image=(ar:binutils dpkg-deb:dpkg fdtget:device-tree-compiler mcopy:mtools mke2fs:e2fsprogs mkfs.fat:dosfstools mkimage:u-boot-tools modinfo:kmod
        newuidmap:uidmap qemu-aarch64-static:qemu-user-static sfdisk:fdisk unshare:util-linux zstd:zstd)
    boot=(qemu-system-aarch64:qemu-system-arm mcopy:mtools e2fsck:e2fsprogs fsck.fat:dosfstools ssh:openssh-client mosquitto:mosquitto
        mosquitto_passwd:mosquitto mosquitto_sub:mosquitto-clients)
    test=(mosquitto:mosquitto)
    race=(ip:iproute2 mosquitto:mosquitto nsenter:util-linux setpriv:util-linux unshare:util-linux)
    lint=(shellcheck:shellcheck shfmt:shfmt)
    figures=(qemu-aarch64:qemu-user qemu-system-aarch64:qemu-system-arm cc:gcc cpio:cpio debugfs:e2fsprogs sfdisk:fdisk)
    package=(dh:debhelper dpkg-buildpackage:dpkg-dev readelf:binutils)
    package_tests=("${package[@]}" lintian:lintian mmdebstrap:mmdebstrap systemd-nspawn:systemd-container)
}

# Prints the packages of all missing programs, each once.
missing() {
    local entry
    for entry in "$@"; do
        have "${entry%%:*}" || printf '%s\n' "${entry#*:}"
    done | sort -u
}

# The booted image's sensor is connected by an emulated USB cable, which some builds of QEMU lack.
emulator_has_cable() {
    local devices
    devices=$(qemu-system-aarch64 -device help 2>/dev/null) || die "qemu-system-aarch64 does not run"
    [[ $devices == *'"usb-redir"'* ]] ||
        die "this QEMU lacks the device usb-redir, which connects the power sensor" \
            "Debian's QEMU has it: apt-get install qemu-system-arm"
}

only_names=
[[ ${1:-} != --missing ]] || { only_names=yes && shift; }
case ${1:-} in
    test | race | lint | image | boot | figures | package | package_tests) declare -n job=$1 ;;
    *) die "usage: need.sh [--missing] test|race|lint|image|boot|figures|package|package_tests" ;;
esac
mapfile -t packages < <(missing "${job[@]}")
if [[ -n $only_names ]]; then
    [[ ${#packages[@]} == 0 ]] || { echo "${packages[*]}" && exit 1; }
    exit 0
fi
[[ ${#packages[@]} == 0 ]] || install_packages "${packages[@]}"
[[ $1 != boot ]] || emulator_has_cable
