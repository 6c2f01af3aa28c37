#!/usr/bin/env bash
# Names the Debian packages that an image's build lacks on this machine, and fails where there are any.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
missing=()
for entry in ar:binutils chroot:coreutils dpkg-deb:dpkg fdtget:device-tree-compiler mcopy:mtools \
    mke2fs:e2fsprogs mkfs.fat:dosfstools modinfo:kmod newuidmap:uidmap sfdisk:fdisk unshare:util-linux zstd:zstd \
    qemu-aarch64-static:qemu-user-static; do
    command -v "${entry%%:*}" >/dev/null || missing+=("${entry#*:}")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0
echo "${missing[*]}"
exit 1
